"""Factor stochastic volatility as a density of its parameters and log variances."""

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions.transforms import AffineTransform

from jaxfc.bayes.autoregression import stationary_path
from jaxfc.bayes.dynamic_factors_panel import StandardPanel
from jaxfc.bayes.loading_priors import LearnedScale, LoadingPrior, as_pair
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.collapse import packed_outer, unpack
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

ERRORS = ("stochastic", "constant", "student")
FACTORS = ("integrated", "sampled")


class VolatilityPrior(eqx.Module):
    """Priors of factor stochastic volatility, in units in which every series has variance one.

        intercept ~ N(0, intercept_scale^2)
        log variance of errors: its level ~ N(level, level_scale^2)
        (phi + 1) / 2 ~ beta(persistence),  sigma ~ half-normal(factor_sigma, error_sigma)
        degrees of Student errors: nu - 2 ~ gamma(2, 0.1)

    `loadings`: any `LoadingPrior`, e.g. `LearnedScale()` (a scale by factor) or `NormalGamma()`.

    **Raises:** `ValueError` for numbers that are not positive (`level` may be any).

    Source: Kim, Shephard and Chib (1998) for phi; Kastner and Fruehwirth-Schnatter (2014) for
    sigma, whose density at zero is positive; Juarez and Steel (2010) for nu.
    """

    loadings: LoadingPrior = eqx.field(default_factory=LearnedScale)
    intercept_scale: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    level: Float[Array, ""] = eqx.field(default=-1.0, converter=as_scalar)
    level_scale: Float[Array, ""] = eqx.field(default=2.0, converter=as_scalar)
    persistence: Float[Array, "2"] = eqx.field(default=(20.0, 1.5), converter=as_pair)
    factor_sigma: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    error_sigma: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "intercept_scale", "level_scale", "persistence")
        check_positive(self, "factor_sigma", "error_sigma")


class FactorVolatilityProgram(Program):
    """Factor stochastic volatility given a panel, in standard units.

        y_t = intercept + loadings f_t + e_t
        f_kt ~ N(0, exp(h_kt)),  h_k an AR(1) about zero with factor_phi, factor_sigma
        e_it ~ N(0, exp(g_it)),  g_i an AR(1) about error_level with error_phi, error_sigma

    The level of h is zero because the loadings have one. `errors`: "stochastic" as stated,
    "constant" variances exp(error_level), or "student", of scale exp(error_level / 2) and
    2 + `excess_degrees` degrees of freedom. `factors`: "integrated" out given the log variances
    (Woodbury's identity, O(time series factors^2)), or "sampled" with the parameters, as Student
    errors need; integrated ones mix many times better. Log variances are parameters through the
    standard normal noise that drives them (`factor_path`, `error_path`): by their values they hang
    on sigma so tightly that chains hardly move. Missing cells have no term.

    **Raises:** `ValueError` for unknown options, or Student errors with integrated factors.

    Source: Pitt and Shephard (1999); Chib, Nardari and Shephard (2006); Kastner,
    Fruehwirth-Schnatter and Lopes (2017).
    """

    panel: StandardPanel
    num_factors: int = eqx.field(static=True)
    prior: VolatilityPrior
    errors: str = eqx.field(static=True, default="stochastic")
    factors: str = eqx.field(static=True, default="integrated")

    def __check_init__(self):
        check_forms(self.errors, self.factors)

    def priors(self) -> Priors:
        prior = self.prior
        num_series = self.panel.values.shape[1]
        ones = jnp.ones(num_series, self.panel.values.dtype)
        found: Priors = {"intercept": lambda _: dist.Normal(0.0, prior.intercept_scale * ones)}
        found |= prior.loadings.priors(num_series, self.num_factors)
        found |= self.path_priors("factor", self.num_factors, prior.factor_sigma)
        found["error_level"] = lambda _: dist.Normal(prior.level, prior.level_scale * ones)
        if self.errors == "stochastic":
            found |= self.path_priors("error", num_series, prior.error_sigma)
        if self.errors == "student":
            found["excess_degrees"] = lambda _: dist.Gamma(2.0 * ones, 0.1)
        if self.factors == "sampled":
            found["factors"] = lambda p: dist.Normal(0.0, jnp.exp(0.5 * self.factor_logs(p)))
        return found

    def path_priors(self, of: str, size: int, scale: float | Array) -> Priors:
        """Laws of phi, sigma and path of the log variances `of` factors or errors."""
        num_times, dtype = self.panel.values.shape[0], self.panel.values.dtype
        first, second = (c * jnp.ones(size, dtype) for c in self.prior.persistence)
        # AffineTransform maps the unit interval to (-1, 1).
        to_range = AffineTransform(-1.0, 2.0, domain=dist.constraints.unit_interval)

        noise = jnp.ones((num_times, size), dtype)
        return {
            f"{of}_phi": lambda _: dist.TransformedDistribution(dist.Beta(first, second), to_range),
            f"{of}_sigma": lambda _: dist.HalfNormal(scale * jnp.ones(size, dtype)),
            f"{of}_path": lambda _: dist.Normal(0.0, noise),
        }

    def factor_logs(self, parameters: Parameters) -> Float[Array, "time factors"]:
        """h, the log variances of the factors."""
        return self.logs("factor", parameters, 0.0)

    def error_logs(self, parameters: Parameters) -> Float[Array, "time series"]:
        """g, the log variances of the errors (of their scale for Student errors)."""
        level = parameters["error_level"]
        if self.errors != "stochastic":
            return jnp.broadcast_to(level, (parameters["factor_path"].shape[0], level.shape[0]))
        return self.logs("error", parameters, level)

    def logs(self, of: str, parameters: Parameters, level: float | Array) -> Array:
        """Log variances from what parametrises them."""
        noise = parameters[f"{of}_path"]
        return level + stationary_path(noise, parameters[f"{of}_phi"], parameters[f"{of}_sigma"])

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        gaps = self.panel.values - parameters["intercept"]
        weights, loadings = self.panel.weights, parameters["loadings"]
        if self.factors == "integrated":
            logs = self.factor_logs(parameters), self.error_logs(parameters)
            return jnp.sum(factor_density(gaps, weights, loadings, *logs))
        gaps = gaps - parameters["factors"] @ loadings.T
        scale = jnp.exp(0.5 * self.error_logs(parameters))
        if self.errors == "student":
            law = dist.StudentT(2.0 + parameters["excess_degrees"], 0.0, scale)
        else:
            law = dist.Normal(0.0, scale)
        return jnp.sum(weights * law.log_prob(gaps))

    def start(self) -> Parameters:
        """Principal components with constant variances, loadings in units of factors of variance
        one, paths at their levels."""
        values, size = self.panel.values, self.num_factors
        counts = jnp.maximum(jnp.sum(self.panel.weights, axis=0), 1.0)
        roots, vectors = jnp.linalg.eigh(values.T @ values / values.shape[0])
        roots, vectors = roots[::-1][:size], vectors[:, ::-1][:, :size]
        loadings = vectors * jnp.sqrt(jnp.maximum(roots, 1e-3))
        factors = values @ vectors / jnp.sqrt(jnp.maximum(roots, 1e-3))
        gaps = self.panel.weights * (values - factors @ loadings.T)
        level = jnp.log(jnp.maximum(jnp.sum(gaps**2, axis=0) / counts, 0.05))
        ones = jnp.ones_like(level)
        found = {"intercept": 0.0 * ones, "error_level": level}
        found |= self.prior.loadings.start(loadings)
        paths = {"factor": jnp.zeros_like(factors), "error": jnp.zeros_like(values)}
        for of in ("factor", "error") if self.errors == "stochastic" else ("factor",):
            columns = jnp.ones_like(paths[of][0])
            found |= {f"{of}_phi": 0.9 * columns, f"{of}_sigma": 0.2 * columns}
            found[f"{of}_path"] = paths[of]
        if self.errors == "student":
            found["excess_degrees"] = 8.0 * ones
        if self.factors == "sampled":
            found["factors"] = factors
        return {name: found[name] for name in self.priors()}

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "FactorVolatilityProgram":
        """Data drawn given all parameters, log variances (and sampled factors) included."""
        factor_key, error_key, scale_key = jax.random.split(key, 3)
        logs, shape = self.factor_logs(parameters), self.panel.values.shape
        if self.factors == "sampled":
            factors = parameters["factors"]
        else:
            factors = jnp.exp(0.5 * logs) * jax.random.normal(factor_key, logs.shape, logs.dtype)
        errors = jnp.exp(0.5 * self.error_logs(parameters))
        errors = errors * jax.random.normal(error_key, shape, logs.dtype)
        if self.errors == "student":
            errors = errors * student_scales(2.0 + parameters["excess_degrees"], shape, scale_key)
        values = parameters["intercept"] + factors @ parameters["loadings"].T + errors
        values = jnp.where(self.panel.observed, values, 0.0)
        return eqx.tree_at(lambda program: program.panel.values, self, values)

    def identified(self, parameters: Parameters) -> Parameters:
        """What no order or sign of the factors touches.

        Intercepts; mean over time and last row of the log variance of every series; the share of
        the common part in its mean variance; the log of the common variance summed over series, at
        eight rows; what the errors' laws depend on.
        """
        common = jnp.exp(self.factor_logs(parameters)) @ (parameters["loadings"] ** 2).T
        own = jnp.exp(self.error_logs(parameters))
        if self.errors == "student":
            own = own * (1.0 + 2.0 / parameters["excess_degrees"])
        rows = jnp.linspace(0, common.shape[0] - 1, 8).astype(int)
        errors = ("error_level", "error_phi", "error_sigma", "excess_degrees")
        return {
            "intercept": parameters["intercept"],
            "mean_log_variance": jnp.mean(jnp.log(common + own), axis=0),
            "last_log_variance": jnp.log(common[-1] + own[-1]),
            "common_share": jnp.mean(common, axis=0) / jnp.mean(common + own, axis=0),
            "common_log_variance": jnp.log(jnp.sum(common[rows], axis=1)),
            "factor_phi": jnp.sort(parameters["factor_phi"]),
            "factor_sigma": jnp.sort(parameters["factor_sigma"]),
            **{name: parameters[name] for name in errors if name in parameters},
        }


def check_forms(errors: str, factors: str) -> None:
    """Raise `ValueError` for unknown options and those that do not go together."""
    options = {"errors": (errors, ERRORS), "factors": (factors, FACTORS)}
    for name, (given, known) in options.items():
        if given not in known:
            raise ValueError(f"{name} must be one of {known}, got {given!r}.")
    if errors == "student" and factors == "integrated":
        raise ValueError(
            "factors cannot be integrated out of Student errors; use factors='sampled'."
        )


def student_scales(degrees: Array, shape: tuple[int, ...], key: PRNGKeyArray) -> Array:
    """sqrt(degrees / chi^2): normal noise times this is Student's."""
    half = jnp.broadcast_to(0.5 * degrees, shape)
    return jnp.sqrt(half / jax.random.gamma(key, half))


def factor_density(
    gaps: Float[Array, "time series"],
    weights: Float[Array, "time series"],
    loadings: Float[Array, "series factors"],
    factor_logs: Float[Array, "time factors"],
    error_logs: Float[Array, "time series"],
) -> Float[Array, " time"]:
    """ln N(observed gaps; 0, W diag(exp h) W' + diag(exp g)) by row.

    Woodbury's identity: with M = I + H W' G^-1 W H, H = diag(exp(h / 2)), the quadratic form is
    gaps' G^-1 gaps - b' H M^-1 H b, b = W' G^-1 gaps, and the log-determinant ln det M + sum g.
    """
    size = loadings.shape[1]
    precisions = weights * jnp.exp(-error_logs)
    half = jnp.exp(0.5 * factor_logs)
    information = unpack(precisions @ packed_outer(loadings), size)
    middle = jnp.eye(size, dtype=gaps.dtype) + half[:, :, None] * information * half[:, None, :]
    inverse, pivots = spd_inverse(middle, fastest_implementation(size))
    scaled = half * ((precisions * gaps) @ loadings)
    explained = jnp.einsum("tk,tkl,tl->t", scaled, inverse, scaled)
    logs = jnp.sum(weights * (error_logs + LOG_2PI), axis=1) + jnp.sum(jnp.log(pivots), axis=-1)
    return -0.5 * (jnp.sum(precisions * gaps**2, axis=1) - explained + logs)
