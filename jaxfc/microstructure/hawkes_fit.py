"""Maximum likelihood of Hawkes processes with exponential kernels."""

from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.core import Tracer

from jaxfc.counts import check_counts
from jaxfc.microstructure.hawkes_law import HawkesLaw, hawkes_loglik
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Float, Int

# Share of the events that the start takes for answers to others.
ANSWERS = 0.5


class HawkesErrors(NamedTuple):
    """Standard errors of a law's parameters; NaN where the likelihood is not curved."""

    baseline: Float[Array, " types"]
    branching: Float[Array, "types types"]
    decay: Float[Array, "types types"]


class FittedHawkes(eqx.Module):
    """The law of the largest likelihood, standard errors from its curvature, and how it ended."""

    law: HawkesLaw
    errors: HawkesErrors
    loglik: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: RESULTS


def fit_hawkes(
    gap: Float[Array, " events"],
    kind: Int[Array, " events"],
    *,
    num_types: int,
    own_decays: bool = False,
    tolerance: float | Float[Array, ""] = 1e-6,
    max_steps: int = 200,
) -> FittedHawkes:
    """Maximum likelihood by BFGS over logarithms of baseline, branching and decay.

    One decay is common to all pairs of types unless `own_decays`; the decay of a pair that hardly
    excites is not identified, which its standard error then says.

    **Arguments:** `gap` and `kind` as in `hawkes_law`; types are 0 .. `num_types` - 1.

    **Raises:** `ValueError` for a clock that goes backwards, unknown types, or a type without
    events.
    """
    check_counts(num_types=num_types, max_steps=max_steps)
    check_rows(gap, kind, num_types)
    counts = jnp.sum(kind == jnp.arange(num_types)[:, None], axis=1).astype(gap.dtype)
    total = jnp.sum(gap)
    num_decays = num_types**2 if own_decays else 1
    num_branches = num_types**2
    start = jnp.concatenate(
        [
            jnp.log((1.0 - ANSWERS) * counts / total),
            jnp.full(num_branches, jnp.log(ANSWERS / num_types), gap.dtype),
            jnp.broadcast_to(jnp.log(jnp.sum(counts) / total), (num_decays,)),
        ]
    )

    def parts_of(values: Array) -> tuple[Array, Array, Array]:
        """Baseline, branching and decay from one vector."""
        square = num_types, num_types
        baseline, branching, decay = jnp.split(values, [num_types, num_types + num_branches])
        decay = decay.reshape(square) if own_decays else jnp.broadcast_to(decay, square)
        return baseline, branching.reshape(square), decay

    def loss(free: Array, rows: tuple[Array, Array]) -> Array:
        return -hawkes_loglik(HawkesLaw(*parts_of(jnp.exp(free))), *rows) / jnp.sum(counts)

    solver = optx.BFGS(rtol=cast(float, tolerance), atol=cast(float, tolerance))
    solution = optx.minimise(loss, solver, start, (gap, kind), max_steps=max_steps, throw=False)
    free = solution.value
    curvature = jax.hessian(loss)(free, (gap, kind)) * jnp.sum(counts)
    variances = jnp.diagonal(jnp.linalg.inv(curvature))
    # By the delta method: parameters are exponentials of what is searched over.
    spread = jnp.exp(free) * jnp.sqrt(jnp.where(variances > 0, variances, jnp.nan))
    errors = HawkesErrors(*parts_of(spread))
    result = select(
        solution.result == optx.RESULTS.successful,
        SUCCESSFUL,
        cast(RESULTS, RESULTS.nonlinear_max_steps_reached),
    )
    loglik = -loss(free, (gap, kind)) * jnp.sum(counts)
    result = select(jnp.isfinite(loglik), result, cast(RESULTS, RESULTS.diverged))
    law = HawkesLaw(*parts_of(jnp.exp(free)))
    return FittedHawkes(law, errors, loglik, solution.stats["num_steps"], result)


def check_rows(gap: Float[Array, " events"], kind: Int[Array, " events"], num_types: int) -> None:
    """Raise `ValueError` that names the first bad row; traced rows pass."""
    if isinstance(gap, Tracer) or isinstance(kind, Tracer):
        return
    waits, types = np.asarray(gap), np.asarray(kind)
    bad = np.flatnonzero(~(np.isfinite(waits) & (waits >= 0)))
    if len(bad):
        raise ValueError(
            f"row {bad[0]}: the clock goes backwards or is no number (gap {waits[bad[0]]}); sort "
            "the events, or drop what is no event."
        )
    bad = np.flatnonzero((types < -1) | (types >= num_types))
    if len(bad):
        raise ValueError(
            f"row {bad[0]}: type {types[bad[0]]} is none of 0 .. {num_types - 1} (-1: no event)."
        )
    missing = [i for i in range(num_types) if not np.any(types == i)]
    if missing:
        raise ValueError(f"type {missing[0]} has no event; leave it out.")
