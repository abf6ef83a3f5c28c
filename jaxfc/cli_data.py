"""The commands `jaxfc data`: list, show, export."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet, refuse_file

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Real data that ship inside other packages: nothing is downloaded.",
)


class FormatName(enum.StrEnum):
    """Formats of exported files."""

    CSV = "csv"
    PARQUET = "parquet"


def complete_name(start: str) -> list[str]:
    """Names of data sets for the shell."""
    from jaxfc.report.packaged_data import DATA_SETS

    return [name for name in DATA_SETS if name.startswith(start)]


Name = Annotated[
    str, typer.Argument(help="A name of jaxfc data list.", autocompletion=complete_name)
]


@app.command("list")
def list_all(quiet: Quiet = False, as_json: Json = False) -> None:
    """The packaged data sets, and which of them are installed.

    **Example:** `jaxfc data list`
    """
    from rich.table import Table

    from jaxfc.report.packaged_data import DATA_SETS

    output = Output(quiet, as_json)
    facts = [entry.facts() for entry in DATA_SETS.values()]
    output.answer(facts)
    table = Table("name", "what", "from")
    for fact in facts:
        there = f"{fact['package']} {fact['version']}" if fact["version"] else fact["install"]
        table.add_row(fact["name"], fact["what"], there.replace("[", r"\["))
    output.say(table)


@app.command()
def show(name: Name, quiet: Quiet = False, as_json: Json = False) -> None:
    """Series of a data set: dates, frequency, units, source.

    **Example:** `jaxfc data show us_macro`
    """
    from rich.table import Table

    from jaxfc.report.packaged_data import LICENCES, data_set, series_table

    output = Output(quiet, as_json)
    entry = data_set(name)
    series = series_table(entry, entry.load())
    about = {"source": entry.source, "licence": LICENCES[entry.package]}
    output.answer(entry.facts() | about | {"series": series.to_dict("records")})
    table = Table(*series.columns)
    for row in series.itertuples(index=False):
        table.add_row(*map(str, row))
    output.say(
        f"{entry.name}: {entry.words}.",
        table,
        f"Source: {entry.source}; shipped by {entry.package} {entry.version}.",
        f"{LICENCES[entry.package]}.",
    )


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("."),
    form: Annotated[FormatName, typer.Option("--format", help="Of the files.")] = FormatName.CSV,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a data set as files that `jaxfc fit` and `jaxfc backtest` read.

    One file a frequency, and NAME.json with units, sources, kinds and delays.

    **Example:** `jaxfc data export us_stocks --out data --format parquet`
    """
    from jaxfc.report.packaged_data import data_set
    from jaxfc.report.packaged_data import export as write

    entry = data_set(name)
    refuse_file(out)
    paths = write(entry, out, form.value)
    output = Output(quiet, as_json)
    output.say(f"Written: {', '.join(map(str, paths))}.")
    output.answer({"files": paths})
