"""Gibbs sampling of a dynamic factor model: every conditional law is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve, solve_triangular

from jaxfc.bayes.draws import Inference, PosteriorDraws, map_draws
from jaxfc.bayes.dynamic_factors_program import DynamicFactorProgram, posterior_var
from jaxfc.bayes.program import Parameters, Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.block_tridiagonal import sample
from jaxfc_kernels.collapse import packed_outer, unpack
from jaxfc_kernels.var_precision import stationary_block_cov


class FactorGibbs(Inference):
    """Draws factors, loadings with intercepts, error variances and VAR in turn.

    Each is drawn from its exact law given the others: factors by the elimination of their
    block-tridiagonal precision, loadings and intercept of a series by its regression on the
    factors, error variances and VAR by conjugacy. The stationary law of the first rows is met by
    accepting a drawn VAR with the ratio of their densities (`moved` says when); VARs that are not
    stationary are refused.

    `thin` sweeps make one draw. Chains start at the program's `start`, jittered in unconstrained
    units with standard deviation `jitter`. A sweep costs O(time series factors^2 + time lags^2
    factors^3).

    **Raises:** `ValueError` for a program of another model.

    Source: Carter and Kohn (1994); Kim and Nelson (1999), chapter 8; Chan and Jeliazkov (2009) for
    the draw by precisions.
    """

    num_chains: int = eqx.field(static=True, default=4)
    num_draws: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=500)
    thin: int = eqx.field(static=True, default=1)
    jitter: Float[Array, ""] = eqx.field(default=0.1, converter=as_scalar)

    def __check_init__(self):
        check_counts(
            num_chains=self.num_chains,
            num_draws=self.num_draws,
            num_warmup=self.num_warmup,
            thin=self.thin,
        )

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        if not isinstance(program, DynamicFactorProgram):
            raise ValueError(
                f"FactorGibbs draws from a DynamicFactorProgram, got {type(program).__name__}; "
                "use PooledHMC()."
            )
        start = program.start()
        parameters, moved = jax.vmap(lambda k: self.chain(program, start, key=k))(
            jax.random.split(key, self.num_chains)
        )
        log_density = map_draws(
            lambda drawn: program.log_density(program.unconstrain(drawn)), parameters
        )
        finite = jnp.all(jnp.isfinite(log_density))
        zeros = jnp.zeros(self.num_chains, log_density.dtype)
        return PosteriorDraws(
            parameters=parameters,
            log_density=log_density,
            energy=-log_density,
            divergent=jnp.zeros(log_density.shape, bool),
            moved=moved,
            step_size=zeros,
            num_leapfrogs=zeros,
            pareto_k=jnp.asarray(jnp.nan, log_density.dtype),
            num_steps=jnp.asarray(self.num_warmup + self.thin * self.num_draws),
            result=select(finite, SUCCESSFUL, RESULTS.diverged),  # pyright: ignore
        )

    def chain(
        self, program: DynamicFactorProgram, start: Parameters, *, key: PRNGKeyArray
    ) -> tuple[Parameters, Bool[Array, " draws"]]:
        """One chain: its draws, and whether the VAR moved on the way to each."""
        start_key, key = jax.random.split(key)
        position, named = ravel_pytree(program.unconstrain(start))
        noise = jax.random.normal(start_key, position.shape, position.dtype)
        jittered = program.constrain(named(position + self.jitter.astype(noise.dtype) * noise))
        # The start's VAR is stationary, a jittered one may not be.
        kept = {name: start[name] for name in ("innovation_cov", "coefficients")}

        def once(state: tuple[Parameters, Array], sweep_key: Array):
            parameters, moved = state
            parameters, accepted = sweep(program, parameters, key=sweep_key)
            return (parameters, moved | accepted), None

        def draw(parameters: Parameters, number: Array):
            keys = jax.random.split(jax.random.fold_in(key, number), self.thin)
            (parameters, moved), _ = jax.lax.scan(once, (parameters, jnp.asarray(False)), keys)
            return parameters, (parameters, moved)

        # One loop for warm-up and draws: two would compile the sweep twice.
        num_before = -(-self.num_warmup // self.thin)
        numbers = jnp.arange(num_before + self.num_draws)
        _, drawn = jax.lax.scan(draw, jittered | kept, numbers)
        return jax.tree.map(lambda x: x[num_before:], drawn)


def sweep(
    program: DynamicFactorProgram, parameters: Parameters, *, key: PRNGKeyArray
) -> tuple[Parameters, Bool[Array, ""]]:
    """All blocks once, and whether the drawn VAR was accepted."""
    keys = jax.random.split(key, 5)
    factors = draw_factors(program, parameters, key=keys[0])
    parameters, factors = draw_shift(program, parameters, factors, key=keys[4])
    rows = factors[factors.shape[0] - program.panel.values.shape[0] :]
    loadings, intercept = draw_loadings(program, rows, parameters["error_variance"], key=keys[1])
    variance = draw_error_variance(program, rows, loadings, intercept, key=keys[2])
    parameters = parameters | {
        "loadings": loadings,
        "intercept": intercept,
        "error_variance": variance,
    }
    return draw_var(program, parameters, factors, key=keys[3])


def draw_factors(
    program: DynamicFactorProgram, parameters: Parameters, *, key: PRNGKeyArray
) -> Float[Array, "rows factors"]:
    """The path of the factors given all parameters, with the rows before the panel that fill up
    its first super-block."""
    law = program.path_law(parameters)
    noise = jax.random.normal(key, law.reduced.shape, law.reduced.dtype)
    return sample(law, noise).reshape(-1, program.num_factors)


def draw_shift(
    program: DynamicFactorProgram,
    parameters: Parameters,
    factors: Float[Array, "rows factors"],
    *,
    key: PRNGKeyArray,
) -> tuple[Parameters, Float[Array, "rows factors"]]:
    """Move the level between factors and intercepts: f + d, intercept - loadings d.

    The likelihood does not change, so d is drawn from the normal law that the prior of path and
    intercepts leaves it (Liu and Sabatti 2000). Given the factors, a regression alone would learn
    the level of persistent factors one small step at a time.
    """
    lags, size = program.num_lags, program.num_factors
    transition, loadings = program.transition(parameters), parameters["loadings"]
    first, shocks = factors[:lags].reshape(-1), factors[lags:]
    for lag in range(1, lags + 1):
        shocks = shocks - factors[lags - lag : factors.shape[0] - lag] @ transition[lag - 1].T
    identity = jnp.eye(size, dtype=factors.dtype)
    level = identity - jnp.sum(transition, axis=0)
    copies = jnp.tile(identity, (lags, 1))
    by_shock = jnp.linalg.solve(parameters["innovation_cov"], level)
    by_first = jnp.linalg.solve(
        stationary_block_cov(transition, parameters["innovation_cov"]), copies
    )
    by_prior = loadings / jnp.asarray(program.prior.intercept_scale, factors.dtype) ** 2
    precision = shocks.shape[0] * level.T @ by_shock + copies.T @ by_first + loadings.T @ by_prior
    linear = parameters["intercept"] @ by_prior - jnp.sum(shocks, axis=0) @ by_shock
    linear = linear - first @ by_first
    chol = jnp.linalg.cholesky(0.5 * (precision + precision.T))
    noise = jax.random.normal(key, linear.shape, linear.dtype)
    shift = cho_solve((chol, True), linear) + solve_triangular(chol, noise, lower=True, trans=1)
    intercept = parameters["intercept"] - loadings @ shift
    return parameters | {"intercept": intercept}, factors + shift


def draw_loadings(
    program: DynamicFactorProgram,
    factors: Float[Array, "time factors"],
    error_variance: Float[Array, " series"],
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "series factors"], Float[Array, " series"]]:
    """Loadings and intercept of every series given the factors."""
    mean, chol = loading_law(program, factors, error_variance)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    drawn = mean + solve_triangular(chol, noise[..., None], lower=True, trans=1)[..., 0]
    return drawn[:, :-1], drawn[:, -1]


def loading_law(
    program: DynamicFactorProgram,
    factors: Float[Array, "time factors"],
    error_variance: Float[Array, " series"],
) -> tuple[Float[Array, "series regressors"], Float[Array, "series regressors regressors"]]:
    """Means, and Cholesky factors of the precisions, of (loadings, intercept) by series."""
    prior, panel = program.prior, program.panel
    regressors = jnp.concatenate([factors, jnp.ones_like(factors[:, :1])], axis=1)
    size = regressors.shape[1]
    own = jnp.full(size, 1.0 / jnp.asarray(prior.loading_scale) ** 2, factors.dtype)
    own = own.at[-1].set(1.0 / jnp.asarray(prior.intercept_scale) ** 2)
    products = unpack(panel.weights.T @ packed_outer(regressors), size)
    precision = jnp.diag(own) + products / error_variance[:, None, None]
    chol = jnp.linalg.cholesky(precision)
    linear = (panel.values.T @ regressors) / error_variance[:, None]
    return cho_solve((chol, True), linear[..., None])[..., 0], chol


def draw_error_variance(
    program: DynamicFactorProgram,
    factors: Float[Array, "time factors"],
    loadings: Float[Array, "series factors"],
    intercept: Float[Array, " series"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, " series"]:
    """Error variances given factors and loadings: inverse gamma."""
    panel, prior = program.panel, program.prior
    gaps = panel.weights * (panel.values - intercept - factors @ loadings.T)
    shape = prior.error_shape + 0.5 * jnp.sum(panel.weights, axis=0)
    scale = prior.error_scale + 0.5 * jnp.sum(gaps**2, axis=0)
    return scale / jax.random.gamma(key, shape)


def draw_var(
    program: DynamicFactorProgram,
    parameters: Parameters,
    factors: Float[Array, "rows factors"],
    *,
    key: PRNGKeyArray,
) -> tuple[Parameters, Bool[Array, ""]]:
    """VAR and innovation covariance given the path: a conjugate draw that leaves the law of the
    first rows out, accepted with the ratio of their densities."""
    cov_key, mean_key, accept_key = jax.random.split(key, 3)
    lags, size = program.num_lags, program.num_factors
    law = posterior_var(program.prior.var_law(lags, size), factors, lags)
    root = inverse_wishart_root(law.scatter, law.degrees, key=cov_key)
    noise = jax.random.normal(mean_key, law.mean.shape, law.mean.dtype)
    spread = solve_triangular(law.chol, noise, lower=True, trans=1)
    cov = root @ root.T
    proposal = parameters | {
        "innovation_cov": 0.5 * (cov + cov.T),
        "coefficients": law.mean + spread @ root.T,
    }
    first = factors[:lags].reshape(-1)
    gain = first_rows_density(program, proposal, first) - first_rows_density(
        program, parameters, first
    )
    chance = jnp.log(jax.random.uniform(accept_key, (), gain.dtype))
    accepted = chance < gain  # false for NaN: not stationary
    chosen = {name: jnp.where(accepted, proposal[name], parameters[name]) for name in parameters}
    return chosen, accepted


def first_rows_density(
    program: DynamicFactorProgram, parameters: Parameters, first: Float[Array, " states"]
) -> Float[Array, ""]:
    """ln N(first rows; 0, stationary covariance) up to a constant; NaN if there is none."""
    cov = stationary_block_cov(program.transition(parameters), parameters["innovation_cov"])
    chol = jnp.linalg.cholesky(cov)
    scaled = solve_triangular(chol, first, lower=True)
    return -0.5 * jnp.sum(scaled**2) - jnp.sum(jnp.log(jnp.diagonal(chol)))


def inverse_wishart_root(
    scatter: Float[Array, "factors factors"],
    degrees: Float[Array, ""] | float,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "factors factors"]:
    """M with M M' ~ inverse Wishart(scatter, degrees): M = chol(scatter) T'^-1, T of Bartlett."""
    size = scatter.shape[0]
    square_key, normal_key = jax.random.split(key)
    freedom = 0.5 * (degrees - jnp.arange(size, dtype=scatter.dtype))
    diagonal = jnp.sqrt(2.0 * jax.random.gamma(square_key, freedom))
    bartlett = jnp.tril(jax.random.normal(normal_key, scatter.shape, scatter.dtype), -1)
    bartlett = bartlett + jnp.diag(diagonal)
    return solve_triangular(bartlett, jnp.linalg.cholesky(scatter).T, lower=True).T
