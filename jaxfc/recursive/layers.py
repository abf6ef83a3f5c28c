"""Layers of small networks as modules of arrays alone, so that a fitted model can be saved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float, PRNGKeyArray

# Added to the mean square before its root is taken.
NORM_FLOOR = 1e-5
ROTARY_BASE = 1e4
# Standard deviation of a standard normal variable that is cut off at plus and minus two.
CUT_OFF_STD = 0.87962566103423978


def rms_normalised(values: Float[Array, "*rest width"]) -> Float[Array, "*rest width"]:
    """x / sqrt(mean(x^2) + 1e-5) over the last axis, without a learned gain (Zhang and Sennrich
    2019)."""
    square = jnp.mean(values**2, axis=-1, keepdims=True)
    return values * jax.lax.rsqrt(square + NORM_FLOOR)


def cut_off_normal(
    shape: tuple[int, ...], std: float, *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Normal draws cut off at two sigma, rescaled so that their standard deviation is `std`."""
    draws = jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.result_type(float))
    return draws * (std / CUT_OFF_STD)


class Linear(eqx.Module):
    """y = W x (+ b) over the last axis; W of standard deviation 1 / sqrt(inputs) or zero, b = 0."""

    weight: Float[Array, "outputs inputs"]
    bias: Float[Array, " outputs"] | None

    def __init__(
        self, num_inputs: int, num_outputs: int, *, bias: bool = False, key: PRNGKeyArray | None
    ):
        """`key` None: a layer of zeros."""
        size = num_outputs, num_inputs
        zeros = jnp.zeros(size, jnp.result_type(float))
        std = 1.0 / np.sqrt(num_inputs)
        self.weight = zeros if key is None else cut_off_normal(size, std, key=key)
        self.bias = zeros[:, 0] if bias else None

    def __call__(self, values: Float[Array, "*rest inputs"]) -> Float[Array, "*rest outputs"]:
        answer = values @ self.weight.T
        return answer if self.bias is None else answer + self.bias


def gated_width(width: int, expansion: float, multiple: int) -> int:
    """Width inside `SwiGLU`: 2/3 of `expansion` times `width`, rounded up to a `multiple`."""
    return -(-round(expansion * width * 2 / 3) // multiple) * multiple


class SwiGLU(eqx.Module):
    """x -> W_d (silu(W_g x) * W_u x) over the last axis (Shazeer 2020); `gate_up` stacks W_g on
    W_u."""

    gate_up: Linear
    down: Linear

    def __init__(self, width: int, expansion: float, multiple: int, *, key: PRNGKeyArray):
        up_key, down_key = jax.random.split(key)
        inner = gated_width(width, expansion, multiple)
        self.gate_up = Linear(width, 2 * inner, key=up_key)
        self.down = Linear(inner, width, key=down_key)

    def __call__(self, values: Float[Array, "*rest width"]) -> Float[Array, "*rest width"]:
        gate, up = jnp.split(self.gate_up(values), 2, axis=-1)
        return self.down(jax.nn.silu(gate) * up)


def rotated(values: Float[Array, "tokens heads size"]) -> Float[Array, "tokens heads size"]:
    """Rotary positions: the pair (x_i, x_{i + size/2}) of token t turned by t / 10^4^(2 i / size)
    (Su et al. 2021)."""
    num_tokens, _, size = values.shape
    half = size // 2
    speeds = ROTARY_BASE ** (-jnp.arange(half, dtype=values.dtype) / half)
    angles = (jnp.arange(num_tokens, dtype=values.dtype)[:, None] * speeds)[:, None, :]
    first, second = values[..., :half], values[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(eqx.Module):
    """Every token looks at every token: softmax(Q K' / sqrt(size)) V by head, rotary positions."""

    query_key_value: Linear
    output: Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, *, key: PRNGKeyArray):
        if width % (2 * num_heads):
            raise ValueError(
                f"rotary attention turns pairs within each head: width {width} is no multiple of "
                f"2 * num_heads = {2 * num_heads}."
            )
        in_key, out_key = jax.random.split(key)
        self.query_key_value = Linear(width, 3 * width, key=in_key)
        self.output = Linear(width, width, key=out_key)
        self.num_heads = num_heads

    def __call__(self, tokens: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        num_tokens, width = tokens.shape
        size = width // self.num_heads
        parts = self.query_key_value(tokens).reshape(num_tokens, 3, self.num_heads, size)
        query, key = rotated(parts[:, 0]), rotated(parts[:, 1])
        logits = jnp.einsum("ihs,jhs->hij", query, key) / np.sqrt(size)
        mixed = jnp.einsum("hij,jhs->ihs", jax.nn.softmax(logits, axis=-1), parts[:, 2])
        return self.output(mixed.reshape(num_tokens, width))
