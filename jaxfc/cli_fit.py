"""The commands `jaxfc fit` and `jaxfc forecast`: a factor model of your files."""

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from jaxfc.cli_output import Json, Output, Quiet, refuse_file


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
    seed: Annotated[int, typer.Option(help="Seed of these draws.", min=0, max=2**32 - 1)] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
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
    from jaxfc.report.file_options import split_file
    from jaxfc.report.jobs import FitOptions, fit_panel, read_panel, write_fit

    refuse_file(out)
    panel = read_panel(
        [split_file(text) for text in files],
        kinds=pairs(kinds, "--kinds"),
        delays=pairs(delays, "--delays"),
        fredmd=fredmd,
    )
    output = Output(quiet, as_json)
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
    with output.waiting("estimating"):
        summary = write_fit(fit_panel(panel, options), panel, options, out)
    output.answer(summary | {"out": out})
    output.say(
        f"{panel!r}; computed in float64.",
        f"{summary['method']}: {summary['num_factors']} factors, {summary['num_lags']} lags, "
        f"{summary['status']} after {summary['num_steps']} steps. Written to {out}.",
    )


def forecast(
    folder: Annotated[Path, typer.Argument(help="The --out folder of an earlier jaxfc fit.")],
    horizon: Annotated[int, typer.Option(help="Number of periods ahead.", min=1)],
    out: Annotated[Path | None, typer.Option(help="CSV file; default: the screen.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Forecast from a fitted model, with quantiles.

    One row per future date and series: mean, std, q0.05 to q0.95, in the units the model was fitted
    in (transformed ones for FRED-MD), at the panel's own frequency.

    **Example:** `jaxfc forecast fit --horizon 4 --out forecast.csv`
    """
    from jaxfc.report.jobs import forecast_fit
    from jaxfc.serialisation import write_atomically

    output = Output(quiet, as_json)
    with output.waiting("forecasting"):
        table = forecast_fit(folder, horizon)
    text = table.to_csv(index=False)
    if out is not None:
        write_atomically(out, text.encode())
        output.say(f"Written to {out}.")
    elif not as_json:
        sys.stdout.write(text)
    table["date"] = table["date"].dt.strftime("%Y-%m-%d")
    output.answer(table.to_dict("records"))


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
