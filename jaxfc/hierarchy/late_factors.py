"""Factors that are not observed on every date."""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float

LATE_FACTORS = ("drop", "integrate")
# Closer to one, a factor's mean has no meaning.
MAX_ROOT = 0.99


def completed_factors(
    factors: Float[Array, "time factors"], observed: Bool[Array, "time factors"]
) -> tuple[Float[Array, "time factors"], Float[Array, "time factors"]]:
    """Means and variances of every factor given its own values up to that row.

    An observed value has variance zero. One that is not has the law of an AR(1) forecast from the
    last value: mean + r^k (last - mean), variance (1 - r^{2k}) of the factor's; r from neighbouring
    observed rows. Nothing later than a row enters its law, but the three parameters.
    """
    weights = observed.astype(factors.dtype)
    factors = jnp.where(observed, factors, 0.0)
    counts = jnp.maximum(jnp.sum(weights, axis=0), 1.0)
    means = jnp.sum(factors, axis=0) / counts
    centred = jnp.where(observed, factors - means, 0.0)
    variances = jnp.sum(centred**2, axis=0) / counts
    pairs = weights[1:] * weights[:-1]
    squares = jnp.sum(pairs * centred[:-1] ** 2, axis=0)
    products = jnp.sum(pairs * centred[1:] * centred[:-1], axis=0)
    roots = products / jnp.where(squares > 0.0, squares, 1.0)
    roots = jnp.clip(roots, -MAX_ROOT, MAX_ROOT)

    def step(last, row):
        value, seen = row
        expected = roots * last[0]
        spread = roots**2 * last[1] + (1.0 - roots**2) * variances
        now = jnp.where(seen, value, expected), jnp.where(seen, 0.0, spread)
        return now, now

    _, (found, spreads) = jax.lax.scan(
        step, (jnp.zeros_like(means), variances), (centred, observed)
    )
    return means + found, spreads
