"""The demo's report: which tables are written, and what every chapter says, from the numbers."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.report import plots, tables
from jaxfc.report.demo import TARGETS, DemoResult
from jaxfc.report.evaluate import MODEL, one_step, verdicts
from jaxfc.report.html import Picture, Section, Table, write_report
from jaxfc.report.sources import SOURCES, UNITS

QUANTILES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)


def write_demo(result: DemoResult, folder: Path) -> Path:
    """All tables as CSV, all figures as PNG, and `report.html`; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in csv_tables(result).items():
        frame.to_csv(folder / f"{name}.csv", index=not isinstance(frame.index, pd.RangeIndex))
    (folder / "summary.json").write_text(json.dumps(summary(result), indent=2) + "\n")
    sections = [
        overview(result),
        data_section(result),
        size_section(result),
        factor_section(result),
        nowcast_section(result),
        forecast_section(result),
        evaluation_section(result),
        provenance_section(result),
    ]
    panel = result.panel
    title = "A weekly factor model of US markets and the economy"
    subtitle = (
        f"{panel.num_series} series, {panel.num_times} weeks, {panel.index[0]:%Y-%m-%d} to "
        f"{panel.index[-1]:%Y-%m-%d}, {100 * panel.observed.mean():.0f}% of the cells observed."
    )
    return write_report(folder, title, subtitle, sections, [LICENCE])


LICENCE = (
    "The figures belong to their sources and come with the package arch; they are used here for "
    "an example, not as market data. This page needs no network and no file beside it."
)


def forecast_table(result: DemoResult) -> pd.DataFrame:
    """The forecast of the target with quantiles, by date."""
    full = result.panel.label(result.forecast, quantiles=QUANTILES)
    table = full[result.config.target].rename_axis("date").reset_index()
    return table.rename_axis(columns=None)


def selection_table(result: DemoResult) -> pd.DataFrame | None:
    """The candidates, with the criterion that chose the number of factors."""
    selection = result.selection
    if selection is None:
        return None
    table = selection.to_frame().reset_index()
    criteria = selection.criteria.to_frame()["modified"]
    table.insert(2, "factor_criterion", criteria.reindex(table.num_factors).to_numpy())
    table["chosen"] = ["yes" if chosen else "" for chosen in table.chosen]
    return table


def csv_tables(result: DemoResult) -> dict[str, pd.DataFrame]:
    """Every table of the report with all its digits, by file name."""
    panel, fitted = result.panel, result.fitted
    named = {
        "series": source_table(result),
        "factors": tables.factors_table(fitted, panel),
        "loadings": tables.loadings_table(fitted, panel),
        "nowcasts": tables.nowcast_table(result.nowcast, panel),
        "forecast": forecast_table(result),
        "contributions": result.contributions.to_frame(panel.names).reset_index(),
        "scores": result.evaluation.scores,
        "backtest": result.evaluation.forecasts(),
        "convergence": tables.likelihood_path(fitted).reset_index(),
    }
    selection = selection_table(result)
    return named if selection is None else {**named, "selection": selection}


def summary(result: DemoResult) -> dict[str, object]:
    """The run in one small JSON file."""
    return {
        "num_factors": result.fitted.parameters.num_factors,
        "num_lags": result.fitted.parameters.num_lags,
        **tables.convergence(result.fitted),
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "software": tables.software(),
    }


def source_table(result: DemoResult) -> pd.DataFrame:
    """Where every series comes from, and what is observed of it."""
    table = tables.coverage_table(result.panel)
    table.insert(1, "unit", [UNITS[name] for name in table.series])
    table["source"] = [SOURCES[name] for name in table.series]
    return table


def overview(result: DemoResult) -> Section:
    """What was done, and the main findings."""
    parameters, target = result.fitted.parameters, result.config.target
    status = tables.convergence(result.fitted)
    done = (
        f"A factor model (factors: {parameters.num_factors}, lags: {parameters.num_lags}) was "
        f"estimated by two-step EM ({status['status']} after {status['num_steps']} steps); it "
        f"rebuilds the monthly and quarterly series by week, forecasts {result.config.horizon} "
        f"weeks and was tried on the last {result.config.num_origins} weeks."
    )
    return Section("In short", (done, *verdicts(result.evaluation.scores, target)))


def data_section(result: DemoResult) -> Section:
    """Sources, kinds, delays."""
    text = (
        "Weeks end on Friday. A monthly or quarterly figure is explained as the sum, the average "
        "or the change of the average of the weeks of its period, as its kind says (flow_sum, "
        "flow_average, change_in_flow). The delay runs from the end of the period to publication "
        "and is an assumption about typical releases; a forecast sees only what was published. "
        "The figures are revised ones, so all evaluation here is pseudo-real-time.",
    )
    caption = "The series: first and last are the weeks in which their periods end"
    table = Table(caption, source_table(result), "series.csv")
    return Section("Data", text, tables=(table,))


def size_section(result: DemoResult) -> Section:
    """How K and p were chosen, and how the estimation went."""
    fitted = result.fitted
    parameters, status = fitted.parameters, tables.convergence(fitted)
    shown = []
    if result.selection is None:
        text = ["Factors and lags were given, not chosen from the data."]
    else:
        text = [
            "For every number of factors the lags with the smallest AIC, then the number of "
            "factors by the modified criterion of Bai and Ng, smallest chosen: "
            f"K = {parameters.num_factors}, p = {parameters.num_lags}. The log-likelihoods "
            "are those of the panels as each candidate rebuilt them, so that they compare "
            "candidates only roughly.",
        ]
        if parameters.num_factors == result.config.max_factors:
            text.append(
                "The number of factors is the largest that was tried: more might be better."
            )
        if parameters.num_lags == result.config.max_lags:
            text.append("The number of lags is the largest that was tried: more might be better.")
        table = selection_table(result)
        assert table is not None
        shown.append(Table("Candidates", table, "selection.csv"))
    text.append(
        f"Estimation on the whole panel: {status['status']}, {status['num_steps']} outer steps, "
        f"log-likelihood of the rebuilt panel {status['loglik']:.1f}. The two-step method does not "
        "maximise one function, so its criterion need not rise at every step."
    )
    path = tables.likelihood_path(fitted).to_numpy()
    picture = Picture(
        "convergence", plots.plot_convergence(path), "Stopping criterion by outer step"
    )
    return Section("Size and estimation", tuple(text), (picture,), tuple(shown))


def factor_section(result: DemoResult) -> Section:
    """Factors and what they move."""
    fitted, panel = result.fitted, result.panel
    effects = np.asarray(tables.factor_effects(fitted))
    leading = []
    for k in range(effects.shape[1]):
        order = np.argsort(-np.abs(effects[:, k]))[:3]
        parts = ", ".join(f"{panel.names[i]} ({effects[i, k]:+.2f})" for i in order)
        leading.append(f"Factor {k + 1} moves most: {parts}.")
    text = (
        "Factors have no sign and no unit of their own; they are rotated to principal axes. "
        + " ".join(leading),
    )
    first = plots.plot_factors(panel.index, fitted.factors, tables.factor_stds(fitted))
    second = plots.plot_loadings(panel.names, effects)
    pictures = (
        Picture("factors", first, "Factors given the whole panel, with 90% bands"),
        Picture("loadings", second, "Effect of one standard deviation of each factor"),
    )
    return Section("Factors", text, pictures)


def nowcast_section(result: DemoResult) -> Section:
    """Monthly series by week."""
    panel = result.panel
    monthly = [n for n, f in zip(panel.names, panel.frequencies, strict=True) if f == "M"]
    recent = panel.index[-104:]
    places = [panel.names.index(name) for name in monthly]
    shape = {"index": panel.index, "columns": monthly}
    mean = pd.DataFrame(np.asarray(result.nowcast.mean)[:, places], **shape).loc[recent]
    std = pd.DataFrame(np.asarray(result.nowcast.std)[:, places], **shape).loc[recent]
    reported = {}
    for name in monthly:
        figures = tables.reported_figures(panel, name)
        reported[name] = figures[figures["first"] >= recent[0]]
    gaps = np.abs(panel.native(result.nowcast.mean).to_numpy() - panel.values)[panel.observed]
    text = (
        "What the model says of the monthly series week by week. The weeks of a month add up "
        "(or average) to the figure reported for it: the largest gap over the whole panel is "
        f"{gaps.max():.1e}. Bands come from {result.config.num_draws} draws of factors and "
        "errors at the estimated parameters. They leave out the uncertainty of the parameters and "
        "of what the rebuilt cells do not know about the factors, which makes them narrow; and "
        "they take errors of different weeks as unrelated, which makes them too wide for what is "
        "slow and not explained by the factors.",
    )
    kinds = dict(zip(panel.names, panel.kinds, strict=True))
    units = {
        name: UNITS[name].split(", ")[-1] + ("" if kinds[name] == "flow_average" else " a week")
        for name in monthly
    }
    figure = plots.plot_nowcasts(recent, mean, std, reported, units)
    picture = Picture("nowcasts", figure, "Monthly series by week, the last two years")
    return Section("Nowcasts", text, (picture,))


def forecast_section(result: DemoResult) -> Section:
    """Fan chart, the sum over the horizon, contributions."""
    config, panel, forecast = result.config, result.panel, result.forecast
    column = panel.names.index(config.target)
    bands = {}
    for percent in (50, 80, 95):
        tail = 0.5 * (1 - percent / 100)
        levels = jnp.asarray([tail, 1.0 - tail])
        bands[percent] = np.asarray(forecast.quantile(levels))[:, :, column]
    table = forecast_table(result)
    history = panel.to_frame()[config.target].iloc[-39:]
    dates = pd.DatetimeIndex(table["date"])
    fan = plots.plot_fan(history, dates, table["mean"].to_numpy(), bands)
    total = forecast.marginal(column).cumulative()
    low, high = (float(total.quantile(q)[-1, 0]) for q in (0.05, 0.95))
    text = (
        f"{config.target} over the next {config.horizon} weeks together: mean "
        f"{float(total.mean[-1, 0]):+.1f}%, 90% interval {low:+.1f}% to {high:+.1f}%. The mean is "
        "small beside the spread, as it should be for returns; the width of the bands is that of "
        "the whole sample and does not follow the volatility of the last weeks.",
        "A contribution is what the departures of one series from its mean add to the forecast of "
        f"{config.target} for the next week. Together they add "
        f"{float(jnp.sum(result.contributions.by_series[0])):+.3f} percentage points to the mean "
        f"of {float(result.contributions.base[0]):+.3f}.",
    )
    bars = plots.plot_contributions(
        list(panel.names),
        result.contributions.by_series[0],
        f"{config.target}, {dates[0]:%Y-%m-%d}: contributions by series",
        "percentage points of the forecast return",
    )
    pictures = (
        Picture("forecast", fan, f"Law of the next {config.horizon} weekly returns"),
        Picture("contributions", bars, "What moves the forecast of the next week"),
    )
    shown = (Table("Forecast, percent a week", table, "forecast.csv"),)
    return Section("Forecast", text, pictures, shown)


def evaluation_section(result: DemoResult) -> Section:
    """Rolling one-step forecasts against benchmarks."""
    evaluation, config = result.evaluation, result.config
    run = evaluation.backtests[MODEL]
    absent = ", ".join(evaluation.left_out) or "none"
    text = [
        f"At each of the last {config.num_origins} weeks ({run.origins[0]:%Y-%m-%d} to "
        f"{run.origins[-1]:%Y-%m-%d}) every model was estimated anew on the {config.window} weeks "
        "before, with only what had been published by then, and forecast the next week. Series "
        f"without observations in these windows were left out: {absent}. Random walk: next week's "
        "return is this week's. t compares squared errors with those of the zero forecast "
        "(Diebold and Mariano); beyond ±1.96 a difference is more than chance. K and p were "
        "chosen on the whole sample, a small advantage for the factor model.",
        *(sentence for target in TARGETS for sentence in verdicts(evaluation.scores, target)[:1]),
    ]
    mean, std, realised = one_step(run, config.target)
    dates = pd.DatetimeIndex(run.dates[:, 0])
    figure = plots.plot_evaluation(dates, realised, mean, std, config.target)
    picture = Picture("evaluation", figure, "One-week-ahead forecasts of the factor model")
    table = Table("Scores, percent a week (lower is better)", evaluation.scores, "scores.csv")
    return Section("Evaluation", tuple(text), (picture,), (table,))


def provenance_section(result: DemoResult) -> Section:
    """Software, precision, seconds, seed."""
    spent = pd.DataFrame(
        {"stage": list(result.seconds), "seconds": [float(s) for s in result.seconds.values()]}
    )
    versions = tables.software()
    names = pd.DataFrame({"what": list(versions), "version": list(versions.values())})
    text = (
        f"Computed in {versions['precision']} on {versions['device']}, seed {result.config.seed}. "
        "Seconds include compilation; a second run on the same machine finds compiled programs.",
    )
    shown = (Table("Seconds by stage", spent, decimals=1), Table("Software", names))
    return Section("Where the numbers come from", text, tables=shown)
