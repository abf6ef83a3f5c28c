"""Normal approximations of a posterior: their laws, draws with Pareto k, and their gap to a
reference."""

import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from jaxfc.batching import map_in_batches
from jaxfc.bayes.convergence import mean_ess
from jaxfc.bayes.draws import NUM_TOGETHER, PosteriorDraws, map_draws
from jaxfc.bayes.pareto import pareto_k
from jaxfc.bayes.program import Parameters, Program
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Float, Int, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd


class Law(eqx.Module):
    """A law over the unconstrained numbers of a program."""

    @abc.abstractmethod
    def sample(
        self, num_draws: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "draws size"], Float[Array, " draws"]]:
        """Draws and their log densities."""


class LocalLaw(Law):
    """A law that stands for a density around one point."""

    @abc.abstractmethod
    def promise(self, slope: Float[Array, " size"]) -> Float[Array, ""]:
        """slope' cov slope / 2: how far a density of this curvature and `slope` is below its
        maximum."""


class LowRankLaw(LocalLaw):
    """N(mean, diag(s²) + factor factor'), s = exp(log_scale); `factor` has no columns where numbers
    are independent."""

    mean: Float[Array, " size"]
    log_scale: Float[Array, " size"]
    factor: Float[Array, "size rank"]

    def sample(
        self, num_draws: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "draws size"], Float[Array, " draws"]]:
        noise = jax.random.normal(key, (num_draws, self.num_noises), self.mean.dtype)
        draws = self.transformed(noise)
        return draws, self.log_prob(draws)

    @property
    def num_noises(self) -> int:
        """Standard normal numbers of which a draw is made."""
        return sum(self.factor.shape)

    def transformed(self, noise: Float[Array, "draws noises"]) -> Float[Array, "draws size"]:
        """Draws made of standard normal numbers."""
        own, common = jnp.split(noise, [self.mean.size], axis=1)
        return self.mean + jnp.exp(self.log_scale) * own + common @ self.factor.T

    def log_prob(self, positions: Float[Array, "draws size"]) -> Float[Array, " draws"]:
        """Log densities, O(size x rank) each."""
        scaled, chol = self.inner()
        offsets = (positions - self.mean) / jnp.exp(self.log_scale)
        inside = solve_triangular(chol, scaled.T @ offsets.T, lower=True)
        return standard_log_prob(offsets) + 0.5 * jnp.sum(inside**2, axis=0) - self.log_det(chol)

    def entropy(self) -> Float[Array, ""]:
        """-E ln q of the law."""
        constant = 0.5 * self.mean.size * (1 + math.log(2 * math.pi))
        return constant + self.log_det(self.inner()[1])

    def inner(self) -> tuple[Float[Array, "size rank"], Float[Array, "rank rank"]]:
        """B = factor/s, and the Cholesky factor of I + B'B."""
        scaled = self.factor / jnp.exp(self.log_scale)[:, None]
        rank = self.factor.shape[1]
        return scaled, jnp.linalg.cholesky(jnp.eye(rank, dtype=scaled.dtype) + scaled.T @ scaled)

    def promise(self, slope: Float[Array, " size"]) -> Float[Array, ""]:
        own, common = jnp.exp(self.log_scale) * slope, slope @ self.factor
        return 0.5 * (jnp.sum(own**2) + jnp.sum(common**2))

    def log_det(self, chol: Float[Array, "rank rank"]) -> Float[Array, ""]:
        """Half the log-determinant of the covariance."""
        return jnp.sum(self.log_scale) + jnp.sum(jnp.log(jnp.diagonal(chol)))


class PrecisionLaw(LocalLaw):
    """N(mean, (L L')^-1) with a lower triangular `precision_chol` L."""

    mean: Float[Array, " size"]
    precision_chol: Float[Array, "size size"]

    def sample(
        self, num_draws: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "draws size"], Float[Array, " draws"]]:
        noise = jax.random.normal(key, (num_draws, self.mean.size), self.mean.dtype)
        offsets = solve_triangular(self.precision_chol, noise.T, lower=True, trans=1).T
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.precision_chol)))
        return self.mean + offsets, standard_log_prob(noise) + log_det

    def promise(self, slope: Float[Array, " size"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(solve_triangular(self.precision_chol, slope, lower=True) ** 2)


def standard_log_prob(noise: Float[Array, "draws size"]) -> Float[Array, " draws"]:
    """The log density of independent standard normal numbers."""
    return -0.5 * (jnp.sum(noise**2, axis=1) + noise.shape[1] * math.log(2 * math.pi))


def independent_draws(
    program: Program,
    positions: Float[Array, "draws size"],
    log_density: Float[Array, " draws"],
    k: Float[Array, ""],
    max_pareto_k: Float[Array, ""],
    num_steps: Int[Array, ""],
    result: RESULTS,
) -> PosteriorDraws:
    """Independent draws of an approximation as those of a posterior, on one chain.

    `result`, that of the approximation itself, becomes `poor_approximation` if it is successful and
    `k` above `max_pareto_k`, and `diverged` if a density is not finite.
    """
    named = program.flat()[1]
    num_draws = positions.shape[0]
    poor = (k > max_pareto_k) & (result == SUCCESSFUL)
    result = select(poor, cast(RESULTS, RESULTS.poor_approximation), result)
    finite = jnp.all(jnp.isfinite(log_density))
    one_chain = log_density[None]
    return PosteriorDraws(
        parameters=map_draws(lambda x: program.constrain(named(x)), positions[None]),
        log_density=one_chain,
        energy=-one_chain,
        divergent=jnp.zeros((1, num_draws), bool),
        moved=jnp.ones((1, num_draws), bool),
        step_size=jnp.zeros(1, positions.dtype),
        num_leapfrogs=jnp.zeros(1, positions.dtype),
        pareto_k=k,
        num_steps=num_steps,
        result=select(finite, result, cast(RESULTS, RESULTS.diverged)),
    )


def densities(program: Program, positions: Float[Array, "draws size"]) -> Float[Array, " draws"]:
    """The program's log density at every position, in memory-sized batches."""
    named = program.flat()[1]
    return map_in_batches(lambda x: program.log_density(named(x)), positions, NUM_TOGETHER)


def law_draws(
    program: Program,
    law: Law,
    num_draws: int,
    max_pareto_k: Float[Array, ""],
    num_steps: Int[Array, ""],
    result: RESULTS,
    *,
    key: PRNGKeyArray,
) -> PosteriorDraws:
    """Draws of `law`, with the Pareto k of the ratios of the posterior to it."""
    positions, log_law = law.sample(num_draws, key=key)
    log_density = densities(program, positions)
    k = pareto_k(log_density - log_law)
    return independent_draws(program, positions, log_density, k, max_pareto_k, num_steps, result)


class Gap(eqx.Module):
    """How far the draws of an approximation are from those of a reference, by quantity.

    `mean`: difference of means over the reference's sd, with Monte Carlo standard error
    `mean_error`; `log_sd`: log ratio of sds, negative where the approximation is too narrow;
    `wasserstein`: mean distance of equal quantiles over the reference's sd.
    """

    mean: Parameters
    mean_error: Parameters
    log_sd: Parameters
    wasserstein: Parameters

    def table(self) -> "pd.DataFrame":
        """One row for each name: how many numbers, the largest gaps, and the median ones."""
        import pandas as pd

        rows = {}
        for name, mean in self.mean.items():
            size = np.abs(np.asarray(mean)).ravel()
            if size.size == 0:
                continue
            log_sd = np.asarray(self.log_sd[name]).ravel()
            distance = np.asarray(self.wasserstein[name]).ravel()
            rows[name] = {
                "numbers": size.size,
                "max_mean_gap": np.nanmax(size),
                "median_mean_gap": np.nanmedian(size),
                "min_log_sd_ratio": np.nanmin(log_sd),
                "max_log_sd_ratio": np.nanmax(log_sd),
                "max_wasserstein": np.nanmax(distance),
                "median_wasserstein": np.nanmedian(distance),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def gap_to(
    reference: PosteriorDraws,
    approximate: PosteriorDraws,
    quantities: Callable[[Parameters], Parameters],
) -> Gap:
    """How far an approximation is from reference draws, of NUTS say, in what matters.

    Pareto k judges all parameters at once, and in hundreds of dimensions it is above 0.7 for nearly
    every approximation, also for those whose forecasts cannot be told from the exact ones; this
    judges each of `quantities` (of the parameters of one draw, e.g. `program.identified`) alone.
    """
    exact, near = reference.map(quantities), approximate.map(quantities)

    def of_each(function: Callable[[Array, Array], Array]) -> Parameters:
        return {name: function(value, near[name]) for name, value in exact.items()}

    def mean_gap(x: Array, y: Array) -> Array:
        return (jnp.mean(y, (0, 1)) - jnp.mean(x, (0, 1))) / jnp.std(x, (0, 1))

    def mean_error(x: Array, y: Array) -> Array:
        ratio = jnp.std(y, (0, 1)) / jnp.std(x, (0, 1))
        return jnp.sqrt(1 / mean_ess(x) + ratio**2 / mean_ess(y))

    return Gap(
        mean=of_each(mean_gap),
        mean_error=of_each(mean_error),
        log_sd=of_each(lambda x, y: jnp.log(jnp.std(y, (0, 1)) / jnp.std(x, (0, 1)))),
        wasserstein=of_each(lambda x, y: wasserstein(x, y) / jnp.std(x, (0, 1))),
    )


def wasserstein(
    first: Float[Array, "chains draws *shape"], second: Float[Array, "chains2 draws2 *shape"]
) -> Float[Array, "*shape"]:
    """Integral of |F - G| over the line, F and G the distribution functions of either's draws."""
    shape = first.shape[2:]
    x = jnp.sort(first.reshape(first.shape[0] * first.shape[1], -1).T, axis=1)
    y = jnp.sort(second.reshape(second.shape[0] * second.shape[1], -1).T, axis=1)

    def one(pair: tuple[Array, Array]) -> Array:
        x, y = pair
        both = jnp.sort(jnp.concatenate([x, y]))
        counts = [jnp.searchsorted(z, both[:-1], side="right").astype(z.dtype) for z in (x, y)]
        return jnp.sum(jnp.abs(counts[0] / x.size - counts[1] / y.size) * jnp.diff(both))

    return jax.lax.map(one, (x, y), batch_size=max(1, min(NUM_TOGETHER, x.shape[0]))).reshape(shape)
