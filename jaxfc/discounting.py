"""Exponentially weighted sums over what is known."""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float


def discounted_sums(
    values: Float[Array, "time *rest"], known: Bool[Array, "time *rest"], decay: Array
) -> tuple[Float[Array, "time *rest"], Float[Array, "time *rest"]]:
    """Sums of the known values and of their weights, up to and with each row; what is not known is
    any number but NaN.

        a_t = decay a_{t-1} + x_t,  b_t = decay b_{t-1} + 1  where x_t is known, else unchanged;

    a_t / b_t is the weighted mean, with weights that add up to one from the start.
    """
    zero = jnp.zeros_like(values[0])

    def advance(sums, row):
        (total, mass), (value, came) = sums, row
        total = jnp.where(came, decay * total + value, total)
        mass = jnp.where(came, decay * mass + 1.0, mass)
        return (total, mass), (total, mass)

    _, sums = jax.lax.scan(advance, (zero, zero), (values, known))
    return sums
