"""The page of a backtest: intervals, drivers, sizes, errors, strategies."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.report.backtest_data import driver_table, one_step, size_table, spread_table
from jaxfc.report.backtest_sections import (
    accuracy_section,
    driver_section,
    interval_section,
    size_section,
    summary_section,
    trading_sections,
)
from jaxfc.report.backtest_strategies import measures, sharpe_table, trade, why_not
from jaxfc.report.backtest_tables import (
    Losses,
    accuracy_table,
    benchmark_table,
    check_losses,
)
from jaxfc.report.html import Section, write_report
from jaxfc.running.backtest_result import DESCRIPTION, Backtest
from jaxfc.trading import Strategy
from jaxfc.typing import Float, PRNGKeyArray


def write_backtest_report(
    backtest: Backtest,
    folder: str | Path,
    *,
    target: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    strategies: Mapping[str, Strategy] | None = None,
    cash_rate: float | Float[np.ndarray, " origins"] = 0.0,
    cost: float = 0.0,
    benchmark_losses: Mapping[str, Losses] | None = None,
    title: str | None = None,
    units: str = "log return per week",
    scale: float = 1.0,
    periods_per_year: float = 52.0,
    text: Sequence[str] = (),
    key: PRNGKeyArray | None = None,
) -> Path:
    """`report.html` in `folder`, which needs no other file, with pictures and CSV tables beside it.

    One step ahead: intervals against what was realised, coverage with its tests, the forecast by
    driver, chosen sizes, errors, and what strategies would have made of the forecasts.

    **Arguments:** `target`, default the first series that is forecast. `groups`: series by group of
    drivers, each exactly once. `strategies`: default those of the source (`trade`); an empty
    mapping for none. `cash_rate`: simple rate a step; `cost`: share of the traded value.
    `benchmark_losses`: squared errors of other forecasts one step ahead, by name, (origins,) in
    the units squared; the forecast zero is always compared with. `scale`: what turns the forecast
    into a log return (0.01 for percent). `key`: for the bootstrap test of Sharpe ratios, which is
    left out without, and for the transforms of draws. `text`: paragraphs that come first.

    **Returns:** the path of the page.

    **Raises:** `ValueError` for an unknown target, groups that do not hold every series once,
    losses of another number of origins, and a folder that is a file or holds a saved backtest.
    """
    folder = Path(folder)
    check_folder(folder)
    test_key, rank_key = (None, None) if key is None else jax.random.split(key)
    step = one_step(backtest, target, key=rank_key)
    drivers = driver_table(backtest, step, groups)
    losses = {} if benchmark_losses is None else dict(benchmark_losses)
    check_losses(step, losses)
    compared = benchmark_table(step, losses)
    traded, tested = None, None
    reason = why_not(step, strategies, scale)
    if not reason:
        traded = trade(backtest, step, strategies, cash_rate=cash_rate, cost=cost, scale=scale)
        tested = sharpe_table(traded, periods_per_year, test_key)
    folder.mkdir(parents=True, exist_ok=True)
    backtest.to_frame(quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)).to_csv(
        folder / "forecasts.csv", index=False
    )
    sections = [Section("Findings", tuple(text))] if text else []
    sections += [
        summary_section(step, units, backtest.messages(), compared, tested),
        interval_section(step, units, folder),
        driver_section(drivers, spread_table(backtest, step), units, folder),
        size_section(size_table(backtest, step), folder),
        accuracy_section(step, accuracy_table(backtest, step), compared, units, folder),
    ]
    if traded is None:
        sections.append(Section("Strategies", (reason,)))
    else:
        measured = measures(traded, periods_per_year)
        sections += trading_sections(traded, measured, tested, folder)
    notes = [
        "Every forecast was made from what had been published at its origin.",
        f"jaxfc {version('jaxfc')}, jax {version('jax')}, {jnp.result_type(float)}. "
        "This page needs no network and no file beside it; all digits are in the CSV files.",
    ]
    subtitle = (
        f"{step.name}, {len(step.dates)} origins, {step.origins[0]:%Y-%m-%d} to "
        f"{step.origins[-1]:%Y-%m-%d}"
    )
    return write_report(folder, title or f"Backtest of {step.name}", subtitle, sections, notes)


def check_folder(folder: Path) -> None:
    """Refuses a file, and the folder of a backtest, which `Backtest.save` keeps to itself."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the page.")
    if (folder / DESCRIPTION).exists():
        raise ValueError(f"{folder} holds a saved backtest; give the page a folder of its own.")
