"""The New York Fed's monthly and quarterly panel: GDP nowcasts from its vintages.

    python -m experiments.nyfed_nowcast [--quick] [--data FOLDER] [--out FOLDER]

Reads the specification and the vintages in `frbny_nowcast` (Bok et al. 2018), transforms the series
as they say, fits blocks of factors with AR(1) errors to the first vintage, and nowcasts GDP in all
of them, with the news between two. Writes tables (CSV) and pictures (PNG).
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import jaxfc
from experiments.shared_data import shared_folder
from jaxfc import report
from jaxfc.factors.blocks import Blocks
from jaxfc.factors.diagnostics import r_squared
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.history import historical_decomposition
from jaxfc.factors.news import news
from jaxfc.factors.panel_law import covering, expected_panel

# The names of the specification; periods are those of the series' own frequency.
TRANSFORMATIONS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "lin": lambda x: x,
    "chg": lambda x: x.diff(),
    "pch": lambda x: 100.0 * (x / x.shift() - 1.0),
    "pca": lambda x: 100.0 * ((x / x.shift()) ** 4 - 1.0),  # quarterly, at an annual rate
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is read and estimated. `target` is nowcast for the quarter that ends on `quarter`."""

    vintages: tuple[str, ...] = ("2016-06-29", "2016-12-16", "2016-12-23", "2017-01-27")
    start: str = "2000-01-31"
    categories: tuple[str, ...] | None = None
    num_lags: int = 1
    rtol: float = 1e-5
    max_steps: int = 500
    target: str = "GDPC1"
    quarter: str = "2016-12-31"
    news_vintages: tuple[str, str] = ("2016-12-16", "2016-12-23")
    data: str | None = None
    out: str = "nyfed_nowcast"


QUICK = Config(
    vintages=("2016-12-16", "2016-12-23", "2017-01-27"),
    start="2008-01-31",
    categories=("National Accounts", "Manufacturing", "Surveys"),
    max_steps=3,
)


def make_model(config: Config, specification: pd.DataFrame) -> jaxfc.DynamicFactorModel:
    """The model, the one place to change it: the specification's blocks, one factor each."""
    columns = [name for name in specification.columns if name.startswith("Block")]
    members = {
        column.partition("-")[2]: tuple(specification.index[specification[column] == 1])
        for column in columns
    }
    blocks = Blocks({block: names for block, names in members.items() if len(names) > 1})
    return jaxfc.DynamicFactorModel(
        blocks.total,
        config.num_lags,
        method=jaxfc.EM(rtol=config.rtol, max_steps=config.max_steps),
        errors=AutoregressiveErrors(),
        restrictions=blocks,
    )


def read_sheet(path: Path) -> pd.DataFrame:
    """The first sheet of an Excel 97 file, with its first row as names; empty cells are NaN."""
    import xlrd

    book = xlrd.open_workbook(path)
    sheet = book.sheet_by_index(0)
    rows = [[cell_value(book, cell) for cell in sheet.row(i)] for i in range(sheet.nrows)]
    return pd.DataFrame(rows[1:], columns=rows[0])


def cell_value(book, cell):
    """A cell as text, number, date or NaN."""
    import xlrd

    if cell.ctype == xlrd.XL_CELL_DATE:
        return pd.Timestamp(xlrd.xldate_as_datetime(cell.value, book.datemode))
    if cell.ctype in (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK, xlrd.XL_CELL_ERROR):
        return np.nan
    return cell.value


def read_specification(config: Config) -> pd.DataFrame:
    """The series of the model with their frequency, transformation and category."""
    folder = shared_folder(config.data, "frbny_nowcast")
    table = read_sheet(folder / "Spec_US_example.xls").set_index("SeriesID")
    table = table[table["Model"] == 1]
    if config.categories is not None:
        table = table[table["Category"].isin(config.categories)]
    return table


def read_panel(config: Config, specification: pd.DataFrame, vintage: str) -> jaxfc.Panel:
    """One vintage, transformed, with rows up to the end of the target quarter.

    Quarterly growth is a change of the quarter's average: the weighted sum of monthly changes of
    Mariano and Murasawa (2003).
    """
    folder = shared_folder(config.data, "frbny_nowcast")
    levels = read_sheet(folder / f"{vintage}.xls").set_index("Date").astype(float)
    levels.index = pd.DatetimeIndex(levels.index) + pd.offsets.MonthEnd(0)
    frames: dict[str, pd.DataFrame] = {}
    for frequency, base in (("m", "M"), ("q", "Q")):
        chosen = specification[specification["Frequency"] == frequency]
        own = levels[list(chosen.index)]
        own = own if frequency == "m" else own[own.index.month % 3 == 0]
        columns = {
            name: TRANSFORMATIONS[how](own[[name]])[name]
            for name, how in chosen["Transformation"].items()
        }
        frame = pd.DataFrame(columns)
        frames[base] = frame[frame.index >= config.start].dropna(how="all")
    quarterly = dict.fromkeys(frames["Q"].columns, "change_in_flow")
    panel = jaxfc.Panel.from_frames(frames, kinds=quarterly)
    last, end = panel.index[-1], pd.Timestamp(config.quarter)
    missing = (end.year - last.year) * 12 + end.month - last.month
    return panel.extend(max(missing, 0))


def vintage_nowcasts(
    config: Config, fitted: jaxfc.FittedFactorModel, panels: dict[str, jaxfc.Panel]
) -> pd.DataFrame:
    """The nowcast of the target's quarter in every vintage, and the published value if any."""
    rows = {}
    expectation = eqx.filter_jit(expected_panel)
    for vintage, panel in panels.items():
        widened = covering(fitted, panel.observed)
        expected = expectation(widened, *panel.arrays(), panel.aggregation)
        native = panel.native(expected)[config.target]
        row, column = panel.index.get_loc(config.quarter), panel.names.index(config.target)
        known = bool(panel.observed[row, column])
        rows[pd.Timestamp(vintage)] = {
            "mean": float(native.loc[config.quarter]),
            "published": float(panel.values[row, column]) if known else np.nan,
        }
    return pd.DataFrame(rows).T


def explain(
    config: Config,
    fitted: jaxfc.FittedFactorModel,
    panels: dict[str, jaxfc.Panel],
    categories: pd.Series,
) -> pd.DataFrame:
    """Why the nowcast moved between two vintages, by category, and the waterfall by series."""
    old, new = (panels[vintage] for vintage in config.news_vintages)
    moved = news(fitted, old, new, target=config.target, period=config.quarter, removed="revise")
    table = moved.by_series()
    impacts = table["news"].to_dict() | {
        "revisions": table["revision"].sum(),
        "values withdrawn": table["removal"].sum(),
    }
    axes = report.plot_news_waterfall(
        impacts,
        moved.old_nowcast,
        moved.new_nowcast,
        title=f"{config.target} in the quarter to {config.quarter}: "
        f"{' to '.join(config.news_vintages)}",
        unit="percent, annual rate",
    )
    save(axes, Path(config.out) / "waterfall.png")
    return moved.by_group(categories.to_dict())


def save(axes: Axes, path: Path) -> None:
    """Write the figure of the axes."""
    axes.figure.savefig(path, dpi=110)  # pyright: ignore[reportAttributeAccessIssue]


def describe(config: Config, fitted: jaxfc.FittedFactorModel, panel: jaxfc.Panel) -> dict:
    """Tables of fit; their pictures are written on the way."""
    out = Path(config.out)
    shares = r_squared(fitted, panel).to_frame(panel.names)
    save(report.plot_r_squared_bars(shares), out / "r_squared.png")
    save(report.plot_missing(panel), out / "missing.png")
    factor = pd.Series(np.asarray(fitted.factors[:, 0]), panel.index, name="factor 1")
    growth = panel.to_frame()[config.target]
    save(report.plot_factor_overlay(factor, growth), out / "overlay.png")
    history = historical_decomposition(fitted, panel, target="INDPRO").to_frame(panel.index)
    shown = history.drop(columns=["mean", "series"]).iloc[-60:]
    title = "INDPRO: deviation from its mean, by shock"
    save(report.plot_contribution_history(shown, title=title, unit="percent"), out / "history.png")
    return {"r_squared": shares, "history": history}


def run(config: Config) -> dict[str, pd.DataFrame]:
    """The whole study; returns the tables, which are also written to `config.out`."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    specification = read_specification(config)
    panels = {v: read_panel(config, specification, v) for v in config.vintages}
    last = max(panel.num_times for panel in panels.values())
    panels = {v: panel.extend(last - panel.num_times) for v, panel in panels.items()}
    first = panels[config.vintages[0]]
    fitted = make_model(config, specification).fit(first, throw=False)
    print(f"{first.num_series} series, EM: {int(fitted.num_steps)} steps")
    tables = describe(config, fitted, first)
    nowcasts = vintage_nowcasts(config, fitted, panels)
    tables["news"] = explain(config, fitted, panels, specification["Category"])
    published = nowcasts["published"].dropna()
    axes = report.plot_nowcast_evolution(
        nowcasts[["mean"]],
        outcome=None if published.empty else float(published.iloc[0]),
        title=f"{config.target} in the quarter to {config.quarter}, by vintage",
        unit="percent, annual rate",
    )
    save(axes, out / "nowcasts.png")
    tables["nowcasts"] = nowcasts
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv")
    return tables


def main() -> None:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few series and steps")
    parser.add_argument("--data", help="folder that holds frbny_nowcast")
    parser.add_argument("--out", default=Config.out, help="folder for tables and pictures")
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else Config()
    tables = run(dataclasses.replace(config, data=arguments.data, out=arguments.out))
    print(tables["nowcasts"].to_string())


if __name__ == "__main__":
    main()
