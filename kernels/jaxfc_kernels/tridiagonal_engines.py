"""Posterior of a block-tridiagonal precision by the engine asked for: one answer, three depths.

sequential     block_tridiagonal    2 S steps            the least work: CPU, large batches
odd_even       odd_even             2 log2(S) stages     about 2.5 times the work
prefix_scan    prefix_scan          4 log2(S) stages     about 4 times the work
"""

from jax import Array

from jaxfc_kernels import block_tridiagonal, odd_even, prefix_scan
from jaxfc_kernels.block_tridiagonal import Moments

ENGINES = {
    "sequential": block_tridiagonal,
    "odd_even": odd_even,
    "prefix_scan": prefix_scan,
}


def check_engine(engine: str) -> None:
    """Refuse an unknown engine.

    **Raises:** `ValueError` naming the choices.
    """
    if engine not in ENGINES:
        known = ", ".join(map(repr, ENGINES))
        raise ValueError(f"unknown engine {engine!r}; use one of {known}.")


def posterior(
    diagonal: Array,
    lower: Array,
    linear: Array,
    *,
    engine: str,
    implementation: str | None = None,
) -> tuple[Moments, Array]:
    """Moments of x ~ N(H^{-1} h, H^{-1}), H block tridiagonal, and log det H.

    `diagonal` (blocks, m, m): diagonal blocks; `lower` (blocks, m, m): blocks (s, s-1), the first
    never read; `linear` (blocks, m): h. `engine`: "sequential", "odd_even" or "prefix_scan".
    `implementation` of the pivots: "gauss_jordan", "cholesky" or None (by size).

    **Raises:** `ValueError` for an unknown engine or implementation.
    """
    check_engine(engine)
    chosen = ENGINES[engine]
    factorisation = chosen.factorise(diagonal, lower, linear, implementation=implementation)
    return chosen.moments(factorisation), factorisation.log_det
