r"""The training step of the tiny recursive network against the same one in PyTorch, and how long a
forecast takes.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_recursive.py [--quick] [--save] \
        [--compile-torch]

float32, one thread each, 8 assets, windows of 32 days, batches of 128, width 32, two blocks, three
inner steps, two cycles, four steps of supervision: the defaults of `RecursiveNet`. Both start from
the same weights. Before anything is timed, outputs, losses and the norm of the gradient are
asserted to agree in float64, and so are the weights after three steps on the same examples.

Table `recursive`: CPU milliseconds of a step as training runs it (examples drawn and gathered,
states carried in slots, forward, backward, clipping, AdamW, averaged weights), ours and theirs in
turn; ours ten steps to a compiled call, theirs a loop in Python, `torch_compiled_ms` with the
network under `torch.compile`. `compile_s` is what ours takes to trace and compile.

Table `recursive_inference`: a forecast from raw values, through `jaxfc.evaluation.latency` (wall
clock): one window of 32 days a call, and 1,000 windows in one; `gain` is the throughput of the
latter over that of the former. `cpu_ms` and `torch_cpu_ms` are CPU time of one window, theirs the
network alone.
"""

import argparse
import os

os.environ.setdefault("NPROC", "16")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from recursive_torch import Block, Decaying, Examples, Patches, RecursiveNetwork, Trainer
from timing import compile_seconds, cpu_seconds, report

from jaxfc.evaluation.latency import latency
from jaxfc.recursive import FittedNetwork, NetworkModel, RecursiveNet, Training
from jaxfc.recursive.layers import gated_width
from jaxfc.recursive.model import Prepared
from jaxfc.recursive.nets import Recursive
from jaxfc.recursive.train import train_step
from jaxfc.recursive.training import TrainingState, start_training
from jaxfc.typing import Array, Bool, Float

NUM_DAYS, NUM_ASSETS, WINDOW, BATCH = 2000, 8, 32, 128
STEPS_PER_CALL = 10
NUM_WINDOWS = 1000
MIXINGS = ("tokens", "attention", "none")
KEY = jax.random.key(0)
OPTIONS = {
    "num_steps": 1000,
    "warm_up": 100,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "largest_norm": 1.0,
    "average": 0.99,
}


def returns() -> np.ndarray:
    """Returns of a common factor whose volatility persists."""
    rng = np.random.default_rng(0)
    level = np.zeros(NUM_DAYS)
    for t in range(1, NUM_DAYS):
        level[t] = 0.97 * level[t - 1] + 0.15 * rng.normal()
    common = rng.normal(size=(NUM_DAYS, 1)) + 0.8 * rng.normal(size=(NUM_DAYS, NUM_ASSETS))
    return (np.exp(level)[:, None] * common).astype(np.float32)


class Ours:
    """Our network, its examples and its training."""

    def __init__(self, mixing: str, values: np.ndarray):
        heads = 4 if mixing == "attention" else 1
        architecture = RecursiveNet(mixing=mixing, num_heads=heads)
        self.training = Training(batch_size=BATCH, validation=0.0, **OPTIONS)
        self.model = NetworkModel(architecture, 1, WINDOW, training=self.training)
        self.values = jnp.asarray(values)
        self.observed = jnp.ones(values.shape, bool)
        self.prepared: Prepared = self.model.prepare(self.values, self.observed)
        network = self.model.build(self.prepared, key=KEY)
        assert isinstance(network, Recursive)
        # The readout starts at zero, where outputs say nothing of the rest.
        weight = 0.1 * jax.random.normal(KEY, network.readout.linear.weight.shape)
        self.network = eqx.tree_at(lambda net: net.readout.linear.weight, network, weight)

    def start(self) -> TrainingState:
        """The state before the first step."""
        return start_training(self.network, self.prepared.task, self.training)

    def steps(self, state: TrainingState, key: Array) -> TrainingState:
        """Ten steps of the loop of training."""

        def one(state: TrainingState, _: None):
            key_of_step = jax.random.fold_in(key, state.step)
            return train_step(state, self.prepared.task, self.training, key=key_of_step)

        return jax.lax.scan(one, state, None, length=STEPS_PER_CALL)[0]

    def fitted(self) -> FittedNetwork:
        """A model that forecasts with these weights."""
        return self.model.finish(self.prepared, jax.tree.map(lambda leaf: leaf[None], self.start()))


def tensor(array: Array) -> torch.Tensor:
    """The same numbers in PyTorch."""
    return torch.tensor(np.asarray(array))  # a copy: JAX's memory is not to be written to


def weights_of(network: Recursive) -> dict[str, Array]:
    """Arrays of our network under the names that PyTorch gives its own."""
    core, encoder = network.core, network.encoder
    found = {
        "first_answer": core.first_answer,
        "first_latent": core.first_latent,
        "readout.weight": network.readout.linear.weight,
        "readout.bias": network.readout.linear.bias,
    }
    for i, block in enumerate(core.blocks):
        parts = {"channels": block.channels} | ({"mix": block.mix} if block.mix else {})
        for part, layer in parts.items():
            for name in ("gate_up", "down", "query_key_value", "output"):
                if hasattr(layer, name):
                    found[f"blocks.{i}.{part}.{name}.weight"] = getattr(layer, name).weight
    if hasattr(encoder, "embedding"):
        found["encoder.embedding.weight"] = encoder.embedding.weight
        found["encoder.first_token"] = encoder.first_token
    else:
        found["encoder.log_rates"] = encoder.log_rates
        for name in ("inputs", "hidden", "output"):
            found[f"encoder.{name}.weight"] = getattr(encoder, name).weight
        found["encoder.hidden.bias"] = encoder.hidden.bias
    return found


def theirs(ours: Ours) -> Trainer:
    """The same network in PyTorch with the same weights, on the same examples."""
    options, sizes, task = ours.model.architecture, ours.prepared.sizes, ours.prepared.task
    alone = options.mixing == "none"
    num_tokens = 1 if alone else WINDOW // options.patch + 1
    encoder = (
        Decaying(sizes.num_inputs, options.width)
        if alone
        else Patches(sizes.num_inputs, options.width, options.patch)
    )
    blocks = [
        Block(
            num_tokens,
            options.width,
            options.mixing,
            options.num_heads,
            lambda width: gated_width(width, 4.0, 8),
        )
        for _ in range(options.num_blocks)
    ]
    counts = options.num_inner, options.num_cycles, options.num_supervision
    network = RecursiveNetwork(encoder, blocks, options.width, sizes.outputs, counts)
    network = network.to(tensor(task.features).dtype)
    weights = {name: tensor(array) for name, array in weights_of(ours.network).items()}
    missing = network.load_state_dict(weights, strict=False)
    # Tables of sines are theirs alone.
    assert not missing.unexpected_keys
    assert all(name.endswith((".cos", ".sin")) for name in missing.missing_keys)
    features = tensor(task.features).permute(1, 2, 0).unfold(2, WINDOW, 1).permute(2, 3, 0, 1)
    num = task.num_examples
    examples = Examples(
        windows=features[:num],
        targets=tensor(task.values)[WINDOW : WINDOW + num, None],
        mean=tensor(task.moments.location[0]),
        std=tensor(task.moments.scale[0]),
    )
    return Trainer(network, examples, OPTIONS, BATCH)


def assert_parity(mixing: str, values: np.ndarray) -> None:
    """Outputs, losses, the first gradient's norm, and weights after three steps on the same
    examples; in float64, as so deep a net makes much of the last digit."""
    with jax.enable_x64(True):
        ours = Ours(mixing, values.astype(np.float64))
        peer, state, task = theirs(ours), ours.start(), ours.prepared.task
        inputs, _ = jax.vmap(task.example)(jnp.arange(5))
        with torch.inference_mode():
            found = peer.network.outputs(peer.examples.windows[:5], peer.y.shape[1])
        mine = jax.jit(jax.vmap(ours.network.outputs))(inputs)
        np.testing.assert_allclose(mine, found, rtol=1e-7, atol=1e-9)
        step = jax.jit(lambda state, key: train_step(state, task, ours.training, key=key))
        for number in range(3):
            state, result = step(state, jax.random.fold_in(KEY, number))
            loss = peer.step(tensor(state.slots.example).long())
            np.testing.assert_allclose(result.loss, loss, rtol=1e-6)
            if number == 0:
                squares = [parameter.grad.square().sum() for parameter in peer.parameters]
                clipped = min(float(result.gradient), OPTIONS["largest_norm"])
                np.testing.assert_allclose(clipped, float(sum(squares)) ** 0.5, rtol=1e-5)
        trained = weights_of(state.network)
        for name, parameter in peer.network.named_parameters():
            weight = parameter.detach()
            np.testing.assert_allclose(trained[name], weight, rtol=1e-5, atol=1e-7, err_msg=name)


def training_row(mixing: str, values: np.ndarray, compile_torch: bool) -> dict[str, object]:
    """Times of a step."""
    assert_parity(mixing, values)
    ours = Ours(mixing, values)
    state = ours.start()
    program, compiling = compile_seconds(ours.steps, state, KEY)
    peers = {"torch": theirs(ours)}
    if compile_torch:
        peers["torch_compiled"] = theirs(ours)
        peers["torch_compiled"].network = torch.compile(peers["torch_compiled"].network)
    runs = {"ours": lambda: program(state, KEY)}
    for name, peer in peers.items():
        runs[name] = lambda peer=peer: peer.steps(STEPS_PER_CALL)
    taken = {name: 1e3 * s / STEPS_PER_CALL for name, s in cpu_seconds(runs).items()}
    row: dict[str, object] = {
        "mixing": mixing,
        "parameters": sum(p.numel() for p in peers["torch"].parameters),
        "ours_ms": taken["ours"],
        "torch_ms": taken["torch"],
        "ratio": taken["torch"] / taken["ours"],
        "compile_s": compiling,
    }
    if compile_torch:
        row["torch_compiled_ms"] = taken["torch_compiled"]
    return row


class NextDay(eqx.Module):
    """Mean and standard deviation of the day after a window of raw values."""

    fitted: FittedNetwork

    def __call__(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[Array, Array]:
        forecast = self.fitted.given(values, observed).forecast(1)
        return forecast.mean, forecast.std


class NextDays(eqx.Module):
    """The same for many windows."""

    one: NextDay

    def __call__(self, values: Array, observed: Array) -> tuple[Array, Array]:
        return jax.vmap(self.one)(values, observed)


def inference_row(mixing: str, values: np.ndarray, num_calls: int) -> dict[str, object]:
    """Times of a forecast."""
    ours = Ours(mixing, values)
    one = NextDay(eqx.filter_jit(ours.fitted)())
    views = np.lib.stride_tricks.sliding_window_view(values[: NUM_WINDOWS + WINDOW - 1], WINDOW, 0)
    windows = jnp.asarray(views.transpose(0, 2, 1))
    seen = jnp.ones(windows.shape, bool)
    single = latency(one, windows[0], seen[0], num_calls=num_calls)
    batch = latency(NextDays(one), windows, seen, num_calls=max(num_calls // 20, 5))
    program = jax.jit(lambda values, observed: one(values, observed))
    peer = theirs(ours)
    features, num_tokens = peer.examples.windows[:1].contiguous(), peer.y.shape[1]

    def torch_one():
        with torch.inference_mode():
            return peer.network.outputs(features, num_tokens).numpy()

    taken = cpu_seconds({"ours": lambda: program(windows[0], seen[0]), "torch": torch_one})
    return {
        "mixing": mixing,
        "one_ms": 1e3 * single.median,
        "one_99_ms": 1e3 * single.tail,
        "one_best_ms": 1e3 * single.best,
        "of_1000_ms": 1e3 * batch.median / NUM_WINDOWS,
        "gain": NUM_WINDOWS * single.median / batch.median,
        "cpu_ms": 1e3 * taken["ours"],
        "torch_cpu_ms": 1e3 * taken["torch"],
        "compile_s": single.tracing + single.compiling,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one form of the network")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--compile-torch", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    values = returns()
    mixings = MIXINGS[:1] if options.quick else MIXINGS
    rows = [training_row(mixing, values, options.compile_torch) for mixing in mixings]
    report("recursive", rows, "torch", save=options.save)
    rows = [inference_row(mixing, values, 50 if options.quick else 1000) for mixing in mixings]
    report("recursive_inference", rows, "torch", save=options.save)


if __name__ == "__main__":
    main()
