"""Log variances given the rows up to each, parameters known: a filter that never looks ahead."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.factor_volatility_program import factor_density
from jaxfc.typing import Array, Float
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

NUM_NODES = 15
# Variance of a log variance beyond which a row is not filtered as it stands: nodes would lie
# further apart than what one row tells (ln chi^2_1 has standard deviation 2.2), and the expected
# variance exp(variance / 2), by which the others enter, would drown every row.
WIDEST = 4.0


class VolatilityLaw(NamedTuple):
    """A model with known parameters, factors first, then errors.

    Log variance j is an AR(1) about `levels` with `phi` and `sigma`; sigma zero keeps it constant.
    """

    intercept: Float[Array, " series"]
    loadings: Float[Array, "series factors"]
    levels: Float[Array, " states"]
    phi: Float[Array, " states"]
    sigma: Float[Array, " states"]


class LogVariances(NamedTuple):
    """Means and variances of the log variances, independent normals."""

    means: Float[Array, "*time states"]
    variances: Float[Array, "*time states"]

    @property
    def logs(self) -> Float[Array, "*time states"]:
        """ln E exp(h)."""
        return self.means + 0.5 * self.variances


class FilteredVolatility(NamedTuple):
    """Log variances before and after each row is seen, and ln of the normal density of each row
    with the covariance expected before it."""

    predicted: LogVariances
    filtered: LogVariances
    loglik_terms: Float[Array, " time"]


def volatility_filter(
    law: VolatilityLaw, values: Float[Array, "time series"], weights: Float[Array, "time series"]
) -> FilteredVolatility:
    """Filter the log variances row by row.

    Given the others, a factor or error x_j with log variance h_j is seen with normal noise, so the
    law of h_j alone is found by quadrature over its predicted normal law; its mean and variance go
    on. The others enter by their expected variances, and the laws of different h_j are taken as
    independent: an approximation (assumed density filtering), which a test measures against
    particles. A law wider than `WIDEST` (persistent draws before the first rows, long gaps) is
    taken as that wide: its expected variance need not exist. Costs O(time (series factors^2 + 15
    (series + factors))).

    **Arguments:** `values` in standard units, `weights` one where observed, else zero.

    Source: Ito and Xiong (2000) for Gaussian quadrature filters.
    """
    num_factors = law.loadings.shape[1]
    start = stationary(law)
    gaps = weights * (values - law.intercept)

    def step(last: LogVariances, row: tuple[Array, Array]):
        gap, weight = row
        last = LogVariances(last.means, jnp.minimum(last.variances, WIDEST))
        factor_logs, error_logs = last.logs[:num_factors], last.logs[num_factors:]
        rows = gap[None], weight[None], law.loadings, factor_logs[None], error_logs[None]
        now = seen(law, last, gap, weight)
        return predicted(law, now), (last, now, factor_density(*rows)[0])

    _, (before, after, terms) = jax.lax.scan(step, start, (gaps, weights))
    return FilteredVolatility(before, after, terms)


def stationary(law: VolatilityLaw) -> LogVariances:
    """The law of the log variances before anything is seen."""
    return LogVariances(law.levels, law.sigma**2 / (1.0 - law.phi**2))


def predicted(law: VolatilityLaw, now: LogVariances) -> LogVariances:
    """One row ahead."""
    means = law.levels + law.phi * (now.means - law.levels)
    return LogVariances(means, law.phi**2 * now.variances + law.sigma**2)


def seen(
    law: VolatilityLaw, last: LogVariances, gap: Float[Array, " series"], weight: Array
) -> LogVariances:
    """The log variances after one row."""
    num_factors = law.loadings.shape[1]
    expected = jnp.exp(last.logs)
    of_factors, of_errors = expected[:num_factors], expected[num_factors:]
    precisions = weight / of_errors
    information = law.loadings.T @ (precisions[:, None] * law.loadings)
    inverse, _ = spd_inverse(
        information + jnp.diag(1.0 / of_factors), fastest_implementation(num_factors)
    )
    factors = inverse @ (law.loadings.T @ (precisions * gap))
    # A factor: precision c of what the row says of it (zero: nothing) and that times its estimate.
    spread = jnp.diagonal(inverse)
    precision, pull = 1.0 / spread - 1.0 / of_factors, factors / spread
    # An error: its estimate from its own series, and the variance of what the others leave open.
    open_part = jnp.einsum("ik,kl,il->i", law.loadings, inverse, law.loadings)
    share = of_errors / jnp.maximum(of_errors - open_part, 1e-10 * of_errors)
    estimate, noise = share * (gap - law.loadings @ factors), share * open_part

    nodes, masses = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    logs = last.means + jnp.sqrt(last.variances) * jnp.asarray(nodes, gap.dtype)[:, None]
    scales = jnp.exp(logs)
    seen_variance = 1.0 + scales[:, :num_factors] * precision
    for_factors = scales[:, :num_factors] * pull**2 / seen_variance - jnp.log(seen_variance)
    total = scales[:, num_factors:] + noise
    for_errors = weight * (-(estimate**2) / total - jnp.log(total))
    loglik = 0.5 * jnp.concatenate([for_factors, for_errors], axis=1)
    loglik = loglik + jnp.log(jnp.asarray(masses, gap.dtype))[:, None]
    posterior = jax.nn.softmax(loglik, axis=0)
    means = jnp.sum(posterior * logs, axis=0)
    return LogVariances(means, jnp.sum(posterior * (logs - means) ** 2, axis=0))


def expected_covs(
    law: VolatilityLaw, logs: Float[Array, "time states"]
) -> Float[Array, "time series series"]:
    """W diag(exp h) W' + diag(exp g) by row."""
    num_series, num_factors = law.loadings.shape
    variances = jnp.exp(logs)
    common = jnp.einsum("ik,tk,jk->tij", law.loadings, variances[:, :num_factors], law.loadings)
    return common + variances[:, num_factors:, None] * jnp.eye(num_series, dtype=logs.dtype)
