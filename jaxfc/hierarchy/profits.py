"""Profits in currency: what adds up over assets and over time, from returns and back.

Simple returns add over assets with weights at the start of each period, R_p,t = sum_i w_i,t-1 R_it,
but compound over time. Log returns add over time but not over assets. The profit of holdings that
do not change adds both ways, so cross-temporal coherence belongs to it:

    P_it = V_i,t-1 R_it,    V_it = V_i,t-1 + P_it,    V_i0 = shares x price at the origin.

Linear laws keep their form at first order, P_it ~ V_i0 R_it (or V_i0 r_it for log returns), where a
draw gives the exact profit. The gap is of second order: `second_order_gap` reports its mean.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.hierarchy.labels import shown
from jaxfc.typing import Array, Float

Returns = Literal["simple", "log"]


def profits(returns: Forecast, values: Float[Array, " assets"], *, kind: Returns) -> Forecast:
    """The law of the profits of fixed holdings, period by period.

    Draws give exact profits, P_h = V_(h-1) R_h with V_h = V_0 prod (1 + R_s), or of log returns
    V_0 (exp(r_1 + .. + r_h) - exp(r_1 + .. + r_(h-1))). Other laws are scaled, V_0 R_h: exact for
    one period of simple returns, else of first order (`second_order_gap`). For exact profits of a
    Gaussian law take draws first: `SampleForecast(returns.sample(num_draws, key=key))`.

    **Arguments:** `returns` (horizon, assets), fractions per period, not percent. `values` V_0 of
    the holdings at the origin, in currency; short positions are negative.

    **Raises:** `ValueError` for values that are not finite or of another number of assets.
    """
    check_kind(kind)
    check_values(values, returns.mean.shape[1])
    if isinstance(returns, SampleForecast):
        return SampleForecast(profits_of(returns.draws, values, kind=kind))
    return returns.affine(values, jnp.zeros_like(returns.mean))


def profits_of(
    returns: Float[Array, "*rest horizon assets"],
    values: Float[Array, "*lead assets"],
    *,
    kind: Returns,
) -> Float[Array, "*rest horizon assets"]:
    """Exact profits of paths of returns."""
    if kind == "log":
        growth, change = jnp.exp(jnp.cumsum(returns, axis=-2)), jnp.expm1(returns)
    else:
        growth, change = jnp.cumprod(1.0 + returns, axis=-2), returns
    before = jnp.concatenate([jnp.ones_like(growth[..., :1, :]), growth[..., :-1, :]], axis=-2)
    return values[..., None, :] * before * change


def returns_of(
    gains: Float[Array, "*rest horizon nodes"],
    values: Float[Array, "*lead nodes"],
    *,
    kind: Returns,
) -> Float[Array, "*rest horizon nodes"]:
    """Returns of paths of profits: R_h = P_h / V_(h-1), or log(V_h / V_(h-1)); undoes `profits_of`.

    Nodes may be aggregates, with `values = hierarchy.aggregate(V_0)`, and periods of any length. A
    value that becomes zero or negative has no return: NaN.
    """
    summed = jnp.cumsum(gains, axis=-2)
    earlier = jnp.concatenate([jnp.zeros_like(summed[..., :1, :]), summed[..., :-1, :]], axis=-2)
    before, after = values[..., None, :] + earlier, values[..., None, :] + summed
    known = (before > 0.0) & (after > 0.0) if kind == "log" else before != 0.0
    change = jnp.where(known, gains, 0.0) / jnp.where(known, before, 1.0)
    found = jnp.log1p(change) if kind == "log" else change
    return jnp.where(known, found, jnp.nan)


def returns_from_profits(
    gains: Forecast, values: Float[Array, " nodes"], *, kind: Returns
) -> Forecast:
    """The law of returns from that of (reconciled) profits; draws exactly, else P_h / V_0.

    **Raises:** `ValueError` for values of zero, which have no return.
    """
    check_kind(kind)
    check_values(values, gains.mean.shape[1])
    if not isinstance(values, Tracer) and bool(jnp.any(values == 0.0)):
        empty = np.flatnonzero(np.asarray(values) == 0.0).tolist()
        raise ValueError(
            f"nodes {shown(empty)} have the value zero, so that their profits have no return; "
            f"leave them out."
        )
    if isinstance(gains, SampleForecast):
        return SampleForecast(returns_of(gains.draws, values, kind=kind))
    return gains.affine(1.0 / values, jnp.zeros_like(gains.mean))


def second_order_gap(
    returns: Forecast, values: Float[Array, " assets"], *, kind: Returns
) -> Float[Array, "horizon assets"]:
    """Mean of exact less first-order profits, to second order in the returns, in currency.

        simple: V_0 sum_{s < h} E[R_s R_h],     log: V_0 (sum_{s < h} E[r_s r_h] + E[r_h^2] / 2)

    For draws it is the whole gap, E[P_h] - V_0 E[R_h].
    """
    check_kind(kind)
    check_values(values, returns.mean.shape[1])
    if isinstance(returns, SampleForecast):
        exact = jnp.mean(profits_of(returns.draws, values, kind=kind), axis=0)
        return exact - values * returns.mean
    moments = jnp.einsum("hiki->hki", returns.cov) + returns.mean[:, None] * returns.mean
    horizon = returns.mean.shape[0]
    earlier = jnp.tril(jnp.ones((horizon, horizon)), -1)
    own = 0.5 * jnp.eye(horizon) if kind == "log" else 0.0
    return values * jnp.einsum("hk,hki->hi", earlier + own, moments)


def check_kind(kind: str) -> None:
    """Refuses an unknown kind of returns."""
    if kind not in ("simple", "log"):
        raise ValueError(f"kind is 'simple' or 'log', got {kind!r}.")


def check_values(values: Array, num_assets: int) -> None:
    """Refuses values of other assets, and ones that are not finite."""
    if values.shape[-1] != num_assets:
        raise ValueError(f"{values.shape[-1]} values for {num_assets} series of the forecast.")
    if not isinstance(values, Tracer) and not bool(jnp.all(jnp.isfinite(values))):
        bad = np.flatnonzero(~np.isfinite(np.asarray(values))).tolist()
        raise ValueError(f"values at {shown(bad)} are not finite; give 0 for no holding.")
