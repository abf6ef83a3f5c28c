"""Instrumented PCA as a density: loadings by characteristics, with fat tails and, where wanted,
departures of each asset from what its characteristics say.

    r_it = z_it' gamma_a + beta_it' f_t + sigma_i u_it,    beta_it = Gamma' z_it + eta_i
    f_t - premium = z_t,  z an autoregression with unit innovations,    u_it ~ t(nu) or N(0, 1)

Returns are in units of their common robust scale and characteristics of their root mean square, so
that every prior is free of units.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.batching import map_in_batches
from jaxfc.bayes.asset_returns import MEDIAN_DOF, student_log_density
from jaxfc.bayes.coordinates import BesideFactors, InCoordinates, root_of_path
from jaxfc.bayes.draws import NUM_TOGETHER, PosteriorDraws
from jaxfc.bayes.factor_dynamics import (
    FactorDynamics,
    FirstOrder,
    VectorFirstOrder,
)
from jaxfc.bayes.factor_path import FactorPath
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares
from jaxfc.bayes.instrumented_portfolios import einsum, managed_portfolios
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.constants import LOG_2PI

# The median absolute deviation of a normal law, in standard deviations.
NORMAL_MAD = 0.6744897501960817


class InstrumentedData(eqx.Module):
    """Returns and the characteristics known before them, in units of their scales, and the weights
    of the cells: zero where the return or a characteristic is missing."""

    returns: Float[Array, "time series"]
    characteristics: Float[Array, "time series characteristics"]
    weights: Float[Array, "time series"]
    return_scale: Float[Array, ""]
    characteristic_scale: Float[Array, " characteristics"]

    @property
    def units(self) -> Float[Array, " characteristics"]:
        """What one standard unit of a characteristic's return is in units of the data."""
        return self.return_scale / self.characteristic_scale


def instrumented_data(
    returns: Float[Array, "time series"],
    characteristics: Float[Array, "time series characteristics"],
    usable: Bool[Array, "time series"],
    row_weights: Float[Array, " time"] | None = None,
) -> InstrumentedData:
    """The data of `InstrumentedProgram`; `row_weights` in [0, 1] discount the past (all one, if
    `None`). What stands in cells that are not usable is never read."""
    paid = jnp.where(usable, returns, 0.0)
    held = jnp.where(usable[:, :, None], characteristics, 0.0)
    spread = jnp.nanmedian(jnp.where(usable, jnp.abs(paid), jnp.nan)) / NORMAL_MAD
    sizes = jnp.sqrt(jnp.sum(held**2, axis=(0, 1)) / jnp.sum(usable))
    weights = usable.astype(paid.dtype)
    if row_weights is not None:
        weights = weights * row_weights[:, None]
    return InstrumentedData(paid / spread, held / sizes, weights, spread, sizes)


class InstrumentedProgram(Program):
    """Bayesian instrumented PCA given its data.

        Gamma_lk ~ N(0, tau_k^2), tau_k ~ HN(1);    gamma_a ~ N(0, s_a^2), s_a ~ HN(0.2)
        premium_k ~ N(0, premium_scale^2);          eta_ik = s_eta e_ik, s_eta ~ HN(0.3)
        ln sigma_i ~ N(level_mean, level_scale^2);  ln nu ~ N(ln 7, 0.5^2)

    (HN half-normal.) `dynamics` is `FirstOrder()` or `VectorFirstOrder()`; `intercept` adds
    gamma_a, `departures` the eta_i, `fat_tails` the t law. All laws but that of tau (and, to third
    order in its coefficients, a VAR's) are the same for every rotation of the factors, so only
    what no rotation changes is identified.

    **Raises:** `ValueError` for more factors than characteristics and other dynamics.

    Source: Kelly, Pruitt and Su (2017) for the loadings; the priors are this package's.
    """

    data: InstrumentedData
    num_factors: int = eqx.field(static=True)
    dynamics: FactorDynamics = eqx.field(default_factory=FirstOrder, kw_only=True)
    intercept: bool = eqx.field(static=True, default=False, kw_only=True)
    departures: bool = eqx.field(static=True, default=False, kw_only=True)
    fat_tails: bool = eqx.field(static=True, default=True, kw_only=True)
    premium_scale: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.5, kw_only=True)

    def __check_init__(self):
        check_counts(num_factors=self.num_factors)
        check_positive(self, "premium_scale")
        size = self.data.characteristic_scale.shape[-1]
        if self.num_factors > size:
            raise ValueError(
                f"{self.num_factors} factors cannot be told apart by {size} characteristics; ask "
                "for fewer factors or add characteristics."
            )
        if self.dynamics.num_lags != 1:
            raise ValueError(
                f"dynamics {type(self.dynamics).__name__} has {self.dynamics.num_lags} lags; use "
                "FirstOrder() or VectorFirstOrder()."
            )

    def priors(self) -> Priors:
        num_rows, num_series, size = self.data.characteristics.shape
        steady = jnp.ones(num_rows)

        def path(parameters: Parameters) -> dist.Distribution:
            law = FactorPath(self.dynamics, parameters, steady, self.num_factors)
            return AroundPremium(law, parameters["premium"])

        def gamma(parameters: Parameters) -> dist.Distribution:
            law = dist.Normal(0.0, parameters["gamma_scale"]).expand([size, self.num_factors])
            return InCoordinates(law, BesideFactors(root_of_path(parameters["factors"])))

        wide = dist.Normal(0.0, self.premium_scale).expand([self.num_factors])
        scales = dist.HalfNormal(1.0).expand([self.num_factors])
        laws: Priors = self.dynamics.priors(self.num_factors) | {
            "premium": lambda _: wide,
            "factors": path,
            "gamma_scale": lambda _: scales,
            "gamma": gamma,
        }
        if self.intercept:
            laws["alpha_scale"] = lambda _: dist.HalfNormal(0.2)
            laws["alpha"] = lambda p: dist.Normal(0.0, p["alpha_scale"]).expand([size])
        if self.departures:
            raw = dist.Normal(0.0, 1.0).expand([num_series, self.num_factors])
            laws["departure_scale"] = lambda _: dist.HalfNormal(0.3)
            laws["departure_raw"] = lambda _: raw
        return laws | self.error_priors(num_series)

    def error_priors(self, num_series: int) -> Priors:
        """The laws of scales and tails of the errors."""
        laws: Priors = {
            "level_mean": lambda _: dist.Normal(-0.5, 1.0),
            "level_scale": lambda _: dist.HalfNormal(0.5),
            "level": lambda p: dist.Normal(p["level_mean"], p["level_scale"]).expand([num_series]),
        }
        if self.fat_tails:
            laws["log_dof"] = lambda _: dist.Normal(jnp.log(MEDIAN_DOF), 0.5)
        return laws

    def earned(
        self, parameters: Parameters, factors: Float[Array, "time factors"]
    ) -> Float[Array, "time characteristics"]:
        """c_t = Gamma f_t + gamma_a: what a standard unit of each characteristic earns."""
        found = factors @ parameters["gamma"].T
        return found + parameters["alpha"] if self.intercept else found

    def own(
        self, parameters: Parameters, factors: Float[Array, "time factors"]
    ) -> Float[Array, "time series"] | float:
        """eta_i' f_t."""
        if not self.departures:
            return 0.0
        return factors @ (parameters["departure_scale"] * parameters["departure_raw"]).T

    def expected(self, parameters: Parameters) -> Float[Array, "time series"]:
        """What the returns are expected to be given the factors."""
        factors = parameters["factors"]
        earned = self.earned(parameters, factors)
        common = einsum("tnl,tl->tn", self.data.characteristics, earned)
        return common + self.own(parameters, factors)

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        gap = self.data.returns - self.expected(parameters)
        level, weights = parameters["level"], self.data.weights
        log_scale = jnp.broadcast_to(level, gap.shape)
        if self.fat_tails:
            dof = jnp.broadcast_to(jnp.exp(parameters["log_dof"]), level.shape)
            return student_log_density(gap, log_scale, dof, weights)
        squares = (gap * jnp.exp(-log_scale)) ** 2
        return jnp.sum(weights * (-0.5 * (squares + LOG_2PI) - log_scale))

    def noise(
        self, parameters: Parameters, shape: tuple[int, ...], *, key: PRNGKeyArray
    ) -> Float[Array, "time series"]:
        """Errors of these parameters, in standard units."""
        dtype = self.data.returns.dtype
        scale = jnp.exp(parameters["level"])
        if self.fat_tails:
            return scale * jax.random.t(key, jnp.exp(parameters["log_dof"]), shape, dtype)
        return scale * jax.random.normal(key, shape, dtype)

    def start(self) -> Parameters:
        """From least squares, with factors in units of their standard deviations."""
        data = self.data
        seen = data.weights > 0.0
        portfolios = managed_portfolios(data.returns, data.characteristics, seen)
        method = AlternatingLeastSquares(self.num_factors, tolerance=1e-4, max_steps=200)
        found = method.solve(portfolios)
        count = jnp.maximum(jnp.sum(found.used), 1)
        mean = jnp.sum(found.factors, axis=0) / count
        factors = jnp.where(found.used[:, None], found.factors, mean)
        spread = jnp.sqrt(jnp.sum((factors - mean) ** 2, axis=0) / count) + 1e-3
        gamma = found.coefficients.gamma * spread
        fitted = einsum("tnl,tl->tn", data.characteristics, found.characteristic_returns)
        squares = jnp.where(seen, (data.returns - fitted) ** 2, 0.0)
        variance = jnp.sum(squares, axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1)
        level = jnp.log(jnp.maximum(jnp.sqrt(variance), 0.05))
        values: Parameters = self.dynamics.start(self.num_factors) | {
            "premium": mean / spread,
            "factors": factors / spread,
            "gamma_scale": jnp.sqrt(jnp.mean(gamma**2, axis=0)) + 0.05,
            "gamma": gamma,
            "alpha_scale": jnp.asarray(0.1),
            "alpha": jnp.zeros(len(gamma)),
            "departure_scale": jnp.asarray(0.1),
            "departure_raw": jnp.zeros((len(level), self.num_factors)),
            "level_mean": jnp.mean(level),
            "level_scale": jnp.asarray(0.3),
            "level": level,
            "log_dof": jnp.log(MEDIAN_DOF),
        }
        return {name: jnp.asarray(values[name], data.returns.dtype) for name in self.priors()}

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "InstrumentedProgram":
        shape = self.data.returns.shape
        drawn = self.expected(parameters) + self.noise(parameters, shape, key=key)
        returns = jnp.where(self.data.weights > 0.0, drawn, 0.0)
        return dataclasses.replace(self, data=dataclasses.replace(self.data, returns=returns))

    def identified(self, parameters: Parameters) -> Parameters:
        """What neither rotations nor signs of the factors change.

        `gamma_product` is Gamma Gamma' (characteristics, characteristics), `premium_returns` Gamma
        premium + gamma_a, `last_earned` c_T of the last row, in units of the data; `persistence`
        the trace of the factors' transition; and the parameters that no rotation touches.
        """
        units = self.data.units
        kept = ("rho", "alpha_scale", "departure_scale", "level_mean", "level_scale", "level")
        found = {n: parameters[n] for n in (*kept, "log_dof") if n in parameters}
        gamma = parameters["gamma"]
        rows = jnp.stack([parameters["premium"], parameters["factors"][-1]])
        earned = self.earned(parameters, rows)
        if isinstance(self.dynamics, VectorFirstOrder):
            found["persistence"] = jnp.trace(self.dynamics.transition(parameters))
        return found | {
            "gamma_product": units[:, None] * (gamma @ gamma.T) * units,
            "premium_returns": units * earned[0],
            "last_earned": units * earned[1],
        }

    def ahead(
        self,
        parameters: Parameters,
        characteristics: Float[Array, "series characteristics"],
        horizon: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "horizon series"]:
        """One path of the next `horizon` returns in units of the data, the assets keeping these
        `characteristics` (in units of the data); NaN for an asset that misses one."""
        factor_key, noise_key = jax.random.split(key)
        shocks = jax.random.normal(factor_key, (horizon, self.num_factors))
        premium, past = parameters["premium"], parameters["factors"] - parameters["premium"]
        factors = premium + self.dynamics.ahead(past, parameters, shocks, jnp.ones(horizon))
        held = characteristics / self.data.characteristic_scale
        common = self.earned(parameters, factors) @ held.T + self.own(parameters, factors)
        noise = self.noise(parameters, common.shape, key=noise_key)
        return self.data.return_scale * (common + noise)


class AroundPremium(dist.Distribution):
    """A path of factors around their mean."""

    support = dist.constraints.real_matrix  # pyright: ignore
    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(self, path: FactorPath, premium: Float[Array, " factors"]):
        self.path, self.premium = path, premium
        super().__init__((), path.event_shape, validate_args=False)

    def log_prob(  # pyright: ignore
        self, value: Float[Array, "time factors"]
    ) -> Float[Array, ""]:
        return self.path.log_prob(value - self.premium)

    def sample(  # pyright: ignore
        self, key: PRNGKeyArray, sample_shape: tuple = ()
    ) -> Float[Array, "time factors"]:
        return self.premium + self.path.sample(key)


@eqx.filter_jit
def instrumented_draws(
    program: InstrumentedProgram,
    draws: PosteriorDraws,
    characteristics: Float[Array, "series characteristics"],
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> SampleForecast:
    """The next `horizon` returns by one path from each draw of the posterior, the assets keeping
    these characteristics, in units of the data."""
    keys = jax.random.split(key, draws.num_draws)

    def path(case: tuple[Parameters, PRNGKeyArray]) -> Array:
        return program.ahead(case[0], characteristics, horizon, key=case[1])

    return SampleForecast(map_in_batches(path, (draws.pooled(), keys), NUM_TOGETHER))
