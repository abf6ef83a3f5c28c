"""The command `jaxfc demo`: the main job on packaged data, and its report."""

from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet, refuse_file


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer weeks and no choice of the model's size.")
    ] = False,
    returns: Annotated[
        bool, typer.Option("--returns", help="Instead: a backtest of weekly S&P 500 returns.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the main job on US data and write a report.

    Reads weekly, monthly and quarterly US series (1999-2018, shipped with the package arch),
    chooses and estimates a factor model, rebuilds the monthly series by week, forecasts 13 weeks,
    tries the model on the last 100 weeks against simple benchmarks, and writes `report.html`.

    **Example:** `jaxfc demo --out report`
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from jaxfc.report import tables
    from jaxfc.report.demo import QUICK, STAGES, DemoConfig, run_demo
    from jaxfc.report.sections import write_demo

    refuse_file(out)
    output = Output(quiet, as_json)
    if returns:
        return demo_returns(out, quick, output)
    output.say(f"Computing in {tables.software()['precision']} (double precision).")
    columns = (TextColumn("{task.description:<26}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not output.is_live) as progress:
        task = progress.add_task("", total=len(STAGES) + 1)

        def announce(stage: str) -> None:
            started = stage != STAGES[0]
            progress.update(task, description=stage, advance=1 if started else 0)

        result = run_demo(QUICK if quick else DemoConfig(), announce)
        announce("write the report")
        page = write_demo(result, out)
        progress.update(task, description="done", advance=1)
    output.answer(
        {
            "page": page,
            "seconds": result.seconds,
            "scores": result.evaluation.scores.to_dict("records"),
        }
    )
    print_demo(result, page, output)


def print_demo(result: object, page: Path, output: Output) -> None:
    """What was done and in how many seconds, the target's scores, what they say, the report."""
    from rich.table import Table

    from jaxfc.report.demo import DemoResult
    from jaxfc.report.evaluate import verdicts

    assert isinstance(result, DemoResult)
    target = result.config.target
    fitted, path = result.fitted, result.fitted.loglik_path
    model = fitted.model
    how = "chosen by information criteria" if result.selection is not None else "as configured"
    output.say(
        f"{result.panel!r}",
        f"Model: {model.num_factors} factors, {model.num_lags} lags ({how}); two-step EM, "
        f"converged after {int(fitted.num_steps)} of at most {path.size} steps.",
    )
    spent = Table("stage", "seconds", title="Time, compilation included")
    for name, seconds in result.seconds.items():
        spent.add_row(name, f"{seconds:.1f}")
    rows = result.evaluation.scores
    rows = rows[rows.series == target]
    table = Table(
        "model", "RMSE", "CRPS", "90% coverage", title=f"{target}, one week ahead, percent"
    )
    for name, rmse, crps, covered in zip(
        rows.model, rows.rmse, rows.crps, rows.coverage_90, strict=True
    ):
        table.add_row(name, f"{rmse:.3f}", f"{crps:.3f}", f"{covered:.2f}")
    output.say(spent, table, *verdicts(result.evaluation.scores, target), f"Report: {page}")


def demo_returns(out: Path, quick: bool, output: Output) -> None:
    """The page of a backtest of S&P 500 returns on data that ship inside packages."""
    from jaxfc.index_panel import index_panel
    from jaxfc.report.returns_demo import QUICK, ReturnsConfig, run_returns_demo, write_returns_demo

    config = QUICK if quick else ReturnsConfig()
    output.say(
        f"{config.num_origins} windows of {config.window} weeks: each chooses its sizes, estimates "
        f"and draws {config.num_draws} trajectories."
    )
    data = index_panel(incomplete=config.incomplete)
    done = run_returns_demo(config, data, progress=output.progress)
    scores = done.scores().iloc[0]
    page = write_returns_demo(done, config, data, out)
    output.say(
        f"RMSE {scores['rmse']:.4f}, {scores['outside 90%']:.1%} of the returns outside the 90% "
        f"intervals. Written to {page}"
    )
    output.answer({"page": page, "scores": scores.to_dict()})
