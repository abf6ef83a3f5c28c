"""The law of a vector autoregression ahead: responses to errors of a factor structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, Levels, gaussian_quantile
from jaxfc.hierarchy.levels import product
from jaxfc.typing import Array, Float, PRNGKeyArray


class ErrorLaw(NamedTuple):
    """Errors e = loadings f + sqrt(variances) u, f and u standard normal: cov = L L' + diag(v)."""

    loadings: Float[Array, "errors factors"]
    variances: Float[Array, " errors"]

    def draw(self, shape: tuple[int, ...], *, key: PRNGKeyArray) -> Float[Array, "*shape errors"]:
        """Independent draws along the axes of `shape`."""
        number, size = self.loadings.shape
        common_key, own_key = jax.random.split(key)
        common = jax.random.normal(common_key, (*shape, size), self.variances.dtype)
        own = jax.random.normal(own_key, (*shape, number), self.variances.dtype)
        common = product("...f,ef->...e", common, self.loadings)
        return common + jnp.sqrt(self.variances) * own


class ResponseForecast(Forecast):
    """y_h = mean_h + sum_{s <= h} Psi_{h-s} e_s, e_s ~ N(0, L L' + diag(v)) independent over time.

    `responses` Psi_k (horizon, series, errors), Psi_0 first; `errors` L and v. Sums over the
    horizon, portfolios and changes of units stay in the class: a running sum has the responses
    sum_{j <= k} Psi_j. Costs O(horizon series errors) until `cov` is asked for.

    Source: Lütkepohl (2005), section 2.2.
    """

    mean: Float[Array, "horizon series"]
    responses: Float[Array, "horizon series errors"]
    errors: ErrorLaw

    @property
    def roots(self) -> Float[Array, "horizon series columns"]:
        """Psi_k times a root of the errors' covariance."""
        loadings, variances = self.errors
        common = product("kie,ef->kif", self.responses, loadings)
        return jnp.concatenate([common, self.responses * jnp.sqrt(variances)], axis=2)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        roots = self.roots

        def add(total: Array, period: Array) -> tuple[Array, None]:
            late = delayed(roots, period)
            return total + product("hic,kjc->hikj", late, late), None

        horizon, size, _ = roots.shape
        zero = jnp.zeros((horizon, size, horizon, size), roots.dtype)
        return jax.lax.scan(add, zero, jnp.arange(horizon))[0]

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return jnp.sqrt(jnp.cumsum(jnp.sum(self.roots**2, axis=2), axis=0))

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        horizon = self.mean.shape[0]
        errors = self.errors.draw((horizon, num_draws), key=key)

        def add(total: Array, lag: Array) -> tuple[Array, None]:
            moved = product("ie,hde->hdi", self.responses[lag], errors)
            return total + delayed(moved, lag), None

        zero = jnp.zeros((horizon, num_draws, self.mean.shape[1]), self.mean.dtype)
        total, _ = jax.lax.scan(add, zero, jnp.arange(horizon))
        return self.mean + jnp.swapaxes(total, 0, 1)

    def cumulative(self) -> "ResponseForecast":
        return ResponseForecast(
            jnp.cumsum(self.mean, axis=0), jnp.cumsum(self.responses, axis=0), self.errors
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> "ResponseForecast":
        responses = product("oi,kie->koe", weights, self.responses)
        return ResponseForecast(product("hi,oi->ho", self.mean, weights), responses, self.errors)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "ResponseForecast":
        responses = scale[:, None] * self.responses
        return ResponseForecast(scale * self.mean + shift, responses, self.errors)


def delayed(rows: Float[Array, "horizon *rest"], number: Array) -> Float[Array, "horizon *rest"]:
    """Row h holds rows[h - number], zero before."""
    late = jnp.arange(rows.shape[0]) >= number
    late = late.reshape((-1,) + (1,) * (rows.ndim - 1))
    return jnp.where(late, jnp.roll(rows, number, axis=0), 0.0)
