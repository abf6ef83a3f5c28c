"""One batch of factor models spread over several processes with `jax.distributed`.

    python -m experiments.distributed_batch --num-processes 2 --process-id 0 --address HOST:PORT
    python -m experiments.distributed_batch --num-processes 2 --process-id 1 --address HOST:PORT

Every process runs the same program on its own share of the paths and asks the others for theirs at
the end. `--num-processes 1` (the default) needs no address and gives the same bits.
"""

import argparse
import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxfc


@dataclasses.dataclass(frozen=True)
class Config:
    """A world, a model and a batch; `num_paths` is a multiple of the devices of all processes times
    `batch_size`, the paths that one device estimates side by side."""

    num_times: int = 100
    num_series: int = 20
    num_factors: int = 2
    missing: float = 0.2
    max_steps: int = 100
    num_paths: int = 512
    batch_size: int = 16
    seed: int = 0


QUICK = Config(num_times=30, num_series=6, num_factors=1, max_steps=10, num_paths=32, batch_size=8)


def estimate_paths(config: Config) -> dict[str, np.ndarray]:
    """Log-likelihood and steps of every path, on the host of every process."""
    world = jaxfc.FactorWorld(
        config.num_times, config.num_series, config.num_factors, 1, missing=config.missing
    )
    method = jaxfc.EM(max_steps=config.max_steps)
    model = jaxfc.DynamicFactorModel(config.num_factors, 1, method=method)

    def one(key):
        panel = world.sample(key=key)
        fitted = model.estimate(panel.values, panel.observed)
        return {"loglik": fitted.loglik, "num_steps": fitted.num_steps}

    def share(ids):
        """What one device does: its paths, `batch_size` at a time."""
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(ids)
        batches = keys.reshape(-1, config.batch_size)
        answers = jax.lax.map(jax.vmap(one), batches)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), answers)

    # jax.devices() are those of all processes; each process holds the rows of its own.
    mesh = Mesh(np.array(jax.devices()), ("paths",))
    spec = PartitionSpec("paths")
    rows = np.arange(config.num_paths, dtype=np.uint32)
    ids = jax.make_array_from_callback(rows.shape, NamedSharding(mesh, spec), lambda at: rows[at])
    spread = jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    answers = jax.jit(spread)(ids)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(answers, tiled=True))


def run(config: Config) -> dict[str, object]:
    """What process 0 prints: means, and a checksum of all bits."""
    answers = estimate_paths(config)
    content = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in answers.values())
    return {
        "num_processes": jax.process_count(),
        "num_devices": jax.device_count(),
        "num_paths": len(answers["loglik"]),
        "mean_loglik": float(jnp.mean(answers["loglik"])),
        "checksum": hashlib.sha256(content).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    parser.add_argument("--address", help="host and port of process 0")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.num_processes > 1:
        # For processes without GPUs; GPUs talk to each other by themselves.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.address, options.num_processes, options.process_id)
    said = run(QUICK if options.quick else Config())
    if jax.process_index() == 0:
        print(json.dumps(said))


if __name__ == "__main__":
    main()
