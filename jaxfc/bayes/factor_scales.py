"""How the size of all factors' shocks moves: the volatility v_t of the market as a whole.

One v_t for all factors keeps rotations of the factors without consequence.
"""

# NumPyro types its classes for arrays of any library and attributes as properties.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.autoregression import path_after, stationary_path
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.constants import LOG_2PI


class FactorScale(eqx.Module):
    """The law of the standard deviations v_t of the factors' shocks.

    `signal` (time,) is what is known before each row of the market's recent volatility, of root
    mean square one over the panel; zero throughout where no volatility is known.
    """

    @abc.abstractmethod
    def priors(self, num_rows: int) -> Priors:
        """Priors of the parameters, a path of `num_rows` among them where there is one."""

    @abc.abstractmethod
    def start(self, num_rows: int) -> Parameters:
        """Values to start from: nearly constant volatility."""

    @abc.abstractmethod
    def volatility(
        self, parameters: Parameters, signal: Float[Array, " time"]
    ) -> Float[Array, " time"]:
        """v_t of every row."""

    @abc.abstractmethod
    def ahead(
        self, parameters: Parameters, signal: Float[Array, ""], horizon: int, *, key: PRNGKeyArray
    ) -> Float[Array, " horizon"]:
        """v of the next rows, drawn; `signal` is known for the first of them only."""


class ConstantScale(FactorScale):
    """v_t = 1, as published."""

    def priors(self, num_rows: int) -> Priors:
        return {}

    def start(self, num_rows: int) -> Parameters:
        return {}

    def volatility(
        self, parameters: Parameters, signal: Float[Array, " time"]
    ) -> Float[Array, " time"]:
        return jnp.ones_like(signal)

    def ahead(
        self, parameters: Parameters, signal: Float[Array, ""], horizon: int, *, key: PRNGKeyArray
    ) -> Float[Array, " horizon"]:
        return jnp.ones(horizon, signal.dtype)


class RecentScale(FactorScale):
    """ln v_t = c m_t, with m the market's recent volatility: c ~ N(0, scale^2). Without columns of
    recent volatility it is `ConstantScale`."""

    scale: Float[Array, ""] = eqx.field(default=0.3, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale")

    def priors(self, num_rows: int) -> Priors:
        law = dist.Normal(0.0, self.scale)
        return {"market_volatility_effect": lambda _: law}

    def start(self, num_rows: int) -> Parameters:
        return {"market_volatility_effect": jnp.asarray(0.0)}

    def volatility(
        self, parameters: Parameters, signal: Float[Array, " time"]
    ) -> Float[Array, " time"]:
        return jnp.exp(parameters["market_volatility_effect"] * signal)

    def ahead(
        self, parameters: Parameters, signal: Float[Array, ""], horizon: int, *, key: PRNGKeyArray
    ) -> Float[Array, " horizon"]:
        later = jnp.zeros(horizon, signal.dtype).at[0].set(signal)
        return self.volatility(parameters, later)


class LogVolatilityPath(dist.Distribution):
    """h_1 ~ N(0, s^2 / (1 - phi^2)), h_t = phi h_{t-1} + s e_t, by differences."""

    support = dist.constraints.real_vector
    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(self, phi: Array, scale: Array, num_rows: int):
        self.phi, self.scale, self.num_rows = phi, scale, num_rows
        super().__init__((), (num_rows,), validate_args=False)

    def log_prob(self, value: Float[Array, " time"]) -> Float[Array, ""]:
        first = value[0] * jnp.sqrt(1.0 - self.phi**2)
        gaps = jnp.concatenate([first[None], value[1:] - self.phi * value[:-1]]) / self.scale
        constant = self.num_rows * (jnp.log(self.scale) + 0.5 * LOG_2PI)
        return -0.5 * jnp.sum(gaps**2) - constant + 0.5 * jnp.log1p(-(self.phi**2))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple = ()) -> Float[Array, " time"]:
        noise = jax.random.normal(key, (self.num_rows,))
        return stationary_path(noise, self.phi, self.scale)


class StochasticScale(FactorScale):
    """ln v_t = h_t, h_t = phi h_{t-1} + s e_t stationary: stochastic volatility of the market.

    (1 + phi) / 2 ~ Beta(20, 2), s ~ half-normal(`scale`). Sources: Kim, Shephard and Chib (1998)
    for the prior of phi; Harvey, Ruiz and Shephard (1994) for one volatility of several series.
    """

    scale: Float[Array, ""] = eqx.field(default=0.3, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale")

    def priors(self, num_rows: int) -> Priors:
        persistence, spread = dist.Beta(20.0, 2.0), dist.HalfNormal(self.scale)

        def path(parameters: Parameters) -> dist.Distribution:
            return LogVolatilityPath(self.phi(parameters), parameters["volatility_sd"], num_rows)

        return {
            "volatility_persistence": lambda _: persistence,
            "volatility_sd": lambda _: spread,
            "log_volatility": path,
        }

    def start(self, num_rows: int) -> Parameters:
        return {
            "volatility_persistence": jnp.asarray(0.95),
            "volatility_sd": jnp.asarray(0.1),
            "log_volatility": jnp.zeros(num_rows),
        }

    def phi(self, parameters: Parameters) -> Float[Array, ""]:
        """phi = 2 x - 1."""
        return 2.0 * parameters["volatility_persistence"] - 1.0

    def volatility(
        self, parameters: Parameters, signal: Float[Array, " time"]
    ) -> Float[Array, " time"]:
        return jnp.exp(parameters["log_volatility"])

    def ahead(
        self, parameters: Parameters, signal: Float[Array, ""], horizon: int, *, key: PRNGKeyArray
    ) -> Float[Array, " horizon"]:
        noise = parameters["volatility_sd"] * jax.random.normal(key, (horizon,), signal.dtype)
        last = parameters["log_volatility"][-1]
        return jnp.exp(path_after(last, noise, self.phi(parameters)))
