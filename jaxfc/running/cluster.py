"""Studies and backtests on more than one machine: every chunk is a task of Ray, which finds it a
place, and runs it again if its machine is lost."""

import os
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from jaxfc.running.engines import Job, Runner, Todo

# Tasks that wait in line, so that no worker is idle while results are written.
NUM_WAITING = 2
# The compiled programs of the job that this worker process is at.
RUNNERS: dict[str, Runner] = {}
# What numbers and compilation depend on beside the environment.
CONFIGURED = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@dataclass(frozen=True)
class Ray:
    """Chunks of a study or a backtest as tasks of a Ray cluster (extra `cluster`).

    `num_cpus`, `num_gpus` of one task; None: one GPU where the cluster has any. A task that is lost
    with its machine is run again up to `max_retries` times. `address` of the cluster; None: the
    session that this process is connected to, or that `RAY_ADDRESS` names, or a new one on this
    machine. The workers get JAX's settings and `JAX_*`, `XLA_*` and `NPROC` of the environment from
    here; jaxfc has to be installed where they run. The results are the bits that `Local` gives on
    the same kind of device.
    """

    num_cpus: float = 1
    num_gpus: float | None = None
    max_retries: int = 3
    address: str | None = None

    def compute(self, job: Job, todo: Todo) -> Iterator[tuple[int, int, Any]]:
        """Cell, chunk and answer as they come in.

        **Raises:** `ModuleNotFoundError` without Ray; `ValueError` if no machine is large enough
        for a task; `RuntimeError` that names cell and chunk for a task that fails or is lost.
        """
        ray = import_ray()
        started = not ray.is_initialized()
        if started:
            with warnings.catch_warnings():
                # JAX warns of every fork; Ray's are followed by another program at once.
                warnings.filterwarnings("ignore", message=r"os\.fork\(\)", category=RuntimeWarning)
                ray.init(address=self.address, log_to_driver=False)
        running: dict[Any, tuple[int, int]] = {}
        try:
            submit = self.submitter(ray, job)
            while True:
                for cell, chunk in take(todo, self.num_slots(ray) + NUM_WAITING - len(running)):
                    running[submit(cell, chunk)] = cell, chunk
                if not running:
                    return
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                cell, chunk = running.pop(ready)
                yield cell, chunk, fetch(ray, ready, job, cell, chunk)
        finally:
            for task in running:
                ray.cancel(task)
            if started:
                ray.shutdown()

    def submitter(self, ray: Any, job: Job) -> Any:
        """The function that makes a task of a cell and chunk."""
        remote = ray.remote(
            num_cpus=self.num_cpus,
            num_gpus=self.gpus(ray),
            max_retries=self.max_retries,
            max_calls=0,  # a worker keeps its compiled programs
            runtime_env={"env_vars": settings()},
        )(compute_chunk)
        name, kept = uuid.uuid4().hex, ray.put(job)
        # In a list, so that a worker which knows the job does not fetch it.
        return lambda cell, chunk: remote.remote(name, [kept], cell, chunk)

    def gpus(self, ray: Any) -> float:
        """GPUs of one task."""
        if self.num_gpus is not None:
            return self.num_gpus
        return 1 if any(node.get("GPU", 0) >= 1 for node in machines(ray)) else 0

    def num_slots(self, ray: Any) -> int:
        """How many tasks the cluster can run at a time, now."""
        wanted = {"CPU": self.num_cpus, "GPU": self.gpus(ray)}
        wanted = {name: amount for name, amount in wanted.items() if amount > 0}
        found = machines(ray)
        slots = sum(
            min((int(node.get(name, 0) // amount) for name, amount in wanted.items()), default=1)
            for node in found
        )
        if slots < 1:
            raise ValueError(
                f"a task needs {wanted}, and no machine of the cluster has that: {found}. Give "
                "Ray(num_cpus=, num_gpus=) smaller numbers."
            )
        return slots


def compute_chunk(name: str, kept: list[Any], cell: int, chunk: int) -> Any:
    """The task: a chunk, with the programs of earlier ones."""
    if name not in RUNNERS:
        RUNNERS.clear()
        RUNNERS[name] = import_ray().get(kept[0]).runner()
    return RUNNERS[name].compute(cell, chunk)


def fetch(ray: Any, task: Any, job: Job, cell: int, chunk: int) -> Any:
    """The answer of a task, or an error that says which one failed and why."""
    where = job.place(cell, chunk)
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"{where} failed on the cluster: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{where} was lost on the cluster: {error}") from error


def take(todo: Todo, most: int) -> Iterator[tuple[int, int]]:
    """At most so many of what is to do."""
    for _ in range(most):
        part = next(todo, None)
        if part is None:
            return
        yield part


def machines(ray: Any) -> list[dict[str, float]]:
    """CPUs and GPUs of every machine that is there."""
    return [
        {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU")}
        for node in ray.nodes()
        if node["Alive"]
    ]


def settings() -> dict[str, str]:
    """The environment by which JAX in another process is set as it is here."""
    names = ("JAX_", "XLA_", "NPROC")
    words = {name: v for name, v in os.environ.items() if name.startswith(names)}
    for name in CONFIGURED:
        value = getattr(jax.config, name)
        if value is not None:
            words[name.upper()] = str(value)
    return words


def import_ray() -> Any:
    """Ray, or an error that says how to get it.

    **Raises:** `ModuleNotFoundError`.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Ray() needs the package ray: pip install 'jaxfc[cluster]'.", name="ray"
        ) from error
    return ray
