"""From a forecast of transformed series back to the levels, with the right moments.

A chain z = a D^d g(y) + b is undone in three steps: x = D^d g(y) = (z - b) / a; d running sums from
the last levels,

    d = 1:  g_{T+h} = g_T + sum_{k<=h} x_k
    d = 2:  g_{T+h} = g_T + h (g_T - g_{T-1}) + sum_{j<=h} sum_{k<=j} x_k;

and y = g, exp(g), or for growth the product y_{T+h} = y_T prod_{k<=h} (1 + g_k).
The first two are linear and keep Gaussian laws Gaussian, the exponential gives log-normal moments,
the product has no closed law and needs draws.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfc.forecast import FactorForecast, Forecast, GaussianForecast, SampleForecast
from jaxfc.lognormal import exponentiate
from jaxfc.panel import Panel
from jaxfc.transform_rules import Steps, first_step
from jaxfc.typing import Array, Float, PRNGKeyArray


def invert(
    forecast: Forecast,
    panel: Panel,
    *,
    key: PRNGKeyArray | None = None,
    num_draws: int | None = None,
) -> Forecast:
    """The law of the levels, given the law of the next rows of the transformed `panel`.

    **Arguments:** `forecast` from the last row of `panel`, which comes from `transform`; `key` and
    `num_draws` if a series was transformed by growth and the forecast is not made of draws already.

    **Returns:** draws for draws; otherwise a law of the same class if all series were differenced
    equally often (a factor structure survives only then; else `GaussianForecast`, dense), as the
    `log` of an `ExponentialForecast` if a logarithm is among the transforms.

    **Raises:** `ValueError` if the panel was not transformed; if a series differenced or grown has
    no observed level in the last row(s): its levels there are unknown, and the forecast's law says
    nothing of them; if a low-frequency series needs levels or exponentials: the rows of its
    forecast are not the rows in which its levels are observed; if draws are needed and `key` or
    `num_draws` is missing, or not needed and given.
    """
    if panel.levels is None:
        raise ValueError("the panel was not transformed; there is nothing to invert.")
    mean = forecast.mean
    if mean.shape[1] != panel.num_series:
        raise ValueError(
            f"the forecast has {mean.shape[1]} series, the panel {panel.num_series}; invert it "
            "with the panel it was made from."
        )
    chains = [rule.steps for rule in panel.transforms]
    starts = [starting_values(panel, i, steps) for i, steps in enumerate(chains)]
    law = forecast
    grows = [panel.names[i] for i, steps in enumerate(chains) if steps.first == "growth"]
    if grows and not isinstance(forecast, SampleForecast):
        if key is None or num_draws is None:
            raise ValueError(
                f"the levels of {grows[0]!r} are products of growth rates, which have no closed "
                "law under a Gaussian forecast; pass key=... and num_draws=..., or use "
                "LogDifference."
            )
        law = SampleForecast(forecast.sample(num_draws, key=key))  # pyright: ignore[reportCallIssue]
    elif key is not None or num_draws is not None:
        raise ValueError("this inversion is exact without drawing; leave out key and num_draws.")
    scale = jnp.asarray([1.0 / steps.scale for steps in chains], mean.dtype)
    shift = jnp.asarray([-steps.shift / steps.scale for steps in chains], mean.dtype)
    law = law.affine(scale, jnp.broadcast_to(shift, mean.shape))
    law = running_sums(law, [steps.order for steps in chains])
    paths = np.stack([start.path(mean.shape[0]) for start in starts], axis=1)
    law = law.affine(jnp.ones_like(scale), jnp.asarray(paths, mean.dtype))
    is_log = np.array([steps.first == "log" for steps in chains])
    if is_log.any():
        law = exponentiate(law, jnp.asarray(is_log))
    if isinstance(law, SampleForecast) and grows:
        last = jnp.asarray([start.level for start in starts], mean.dtype)
        is_growth = np.array([steps.first == "growth" for steps in chains])
        levels = last * jnp.cumprod(1.0 + law.draws, axis=1)
        law = SampleForecast(jnp.where(is_growth, levels, law.draws))  # pyright: ignore[reportCallIssue]
    return law


class Start(NamedTuple):
    """Where a series stands at the origin: its last level, and g and its slope if differenced."""

    level: float
    value: float
    slope: float

    def path(self, horizon: int) -> Float[np.ndarray, " horizon"]:
        """What the running sums start from, g_T + h (g_T - g_{T-1})."""
        return self.value + self.slope * np.arange(1, horizon + 1)


def starting_values(panel: Panel, i: int, steps: Steps) -> Start:
    """The last levels of series i at the origin, the last row of the panel."""
    levels = panel.levels
    assert levels is not None  # checked by invert; tells the type checker
    check_same_rows(panel, i, steps)
    if steps.memory == 0:
        return Start(0.0, 0.0, 0.0)
    seen = levels.observed[-steps.memory :, i]
    if len(seen) < steps.memory or not seen.all():
        rows = np.flatnonzero(levels.observed[:, i])
        last = f"is {levels.index[rows[-1]]:%Y-%m-%d}" if len(rows) else "does not exist"
        raise ValueError(
            f"series {panel.names[i]!r} needs its level in the last {steps.memory} row(s) up to "
            f"the origin {panel.index[-1]:%Y-%m-%d}, but its last observed level {last}: what it "
            "did since is not part of the forecast. Forecast from panel.window(None, date) with "
            "the date of its last level, or leave it out of both (select, marginal)."
        )
    last = levels.values[-steps.memory :, i]
    values = first_step(last, steps.first)
    value = float(values[-1]) if steps.order > 0 else 0.0
    slope = float(values[-1] - values[-2]) if steps.order == 2 else 0.0
    return Start(float(last[-1]), value, slope)


def check_same_rows(panel: Panel, i: int, steps: Steps) -> None:
    """The rows of the forecast of series i are rows of its level (else there is no inverse)."""
    if panel.frequencies[i] == panel.frequency:
        return
    kind = panel.kinds[i]
    exact = steps.memory == 0 and (
        kind == "stock"
        or (steps.first == "level" and (kind == "flow_average" or steps.shift == 0.0))
    )
    if not exact:
        raise ValueError(
            f"series {panel.names[i]!r} is a {panel.frequencies[i]} {kind} on a "
            f"{panel.frequency} calendar: its forecast is by row, its level by period, and part of "
            "the current period lies before the origin. Invert the series at the base frequency: "
            "panel.select(...) and forecast.aggregate(...) of them."
        )


def running_sums(law: Forecast, orders: list[int]) -> Forecast:
    """`orders[i]` running sums of series i; structure survives if all orders are equal."""
    if len(set(orders)) == 1:
        for _ in range(orders[0]):
            law = law.cumulative()
        return law
    if isinstance(law, SampleForecast):
        sums = [law.draws, jnp.cumsum(law.draws, axis=1)]
        sums.append(jnp.cumsum(sums[1], axis=1))
        draws = jnp.stack([sums[order][:, :, i] for i, order in enumerate(orders)], axis=2)
        return SampleForecast(draws)  # pyright: ignore[reportCallIssue]
    if not isinstance(law, GaussianForecast | FactorForecast):
        raise TypeError(
            f"no exact running sums of a {type(law).__name__}; pass draws of it "
            "(SampleForecast(forecast.sample(num_draws, key=key)))."
        )
    once = np.tril(np.ones((law.mean.shape[0],) * 2))
    powers = np.stack([np.linalg.matrix_power(once, order) for order in orders])
    weights: Array = jnp.asarray(powers, law.mean.dtype)
    cov = jnp.einsum("ihk,kilj->hilj", weights, law.cov)
    cov = jnp.einsum("jml,hilj->himj", weights, cov)
    return GaussianForecast(jnp.einsum("ihk,ki->hi", weights, law.mean), cov)
