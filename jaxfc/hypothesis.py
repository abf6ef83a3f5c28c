"""The result of a statistical test, and tail probabilities of the laws that tests refer to."""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import betainc, gammaincc

from jaxfc.typing import Array, Float


class HypothesisTest(eqx.Module):
    """A statistic, its p-value, the degrees of freedom of its law and the cases it rests on.

    The fields of several columns are arrays. `degrees` is NaN where the law has none. A statistic
    that no case defines is NaN.
    """

    statistic: Float[Array, "*columns"]
    p_value: Float[Array, "*columns"]
    degrees: Float[Array, "*columns"]
    num_cases: Float[Array, "*columns"]


def chi_squared_test(statistic: Array, degrees: int, num_cases: Array) -> HypothesisTest:
    """A statistic that is chi-squared under the hypothesis; NaN where there is no case."""
    # Rounding may put a likelihood ratio of equal likelihoods below zero.
    statistic = jnp.where(num_cases > 0, jnp.maximum(statistic, 0.0), jnp.nan)
    return HypothesisTest(
        statistic=statistic,
        p_value=chi_squared_tail(statistic, degrees),
        degrees=jnp.full_like(statistic, degrees),
        num_cases=jnp.asarray(num_cases, dtype=statistic.dtype),
    )


def chi_squared_tail(statistic: Array, degrees: int | Array) -> Array:
    """P(X > statistic) of a chi-squared law."""
    return gammaincc(0.5 * jnp.asarray(degrees, dtype=statistic.dtype), 0.5 * statistic)


def student_two_sided(statistic: Array, degrees: Array) -> Array:
    """P(|X| > |statistic|) of Student's law; that of the normal law for infinite degrees."""
    finite = jnp.isfinite(degrees)
    count = jnp.where(finite, degrees, 1.0).astype(statistic.dtype)
    half = jnp.asarray(0.5, dtype=statistic.dtype)
    student = betainc(0.5 * count, half, count / (count + statistic**2))
    return jnp.where(finite, student, gammaincc(half, 0.5 * statistic**2))
