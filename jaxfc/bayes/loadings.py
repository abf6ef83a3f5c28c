"""Loadings that can be read: draws rotated to one another, then to principal axes.

The likelihood and an exchangeable law of the factors do not change when both are rotated, so draws
of loadings wander over all rotations, signs and orders. Each draw W_s is rotated to the mean,

    R_s = argmin |W_s R - M|_F = U V',   W_s' M = U D V',   M = mean_s W_s R_s,

again until the mean no longer moves (generalised orthogonal Procrustes); the mean is then turned to
principal axes in descending order, with signs by the sum of its columns or by an anchor. What no
rotation changes stays as it is.

Sources: Assmann, Boysen-Hogrefe and Pape (2016); Papastamoulis and Ntzoufras (2022) on the problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float


class Aligned(NamedTuple):
    """Draws in common coordinates: `loadings` and `factors`, with the `rotations` that led there
    (draws, factors, factors) and `distance`, the root mean square distance of a draw's loadings
    from their mean."""

    loadings: Float[Array, "draws series factors"]
    factors: Float[Array, "draws time factors"] | None
    rotations: Float[Array, "draws factors factors"]
    distance: Float[Array, ""]


def align_loadings(
    loadings: Float[Array, "draws series factors"],
    factors: Float[Array, "draws time factors"] | None = None,
    *,
    anchors: tuple[int, ...] | None = None,
    num_iterations: int = 8,
) -> Aligned:
    """Draws of loadings (and factors) rotated to one another.

    **Arguments:** `anchors`: for each factor the series whose mean loading is positive (None: the
    sum of the mean loadings is). Cost O(iterations x draws x series x factors^2).

    **Raises:** `ValueError` for a number of anchors other than the number of factors, an anchor
    that is no series, or no iteration.
    """
    _, num_series, num_factors = loadings.shape
    check_counts(num_iterations=num_iterations)
    if anchors is not None:
        if len(anchors) != num_factors:
            raise ValueError(f"{num_factors} factors need as many anchors, got {len(anchors)}.")
        for anchor in anchors:
            if not 0 <= anchor < num_series:
                raise ValueError(f"anchor {anchor} is none of the {num_series} series.")
    start = loadings[0]

    def improve(_: Array, mean: Array) -> Array:
        return jnp.mean(loadings @ rotations_to(loadings, mean), axis=0)

    mean = jax.lax.fori_loop(0, num_iterations, improve, start)
    axes = principal_axes(mean, anchors)
    rotations = rotations_to(loadings, mean) @ axes
    turned = loadings @ rotations
    gap = turned - jnp.mean(turned, axis=0)
    distance = jnp.sqrt(jnp.mean(jnp.sum(gap**2, axis=(1, 2))))
    return Aligned(turned, None if factors is None else factors @ rotations, rotations, distance)


def rotations_to(
    loadings: Float[Array, "draws series factors"], mean: Float[Array, "series factors"]
) -> Float[Array, "draws factors factors"]:
    """The orthogonal matrices that bring each draw nearest to `mean`."""
    left, _, right = jnp.linalg.svd(jnp.einsum("dia,ib->dab", loadings, mean))
    return left @ right


def principal_axes(
    mean: Float[Array, "series factors"], anchors: tuple[int, ...] | None
) -> Float[Array, "factors factors"]:
    """The rotation of `mean` to orthogonal columns of descending length, with signs."""
    _, _, right = jnp.linalg.svd(mean, full_matrices=False)
    axes = right.T
    turned = mean @ axes
    if anchors is None:
        sums = jnp.sum(turned, axis=0)
    else:
        sums = turned[jnp.asarray(anchors), jnp.arange(mean.shape[1])]
    return axes * jnp.where(sums < 0.0, -1.0, 1.0)
