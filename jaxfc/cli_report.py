"""The command `jaxfc report`: the page of a saved backtest."""

from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet


def report(
    folder: Annotated[
        Path,
        typer.Argument(help="Where Backtest.save or jaxfc backtest run wrote the backtest."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("report"),
    target: Annotated[
        str | None, typer.Option(help="Series to report on; default: the first that is forecast.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="TOML file of drivers: lines such as Rates = ['T10YR', 'T2YR']."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    units: Annotated[str, typer.Option(help="Units of the series.")] = "log return per week",
    scale: Annotated[
        float, typer.Option(help="What turns the series into a log return; 0.01 for percent.")
    ] = 1.0,
    cost: Annotated[float, typer.Option(help="Cost of a trade as a share of its value.")] = 0.0,
    cash_rate: Annotated[float, typer.Option(help="Simple rate of cash per period.")] = 0.0,
    periods_per_year: Annotated[
        float, typer.Option(help="Periods that make a year, for annual measures.")
    ] = 52.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the HTML page of a backtest: intervals, coverage, drivers, sizes, strategies.

    **Example:** `jaxfc report backtest --out page`
    """
    import jax

    from jaxfc.report import write_backtest_report
    from jaxfc.report.backtest_run import saved_backtest
    from jaxfc.report.file_options import read_toml
    from jaxfc.running import load_backtest

    chosen = None
    if groups is not None:
        chosen = read_toml(groups, "a line of it is such as Rates = ['T10YR', 'T2YR']")
        odd = [
            name
            for name, of in chosen.items()
            if not isinstance(of, list) or not all(isinstance(series, str) for series in of)
        ]
        if odd:
            raise ValueError(
                f"{groups}: {odd[0]} must be a list of series, got {chosen[odd[0]]!r}."
            )
    output = Output(quiet, as_json)
    with output.waiting("drawing"):
        page = write_backtest_report(
            load_backtest(saved_backtest(folder)),
            out,
            target=target,
            groups=chosen,
            title=title,
            units=units,
            scale=scale,
            cost=cost,
            cash_rate=cash_rate,
            periods_per_year=periods_per_year,
            key=jax.random.key(0),
        )
    output.say(f"Written to {page}")
    output.answer({"page": page})
