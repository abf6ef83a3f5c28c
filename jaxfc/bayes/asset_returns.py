"""Returns of many assets on latent factors, with fat tails and a scale of their own: the density.

    r_it = a_i + b_i x_it + sum_k w_ik z_kt + sigma_it u_it,       u_it ~ t(nu_i)
    ln sigma_it = theta_i + d_i v_it + g_i I_it,               ln(nu_i - 2) = m + s e_i

x is the return of the days before the period, v the log of their volatility (both standardised), I
whether the asset reports earnings in the period. Coefficients come from laws of the asset classes.
Returns are in units of each asset's own robust scale, so that every prior is free of units.

Source: the M6 model of Weitzenfeld (2025), International Journal of Forecasting 41(4).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.asset_coordinates import walked_by_scale, walked_by_size
from jaxfc.bayes.coordinates import InCoordinates, Shifted
from jaxfc.bayes.factor_dynamics import FactorDynamics
from jaxfc.bayes.factor_path import FactorPath
from jaxfc.bayes.factor_scales import FactorScale
from jaxfc.bayes.loading_priors import LoadingPrior
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

# The effects by class: name, prior mean and sd of the class mean, prior sd of the spread, degrees
# of freedom of the assets around their class (None: normal). In units of the robust scale.
EFFECTS = {
    "intercept": (0.0, 0.1, 0.1, 10.0),
    "return_effect": (0.0, 0.2, 0.3, 10.0),
    "volatility_effect": (0.05, 0.2, 0.3, 10.0),
    "earnings_effect": (0.0, 1.0, 0.2, None),
}
MEDIAN_DOF, LEAST_DOF = 7.0, 2.0


class AssetRows(eqx.Module):
    """What the density reads, all (time, series): standardised `returns`, the `weights` of their
    cells (zero: missing), and what is known before each row, zero where it is not; and (time,)
    `market_signal`, the mean recent volatility of the assets before each row, of unit size."""

    returns: Float[Array, "time series"]
    weights: Float[Array, "time series"]
    recent_return: Float[Array, "time series"]
    recent_volatility: Float[Array, "time series"]
    earnings: Float[Array, "time series"]
    market_signal: Float[Array, " time"]


class AssetFactorProgram(Program):
    """The M6 model given its data.

    `classes` (series,) numbers the asset classes from zero; `num_classes` of them. `features` names
    the effects that the data can tell.
    """

    rows: AssetRows
    classes: Int[Array, " series"]
    dynamics: FactorDynamics
    loading_prior: LoadingPrior
    factor_scale: FactorScale
    num_classes: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    features: tuple[str, ...] = eqx.field(static=True)

    @property
    def effects(self) -> tuple[str, ...]:
        """Names of the effects in the model."""
        return ("intercept", *self.features)

    def priors(self) -> Priors:
        num_rows, num_series = self.rows.returns.shape
        laws = level_priors(self)
        for name in self.effects:
            laws |= effect_priors(name, self.num_classes, num_series)
        laws |= self.dynamics.priors(self.num_factors) | self.factor_scale.priors(num_rows)
        if not self.num_factors:
            return laws
        laws |= self.loading_prior.priors(num_series, self.num_factors)
        laws["factors"] = lambda parameters: FactorPath(
            self.dynamics, parameters, self.volatility(parameters), self.num_factors
        )
        # The coordinates of what comes last depend on what comes before.
        if "loading_scale" in laws:
            return walked_by_scale(self, laws)
        return walked_by_size(self, laws)

    def volatility(self, parameters: Parameters) -> Float[Array, " time"]:
        """The standard deviations of the factors' shocks by row."""
        return self.factor_scale.volatility(parameters, self.rows.market_signal)

    def effect(self, name: str, parameters: Parameters) -> Float[Array, " series"]:
        """The coefficients of all assets: class mean plus class spread times the asset's own."""
        mean, scale = parameters[f"{name}_mean"], parameters[f"{name}_scale"]
        return mean[self.classes] + scale[self.classes] * parameters[f"{name}_raw"]

    def dof(self, parameters: Parameters) -> Float[Array, " series"]:
        """Degrees of freedom nu_i, above `LEAST_DOF`: forecasts have variances.

        Without that bound an approximate posterior, which does not see that the spread of the
        assets and the place of one of them move together, drew nu = 0.05 and returns of 1e17.
        """
        centre, spread = parameters["log_excess_mean"], parameters["log_excess_scale"]
        return LEAST_DOF + jnp.exp(centre + spread * parameters["dof_raw"])

    def expected(self, parameters: Parameters, rows: AssetRows) -> Float[Array, "time series"]:
        """What the returns are expected to be but for the factors."""
        mean = jnp.broadcast_to(self.effect("intercept", parameters), rows.returns.shape)
        if "return_effect" in self.features:
            mean = mean + self.effect("return_effect", parameters) * rows.recent_return
        return mean

    def log_scale(self, parameters: Parameters, rows: AssetRows) -> Float[Array, "time series"]:
        """ln sigma_it."""
        found = jnp.broadcast_to(parameters["level"], rows.returns.shape)
        if "volatility_effect" in self.features:
            effect = self.effect("volatility_effect", parameters)
            found = found + effect * rows.recent_volatility
        if "earnings_effect" in self.features:
            found = found + self.effect("earnings_effect", parameters) * rows.earnings
        return found

    def common(self, parameters: Parameters) -> Float[Array, "time series"]:
        """sum_k w_ik z_kt."""
        if not self.num_factors:
            return jnp.zeros_like(self.rows.returns)
        return parameters["factors"] @ parameters["loadings"].T

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        rows = self.rows
        gap = rows.returns - self.expected(parameters, rows) - self.common(parameters)
        log_scale = self.log_scale(parameters, rows)
        return student_log_density(gap, log_scale, self.dof(parameters), rows.weights)

    def start(self) -> Parameters:
        num_rows, num_series = self.rows.returns.shape
        seen = self.rows.weights > 0.0
        loadings, factors = principal_start(self.rows.returns, seen, self.num_factors)
        residual = jnp.where(seen, self.rows.returns - factors @ loadings.T, 0.0)
        variance = jnp.sum(residual**2, axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1)
        level = jnp.log(jnp.maximum(jnp.sqrt(variance), 0.05)) - 0.15
        known = jnp.any(seen, axis=0)
        centre = jnp.sum(jnp.where(known, level, 0.0)) / jnp.maximum(jnp.sum(known), 1)
        level = jnp.where(known, level, centre)
        found: Parameters = {}
        for name in self.effects:
            found |= {
                f"{name}_mean": jnp.zeros(self.num_classes),
                f"{name}_scale": jnp.full(self.num_classes, 0.5 * EFFECTS[name][2]),
                f"{name}_raw": jnp.zeros(num_series),
            }
        found |= {
            "level_mean": jnp.full(self.num_classes, centre),
            "level_scale": jnp.full(self.num_classes, 0.2),
            "level_dof": jnp.asarray(10.0),
            "level": level,
            "log_excess_mean": jnp.log(MEDIAN_DOF - LEAST_DOF),
            "log_excess_scale": jnp.asarray(0.3),
            "dof_raw": jnp.zeros(num_series),
        }
        found |= self.dynamics.start(self.num_factors) | self.factor_scale.start(num_rows)
        if self.num_factors:
            found |= self.loading_prior.start(loadings) | {"factors": factors}
        return {name: jnp.asarray(found[name], self.rows.returns.dtype) for name in self.priors()}

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "AssetFactorProgram":
        shape = self.rows.returns.shape
        noise = jax.random.t(key, self.dof(parameters), shape, self.rows.returns.dtype)
        mean = self.expected(parameters, self.rows) + self.common(parameters)
        drawn = mean + jnp.exp(self.log_scale(parameters, self.rows)) * noise
        rows = dataclasses.replace(
            self.rows, returns=jnp.where(self.rows.weights > 0.0, drawn, 0.0)
        )
        return dataclasses.replace(self, rows=rows)

    def identified(self, parameters: Parameters) -> Parameters:
        """What neither rotations nor signs of the factors change.

        Besides the coefficients: `common_variance` (series,), the diagonal of W V W' with V the
        unconditional covariance of the factors; `market_sd`, the standard deviation of the common
        part of an equally weighted portfolio; `last_common` (series,), the common part of the last
        row.
        """
        hidden = {"loadings", "factors", "loading_scale", "loading_spread", "coupling"}
        hidden |= {"log_volatility", "loading_precision_step"}
        hidden |= {f"{name}_raw" for name in self.effects} | {"dof_raw"}
        found = {name: value for name, value in parameters.items() if name not in hidden}
        for name in self.effects:
            found[name] = self.effect(name, parameters)
        found["dof"] = self.dof(parameters)
        if not self.num_factors:
            return found
        loadings = parameters["loadings"]
        cov = self.dynamics.unconditional_cov(parameters, self.num_factors)
        market = jnp.mean(loadings, axis=0)
        return found | {
            "common_variance": jnp.sum(loadings @ cov * loadings, axis=1),
            "market_sd": jnp.sqrt(market @ cov @ market),
            "last_common": loadings @ parameters["factors"][-1],
        }


def effect_priors(name: str, num_classes: int, num_series: int) -> Priors:
    """Class means and spreads of one effect, and each asset's place among its class."""
    centre, centre_sd, spread, dof = EFFECTS[name]
    mean = dist.Normal(centre, centre_sd).expand([num_classes])
    scale = dist.HalfNormal(spread).expand([num_classes])
    own = dist.Normal(0.0, 1.0) if dof is None else dist.StudentT(dof, 0.0, 1.0)
    raw = own.expand([num_series])
    return {
        f"{name}_mean": lambda _: mean,
        f"{name}_scale": lambda _: scale,
        f"{name}_raw": lambda _: raw,
    }


def level_priors(program: AssetFactorProgram) -> Priors:
    """Tails, and log scales theta_i around their class, centred (every asset has many rows).

    The log scale is walked as theta_i + ln(1 + 1/nu_i), which is orthogonal to nu_i: in the
    expected information of a t law, d ln(scale) / d nu = 1 / (nu (nu + 1)) on the ridge.
    """
    classes, num_classes = program.classes, program.num_classes
    mean = dist.Normal(-0.5, 1.0).expand([num_classes])
    scale = dist.HalfNormal(0.3).expand([num_classes])
    # Mean 10 and standard deviation 5.
    level_dof = dist.Gamma(4.0, 0.4)

    def level(parameters: Parameters) -> dist.Distribution:
        centre, spread = parameters["level_mean"][classes], parameters["level_scale"][classes]
        law = dist.StudentT(parameters["level_dof"], centre, spread)
        return InCoordinates(law, Shifted(jnp.log1p(1.0 / program.dof(parameters))))

    raw = dist.Normal(0.0, 1.0).expand([classes.size])
    return {
        "log_excess_mean": lambda _: dist.Normal(jnp.log(MEDIAN_DOF - LEAST_DOF), 0.5),
        "log_excess_scale": lambda _: dist.HalfNormal(0.5),
        "dof_raw": lambda _: raw,
        "level_mean": lambda _: mean,
        "level_scale": lambda _: scale,
        "level_dof": lambda _: level_dof,
        "level": level,
    }


def student_log_density(
    gap: Float[Array, "time series"],
    log_scale: Float[Array, "time series"],
    dof: Float[Array, " series"],
    weights: Float[Array, "time series"],
) -> Float[Array, ""]:
    """sum_it weight_it ln t(gap_it; 0, exp(log_scale_it), dof_i)."""
    half = 0.5 * (dof + 1.0)
    constant = jax.lax.lgamma(half) - jax.lax.lgamma(0.5 * dof) - 0.5 * jnp.log(jnp.pi * dof)
    squares = (gap * jnp.exp(-log_scale)) ** 2
    cells = constant - log_scale - half * jnp.log1p(squares / dof)
    return jnp.sum(weights * cells)


def principal_start(
    returns: Float[Array, "time series"], seen: Bool[Array, "time series"], num_factors: int
) -> tuple[Float[Array, "series factors"], Float[Array, "time factors"]]:
    """Principal components of the returns with missing cells at zero, factors of unit variance,
    a little shrunk."""
    filled = jnp.where(seen, returns, 0.0)
    left, sizes, right = jnp.linalg.svd(filled, full_matrices=False)
    root = jnp.sqrt(jnp.asarray(returns.shape[0], returns.dtype))
    found = min(num_factors, sizes.size)
    loadings = 0.85 * (right[:found] * sizes[:found, None] / root).T
    factors = root * left[:, :found]
    lacking = num_factors - found
    loadings = jnp.pad(loadings, ((0, 0), (0, lacking)))
    return loadings, jnp.pad(factors, ((0, 0), (0, lacking)))
