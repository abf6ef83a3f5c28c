"""What the commands `fit` and `forecast` do: from files to a folder, from there to a table."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import continue_calendar, infer_frequency
from jaxfc.factors import EM, PCA, PPCA, DynamicFactorModel, FittedFactorModel, TwoStepEM
from jaxfc.factors.methods import Method
from jaxfc.factors.nowcasts import nowcast
from jaxfc.factors.select import select_model
from jaxfc.frames import read_cells, read_table
from jaxfc.fredmd import read_fredmd
from jaxfc.model import Fitted
from jaxfc.panel import Panel
from jaxfc.report import tables
from jaxfc.serialisation import load, save
from jaxfc.transforms import transform

MODEL_FILE, LABELS_FILE = "model.jaxfc", "labels.json"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """What the command `fit` was told; `num_factors` None: choose up to `max_factors`."""

    num_factors: int | None
    num_lags: int
    max_factors: int = 5
    max_lags: int = 2
    method: str | None = None
    idiosyncratic: Literal["diagonal", "isotropic", "full"] = "diagonal"
    num_draws: int = 200
    seed: int = 0


def method_called(name: str) -> Method:
    """The estimation method of a name on the command line."""
    if name == "two-step":
        return TwoStepEM(conditional_cov=True, restart=False, rtol=1e-4, max_steps=200)
    return {"em": EM, "pca": PCA, "ppca": PPCA}[name]()


def is_fredmd(path: Path) -> bool:
    """Whether a text file has FRED-MD's header and row of transformation codes."""
    if "".join(path.suffixes).lower().endswith((".parquet", ".pq")):
        return False
    cells = read_cells(path)
    first = cells.iloc[:2, 0].str.strip().str.rstrip(":").str.lower()
    return cells.columns[0].lower() == "sasdate" and "transform" in set(first)


def read_panel(
    files: Sequence[tuple[str | None, Path]],
    *,
    kinds: Mapping[str, str],
    delays: Mapping[str, str],
    fredmd: bool = False,
) -> Panel:
    """A panel from one file per frequency; FRED-MD files are transformed by their codes.

    **Raises:** `FileNotFoundError`, and `ValueError` naming the file, series or option.
    """
    frames: dict[str, pd.DataFrame] = {}
    codes: dict[str, int] = {}
    for given, path in files:
        if fredmd or is_fredmd(path):
            frame, own = read_fredmd(path)
            codes |= own
        else:
            frame = read_table(path)
        if len(files) == 1:
            panel = Panel.from_frame(frame, kinds=kinds, delays=delays, frequency=given)
            return transformed(panel, codes)
        frequency = given or infer_frequency(pd.DatetimeIndex(frame.index))
        if frequency in frames:
            raise ValueError(
                f"{path} has the frequency {frequency} of another file; join them into one file "
                "per frequency, or say which is which, for example M=monthly.csv."
            )
        frames[frequency] = frame
    return transformed(Panel.from_frames(frames, kinds=kinds, delays=delays), codes)


def transformed(panel: Panel, codes: dict[str, int]) -> Panel:
    """The panel after FRED-MD's transformations, if there are any."""
    if not codes:
        return panel
    changed = transform(panel, codes)
    assert isinstance(changed, Panel)
    return changed


def fit_panel(panel: Panel, options: FitOptions) -> FittedFactorModel:
    """The factor model of a panel; one-step EM if every value stands for itself, else two-step."""
    name = options.method or ("em" if panel.aggregation is None else "two-step")
    num_factors = 1 if options.num_factors is None else options.num_factors
    model = DynamicFactorModel(
        num_factors,
        options.num_lags,
        method=method_called(name),
        idiosyncratic=options.idiosyncratic,
    )
    if options.num_factors is None:
        most = min(options.max_factors, panel.num_series - 2)
        model = select_model(model, panel, most, options.max_lags, batch_size=1).best_model
    fitted = model.fit(panel)
    assert isinstance(fitted, FittedFactorModel)
    return fitted


def write_fit(
    fitted: FittedFactorModel, panel: Panel, options: FitOptions, folder: Path
) -> dict[str, object]:
    """The fitted model, its labels and its tables in `folder`; returns what `summary.json` says."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(options.seed)
    cells = nowcast(fitted, panel, options.num_draws, key=key)
    tables.factors_table(fitted, panel).to_csv(folder / "factors.csv")
    tables.loadings_table(fitted, panel).to_csv(folder / "loadings.csv")
    tables.nowcast_table(cells, panel).to_csv(folder / "nowcasts.csv", index=False)
    save(fitted, folder / MODEL_FILE)
    labels = {
        "names": list(panel.names),
        "frequency": panel.frequency,
        "last_date": f"{panel.index[-1]:%Y-%m-%d}",
        "transformed": panel.levels is not None,
    }
    (folder / LABELS_FILE).write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    summary = {
        "num_series": panel.num_series,
        "num_times": panel.num_times,
        "first_date": f"{panel.index[0]:%Y-%m-%d}",
        "last_date": labels["last_date"],
        "share_observed": float(panel.observed.mean()),
        "method": type(fitted.model.method).__name__,
        "num_factors": fitted.parameters.num_factors,
        "num_lags": fitted.parameters.num_lags,
        "idiosyncratic": fitted.model.idiosyncratic,
        **tables.convergence(fitted),
        "num_draws": options.num_draws,
        "seed": options.seed,
        "software": tables.software(),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def read_fit(folder: Path) -> tuple[Fitted, dict]:
    """What `write_fit` left in a folder: the fitted model and its labels.

    **Raises:** `FileNotFoundError`, `ValueError` that says which file is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the --out of an earlier jaxfc fit.")
    path = folder / LABELS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {LABELS_FILE}; give the --out of an earlier jaxfc fit."
        )
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        known = {"names", "frequency", "last_date"} <= set(labels)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); fit again.") from error
    if not known:
        raise ValueError(f"{path} is damaged: names, frequency or last_date is missing; fit again.")
    return load(folder / MODEL_FILE), labels


def forecast_fit(folder: Path, horizon: int) -> pd.DataFrame:
    """One row per future date and series: mean, standard deviation, quantiles.

    **Raises:** as `read_fit`; `ValueError` for a horizon below 1.
    """
    fitted, labels = read_fit(folder)
    forecast = fitted.forecast(horizon)
    names = labels["names"]
    if forecast.mean.shape[1] != len(names):
        raise ValueError(
            f"{folder / LABELS_FILE} names {len(names)} series, the fitted model has "
            f"{forecast.mean.shape[1]}: the files are of different fits; fit again."
        )
    last = pd.DatetimeIndex([labels["last_date"]])
    dates = continue_calendar(last, labels["frequency"], horizon)
    columns = {
        "date": np.repeat(dates.to_numpy(), len(names)),
        "series": np.tile(np.array(names, dtype=object), horizon),
        "mean": np.asarray(forecast.mean).reshape(-1),
        "std": np.asarray(forecast.std).reshape(-1),
    }
    for level in QUANTILES:
        columns[f"q{level:g}"] = np.asarray(forecast.quantile(jnp.asarray(level))).reshape(-1)
    return pd.DataFrame(columns)
