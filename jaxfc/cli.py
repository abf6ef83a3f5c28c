"""The command `jaxfc`: demo, fit, forecast, and the group study.

Exit codes: 0 all is well, 1 the input or the estimation is at fault (one message on stderr), 2 the
command was not understood.
"""

import enum
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from jaxfc import cli_report, cli_study

EXPECTED = (ValueError, TypeError, RuntimeError, ModuleNotFoundError, OSError)
app = typer.Typer(
    name="jaxfc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_study.app)
app.command()(cli_report.report)


class MethodName(enum.StrEnum):
    """Estimation methods by their names on the command line."""

    EM = "em"
    TWO_STEP = "two-step"
    PCA = "pca"
    PPCA = "ppca"


class IdiosyncraticName(enum.StrEnum):
    """Forms of the idiosyncratic covariance."""

    DIAGONAL = "diagonal"
    ISOTROPIC = "isotropic"
    FULL = "full"


def show_version(wanted: bool) -> bool:
    """Print the version and leave, if that is wanted."""
    if wanted:
        from importlib.metadata import version

        print(f"jaxfc {version('jaxfc')}")
        raise typer.Exit()
    return wanted


@app.callback()
def prepare(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    """Forecasting of panels of financial and macroeconomic time series with holes.

    Try `jaxfc demo`: it needs no data of yours. `jaxfc fit --help` says how to use your files.
    """
    import os

    import jax

    # A program owns its process: float64 for all it computes, threads enough for several batched
    # factorisations of LAPACK at once (docs/index.md, read when the first array is made), and
    # compiled programs kept for the next run unless the user has already said where.
    os.environ.setdefault("NPROC", str(max(16, os.cpu_count() or 1)))
    jax.config.update("jax_enable_x64", True)
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def cache_folder() -> Path:
    """Where compiled programs are kept: $XDG_CACHE_HOME/jaxfc or ~/.cache/jaxfc."""
    import os

    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "jaxfc"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer weeks and no choice of the model's size.")
    ] = False,
    returns: Annotated[
        bool, typer.Option("--returns", help="Instead: a backtest of weekly S&P 500 returns.")
    ] = False,
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
    if returns:
        return cli_report.demo_returns(out, quick)
    console = Console()
    console.print(f"Computing in {tables.software()['precision']} (double precision).")
    columns = (TextColumn("{task.description:<26}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(STAGES) + 1)

        def announce(stage: str) -> None:
            started = stage != STAGES[0]
            progress.update(task, description=stage, advance=1 if started else 0)

        result = run_demo(QUICK if quick else DemoConfig(), announce)
        announce("write the report")
        page = write_demo(result, out)
        progress.update(task, description="done", advance=1)
    print_demo(result, page)


def print_demo(result: object, page: Path) -> None:
    """What was done and in how many seconds, the target's scores, what they say, the report."""
    from rich.console import Console
    from rich.table import Table

    from jaxfc.report.demo import DemoResult
    from jaxfc.report.evaluate import verdicts

    assert isinstance(result, DemoResult)
    console, target = Console(), result.config.target
    fitted, path = result.fitted, result.fitted.loglik_path
    model = fitted.model
    how = "chosen by information criteria" if result.selection is not None else "as configured"
    console.print(f"{result.panel!r}", highlight=False, soft_wrap=True)
    console.print(
        f"Model: {model.num_factors} factors, {model.num_lags} lags ({how}); two-step EM, "
        f"converged after {int(fitted.num_steps)} of at most {path.size} steps.",
        highlight=False,
    )
    spent = Table("stage", "seconds", title="Time, compilation included")
    for name, seconds in result.seconds.items():
        spent.add_row(name, f"{seconds:.1f}")
    console.print(spent)
    rows = result.evaluation.scores
    rows = rows[rows.series == target]
    table = Table(
        "model", "RMSE", "CRPS", "90% coverage", title=f"{target}, one week ahead, percent"
    )
    for name, rmse, crps, covered in zip(
        rows.model, rows.rmse, rows.crps, rows.coverage_90, strict=True
    ):
        table.add_row(name, f"{rmse:.3f}", f"{crps:.3f}", f"{covered:.2f}")
    console.print(table)
    for sentence in verdicts(result.evaluation.scores, target):
        console.print(sentence, highlight=False)
    console.print(f"Report: {page}", soft_wrap=True)


@app.command()
def fit(
    files: Annotated[
        list[str],
        typer.Argument(
            help="A .csv or .parquet file of dates x series; with several frequencies one file "
            "each, as FREQUENCY=FILE or with the frequency read off the dates."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the fitted model and its tables.")],
    factors: Annotated[int | None, typer.Option(help="Number of factors K.")] = None,
    lags: Annotated[int, typer.Option(help="Number of lags p of the factors; 0: static.")] = 1,
    select: Annotated[
        bool, typer.Option("--select", help="Choose K and p by information criteria.")
    ] = False,
    max_factors: Annotated[int, typer.Option(help="Largest K that --select tries.")] = 5,
    max_lags: Annotated[int, typer.Option(help="Largest p that --select tries.")] = 2,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=KIND of a low-frequency series, once per series: stock, flow_sum, "
            "flow_average or change_in_flow."
        ),
    ] = None,
    delays: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DURATION from the end of a period to publication, e.g. CPI=15D."),
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option(help="Default: em, or two-step if a series is a sum or an average."),
    ] = None,
    idiosyncratic: Annotated[
        IdiosyncraticName, typer.Option(help="Covariance of what the factors do not explain.")
    ] = IdiosyncraticName.DIAGONAL,
    fredmd: Annotated[
        bool, typer.Option("--fredmd", help="Insist that the files are FRED-MD or FRED-QD files.")
    ] = False,
    draws: Annotated[int, typer.Option(min=2, help="Draws behind the nowcasts' bands.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of these draws.")] = 0,
) -> None:
    """Estimate a factor model from your files.

    Empty cells are missing values. FRED-MD files are recognised and transformed by their codes.
    Writes `model.jaxfc`, `labels.json`, `factors.csv`, `loadings.csv`, `nowcasts.csv` and
    `summary.json`.

    **Examples:** `jaxfc fit returns.csv --factors 2 --out fit`, and with two frequencies
    `jaxfc fit W-FRI=weekly.csv M=monthly.csv --kinds CPI=flow_sum --factors 2 --out fit`
    """
    if select == (factors is not None):
        raise typer.BadParameter("give either --factors K or --select.")
    from rich.console import Console

    from jaxfc.report.jobs import FitOptions, fit_panel, read_panel, write_fit

    refuse_file(out)
    panel = read_panel(
        [split_file(text) for text in files],
        kinds=pairs(kinds, "--kinds"),
        delays=pairs(delays, "--delays"),
        fredmd=fredmd,
    )
    console = Console()
    console.print(f"{panel!r}; computing in float64.", highlight=False, soft_wrap=True)
    options = FitOptions(
        num_factors=factors,
        num_lags=lags,
        max_factors=max_factors,
        max_lags=max_lags,
        method=None if method is None else method.value,
        idiosyncratic=idiosyncratic.value,  # pyright: ignore[reportArgumentType]
        num_draws=draws,
        seed=seed,
    )
    summary = write_fit(fit_panel(panel, options), panel, options, out)
    console.print(
        f"{summary['method']}: {summary['num_factors']} factors, {summary['num_lags']} lags, "
        f"{summary['status']} after {summary['num_steps']} steps. Written to {out}.",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def forecast(
    folder: Annotated[Path, typer.Argument(help="The --out folder of an earlier jaxfc fit.")],
    horizon: Annotated[int, typer.Option(help="Number of periods ahead.", min=1)],
    out: Annotated[Path | None, typer.Option(help="CSV file; default: the screen.")] = None,
) -> None:
    """Forecast from a fitted model, with quantiles.

    One row per future date and series: mean, std, q0.05 to q0.95, in the units the model was fitted
    in (transformed ones for FRED-MD), at the panel's own frequency.

    **Example:** `jaxfc forecast fit --horizon 4 --out forecast.csv`
    """
    from jaxfc.report.jobs import forecast_fit

    text = forecast_fit(folder, horizon).to_csv(index=False)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


def split_file(text: str) -> tuple[str | None, Path]:
    """FREQUENCY=FILE or FILE."""
    from jaxfc.calendar import parse_frequency

    frequency, mark, path = text.partition("=")
    if not mark or Path(text).exists():
        return None, Path(text)
    return parse_frequency(frequency), Path(path)


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE options as a dictionary."""
    found = {}
    for text in texts or []:
        name, mark, value = text.partition("=")
        if not mark or not name or not value:
            raise typer.BadParameter(f"{option} takes NAME=VALUE, got {text!r}.")
        if name in found:
            raise typer.BadParameter(f"{option} is given twice for {name!r}.")
        found[name] = value
    return found


def refuse_file(folder: Path) -> None:
    """A folder to write to must not be a file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; give another --out.")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; faults of the input become one message on stderr and exit code 1."""
    given = sys.argv[1:] if arguments is None else arguments
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"Warning: {message}", file=sys.stderr)
        try:
            app(args=given)
        except EXPECTED as error:
            if "--debug" in given:
                raise
            text = str(error).strip() or type(error).__name__
            print(f"Error: {text}", file=sys.stderr)
            sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
