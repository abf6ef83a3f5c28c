"""Earlier values of a series: as columns beside it, and as the history of a recursion."""

import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float


def lagged(
    values: Float[Array, "time *rest"] | Bool[Array, "time *rest"], lag: int
) -> Float[Array, "time *rest"] | Bool[Array, "time *rest"]:
    """Row t holds values[t - lag], zero (False) before the first."""
    pad = ((lag, 0),) + ((0, 0),) * (values.ndim - 1)
    return jnp.pad(values, pad)[: values.shape[0]]


def push(history: Float[Array, "lags *rest"], value: Array) -> Float[Array, "lags *rest"]:
    """`value` in front, the oldest dropped."""
    return jnp.concatenate([value[None], history])[: history.shape[0]]
