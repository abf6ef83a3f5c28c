"""How many of the next rows each regime takes, and quantiles of mixtures.

Given the path of regimes, rows are independent and their law depends on the regime alone, so the
law of a sum over h rows depends on the path only through the numbers of visits. These have

    w_h(n, j) = P(N_h = n, s_{T+h} = j),   w_{h+1}(n, j) = sum_i w_h(n - e_j, i) P_ij

which turns K^h paths into at most (h + 1)^(K - 1) numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.regimes.tails import Tails
from jaxfc.typing import Array, Float

# Halvings of an interval: to the last digit of float64, whatever the interval.
HALVINGS = 90
# Doublings of the interval that is searched, from one standard deviation on.
DOUBLINGS = 20


def occupation(
    state: Float[Array, " regimes"], transition: Float[Array, "regimes regimes"], horizon: int
) -> tuple[Float[Array, "horizon counts"], Float[Array, "horizon counts regimes"]]:
    """Probabilities and numbers of visits to each regime among the next 1, ..., `horizon` rows.

    `state` is P(s_T = k). Row h of the second lists visits that add up to h + 1; entries that
    cannot have probability zero. The last regime takes what the others leave.
    """
    size = state.shape[0]
    shape = (horizon + 1,) * (size - 1)
    start = jnp.zeros((*shape, size), state.dtype)
    start = start.at[(0,) * (size - 1)].set(state)

    def step(weights: Array, _: None) -> tuple[Array, Array]:
        moved = jnp.matmul(weights, transition, precision="highest")
        entered = [
            jnp.roll(moved[..., j], 1, axis=j) if j < size - 1 else moved[..., j]
            for j in range(size)
        ]
        weights = jnp.stack(entered, axis=-1)
        return weights, jnp.sum(weights, axis=-1).reshape(-1)

    _, weights = jax.lax.scan(step, start, None, length=horizon)
    visits = np.indices(shape).reshape(size - 1, -1).T
    last = np.arange(1, horizon + 1)[:, None] - visits.sum(axis=1)
    first = np.broadcast_to(visits, (horizon, *visits.shape))
    counts = np.concatenate([first, last[:, :, None]], axis=2)
    possible = last >= 0
    counts = jnp.asarray(np.where(possible[:, :, None], counts, 0), state.dtype)
    return jnp.where(possible, weights, 0.0), counts


def mixture_quantile(
    q: Float[Array, "*levels"],
    weights: Float[Array, "horizon components"],
    means: Float[Array, "horizon components series"],
    stds: Float[Array, "horizon components series"],
    tails: Tails,
) -> Float[Array, "*levels horizon series"]:
    """x with sum_c w_c F((x - mean_c) / std_c) = q, F the law of `tails`, by bisection.

    The quantile of a mixture lies between the smallest and the largest of its components', which
    lie within any interval where all their distribution functions pass q. A Newton step at the end
    carries the derivative, - (dF / d parameters) / density.
    """
    used = weights > 0
    levels = q.reshape(*q.shape, 1, 1)

    def cdf(x: Array) -> Array:
        units = (x[..., None, :] - means) / stds
        return jnp.sum(weights[..., None] * tails.cdf(units), axis=-2)

    reach = jnp.max(jnp.where(used[..., None], stds, 0.0), axis=1)
    lowest = jnp.min(jnp.where(used[..., None], means, jnp.inf), axis=1)
    highest = jnp.max(jnp.where(used[..., None], means, -jnp.inf), axis=1)

    def ends(units: Array) -> tuple[Array, Array]:
        wide = units[..., None, None] * reach
        return lowest - wide, highest + wide

    def widen(units: Array, _: None) -> tuple[Array, None]:
        low, high = ends(units)
        short = jnp.any((cdf(low) > levels) | (cdf(high) < levels), axis=(-2, -1))
        return jnp.where(short, 2.0 * units, units), None

    def halve(interval: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = interval
        middle = 0.5 * (low + high)
        below = cdf(middle) < levels
        return (jnp.where(below, middle, low), jnp.where(below, high, middle)), None

    units = jax.lax.scan(widen, jnp.ones_like(q), None, length=DOUBLINGS)[0]
    interval = jax.lax.stop_gradient(ends(units))
    low, high = jax.lax.scan(halve, interval, None, length=HALVINGS)[0]
    x = jax.lax.stop_gradient(0.5 * (low + high))
    value, density = jax.jvp(cdf, (x,), (jnp.ones_like(x),))
    density = jax.lax.stop_gradient(density)
    step = jnp.where(density > 0, (value - levels) / jnp.where(density > 0, density, 1.0), 0.0)
    # Rounding of the distribution function must not throw off what the halvings found.
    x = x - (step - jax.lax.stop_gradient(step))
    return jnp.where(levels <= 0, -jnp.inf, jnp.where(levels >= 1, jnp.inf, x))
