"""Laws that a network answers with: mixtures of normal laws, and Student's law."""

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, ndtr

from jaxfc.forecast import Forecast, Levels
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.semidefinite import semidefinite_chol

NUM_HALVINGS = 80
# A quantile is looked for within so many standard deviations of the means.
REACH = 1e4


class MixtureForecast(Forecast):
    """y | k ~ law(mean_k, scatter_k) jointly over (horizon, series), P(k) = `weights`.

    The law is normal, or multivariate t with `degrees` > 2 degrees of freedom, whose covariance is
    degrees / (degrees - 2) times the scatter. The component k, and the scale of the t, are common
    to all steps and series, so that sums, portfolios and changes of units stay in the class and
    every quantile is exact.
    """

    mean: Float[Array, "horizon series"]
    weights: Float[Array, " components"]
    means: Float[Array, "components horizon series"]
    scatters: Float[Array, "components horizon series horizon series"]
    degrees: Float[Array, ""] | None

    def __init__(
        self,
        weights: Float[Array, " components"],
        means: Float[Array, "components horizon series"],
        scatters: Float[Array, "components horizon series horizon series"],
        degrees: Float[Array, ""] | None = None,
    ):
        self.weights, self.means, self.scatters = weights, means, scatters
        self.degrees = degrees
        self.mean = jnp.einsum("k,khi->hi", weights, means)

    @property
    def cov_factor(self) -> Float[Array, ""]:
        """Covariance over scatter."""
        if self.degrees is None:
            return jnp.ones((), self.mean.dtype)
        return self.degrees / (self.degrees - 2.0)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        centred = self.means - self.mean
        between = jnp.einsum("k,khi,kgj->higj", self.weights, centred, centred)
        return between + self.cov_factor * jnp.einsum("k,khigj->higj", self.weights, self.scatters)

    @property
    def std(self) -> Float[Array, "horizon series"]:
        between = jnp.einsum("k,khi->hi", self.weights, (self.means - self.mean) ** 2)
        own = jnp.einsum("k,khihi->hi", self.weights, self.scatters)
        return jnp.sqrt(between + self.cov_factor * own)

    def cdf(self, points: Float[Array, "*levels horizon series"]) -> Float[Array, "..."]:
        """Marginal P(y <= points)."""
        scales = jnp.sqrt(jnp.einsum("khihi->khi", self.scatters))
        units = (points[..., None, :, :] - self.means) / scales
        if self.degrees is None:
            below = ndtr(units)
        else:
            half = jnp.asarray(0.5, units.dtype)
            square = units**2
            tail = 0.5 * betainc(0.5 * self.degrees, half, self.degrees / (self.degrees + square))
            below = jnp.where(units < 0, tail, 1.0 - tail)
        return jnp.einsum("k,...khi->...hi", self.weights, below)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        levels = jnp.asarray(q, dtype=self.mean.dtype)
        levels = levels.reshape((*levels.shape, 1, 1))
        scales = jnp.sqrt(self.cov_factor * jnp.einsum("khihi->khi", self.scatters))
        shape = jnp.broadcast_shapes(levels.shape, self.mean.shape)
        low = jnp.broadcast_to(jnp.min(self.means - REACH * scales, axis=0), shape)
        high = jnp.broadcast_to(jnp.max(self.means + REACH * scales, axis=0), shape)

        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (bounds[0] + bounds[1])
            below = self.cdf(middle) < levels
            return jnp.where(below, middle, bounds[0]), jnp.where(below, bounds[1], middle)

        low, high = jax.lax.fori_loop(0, NUM_HALVINGS, halve, (low, high))
        return 0.5 * (low + high)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        which_key, scale_key, key = jax.random.split(key, 3)
        num_components, *shape = self.means.shape
        size = self.mean.size
        which = jax.random.choice(which_key, num_components, (num_draws,), p=self.weights)
        factors = jax.vmap(semidefinite_chol)(self.scatters.reshape(num_components, size, size))
        noise = jax.random.normal(key, (num_draws, size), self.mean.dtype)
        if self.degrees is not None:
            half = 0.5 * self.degrees
            mass = jax.random.gamma(scale_key, half, (num_draws, 1), self.mean.dtype) / half
            noise = noise / jnp.sqrt(mass)
        chosen = jax.nn.one_hot(which, num_components, dtype=noise.dtype)
        rows = jnp.einsum("dk,kab,db->da", chosen, factors, noise).reshape(num_draws, *shape)
        return rows + jnp.einsum("dk,khi->dhi", chosen, self.means)

    def cumulative(self) -> "MixtureForecast":
        scatters = jnp.cumsum(jnp.cumsum(self.scatters, axis=1), axis=3)
        return self.changed(jnp.cumsum(self.means, axis=1), scatters)

    def aggregate(self, weights: Float[Array, "out series"]) -> "MixtureForecast":
        scatters = jnp.einsum("ai,khigj,bj->khagb", weights, self.scatters, weights)
        return self.changed(self.means @ weights.T, scatters)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "MixtureForecast":
        scatters = scale[:, None, None] * self.scatters * scale
        return self.changed(scale * self.means + shift, scatters)

    def changed(self, means: Array, scatters: Array) -> "MixtureForecast":
        """The same mixture of other components."""
        return MixtureForecast(self.weights, means, scatters, self.degrees)


def stratified_uniforms(
    num_draws: int, shape: tuple[int, ...], *, key: PRNGKeyArray
) -> Float[Array, "draws *shape"]:
    """Uniform draws, independent over entries, of which each entry has one in every interval of
    length 1 / `num_draws` (Latin hypercube, McKay et al. 1979): marginal quantiles are then exact
    to that length."""
    order_key, key = jax.random.split(key)
    places = jnp.broadcast_to(
        jnp.arange(num_draws).reshape(-1, *([1] * len(shape))), (num_draws, *shape)
    )
    places = jax.random.permutation(order_key, places, axis=0, independent=True)
    within = jax.random.uniform(key, places.shape, jnp.result_type(float))
    return (places + within) / num_draws
