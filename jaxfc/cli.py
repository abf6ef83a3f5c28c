"""The command `jaxfc`: demo, fit, forecast, backtest, study, report, data, doctor.

Exit codes: 0 all is well, 1 the input or the estimation is at fault (one message on stderr), 2 the
command was not understood, 3 a fault of jaxfc itself, 130 stopped by hand.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from jaxfc import cli_backtest, cli_data, cli_demo, cli_doctor, cli_fit, cli_report, cli_study

EXPECTED = (ValueError, TypeError, RuntimeError, ModuleNotFoundError, OSError, MemoryError)
app = typer.Typer(
    name="jaxfc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (cli_demo.demo, cli_fit.fit, cli_fit.forecast):
    app.command()(command)
for group in (cli_backtest.app, cli_study.app):
    app.add_typer(group)
app.command()(cli_report.report)
app.add_typer(cli_data.app)
app.command()(cli_doctor.doctor)


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
        except Exception as error:  # a user is not shown a traceback that was not asked for
            if "--debug" in given:
                raise
            print(
                f"Error: a fault of jaxfc itself: {type(error).__name__}: {error}\n"
                "jaxfc --debug COMMAND shows the traceback; please report it.",
                file=sys.stderr,
            )
            sys.exit(3)
    sys.exit(0)


if __name__ == "__main__":
    main()
