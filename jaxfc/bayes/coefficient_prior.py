"""Priors and data of regressions whose coefficients have a market, sectors and assets."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist

from jaxfc.bayes.coefficient_algebra import LevelScales, RegressionEvidence
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Bool, Float, Int, as_scalar


class CoefficientData(eqx.Module):
    """Rows r_it = x_t' b_i + e_it in units of the model.

    `values` (time, series), zero where not `observed`; `columns` x_t (time, coefficients), the
    constant first; `members` (series,) the sector of each asset, from 0 to `num_sectors` - 1.
    """

    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    columns: Float[Array, "time coefficients"]
    members: Int[Array, " series"]
    num_sectors: int = eqx.field(static=True)

    @property
    def num_series(self) -> int:
        return self.values.shape[1]

    @property
    def num_coefficients(self) -> int:
        return self.columns.shape[1]


class CoefficientPrior(eqx.Module):
    """What is known beforehand, in units of the returns' common scale and the regressors' scales.

        market m ~ N(0, diag(market^2)),   spreads ~ HN(spread) coefficient by coefficient,
        correlations between the coefficients of a level ~ LKJ(concentration),
        ln noise_i ~ N(level, spread_e^2),   level ~ N(0, 1),   spread_e ~ HN(noise_spread)

    `market_alpha`, `spread_alpha` are those of intercepts, `market_beta`, `spread_beta` those of
    slopes; the defaults say that an alpha is small beside the standard deviation of a row.

    **Raises:** `ValueError` for a number that is not positive.

    Source: half-normal scales: Gelman (2006); correlations: Lewandowski, Kurowicka and Joe (2009).
    """

    market_alpha: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.2)
    market_beta: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0)
    spread_alpha: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.1)
    spread_beta: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.5)
    concentration: Float[Array, ""] = eqx.field(converter=as_scalar, default=2.0)
    noise_spread: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.5)

    def __check_init__(self):
        check_positive(self, "market_alpha", "market_beta", "spread_alpha", "spread_beta")
        check_positive(self, "concentration", "noise_spread")

    def market_scale(self, num_coefficients: int) -> Float[Array, " coefficients"]:
        """Prior standard deviations of the market's coefficients."""
        return by_coefficient(self.market_alpha, self.market_beta, num_coefficients)

    def scale_priors(self, num_coefficients: int) -> Priors:
        """Laws of the spreads and correlations of sectors about the market (`between`) and of
        assets about their sector (`within`)."""
        spread = by_coefficient(self.spread_alpha, self.spread_beta, num_coefficients)
        priors: Priors = {}
        for level in ("between", "within"):
            priors[f"{level}_scale"] = lambda _: dist.HalfNormal(spread)
            if num_coefficients > 1:
                priors[f"{level}_corr"] = lambda _: dist.LKJCholesky(
                    num_coefficients, self.concentration
                )
        return priors

    def noise_priors(self, num_series: int) -> Priors:
        """Laws of the errors' standard deviations."""
        return {
            "noise_level": lambda _: dist.Normal(0.0, 1.0),
            "noise_spread": lambda _: dist.HalfNormal(self.noise_spread),
            "log_noise": lambda p: dist.Normal(p["noise_level"], p["noise_spread"]).expand(
                (num_series,)
            ),
        }

    def scales(self, parameters: Parameters, num_coefficients: int) -> LevelScales:
        """The law of the levels at `parameters`."""
        market = self.market_scale(num_coefficients)
        return LevelScales(
            jnp.zeros_like(market),
            jnp.diag(market),
            level_chol(parameters, "between"),
            level_chol(parameters, "within"),
        )

    def start(self, evidence: RegressionEvidence) -> Parameters:
        """Spreads at a half of their prior scale, errors as least squares leave them."""
        num_coefficients = evidence.targets.shape[1]
        spread = by_coefficient(self.spread_alpha, self.spread_beta, num_coefficients)
        noise = least_squares_noise(evidence)
        found: Parameters = {}
        for level in ("between", "within"):
            found[f"{level}_scale"] = 0.5 * spread
            if num_coefficients > 1:
                found[f"{level}_corr"] = jnp.eye(num_coefficients, dtype=spread.dtype)
        log_noise = jnp.log(noise)
        return {
            **found,
            "noise_level": jnp.mean(log_noise),
            "noise_spread": 0.5 * self.noise_spread,
            "log_noise": log_noise,
        }


class CoefficientScales(NamedTuple):
    """Units of the data: the returns' common scale, one for each column (1 for the constant)."""

    values: Float[Array, ""]
    columns: Float[Array, " coefficients"]

    @property
    def coefficients(self) -> Float[Array, " coefficients"]:
        """What coefficients of the model are to be multiplied by."""
        return self.values / self.columns


def level_chol(parameters: Parameters, level: str) -> Float[Array, "coefficients coefficients"]:
    """diag(scale) times the Cholesky factor of the correlations of a level."""
    scale = parameters[f"{level}_scale"]
    corr = parameters.get(f"{level}_corr")
    return jnp.diag(scale) if corr is None else scale[:, None] * corr


def correlations(parameters: Parameters) -> Parameters:
    """The parameters with the correlations below the diagonal in place of Cholesky factors."""
    found = dict(parameters)
    for name in [name for name in parameters if name.endswith("_corr")]:
        chol = found[name]
        below = jnp.tril_indices(chol.shape[-1], -1)
        found[name] = (chol @ jnp.swapaxes(chol, -1, -2))[..., below[0], below[1]]
    return found


def by_coefficient(
    alpha: Float[Array, ""], beta: Float[Array, ""], num_coefficients: int
) -> Float[Array, " coefficients"]:
    """(alpha, beta, ..., beta)."""
    return jnp.where(jnp.arange(num_coefficients) == 0, alpha, beta)


def least_squares_noise(evidence: RegressionEvidence) -> Float[Array, " series"]:
    """Standard deviations of the residuals of own regressions, of the median where there are few
    rows."""
    num_coefficients = evidence.targets.shape[1]
    free = evidence.rows - num_coefficients
    enough = free >= num_coefficients
    own = jnp.sqrt(evidence.squares / jnp.maximum(free, 1.0))
    median = jnp.nanmedian(jnp.where(enough & (own > 0.0), own, jnp.nan))
    median = jnp.where(jnp.isnan(median), 1.0, median)
    return jnp.where(enough & (own > 0.0), own, median)
