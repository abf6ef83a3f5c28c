"""Paths of first-order autoregressions from the noise that drives them."""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float


def path_after(
    last: Float[Array, "*columns"], shocks: Float[Array, "time *columns"], phi: Float[Array, "..."]
) -> Float[Array, "time *columns"]:
    """x_t = phi x_{t-1} + shocks_t, t = 1.., from x_0 = `last`."""

    def advance(last: Array, shock: Array) -> tuple[Array, Array]:
        here = phi * last + shock
        return here, here

    return jax.lax.scan(advance, last, shocks)[1]


def stationary_path(
    noise: Float[Array, "time *columns"],
    phi: Float[Array, "*columns"],
    sigma: Float[Array, "*columns"],
) -> Float[Array, "time *columns"]:
    """x_t = phi x_{t-1} + sigma e_t from its stationary law, e = standard normal `noise`."""
    first = noise[0] / jnp.sqrt(1.0 - phi**2)
    return sigma * jnp.concatenate([first[None], path_after(first, noise[1:], phi)])
