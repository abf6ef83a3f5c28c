"""Expectations of functions of an innovation by quadrature."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxfc.typing import Array, Float
from jaxfc.volatility.innovations import Innovations

NUM_NODES = 481
# ln |z| runs from a probability of 1e-13 at zero to the far tails.
FIRST, LAST = -30.0, 14.0


def half_moments(
    function: Callable[[Array], Array], law: Innovations, shapes: Float[Array, " shapes"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """E[g(z) 1(z < 0)] and E[g(z) 1(z > 0)].

    With |z| = exp(v) either integrand is smooth and dies out at both ends, where the trapezoidal
    rule converges faster than any power of its step, also for functions with a kink at zero.
    """
    nodes = jnp.linspace(FIRST, LAST, NUM_NODES, dtype=shapes.dtype)
    size = jnp.exp(nodes)
    step = (LAST - FIRST) / (NUM_NODES - 1)

    def integral(units: Array) -> Array:
        density = jnp.exp(law.log_density(units, shapes))
        return step * jnp.sum(function(units) * density * size)

    return integral(-size), integral(size)


def expectation(
    function: Callable[[Array], Array], law: Innovations, shapes: Float[Array, " shapes"]
) -> Float[Array, ""]:
    """E g(z)."""
    below, above = half_moments(function, law, shapes)
    return below + above


def lower_second_moment(law: Innovations, shapes: Float[Array, " shapes"]) -> Float[Array, ""]:
    """E[z^2 1(z < 0)] as a share of E z^2 = 1: a half for symmetric laws."""
    below, above = half_moments(jnp.square, law, shapes)
    return below / (below + above)
