r"""Events per second of the order-book and Hawkes simulators, and their growth with the books.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_microstructure.py \
        [--quick] [--save]

float32, the package's default; warmed-up programs, all events written out.

Table `microstructure`: for each simulator and number of books side by side (`vmap`), million events
per CPU second (all threads counted) and per wall second, the CPU time of an event relative to that
with the fewest books, and what the program takes to compile. Zero intelligence: Cont, Stoikov and
Talreja's rates of five distances, 32 levels. Queue-reactive: three distances, sizes up to 20.
Hawkes: two types. `loglik`: exact log-likelihood of such a path and its gradient, ours only.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import numpy as np
from timing import compile_seconds, cpu_seconds, report

from jaxfc.microstructure.hawkes_law import HawkesLaw, hawkes_loglik
from jaxfc.microstructure.hawkes_simulate import simulate_hawkes
from jaxfc.microstructure.queue_reactive import (
    QueueReactive,
    draw_queues,
    simulate_queue_reactive,
)
from jaxfc.microstructure.simulate_rates import OrderFlow
from jaxfc.microstructure.simulate_zero_intelligence import queue_book, simulate_zero_intelligence

NUM_EVENTS = 500


def zero_intelligence() -> Callable:
    """One book."""
    limit = jnp.array([1.85, 1.51, 1.09, 0.88, 0.77])
    flow = OrderFlow(limit, jnp.array([0.71, 0.81, 0.68, 0.56, 0.47]), jnp.asarray(0.94))
    depths = jnp.array([2, 3, 3, 2, 2])
    book = queue_book(depths, depths)
    return lambda key: simulate_zero_intelligence(flow, book, NUM_EVENTS, key=key)


def queue_reactive() -> Callable:
    """One book."""
    sizes = jnp.arange(21.0)
    limit = jnp.stack([1.5 * jnp.exp(-0.05 * sizes), 1.2 + 0 * sizes, 1.0 + 0 * sizes])
    cancel = jnp.stack([0.2 * sizes, 0.2 * sizes, 0.25 * sizes])
    market = jnp.zeros_like(cancel).at[0, 1:].set(0.8)
    law = QueueReactive(limit.at[:, -1].set(0.0), cancel, market, 0.7, 0.8)
    queues = draw_queues(law, key=jax.random.key(1))
    return lambda key: simulate_queue_reactive(law, queues, NUM_EVENTS, key=key)


def hawkes_law() -> HawkesLaw:
    """Two types that excite themselves more than each other."""
    branching = jnp.array([[0.5, 0.2], [0.2, 0.4]])
    return HawkesLaw(jnp.array([0.6, 0.4]), branching, jnp.full((2, 2), 3.0))


def hawkes() -> Callable:
    """One path."""
    law = hawkes_law()
    return lambda key: simulate_hawkes(law, NUM_EVENTS, key=key)


def hawkes_gradient() -> Callable:
    """Log-likelihood and gradient of one path, drawn before."""
    law = hawkes_law()
    path = simulate_hawkes(law, NUM_EVENTS, key=jax.random.key(1))

    def run(key: jax.Array):
        # The scale differs by path, so that a batch shares no work.
        gap = path.gap * jax.random.uniform(key, (), minval=0.9, maxval=1.1)
        return jax.value_and_grad(lambda law: hawkes_loglik(law, gap, path.kind))(law)

    return run


SIMULATORS = {
    "zero_intelligence": zero_intelligence,
    "queue_reactive": queue_reactive,
    "hawkes": hawkes,
    "hawkes_loglik_and_gradient": hawkes_gradient,
}


def rows_of(name: str, sizes: tuple[int, ...]) -> list[dict[str, object]]:
    """One row for each number of books."""
    rows, programs = [], {}
    one = SIMULATORS[name]()
    for num_books in sizes:
        keys = jax.random.split(jax.random.key(0), num_books)
        run, compiling = compile_seconds(jax.vmap(one), keys)
        programs[num_books] = run, keys, compiling
    taken = cpu_seconds({str(n): lambda p=p: p[0](p[1]) for n, p in programs.items()})
    first = taken[str(sizes[0])] / sizes[0]
    for num_books, (run, keys, compiling) in programs.items():
        walls = []
        for _ in range(5):
            begun = time.perf_counter()
            jax.block_until_ready(run(keys))
            walls.append(time.perf_counter() - begun)
        seconds, events = taken[str(num_books)], num_books * NUM_EVENTS
        rows.append(
            {
                "simulator": name,
                "books": num_books,
                "million_events_per_cpu_s": 1e-6 * events / seconds,
                "million_events_per_wall_s": 1e-6 * events / float(np.min(walls)),
                "relative_cost_of_event": seconds / num_books / first,
                "compile_s": compiling,
            }
        )
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    sizes = (64, 1024) if options.quick else (1, 64, 256, 1024, 4096)
    rows = [row for name in SIMULATORS for row in rows_of(name, sizes)]
    report("microstructure", rows, save=options.save)


if __name__ == "__main__":
    main()
