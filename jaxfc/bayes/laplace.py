"""Laplace's approximation: the normal law with the mode and the curvature of the posterior."""

import abc
from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxfc.batching import map_in_batches
from jaxfc.bayes.approximation import LocalLaw, LowRankLaw, PrecisionLaw, law_draws
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree, as_scalar

NUM_TOGETHER = 16
"""Columns of the Hessian that are computed together."""
MEMORY = 10
MAX_SEARCH_STEPS = 20
# Nats that a Newton step may still promise at a mode.
FAR_FROM_MODE = 0.01


class Curvature(eqx.Module):
    """How the covariance is read off the second derivatives at the mode."""

    @abc.abstractmethod
    def law(
        self, log_density: Callable[[Array], Array], mode: Float[Array, " size"]
    ) -> tuple[LocalLaw, Bool[Array, ""]]:
        """The normal law at the mode, and whether the density falls in every direction."""


class DenseHessian(Curvature):
    """The covariance is the inverse of minus the Hessian: O(size²) memory and O(size³) work, so for
    a few thousand numbers."""

    def law(
        self, log_density: Callable[[Array], Array], mode: Float[Array, " size"]
    ) -> tuple[LocalLaw, Bool[Array, ""]]:
        columns = hessian_columns(log_density, mode, lambda column, _: column)
        precision = -(columns + columns.T) / 2
        chol = jnp.linalg.cholesky(precision)
        usable = jnp.all(jnp.isfinite(chol))
        return PrecisionLaw(mode, jnp.where(usable, chol, jnp.eye(mode.size, dtype=mode.dtype))), (
            usable
        )


class DiagonalHessian(Curvature):
    """Variances are the inverse diagonal of minus the Hessian, those given all other numbers: too
    small where the posterior is correlated. O(size) memory."""

    def law(
        self, log_density: Callable[[Array], Array], mode: Float[Array, " size"]
    ) -> tuple[LocalLaw, Bool[Array, ""]]:
        precisions = -hessian_columns(log_density, mode, lambda column, place: column[place])
        usable = jnp.all(precisions > 0)
        log_scale = -0.5 * jnp.log(jnp.where(usable, precisions, 1))
        return LowRankLaw(mode, log_scale, jnp.zeros((mode.size, 0), mode.dtype)), usable


class Laplace(Inference):
    """Draws of the normal law at the mode of the unconstrained density.

        x ~ N(mode, (-H)^-1),   H the second derivatives of ln p(data, x) at the mode

    The mode is searched by L-BFGS from the program's start in at most `max_steps` steps, until a
    step gains less than `tolerance` nats by its slope. The result code says
    `nonlinear_max_steps_reached` if more steps were needed, `mode_not_found` if the search
    got stuck where a Newton step promises more than 0.01 nats (or than rounding explains), at an
    edge of the support or where curvatures differ too much, and `indefinite_curvature` if the
    density does not fall in every direction there (draws are then of no use in all three cases). It
    says `poor_approximation` if Pareto k is above `max_pareto_k`, a warning as for
    `MeanFieldNormal`.

    Source: Tierney and Kadane (1986).
    """

    curvature: Curvature = DenseHessian()
    num_draws: int = eqx.field(static=True, default=1000)
    max_steps: int = eqx.field(static=True, default=1000)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6)
    max_pareto_k: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.7)

    def __check_init__(self):
        check_counts(num_draws=self.num_draws, max_steps=self.max_steps)

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        start, named = program.flat()

        def log_density(x: Array) -> Array:
            return program.log_density(named(x))

        found = find_mode(log_density, start, self.max_steps, self.tolerance)
        law, falls = self.curvature.law(log_density, found.position)
        value, slope = jax.value_and_grad(log_density)(found.position)
        rounding = 100 * jnp.finfo(start.dtype).eps * (1 + jnp.abs(value))
        at_mode = law.promise(slope) < jnp.maximum(FAR_FROM_MODE, rounding)
        result = select(at_mode, SUCCESSFUL, cast(RESULTS, RESULTS.mode_not_found))
        stopped = cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
        result = select(found.ended, result, stopped)
        result = select(falls, result, cast(RESULTS, RESULTS.indefinite_curvature))
        return law_draws(
            program, law, self.num_draws, self.max_pareto_k, found.num_steps, result, key=key
        )


class Mode(NamedTuple):
    """Where a search for the highest density ended, and whether it did so by itself: where no step
    gains anything any more, be it a mode or not."""

    position: Float[Array, " size"]
    num_steps: Int[Array, ""]
    ended: Bool[Array, ""]


def find_mode(
    log_density: Callable[[Array], Array],
    start: Float[Array, " size"],
    max_steps: int,
    tolerance: Float[Array, ""],
) -> Mode:
    """The nearest maximum of a density by L-BFGS, until a step gains less than `tolerance` by the
    slope before it; nothing, where the line search finds no way up."""
    step, first = lbfgs_steps(log_density, start, MEMORY)

    def go_on(carry: tuple[Array, PyTree, Array, Array]) -> Array:
        _, _, number, promise = carry
        return (number < max_steps) & ~(promise < tolerance)

    def advance(carry: tuple[Array, PyTree, Array, Array]) -> tuple[Array, PyTree, Array, Array]:
        position, state, number, _ = carry
        after, state, gradient = step(position, state)
        return after, state, number + 1, jnp.vdot(after - position, gradient)

    carry = start, first, jnp.asarray(0), jnp.asarray(jnp.inf, start.dtype)
    position, _, number, promise = jax.lax.while_loop(go_on, advance, carry)
    return Mode(position, number, promise < tolerance)


def lbfgs_steps(
    log_density: Callable[[Array], Array], start: Float[Array, " size"], memory: int
) -> tuple[Callable[[Array, PyTree], tuple[Array, PyTree, Array]], PyTree]:
    """One step of L-BFGS with a line search, (position, state) -> (position, state, gradient of the
    log density before the step), and the first state. A step that is not finite is not taken."""

    def loss(x: Array) -> Array:
        return -log_density(x)

    search = optax.scale_by_zoom_linesearch(MAX_SEARCH_STEPS, initial_guess_strategy="one")
    optimiser = optax.lbfgs(memory_size=memory, linesearch=search)
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def step(position: Array, state: PyTree) -> tuple[Array, PyTree, Array]:
        value, gradient = value_and_gradient(position, state=state)
        updates, state = optimiser.update(
            gradient, state, position, value=value, grad=gradient, value_fn=loss
        )
        after = cast(Array, optax.apply_updates(position, updates))
        after = jnp.where(jnp.all(jnp.isfinite(after)), after, position)
        return after, state, -cast(Array, gradient)

    return step, optimiser.init(start)


def hessian_columns(
    log_density: Callable[[Array], Array],
    at: Float[Array, " size"],
    kept: Callable[[Array, Array], Array],
) -> Array:
    """`kept` of every column of the Hessian and its place, a batch of columns at a time."""
    gradient = jax.grad(log_density)

    def column(place: Array) -> Array:
        direction = jnp.zeros_like(at).at[place].set(1)
        return kept(jax.jvp(gradient, (at,), (direction,))[1], place)

    return map_in_batches(column, jnp.arange(at.size), NUM_TOGETHER)
