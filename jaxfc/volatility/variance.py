"""Processes of a conditional variance: a recursion over time that an unobserved row carries on.

A row that is not observed contributes the expectation of what it would have contributed, so the
same recursion filters a series with holes and, with unobserved rows appended, forecasts.
"""

import abc
import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.lags import push
from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.innovations import Innovations
from jaxfc.volatility.moments import lower_second_moment


class Start(NamedTuple):
    """What precedes the first known row: `value` stands for squared residuals and variances; if
    `fixed`, it is the variance of the first rows itself (as many as the recursion looks back); if
    `symmetric`, shocks before count as if rises and falls were alike, whatever the law.
    """

    value: Float[Array, ""]
    fixed: bool = False
    symmetric: bool = False


class VarianceProcess(eqx.Module):
    """How the variance of the next residual follows from earlier ones.

    `parameters` is the vector of the process in its natural form, `names` says of what; `free` and
    `natural` go to coordinates without bounds and back. `law` and `shapes` are the innovations'.
    The search for parameters runs in units in which residuals have variance one.
    """

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""

    @abc.abstractmethod
    def starts(self) -> tuple[tuple[float, ...], ...]:
        """Parameters to start the search from, for residuals of variance one."""

    @abc.abstractmethod
    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        """Coordinates without bounds."""

    @abc.abstractmethod
    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        """The inverse of `free`."""

    @abc.abstractmethod
    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        """What of a deviation of the recursion is left a row later; below one if stationary."""

    @abc.abstractmethod
    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        """The parameters for residuals multiplied by `factor`."""

    @property
    @abc.abstractmethod
    def memory(self) -> int:
        """How many rows the recursion looks back."""

    @abc.abstractmethod
    def expected(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        """The moment of the innovations that an unobserved row contributes."""

    @abc.abstractmethod
    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        """The state before the first row."""

    @abc.abstractmethod
    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        """s_t given the state before t."""

    @abc.abstractmethod
    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        """The state after a row."""

    @property
    def symmetric_moment(self) -> float:
        """`expected` of a shock of unit size that is a rise or a fall with equal chance."""
        return 1.0

    def run(
        self,
        parameters: Float[Array, " p"],
        residuals: Float[Array, " time"],
        known: Bool[Array, " time"],
        start: Start,
        law: Innovations,
        shapes: Float[Array, " shapes"],
        *,
        horizon: int = 1,
    ) -> tuple[Any, Float[Array, " all"]]:
        """Variances of rows 0..T+horizon-1, each given the rows before it and before T, and the
        state after them. Rows before the first known one leave the start as it is."""
        expected = self.expected(parameters, law, shapes)
        first = jnp.argmax(known)

        def step(state, row):
            residual, seen, index = row
            variance = self.variance(parameters, state)
            if start.fixed:
                variance = jnp.where(index < first + self.memory, start.value, variance)
            later = self.advance(parameters, state, variance, residual, seen, expected)
            begun = index >= first
            return jax.tree.map(lambda a, b: jnp.where(begun, a, b), later, state), variance

        rows = (
            jnp.pad(jnp.where(known, residuals, 0.0), (0, horizon)),
            jnp.pad(known, (0, horizon)),
            jnp.arange(residuals.size + horizon),
        )
        before = jnp.asarray(self.symmetric_moment, expected.dtype)
        before = before if start.symmetric else expected
        return jax.lax.scan(step, self.begin(parameters, start.value, before), rows)

    @property
    def exact_forecast(self) -> bool:
        """Whether the recursion over unobserved rows is the expected variance at every horizon."""
        return True

    @property
    def can_target(self) -> bool:
        """Whether omega = (1 - persistence) E e^2."""
        return True


class GARCH(VarianceProcess):
    """GARCH(p, q) of Bollerslev (1986), with `num_asymmetric` terms of Glosten, Jagannathan and
    Runkle (1993):

        s_t = omega + sum_i (alpha_i + gamma_i 1[e_{t-i} < 0]) e_{t-i}^2 + sum_j beta_j s_{t-j}

    with p = `num_shocks`, q = `num_variances`. alpha_i >= 0, alpha_i + gamma_i >= 0, beta_j >= 0
    and persistence sum_i (alpha_i + gamma_i E[z^2 1(z < 0)]) + sum_j beta_j < 1. q = 0: ARCH;
    p = q = 0: a constant variance.
    """

    num_shocks: int = eqx.field(static=True, default=1)
    num_variances: int = eqx.field(static=True, default=1)
    num_asymmetric: int = eqx.field(static=True, default=0, kw_only=True)

    def __check_init__(self):
        if min(self.num_shocks, self.num_variances) < 0 or (
            self.num_variances and not self.num_shocks
        ):
            raise ValueError(
                "a GARCH needs num_shocks >= 1 and num_variances >= 0 (or both zero: a constant "
                f"variance), got {self.num_shocks} and {self.num_variances}."
            )
        check_asymmetric(self.num_asymmetric, self.num_shocks)

    @property
    def names(self) -> tuple[str, ...]:
        counts = numbered(alpha=self.num_shocks, gamma=self.num_asymmetric, beta=self.num_variances)
        return ("omega", *counts)

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Array, Array, Array]:
        """omega, alpha, gamma (one for each shock, zero where there is none), beta."""
        first, second = 1 + self.num_shocks, 1 + self.num_shocks + self.num_asymmetric
        gamma = jnp.pad(parameters[first:second], (0, self.num_shocks - self.num_asymmetric))
        return parameters[0], parameters[1:first], gamma, parameters[second:]

    def join(self, omega: Array, alpha: Array, gamma: Array, beta: Array) -> Float[Array, " p"]:
        """The inverse of `split`."""
        return joined(omega[None], alpha, gamma[: self.num_asymmetric], beta)

    def starts(self) -> tuple[tuple[float, ...], ...]:
        if self.num_shocks == 0:
            return ((1.0,),)
        rows = []
        for total, share in ((0.98, 0.05), (0.95, 0.1), (0.9, 0.2), (0.6, 0.5), (0.2, 0.8)):
            news = total * (share if self.num_variances else 1.0)
            alpha = [news / self.num_shocks] * self.num_shocks
            gamma = alpha[: self.num_asymmetric]
            # Half of the news comes from falls where they count apart.
            alpha = [a - 0.5 * g for a, g in itertools.zip_longest(alpha, gamma, fillvalue=0.0)]
            beta = [(total - news) / max(self.num_variances, 1)] * self.num_variances
            rows.append((1.0 - total, *alpha, *gamma, *beta))
        return tuple(rows)

    def parts(self, alpha: Array, gamma: Array, beta: Array, lower: Array) -> Array:
        """The terms that persistence is the sum of, each positive: news of rises, of falls (of both
        where they are not told apart), and variances."""
        both, apart = alpha[self.num_asymmetric :], alpha[: self.num_asymmetric]
        falls = lower * (apart + gamma[: self.num_asymmetric])
        return joined((1.0 - lower) * apart, falls, both, beta)

    def free(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        omega, alpha, gamma, beta = self.split(parameters)
        parts = self.parts(alpha, gamma, beta, self.expected(parameters, law, shapes))
        return joined(jnp.log(omega)[None], free_shares(parts))

    def natural(
        self, free: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, " p"]:
        shares = shares_below_one(free[1:])
        number, lower = self.num_asymmetric, self.expected(free, law, shapes)
        rises, falls = shares[:number], shares[number : 2 * number]
        both = shares[2 * number : number + self.num_shocks]
        beta = shares[number + self.num_shocks :]
        apart = rises / (1.0 - lower)
        gamma = falls / lower - apart
        alpha = joined(apart, both)
        return self.join(jnp.exp(free[0]), alpha, gamma, beta)

    def persistence(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        _, alpha, gamma, beta = self.split(parameters)
        lower = self.expected(parameters, law, shapes)
        return jnp.sum(alpha + gamma * lower) + jnp.sum(beta)

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        return parameters.at[0].multiply(factor**2)

    @property
    def memory(self) -> int:
        return max(self.num_shocks, self.num_variances)

    def expected(
        self, parameters: Float[Array, " p"], law: Innovations, shapes: Float[Array, " shapes"]
    ) -> Float[Array, ""]:
        # E[z^2 1(z < 0)], which only asymmetric processes need.
        if self.num_asymmetric == 0:
            return jnp.asarray(0.5, shapes.dtype)
        return lower_second_moment(law, shapes)

    @property
    def symmetric_moment(self) -> float:
        return 0.5

    def begin(self, parameters: Float[Array, " p"], value: Array, expected: Array) -> Any:
        squares = jnp.full(self.num_shocks, value)
        return squares, expected * squares, jnp.full(self.num_variances, value)

    def variance(self, parameters: Float[Array, " p"], state: Any) -> Float[Array, ""]:
        omega, alpha, gamma, beta = self.split(parameters)
        squares, falls, variances = state
        return omega + alpha @ squares + gamma @ falls + beta @ variances

    def advance(
        self,
        parameters: Float[Array, " p"],
        state: Any,
        variance: Array,
        residual: Array,
        seen: Array,
        expected: Array,
    ) -> Any:
        squares, falls, variances = state
        square = jnp.where(seen, residual**2, variance)
        fall = jnp.where(seen, jnp.where(residual < 0.0, square, 0.0), expected * variance)
        return (
            push(squares, square),
            push(falls, fall),
            push(variances, variance),
        )


def joined(*parts: Float[Array, " _"]) -> Float[Array, " p"]:
    """The parts one after the other. Empty ones are left out before XLA sees them: where one is
    joined and cut off again, jaxlib 0.10 forgets how to call LAPACK in the same program."""
    kept = [part for part in parts if part.size]
    return jnp.concatenate(kept) if kept else parts[0]


def check_asymmetric(num_asymmetric: int, num_shocks: int) -> None:
    """No more asymmetric terms than shocks."""
    if not 0 <= num_asymmetric <= num_shocks:
        raise ValueError(
            f"num_asymmetric must be between 0 and num_shocks={num_shocks}, got {num_asymmetric}."
        )


def numbered(**counts: int) -> tuple[str, ...]:
    """name[1], name[2], ... of every name."""
    return tuple(f"{name}[{i + 1}]" for name, count in counts.items() for i in range(count))


def free_shares(parts: Float[Array, " parts"]) -> Float[Array, " parts"]:
    """Positive parts of a whole below one as logarithms of their ratio to what is left."""
    tiny = jnp.finfo(parts.dtype).eps
    parts = jnp.maximum(parts, tiny)
    return jnp.log(parts) - jnp.log(jnp.maximum(1.0 - jnp.sum(parts), tiny))


def shares_below_one(free: Float[Array, " parts"]) -> Float[Array, " parts"]:
    """The inverse of `free_shares`: whatever the coordinates, the parts are positive and their sum
    is below one."""
    return jax.nn.softmax(jnp.concatenate([free, jnp.zeros_like(free[:1])]))[:-1]
