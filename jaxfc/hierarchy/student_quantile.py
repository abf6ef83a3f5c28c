"""Quantiles of Student's law, differentiable in the level and in the degrees of freedom."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, digamma, gammaln, ndtri

from jaxfc.typing import Array

NUM_HALVINGS = 70
MANY_DEGREES = 1e5
LOG_RANGE = (-42.0, 72.0)
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(40)


def student_quantile(degrees: Array, q: Array) -> Array:
    """t with P(T <= t) = q for `degrees` > 0 degrees of freedom, infinite ones included.

    By bisection in log |t|, and for more than 10^5 degrees by the expansion about the normal
    quantile z (Fisher and Cornish 1960),

        t = z + (z^3 + z) / (4 n) + (5 z^5 + 16 z^3 + 3 z) / (96 n^2)

    Derivatives by the implicit function theorem; with respect to the degrees they are accurate for
    degrees of one and more. Arguments broadcast.
    """
    degrees, q = jnp.broadcast_arrays(degrees, q)
    many = degrees > MANY_DEGREES
    student = finite_quantile(jnp.where(many, MANY_DEGREES, degrees), q)
    rate, z = 1.0 / jnp.where(many, degrees, MANY_DEGREES), ndtri(q)
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    return jnp.where(many, z + rate * (z**3 + z) / 4.0 + rate**2 * second, student)


@jax.custom_jvp
def finite_quantile(degrees: Array, q: Array) -> Array:
    """`student_quantile` for finite degrees."""
    tail = jnp.minimum(q, 1.0 - q)
    half = jnp.full_like(degrees, 0.5)

    def is_beyond(size: Array) -> Array:
        # One minus the tail loses small tails, the tail itself the centre of nearly normal laws.
        square = size**2
        central = betainc(half, 0.5 * degrees, square / (degrees + square)) >= 1.0 - 2.0 * tail
        outer = 0.5 * betainc(0.5 * degrees, half, degrees / (degrees + square)) <= tail
        return jnp.where(tail < 0.05, outer, central)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        beyond = is_beyond(jnp.exp(middle))
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    ends = jnp.full_like(degrees, LOG_RANGE[0]), jnp.full_like(degrees, LOG_RANGE[1])
    low, high = jax.lax.fori_loop(0, NUM_HALVINGS, halve, ends)
    size = jnp.where(tail == 0.5, 0.0, jnp.exp(0.5 * (low + high)))
    return jnp.sign(q - 0.5) * size


@finite_quantile.defjvp
def finite_quantile_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """dt = (dq - dF/dn dn) / f(t), with dF/dn by Gauss-Legendre quadrature.

    dF/dn = int_0^t f(x) d log f(x) / dn dx = - int_t^inf of the same, with x = sqrt(n) tan(a) up to
    x = sqrt(n), and x = sqrt(n) / tan(b), b proportional to u^4, beyond: both are smooth then.
    """
    degrees, q = primals
    degrees_dot, q_dot = tangents
    t = finite_quantile(degrees, q)
    root, count = jnp.sqrt(degrees)[..., None], degrees[..., None]
    size = jnp.abs(t)[..., None]
    outer = size > root
    inner_end = jnp.arctan(jnp.where(outer, root, size) / root)
    outer_end = jnp.arctan(root / jnp.where(outer, size, root))
    unit = 0.5 * (jnp.asarray(NODES, t.dtype) + 1.0)
    a, b = inner_end * unit, outer_end * unit**4
    x = root * jnp.where(outer, 1.0 / jnp.tan(b), jnp.tan(a))
    inner_width, outer_width = inner_end / jnp.cos(a) ** 2, outer_end * unit**3 / jnp.sin(b) ** 2
    width = 0.5 * root * jnp.where(outer, -4.0 * outer_width, inner_width)
    ratio = x**2 / count
    score = 0.5 * (
        digamma(0.5 * (count + 1.0))
        - digamma(0.5 * count)
        - 1.0 / count
        - jnp.log1p(ratio)
        + (count + 1.0) / count * ratio / (1.0 + ratio)
    )
    weights = jnp.asarray(NODE_WEIGHTS, t.dtype)
    by_degrees = jnp.sign(t) * jnp.sum(weights * density(x, count) * score * width, axis=-1)
    return t, (q_dot - by_degrees * degrees_dot) / density(t, degrees)


def density(t: Array, degrees: Array) -> Array:
    """The density of Student's law."""
    constant = gammaln(0.5 * (degrees + 1.0)) - gammaln(0.5 * degrees)
    constant = constant - 0.5 * jnp.log(jnp.pi * degrees)
    return jnp.exp(constant - 0.5 * (degrees + 1.0) * jnp.log1p(t**2 / degrees))
