"""The commands `jaxfc backtest`: init, run, repeat, status, report."""

from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet, refuse_existing

app = typer.Typer(
    name="backtest",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Backtests that a TOML file describes, and that can be stopped, continued and repeated.",
)
RunFolder = Annotated[Path, typer.Argument(help="The --out of jaxfc backtest run.")]


def complete_model(start: str) -> list[str]:
    """Names of models for the shell."""
    from jaxfc.report.backtest_models import MODELS

    return [name for name in MODELS if name.startswith(start)]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("backtest.toml"),
    model: Annotated[
        str, typer.Option(help="Whose options it has.", autocompletion=complete_model)
    ] = "FactorARX",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a commented file to start from.

    **Example:** `jaxfc backtest init backtest.toml --model VarianceModel`
    """
    from jaxfc.report.backtest_models import MODELS
    from jaxfc.report.backtest_options import template
    from jaxfc.report.file_options import known_name

    known_name(model, MODELS, "--model")
    refuse_existing(file)
    file.write_text(template(model, str(file)), encoding="utf-8")
    output = Output(quiet, as_json)
    output.say(f"Written to {file}. Next: jaxfc backtest run {file} --out results")
    output.answer({"file": file, "model": model})


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A TOML file; jaxfc backtest init writes one.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread over the Ray cluster that RAY_ADDRESS names.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Estimate and forecast at every origin; write forecasts, scores and a manifest.

    Stop it whenever you like and run it again: it goes on from there. A folder of another backtest
    is refused. On a cluster `batch_size` windows of the file are one task.

    **Example:** `jaxfc backtest run backtest.toml --out results`
    """
    from jaxfc.report.backtest_file import read_backtest_file
    from jaxfc.report.backtest_run import run_backtest_plan
    from jaxfc.running.cluster import Ray

    output = Output(quiet, as_json)
    plan = read_backtest_file(file)
    engine = Ray() if ray else None
    try:
        manifest = run_backtest_plan(plan, out, engine=engine, progress=output.progress)
    except KeyboardInterrupt:
        output.say(f"Stopped. What is in {out} stays; run the same command to go on.")
        raise typer.Exit(130) from None
    show(manifest, out, output)


@app.command()
def repeat(
    manifest: Annotated[Path, typer.Argument(help="The manifest of a run, or its folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the repetition.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a backtest again from its manifest, and say whether every bit is the same.

    Other data are refused. Other versions and another machine are named: numbers may then differ
    by rounding, which is exit code 1 all the same.

    **Example:** `jaxfc backtest repeat results --out again`
    """
    from jaxfc.report.backtest_run import compare, repeat_plan, run_backtest_plan

    output = Output(quiet, as_json)
    plan, there = repeat_plan(manifest)
    if there.get("results") is None:
        raise ValueError(f"{manifest} is of a run that is not complete; finish it first.")
    now = run_backtest_plan(plan, out, earlier=there, progress=output.progress)
    different, around = compare(there, now)
    output.answer({"is_same": not different, "different": different, "around": around, "out": out})
    if different:
        raise ValueError("; ".join(["the repetition differs", *different, *around]) + ".")
    output.say(f"The same bits: {', '.join(now['results'])} in {out}.", *around)


@app.command()
def status(folder: RunFolder, quiet: Quiet = False, as_json: Json = False) -> None:
    """How far a backtest is; nothing is computed.

    **Example:** `jaxfc backtest status results`
    """
    from jaxfc.report.backtest_run import read_backtest_status

    found = read_backtest_status(folder)
    output = Output(quiet, as_json)
    output.answer(found)
    failed = found["num_failed"]
    output.say(
        f"{found['num_origins_done']} of {found['num_origins']} origins"
        + (f", {failed} of them with a failed estimation" if failed is not None else "")
        + (f"; written: {', '.join(found['results'])}." if found["is_complete"] else "; not done.")
    )


@app.command()
def report(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("report"),
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    units: Annotated[str, typer.Option(help="Units of the series.")] = "log return per period",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the HTML page of a backtest; target and strategies are those of its file.

    **Example:** `jaxfc backtest report results --out page`
    """
    from jaxfc.report.backtest_run import write_run_report

    output = Output(quiet, as_json)
    with output.waiting("drawing"):
        page = write_run_report(folder, out, title=title, units=units)
    output.say(f"Written to {page}.")
    output.answer({"page": page})


def show(manifest: dict, out: Path, output: Output) -> None:
    """What a run says when it is done."""
    import pandas as pd
    from rich.table import Table

    from jaxfc.report.backtest_run import SCORES

    scores = pd.read_csv(out / SCORES)
    output.answer(
        {
            "out": out,
            "num_origins": manifest["num_origins"],
            "num_failed": manifest["num_failed"],
            "results": manifest["results"],
            "scores": scores.to_dict("records"),
        }
    )
    # What there is for each level makes a table wider than a screen; the file has it.
    short = scores[[name for name in scores.columns if "%" not in name]]
    shown = pd.DataFrame(short if short.shape[1] > 2 else scores)
    table = Table(*shown.columns)
    for row in shown.to_dict("records"):
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    output.say(
        f"{manifest['num_origins']} origins, {manifest['num_failed']} failed estimations; "
        f"computed in {manifest['precision']}.",
        table,
        f"Written to {out}: {', '.join(manifest['results'])}, manifest.json.",
    )
