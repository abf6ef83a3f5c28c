"""A joint Gaussian law of horizon and series made of a few common states and each series' own
noise."""

import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, GaussianForecast, Levels, gaussian_quantile
from jaxfc.typing import Array, Float, PRNGKeyArray


class StateForecast(Forecast):
    """y_hi = mean_hi + design_hi' (z - E z) + e_hi, z ~ N(., state_cov), e_i ~ N(0, noise_cov_i).

    `noise_cov` is the covariance over the horizon of each series' own noise, which may be
    correlated over time; series are independent given z. Never forms (horizon x series)^2 unless
    asked for `cov` or for combinations of series.
    """

    mean: Float[Array, "horizon series"]
    design: Float[Array, "horizon series states"]
    state_cov: Float[Array, "states states"]
    noise_cov: Float[Array, "series horizon horizon"]

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        common = jnp.einsum("hia,ab,kjb->hikj", self.design, self.state_cov, self.design)
        identity = jnp.eye(self.mean.shape[1], dtype=self.mean.dtype)
        own = jnp.einsum("ihk,ij->hikj", self.noise_cov, identity)
        return common + own

    @property
    def std(self) -> Float[Array, "horizon series"]:
        common = jnp.einsum("hia,ab,hib->hi", self.design, self.state_cov, self.design)
        return jnp.sqrt(common + jnp.einsum("ihh->hi", self.noise_cov))

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        state_key, noise_key = jax.random.split(key)
        horizon, num_series = self.mean.shape
        noise = jax.random.normal(noise_key, (num_draws, num_series, horizon), self.mean.dtype)
        states = jax.random.normal(state_key, (num_draws, len(self.state_cov)), self.mean.dtype)
        states = states @ symmetric_root(self.state_cov)
        own = jnp.einsum("ihk,dik->dhi", symmetric_root(self.noise_cov), noise)
        return self.mean + jnp.einsum("hia,da->dhi", self.design, states) + own

    def cumulative(self) -> "StateForecast":
        return StateForecast(
            mean=jnp.cumsum(self.mean, axis=0),
            design=jnp.cumsum(self.design, axis=0),
            state_cov=self.state_cov,
            noise_cov=jnp.cumsum(jnp.cumsum(self.noise_cov, axis=1), axis=2),
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> GaussianForecast:
        design = jnp.einsum("oi,hia->hoa", weights, self.design)
        common = jnp.einsum("hoa,ab,kpb->hokp", design, self.state_cov, design)
        own = jnp.einsum("oi,ihk,pi->hokp", weights, self.noise_cov, weights)
        return GaussianForecast(self.mean @ weights.T, common + own)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "StateForecast":
        return StateForecast(
            mean=scale * self.mean + shift,
            design=scale[:, None] * self.design,
            state_cov=self.state_cov,
            noise_cov=(scale**2)[:, None, None] * self.noise_cov,
        )


def symmetric_root(cov: Float[Array, "*batch size size"]) -> Float[Array, "*batch size size"]:
    """The symmetric square root of positive semi-definite matrices."""
    eigenvalues, vectors = jnp.linalg.eigh(cov)
    roots = jnp.sqrt(jnp.maximum(eigenvalues, 0.0))
    return (vectors * roots[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)
