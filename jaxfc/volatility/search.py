"""Minimisation of a loss from the best of several starts."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optimistix as optx

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Float, Int, PyTree

# Closer to one, the likelihood is flat in the long-run level.
MAX_PERSISTENCE = 1.0 - 1e-6


class Minimum(NamedTuple):
    """Parameters at the minimum, steps taken, result code."""

    parameters: Float[Array, " p"]
    num_steps: Int[Array, ""]
    result: RESULTS


def minimise(
    loss: Callable[[Array, PyTree], Array],
    starts: Float[Array, "starts p"],
    arguments: PyTree,
    tolerance: Float[Array, ""],
    max_steps: int,
) -> Minimum:
    """Quasi-Newton (BFGS) from the start with the smallest loss. Differentiable with respect to
    `arguments` by the implicit function theorem."""
    if starts.shape[1] == 0:
        return Minimum(starts[0], jnp.asarray(0), SUCCESSFUL)
    losses = jax.vmap(lambda free: loss(free, arguments))(starts)
    best = starts[jnp.nanargmin(losses)]
    solution = optx.minimise(
        loss,
        optx.BFGS(rtol=tolerance, atol=tolerance),  # pyright: ignore[reportArgumentType]
        jax.lax.stop_gradient(best),
        arguments,
        max_steps=max_steps,
        throw=False,
    )
    result = select(
        solution.result == optx.RESULTS.successful,
        SUCCESSFUL,
        cast(RESULTS, RESULTS.nonlinear_max_steps_reached),
    )
    finite = jnp.all(jnp.isfinite(solution.value))
    result = select(finite, result, cast(RESULTS, RESULTS.diverged))
    return Minimum(solution.value, solution.stats["num_steps"], result)


def judged(result: RESULTS, persistence: Array, loglik: Array) -> RESULTS:
    """The code of a search whose answer is known: shocks that do not die out and a likelihood that
    is no number are failures."""
    integrated = (result == SUCCESSFUL) & (persistence > MAX_PERSISTENCE)
    result = select(integrated, cast(RESULTS, RESULTS.integrated_variance), result)
    return select(jnp.isfinite(loglik), result, cast(RESULTS, RESULTS.diverged))
