"""Rolling backtests: every origin re-estimated on what had been published, one compiled program."""

import dataclasses
import warnings
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.batching import map_in_batches
from jaxfc.calendar import Date, naive
from jaxfc.forecast import Forecast
from jaxfc.model import Model
from jaxfc.panel import Panel
from jaxfc.results import RESULTS, is_okay
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows


@dataclasses.dataclass(frozen=True)
class Rolling:
    """Origins whose estimation windows all have `window` rows and end `step` rows apart.

    The first origin is the first row at or after `start` with a full window before it, or such that
    there are `num_origins` of them (not both); the last one leaves `horizon` rows after it.
    """

    window: int
    step: int = 1
    start: Date | None = None
    num_origins: int | None = None

    def __post_init__(self):
        if self.window < 1 or self.step < 1:
            raise ValueError(
                f"window and step must be at least 1, got {self.window} and {self.step}."
            )
        if self.num_origins is not None and self.num_origins < 1:
            raise ValueError(f"num_origins must be at least 1, got {self.num_origins}.")
        if self.start is not None and self.num_origins is not None:
            raise ValueError("give start or num_origins, not both.")

    def rows(self, index: pd.DatetimeIndex, horizon: int) -> Int[np.ndarray, " origins"]:
        """Rows of the origins in a calendar, ascending.

        **Raises:** `ValueError` if the calendar is too short for them.
        """
        first, last = self.window - 1, len(index) - 1 - horizon
        if self.start is None:
            rows = np.arange(last, first - 1, -self.step)[: self.num_origins][::-1]
        else:
            wanted = np.searchsorted(index.to_numpy(), naive(self.start).to_datetime64())
            rows = np.arange(max(first, int(wanted)), last + 1, self.step)
        if not len(rows) or (self.num_origins is not None and len(rows) < self.num_origins):
            raise ValueError(
                f"{len(index)} rows hold {len(rows)} origins with a window of {self.window} rows "
                f"before and {horizon} rows after them, wanted {self.num_origins or 'at least 1'}; "
                "shorten the window or the horizon, or ask for fewer origins."
            )
        return rows


class Windows(eqx.Module):
    """The data of every origin, of one shape."""

    values: Float[Array, "origins time series"]
    observed: Bool[Array, "origins time series"]
    aggregation: AggregationRows | None
    keys: PRNGKeyArray | None


class WindowFit(eqx.Module):
    """What is kept of the estimation at every origin."""

    forecast: Forecast
    result: RESULTS
    num_steps: Int[Array, "*origins"]
    loglik: Float[Array, "*origins"]


@dataclasses.dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of a rolling backtest with their dates, names, and what happened.

    `forecast` is a law with a leading axis of origins on every leaf; `mean`, `std` and `realised`
    are (origins, horizon, series). `realised` is NaN where the panel has no value of that row by
    itself: not observed, or a sum or average over several rows. `okay` (origins,) says which
    estimations ended well; the others are kept, marked, and not replaced.
    """

    forecast: Forecast
    result: RESULTS
    num_steps: Int[np.ndarray, " origins"]
    loglik: Float[np.ndarray, " origins"]
    origins: pd.DatetimeIndex
    dates: np.ndarray
    names: tuple[str, ...]
    realised: Float[np.ndarray, "origins horizon series"]

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

    def quantile(self, level: float) -> Float[np.ndarray, "origins horizon series"]:
        """Marginal quantiles of the forecasts."""
        return np.asarray(jax.vmap(lambda law: law.quantile(jnp.asarray(level)))(self.forecast))

    def to_frame(self, *, quantiles: Sequence[float] = ()) -> pd.DataFrame:
        """One row per origin, horizon and series: mean, std, quantiles, realised value, result.

        `result` is "" where the estimation ended well, else the message of its code.
        """
        num_origins, horizon, num_series = self.realised.shape
        messages = self.messages()
        each = horizon * num_series
        columns = {
            "origin": np.repeat(self.origins.to_numpy(), each),
            "date": np.repeat(self.dates.reshape(-1), num_series),
            "horizon": np.tile(np.repeat(np.arange(1, horizon + 1), num_series), num_origins),
            "series": np.tile(np.array(self.names, dtype=object), num_origins * horizon),
            "mean": self.mean.reshape(-1),
            "std": self.std.reshape(-1),
        }
        columns |= {f"q{q:g}": self.quantile(q).reshape(-1) for q in quantiles}
        columns["realised"] = self.realised.reshape(-1)
        columns["result"] = np.repeat(np.array(messages, dtype=object), each)
        return pd.DataFrame(columns)

    def messages(self) -> list[str]:
        """The message of every origin's result code, "" where all is well."""
        okay = self.okay
        codes = [jax.tree.map(lambda leaf, i=i: leaf[i], self.result) for i in range(len(okay))]
        return ["" if fine else str(RESULTS[code]) for fine, code in zip(okay, codes, strict=True)]


def backtest(
    model: Model,
    panel: Panel,
    origins: Rolling,
    horizon: int = 1,
    *,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Backtest:
    """Estimate `model` anew at every origin on the window that ends there, and forecast from it.

    At an origin only what had been published by the end of its row is observed (`panel.as_of`), so
    a delayed series ends earlier than the others. Aggregates whose periods the window cuts are not
    observed either. All windows have one shape and run side by side in one program, `batch_size` of
    them at a time (all, if not given): origin i gives what `model.fit` on its window alone gives.
    With a `key`, origin i uses `fold_in(key, i)` for estimation and forecast.

    **Raises:** `ValueError` if the panel is too short, or the model refuses a window (for example
    a series without any observation in it); failed estimations do not raise, see `Backtest.okay`.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}.")
    rows = origins.rows(panel.index, horizon)
    model = model.resolved(panel)
    windows = stack_windows(model, panel, rows, origins.window, key)
    done = forecast_windows(model, windows, horizon, batch_size)
    targets = rows[:, None] + np.arange(1, horizon + 1)
    alone = np.array(
        [
            frequency == panel.frequency or kind == "stock"
            for frequency, kind in zip(panel.frequencies, panel.kinds, strict=True)
        ]
    )
    comparable = panel.observed[targets] & alone
    return Backtest(
        forecast=done.forecast,
        result=done.result,
        num_steps=np.asarray(done.num_steps),
        loglik=np.asarray(done.loglik),
        origins=panel.index[rows],
        dates=panel.index.to_numpy()[targets],
        names=panel.names,
        realised=np.where(comparable, panel.values[targets], np.nan),
    )


def window_panel(panel: Panel, row: int, window: int) -> Panel:
    """What a forecaster at the end of `row` has: `window` rows, published values only."""
    vintage = panel.as_of(panel.index[row])  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        # Every window cuts some period at its beginning; the docstring of `backtest` says so.
        warnings.filterwarnings("ignore", message=".*the window cuts", category=UserWarning)
        return vintage.window(row + 1 - window, row + 1)


def stack_windows(
    model: Model,
    panel: Panel,
    rows: Int[np.ndarray, " origins"],
    window: int,
    key: PRNGKeyArray | None,
) -> Windows:
    """The windows of all origins along a new leading axis, each checked by the model."""
    panels = [window_panel(panel, int(row), window) for row in rows]
    for part in panels:
        try:
            model.check(part)
        except ValueError as error:
            raise ValueError(
                f"the window {part.index[0]:%Y-%m-%d}..{part.index[-1]:%Y-%m-%d} (what had been "
                f"published by its end) cannot be estimated: {error}"
            ) from error
    dtype = jnp.result_type(float)
    aggregation = None
    if panels[0].aggregation is not None:
        aggregation = jax.tree.map(
            lambda *leaves: np.stack(leaves), *(p.aggregation for p in panels)
        )
    keys = None
    if key is not None:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(rows)))
    return Windows(
        values=jnp.asarray(np.stack([p.values for p in panels]), dtype),
        observed=jnp.asarray(np.stack([p.observed for p in panels])),
        aggregation=aggregation,
        keys=keys,
    )


@eqx.filter_jit
def forecast_windows(
    model: Model, windows: Windows, horizon: int, batch_size: int | None
) -> WindowFit:
    """Estimation and forecast of every window: pure, one trace per shape."""

    def one(window: Windows) -> WindowFit:
        keys = (None, None) if window.keys is None else jax.random.split(window.keys)
        fitted = model.estimate(
            window.values, window.observed, aggregation=window.aggregation, key=keys[0]
        )
        forecast = fitted.forecast(horizon, key=keys[1])
        return WindowFit(forecast, fitted.result, fitted.num_steps, fitted.loglik)

    return map_in_batches(one, windows, batch_size)
