"""Targets of correlation models: the unconditional correlation of standardised residuals.

A product of two residuals counts on the dates at which both are observed. Such moments need not be
positive definite; nothing is repaired unasked: see `is_positive_definite` and `nearest_corr`.
"""

import abc
from collections.abc import Callable
from functools import partial
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfc.typing import Array, Bool, Float, as_scalar

Residuals = Float[Array, "time series"]
Mask = Bool[Array, "time series"]
Weights = Float[Array, " time"] | None
Matrix = Float[Array, "series series"]
Rule = Callable[[Array, Array], Array]

ROOT_5 = 5.0**0.5
# With fewer, a kernel on a positive eigenvalue reaches zero.
MIN_ROWS = 12
# Beyond so many bandwidths the closed form of the Hilbert transform cancels; its series serves.
FAR, NUM_TERMS = 10.0, 11


class Target(eqx.Module):
    """How the correlation that a model returns to is estimated from standardised residuals."""

    @abc.abstractmethod
    def corr(self, residuals: Residuals, observed: Mask, weights: Weights = None) -> Matrix:
        """The unconditional correlation of standardised residuals z_t.

        What stands where not `observed` is never read. NaN for a pair of series without a date (two
        dates if centred) at which both are observed, and beside a series of zeros. A date of weight
        w counts w times (None: once); the derivative by `weights` at one is its influence.
        """


@final
class SampleTarget(Target):
    """Second moments of the residuals or covariances, scaled to unit diagonal or not.

        S_ij = sum_t z_it z_jt / n_ij        (centred=False; Z'Z / T where nothing is missing)
        S_ij = sum_t (z_it - m_ij)(z_jt - m_ji) / (n_ij - 1)                    (centred=True)

    over the n_ij dates at which both are observed, m_ij the mean of z_i on these dates: T - 1 and
    pairs as in R's cov(use = "pairwise.complete.obs"). `unit_diagonal` divides by
    (S_ii S_jj)^{1/2}, so that entries beyond one are possible where cells are missing. As
    (centred, unit_diagonal): (False, False) is the convention of multiarch, (False, True) of
    pymgarch, multigarch and MFE, (True, False) of rmgarch and tsmarch.
    """

    centred: bool = eqx.field(static=True, default=False)
    unit_diagonal: bool = eqx.field(static=True, default=True)

    def corr(self, residuals: Residuals, observed: Mask, weights: Weights = None) -> Matrix:
        data = residuals, observed, weights
        cov = pairwise_cov(*data) if self.centred else pairwise_moment(*data)[0]
        return unit_diagonal(cov) if self.unit_diagonal else cov


@final
class LinearShrinkage(Target):
    """`linear_shrinkage` of the second moments, scaled to unit diagonal.

    **Raises:** `ValueError` for an `intensity` (in place of the estimated one) outside [0, 1].
    """

    intensity: Float[Array, ""] | None = eqx.field(
        converter=lambda x: None if x is None else as_scalar(x), default=None
    )

    def __check_init__(self):
        given = self.intensity
        if given is not None and not isinstance(given, Tracer) and not 0.0 <= float(given) <= 1.0:
            raise ValueError(f"intensity must lie in [0, 1], got {float(given):g}.")

    def corr(self, residuals: Residuals, observed: Mask, weights: Weights = None) -> Matrix:
        return unit_diagonal(linear_shrinkage(residuals, observed, self.intensity, weights))


@final
class NonlinearShrinkage(Target):
    """`nonlinear_shrinkage` of the second moments, scaled to unit diagonal: the target of Engle,
    Ledoit and Wolf (2019), with the analytical formula in place of the numerical one.

    **Raises** (from `corr`): `ValueError` for fewer than 12 dates.
    """

    def corr(self, residuals: Residuals, observed: Mask, weights: Weights = None) -> Matrix:
        return unit_diagonal(nonlinear_shrinkage(residuals, observed, weights))


def unit_diagonal(cov: Matrix) -> Matrix:
    """A covariance as a correlation: C_ij / (C_ii C_jj)^{1/2}, and exactly one for i = j."""
    scale = 1.0 / jnp.sqrt(jnp.diagonal(cov))
    return jnp.where(jnp.eye(scale.size, dtype=bool), 1, cov * (scale[:, None] * scale))


def pairwise_sums(left: Residuals, right: Residuals, weights: Weights) -> Matrix:
    """sum_t w_t x_it y_jt."""
    return left.T @ (right if weights is None else weights[:, None] * right)


def divided(sums: Array, counts: Array) -> Array:
    """sums / counts; NaN, without harm to other derivatives, where there is nothing to divide."""
    return jnp.where(counts > 0, sums / jnp.where(counts > 0, counts, 1), jnp.nan)


def pairwise_moment(residuals: Residuals, observed: Mask, weights: Weights) -> tuple[Matrix, ...]:
    """Mean products over the dates at which both are observed, and the number of these dates."""
    known, seen = jnp.where(observed, residuals, 0), observed.astype(residuals.dtype)
    counts = pairwise_sums(seen, seen, weights)
    return divided(pairwise_sums(known, known, weights), counts), counts


def pairwise_cov(residuals: Residuals, observed: Mask, weights: Weights) -> Matrix:
    """Covariances over the dates at which both are observed, with divisor n_ij - 1."""
    seen = observed.astype(residuals.dtype)
    # Without this mean the difference of products below would cancel where means are large.
    own = jnp.mean(residuals, axis=0, where=observed)
    known = jnp.where(observed, residuals - own, 0)
    counts, sums = (pairwise_sums(left, seen, weights) for left in (seen, known))
    products = pairwise_sums(known, known, weights) - sums * sums.T / jnp.maximum(counts, 1)
    return divided(products, counts - 1)


def linear_shrinkage(
    residuals: Residuals, observed: Mask, intensity: Array | None, weights: Weights = None
) -> Matrix:
    """Second moments S shrunk to a multiple of the identity, with the intensity r of least loss.

        (1 - r) S + r m I,    m = tr S / N,    r = min(b^2, d^2) / d^2,    d^2 = |S - m I|^2
        b^2 = sum_ij (sum_t (z_it z_jt)^2 / n_ij - S_ij^2) / n_ij

    S and the sums over t are pairwise complete, over n_ij dates. b^2 estimates the summed variance
    of the entries of S; where nothing is missing it is sum_t |z_t z_t' - S|^2 / T^2 of the source.
    The mean of z is taken as zero. An `intensity` replaces r. Costs 3 T N^2 multiplications.

    Source: Ledoit and Wolf (2004, Journal of Multivariate Analysis), section 3.
    """
    known = jnp.where(observed, residuals, 0)
    moment, counts = pairwise_moment(known, observed, weights)
    target = jnp.trace(moment) / moment.shape[0] * jnp.eye(moment.shape[0], dtype=moment.dtype)
    if intensity is None:
        variances = pairwise_moment(known**2, observed, weights)[0] - moment**2
        noise = jnp.sum(divided(variances, counts))
        spread = jnp.sum((moment - target) ** 2)
        intensity = jnp.minimum(noise, spread) / jnp.where(spread == 0, 1, spread)
    share = intensity.astype(moment.dtype)
    return (1 - share) * moment + share * target


def nonlinear_shrinkage(residuals: Residuals, observed: Mask, weights: Weights = None) -> Matrix:
    """Second moments with their eigenvalues replaced by `shrunk_eigenvalues`, eigenvectors kept.

    With missing cells the moments are pairwise complete and n is the average number of dates of a
    pair, rounded. Derivatives: see `with_eigenvalues`. Costs one eigendecomposition.
    """
    if residuals.shape[0] < MIN_ROWS:
        got = f"got {residuals.shape[0]}; use LinearShrinkage()."
        raise ValueError(f"nonlinear shrinkage needs {MIN_ROWS} dates or more, {got}")
    moment, counts = pairwise_moment(residuals, observed, weights)
    return with_eigenvalues(shrunk_eigenvalues, moment, jnp.round(jnp.mean(counts)))


def shrunk_eigenvalues(eigenvalues: Float[Array, " series"], num_rows: Array) -> Array:
    """Eigenvalues of the covariance of least loss, from ascending ones l of Z'Z / n.

        d_i = l_i / ((pi c l_i f_i)^2 + (1 - c - pi c l_i g_i)^2),    c = min(N, n) / n
        f_i = mean_j k(x_ij) / (h l_j),    g_i = mean_j H[k](x_ij) / (h l_j)

    with x_ij = (l_i - l_j) / (h l_j), h = n^{-1/3}, k the Epanechnikov kernel, H[k] its Hilbert
    transform, j over the min(N, n) largest. The N - n smallest, zero for N > n, all become

        n / ((N - n) pi g_0),    g_0 = mean_j H[k](-1 / h) / (h l_j)

    Another eigenvalue that is not positive (collinear series, pairwise moments) counts as one of
    rounding's size and stays that small: `is_positive_definite` then says so.

    Source: Ledoit and Wolf (2020, Annals of Statistics), section 4; its supplement for N > n.
    """
    num_series, largest = eigenvalues.size, eigenvalues[-1]
    null = jnp.arange(num_series) < num_series - num_rows
    rounding = num_series * jnp.finfo(eigenvalues.dtype).eps * largest
    positive = jnp.where(null, largest, jnp.maximum(eigenvalues, rounding))
    weights = ~null / jnp.sum(~null, dtype=eigenvalues.dtype)
    bandwidth = jnp.maximum(num_rows, MIN_ROWS) ** (-1 / 3)
    distances = (positive[:, None] - positive) / (bandwidth * positive)
    # The weights of l_i f_i and l_i g_i, which are free of units.
    ratios = weights * positive[:, None] / (bandwidth * positive)
    kernel = 0.75 / ROOT_5 * jnp.maximum(1 - distances**2 / 5, 0)
    density = jnp.sum(ratios * kernel, axis=1)
    transform = jnp.sum(ratios * epanechnikov_transform(distances), axis=1)
    share = jnp.minimum(num_series, num_rows) / num_rows
    distortion = (jnp.pi * share * density) ** 2 + (1 - share - jnp.pi * share * transform) ** 2
    at_zero = epanechnikov_transform(-1 / bandwidth) * jnp.sum(weights / positive) / bandwidth
    excess = jnp.maximum(num_series - num_rows, 1) / num_rows
    return jnp.where(null, 1 / (excess * jnp.pi * at_zero), positive / distortion)


def epanechnikov_transform(distances: Float[Array, "..."]) -> Float[Array, "..."]:
    """Hilbert transform of the Epanechnikov kernel: the principal value of int k(u) / (u - x) / pi.

        (1 / pi) (-3 x / 10 + 3 / (4 5^{1/2}) (1 - x^2 / 5) ln |(5^{1/2} - x) / (5^{1/2} + x)|)

    These terms grow with x while their sum falls: beyond 10 it is taken from the moments of k,
    -(1 / (pi x)) sum_k m_2k x^{-2k}, m_2k = 3 5^k / ((2k + 1)(2k + 3)).
    """
    far = jnp.abs(distances) > FAR
    x = jnp.where(far, 0, distances)
    below, above = jnp.abs(ROOT_5 - x), jnp.abs(ROOT_5 + x)
    # At the kernel's ends the logarithm is infinite and the product zero.
    logs = jnp.log(jnp.where(below > 0, below, 1)) - jnp.log(jnp.where(above > 0, above, 1))
    near = -0.3 * x + 0.75 / ROOT_5 * (1 - x**2 / 5) * logs
    x = jnp.where(far, distances, FAR)
    moments = jnp.asarray([3 / ((2 * k + 1) * (2 * k + 3)) for k in range(NUM_TERMS)], x.dtype)
    series = -jnp.polyval(moments[::-1], 5 / x**2) / x
    return jnp.where(far, series, near) / jnp.pi


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_eigenvalues(rule: Rule, matrix: Matrix, option: Array) -> Matrix:
    """U diag(rule(l, option)) U' of a symmetric U diag(l) U', for a rule that treats them alike.

    First derivatives are exact, also where eigenvalues are equal; second ones are infinite there.
    """
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    return turned_back(jnp.diag(rule(eigenvalues, option)), vectors)


def turned_back(inner: Matrix, vectors: Matrix) -> Matrix:
    """U M U', symmetric to the last digit."""
    product = vectors @ inner @ vectors.T
    return 0.5 * (product + product.T)


# S = U diag(l) U', A = U diag(d) U', M = U' dS U, J = dd / dl. To first order U' dA U is J dl with
# dl_i = M_ii on the diagonal, M_ij (d_i - d_j) / (l_i - l_j) off it (Daleckii and Krein 1965). For
# l_i = l_j the quotient is its limit J_ii - J_ij. As the rule treats both alike, rows i and j of J
# differ in columns i and j only, where they are swapped: (J v)_i - (J v)_j = (v_i - v_j)
# (J_ii - J_ij) for any v, so that one product of J with the ranks serves all pairs.
@with_eigenvalues.defjvp
def with_eigenvalues_jvp(rule, primals, tangents):
    """The derivative derived above."""
    (matrix, option), (slope, option_slope) = primals, tangents
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    turned = turned_back(slope, vectors.T)
    values, own = jax.jvp(rule, (eigenvalues, option), (jnp.diagonal(turned), option_slope))
    ranks = jnp.arange(matrix.shape[0], dtype=matrix.dtype)
    _, by_rank = jax.jvp(lambda levels: rule(levels, option), (eigenvalues,), (ranks,))
    gaps, jumps, steps, limits = (v[:, None] - v for v in (eigenvalues, values, ranks, by_rank))
    # Rounding spoils quotients of gaps below this more than their limit is off.
    close = jnp.finfo(matrix.dtype).eps ** 0.5 * jnp.max(jnp.abs(eigenvalues))
    equal, same = jnp.abs(gaps) <= close, steps == 0
    quotients = jnp.where(equal, limits / jnp.where(same, 1, steps), jumps / (gaps + equal))
    inner = jnp.where(same, jnp.diag(own), quotients * turned)
    return turned_back(jnp.diag(values), vectors), turned_back(inner, vectors)


def smallest_eigenvalue(matrix: Matrix) -> Float[Array, ""]:
    """The smallest eigenvalue of a symmetric matrix."""
    return jnp.linalg.eigvalsh(matrix)[0]


def is_positive_definite(matrix: Matrix, floor: float | Array) -> Bool[Array, ""]:
    """Whether the smallest eigenvalue of a symmetric matrix is above `floor`; False for NaN."""
    return smallest_eigenvalue(matrix) > floor


def nearest_corr(matrix: Matrix, *, floor: float | Array = 1e-6, num_steps: int = 50) -> Matrix:
    """The correlation matrix nearest to a symmetric one, with eigenvalues of at least `floor`.

        min |X - A|    over diag X = 1, X - floor I positive semi-definite

    in the Frobenius norm, by alternating projections with Dykstra's correction. At last eigenvalues
    are clipped and the diagonal scaled to one, which lowers the floor a little where steps were
    few; with 0 steps this is all. Costs num_steps + 1 eigendecompositions.

    Source: Higham (2002), Computing the nearest correlation matrix, algorithm 3.3.

    **Raises:** `ValueError` for a negative number of steps.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be 0 or more, got {num_steps}.")
    least, on_diagonal = jnp.asarray(floor, matrix.dtype), jnp.eye(len(matrix), dtype=bool)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        current, correction = state
        raised = with_eigenvalues(jnp.maximum, current - correction, least)
        correction = raised - current + correction
        return (jnp.where(on_diagonal, 1, raised), correction), None

    (current, _), _ = jax.lax.scan(step, (matrix, jnp.zeros_like(matrix)), length=num_steps)
    return unit_diagonal(with_eigenvalues(jnp.maximum, current, least))
