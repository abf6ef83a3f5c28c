"""Pathfinder: of the normal laws along a way to the mode, the one nearest the posterior.

L-BFGS on its way learns the curvature; every step has a normal law with that curvature, and the law
with the best evidence lower bound is kept: mostly one before the mode, which in many dimensions is
not where the posterior has its mass. Several paths from different starts are combined by importance
resampling.

Source: Zhang, Carpenter, Gelman and Vehtari (2022), Journal of Machine Learning Research 23,
algorithms 1 to 5; the diagonal of the first estimate after Gilbert and Lemaréchal (1989).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.bayes.approximation import Law, densities, independent_draws, standard_log_prob
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.laplace import lbfgs_steps
from jaxfc.bayes.pareto import pareto_smoothed
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import chosen
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar

# A pair of steps of position and gradient is used if s'y is above this share of y'y.
LEAST_CURVATURE = 1e-12


class QuasiNewtonLaw(Law):
    """N(mean, D (I + Q (C C' - I) Q') D), D = diag(scale), Q orthonormal, C lower triangular."""

    mean: Float[Array, " size"]
    scale: Float[Array, " size"]
    basis: Float[Array, "size directions"]
    chol: Float[Array, "directions directions"]

    def sample(
        self, num_draws: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "draws size"], Float[Array, " draws"]]:
        noise = jax.random.normal(key, (num_draws, self.mean.size), self.mean.dtype)
        inside = noise @ self.basis
        spread = noise + (inside @ self.chol.T - inside) @ self.basis.T
        log_det = jnp.sum(jnp.log(self.scale)) + jnp.sum(jnp.log(jnp.diagonal(self.chol)))
        return self.mean + self.scale * spread, standard_log_prob(noise) - log_det


class Pairs(NamedTuple):
    """What the last steps tell of the curvature: differences of positions and of gradients of the
    loss, newest last, zero where there is none, and the variances of the first estimate."""

    steps: Float[Array, "size memory"]
    changes: Float[Array, "size memory"]
    variances: Float[Array, " size"]


class Pathfinder(Inference):
    """Draws of the best normal law on each of `num_paths` ways to the mode, resampled.

    Each path is `num_steps` steps of L-BFGS with `memory` pairs, from the program's start plus
    normal noise of standard deviation `jitter` in unconstrained units: a path that starts near the
    mode is too short to learn the curvature, so this is not to be small; `num_bound_draws` draws
    estimate the bound of each step. `num_draws` draws are taken with replacement from as many of
    each path, with Pareto smoothed importance weights; one path alone is not resampled. Paths are
    run one after the other, or `vectorised`: for accelerators, as on a processor each step of all
    waits for the longest line search.

    The result code says `diverged` if no step had a finite bound, and `poor_approximation` if
    Pareto k is above `max_pareto_k`, a warning as for `MeanFieldNormal`.
    """

    num_paths: int = eqx.field(static=True, default=4)
    num_draws: int = eqx.field(static=True, default=1000)
    num_steps: int = eqx.field(static=True, default=100)
    memory: int = eqx.field(static=True, default=6)
    num_bound_draws: int = eqx.field(static=True, default=10)
    vectorised: bool = eqx.field(static=True, default=False)
    jitter: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.5)
    max_pareto_k: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.7)

    def __check_init__(self):
        check_counts(
            num_paths=self.num_paths,
            num_draws=self.num_draws,
            num_steps=self.num_steps,
            memory=self.memory,
            num_bound_draws=self.num_bound_draws,
        )

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        path_key, choice_key = jax.random.split(key)

        def path(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
            find_key, draw_key = jax.random.split(key)
            law, bound = self.approximate(program, key=find_key)
            return *law.sample(self.num_draws, key=draw_key), bound

        keys = jax.random.split(path_key, self.num_paths)
        found = jax.vmap(path)(keys) if self.vectorised else jax.lax.map(path, keys)
        positions, log_law, bounds = found
        positions = positions.reshape(-1, positions.shape[-1])
        log_density = densities(program, positions)
        # A path that found nothing has no weight instead of spoiling the others.
        ratios = log_density - log_law.ravel()
        lost = ~jnp.isfinite(ratios)
        ratios = jnp.where(lost, jnp.min(jnp.where(lost, jnp.inf, ratios)) - 100, ratios)
        weights, k = pareto_smoothed(ratios)
        if self.num_paths > 1:
            chosen = jax.random.categorical(
                choice_key, jnp.where(lost, -jnp.inf, weights), shape=(self.num_draws,)
            )
            positions, log_density = positions[chosen], log_density[chosen]
        any_bound = jnp.any(jnp.isfinite(bounds))
        return independent_draws(
            program,
            positions,
            log_density,
            k,
            self.max_pareto_k,
            jnp.asarray(self.num_paths * self.num_steps),
            select(any_bound, SUCCESSFUL, cast(RESULTS, RESULTS.diverged)),
        )

    def approximate(
        self, program: Program, *, key: PRNGKeyArray
    ) -> tuple[QuasiNewtonLaw, Float[Array, ""]]:
        """The best law on one path, and its bound."""
        start, named = program.flat()
        start_key, bound_key = jax.random.split(key)
        begin = start + self.jitter.astype(start.dtype) * jax.random.normal(
            start_key, start.shape, start.dtype
        )

        def log_density(x: Array) -> Array:
            return program.log_density(named(x))

        gradient = jax.grad(log_density)
        step, first = lbfgs_steps(log_density, begin, self.memory)

        def advance(carry: tuple, number: Int[Array, ""]) -> tuple[tuple, None]:
            position, slope, state, pairs, best = carry
            after, state, _ = step(position, state)
            slope_after = gradient(after)
            pairs = with_pair(pairs, after - position, slope - slope_after)
            law = law_of(pairs, after, slope_after)
            bound_here = jax.random.fold_in(bound_key, number)
            bound = self.bound(log_density, law, key=bound_here)
            best = better(best, (law, bound))
            return (after, slope_after, state, pairs, best), None

        none = jnp.zeros((start.size, self.memory), start.dtype)
        pairs = Pairs(none, none, jnp.ones_like(start))
        slope = gradient(begin)
        worst = law_of(pairs, begin, slope), jnp.asarray(-jnp.inf, start.dtype)
        carry = begin, slope, first, pairs, worst
        (*_, best), _ = jax.lax.scan(advance, carry, jnp.arange(self.num_steps))
        return best

    def bound(
        self, log_density: Callable[[Array], Array], law: QuasiNewtonLaw, *, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """E_q[ln p - ln q] by draws; minus infinity if it is not finite."""
        positions, log_law = law.sample(self.num_bound_draws, key=key)
        found = jnp.mean(jax.vmap(log_density)(positions) - log_law)
        return jnp.where(jnp.isfinite(found), found, -jnp.inf)


def better(
    best: tuple[QuasiNewtonLaw, Array], other: tuple[QuasiNewtonLaw, Array]
) -> tuple[QuasiNewtonLaw, Array]:
    """The law with the larger bound."""
    return chosen(other[1] > best[1], other, best)


def with_pair(pairs: Pairs, step: Float[Array, " size"], change: Float[Array, " size"]) -> Pairs:
    """The pairs after one more step, if the loss is curved upwards along it."""
    curved = jnp.vdot(step, change)
    usable: Bool[Array, ""] = curved > LEAST_CURVATURE * jnp.vdot(change, change)

    def appended(old: Array, new: Array) -> Array:
        return jnp.concatenate([old[:, 1:], new[:, None]], axis=1)

    new = Pairs(
        appended(pairs.steps, step),
        appended(pairs.changes, change),
        diagonal_update(pairs.variances, step, change),
    )
    return chosen(usable, new, pairs)


def diagonal_update(
    variances: Float[Array, " size"], step: Float[Array, " size"], change: Float[Array, " size"]
) -> Float[Array, " size"]:
    """The variances a of the first estimate after a step s and a change y of the gradient:

    1/a' = (y'Ay)/(s'y a) + y²/(s'y) - (y'Ay) s²/((s'y)(s'A^-1 s) a²),   A = diag(a)
    """
    curved = jnp.vdot(change, step)
    spread = jnp.vdot(change, variances * change)
    length = jnp.vdot(step, step / variances)
    precisions = spread / (curved * variances) + change**2 / curved
    precisions = precisions - spread * step**2 / (curved * length * variances**2)
    return 1 / precisions


def law_of(
    pairs: Pairs, position: Float[Array, " size"], slope: Float[Array, " size"]
) -> QuasiNewtonLaw:
    """The normal law with L-BFGS's inverse Hessian A + B M B', one Newton step from `position`.

        B = [A Y, S],   M = [[0, -R^-1], [-R^-T, R^-T (diag R + Y'AY) R^-1]]

    S and Y hold the steps and the changes, R is the upper triangle of S'Y. Slots without a pair
    have zero columns and a one on the diagonal of R, so that they add nothing.
    """
    steps, changes, variances = pairs
    memory = steps.shape[1]
    products = jnp.triu(steps.T @ changes)
    curved = jnp.diagonal(products)
    upper = products + jnp.diag(jnp.where(curved > 0, 0, 1).astype(products.dtype))
    eye = jnp.eye(memory, dtype=products.dtype)
    inverse = solve_triangular(upper, eye)
    inner = jnp.diag(curved) + changes.T @ (variances[:, None] * changes)
    corner = inverse.T @ inner @ inverse
    middle = jnp.block([[jnp.zeros_like(eye), -inverse], [-inverse.T, corner]])
    scale = jnp.sqrt(variances)
    # Both parts divided by the scale, for the root of I + (B/scale) M (B/scale)'.
    factor = jnp.concatenate([scale[:, None] * changes, steps / scale[:, None]], axis=1)
    basis, triangle = jnp.linalg.qr(factor)
    spread = triangle @ middle @ triangle.T
    spread = (spread + spread.T) / 2 + jnp.eye(basis.shape[1], dtype=scale.dtype)
    scaled_slope = scale * slope
    mean = position + scale * (scaled_slope + factor @ (middle @ (factor.T @ scaled_slope)))
    return QuasiNewtonLaw(mean, scale, basis, jnp.linalg.cholesky(spread))
