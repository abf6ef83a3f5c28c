"""The command `jaxfc report`: the page of a saved backtest."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Where Backtest.save wrote the backtest.")],
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
) -> None:
    """Write the HTML page of a backtest: intervals, coverage, drivers, sizes, strategies.

    **Example:** `jaxfc report backtest --out page`
    """
    import tomllib

    import jax

    from jaxfc.report import write_backtest_report
    from jaxfc.running import load_backtest

    chosen = None
    if groups is not None:
        try:
            chosen = tomllib.loads(groups.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{groups} is no TOML file: {error}.") from error
        odd = [
            name
            for name, of in chosen.items()
            if not isinstance(of, list) or not all(isinstance(series, str) for series in of)
        ]
        if odd:
            raise ValueError(
                f"{groups}: {odd[0]} must be a list of series, got {chosen[odd[0]]!r}."
            )
    page = write_backtest_report(
        load_backtest(folder),
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
    print(f"Written to {page}")


def demo_returns(out: Path, quick: bool) -> None:
    """The page of a backtest of S&P 500 returns on data that ship inside packages."""
    from jaxfc.index_panel import index_panel
    from jaxfc.report.returns_demo import QUICK, ReturnsConfig, run_returns_demo, write_returns_demo

    config = QUICK if quick else ReturnsConfig()
    print(
        f"{config.num_origins} windows of {config.window} weeks: each chooses its sizes, estimates "
        f"and draws {config.num_draws} trajectories."
    )
    data = index_panel(incomplete=config.incomplete)
    done = run_returns_demo(config, data)
    scores = done.scores().iloc[0]
    print(
        f"RMSE {scores['rmse']:.4f}, {scores['outside 90%']:.1%} of the returns outside the 90% "
        f"intervals. Written to {write_returns_demo(done, config, data, out)}"
    )
