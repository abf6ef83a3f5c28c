"""The law of returns ahead as moving averages of innovations with covariances of their own."""

import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, Levels, gaussian_quantile
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc.volatility.horizon import (
    Responses,
    Varma,
    by_period,
    impulse_responses,
    joint_cov,
    mean_path,
    own_covs,
    product,
    summed_over_periods,
)
from jaxfc_kernels.semidefinite import semidefinite_chol


class VolatilityForecast(Forecast):
    """y_i = mean_i + sum_{s <= i} Psi_{i-s} eps_s, E eps_s eps_s' = H_s, uncorrelated over time.

    `innovation_covs` are H_s = E_t[eps_{t+s} eps_{t+s}'] (squared units of y). `responses` are the
    Psi_k: (horizon,) for multiples of the identity, (horizon, series) for diagonals (each series
    with a mean of its own), (horizon, series, innovations) for matrices. Left out, y_i = mean_i +
    eps_i: a zero or constant mean. Running sums, portfolios and changes of units stay in the class:
    a sum has the responses C_k = sum_{j <= k} Psi_j.

    Means and covariances are exact given E_t[H_s], whatever the law of the innovations. Quantiles
    and draws are those of a normal law, which is not theirs: over more than one step neither a
    return nor a sum is normal or t even if each innovation is; simulate the model for those.

    Nothing but `cov` forms (horizon x series)^2. Source: Hlouskova, Schmidheiny and Wagner (2009).

    **Raises:** `ValueError` for responses without matrices if H_s is not of the series.
    """

    mean: Float[Array, "horizon series"]
    innovation_covs: Float[Array, "horizon innovations innovations"]
    responses: Responses

    def __init__(
        self,
        mean: Float[Array, "horizon series"],
        innovation_covs: Float[Array, "horizon innovations innovations"],
        responses: Responses | None = None,
    ):
        self.mean = mean
        self.innovation_covs = innovation_covs
        if responses is None:
            responses = jnp.zeros(mean.shape[0], innovation_covs.dtype).at[0].set(1.0)
        self.responses = responses

    def __check_init__(self):
        num_series, num_innovations = self.mean.shape[1], self.innovation_covs.shape[1]
        if self.responses.ndim < 3 and num_innovations != num_series:
            raise ValueError(
                f"there are {num_innovations} innovations for {num_series} series: pass responses "
                f"as matrices (horizon, series, innovations), got {self.responses.shape}."
            )

    @property
    def horizon_cov(self) -> Float[Array, "horizon series series"]:
        """Covariance of the series at each step; of a `cumulative()`, of sums up to that step."""
        return own_covs(self.responses, self.innovation_covs)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        return joint_cov(self.responses, self.innovation_covs)

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return jnp.sqrt(jnp.diagonal(self.horizon_cov, axis1=1, axis2=2))

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        """Quantiles of a normal law with the mean and variance of each entry.

        Only these two moments are exact (given E_t[H]): the law of a sum is neither normal nor t
        even if innovations are; quantiles of the model are those of simulated paths.
        """
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        """Draws of the normal law with these moments: innovations by H_s, then their responses."""
        horizon, size, _ = self.innovation_covs.shape
        noise = jax.random.normal(key, (horizon, num_draws, size), self.mean.dtype)
        chols = jax.vmap(semidefinite_chol)(self.innovation_covs)
        innovations = product("sab,sdb->sda", chols, noise)
        if self.responses.ndim < 3:
            terms = {1: "is,sda->dia", 2: "isa,sda->dia"}[self.responses.ndim]
            return self.mean + product(terms, by_period(self.responses), innovations)

        def term(lagged: Array, innovation: Array) -> Array:
            return product("iac,dc->dia", lagged, innovation)

        return self.mean + summed_over_periods(self.responses, term, innovations)

    def cumulative(self) -> "VolatilityForecast":
        return VolatilityForecast(
            jnp.cumsum(self.mean, axis=0),
            self.innovation_covs,
            jnp.cumsum(self.responses, axis=0),
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> "VolatilityForecast":
        mean = product("ha,oa->ho", self.mean, weights)
        covs, responses = self.innovation_covs, self.responses
        if responses.ndim == 1:  # combine the innovations: they stay as many as the series
            covs = product("oa,sab,pb->sop", weights, covs, weights)
        elif responses.ndim == 2:
            responses = weights * responses[:, None, :]
        else:
            responses = product("oa,kab->kob", weights, responses)
        return VolatilityForecast(mean, covs, responses)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "VolatilityForecast":
        mean, covs, responses = scale * self.mean + shift, self.innovation_covs, self.responses
        if responses.ndim == 1:
            covs = scale[:, None] * covs * scale
        else:
            responses = scale.reshape((-1,) + (1,) * (responses.ndim - 2)) * responses
        return VolatilityForecast(mean, covs, responses)


def varma_forecast(
    varma: Varma,
    last_values: Float[Array, "rows series"],
    last_residuals: Float[Array, "residual_rows series"],
    innovation_covs: Float[Array, "horizon series series"],
    *,
    exogenous: Float[Array, "horizon series"] | None = None,
) -> VolatilityForecast:
    """The law of r_{t+1}, ..., r_{t+h} under a VARMA mean and forecast covariances H_{t+1..t+h}.

    Arguments and what is raised as in `mean_path`; h is the number of `innovation_covs`.
    """
    horizon = innovation_covs.shape[0]
    mean = mean_path(varma, last_values, last_residuals, horizon, exogenous=exogenous)
    is_dynamic = varma.ar.shape[0] + varma.ma.shape[0] > 0
    responses = impulse_responses(varma, horizon) if is_dynamic else None
    return VolatilityForecast(mean, innovation_covs, responses)


def simple_moments(
    mean: Float[Array, "*batch series"], cov: Float[Array, "*batch series series"]
) -> tuple[Float[Array, "*batch series"], Float[Array, "*batch series series"]]:
    """Mean and covariance of simple returns e^x - 1 of log returns x ~ N(m, V) over any period.

        E[e^{x_i} - 1] = g_i - 1,  g_i = exp(m_i + V_ii / 2),   Cov_ij = g_i g_j (exp(V_ij) - 1)

    For h-period returns pass `mean` and `horizon_cov` of `forecast.cumulative()`, for all horizons
    at once. Exact for normal laws only, which sums of returns with changing covariances are not.

    Source: Aitchison and Brown (1957).
    """
    growth = mean + 0.5 * jnp.diagonal(cov, axis1=-2, axis2=-1)
    grown = jnp.exp(growth)
    return jnp.expm1(growth), grown[..., :, None] * jnp.expm1(cov) * grown[..., None, :]
