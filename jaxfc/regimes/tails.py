"""The law of a row around its mean, given its distance in units of the regime's scatter matrix."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, gammaln, ndtr

from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar


class Tails(eqx.Module):
    """An elliptical law: y = mu + x / sqrt(u), x ~ N(0, S), u > 0 independent of x.

    S is the scatter matrix that a regime estimates; the covariance is `cov_factor` S.
    """

    @property
    @abc.abstractmethod
    def cov_factor(self) -> Float[Array, ""]:
        """Covariance over scatter, E[1 / u]."""

    @property
    @abc.abstractmethod
    def sums_keep_the_law(self) -> bool:
        """Whether a sum of independent rows has the law again."""

    @abc.abstractmethod
    def log_densities(
        self,
        distances: Float[Array, "*#batch"],
        log_dets: Float[Array, "*#batch"],
        counts: Float[Array, "*#batch"],
    ) -> Float[Array, "*#batch"]:
        """ln f of rows of `counts` entries at squared distance (y - mu)' S^{-1} (y - mu), S of
        log-determinant `log_dets`."""

    @abc.abstractmethod
    def precisions(
        self, distances: Float[Array, "*#batch"], counts: Float[Array, "*#batch"]
    ) -> Float[Array, "*#batch"]:
        """E[u | y]: how much a row weighs in mean and scatter."""

    @abc.abstractmethod
    def cdf(self, units: Float[Array, "*#batch"]) -> Float[Array, "*#batch"]:
        """P(x / sqrt(u) < units) for one entry of scatter 1."""

    @abc.abstractmethod
    def draw_scales(self, shape: tuple[int, ...], *, key: PRNGKeyArray) -> Array:
        """Draws of 1 / sqrt(u)."""


class GaussianTails(Tails):
    """u = 1: rows are normal within a regime."""

    @property
    def cov_factor(self) -> Float[Array, ""]:
        return as_scalar(1.0)

    @property
    def sums_keep_the_law(self) -> bool:
        return True

    def log_densities(
        self,
        distances: Float[Array, "*#batch"],
        log_dets: Float[Array, "*#batch"],
        counts: Float[Array, "*#batch"],
    ) -> Float[Array, "*#batch"]:
        return -0.5 * (counts * jnp.log(2.0 * jnp.pi) + log_dets + distances)

    def precisions(
        self, distances: Float[Array, "*#batch"], counts: Float[Array, "*#batch"]
    ) -> Float[Array, "*#batch"]:
        return jnp.ones_like(distances)

    def cdf(self, units: Float[Array, "*#batch"]) -> Float[Array, "*#batch"]:
        return ndtr(units)

    def draw_scales(self, shape: tuple[int, ...], *, key: PRNGKeyArray) -> Array:
        return jnp.ones(shape)


class StudentTails(Tails):
    """u ~ Gamma(v / 2, rate v / 2): rows are multivariate t with v degrees of freedom, given.

    A row far from the mean of its regime counts less, by E[u | y] = (v + n) / (v + distance) for n
    observed entries, so that a lone outlier does not make a regime.

    **Raises:** `ValueError` for 2 degrees of freedom or less, which have no covariance.

    Source: Lange, Little and Taylor (1989); with missing entries Liu and Rubin (1995).
    """

    degrees: Float[Array, ""] = eqx.field(converter=as_scalar, default=6.0)

    def __check_init__(self):
        try:
            degrees = float(self.degrees)
        except TypeError:  # traced: a value to be chosen inside a program
            return
        if not degrees > 2.0:
            raise ValueError(f"degrees must exceed 2, got {degrees:g}: the law has no covariance.")

    @property
    def cov_factor(self) -> Float[Array, ""]:
        return self.degrees / (self.degrees - 2.0)

    @property
    def sums_keep_the_law(self) -> bool:
        return False

    def log_densities(
        self,
        distances: Float[Array, "*#batch"],
        log_dets: Float[Array, "*#batch"],
        counts: Float[Array, "*#batch"],
    ) -> Float[Array, "*#batch"]:
        v = self.degrees.astype(distances.dtype)
        level = gammaln(0.5 * (v + counts)) - gammaln(0.5 * v)
        level = level - 0.5 * (counts * jnp.log(v * jnp.pi) + log_dets)
        return level - 0.5 * (v + counts) * jnp.log1p(distances / v)

    def precisions(
        self, distances: Float[Array, "*#batch"], counts: Float[Array, "*#batch"]
    ) -> Float[Array, "*#batch"]:
        v = self.degrees.astype(distances.dtype)
        return (v + counts) / (v + distances)

    def cdf(self, units: Float[Array, "*#batch"]) -> Float[Array, "*#batch"]:
        v = self.degrees.astype(units.dtype)
        beyond = 0.5 * betainc(0.5 * v, jnp.asarray(0.5, units.dtype), v / (v + units**2))
        return jnp.where(units > 0, 1.0 - beyond, beyond)

    def draw_scales(self, shape: tuple[int, ...], *, key: PRNGKeyArray) -> Array:
        half = 0.5 * self.degrees
        return jnp.sqrt(half / jax.random.gamma(key, half, shape))
