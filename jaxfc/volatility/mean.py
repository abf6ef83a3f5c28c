"""Conditional means of a single series: zero, constant, autoregressive."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.lags import lagged, push
from jaxfc.typing import Array, Bool, Float


class MeanProcess(eqx.Module):
    """How the mean of the next value follows from earlier ones."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""

    @property
    @abc.abstractmethod
    def ar(self) -> int:
        """How many earlier values it looks at."""

    @abc.abstractmethod
    def start(
        self, values: Float[Array, " time"], observed: Bool[Array, " time"]
    ) -> Float[Array, " p"]:
        """Parameters to start the search from: least squares."""

    @abc.abstractmethod
    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        """The parameters for values multiplied by `factor`."""

    @abc.abstractmethod
    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Float[Array, " lags"]]:
        """Intercept and coefficients of the lags."""

    def residuals(
        self,
        parameters: Float[Array, " p"],
        values: Float[Array, " time"],
        observed: Bool[Array, " time"],
    ) -> tuple[Float[Array, " time"], Bool[Array, " time"]]:
        """x_t minus its mean, and the rows in which it is known: x_t and its lags observed."""
        intercept, coefficients = self.split(parameters)
        values = jnp.where(observed, values, 0.0)
        residuals, known = values - intercept, observed
        for lag in range(1, self.ar + 1):
            residuals = residuals - coefficients[lag - 1] * lagged(values, lag)
            known = known & lagged(observed, lag)
        return jnp.where(known, residuals, 0.0), known

    def long_run(self, parameters: Float[Array, " p"]) -> Float[Array, " lags"]:
        """What stands for the values before the first row: the long-run mean."""
        intercept, coefficients = self.split(parameters)
        return jnp.full(self.ar, intercept / (1.0 - jnp.sum(coefficients)))

    def next(self, parameters: Float[Array, " p"], lags: Float[Array, " lags"]) -> Array:
        """Mean of the next value given the last ones, newest first."""
        intercept, coefficients = self.split(parameters)
        return intercept + coefficients @ lags

    def last(
        self,
        parameters: Float[Array, " p"],
        values: Float[Array, " time"],
        observed: Bool[Array, " time"],
    ) -> Float[Array, " lags"]:
        """The last values, newest first; one that is not observed stands at its mean."""
        if self.ar == 0:
            return self.long_run(parameters)

        def step(lags, row):
            value, seen = row
            return push(lags, jnp.where(seen, value, self.next(parameters, lags))), None

        rows = (jnp.where(observed, values, 0.0), observed)
        return jax.lax.scan(step, self.long_run(parameters), rows)[0]

    def forecast(
        self,
        parameters: Float[Array, " p"],
        values: Float[Array, " time"],
        observed: Bool[Array, " time"],
        horizon: int,
    ) -> Float[Array, " horizon"]:
        """Means of the rows to come."""

        def step(lags, _):
            mean = self.next(parameters, lags)
            return push(lags, mean), mean

        lags = self.last(parameters, values, observed)
        return jax.lax.scan(step, lags, None, length=horizon)[1]


class ZeroMean(MeanProcess):
    """x_t = e_t."""

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def ar(self) -> int:
        return 0

    def start(
        self, values: Float[Array, " time"], observed: Bool[Array, " time"]
    ) -> Float[Array, " p"]:
        return jnp.zeros(0, values.dtype)

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Float[Array, " lags"]]:
        return jnp.zeros((), parameters.dtype), parameters


class ConstantMean(MeanProcess):
    """x_t = mu + e_t."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("mu",)

    @property
    def ar(self) -> int:
        return 0

    def start(
        self, values: Float[Array, " time"], observed: Bool[Array, " time"]
    ) -> Float[Array, " p"]:
        return jnp.mean(values, where=observed)[None]

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters * factor

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Float[Array, " lags"]]:
        return parameters[0], parameters[1:]


class AutoregressiveMean(MeanProcess):
    """x_t = mu + sum_i phi_i x_{t-i} + e_t, estimated together with the variance.

    The likelihood is that of the rows whose lags are observed, as in arch: the first `num_lags`
    rows start the recursion and do not count.
    """

    num_lags: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.num_lags < 1:
            raise ValueError(f"num_lags must be at least 1, got {self.num_lags}; use ConstantMean.")

    @property
    def names(self) -> tuple[str, ...]:
        return ("mu", *(f"phi[{lag}]" for lag in range(1, self.num_lags + 1)))

    @property
    def ar(self) -> int:
        return self.num_lags

    def start(
        self, values: Float[Array, " time"], observed: Bool[Array, " time"]
    ) -> Float[Array, " p"]:
        values = jnp.where(observed, values, 0.0)
        known = observed
        columns = [jnp.ones_like(values)]
        for lag in range(1, self.num_lags + 1):
            columns.append(lagged(values, lag))
            known = known & lagged(observed, lag)
        regressors = jnp.stack(columns, axis=1) * known[:, None]
        gram = regressors.T @ regressors
        return jnp.linalg.solve(gram, regressors.T @ (known * values))

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters.at[0].multiply(factor)

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Float[Array, " lags"]]:
        return parameters[0], parameters[1:]
