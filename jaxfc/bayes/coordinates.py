"""Coordinates in which the posterior of a factor model is easy to walk.

The likelihood does not change when factors are multiplied by a matrix and loadings by its inverse,
and hardly when the mean of the factors moves and the intercepts follow. Walked as they stand,
factors of unit variance and loadings of scale tau_k must then move together over a long narrow
ridge, and what is forecast (the common variance, tau_k^2 times squares of loadings over tau_k) is a
slow quantity. In the coordinates

    factors: (z_t + u) tau,  u = (W'OW + I)^{-1} W'O a,      loadings: w_k / tau_k,

with a the intercepts and O the precisions of the assets, a move of tau_k or of a alone hardly
changes the fit but only what is forecast. Where no scale is learnt, loadings are walked as W C with
Z'Z/T = C C', and mean intercepts as their sum with (mean loading) z-bar, which keep the fit as
Z moves.

The law of the parameters stays what it is: coordinates are the map from unconstrained numbers that
the support of a law names, and its Jacobian is part of the density.
"""

# NumPyro types its classes for arrays of any library and attributes as properties.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from numpyro import distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from jaxfc.typing import Array, Float


class BesideFactors(constraints.Constraint):
    """Real loadings (series, factors), walked relative to the size of the factors."""

    event_dim = 2

    def __init__(self, root: Float[Array, "factors factors"]):
        self.root = root

    def __call__(self, x: Array) -> Array:
        return jnp.all(jnp.isfinite(x), axis=(-2, -1))

    def tree_flatten(self):
        return (self.root,), (("root",), {})


class Shifted(constraints.Constraint):
    """Real numbers, walked as their sum with `shift`."""

    event_dim = 1

    def __init__(self, shift: Float[Array, " size"]):
        self.shift = shift

    def __call__(self, x: Array) -> Array:
        return jnp.all(jnp.isfinite(x), axis=-1)

    def tree_flatten(self):
        return (self.shift,), (("shift",), {})


class FromBesideFactors(Transform):
    """W = W~ C^{-1}, ln|dW/dW~| = -N ln|C|."""

    domain = constraints.real_matrix

    def __init__(self, root: Float[Array, "factors factors"]):
        self.root = root

    def __call__(self, x: Array) -> Array:
        # y C = x.
        return solve_triangular(self.root, x.T, lower=True, trans=1).T

    def _inverse(self, y: Array) -> Array:
        return y @ self.root

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: None = None) -> Array:
        return -x.shape[-2] * jnp.sum(jnp.log(jnp.diagonal(self.root)))

    def tree_flatten(self):
        return (self.root,), (("root",), {})


class FromShifted(Transform):
    """y = x - shift."""

    domain = constraints.real_vector

    def __init__(self, shift: Float[Array, " size"]):
        self.shift = shift

    def __call__(self, x: Array) -> Array:
        return x - self.shift

    def _inverse(self, y: Array) -> Array:
        return y + self.shift

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: None = None) -> Array:
        return jnp.zeros_like(jnp.sum(x))

    def tree_flatten(self):
        return (self.shift,), (("shift",), {})


class Stretched(constraints.Constraint):
    """Real matrices, walked as the sum of each row with `shift`, times `scale`."""

    event_dim = 2

    def __init__(self, scale: Float[Array, " factors"], shift: Float[Array, " factors"]):
        self.scale, self.shift = scale, shift

    def __call__(self, x: Array) -> Array:
        return jnp.all(jnp.isfinite(x), axis=(-2, -1))

    def tree_flatten(self):
        return (self.scale, self.shift), (("scale", "shift"), {})


class FromStretched(Transform):
    """y = x / scale - shift."""

    domain = constraints.real_matrix

    def __init__(self, scale: Float[Array, " factors"], shift: Float[Array, " factors"]):
        self.scale, self.shift = scale, shift

    def __call__(self, x: Array) -> Array:
        return x / self.scale - self.shift

    def _inverse(self, y: Array) -> Array:
        return (y + self.shift) * self.scale

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: None = None) -> Array:
        return -x.shape[-2] * jnp.sum(jnp.log(self.scale))

    def tree_flatten(self):
        return (self.scale, self.shift), (("scale", "shift"), {})


@biject_to.register(Stretched)
def matrix_from_stretched(constraint: Stretched) -> FromStretched:
    """The map of `Stretched`."""
    return FromStretched(constraint.scale, constraint.shift)


@biject_to.register(BesideFactors)
def loadings_from_coordinates(constraint: BesideFactors) -> FromBesideFactors:
    """The map of `BesideFactors`."""
    return FromBesideFactors(constraint.root)


@biject_to.register(Shifted)
def numbers_from_coordinates(constraint: Shifted) -> FromShifted:
    """The map of `Shifted`."""
    return FromShifted(constraint.shift)


class InCoordinates(dist.Distribution):
    """The law `base` walked in other coordinates."""

    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(self, base: dist.Distribution, coordinates: constraints.Constraint):
        self.base, self.coordinates = base, coordinates
        shape = base.batch_shape + base.event_shape
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.coordinates

    def log_prob(self, value: Array) -> Float[Array, ""]:
        return jnp.sum(self.base.log_prob(value))

    def sample(self, key: Array, sample_shape: tuple = ()) -> Array:
        return jnp.asarray(self.base.sample(key, sample_shape))


def root_of_path(factors: Float[Array, "time factors"]) -> Float[Array, "factors factors"]:
    """C with C C' = Z'Z/T."""
    return jnp.linalg.cholesky(factors.T @ factors / factors.shape[0])
