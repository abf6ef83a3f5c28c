"""EM iterations: bounded, with a result code, differentiable where they have converged."""

from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import all_finite
from jaxfc.typing import Array, Float, Int, PyTree

# A fall of the objective by more than this share of its size is no rounding.
ROUNDING = 1e3
# Of a leap along two steps, in steps.
LONGEST_LEAP = 256.0

Step = Callable[[PyTree, PyTree], tuple[PyTree, Array]]


class FixedPoint(NamedTuple):
    """Parameters, steps taken, result code."""

    parameters: PyTree
    num_steps: Int[Array, ""]
    result: RESULTS


def iterate(
    step: Step,
    start: PyTree,
    arguments: PyTree,
    tolerance: Float[Array, ""],
    max_steps: int,
    *,
    plain: Step | None = None,
) -> FixedPoint:
    """Repeat `step` until the objective gains less than `tolerance` in two steps running.

    `step(parameters, arguments)` answers with the next parameters and the objective (a
    log-likelihood, never falling) at the present ones; all that it needs and that is
    differentiated must be in `arguments`. Derivatives with respect to `arguments` are those of the
    limit, by the implicit function theorem: they need a limit that is approached geometrically, so
    no variance that goes to zero. `plain`: the step with the same limit that is differentiated.
    """
    fixed = jax.lax.stop_gradient((start, arguments))

    def unfinished(state):
        count, _, objective, gains, _ = state
        going = (count < 3) | (jnp.max(gains) > tolerance)
        return (count < max_steps) & going & jnp.isfinite(objective)

    def advance(state):
        count, parameters, before, gains, fell = state
        following, objective = step(parameters, fixed[1])
        gain = jnp.where(count == 0, jnp.inf, objective - before)
        lost = ROUNDING * jnp.finfo(objective.dtype).eps * (1.0 + jnp.abs(objective))
        fell = fell | ((count > 0) & (gain < -lost))
        return count + 1, following, objective, jnp.stack([gain, gains[0]]), fell

    objective = jnp.zeros_like(tolerance)
    gains = jnp.full(2, jnp.inf, tolerance.dtype)
    state = (jnp.asarray(0), fixed[0], objective, gains, jnp.asarray(False))
    count, parameters, objective, gains, fell = jax.lax.while_loop(unfinished, advance, state)
    converged = jnp.max(gains) <= tolerance
    result = select(converged, SUCCESSFUL, cast(RESULTS, RESULTS.nonlinear_max_steps_reached))
    result = select(fell, cast(RESULTS, RESULTS.likelihood_decreased), result)
    finite = all_finite((objective, parameters))
    result = select(finite, result, cast(RESULTS, RESULTS.diverged))
    limit = at_fixed_point(parameters, arguments, step=plain or step)
    return FixedPoint(limit, count, result)


def accelerated(
    step: Step,
    to_free: Callable[[PyTree, PyTree], PyTree],
    from_free: Callable[[PyTree, PyTree], PyTree],
    measured: Callable[[PyTree], list[Array]],
) -> Step:
    """Two steps and a leap along them, kept where the objective is no lower after it.

        x' = x_0 - 2 a r + a^2 v,     r = x_1 - x_0,  v = (x_2 - x_1) - r,  a = -|r| / |v|,

    with x = `to_free(parameters, base)` unconstrained, in coordinates that may depend on the `base`
    the leap starts from, and sizes those of its `measured` part, which must have no units. Costs
    three steps, and gains many where steps are short.

    Source: Varadhan and Roland (2008), scheme S3.
    """

    def leap(parameters: PyTree, arguments: PyTree) -> tuple[PyTree, Array]:
        def one(parameters, _):
            following, objective = step(parameters, arguments)
            return following, (following, objective)

        second, (path, objectives) = jax.lax.scan(one, parameters, None, length=2)
        first = jax.tree.map(lambda leaf: leaf[0], path)
        points = [to_free(each, parameters) for each in (parameters, first, second)]
        move = jax.tree.map(lambda x, y: y - x, *points[:2])
        bend = jax.tree.map(lambda x, y, r: y - x - r, *points[1:], move)
        sizes = [sum(jnp.sum(leaf**2) for leaf in measured(each)) for each in (move, bend)]
        usable = sizes[1] > 0.0
        length = jnp.sqrt(sizes[0] / jnp.where(usable, sizes[1], 1.0))
        length = jnp.where(usable, jnp.clip(length, 1.0, LONGEST_LEAP), 1.0)
        far = jax.tree.map(
            lambda x, r, v: x + 2.0 * length * r + length**2 * v, points[0], move, bend
        )
        third, reached = step(from_free(far, parameters), arguments)
        better = jnp.isfinite(reached) & (reached >= objectives[1])
        following = jax.tree.map(lambda x, y: jnp.where(better, x, y), third, second)
        return following, objectives[0]

    return leap


@eqx.filter_custom_jvp
def at_fixed_point(parameters: PyTree, arguments: PyTree, *, step: Step) -> PyTree:
    """`parameters` as a function of `arguments`."""
    return parameters


# At a fixed point x = f(x, c): dx = (I - df / dx)^{-1} (df / dc) dc.
@at_fixed_point.def_jvp
def at_fixed_point_jvp(primals, tangents, *, step):
    """The implicit derivative derived above."""
    parameters, arguments = primals
    flat, restore = ravel_pytree(parameters)

    def advanced(flat, arguments):
        return ravel_pytree(step(restore(flat), arguments)[0])[0]

    if all(leaf is None for leaf in jax.tree.leaves(tangents[1], is_leaf=lambda x: x is None)):
        return parameters, jax.tree.map(jnp.zeros_like, parameters)
    _, moved = eqx.filter_jvp(lambda c: advanced(flat, c), (arguments,), (tangents[1],))
    slopes = jax.jacfwd(advanced)(flat, arguments)
    identity = jnp.eye(flat.size, dtype=flat.dtype)
    return parameters, restore(jnp.linalg.solve(identity - slopes, moved))
