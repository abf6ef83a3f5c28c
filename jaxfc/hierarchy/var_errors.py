"""Covariances of errors as a few loadings and a diagonal, from residuals with holes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxfc.hierarchy.var_forecast import ErrorLaw
from jaxfc.hierarchy.var_regressors import Membership
from jaxfc.typing import Array, Bool, Float

ERRORS = ("diagonal", "sectors", "sample")
# Each halves the distance, about.
NUM_IMPROVEMENTS = 30


def error_law(
    kind: str,
    residuals: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    variances: Float[Array, " series"],
    membership: Membership | None = None,
) -> ErrorLaw:
    """The covariance of errors with these `variances`; correlations from residuals where `known`.

    With z = residual / standard deviation, zero where not known, of T rows:

    - "diagonal": no correlation;
    - "sample": correlations sum_t z_it z_jt / T (those of assets that are rarely known together
      are drawn to zero, which keeps them positive semi-definite), kept as T loadings an asset;
    - "sectors": correlations a_i a_j between sectors and a_i a_j + b_i b_j within one, those of a
      market factor and one factor a sector. a_i times the sum of a over the other sectors is the
      sum of i's correlations with their assets, which determines the a; the b likewise (for two
      assets they are equal). No asset's own error enters, as it would through averages over assets.
      O(time series), 1 + num_sectors loadings an asset.

    The variances are those given, whatever the correlations.
    """
    stds = jnp.sqrt(variances)
    units = jnp.where(known, residuals, 0.0) / stds
    if kind == "diagonal":
        return ErrorLaw(jnp.zeros((len(stds), 1), stds.dtype), variances)
    if kind == "sample":
        loadings = units.T / jnp.sqrt(jnp.asarray(len(units), units.dtype))
    elif membership is None:
        raise ValueError("errors='sectors' needs sectors; use 'diagonal' or 'sample'.")
    else:
        loadings = sector_loadings(units, known, membership)
    common = jnp.sum(loadings**2, axis=1)
    # Residuals of few rows may vary by more than their expectation: then all is common.
    shrink = jnp.where(common > 1.0, jnp.sqrt(1.0 / jnp.where(common > 1.0, common, 1.0)), 1.0)
    own = jnp.maximum(1.0 - common * shrink**2, 0.0)
    return ErrorLaw((stds * shrink)[:, None] * loadings, variances * own)


def sector_loadings(
    units: Float[Array, "time series"], known: Bool[Array, "time series"], membership: Membership
) -> Float[Array, "series factors"]:
    """Loadings on the market's factor and on that of the sector, from sums of correlations."""
    members, weights = membership.members, known.astype(units.dtype)
    of_sector, counts = (membership.sums(each.T).T[:, members] for each in (units, weights))
    sizes = membership.sums(jnp.ones(len(members), units.dtype))[members]

    def summed(others: Array, other_counts: Array, number: Array) -> Array:
        """`number` times the mean correlation, over rows and assets, with the others."""
        pairs = jnp.sum(weights * other_counts, axis=0)
        return number * jnp.sum(units * others, axis=0) / positive(pairs)

    def outside(values: Array) -> Array:
        return jnp.sum(values) - membership.sums(values)[members]

    def beside(values: Array) -> Array:
        return membership.sums(values)[members] - values

    everyone, everyone_counts = (jnp.sum(each, axis=1, keepdims=True) for each in (units, weights))
    far = summed(everyone - of_sector, everyone_counts - counts, len(members) - sizes)
    pairs = jnp.sum(len(members) - sizes)
    market = rank_one(far, outside, jnp.full_like(sizes, jnp.sum(far) / positive(pairs)))
    near = summed(of_sector - units, counts - weights, sizes - 1.0) - market * beside(market)
    mean = membership.sums(near)[members] / positive(sizes * (sizes - 1.0))
    own = rank_one(near, beside, mean)
    places = jnp.arange(membership.num_sectors) == members[:, None]
    return jnp.concatenate([market[:, None], jnp.where(places, own[:, None], 0.0)], axis=1)


def rank_one(
    sums: Float[Array, " series"],
    others: Callable[[Array], Array],
    mean_product: Float[Array, " series"],
) -> Float[Array, " series"]:
    """a with a_i times the sum of the other a (`others`) equal to `sums`; zero where the mean of
    the products is not positive."""
    start = jnp.where(mean_product > 0.0, mean_product, 0.0)
    start = jnp.where(start > 0.0, jnp.sqrt(positive(start)), 0.0)

    def improve(_, values):
        rest = others(values)
        usable = (start > 0.0) & (rest > 0.0)
        return jnp.where(usable, 0.5 * (values + sums / jnp.where(usable, rest, 1.0)), 0.0)

    return jax.lax.fori_loop(0, NUM_IMPROVEMENTS, improve, start)


def positive(values: Array) -> Array:
    """One in place of what is not positive, for divisions of zero."""
    return jnp.where(values > 0.0, values, 1.0)
