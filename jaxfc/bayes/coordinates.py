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


class BesideFactors(Transform):
    """Loadings from their coordinates: W = W~ C^{-1}, ln|dW/dW~| = -N ln|C|, C the `root`."""

    domain = constraints.real_matrix
    codomain = constraints.real_matrix

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


class Shifted(Transform):
    """Numbers from their sum with `shift`: y = x - shift."""

    domain = constraints.real_vector
    codomain = constraints.real_vector

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


class Stretched(Transform):
    """Matrices from the sums of their rows with `shift`, times `scale`: y = x / scale - shift."""

    domain = constraints.real_matrix
    codomain = constraints.real_matrix

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


class Walked(constraints.Constraint):
    """Real arrays, walked in the coordinates that `transform` takes to them."""

    def __init__(self, transform: Transform):
        self.transform = transform
        self.event_dim = transform.codomain.event_dim

    def __call__(self, x: Array) -> Array:
        return jnp.asarray(self.transform.codomain(x))

    def tree_flatten(self):
        return (self.transform,), (("transform",), {})


@biject_to.register(Walked)
def transform_of(constraint: Walked) -> Transform:
    """The map that the constraint carries."""
    return constraint.transform


class InCoordinates(dist.Distribution):
    """The law `base` walked in other coordinates."""

    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(self, base: dist.Distribution, coordinates: Transform):
        self.base, self.coordinates = base, coordinates
        shape = base.batch_shape + base.event_shape
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Walked(self.coordinates)

    def log_prob(self, value: Array) -> Float[Array, ""]:
        return jnp.sum(self.base.log_prob(value))

    def sample(self, key: Array, sample_shape: tuple = ()) -> Array:
        return jnp.asarray(self.base.sample(key, sample_shape))


def root_of_path(factors: Float[Array, "time factors"]) -> Float[Array, "factors factors"]:
    """C with C C' = Z'Z/T."""
    return jnp.linalg.cholesky(factors.T @ factors / factors.shape[0])
