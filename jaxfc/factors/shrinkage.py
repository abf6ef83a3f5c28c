"""Series that lend each other strength: variances and intercepts as draws from a common law.

Variances of errors (`idiosyncratic="shrunk"`), with d_i degrees of freedom left by the regression,

    s_i^2 | S_i ~ S_i chi2(d_i) / d_i,     d_0 s_0i / S_i ~ chi2(d_0),   log s_0i = a + b log v_i
    S_i = (d_0 s_0i + d_i s_i^2) / (d_0 + d_i)

with v_i the variance of the series in data units: b = 0 is one error variance for all, b = 1 one
share of it in every series' variance, as when units differ. d_0, a, b are fitted to the log
variances (Smyth 2004, section 6, with a trend).

Intercepts (`intercept="random"`): mu_i ~ N(0, tau^2) in units of the series' scale, zero being that
of the data. The mean of a persistent factor over the panel and the intercepts are hardly told apart
by one series; N of them, whose intercepts are not aligned with the loadings, tell them apart.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, polygamma

from jaxfc.factors.components import FactorParameters
from jaxfc.typing import Array, Float, Int
from jaxfc_kernels.var_precision import inverse_and_log_det

if TYPE_CHECKING:
    from jaxfc.factors.em import PanelData
    from jaxfc.factors.moments import FactorPosterior

# tau^2 = (|mu|^2 + spread(tau^2)) / N settles within rounding of the estimate in a few rounds.
TAU_ROUNDS = 4


class DataUnits(eqx.Module):
    """What standardisation hides: where zero of the data lies, and log variances in data units."""

    zero: Float[Array, " series"]
    log_variance: Float[Array, " series"]


def shrunk_variances(
    variances: Float[Array, " series"],
    counts: Float[Array, " series"],
    num_coefficients: int,
    log_variance: Float[Array, " series"],
) -> Float[Array, " series"]:
    """S_i as above, from mean squared residuals over `counts` observations each.

    log s_i^2 has mean log s_0i + h(d_i) - h(d_0), h(d) = digamma(d / 2) - log(d / 2), and variance
    trigamma(d_i / 2) + trigamma(d_0 / 2): what its spread around the trend is larger than the first
    term tells d_0.
    """
    dof = jnp.maximum(counts - num_coefficients, 1.0)
    unbiased = jnp.maximum(variances * counts / dof, jnp.finfo(variances.dtype).tiny)
    observed = jnp.log(unbiased) - log_bias(dof)
    trend = line(log_variance, observed, dof)
    spread = jnp.sum((observed - trend) ** 2) / max(observed.size - 2, 1)
    excess = spread - jnp.mean(polygamma(1, 0.5 * dof))
    varies = excess > 1e-6  # d_0 beyond two million is none
    prior = 2.0 * inverse_trigamma(jnp.where(varies, excess, 1.0))
    pulled = (prior * jnp.exp(trend + log_bias(prior)) + dof * unbiased) / (prior + dof)
    return jnp.where(varies, pulled, jnp.exp(trend))


def log_bias(dof: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """E log(chi2(d) / d)."""
    return digamma(0.5 * dof) - jnp.log(0.5 * dof)


def inverse_trigamma(value: Float[Array, ""]) -> Float[Array, ""]:
    """The x of trigamma(x) = `value` by Newton's method on 1 / trigamma, nearly a straight line
    (Smyth 2004, appendix): eight digits in five steps."""

    def step(_: Array, x: Array) -> Array:
        now = polygamma(1, x)
        return x + now * (1.0 - now / value) / polygamma(2, x)

    return jax.lax.fori_loop(0, 5, step, 0.5 + 1.0 / value)


def line(x: Float[Array, " n"], y: Float[Array, " n"], weights: Array) -> Float[Array, " n"]:
    """Fitted values of a weighted straight line; flat where x does not vary."""
    total = jnp.sum(weights)
    x_mean, y_mean = jnp.sum(weights * x) / total, jnp.sum(weights * y) / total
    spread = jnp.sum(weights * (x - x_mean) ** 2)
    slope = jnp.sum(weights * (x - x_mean) * (y - y_mean)) / jnp.where(spread > 0, spread, 1.0)
    return y_mean + slope * (x - x_mean)


class PathMean(eqx.Module):
    """What a factor path says of the mean c of its process: N(c; precision^{-1} vector, ...)."""

    precision: Float[Array, "factors factors"]
    vector: Float[Array, " factors"]


def path_mean(
    parameters: FactorParameters, means: Float[Array, "time factors"], end: Int[Array, ""]
) -> PathMean:
    """Generalised least squares of the mean over the periods before `end`, stationary start."""
    num_lags, num_factors = parameters.num_lags, parameters.num_factors
    used = (jnp.arange(means.shape[0]) < end).astype(means.dtype)
    identity = jnp.eye(num_factors, dtype=means.dtype)
    if num_lags == 0:
        return PathMean(jnp.sum(used) * identity, used @ means)
    ones = jnp.tile(identity, (num_lags, 1))
    first, _ = inverse_and_log_det(parameters.initial_cov)
    weight, _ = inverse_and_log_det(parameters.innovation_cov)
    lags = range(1, num_lags + 1)
    past = [means[num_lags - lag : means.shape[0] - lag] for lag in lags]
    innovations = means[num_lags:] - sum(
        x @ a.T for x, a in zip(past, parameters.transition, strict=True)
    )
    level = identity - jnp.sum(parameters.transition, axis=0)
    after = used[num_lags:]
    precision = ones.T @ first @ ones + jnp.sum(after) * level.T @ weight @ level
    vector = ones.T @ first @ means[:num_lags].reshape(-1) + level.T @ weight @ (
        after @ innovations
    )
    return PathMean(precision, vector)


def intercept_precision(
    parameters: FactorParameters, data: "PanelData", path: PathMean
) -> Float[Array, ""]:
    """1 / tau^2 at its expected second moment: squares of the intercepts and their uncertainty,
    that of one series alone and that which all share through the factors' mean."""
    assert data.units is not None
    loadings, level = parameters.loadings, parameters.intercept - data.units.zero
    counts = jnp.maximum(jnp.sum(data.observed, axis=0), 1.0)
    alone = jnp.sum(level**2) + jnp.sum(parameters.variances / counts)
    gram = loadings.T @ loadings

    def again(_: Array, tau: Array) -> Array:
        shared, _ = inverse_and_log_det(path.precision + gram / tau)
        return (alone + jnp.sum(gram * shared)) / level.size

    return 1.0 / jax.lax.fori_loop(0, TAU_ROUNDS, again, alone / level.size)


def recentred(
    parameters: FactorParameters,
    posterior: "FactorPosterior",
    data: "PanelData",
    end: Int[Array, ""],
    precision: Float[Array, ""],
) -> FactorParameters:
    """The parameters with what the factors' mean says moved into the intercepts.

    Maximum over c of the path's law with mean c and of the prior of mu + W c: the panel's law knows
    only mu + W c, so the step is free, and without it EM creeps along this direction (parameter
    expansion, Liu, Rubin and Wu 1998).
    """
    assert data.units is not None
    path = path_mean(parameters, posterior.means, end)
    loadings, level = parameters.loadings, parameters.intercept - data.units.zero
    inverse, _ = inverse_and_log_det(path.precision + precision * loadings.T @ loadings)
    shift = inverse @ (path.vector - precision * (loadings.T @ level))
    return eqx.tree_at(lambda p: p.intercept, parameters, parameters.intercept + loadings @ shift)
