"""The networks of `bench_recursive.py` in PyTorch, step for step what `jaxfc.recursive` does: the
recursion over (y, z) with gradients through its last cycle, slots that carry their states, clipped
AdamW with a schedule, averaged weights. Written for this benchmark, from the same equations."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_FLOOR = 1e-5
ROTARY_BASE = 1e4
LARGEST_LOG_SCALE = 6.0
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
DECAYS = 0.9, 0.95


def rms_normalised(values: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-5)."""
    return functional.rms_norm(values, values.shape[-1:], eps=NORM_FLOOR)


class SwiGLU(nn.Module):
    """x -> W_d (silu(W_g x) * W_u x)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        gate, up = self.gate_up(values).chunk(2, -1)
        return self.down(functional.silu(gate) * up)


class Attention(nn.Module):
    """Rotary attention without biases, by PyTorch's own fused function."""

    def __init__(self, num_tokens: int, width: int, num_heads: int):
        super().__init__()
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.num_heads = num_heads
        half = width // num_heads // 2
        speeds = ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(num_tokens)[:, None] * speeds
        self.register_buffer("cos", torch.cos(angles))
        self.register_buffer("sin", torch.sin(angles))

    def rotated(self, values: Tensor) -> Tensor:
        """Pairs (x_i, x_{i + half}) turned by position."""
        first, second = values.chunk(2, -1)
        turned = first * self.cos - second * self.sin, second * self.cos + first * self.sin
        return torch.cat(turned, -1)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, num_tokens, width = tokens.shape
        shape = batch, num_tokens, 3, self.num_heads, width // self.num_heads
        query, key, value = self.query_key_value(tokens).reshape(shape).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            self.rotated(query), self.rotated(key), value
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, num_tokens, width))


class Block(nn.Module):
    """h <- rms(h + mix(h)), h <- rms(h + SwiGLU(h))."""

    def __init__(self, num_tokens: int, width: int, mixing: str, num_heads: int, inner):
        super().__init__()
        self.channels = SwiGLU(width, inner(width))
        self.mix: nn.Module | None = None
        if mixing == "tokens":
            self.mix = SwiGLU(num_tokens, inner(num_tokens))
        elif mixing == "attention":
            self.mix = Attention(num_tokens, width, num_heads)

    def forward(self, hidden: Tensor) -> Tensor:
        if isinstance(self.mix, SwiGLU):
            turned = hidden.transpose(1, 2)
            hidden = rms_normalised(turned + self.mix(turned)).transpose(1, 2)
        elif self.mix is not None:
            hidden = rms_normalised(hidden + self.mix(hidden))
        return rms_normalised(hidden + self.channels(hidden))


class Patches(nn.Module):
    """Tokens linear in stretches of rows, behind one learned token."""

    def __init__(self, num_inputs: int, width: int, patch: int):
        super().__init__()
        self.embedding = nn.Linear(patch * num_inputs, width, bias=False)
        self.first_token = nn.Parameter(torch.zeros(width))
        self.patch = patch

    def forward(self, features: Tensor) -> Tensor:
        batch, num_rows = features.shape[:2]
        tokens = self.embedding(features.reshape(batch, num_rows // self.patch, -1))
        first = self.first_token.expand(batch, 1, -1)
        return torch.cat([first, tokens], 1)


class Decaying(nn.Module):
    """A diagonal linear recurrence and one layer around which it passes, as one token."""

    def __init__(self, num_inputs: int, width: int):
        super().__init__()
        self.log_rates = nn.Parameter(torch.zeros(width))
        self.inputs = nn.Linear(num_inputs, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.inputs(features.flatten(2))
        rates = torch.exp(self.log_rates)
        elapsed = torch.arange(rows.shape[1] - 1, -1, -1, dtype=rows.dtype)
        weights = torch.exp(-rates * elapsed[:, None])
        state = torch.sqrt(-torch.expm1(-2.0 * rates)) * (weights * rows).sum(1)
        gained = self.output(functional.gelu(self.hidden(state), approximate="tanh"))
        return (state + gained)[:, None]


class RecursiveNetwork(nn.Module):
    """Encoder, recursion and readout; the halting head is there and not trained, as in ours."""

    def __init__(self, encoder: nn.Module, blocks: list[Block], width: int, shape, counts):
        super().__init__()
        self.encoder, self.blocks = encoder, nn.Sequential(*blocks)
        self.readout = nn.Linear(width, math.prod(shape))
        self.register_buffer("first_answer", torch.zeros(width))
        self.register_buffer("first_latent", torch.zeros(width))
        self.shape = shape
        self.num_inner, self.num_cycles, self.num_supervision = counts

    def full_recursion(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """`num_inner` updates of z and one of y."""
        for _ in range(self.num_inner):
            z = self.blocks(y + z + x)
        return self.blocks(y + z), z

    def forward(self, features: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of supervision: outputs and the new state."""
        x = self.encoder(features)
        with torch.no_grad():
            for _ in range(self.num_cycles - 1):
                y, z = self.full_recursion(x, y, z)
        y, z = self.full_recursion(x, y, z)
        return self.readout(y.mean(1)).reshape(-1, *self.shape), y.detach(), z.detach()

    def start(self, batch: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """y and z before the first step."""
        return tuple(
            v.expand(batch, num_tokens, -1) for v in (self.first_answer, self.first_latent)
        )

    def outputs(self, features: Tensor, num_tokens: int) -> Tensor:
        """The outputs after all steps of supervision."""
        y, z = self.start(len(features), num_tokens)
        outputs = features
        for _ in range(self.num_supervision):
            outputs, y, z = self(features, y, z)
        return outputs


def gaussian_loss(outputs: Tensor, mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """Mean minus log density of normal laws that start at `mean` and `std`."""
    location = mean + std * outputs[..., 0]
    log_scale = LARGEST_LOG_SCALE * torch.tanh(outputs[..., 1] / LARGEST_LOG_SCALE)
    scale = std * torch.exp(log_scale)
    return (0.5 * ((target - location) / scale) ** 2 + torch.log(scale) + HALF_LOG_2PI).mean()


class Examples(NamedTuple):
    """Windows (a view), what follows each, and the moments that outputs refine."""

    windows: Tensor
    targets: Tensor
    mean: Tensor
    std: Tensor


class Trainer:
    """Slots of examples with their states, the optimiser and the averaged weights."""

    def __init__(self, network: RecursiveNetwork, examples: Examples, options: dict, batch: int):
        self.network, self.examples, self.options = network, examples, options
        parameters = list(network.parameters())
        matrices = [p for p in parameters if p.ndim >= 2]
        groups = [
            {"params": matrices, "weight_decay": options["weight_decay"]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=1.0, betas=DECAYS, fused=True)
        self.parameters = parameters
        self.averaged = [p.detach().clone() for p in parameters]
        num_tokens = network.encoder(examples.windows[:1]).shape[1]
        self.first = [v.contiguous() for v in network.start(batch, num_tokens)]
        self.y, self.z = (v.clone() for v in self.first)
        self.index = torch.zeros(batch, dtype=torch.long)
        self.taken = torch.full((batch,), network.num_supervision)
        self.number = 0

    def rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        warm_up, num_steps = self.options["warm_up"], self.options["num_steps"]
        rising = (self.number + 1) / max(warm_up, 1)
        share = min(max((self.number - warm_up) / max(num_steps - warm_up, 1), 0.0), 1.0)
        falling = 0.5 * (1.0 + math.cos(math.pi * share))
        return self.options["learning_rate"] * min(rising, falling)

    def step(self, drawn: Tensor | None = None) -> Tensor:
        """One step of the optimiser on the slots; `drawn` says which examples enter free ones."""
        examples, batch = self.examples, len(self.index)
        if drawn is None:
            drawn = torch.randint(len(examples.targets), (batch,))
        fresh = self.taken >= self.network.num_supervision
        self.index = torch.where(fresh, drawn, self.index)
        keep = fresh[:, None, None]
        y, z = (torch.where(keep, a, b) for a, b in zip(self.first, (self.y, self.z), strict=True))
        features = examples.windows[self.index]
        outputs, self.y, self.z = self.network(features, y, z)
        loss = gaussian_loss(outputs, examples.mean, examples.std, examples.targets[self.index])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.options["largest_norm"])
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.parameters, 1.0 - self.options["average"])
        self.taken = torch.where(fresh, 0, self.taken) + 1
        self.number += 1
        return loss.detach()

    def steps(self, num: int) -> float:
        """Several steps; the loss of the last."""
        for _ in range(num - 1):
            self.step()
        return float(self.step())
