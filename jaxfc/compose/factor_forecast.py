"""The law of many returns ahead: factors and errors, each with covariances of their own."""

import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, Levels, gaussian_quantile
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc.volatility import VolatilityForecast
from jaxfc.volatility.horizon import product, symmetric


class FactorVolatilityForecast(Forecast):
    """y = `loadings` f + e: factors and errors independent of each other, each with changing
    covariances (`VolatilityForecast`).

    Sums over the horizon, portfolios and units stay in the class. Quantiles and draws are those of
    a normal law with these moments, as there. O(horizon series^2) but for `cov`.
    """

    loadings: Float[Array, "series factors"]
    factors: VolatilityForecast
    own: VolatilityForecast

    def __init__(
        self,
        loadings: Float[Array, "series factors"],
        factors: VolatilityForecast,
        own: VolatilityForecast,
    ):
        self.loadings = loadings
        self.factors = factors
        self.own = own

    @property
    def mean(self) -> Float[Array, "horizon series"]:  # pyright: ignore
        return self.factors.mean @ self.loadings.T + self.own.mean

    @property
    def horizon_cov(self) -> Float[Array, "horizon series series"]:
        """Covariance of the series at each step (of the sums to each step after `cumulative`)."""
        covs = self.factors.horizon_cov
        common = product("ia,hab,jb->hij", self.loadings, covs, self.loadings)
        return symmetric(common) + self.own.horizon_cov

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        covs = self.factors.cov
        return product("ia,hakb,jb->hikj", self.loadings, covs, self.loadings) + self.own.cov

    @property
    def std(self) -> Float[Array, "horizon series"]:
        common = product("ia,hab,ib->hi", self.loadings, self.factors.horizon_cov, self.loadings)
        return jnp.sqrt(common + self.own.std**2)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        factor_key, own_key = jax.random.split(key)
        common = self.factors.sample(num_draws, key=factor_key) @ self.loadings.T
        return common + self.own.sample(num_draws, key=own_key)

    def cumulative(self) -> "FactorVolatilityForecast":
        factors, own = self.factors.cumulative(), self.own.cumulative()
        return FactorVolatilityForecast(self.loadings, factors, own)

    def aggregate(self, weights: Float[Array, "out series"]) -> "FactorVolatilityForecast":
        loadings = product("oi,ia->oa", weights, self.loadings)
        return FactorVolatilityForecast(loadings, self.factors, self.own.aggregate(weights))

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "FactorVolatilityForecast":
        own = self.own.affine(scale, shift)
        return FactorVolatilityForecast(scale[:, None] * self.loadings, self.factors, own)
