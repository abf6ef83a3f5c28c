"""FRED-MD from end to end: number of factors, fit, R^2, diagnostics, nowcasts over vintages.

    python -m experiments.fredmd_nowcast [--quick] [--data FOLDER] [--out FOLDER]

Reads the monthly vintages in `fredmd_vintages`, writes tables (CSV) and pictures (PNG).
"""

import argparse
import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import jaxfc
from experiments.shared_data import shared_folder
from jaxfc import report
from jaxfc.factors.diagnostics import (
    outliers,
    r_squared,
    residual_corr,
    residual_tests,
    standardised_errors,
)
from jaxfc.factors.history import factor_contributions, historical_decomposition
from jaxfc.factors.news import news
from jaxfc.factors.panel_law import expected_panel


@dataclasses.dataclass(frozen=True)
class Config:
    """What is read and estimated. `target` is nowcast for `month` in every vintage."""

    estimation_vintage: str = "2018-12"
    vintages: tuple[str, ...] = tuple(
        f"{month:%Y-%m}" for month in pd.date_range("2019-01-31", "2020-06-30", freq="ME")
    )
    start: str = "1985-01-31"
    num_series: int | None = None  # the first so many; None: all
    max_factors: int = 15
    num_lags: int = 2
    criterion: str = "ic2"
    rtol: float = 1e-5
    target: str = "INDPRO"
    month: str = "2020-04-30"
    news_vintages: tuple[str, str] = ("2020-04", "2020-05")
    news_month: str = "2020-05-31"
    horizon: int = 12
    data: str | None = None
    out: str = "fredmd_nowcast"


QUICK = Config(
    vintages=("2020-04", "2020-05", "2020-06"),
    start="2010-01-31",
    num_series=30,
    max_factors=5,
    num_lags=1,
    rtol=1e-3,
)


def read_vintage(config: Config, vintage: str) -> jaxfc.Panel:
    """One vintage, transformed by its own codes, from `start` on."""
    folder = shared_folder(config.data, "fredmd_vintages")
    frame, codes = jaxfc.read_fredmd(folder / f"{vintage}.csv.gz")
    panel = jaxfc.transform(jaxfc.Panel.from_frame(frame), codes)
    return panel.window(config.start, None)


def usable(config: Config, panels: list[jaxfc.Panel]) -> list[str]:
    """Series of every vintage (one exchange rate changes its name in 2020), in their order."""
    common = [name for name in panels[0].names if all(name in p.names for p in panels)]
    dropped = [name for name in panels[0].names if name not in common]
    print(f"{len(common)} series in all vintages; not in all: {', '.join(dropped) or 'none'}")
    first = common[: config.num_series]
    return first if config.target in first else [config.target, *first]


def fit(config: Config, panel: jaxfc.Panel) -> tuple[jaxfc.FittedFactorModel, pd.DataFrame]:
    """The chosen number of factors by criterion, and the model with that many."""
    values, observed = panel.arrays()
    criteria = jaxfc.factor_criteria(values, observed, config.max_factors)
    num_factors = max(int(criteria.selected(config.criterion)), 1)  # pyright: ignore
    print(f"{config.criterion} selects {num_factors} factors")
    model = jaxfc.DynamicFactorModel(
        num_factors, config.num_lags, method=jaxfc.EM(rtol=config.rtol)
    )
    fitted = model.fit(panel)
    print(f"EM: {int(fitted.num_steps)} steps, log-likelihood {float(fitted.loglik):.1f}")
    out = Path(config.out)
    save(report.plot_criteria(criteria), out / "criteria.png")
    corr = panel.to_frame().corr().fillna(0.0)
    eigenvalues = np.linalg.eigvalsh(corr)[::-1].clip(0.0)
    save(report.plot_scree(eigenvalues, num_factors=num_factors), out / "scree.png")
    return fitted, criteria.to_frame()


def save(axes: Axes, path: Path) -> None:
    """Write the figure of the axes."""
    axes.figure.savefig(path, dpi=110)  # pyright: ignore[reportAttributeAccessIssue]


def describe(config: Config, fitted: jaxfc.FittedFactorModel, panel: jaxfc.Panel) -> dict:
    """Tables of fit and diagnostics; their pictures are written on the way."""
    out, names = Path(config.out), list(panel.names)
    shares = r_squared(fitted, panel).to_frame(names)
    save(report.plot_r_squared(shares), out / "r_squared.png")
    save(report.plot_r_squared(shares, num_series=None), out / "r_squared_all.png")
    save(report.plot_r_squared_bars(shares), out / "r_squared_bars.png")
    save(report.plot_missing(panel), out / "missing.png")
    factor = pd.Series(np.asarray(fitted.factors[:, 0]), panel.index, name="factor 1")
    series = panel.to_frame()[config.target]
    save(report.plot_factor_overlay(factor, series), out / "overlay.png")

    errors = standardised_errors(fitted, panel)
    save(report.plot_residual_panel(errors, panel, config.target)[0], out / "residuals.png")
    history = historical_decomposition(fitted, panel, target=config.target)
    parts = history.to_frame(panel.index)
    shown = parts.drop(columns=["mean", "series"]).iloc[-60:]
    title = f"{config.target}: deviation from its mean, by shock"
    save(
        report.plot_contribution_history(shown, title=title, unit="units of the series"),
        out / "history.png",
    )
    groups = factor_contributions(fitted, panel, target=config.target).to_frame(panel.index)
    shown = groups.drop(columns=["base", "total"]).iloc[-60:]
    title = f"{config.target}: common component, by observed series"
    save(report.plot_contribution_history(shown, title=title), out / "by_series.png")
    fan = report.plot_fan_chart(panel, fitted.forecast(config.horizon), config.target)
    save(fan, out / "fan.png")
    return {
        "r_squared": shares,
        "residual_tests": residual_tests(errors).to_frame(names),
        "outliers": outliers(errors, panel),
        "residual_corr": residual_corr(fitted, panel).largest(names),
        "history": parts,
    }


def vintage_nowcasts(
    config: Config, fitted: jaxfc.FittedFactorModel, panels: dict[str, jaxfc.Panel]
) -> pd.DataFrame:
    """The target's nowcast for one month in every vintage, parameters fixed, and its data."""
    longest = max((p.index for p in panels.values()), key=len)
    month = pd.Timestamp(config.month)
    row, column = longest.get_loc(month), next(iter(panels.values())).names.index(config.target)
    expectation = eqx.filter_jit(expected_panel)
    rows = {}
    for vintage, panel in panels.items():
        # Vintages padded to one length share one compiled program.
        padded = panel.extend(len(longest) - panel.num_times)
        expected = expectation(fitted, *padded.arrays())
        known = bool(padded.observed[row, column])
        rows[pd.Timestamp(vintage) + pd.offsets.MonthEnd(0)] = {
            "mean": float(expected[row, column]),
            "published": float(padded.values[row, column]) if known else np.nan,
        }
    return pd.DataFrame(rows).T


def explain(
    config: Config, fitted: jaxfc.FittedFactorModel, panels: dict[str, jaxfc.Panel]
) -> pd.DataFrame:
    """Why the nowcast moved between two vintages, by series, and the waterfall of it."""
    old, new = (panels[vintage] for vintage in config.news_vintages)
    moved = news(fitted, old, new, target=config.target, period=config.news_month, removed="revise")
    table = moved.by_series()
    impacts = table["news"].to_dict() | {
        "revisions": table["revision"].sum(),
        "values withdrawn": table["removal"].sum(),
    }
    axes = report.plot_news_waterfall(
        impacts,
        moved.old_nowcast,
        moved.new_nowcast,
        title=f"{config.target} in {config.news_month[:7]}: {' to '.join(config.news_vintages)}",
        unit="transformed units",
    )
    save(axes, Path(config.out) / "waterfall.png")
    return table


def run(config: Config) -> dict[str, pd.DataFrame]:
    """The whole study; returns the tables, which are also written to `config.out`."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    every = (config.estimation_vintage, *config.vintages)
    read = {vintage: read_vintage(config, vintage) for vintage in every}
    names = usable(config, list(read.values()))
    panels = {vintage: panel.select(names) for vintage, panel in read.items()}
    first = panels.pop(config.estimation_vintage)
    fitted, criteria = fit(config, first)
    tables = {"criteria": criteria} | describe(config, fitted, first)
    nowcasts = vintage_nowcasts(config, fitted, panels)
    published = nowcasts["published"].dropna()
    axes = report.plot_nowcast_evolution(
        nowcasts[["mean"]],
        outcome=None if published.empty else float(published.iloc[0]),
        title=f"{config.target} in {config.month[:7]}, by vintage",
        unit="transformed units",
    )
    save(axes, out / "nowcasts.png")
    tables |= {"nowcasts": nowcasts, "news": explain(config, fitted, panels)}
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv")
    return tables


def main() -> None:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few series and vintages")
    parser.add_argument("--data", help="folder that holds fredmd_vintages")
    parser.add_argument("--out", default=Config.out, help="folder for tables and pictures")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    tables = run(dataclasses.replace(config, data=arguments.data, out=arguments.out))
    print(tables["nowcasts"].to_string())


if __name__ == "__main__":
    main()
