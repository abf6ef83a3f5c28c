"""The windows of a backtest in one compiled program: estimate, forecast, and again from later data.

A case is one estimation and the `refit` origins that use it. Cases run side by side in chunks of
one size (`replicate`); compiled programs are kept for the next backtest of the same shapes.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import numbered_keys
from jaxfc.forecast import Forecast
from jaxfc.model import Fitted, Model
from jaxfc.panel import Panel
from jaxfc.results import RESULTS
from jaxfc.running.origins import Origins
from jaxfc.running.replicate import Device, Program, fitting_program, shapes_key
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt
from jaxfc_kernels.aggregation import AggregationRows

PROGRAMS: "OrderedDict[Any, Program]" = OrderedDict()
NUM_KEPT = 4


class Windows(eqx.Module):
    """The data of every origin, of one shape: `refit` origins to a case. `keys` are raw words."""

    values: Float[Array, "*cases refit time series"] | Float[np.ndarray, "*cases refit time series"]
    observed: Bool[Array, "*cases refit time series"] | Bool[np.ndarray, "*cases refit time series"]
    aggregation: AggregationRows | None
    keys: UInt[Array, "*cases refit words"] | UInt[np.ndarray, "*cases refit words"] | None


class WindowFit(eqx.Module):
    """What is kept of every origin."""

    forecast: Forecast
    result: RESULTS
    num_steps: Int[Array, "*origins"]
    loglik: Float[Array, "*origins"]
    details: dict[str, Array]


def stack_windows(
    model: Model,
    panel: Panel,
    rows: Int[np.ndarray, " origins"],
    origins: Origins,
    key: PRNGKeyArray | None,
) -> Windows:
    """The windows of all origins, those with an estimation checked by the model; the last case is
    filled up with its last origin."""
    longest = int(rows[-1]) + 1
    panels = [origins.panel_at(panel, int(row), longest) for row in rows]
    for part in panels[:: origins.refit]:
        try:
            model.check(part)
        except ValueError as error:
            raise ValueError(
                f"the window {part.index[0]:%Y-%m-%d}..{part.index[-1]:%Y-%m-%d} (what had been "
                f"published by its end) cannot be estimated: {error}"
            ) from error
    refit = origins.refit
    num_cases = -(-len(rows) // refit)
    places = np.minimum(np.arange(num_cases * refit), len(rows) - 1)

    def stacked(leaves: list[Any]) -> np.ndarray:
        array = np.stack([leaves[i] for i in places])
        return array.reshape(num_cases, refit, *array.shape[1:])

    dtype = jnp.result_type(float)
    aggregation = None
    if panels[0].aggregation is not None:
        aggregation = jax.tree.map(
            lambda *leaves: stacked(list(leaves)), *(p.aggregation for p in panels)
        )
    keys = None
    if key is not None:
        folded = numbered_keys(key, len(rows))
        keys = stacked(list(np.asarray(jax.random.key_data(folded))))
    return Windows(
        values=stacked([p.values for p in panels]).astype(dtype),
        observed=stacked([p.observed for p in panels]),
        aggregation=aggregation,
        keys=keys,
    )


def one_case(window: Windows, model: Model, horizon: int, impl: str | None) -> WindowFit:
    """One estimation and the forecasts from its `refit` origins: pure."""

    def at(i: int) -> tuple[Array, Array, AggregationRows | None]:
        rows = jax.tree.map(lambda leaf: leaf[i], window.aggregation)
        return window.values[i], window.observed[i], rows

    def ahead(fitted: Fitted, key: PRNGKeyArray | None) -> WindowFit:
        forecast = fitted.forecast(horizon, key=key)
        return WindowFit(forecast, fitted.result, fitted.num_steps, fitted.loglik, fitted.details())

    values, observed, aggregation = at(0)
    fit_key = keys = None
    if window.keys is not None:
        pairs = jax.vmap(jax.random.split)(
            jax.random.wrap_key_data(jnp.asarray(window.keys), impl=impl)
        )
        fit_key, keys = pairs[0, 0], pairs[:, 1]
    fitted = model.estimate(values, observed, aggregation=aggregation, key=fit_key)
    first = ahead(fitted, None if keys is None else keys[0])
    if window.values.shape[0] == 1:
        return jax.tree.map(lambda leaf: leaf[None], first)

    def later(case: Any) -> WindowFit:
        values, observed, aggregation, key = case
        return ahead(fitted.given(values, observed, aggregation=aggregation), key)

    rest = (window.values, window.observed, window.aggregation, keys)
    others = jax.vmap(later)(jax.tree.map(lambda leaf: leaf[1:], rest))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, others)


def function_of(
    static: PyTree, horizon: int, impl: str | None
) -> Callable[[Windows, PyTree], WindowFit]:
    """What is compiled for a model: a case and the model's arrays to the answers of its origins."""
    return lambda window, arrays: one_case(window, eqx.combine(arrays, static), horizon, impl)


def batch_shapes(windows: Windows, size: int) -> Windows:
    """The shapes of so many cases."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), windows
    )


def answer_shapes(
    model: Model, windows: Windows, horizon: int, impl: str | None, size: int
) -> WindowFit:
    """The shapes of the answers of so many cases; nothing is compiled."""
    arrays, static = eqx.partition(model, eqx.is_array)
    batch = jax.vmap(function_of(static, horizon, impl), in_axes=(0, None))
    return jax.eval_shape(batch, batch_shapes(windows, size), arrays)


def window_program(
    model: Model,
    windows: Windows,
    horizon: int,
    impl: str | None,
    batch_size: int | None,
    memory_budget: int | None,
    devices: tuple[Device, ...],
) -> tuple[Program, PyTree]:
    """The compiled chunk, and the model's arrays, which it takes beside the windows."""
    arrays, static = eqx.partition(model, eqx.is_array)
    leaves, tree = jax.tree.flatten(static)
    one = batch_shapes(windows, 1)
    counted = len(windows.values)
    options = (horizon, impl, batch_size, memory_budget, devices, counted)
    # A model made before `jax_enable_x64` was switched on has arrays of another precision.
    key = (tree, tuple(leaves), shapes_key(arrays), shapes_key(one), options)
    if key not in PROGRAMS:
        function = function_of(static, horizon, impl)
        PROGRAMS[key] = fitting_program(
            function, windows, batch_size, memory_budget, devices, (arrays,)
        )
        while len(PROGRAMS) > NUM_KEPT:
            PROGRAMS.popitem(last=False)
    PROGRAMS.move_to_end(key)
    return PROGRAMS[key], arrays


def origins_first(answers: WindowFit) -> WindowFit:
    """Answers of cases with their `refit` origins as answers of origins."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), answers)
