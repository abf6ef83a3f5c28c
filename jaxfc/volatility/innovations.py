"""Laws of standardised innovations: mean zero, variance one, whatever their shape parameters."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.constants import LOG_2PI

# Fewer degrees of freedom have no variance; more cannot be told from a normal.
MIN_DEGREES, MAX_DEGREES = 2.05, 500.0
# The densities beyond are peaks or boxes that no series of returns has.
MIN_GED, MAX_GED = 0.5, 20.0
MAX_SKEW = 0.99


class Innovations(eqx.Module):
    """A law of z with E z = 0 and E z^2 = 1; `shapes` (shapes,) are its own parameters."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the shape parameters."""

    @property
    @abc.abstractmethod
    def starts(self) -> tuple[float, ...]:
        """Where the search for them begins."""

    @property
    @abc.abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Open intervals that they lie in."""

    @abc.abstractmethod
    def log_density(
        self, units: Float[Array, "..."], shapes: Float[Array, " shapes"]
    ) -> Float[Array, "..."]:
        """ln f(z)."""

    @abc.abstractmethod
    def draw(
        self, size: tuple[int, ...], shapes: Float[Array, " shapes"], *, key: PRNGKeyArray
    ) -> Float[Array, "..."]:
        """Independent draws of z."""

    def free(self, shapes: Float[Array, " shapes"]) -> Float[Array, " shapes"]:
        """Shape parameters without bounds: the logit of their place in their interval."""
        lower, upper = self.interval(shapes)
        share = (shapes - lower) / (upper - lower)
        return jnp.log(share) - jnp.log1p(-share)

    def shapes(self, free: Float[Array, " shapes"]) -> Float[Array, " shapes"]:
        """The inverse of `free`."""
        lower, upper = self.interval(free)
        return lower + (upper - lower) * jax.nn.sigmoid(free)

    def interval(self, like: Float[Array, " shapes"]) -> tuple[Array, Array]:
        """Bounds as two arrays."""
        bounds = jnp.asarray(self.bounds, like.dtype).reshape(-1, 2)
        return bounds[:, 0], bounds[:, 1]


class Normal(Innovations):
    """ln f = -(ln 2 pi + z^2) / 2."""

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def starts(self) -> tuple[float, ...]:
        return ()

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return ()

    def log_density(
        self, units: Float[Array, "..."], shapes: Float[Array, " shapes"]
    ) -> Float[Array, "..."]:
        return -0.5 * (LOG_2PI + units**2)

    def draw(
        self, size: tuple[int, ...], shapes: Float[Array, " shapes"], *, key: PRNGKeyArray
    ) -> Float[Array, "..."]:
        return jax.random.normal(key, size, shapes.dtype)


class StudentT(Innovations):
    """Student's t with nu > 2 degrees of freedom, scaled to variance one (Bollerslev 1987).

    ln f = ln G((nu + 1) / 2) - ln G(nu / 2) - ln(pi (nu - 2)) / 2
           - (nu + 1) / 2 ln(1 + z^2 / (nu - 2))
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("nu",)

    @property
    def starts(self) -> tuple[float, ...]:
        return (8.0,)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return ((MIN_DEGREES, MAX_DEGREES),)

    def log_density(
        self, units: Float[Array, "..."], shapes: Float[Array, " shapes"]
    ) -> Float[Array, "..."]:
        nu = shapes[0]
        constant = student_constant(nu)
        return constant - 0.5 * (nu + 1.0) * jnp.log1p(units**2 / (nu - 2.0))

    def draw(
        self, size: tuple[int, ...], shapes: Float[Array, " shapes"], *, key: PRNGKeyArray
    ) -> Float[Array, "..."]:
        nu = shapes[0]
        return jax.random.t(key, nu, size, shapes.dtype) * jnp.sqrt((nu - 2.0) / nu)


class SkewedT(Innovations):
    """Hansen's (1994, equations 10 to 13) skewed t: degrees of freedom nu and skew lambda.

    ln f = ln b + ln C(nu) - (nu + 1) / 2 ln(1 + ((b z + a) / (1 + s lambda))^2 / (nu - 2)) with
    s = sign(b z + a), a = 4 lambda C (nu - 2) / (nu - 1), b^2 = 1 + 3 lambda^2 - a^2 and C the
    constant of Student's t of variance one.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("nu", "lambda")

    @property
    def starts(self) -> tuple[float, ...]:
        return (8.0, 0.0)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return ((MIN_DEGREES, MAX_DEGREES), (-MAX_SKEW, MAX_SKEW))

    def log_density(
        self, units: Float[Array, "..."], shapes: Float[Array, " shapes"]
    ) -> Float[Array, "..."]:
        nu, skew = shapes[0], shapes[1]
        shift, spread = hansen_constants(nu, skew)
        moved = spread * units + shift
        scaled = moved / (1.0 + jnp.where(moved < 0.0, -skew, skew))
        tail = -0.5 * (nu + 1.0) * jnp.log1p(scaled**2 / (nu - 2.0))
        return jnp.log(spread) + student_constant(nu) + tail

    def draw(
        self, size: tuple[int, ...], shapes: Float[Array, " shapes"], *, key: PRNGKeyArray
    ) -> Float[Array, "..."]:
        # |t| on the right with probability (1 + lambda) / 2, stretched by 1 + lambda; else left.
        nu, skew = shapes[0], shapes[1]
        shift, spread = hansen_constants(nu, skew)
        side_key, size_key = jax.random.split(key)
        right = jax.random.uniform(side_key, size, shapes.dtype) < 0.5 * (1.0 + skew)
        length = jnp.abs(StudentT().draw(size, shapes, key=size_key))
        moved = jnp.where(right, (1.0 + skew) * length, (skew - 1.0) * length)
        return (moved - shift) / spread


class GED(Innovations):
    """Generalised error distribution with exponent nu (Nelson 1991): 2 is normal, 1 Laplace.

    ln f = ln(nu / (2^{1 + 1/nu} l G(1/nu))) - |z / l|^nu / 2, l^2 = 2^{-2/nu} G(1/nu) / G(3/nu)
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("nu",)

    @property
    def starts(self) -> tuple[float, ...]:
        return (1.5,)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return ((MIN_GED, MAX_GED),)

    def log_density(
        self, units: Float[Array, "..."], shapes: Float[Array, " shapes"]
    ) -> Float[Array, "..."]:
        nu = shapes[0]
        log_scale = self.log_scale(nu)
        constant = jnp.log(nu) - (1.0 + 1.0 / nu) * jnp.log(2.0) - log_scale - gammaln(1.0 / nu)
        # |z|^nu has an infinite slope at zero for nu < 1, and a derivative in nu of 0 ln 0.
        size = jnp.maximum(jnp.abs(units), jnp.finfo(units.dtype).tiny)
        return constant - 0.5 * jnp.exp(nu * (jnp.log(size) - log_scale))

    def draw(
        self, size: tuple[int, ...], shapes: Float[Array, " shapes"], *, key: PRNGKeyArray
    ) -> Float[Array, "..."]:
        # |z / l|^nu / 2 is Gamma(1 / nu).
        nu = shapes[0]
        size_key, side_key = jax.random.split(key)
        power = 2.0 * jax.random.gamma(size_key, 1.0 / nu, size, shapes.dtype)
        sign = jax.random.rademacher(side_key, size, shapes.dtype)
        return sign * jnp.exp(self.log_scale(nu)) * power ** (1.0 / nu)

    def log_scale(self, nu: Array) -> Array:
        """ln l."""
        return -jnp.log(2.0) / nu + 0.5 * (gammaln(1.0 / nu) - gammaln(3.0 / nu))


def student_constant(nu: Array) -> Array:
    """Logarithm of the density of Student's t of variance one at zero."""
    scale = 0.5 * jnp.log(jnp.pi * (nu - 2.0))
    return gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu) - scale


def hansen_constants(nu: Array, skew: Array) -> tuple[Array, Array]:
    """a and b of the skewed t."""
    shift = 4.0 * skew * jnp.exp(student_constant(nu)) * (nu - 2.0) / (nu - 1.0)
    return shift, jnp.sqrt(1.0 + 3.0 * skew**2 - shift**2)
