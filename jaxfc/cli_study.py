"""The commands `jaxfc study`: init, run, status, report."""

from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet, refuse_existing

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Monte Carlo studies that can be stopped and continued.",
)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.toml"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a commented file to start from.

    **Example:** `jaxfc study init study.toml`
    """
    from jaxfc.report.study_file import factor_names, template

    refuse_existing(file)
    file.write_text(template(factor_names(), str(file)), encoding="utf-8")
    output = Output(quiet, as_json)
    output.say(f"Written to {file}. Next: jaxfc study run {file} --store results")
    output.answer({"file": file})


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A TOML file; jaxfc study init writes one.")],
    store: Annotated[Path, typer.Option(help="Folder of the results, new or of this study.")],
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread over the Ray cluster that RAY_ADDRESS names.")
    ] = False,
    memory_budget: Annotated[
        int | None,
        typer.Option(help="MiB that a program may use; default: a quarter of what is free.", min=1),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compute what the store does not hold yet.

    Stop it whenever you like and run it again: it goes on from there. Several processes may run the
    same file on one store at a time. The same file and store with other settings are refused.

    **Example:** `jaxfc study run study.toml --store results`
    """
    import jax

    from jaxfc.report.study_file import factor_names, read_study_file
    from jaxfc.running.cluster import Ray

    output = Output(quiet, as_json)
    study, seed = read_study_file(config, factor_names())
    try:
        result = study.run(
            store,
            key=jax.random.key(seed),
            engine=Ray() if ray else None,
            progress=output.progress,
            memory_budget=None if memory_budget is None else memory_budget * 2**20,
        )
    except KeyboardInterrupt:
        output.say(f"Stopped. What is in {store} stays; run the same command to go on.")
        raise typer.Exit(130) from None
    fits = result.table()[["num_failed", "num_stopped"]].sum()
    output.say(
        f"{len(result.settings)} cells, {study.num_paths} paths in each, "
        f"{len(result.paths)} fits of which {fits['num_failed']} failed and "
        f"{fits['num_stopped']} stopped at their bound on steps. Results in {store}."
    )
    output.answer(
        {
            "store": store,
            "num_cells": len(result.settings),
            "num_paths": study.num_paths,
            "num_fits": len(result.paths),
            **fits.to_dict(),
        }
    )


@app.command()
def status(
    store: Annotated[Path, typer.Argument(help="The --store of a study.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """How far a study is, cell by cell; nothing is computed.

    **Example:** `jaxfc study status results`
    """
    from rich.table import Table

    from jaxfc.running.study_status import read_status

    found = read_status(store)
    totals, table = found.to_dict(), Table(title=found.name)
    output = Output(quiet, as_json)
    output.answer(totals)
    table.add_column("cell", justify="right")
    table.add_column(", ".join(found.varying))
    for name in ("paths", "failed", "stopped", "seconds", "compiling"):
        table.add_column(name, justify="right")
    for at, row in enumerate(found.cells.to_dict("records")):
        settings = ", ".join(str(row[name]) for name in found.varying)
        counts = (f"{row['num_paths']}/{found.num_paths}", row["num_failed"], row["num_stopped"])
        seconds = (f"{row[name]:.1f}" for name in ("seconds", "compile_seconds"))
        table.add_row(str(at), settings, *map(str, counts), *seconds)
    output.say(
        table,
        f"{totals['num_cells_done']} of {totals['num_cells']} cells, "
        f"{totals['num_paths_done']} of {totals['num_paths']} paths, "
        f"{totals['num_failed']} failed fits, {totals['num_stopped']} stopped; "
        f"{totals['seconds']:.1f} s of computing, "
        f"{totals['compile_seconds']:.1f} s of compiling.",
    )


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="The --store of a study, complete or not.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, its pictures and tables.")],
    baseline: Annotated[
        str | None, typer.Option(help="The estimator to compare with; default: the first.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric to report, again for more; default: all.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Default: the name of the study.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write what a study found: one page with heat maps, error bars, seconds, and tables beside it.

    Tables are CSV, and LaTeX where they have the shape of a paper's.

    **Example:** `jaxfc study report results --out report --baseline BM`
    """
    from jaxfc.report.study import write_study_report
    from jaxfc.running.study_result import read_study

    output = Output(quiet, as_json)
    with output.waiting("drawing"):
        result = read_study(store)
        page = write_study_report(result, out, title=title, baseline=baseline, metrics=metric)
    so_far = "" if result.is_complete else " The study is not complete; the page says so."
    output.say(f"Written to {page}.{so_far}")
    output.answer({"page": page, "is_complete": result.is_complete})
