"""The answer of every model: the joint law of (horizon, series).

Three laws: Gaussian with a dense covariance, Gaussian with a factor structure (never forms
(horizon x series)^2 unless asked for `cov`), and draws. Each operation answers with a law again.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxfc.typing import Array, Float, PRNGKeyArray

Levels = Float[Array, "..."] | Float[np.ndarray, "..."] | float


class Forecast(eqx.Module):
    """Joint law of the next rows of a panel; row h of an array is horizon h + 1."""

    mean: eqx.AbstractVar[Float[Array, "horizon series"]]

    @property
    @abc.abstractmethod
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        """Joint covariance over horizons and series."""

    @property
    @abc.abstractmethod
    def std(self) -> Float[Array, "horizon series"]:
        """Marginal standard deviations."""

    @abc.abstractmethod
    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        """Marginal quantiles at levels `q` in (0, 1); the axes of `q` lead."""

    @abc.abstractmethod
    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        """Joint draws over horizons and series."""

    @abc.abstractmethod
    def cumulative(self) -> "Forecast":
        """Law of the running sums over the horizon (multi-period returns, levels of changes)."""

    @abc.abstractmethod
    def aggregate(self, weights: Float[Array, "out series"]) -> "Forecast":
        """Law of linear combinations of the series, e.g. portfolios: y -> weights y."""

    @abc.abstractmethod
    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "Forecast":
        """Law of scale * y + shift, series by series (units, means, last levels)."""

    def marginal(self, index: int) -> "Forecast":
        """Law of one series over the horizon (shape (horizon, 1))."""
        num_series = self.mean.shape[1]
        if not -num_series <= index < num_series:
            raise ValueError(f"series index {index} is out of range for {num_series} series.")
        return self.aggregate(jnp.eye(num_series, dtype=self.mean.dtype)[index][None, :])


def gaussian_quantile(mean: Array, std: Array, q: Levels) -> Array:
    """mean + std * Phi^{-1}(q), the axes of `q` leading."""
    levels = jnp.asarray(q, dtype=mean.dtype)
    return mean + std * ndtri(levels).reshape(levels.shape + (1,) * mean.ndim)


class GaussianForecast(Forecast):
    """y ~ N(mean, cov), jointly over (horizon, series)."""

    mean: Float[Array, "horizon series"]
    joint_cov: Float[Array, "horizon series horizon series"]

    def __init__(
        self,
        mean: Float[Array, "horizon series"],
        cov: Float[Array, "horizon series horizon series"],
    ):
        self.mean = mean
        self.joint_cov = cov  # a field cannot take the name of an abstract property

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        return self.joint_cov

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return jnp.sqrt(jnp.einsum("hihi->hi", self.cov))

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        size = self.mean.size
        draws = jax.random.multivariate_normal(
            key, self.mean.reshape(size), self.cov.reshape(size, size), (num_draws,), method="svd"
        )
        return draws.reshape(num_draws, *self.mean.shape)

    def cumulative(self) -> "GaussianForecast":
        cov = jnp.cumsum(jnp.cumsum(self.cov, axis=0), axis=2)
        return GaussianForecast(jnp.cumsum(self.mean, axis=0), cov)

    def aggregate(self, weights: Float[Array, "out series"]) -> "GaussianForecast":
        cov = jnp.einsum("ai,hikj,bj->hakb", weights, self.cov, weights)
        return GaussianForecast(self.mean @ weights.T, cov)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "GaussianForecast":
        cov = scale[:, None, None] * self.cov * scale
        return GaussianForecast(scale * self.mean + shift, cov)


class FactorForecast(Forecast):
    """y_h = mean_h + loadings (f_h - E f_h) + sum_k mixing[h, k] e_k, e_k ~ N(0, S) independent.

    `factor_cov` is the joint covariance of the factors over the horizon; S = `idiosyncratic_cov` is
    (series,) when diagonal, else (series, series). Costs O(horizon^2 K^2 + horizon series K) until
    the dense `cov` is asked for. `mixing` starts as the identity; sums over the horizon change it.
    """

    mean: Float[Array, "horizon series"]
    loadings: Float[Array, "series factors"]
    factor_cov: Float[Array, "horizon factors horizon factors"]
    idiosyncratic_cov: Float[Array, " series"] | Float[Array, "series series"]
    mixing: Float[Array, "horizon periods"]

    @property
    def dense_idiosyncratic_cov(self) -> Float[Array, "series series"]:
        """S as a matrix."""
        cov = self.idiosyncratic_cov
        return jnp.diag(cov) if cov.ndim == 1 else cov

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        common = jnp.einsum("ia,hakb,jb->hikj", self.loadings, self.factor_cov, self.loadings)
        overlap = self.mixing @ self.mixing.T
        return common + overlap[:, None, :, None] * self.dense_idiosyncratic_cov[None, :, None, :]

    @property
    def std(self) -> Float[Array, "horizon series"]:
        same_step = jnp.einsum("hahb->hab", self.factor_cov)
        common = jnp.einsum("ia,hab,ib->hi", self.loadings, same_step, self.loadings)
        cov = self.idiosyncratic_cov
        own = cov if cov.ndim == 1 else jnp.diagonal(cov)
        return jnp.sqrt(common + jnp.sum(self.mixing**2, axis=1)[:, None] * own)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        horizon, num_series = self.mean.shape
        num_factors = self.loadings.shape[1]
        factor_key, own_key = jax.random.split(key)
        size = horizon * num_factors
        factors = jax.random.multivariate_normal(
            factor_key,
            jnp.zeros(size, self.mean.dtype),
            self.factor_cov.reshape(size, size),
            (num_draws,),
            method="svd",
        ).reshape(num_draws, horizon, num_factors)
        own = jax.random.normal(
            own_key, (num_draws, self.mixing.shape[1], num_series), self.mean.dtype
        )
        cov = self.idiosyncratic_cov
        if cov.ndim == 1:
            own = own * jnp.sqrt(cov)
        else:  # symmetric square root: S may be singular (portfolios that repeat each other)
            eigenvalues, vectors = jnp.linalg.eigh(cov)
            own = own @ (vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0.0))).T
        own = jnp.einsum("hk,dki->dhi", self.mixing, own)
        return self.mean + factors @ self.loadings.T + own

    def cumulative(self) -> "FactorForecast":
        return FactorForecast(
            mean=jnp.cumsum(self.mean, axis=0),
            loadings=self.loadings,
            factor_cov=jnp.cumsum(jnp.cumsum(self.factor_cov, axis=0), axis=2),
            idiosyncratic_cov=self.idiosyncratic_cov,
            mixing=jnp.cumsum(self.mixing, axis=0),
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> "FactorForecast":
        cov = self.idiosyncratic_cov
        own = (weights * cov) @ weights.T if cov.ndim == 1 else weights @ cov @ weights.T
        return FactorForecast(
            mean=self.mean @ weights.T,
            loadings=weights @ self.loadings,
            factor_cov=self.factor_cov,
            idiosyncratic_cov=own,
            mixing=self.mixing,
        )

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "FactorForecast":
        cov = self.idiosyncratic_cov
        return FactorForecast(
            mean=scale * self.mean + shift,
            loadings=scale[:, None] * self.loadings,
            factor_cov=self.factor_cov,
            idiosyncratic_cov=scale**2 * cov if cov.ndim == 1 else scale[:, None] * cov * scale,
            mixing=self.mixing,
        )


class SampleForecast(Forecast):
    """The empirical law of equally weighted joint `draws`; covariances divide by draws - 1."""

    draws: Float[Array, "draws horizon series"]

    def __init__(self, draws: Float[Array, "draws horizon series"]):
        self.draws = draws

    def __check_init__(self):
        if self.draws.shape[0] < 2:
            raise ValueError(f"a forecast needs at least 2 draws, got {self.draws.shape[0]}.")

    @property
    def mean(self) -> Float[Array, "horizon series"]:  # pyright: ignore
        return jnp.mean(self.draws, axis=0)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        centred = self.draws - self.mean
        return jnp.einsum("dhi,dkj->hikj", centred, centred) / (self.draws.shape[0] - 1)

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return jnp.std(self.draws, axis=0, ddof=1)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return jnp.quantile(self.draws, jnp.asarray(q, dtype=self.draws.dtype), axis=0)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        picked = jax.random.randint(key, (num_draws,), 0, self.draws.shape[0])
        return self.draws[picked]

    def cumulative(self) -> "SampleForecast":
        return SampleForecast(jnp.cumsum(self.draws, axis=1))

    def aggregate(self, weights: Float[Array, "out series"]) -> "SampleForecast":
        return SampleForecast(self.draws @ weights.T)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "SampleForecast":
        return SampleForecast(scale * self.draws + shift)
