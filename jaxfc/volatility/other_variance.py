"""Variance processes beside GARCH: EGARCH, APARCH, RiskMetrics, HAR."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.lags import push
from jaxfc.typing import Array, Float, as_scalar
from jaxfc.volatility.innovations import Innovations
from jaxfc.volatility.moments import expectation
from jaxfc.volatility.variance import (
    VarianceProcess,
    free_shares,
    shares_below_one,
)

# Nelson's beta and the asymmetry of an APARCH lie in (-1, 1), its power in (0, 4).
LARGEST = 0.9999
MAX_POWER = 4.0


class EGARCH(VarianceProcess):
    """EGARCH(1, 1) of Nelson (1991):

        ln s_t = omega + alpha (|z_{t-1}| - E|z|) + gamma z_{t-1} + beta ln s_{t-1},   |beta| < 1

    No other coefficient has a bound. A row that is not observed adds nothing. What the recursion
    forecasts is the logarithm of the variance, whose exponential is not the expected variance at
    two steps and more: forecasts beyond one step are simulated.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("omega", "alpha", "gamma", "beta")

    def starts(self) -> tuple[tuple[float, ...], ...]:
        return ((0.0, 0.1, 0.0, 0.98), (0.0, 0.2, -0.05, 0.95), (0.0, 0.3, 0.0, 0.8))

    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return parameters.at[3].set(jnp.arctanh(parameters[3] / LARGEST))

    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return free.at[3].set(LARGEST * jnp.tanh(free[3]))

    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return jnp.abs(parameters[3])

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters.at[0].add(2.0 * (1.0 - parameters[3]) * jnp.log(factor))

    @property
    def memory(self) -> int:
        return 1

    def expected(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return expectation(jnp.abs, law, shapes)

    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        return jnp.log(value), jnp.zeros_like(value)

    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        log_variance, news = state
        return jnp.exp(parameters[0] + news + parameters[3] * log_variance)

    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        unit = residual / jnp.sqrt(variance)
        news = parameters[1] * (jnp.abs(unit) - expected) + parameters[2] * unit
        return jnp.log(variance), jnp.where(seen, news, 0.0)

    @property
    def exact_forecast(self) -> bool:
        return False

    @property
    def can_target(self) -> bool:
        return False


class APARCH(VarianceProcess):
    """APARCH(1, 1) of Ding, Granger and Engle (1993) with power d:

        s_t^{d/2} = omega + alpha (|e_{t-1}| - gamma e_{t-1})^d + beta s_{t-1}^{d/2}

    with omega, alpha, beta >= 0, |gamma| < 1, 0 < d < 4 and alpha E(|z| - gamma z)^d + beta < 1.
    What the recursion forecasts is a power of the scale, not the variance: forecasts beyond one
    step are simulated.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("omega", "alpha", "gamma", "beta", "delta")

    def starts(self) -> tuple[tuple[float, ...], ...]:
        return (
            (0.02, 0.05, 0.1, 0.93, 1.5),
            (0.05, 0.1, 0.1, 0.85, 1.0),
            (0.1, 0.15, 0.1, 0.75, 2.0),
        )

    def expected(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        gamma, power = parameters[2], parameters[4]
        return expectation(lambda z: (jnp.abs(z) - gamma * z) ** power, law, shapes)

    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        omega, alpha, gamma, beta, power = parameters
        news, rest = free_shares(jnp.stack([alpha * self.expected(parameters, law, shapes), beta]))
        logit = jnp.log(power) - jnp.log(MAX_POWER - power)
        return jnp.stack([jnp.log(omega), news, jnp.arctanh(gamma / LARGEST), rest, logit])

    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        gamma, power = LARGEST * jnp.tanh(free[2]), MAX_POWER * jax.nn.sigmoid(free[4])
        news, beta = shares_below_one(jnp.stack([free[1], free[3]]))
        parameters = jnp.stack([jnp.exp(free[0]), news, gamma, beta, power])
        return parameters.at[1].divide(self.expected(parameters, law, shapes))

    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return parameters[1] * self.expected(parameters, law, shapes) + parameters[3]

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters.at[0].multiply(factor ** parameters[4])

    @property
    def memory(self) -> int:
        return 1

    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        scale = value ** (0.5 * parameters[4])
        return scale, expected * scale

    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        omega, alpha, _, beta, power = parameters
        scale, news = state
        return (omega + alpha * news + beta * scale) ** (2.0 / power)

    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        gamma, power = parameters[2], parameters[4]
        scale = variance ** (0.5 * power)
        # The derivative of 0^d in d is 0 ln 0.
        size = jnp.maximum(jnp.abs(residual) - gamma * residual, jnp.finfo(scale.dtype).tiny)
        return scale, jnp.where(seen, size**power, expected * scale)

    @property
    def exact_forecast(self) -> bool:
        return False

    @property
    def can_target(self) -> bool:
        return False


class LinearInSquares(VarianceProcess):
    """What RiskMetrics and HAR share: no moment of the innovations beyond E z^2 = 1."""

    def expected(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return jnp.ones((), shapes.dtype)


class RiskMetrics(LinearInSquares):
    """s_t = decay s_{t-1} + (1 - decay) e_{t-1}^2, nothing estimated (J.P. Morgan 1996)."""

    decay: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.94)

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def starts(self) -> tuple[tuple[float, ...], ...]:
        return ((),)

    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return parameters

    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return free

    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return jnp.ones((), shapes.dtype)

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters

    @property
    def memory(self) -> int:
        return 1

    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        return value

    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        return state

    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        decay = self.decay.astype(variance.dtype)
        return jnp.where(seen, decay * variance + (1.0 - decay) * residual**2, variance)

    @property
    def can_target(self) -> bool:
        return False


class HAR(LinearInSquares):
    """Squared residuals over a day, a week, a month, as Corsi (2009) has them of realised variance:

        s_t = omega + sum_j beta_j (1 / h_j) sum_{i=1..h_j} e_{t-i}^2,     h = `windows`

    with omega, beta >= 0 and sum_j beta_j < 1: an ARCH of the longest window with as many
    coefficients as windows. A baseline; estimated by maximum likelihood, not by least squares.
    """

    windows: tuple[int, ...] = eqx.field(static=True, default=(1, 5, 22))

    def __check_init__(self):
        ascending = list(self.windows) == sorted(set(self.windows))
        if not self.windows or not ascending or self.windows[0] < 1:
            raise ValueError(f"windows must ascend from at least 1, got {self.windows}.")

    @property
    def names(self) -> tuple[str, ...]:
        return ("omega", *(f"beta[{window}]" for window in self.windows))

    def starts(self) -> tuple[tuple[float, ...], ...]:
        number = len(self.windows)
        return tuple((1.0 - total, *[total / number] * number) for total in (0.95, 0.8, 0.5))

    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return jnp.concatenate([jnp.log(parameters[:1]), free_shares(parameters[1:])])

    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        return jnp.concatenate([jnp.exp(free[:1]), shares_below_one(free[1:])])

    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        return jnp.sum(parameters[1:])

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters.at[0].multiply(factor**2)

    @property
    def memory(self) -> int:
        return self.windows[-1]

    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        return jnp.full(self.memory, value)

    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        means = jnp.stack([jnp.mean(state[:window]) for window in self.windows])
        return parameters[0] + parameters[1:] @ means

    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        return push(state, jnp.where(seen, residual**2, variance))
