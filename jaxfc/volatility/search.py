"""Minimisation of a loss of a few parameters from the best of several starts."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optimistix as optx

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PyTree
from jaxfc_kernels.semidefinite import semidefinite_chol
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

# Closer to one, the likelihood is flat in the long-run level.
MAX_PERSISTENCE = 1.0 - 1e-6

# Slopes that hang together closer than this are told apart by the search itself.
RIDGE = 1e-3
# A slope is zero below this share of the tolerance.
FLAT = 1e-2

# Losses of the rows (minus log-densities), whose mean is minimised.
Losses = Callable[[Array, PyTree], Array]


class Minimum(NamedTuple):
    """Parameters at the minimum, steps taken, result code."""

    parameters: Float[Array, " p"]
    num_steps: Int[Array, ""]
    result: RESULTS


class ScoreBFGS(optx.BFGS):
    """BFGS that also ends where the slope is far below `atol`: in standard coordinates a distance
    in standard errors of one observation. Towards a bound, where coordinates grow without end while
    nothing is gained, steps never become small; slopes do."""

    rtol: Float[Array, ""]  # pyright: ignore
    atol: Float[Array, ""]  # pyright: ignore

    def __init__(self, tolerance: Float[Array, ""]):
        super().__init__(rtol=tolerance, atol=tolerance)  # pyright: ignore

    def terminate(self, fn, y, args, options, state, tags):
        flat = jnp.max(jnp.abs(state.f_info.grad)) < FLAT * self.atol
        return state.terminate | (flat & ~state.first_step), state.result


def minimise(
    losses: Losses,
    starts: Float[Array, "starts p"],
    arguments: PyTree,
    tolerance: Float[Array, ""],
    max_steps: int,
    *,
    forward: bool = False,
) -> Minimum:
    """Quasi-Newton (BFGS) from the start with the smallest mean loss. Differentiable with
    respect to `arguments` by the implicit function theorem.

    The search runs in coordinates in which the outer product of the rows' slopes, the information
    at the start if losses are log-densities, is the identity (Berndt, Hall, Hall and Hausman 1974):
    its first step then is one of scoring, and its tolerance is in units of standard errors.

    `forward`: gradients by forward differentiation, all p directions in one pass that keeps
    nothing of the path of a recursion. What `losses` needs must be in `arguments`, not closed over.
    """
    if starts.shape[1] == 0:
        return Minimum(starts[0], jnp.asarray(0), SUCCESSFUL)
    fixed, starts = jax.lax.stop_gradient((arguments, starts))
    best = starts[0]
    if starts.shape[0] > 1:
        totals = jax.lax.map(lambda free: jnp.mean(losses(free, fixed)), starts)
        best = starts[jnp.nanargmin(totals)]
    turn = standard_directions(jax.jacfwd(losses)(best, fixed))

    def total(steps: Array, rest: tuple[PyTree, Array, Array]) -> Array:
        fixed, best, turn = rest
        return jnp.mean(losses(best + turn @ steps, fixed))

    # Losses of single precision do not tell closer points apart.
    tolerance = jnp.maximum(tolerance, jnp.finfo(best.dtype).eps ** 0.5)
    solution = optx.minimise(
        partial(by_forward_mode, total) if forward else total,
        ScoreBFGS(tolerance),
        jnp.zeros_like(best),
        (fixed, best, turn),
        max_steps=max_steps,
        throw=False,
    )
    value = jax.lax.stop_gradient(best + turn @ solution.value)
    result = select(
        solution.result == optx.RESULTS.successful,
        SUCCESSFUL,
        cast(RESULTS, RESULTS.nonlinear_max_steps_reached),
    )
    result = select(jnp.all(jnp.isfinite(value)), result, cast(RESULTS, RESULTS.diverged))
    return Minimum(at_minimum(losses, value, arguments), solution.stats["num_steps"], result)


def standard_directions(slopes: Float[Array, "rows p"]) -> Float[Array, "p p"]:
    """B with B' G B = I for G = sum_t s_t s_t' / T."""
    outer = slopes.T @ slopes / slopes.shape[0]
    # A direction without slope keeps its length.
    scale = jnp.sqrt(jnp.diagonal(outer))
    usable = jnp.isfinite(scale) & (scale > 0.0)
    scale = jnp.where(usable, scale, 1.0)
    size = len(scale)
    identity = jnp.eye(size, dtype=outer.dtype)
    unit = jnp.where(usable[:, None] & usable, outer / (scale[:, None] * scale), identity)
    inverse, _ = spd_inverse(unit + RIDGE * identity, fastest_implementation(size))
    return semidefinite_chol(inverse) / scale[:, None]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def by_forward_mode(loss: Losses, free: Float[Array, " p"], arguments: PyTree) -> Float[Array, ""]:
    """A loss, with a gradient in `free` that is made beside the value in one forward pass."""
    return loss(free, arguments)


# The search needs no derivative with respect to `arguments`; `at_minimum` has that of its answer.
@by_forward_mode.defjvp
def by_forward_mode_jvp(loss, primals, tangents):
    """Value and p directional derivatives, which share the value's work."""
    free, arguments = primals

    def along(direction: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda x: loss(x, arguments), (free,), (direction,))

    directions = jnp.eye(free.size, dtype=free.dtype)
    value, gradient = jax.vmap(along, out_axes=(None, 0))(directions)
    return value, gradient @ tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_minimum(losses: Losses, found: Float[Array, " p"], arguments: PyTree) -> Float[Array, " p"]:
    """`found` as a function of `arguments`."""
    return found


# At a minimum x(c) the gradient g(x, c) is zero: dx = -H^{-1} (dg / dc) dc with H = dg / dx.
@at_minimum.defjvp
def at_minimum_jvp(losses, primals, tangents):
    """The implicit derivative derived above."""
    found, arguments = primals
    gradient = jax.jacfwd(lambda x, c: jnp.mean(losses(x, c)))
    _, moved = jax.jvp(lambda c: gradient(found, c), (arguments,), (tangents[1],))
    hessian = jax.jacfwd(gradient)(found, arguments)
    return found, -jnp.linalg.solve(hessian, moved)


def judged(
    result: RESULTS,
    persistence: Float[Array, ""],
    loglik: Float[Array, ""],
    definite: Bool[Array, ""] | bool = True,
) -> RESULTS:
    """The code of a search whose answer is known: shocks that do not die out, a likelihood that is
    no number and a target that is not `definite` are failures."""
    # Towards that bound coordinates grow without end, so that the search may also not have ended.
    ended = (result == SUCCESSFUL) | (result == RESULTS.nonlinear_max_steps_reached)
    integrated = ended & (persistence > MAX_PERSISTENCE)
    result = select(integrated, cast(RESULTS, RESULTS.integrated_variance), result)
    result = select(jnp.isfinite(loglik), result, cast(RESULTS, RESULTS.diverged))
    return select(jnp.asarray(definite), result, cast(RESULTS, RESULTS.indefinite_target))
