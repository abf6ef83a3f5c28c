"""The tiny recursive network: one small net that refines an answer and its scratch pad."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.recursive.layers import (
    Attention,
    Linear,
    SwiGLU,
    cut_off_normal,
    gated_width,
    rms_normalised,
)
from jaxfc.typing import Array, Float, PRNGKeyArray

Mixing = Literal["tokens", "attention", "none"]
MIXINGS = ("tokens", "attention", "none")


class Block(eqx.Module):
    """h <- rms(h + mix(h)), h <- rms(h + SwiGLU(h)): norms after the sums, no biases, no gains.

    `mix` is `Attention`, a SwiGLU over the tokens (then the first norm is over the tokens too, as
    in the published program), or nothing.
    """

    mix: Attention | SwiGLU | None
    channels: SwiGLU

    def __init__(
        self,
        num_tokens: int,
        width: int,
        *,
        mixing: Mixing,
        num_heads: int,
        expansion: float,
        multiple: int,
        key: PRNGKeyArray,
    ):
        mix_key, key = jax.random.split(key)
        if mixing == "tokens":
            self.mix = SwiGLU(num_tokens, expansion, multiple, key=mix_key)
        else:
            self.mix = Attention(width, num_heads, key=mix_key) if mixing == "attention" else None
        self.channels = SwiGLU(width, expansion, multiple, key=key)

    def __call__(self, hidden: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        if isinstance(self.mix, SwiGLU):
            hidden = rms_normalised(hidden.T + self.mix(hidden.T)).T
        elif self.mix is not None:
            hidden = rms_normalised(hidden + self.mix(hidden))
        return rms_normalised(hidden + self.channels(hidden))


def made_blocks(
    keys: Array,
    num_tokens: int,
    width: int,
    *,
    mixing: Mixing,
    num_heads: int,
    expansion: float = 4.0,
    multiple: int = 8,
) -> tuple[Block, ...]:
    """A block for each key, all of one size."""
    options = {"mixing": mixing, "num_heads": num_heads}
    options |= {"expansion": expansion, "multiple": multiple}
    return tuple(Block(num_tokens, width, **options, key=key) for key in keys)


class Thought(NamedTuple):
    """Where a recursion stands: the embedded answer y and the latent scratch pad z."""

    answer: Float[Array, "tokens width"]
    latent: Float[Array, "tokens width"]


class TinyRecursiveNet(eqx.Module):
    """One net of a few blocks, in both roles of a recursion over (y, z) given the embedded input x.

        z <- net(z + y + x)     `num_inner` times
        y <- net(y + z)         once

    These `num_inner` + 1 evaluations are one full recursion; `refine` makes `num_cycles` of them,
    of which only the last has gradients: weights and inputs of the others are held constant. The
    next `refine` starts from the y and z of the last, held constant too (deep supervision: each has
    a loss and a step of the optimiser of its own).

    `mixing` "tokens" mixes a fixed, small number of tokens by a SwiGLU over them; "attention" takes
    any number, with rotary positions; "none" leaves tokens by themselves (one token: a net of
    vectors). y and z start from one random vector each, which is not trained. The halting head is
    linear in token 0 of y, its weights zero and its bias `halt_bias` at first; the published
    program starts at -5.

    **Raises:** `ValueError` for counts below one, an unknown mixing, and a width that the heads of
    attention do not divide.

    Source: Jolicoeur-Martineau (2025), "Less is more: recursive reasoning with tiny networks".
    """

    blocks: tuple[Block, ...]
    first_answer: Float[Array, " width"]
    first_latent: Float[Array, " width"]
    halting: Linear
    num_inner: int = eqx.field(static=True)
    num_cycles: int = eqx.field(static=True)

    def __init__(
        self,
        num_tokens: int,
        width: int,
        *,
        num_blocks: int = 2,
        num_inner: int = 6,
        num_cycles: int = 3,
        mixing: Mixing = "tokens",
        num_heads: int = 1,
        expansion: float = 4.0,
        multiple: int = 8,
        halt_bias: float = -3.0,
        key: PRNGKeyArray,
    ):
        check_recursion(num_tokens, width, num_blocks, num_inner, num_cycles, num_heads, mixing)
        block_key, answer_key, latent_key = jax.random.split(key, 3)
        self.blocks = made_blocks(
            jax.random.split(block_key, num_blocks),
            num_tokens,
            width,
            mixing=mixing,
            num_heads=num_heads,
            expansion=expansion,
            multiple=multiple,
        )
        self.first_answer = cut_off_normal((width,), 1.0, key=answer_key)
        self.first_latent = cut_off_normal((width,), 1.0, key=latent_key)
        halting = Linear(width, 1, bias=True, key=None)
        bias = jnp.full(1, halt_bias, self.first_answer.dtype)
        self.halting = eqx.tree_at(lambda layer: layer.bias, halting, bias)
        self.num_inner, self.num_cycles = num_inner, num_cycles

    def start(self, num_tokens: int) -> Thought:
        """y and z before the first refinement."""
        size = num_tokens, self.first_answer.shape[0]
        first = jax.lax.stop_gradient((self.first_answer, self.first_latent))
        return Thought(*(jnp.broadcast_to(vector, size) for vector in first))

    def apply(self, hidden: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        """The net once."""
        for block in self.blocks:
            hidden = block(hidden)
        return hidden

    def full_recursion(self, embedded: Float[Array, "tokens width"], thought: Thought) -> Thought:
        """`num_inner` updates of z and one of y, with gradients."""

        # One net in both roles is one piece of program: x is added, or it is not.
        def update(thought: Thought, is_answer: Array) -> tuple[Thought, None]:
            answer, latent = thought
            new = self.apply(answer + latent + jnp.where(is_answer, 0.0, embedded))
            answer = jnp.where(is_answer, new, answer)
            return Thought(answer, jnp.where(is_answer, latent, new)), None

        roles = jnp.arange(self.num_inner + 1) == self.num_inner
        return jax.lax.scan(update, thought, roles)[0]

    def refine(self, embedded: Float[Array, "tokens width"], thought: Thought) -> Thought:
        """`num_cycles` full recursions from `thought`, gradients through the last alone."""
        # Weights and inputs are held, not outputs: nothing then depends on dead code being found.
        frozen, still, thought = jax.lax.stop_gradient((self, embedded, thought))

        def cycle(thought: Thought, _: None) -> tuple[Thought, None]:
            return frozen.full_recursion(still, thought), None

        thought, _ = jax.lax.scan(cycle, thought, None, length=self.num_cycles - 1)
        return self.full_recursion(embedded, thought)

    def halt_logit(self, answer: Float[Array, "tokens width"]) -> Float[Array, ""]:
        """Log-odds that no further refinement is needed."""
        return self.halting(answer[0])[0]

    @property
    def depth(self) -> int:
        """Blocks that one refinement passes through."""
        return self.num_cycles * (self.num_inner + 1) * len(self.blocks)


def check_recursion(
    num_tokens: int,
    width: int,
    num_blocks: int,
    num_inner: int,
    num_cycles: int,
    num_heads: int,
    mixing: Mixing,
) -> None:
    """Raise `ValueError` for sizes that make no recursive net."""
    check_counts(
        num_tokens=num_tokens,
        width=width,
        num_blocks=num_blocks,
        num_inner=num_inner,
        num_cycles=num_cycles,
        num_heads=num_heads,
    )
    if mixing not in MIXINGS:
        raise ValueError(f"mixing must be one of {MIXINGS}, got {mixing!r}.")


def num_parameters(
    num_tokens: int,
    width: int,
    *,
    num_blocks: int = 2,
    mixing: Mixing = "tokens",
    expansion: float = 4.0,
    multiple: int = 8,
) -> int:
    """Trained numbers of a `TinyRecursiveNet`: its blocks and the halting head.

        num_blocks (3 D I(D) + m) + D + 1,   m = 3 L I(L) "tokens", 4 D^2 "attention", 0 "none"

    with D = `width`, L = `num_tokens` and I the width inside a SwiGLU (`gated_width`).
    """
    mixes = {
        "tokens": 3 * num_tokens * gated_width(num_tokens, expansion, multiple),
        "attention": 4 * width**2,
        "none": 0,
    }
    block = 3 * width * gated_width(width, expansion, multiple) + mixes[mixing]
    return num_blocks * block + width + 1
