"""How many dates the prior of a covariance is worth: criteria from residuals, and their maximum.

With Psi = c Lambda, c = nu - n - 1, and G = E Lambda^-1 E' = U diag(g) U' (dates x dates), both
criteria are sums over eigenvalues. Their constants in c are left out.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from jaxfc.typing import Array, Float

NUM_POINTS = 65


def leave_one_out(
    excess: Array, values: Float[Array, " time"], squares: Float[Array, "time time"], nodes: int
) -> Float[Array, ""]:
    """Mean log density of each date given all others.

    e_t is t with m - n + 1 degrees and scale (Psi' - e_t e_t') / (m - n + 1), m = nu + T - 1, so
    with h_t = e_t' Psi'^-1 e_t the density is Gamma((m + 1) / 2) / Gamma((m - n + 1) / 2)
    |Psi'|^-1/2 (1 - h_t)^(m / 2) up to constants.
    """
    num_times = values.shape[0]
    degrees = excess + nodes + num_times
    rest = 1.0 - squares @ (values / (values + excess))
    size = gammaln(0.5 * (degrees + 1.0)) - gammaln(0.5 * (degrees - nodes + 1.0))
    volume = nodes * jnp.log(excess) + jnp.sum(jnp.log1p(values / excess))
    return size - 0.5 * volume + 0.5 * degrees * jnp.mean(jnp.log(rest))


def marginal_likelihood(
    excess: Array, values: Float[Array, " time"], squares: Float[Array, "time time"], nodes: int
) -> Float[Array, ""]:
    """Log density of all residuals, W integrated out, divided by T.

    log Gamma_n((nu + T) / 2) - log Gamma_n(nu / 2) - T/2 log|Psi| - (nu + T)/2 log|I + G / c|
    """
    del squares
    num_times = values.shape[0]
    degrees = excess + nodes + 1.0
    places = jnp.arange(nodes)
    after = gammaln(0.5 * (degrees + num_times - places))
    size = jnp.sum(after - gammaln(0.5 * (degrees - places)))
    volume = 0.5 * num_times * nodes * jnp.log(excess)
    spread = 0.5 * (degrees + num_times) * jnp.sum(jnp.log1p(values / excess))
    return (size - volume - spread) / num_times


def most_likely(
    criterion: Callable[..., Array], errors: Float[Array, "time nodes"], prior: Array
) -> Float[Array, ""]:
    """The c between T / 1000 and 1000 T at which a criterion is largest: two grids in log c."""
    num_times, nodes = errors.shape
    if prior.ndim == 1:
        units = errors / jnp.sqrt(prior)
    else:
        chol = jnp.linalg.cholesky(prior)
        units = jax.scipy.linalg.solve_triangular(chol, errors.T, lower=True).T
    values, vectors = jnp.linalg.eigh(units @ units.T)
    values = jnp.maximum(values, 0.0)

    def best(low: Array, high: Array) -> tuple[Array, Array]:
        grid = jnp.linspace(low, high, NUM_POINTS)
        scores = jax.vmap(lambda c: criterion(jnp.exp(c), values, vectors**2, nodes))(grid)
        step = (high - low) / (NUM_POINTS - 1)
        middle = grid[jnp.nanargmax(scores)]
        return jnp.maximum(middle - step, low), jnp.minimum(middle + step, high)

    centre, reach = jnp.log(jnp.asarray(num_times, errors.dtype)), jnp.log(1e3)
    low, high = best(*best(centre - reach, centre + reach))
    return jnp.exp(0.5 * (low + high))
