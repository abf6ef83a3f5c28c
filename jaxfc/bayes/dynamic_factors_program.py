"""A dynamic factor model as a density of its parameters, the factors integrated out."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.dynamic_factors_panel import StandardPanel
from jaxfc.bayes.prior_checks import check_not_negative, check_positive
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.state_space import StateSpace
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.block_tridiagonal import Factorisation, factorise, matvec
from jaxfc_kernels.collapse import collapse_diagonal
from jaxfc_kernels.lyapunov import companion, stationary_cov
from jaxfc_kernels.var_precision import path_precision, stationary_block_cov


class FactorPrior(eqx.Module):
    """Priors of a dynamic factor model, in units in which every series has variance one.

        loadings ~ N(0, loading_scale^2),  intercept ~ N(0, intercept_scale^2)
        error variance ~ inverse gamma(error_shape, error_scale)
        Q ~ inverse Wishart, E Q = s I, s = innovation_scale / loading_scale^2, with
            `innovation_degrees` more degrees of freedom than its mean needs
        A_l given Q ~ N(first_lag I at l = 1 else 0, variance Q_kk v_l),
            v_l = tightness^2 / (l^(2 decay) s)

    The last two are a normal-inverse-Wishart law with Minnesota's shrinkage over lags, restricted
    to stationary VARs. The loadings' scale says in which units the factors are measured and
    nothing else: another one maps to this one by W to c W, f to f / c, Q to Q / c^2.

    **Raises:** `ValueError` for numbers that are not positive (`decay`: negative, `first_lag`: may
    be any).

    Source: Litterman (1986); Kadiyala and Karlsson (1997); Banbura, Giannone and Reichlin (2010).
    """

    loading_scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_scalar)
    intercept_scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_scalar)
    error_shape: Float[Array, ""] = eqx.field(default=2.0, converter=as_scalar)
    error_scale: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    innovation_scale: Float[Array, ""] = eqx.field(default=0.3, converter=as_scalar)
    innovation_degrees: Float[Array, ""] = eqx.field(default=3.0, converter=as_scalar)
    first_lag: Float[Array, ""] = eqx.field(default=0.0, converter=as_scalar)
    tightness: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    decay: Float[Array, ""] = eqx.field(default=1.0, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "loading_scale", "intercept_scale", "error_shape", "error_scale")
        check_positive(self, "innovation_scale", "innovation_degrees", "tightness")
        check_not_negative(self, "decay")

    def var_law(self, num_lags: int, num_factors: int) -> "VarLaw":
        """The normal-inverse-Wishart law of the VAR's coefficients and innovation covariance."""
        lags = jnp.repeat(jnp.arange(1, num_lags + 1), num_factors)
        scale = self.innovation_scale / self.loading_scale**2
        variances = self.tightness**2 / (lags ** (2.0 * self.decay) * scale)
        mean = jnp.zeros((num_lags * num_factors, num_factors))
        mean = mean.at[:num_factors].set(self.first_lag * jnp.eye(num_factors))
        cov = self.innovation_degrees * scale * jnp.eye(num_factors)
        return VarLaw(mean, 1.0 / variances, cov, num_factors + 1.0 + self.innovation_degrees)


class VarLaw(NamedTuple):
    """B given Q ~ matrix normal(mean, diag(1 / precisions), Q), Q ~ inverse Wishart(scatter,
    degrees). B (lags x factors, factors) stacks the transposed coefficients of the lags."""

    mean: Float[Array, "regressors factors"]
    precisions: Float[Array, " regressors"]
    scatter: Float[Array, "factors factors"]
    degrees: Float[Array, ""] | float


class DynamicFactorProgram(Program):
    """A dynamic factor model given a panel.

        x_t = intercept + loadings f_t + e_t,      e_t ~ N(0, diag(error_variance))
        f_t = sum_l A_l f_{t-l} + u_t,             u_t ~ N(0, innovation_cov), stationary

    in standard units. The parameters are these four and `coefficients`, the A_l' below each other;
    the factors are integrated out by the Kalman filter. Missing cells have no term. Loadings and
    VAR are unique up to an invertible matrix, which the priors pin only weakly; see `identified`.
    """

    panel: StandardPanel
    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    prior: FactorPrior

    def priors(self) -> Priors:
        prior, num_series = self.prior, self.panel.values.shape[1]
        law = prior.var_law(self.num_lags, self.num_factors)
        root = jnp.diag(1.0 / jnp.sqrt(law.precisions))
        ones = jnp.ones((num_series, self.num_factors))

        def coefficients(parameters: Parameters) -> dist.Distribution:
            chol = jnp.linalg.cholesky(parameters["innovation_cov"])
            return dist.MatrixNormal(law.mean, root, chol)

        return {
            "intercept": lambda _: dist.Normal(0.0, prior.intercept_scale * ones[:, 0]),
            "loadings": lambda _: dist.Normal(0.0, prior.loading_scale * ones),
            "error_variance": lambda _: dist.InverseGamma(
                prior.error_shape * ones[:, 0], prior.error_scale
            ),
            "innovation_cov": lambda _: dist.InverseWishart(law.degrees, scale_matrix=law.scatter),
            "coefficients": coefficients,
        }

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        """By the Kalman filter; minus infinity for a VAR that is not stationary."""
        space = self.space(parameters)
        loglik = space.log_prob(self.panel.values, self.panel.observed, implementation="collapsed")
        return jnp.where(jnp.isnan(loglik), -jnp.inf, loglik)

    def transition(self, parameters: Parameters) -> Float[Array, "lags factors factors"]:
        """A_1, ..., A_p."""
        shape = self.num_lags, self.num_factors, self.num_factors
        return jnp.swapaxes(parameters["coefficients"].reshape(shape), 1, 2)

    def space(self, parameters: Parameters) -> StateSpace:
        """The model as a state space, state (f_t, ..., f_{t-p+1})."""
        size, count = self.num_factors, self.num_lags * self.num_factors
        loadings = parameters["loadings"]
        moving = companion(self.transition(parameters))
        noise = jnp.zeros_like(moving).at[:size, :size].set(parameters["innovation_cov"])
        return StateSpace(
            initial_mean=jnp.zeros(count, loadings.dtype),
            initial_cov=stationary_cov(moving, noise),
            transition=moving,
            offset=jnp.zeros(count, loadings.dtype),
            innovation_cov=noise,
            design=jnp.pad(loadings, ((0, 0), (0, count - size))),
            observation_offset=parameters["intercept"],
            observation_cov=parameters["error_variance"],
        )

    def path_law(self, parameters: Parameters) -> Factorisation:
        """The law of the factors given parameters and panel, in super-blocks of `num_lags` rows.

        Blocks are filled up with rows before the panel, so that the last block ends with it.
        """
        lags, size = self.num_lags, self.num_factors
        weights = self.panel.weights
        gaps = weights * (self.panel.values - parameters["intercept"])
        found = collapse_diagonal(
            gaps, weights, parameters["loadings"], parameters["error_variance"]
        )
        num_blocks = -(-gaps.shape[0] // lags)
        before = (num_blocks * lags - gaps.shape[0], 0)
        transition, cov = self.transition(parameters), parameters["innovation_cov"]
        initial_cov = stationary_block_cov(transition, cov)
        zeros = jnp.zeros(lags * size, cov.dtype)
        prior = path_precision(transition, cov, zeros, initial_cov, num_blocks)
        information = jnp.pad(found.information, (before, (0, 0), (0, 0)))
        information = information.reshape(num_blocks, lags, size, size)
        unit = jnp.eye(lags, dtype=cov.dtype)[:, None, :, None]
        spread = (information[:, :, :, None, :] * unit).reshape(num_blocks, lags * size, -1)
        linear = jnp.pad(found.vectors, (before, (0, 0))).reshape(num_blocks, lags * size)
        return factorise(prior.diagonal + spread, prior.lower, linear)

    def last_state(self, parameters: Parameters) -> tuple[Array, Array]:
        """Mean and covariance of the last `num_lags` rows of factors, in ascending time."""
        law = self.path_law(parameters)
        return matvec(law.pivot_inverses[-1], law.reduced[-1]), law.pivot_inverses[-1]

    def start(self) -> Parameters:
        """Principal components of the panel with zeros (its means) in the gaps, and their VAR."""
        values, size = self.panel.values, self.num_factors
        counts = jnp.maximum(jnp.sum(self.panel.weights, axis=0), 1.0)
        vectors = jnp.linalg.eigh(values.T @ values)[1][:, ::-1][:, :size]
        loadings = vectors * jnp.sqrt(1.0 * values.shape[1])
        factors = values @ loadings / values.shape[1]
        gaps = self.panel.weights * (values - factors @ loadings.T)
        law = posterior_var(self.prior.var_law(self.num_lags, size), factors, self.num_lags)
        cov = law.scatter / law.degrees
        found = {
            "intercept": jnp.zeros_like(values[0]),
            "loadings": loadings,
            "error_variance": jnp.maximum(jnp.sum(gaps**2, axis=0) / counts, 0.05),
            "innovation_cov": 0.5 * (cov + cov.T),
            "coefficients": law.mean,
        }
        stable = jnp.all(jnp.isfinite(stationary_block_cov(self.transition(found), cov)))
        return found | {"coefficients": jnp.where(stable, law.mean, 0.0)}

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "DynamicFactorProgram":
        _, values = self.space(parameters).simulate(self.panel.values.shape[0], key=key)
        values = jnp.where(self.panel.observed, values, 0.0)
        return eqx.tree_at(lambda program: program.panel.values, self, values)

    def identified(self, parameters: Parameters) -> Parameters:
        """What no change of basis of the factors touches.

        `intercept` and `error_variance`; by series the variance of the common part, its
        autocovariance at lag one and the variance of its innovation; the traces of the A_l.
        """
        loadings, size = parameters["loadings"], self.num_factors
        space = self.space(parameters)
        own = space.initial_cov[:size, :size]
        next_row = (space.transition @ space.initial_cov)[:size, :size]  # pyright: ignore

        def along(cov: Array) -> Float[Array, " series"]:
            return jnp.einsum("ik,kl,il->i", loadings, cov, loadings)

        return {
            "intercept": parameters["intercept"],
            "error_variance": parameters["error_variance"],
            "common_variance": along(own),
            "common_autocovariance": along(next_row),
            "common_innovation_variance": along(parameters["innovation_cov"]),
            "persistence": jnp.trace(self.transition(parameters), axis1=1, axis2=2),
        }


class PosteriorVar(NamedTuple):
    """The law of B and Q given a path; `chol` of the precision of the regressors."""

    mean: Float[Array, "regressors factors"]
    chol: Float[Array, "regressors regressors"]
    scatter: Float[Array, "factors factors"]
    degrees: Float[Array, ""] | float


def posterior_var(
    prior: VarLaw, factors: Float[Array, "time factors"], num_lags: int
) -> PosteriorVar:
    """The conjugate update of `prior` by a path whose first `num_lags` rows are given."""
    num_rows = factors.shape[0] - num_lags
    lagged = [factors[num_lags - lag : num_lags - lag + num_rows] for lag in range(1, num_lags + 1)]
    regressors, targets = jnp.concatenate(lagged, axis=1), factors[num_lags:]
    precision = jnp.diag(prior.precisions) + regressors.T @ regressors
    linear = prior.precisions[:, None] * prior.mean + regressors.T @ targets
    chol = jnp.linalg.cholesky(precision)
    mean = jax.scipy.linalg.cho_solve((chol, True), linear)
    gaps, moved = targets - regressors @ mean, mean - prior.mean
    # A sum of squares: the textbook difference of quadratic forms loses digits.
    scatter = prior.scatter + gaps.T @ gaps + moved.T @ (prior.precisions[:, None] * moved)
    return PosteriorVar(mean, chol, scatter, prior.degrees + num_rows)
