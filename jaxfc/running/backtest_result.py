"""What a backtest answers: forecasts by origin and horizon, with dates, names and scores."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.evaluation.intervals import interval_outliers, mean_interval_score
from jaxfc.evaluation.scores import crps_draws, crps_gaussian, mae, mean_over_cases, rmse
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.results import RESULTS, is_okay
from jaxfc.running.windows import WindowFit
from jaxfc.serialisation import write_atomically
from jaxfc.serialisation_tree import DECODING_ERRORS, decode, encode
from jaxfc.typing import Array, Bool, Float, Int

FORMAT = 1
DESCRIPTION, ORIGINS, REALISED = "backtest.json", "origins.parquet", "realised.parquet"


@dataclasses.dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of a backtest with their dates, names, and what happened.

    `forecast` is a law with a leading axis of origins on every leaf; `mean`, `std` and `realised`
    are (origins, horizon, series). `realised` is NaN where the panel has no value of that row by
    itself: not observed, or a sum or average over several rows. `okay` (origins,) says which
    estimations ended well; the others are kept, marked, and not replaced. `details`: what the model
    reports of every estimation (chosen sizes), by name.
    """

    forecast: Forecast
    result: RESULTS
    num_steps: Int[np.ndarray, " origins"]
    loglik: Float[np.ndarray, " origins"]
    details: dict[str, np.ndarray]
    origins: pd.DatetimeIndex
    dates: np.ndarray
    names: tuple[str, ...]
    realised: Float[np.ndarray, "origins horizon series"]
    series: tuple[str, ...] = ()

    @property
    def okay(self) -> Bool[np.ndarray, " origins"]:
        """Which estimations ended well."""
        return np.asarray(is_okay(self.result))

    @property
    def mean(self) -> Float[np.ndarray, "origins horizon series"]:
        """Means of the forecasts."""
        return np.asarray(jax.vmap(lambda law: law.mean)(self.forecast))

    @property
    def std(self) -> Float[np.ndarray, "origins horizon series"]:
        """Standard deviations of the forecasts."""
        return np.asarray(jax.vmap(lambda law: law.std)(self.forecast))

    @property
    def draws(self) -> Float[np.ndarray, "origins draws horizon series"] | None:
        """The draws of forecasts that are made of draws, None for others."""
        if not isinstance(self.forecast, SampleForecast | DecomposedForecast):
            return None
        return np.asarray(jax.vmap(lambda law: law.draws)(self.forecast))

    def quantile(self, level: float | Array) -> Float[np.ndarray, "origins *levels horizon series"]:
        """Marginal quantiles of the forecasts; several levels stand after the origins."""
        return np.asarray(jax.vmap(lambda law: law.quantile(jnp.asarray(level)))(self.forecast))

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the central intervals that hold `level` of the law, each
        (origins, horizon, series)."""
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must lie in (0, 1), got {level}.")
        both = self.quantile(jnp.asarray([0.5 * (1.0 - level), 0.5 * (1.0 + level)]))
        return both[:, 0], both[:, 1]

    def column(self, name: str) -> int:
        """Position of a series among those that are forecast."""
        if name not in self.names:
            raise ValueError(f"no forecast of {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)

    def to_frame(self, *, quantiles: Sequence[float] = ()) -> pd.DataFrame:
        """One row per origin, horizon and series: mean, std, quantiles, realised value, result.

        `result` is "" where the estimation ended well, else the message of its code.
        """
        table = self.outcomes()
        realised = table.pop("realised")
        table["mean"], table["std"] = self.mean.reshape(-1), self.std.reshape(-1)
        for q in quantiles:
            table[f"q{q:g}"] = self.quantile(q).reshape(-1)
        table["realised"] = realised
        each = len(table) // len(self.origins)
        table["result"] = np.repeat(np.array(self.messages(), dtype=object), each)
        return table

    def outcomes(self) -> pd.DataFrame:
        """One row per origin, horizon and series: what was forecast and what was realised."""
        num_origins, horizon, num_series = self.realised.shape
        steps = np.repeat(np.arange(1, horizon + 1), num_series)
        columns = {
            "origin": np.repeat(self.origins.to_numpy(), horizon * num_series),
            "date": np.repeat(self.dates.reshape(-1), num_series),
            "horizon": np.tile(steps, num_origins),
            "series": np.tile(np.array(self.names, dtype=object), num_origins * horizon),
            "realised": self.realised.reshape(-1),
        }
        return pd.DataFrame(columns)

    def scores(self, *, levels: Sequence[float] = (0.5, 0.8, 0.9)) -> pd.DataFrame:
        """One row per series and horizon: number of realised values, RMSE, MAE, CRPS, and for each
        level the share of realised values outside the interval and the mean interval score.

        CRPS from the draws where the forecast is made of draws, else that of the normal law with
        its mean and standard deviation.
        """
        realised = jnp.asarray(self.realised)
        draws = self.draws
        if draws is None:
            crps = crps_gaussian(jnp.asarray(self.mean), jnp.asarray(self.std), realised)
        else:
            crps = crps_draws(jnp.moveaxis(jnp.asarray(draws), 1, 0), realised)
        columns = {
            "num_cases": np.isfinite(self.realised).sum(axis=0),
            "rmse": rmse(jnp.asarray(self.mean), realised),
            "mae": mae(jnp.asarray(self.mean), realised),
            "crps": mean_over_cases(crps, realised),
        }
        for level in levels:
            lower, upper = map(jnp.asarray, self.interval(level))
            columns[f"outside {level:.0%}"] = interval_outliers(lower, upper, realised)
            columns[f"MIS {level:.0%}"] = mean_interval_score(lower, upper, realised, level)
        horizon = self.realised.shape[1]
        index = pd.MultiIndex.from_product(
            [range(1, horizon + 1), self.names], names=["horizon", "series"]
        )
        flat = {name: np.asarray(value).reshape(-1) for name, value in columns.items()}
        return pd.DataFrame(flat, index).reorder_levels(["series", "horizon"])

    def messages(self) -> list[str]:
        """The message of every origin's result code, "" where all is well."""
        okay = self.okay
        codes = [jax.tree.map(lambda leaf, i=i: leaf[i], self.result) for i in range(len(okay))]
        return ["" if fine else str(RESULTS[code]) for fine, code in zip(okay, codes, strict=True)]

    def save(self, folder: str | Path) -> None:
        """Write the backtest into a folder: Parquet for numbers, JSON for what they are.

        **Raises:** `ValueError` for a folder that holds other files; `OSError` if it cannot be
        written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        odd = sorted({p.name for p in folder.iterdir()} - {DESCRIPTION, ORIGINS, REALISED})
        if odd:
            raise ValueError(f"{folder} holds {odd[0]!r}; save a backtest in a folder of its own.")
        arrays: list[Any] = []
        content = {
            "format": FORMAT,
            "tree": encode((self.forecast, self.result, self.details), arrays, "backtest"),
            "names": list(self.names),
            "series": list(self.series),
        }
        table = table_of(arrays, num_steps=self.num_steps, loglik=self.loglik)
        table.insert(0, "origin", self.origins)
        write_parquet(folder / ORIGINS, table)
        write_parquet(folder / REALISED, self.outcomes())
        write_atomically(folder / DESCRIPTION, json.dumps(content, indent=1).encode())


def load_backtest(folder: str | Path) -> Backtest:
    """The backtest that `Backtest.save` wrote.

    **Raises:** `FileNotFoundError` where there is none, `ValueError` for files of another kind.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, ORIGINS, REALISED):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no backtest: it has no {name}.")
    try:
        return read_backtest(folder)
    except (*DECODING_ERRORS, pa.ArrowException, OSError) as error:
        raise ValueError(f"the backtest in {folder} cannot be read: {error}") from error


def read_backtest(folder: Path) -> Backtest:
    """The backtest in a folder that has all its files."""
    content = json.loads((folder / DESCRIPTION).read_bytes())
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']}, this reads {FORMAT}.")
    table, realised = pd.read_parquet(folder / ORIGINS), pd.read_parquet(folder / REALISED)

    def read(like: list[Any]) -> list[Any]:
        shapes = [(tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in like]
        found = arrays_of(table, shapes)
        return [
            array if isinstance(leaf, np.ndarray) else jnp.asarray(array)
            for array, leaf in zip(found, like, strict=True)
        ]

    forecast, result, details = decode(content["tree"], read)
    names = tuple(content["names"])
    shape = (len(table), -1, len(names))
    return Backtest(
        forecast=forecast,
        result=result,
        num_steps=table["num_steps"].to_numpy(),
        loglik=table["loglik"].to_numpy(),
        details=details,
        origins=pd.DatetimeIndex(table["origin"], name=None),
        dates=realised["date"].to_numpy().reshape(shape)[:, :, 0],
        names=names,
        realised=realised["realised"].to_numpy().reshape(shape),
        series=tuple(content["series"]),
    )


def table_of(arrays: Sequence[Any], **columns: np.ndarray) -> pd.DataFrame:
    """One row per origin, one column of lists per array (origins lead)."""
    flat = [np.asarray(array).reshape(len(array), -1) for array in arrays]
    lists = {f"array{i:03d}": list(array) for i, array in enumerate(flat)}
    return pd.DataFrame({**columns, **lists})


def arrays_of(
    table: pd.DataFrame, shapes: Sequence[tuple[tuple[int, ...], np.dtype]]
) -> list[np.ndarray]:
    """What `table_of` was given."""
    found = []
    for i, (shape, dtype) in enumerate(shapes):
        rows = list(table[f"array{i:03d}"])
        found.append(np.asarray(rows, dtype).reshape(len(rows), *shape[1:]))
    return found


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """All of the file or nothing."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def window_table(fits: WindowFit) -> pd.DataFrame:
    """The answers of a chunk as a table for the store."""
    return table_of([np.asarray(leaf) for leaf in jax.tree.leaves(fits)])


def window_fits(table: pd.DataFrame, answers: WindowFit) -> WindowFit:
    """What `window_table` was given; `answers` has the shapes, origins led by (cases, refit)."""
    leaves, tree = jax.tree.flatten(answers)
    shapes = [((0, *leaf.shape[2:]), np.dtype(leaf.dtype)) for leaf in leaves]
    return jax.tree.unflatten(tree, arrays_of(table, shapes))
