"""Covariances of base errors estimated from residuals in sample, kept in factor form."""

import itertools
from typing import Literal

import jax
import jax.numpy as jnp

from jaxfc.hierarchy.error_cov import StructuredCov
from jaxfc.typing import Array, Bool, Float

Shrinkage = Literal["schafer_strimmer", "oracle"]
NUM_BLOCKS = 5


def residual_moments(
    residuals: Float[Array, "time nodes"],
    observed: Bool[Array, "time nodes"],
    *,
    centred: bool,
) -> tuple[Float[Array, "time nodes"], Float[Array, " nodes"]]:
    """Residuals (zero where missing) and variances over the dates at which each node was observed.

    Not centred: mean squares, sum e^2 / n (base forecasts are taken as unbiased; hts, FoReco).
    Centred: sum (e - mean)^2 / (n - 1).
    """
    count = jnp.sum(observed, axis=0)
    values = jnp.where(observed, residuals, 0.0)
    if not centred:
        return values, jnp.sum(values**2, axis=0) / count
    mean = jnp.sum(values, axis=0) / count
    values = jnp.where(observed, residuals - mean, 0.0)
    return values, jnp.sum(values**2, axis=0) / (count - 1)


@jax.custom_jvp
def mean_squares(errors: Float[Array, "time nodes"]) -> Float[Array, " nodes"]:
    """sum e^2 / n of each node over its own dates; NaN where missing.

    One pass over complete data: only where it meets a NaN are masks and counts formed.
    """
    sums = jnp.einsum("ti,ti->i", errors, errors)

    def with_holes(errors: Array) -> Array:
        return residual_moments(errors, ~jnp.isnan(errors), centred=False)[1]

    def complete(errors: Array) -> Array:
        return sums / errors.shape[0]

    return jax.lax.cond(jnp.all(jnp.isfinite(sums)), complete, with_holes, errors)


@mean_squares.defjvp
def mean_squares_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """2 sum e de / n over observed dates: a missing cell has no slope, whichever way was taken."""
    (errors,), (changes,) = primals, tangents
    observed = ~jnp.isnan(errors)
    products = jnp.where(observed, errors, 0.0) * jnp.where(observed, changes, 0.0)
    slope = 2.0 * jnp.sum(products, axis=0) / jnp.sum(observed, axis=0)
    return mean_squares(errors), slope


def sample_cov(
    residuals: Float[Array, "time nodes"],
    observed: Bool[Array, "time nodes"] | None,
    *,
    centred: bool,
) -> StructuredCov:
    """The sample covariance as F F', with F = residuals / sqrt(T).

    Where residuals are missing, cov_ij = s_i s_j sum z_i z_j / sqrt(n_i n_j) over the dates with
    both: its variances are those of each node's own dates and it is positive semidefinite, which
    pairwise covariances are not; pairs that are rarely seen together are shrunk towards zero.
    """
    factors = scaled_residuals(residuals, observed, centred=centred)
    return StructuredCov(jnp.zeros(factors.shape[0], factors.dtype), factors)


def scaled_residuals(
    residuals: Float[Array, "time nodes"],
    observed: Bool[Array, "time nodes"] | None,
    *,
    centred: bool,
) -> Float[Array, "nodes time"]:
    """F = residuals / sqrt(n), or centred / sqrt(n - 1), zero where missing: Sig = F F'.

    Without `observed` NaN is missing. Masks are formed only where something is.
    """
    lost = 1.0 if centred else 0.0
    if observed is None:
        whole = jnp.all(jnp.isfinite(jnp.einsum("ti,ti->i", residuals, residuals)))
    else:
        whole = jnp.all(observed)

    def with_holes(residuals: Array) -> Array:
        seen = ~jnp.isnan(residuals) if observed is None else observed
        values, _ = residual_moments(residuals, seen, centred=centred)
        return (values / jnp.sqrt(jnp.sum(seen, axis=0) - lost)).T

    def complete(residuals: Array) -> Array:
        values = residuals - jnp.mean(residuals, axis=0) if centred else residuals
        return values.T / jnp.sqrt(residuals.shape[0] - lost)

    return jax.lax.cond(whole, complete, with_holes, residuals)


def shrunk_cov(
    residuals: Float[Array, "time nodes"],
    observed: Bool[Array, "time nodes"] | None,
    *,
    centred: bool,
    shrinkage: Shrinkage = "schafer_strimmer",
    intensity: Float[Array, ""] | None = None,
) -> StructuredCov:
    """lam diag(Sig) + (1 - lam) Sig with Sig the sample covariance; lam estimated unless given.

    Two conventions: mean squares with T (hts, FoReco, bayesRecon), or centred with T - 1
    (hierarchicalforecast); see `residual_moments`.
    """
    factors = scaled_residuals(residuals, observed, centred=centred)
    variances = jnp.sum(factors**2, axis=1)
    if intensity is None:
        scale = jnp.where(variances > 0, jnp.sqrt(jnp.where(variances > 0, variances, 1.0)), 1.0)
        num_times = residuals.shape[0]
        if shrinkage == "oracle":
            intensity = oracle_intensity(factors, num_times)
        else:
            units = factors / scale[:, None]
            num_varying = jnp.sum(variances > 0)
            intensity = correlation_intensity(units, num_times, num_varying, centred=centred)
    return StructuredCov(intensity * variances, factors, 1.0 - intensity)


def squared_entries(rows: Float[Array, "nodes columns"]) -> tuple[Array, Float[Array, " columns"]]:
    """Sum of squares of all entries of F F', and the diagonal of F' F.

    By the smaller of F F' and F' F; the product is symmetric, so that blocks below its diagonal are
    formed once: 0.6 of the work.
    """
    by_columns = rows.shape[0] > rows.shape[1]
    sides = rows.T if by_columns else rows
    num_rows = sides.shape[0]
    edges = [num_rows * i // NUM_BLOCKS for i in range(NUM_BLOCKS + 1)]
    blocks = [sides[a:b] for a, b in itertools.pairwise(edges) if b > a]
    total, diagonals = jnp.zeros((), rows.dtype), []
    for i, one in enumerate(blocks):
        for other in blocks[:i]:
            gram = one @ other.T
            total = total + 2.0 * jnp.sum(gram * gram)
        gram = one @ one.T
        total = total + jnp.sum(gram * gram)
        diagonals.append(jnp.diagonal(gram))
    own = jnp.concatenate(diagonals) if by_columns else jnp.sum(rows**2, axis=0)
    return total, own


def correlation_intensity(
    units: Float[Array, "nodes time"],
    num_times: int,
    num_varying: Array | None = None,
    *,
    centred: bool,
) -> Float[Array, ""]:
    """Schafer and Strimmer's (2005) intensity for correlations.

        lam = sum_{i != j} v_ij / sum_{i != j} r_ij^2, within [0, 1],
        v_ij = (sum_t (z_it z_jt)^2 - T r_ij^2) / (T (T - 1))

    with standardised residuals z and r_ij = mean z_i z_j. `units` are z / sqrt(T), rows of squared
    length one. Costs O(nodes T min(nodes, T)); never forms v or r.
    """
    degrees = num_times - 1 if centred else num_times
    count = num_times
    # With z scaled to sum_t z^2 = degrees, r = sum z z / count in both conventions; where residuals
    # are centred the reference divides r by T though z is standardised with T - 1.
    ratio = degrees / count
    squares, by_time = squared_entries(units)
    # Rows have squared length one, but for nodes without any variance.
    num_varying = jnp.sum(jnp.any(units != 0.0, axis=1)) if num_varying is None else num_varying
    all_squares = ratio**2 * (squares - num_varying)
    fourth = degrees**2 * (jnp.sum(by_time**2) - jnp.sum(units**4))
    variance = (fourth - count * all_squares) / (count * (count - 1))
    positive = all_squares > 0
    ratio = variance / jnp.where(positive, all_squares, 1.0)
    return jnp.clip(jnp.where(positive, ratio, 1.0), 0.0, 1.0)


def oracle_intensity(factors: Float[Array, "nodes time"], num_times: int) -> Float[Array, ""]:
    """Oracle approximating shrinkage towards the diagonal (Ando and Narita 2022, used by FoReco).

    phi = (tr Sig^2 - sum s_ii^2) / (tr Sig^2 + (tr Sig)^2 - 2 sum s_ii^2),  lam = min(1, 1/(T phi))
    """
    own = jnp.sum(factors**2, axis=1)
    squares, diagonal, trace = squared_entries(factors)[0], jnp.sum(own**2), jnp.sum(own)
    excess = squares - diagonal
    total = squares + trace**2 - 2.0 * diagonal
    positive = excess > 0
    ratio = total / (num_times * jnp.where(positive, excess, 1.0))
    return jnp.where(positive, jnp.minimum(ratio, 1.0), 1.0)
