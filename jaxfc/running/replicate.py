"""One function over many cases: chunks as large as memory allows, spread over the local devices.

Each device runs its own share of a chunk as one `vmap`, without talking to the others
(`shard_map`), so a loop inside that stops early on one device does not wait for another. Draws do
not depend on the number of devices; the last bits of long computations may (1e-15 seen in EM). All
chunks have one size and share one compiled program; the last is filled up with copies of the last
case.
"""

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfc.batching import count_cases
from jaxfc.running.threads import with_one_blas_thread
from jaxfc.typing import PyTree

Device = Any  # jax.Device is a variable to type checkers

# Cases a device runs side by side before memory is looked at: some tens are fastest on a CPU.
CPU_BATCH, ACCELERATOR_BATCH = 32, 4096
AXIS = "cases"


class Program(NamedTuple):
    """A compiled chunk: its callable, how many cases it takes, where they and what they share lie,
    the shapes of its answers, and the bytes that one device needs for it (None: the backend does
    not say)."""

    run: Callable[..., PyTree]
    size: int
    sharding: NamedSharding
    everywhere: NamedSharding
    answers: PyTree
    num_bytes: int | None


def replicate(
    function: Callable[[PyTree], PyTree],
    cases: PyTree,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    devices: Sequence[Device] | None = None,
    sequential: bool = False,
) -> PyTree:
    """`function` of every case; the cases, often keys, along the leading axis of every leaf.

    **Arguments:** `function` is pure, of one case, and answers arrays. `batch_size`: cases that a
    device runs side by side; None: as many as fit into `memory_budget` bytes a device (default: a
    quarter of what is free), at most 32 on a CPU. `devices`: default all local ones.
    `sequential=True` runs one case after the other, for functions that no batch can hold.

    **Returns:** answers as NumPy arrays on the host, led by the cases. On one platform they are the
    same bits for the same `batch_size`, whatever the number of cases and devices; another size
    changes rounding, because other loops are compiled.

    **Raises:** `ValueError` for no case, leaves of different lengths, a `batch_size` below 1, or
    a budget that a single case exceeds.
    """
    parts = replicate_in_chunks(
        function,
        cases,
        batch_size=batch_size,
        memory_budget=memory_budget,
        devices=devices,
        sequential=sequential,
    )
    answers = [answer for _, answer in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *answers)


def replicate_in_chunks(
    function: Callable[[PyTree], PyTree],
    cases: PyTree,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    devices: Sequence[Device] | None = None,
    sequential: bool = False,
) -> Iterator[tuple[slice, PyTree]]:
    """The same chunk by chunk, with the cases that each one answers; the next chunk is computed
    when it is asked for."""
    num_cases = count_cases(cases)
    if sequential:
        one = jax.jit(function)
        for i in range(num_cases):
            answer = one(jax.tree.map(lambda leaf, i=i: leaf[i], cases))
            yield slice(i, i + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], answer)
        return
    places = tuple(jax.local_devices() if devices is None else devices)
    program = fitting_program(function, cases, batch_size, memory_budget, places)
    for part in chunks_of(num_cases, program.size):
        yield part, run_chunk(program, cases, part)


def chunks_of(num_cases: int, size: int) -> list[slice]:
    """The cases of every chunk of at most that size."""
    starts = range(0, num_cases, size)
    return [slice(start, min(start + size, num_cases)) for start in starts]


def run_chunk(program: Program, cases: PyTree, part: slice, *shared: PyTree) -> PyTree:
    """The answers of a chunk on the host; it is filled up with copies of its last case."""
    rows = np.minimum(np.arange(part.start, part.start + program.size), part.stop - 1)
    chunk = jax.tree.map(lambda leaf: leaf[rows], cases)
    answer = program.run(jax.device_put(chunk, program.sharding), *shared)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: part.stop - part.start], answer)


def fitting_program(
    function: Callable[..., PyTree],
    cases: PyTree,
    batch_size: int | None,
    memory_budget: int | None,
    devices: tuple[Device, ...],
    shared: tuple[PyTree, ...] = (),
) -> Program:
    """The largest chunk within the budget: compiled once where the first guess fits."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    share = -(-count_cases(cases) // len(devices))
    if batch_size is not None:
        program = compile_chunk(function, cases, min(batch_size, share), devices, shared)
        if memory_budget is not None and (program.num_bytes or 0) > memory_budget:
            raise ValueError(
                f"{min(batch_size, share)} cases side by side need {program.num_bytes:,} bytes on "
                f"a device, the budget is {memory_budget:,}; raise memory_budget or give a smaller "
                "batch_size, which changes rounding."
            )
        return program
    budget = free_memory(devices) // 4 if memory_budget is None else memory_budget
    guess = CPU_BATCH if devices[0].platform == "cpu" else ACCELERATOR_BATCH
    size = min(guess, share)
    while True:
        program = compile_chunk(function, cases, size, devices, shared)
        if program.num_bytes is None or program.num_bytes <= budget:
            return program
        if size == 1:
            raise ValueError(
                f"a single case needs {program.num_bytes:,} bytes on a device, the budget is "
                f"{budget:,}; raise memory_budget or make the cases smaller."
            )
        # Memory is nearly linear in the cases; never the same size twice.
        size = max(1, min(size - 1, size * budget // program.num_bytes))


def compile_chunk(
    function: Callable[..., PyTree],
    cases: PyTree,
    batch_size: int,
    devices: tuple[Device, ...],
    shared: tuple[PyTree, ...] = (),
) -> Program:
    """`batch_size` cases on each device; `function` takes one case and all of `shared`, arrays that
    every device holds. Arrays with shapes and no values will do for both."""
    platform = devices[0].platform
    mesh = Mesh(np.array(devices), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    everywhere = NamedSharding(mesh, PartitionSpec())
    size = batch_size * len(devices)
    shapes = jax.tree.map(
        lambda leaf: shape_of(leaf, sharding, (size, *tuple(leaf.shape)[1:])), cases
    )
    constant = jax.tree.map(lambda leaf: shape_of(leaf, everywhere, leaf.shape), shared)
    batch = jax.vmap(function, in_axes=(0, *(None for _ in shared)))
    if len(devices) > 1:
        own = jax.tree.map(lambda leaf: unplaced(leaf, (batch_size, *leaf.shape[1:])), shapes)
        everyone = jax.tree.map(lambda leaf: unplaced(leaf, leaf.shape), constant)
        batch = jax.shard_map(
            traced_alone(batch, own, *everyone),
            mesh=mesh,
            in_specs=(sharding.spec, *(everywhere.spec for _ in shared)),
            out_specs=sharding.spec,
            check_vma=False,
        )
    lowered = jax.jit(batch).lower(shapes, *constant)
    compiled = lowered.compile()
    run = with_one_blas_thread(compiled) if platform == "cpu" else compiled
    return Program(run, size, sharding, everywhere, lowered.out_info, bytes_of(compiled))


def traced_alone(function: Callable[..., PyTree], *shapes: PyTree) -> Callable[..., PyTree]:
    """The function as the program that it is on one device, for use inside `shard_map`.

    There arrays have the mesh in their types, which libraries that compare the types of arrays do
    not expect: lineax 0.1.1 takes a symmetric matrix to have inputs and outputs of two kinds.
    """
    program, answers = jax.make_jaxpr(function, return_shape=True)(*shapes)
    run, structure = jaxpr_as_fun(program), jax.tree.structure(answers)
    return lambda *given: jax.tree.unflatten(structure, run(*jax.tree.leaves(given)))


def unplaced(leaf: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """The same array on no particular device."""
    return jax.ShapeDtypeStruct(shape, leaf.dtype)


def shape_of(leaf: Any, sharding: NamedSharding, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """What a program has to know of an array."""
    dtype = jnp.asarray(leaf).dtype if isinstance(leaf, np.ndarray) else leaf.dtype
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def shapes_key(tree: PyTree) -> Hashable:
    """Structure, shapes and dtypes of a tree of arrays: equal where a program serves both."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def bytes_of(compiled: Any) -> int | None:
    """Arguments, answers and scratch space of a compiled program on one device."""
    try:
        stats = compiled.memory_analysis()
    except NotImplementedError:
        return None
    if stats is None:
        return None
    parts = stats.argument_size_in_bytes, stats.output_size_in_bytes, stats.temp_size_in_bytes
    return int(sum(parts))


def free_memory(devices: tuple[Device, ...]) -> int:
    """Bytes that a device may still take: of the accelerator, or the host's share for each."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(pages) // len(devices)
