"""Instrumented PCA by alternating least squares, on the moments of characteristic-managed
portfolios.

    r_it = z_it' (Gamma f_t + Gamma_g g_t + Gamma_a) + e_it

z_it are the L characteristics that were known before the return r_it, f_t the latent factors, g_t
given ones. All that the data say about the coefficients is in

    W_t = Z_t' Z_t / n_t,    x_t = Z_t' r_t / n_t,    n_t usable assets in row t,

so that missing cells only change these three (`jaxfc.bayes.instrumented_portfolios`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.core import Tracer
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from jaxfc.bayes.instrumented_portfolios import ManagedPortfolios, einsum
from jaxfc.counts import check_counts
from jaxfc.fixed_point import Outcome, StoppingRule, derivative_accuracy, fixed_point
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, as_scalar
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse


class Coefficients(eqx.Module):
    """Gamma (characteristics, factors), and the columns of given factors (the last of them the
    intercept's, where there is one)."""

    gamma: Float[Array, "characteristics factors"]
    given: Float[Array, "characteristics given"]

    def of_rows(
        self, factors: Float[Array, "time factors"], given: Float[Array, "time given"]
    ) -> Float[Array, "time characteristics"]:
        """c_t = Gamma f_t + Gamma_g g_t: what a unit of each characteristic earns in row t."""
        return factors @ self.gamma.T + given @ self.given.T


class Rows(eqx.Module):
    """What a step reads: portfolios, given factors and which rows count (the rest is zero), and the
    ridge."""

    portfolios: ManagedPortfolios
    given: Float[Array, "time given"]
    used: Bool[Array, " time"]
    ridge: Float[Array, ""]


class InstrumentedEstimate(eqx.Module):
    """What alternating least squares found.

    `factors` are zero in rows that are not `used`: those with fewer usable cells than factors, or
    without a given factor. `path` is the move of each step, NaN beyond the last.
    """

    coefficients: Coefficients
    factors: Float[Array, "time factors"]
    given: Float[Array, "time given"]
    used: Bool[Array, " time"]
    path: Float[Array, " steps"]
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def characteristic_returns(self) -> Float[Array, "time characteristics"]:
        """c_t = Gamma f_t + Gamma_g g_t + Gamma_a, which no rotation changes; the fit is z_it'
        c_t."""
        return self.coefficients.of_rows(self.factors, self.given)

    @property
    def mean_returns(self) -> Float[Array, " characteristics"]:
        """The mean of c_t over the rows used: the prediction is z_it' of it."""
        total = jnp.sum(self.used).astype(self.factors.dtype)
        return jnp.sum(self.characteristic_returns, axis=0) / total


class SmallestMove(StoppingRule):
    """A step moves the coefficients by less than `tolerance`; the objective is the move itself."""

    tolerance: Float[Array, ""]

    def change(self, objective: Array, before: Array, num_steps: Array) -> Float[Array, ""]:
        return objective

    def ends(self, change: Float[Array, ""]) -> Bool[Array, ""]:
        return change < self.tolerance


class AlternatingLeastSquares(eqx.Module):
    """Gamma and f_t that minimise the sum of squared errors, given each other in turn.

        f_t = (Gamma' W_t Gamma)^{-1} Gamma' (x_t - W_t Gamma_g g_t),    phi_t = (f_t, g_t)
        [sum_t n_t W_t kron phi_t phi_t' + ridge mean(diagonal) I] vec = sum_t n_t vec(x_t phi_t')

    normalised at every step: Gamma' Gamma = I, the second moment of f_t diagonal and descending,
    the mean of each factor positive, Gamma' Gamma_g = 0. `intercept` adds Gamma_a as the column of
    a given factor that is one. `ridge` is without units; as Gamma is scaled to length one after
    each step, it pulls its direction, not its length, to where the data say most.

    The steps end when none moves an entry of Gamma by `tolerance` (for given factors: relative to
    the largest part of a return), or ten times the rounding error if that is more, after at most
    `max_steps`. A step costs O(T L^2 (K + M)^2 + (L (K + M))^3).

    **Raises:** `ValueError` for counts out of range or a negative ridge.

    Source: Kelly, Pruitt and Su (2017, 2019, sections 2 and 3).
    """

    num_factors: int = eqx.field(static=True)
    intercept: bool = eqx.field(static=True, default=False, kw_only=True)
    ridge: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-8, kw_only=True)
    max_steps: int = eqx.field(static=True, default=5000, kw_only=True)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        if self.num_factors < 0:
            raise ValueError(f"num_factors must be 0 or more, got {self.num_factors}.")
        if not isinstance(self.ridge, Tracer) and not float(self.ridge) >= 0.0:
            raise ValueError(f"ridge must be 0 or more, got {float(self.ridge)}.")

    def solve(
        self,
        portfolios: ManagedPortfolios,
        given: Float[Array, "time given"] | None = None,
        given_observed: Bool[Array, "time given"] | None = None,
        *,
        start: Coefficients | None = None,
    ) -> InstrumentedEstimate:
        """Gamma and the factors of these portfolios: pure, differentiable, for `jit` and `vmap`.

        `given` are pre-specified factors of the same rows, `given_observed` which of them are known
        (all, if `None`). Steps begin at `start`, else at the leading left singular vectors of the
        x_t and no weight on given factors. Differentiate what no rotation changes.

        **Raises:** `ValueError` for more factors than characteristics, or nothing to estimate.
        """
        rows = self.rows(portfolios, given, given_observed)
        num_characteristics = portfolios.returns.shape[1]
        if self.num_factors > num_characteristics:
            raise ValueError(
                f"{self.num_factors} factors cannot be told apart by {num_characteristics} "
                "characteristics; ask for fewer factors or add characteristics."
            )
        if self.num_factors + rows.given.shape[1] == 0:
            raise ValueError("num_factors=0 needs given factors or intercept=True.")
        if start is None:
            start = self.start(rows)
        outcome = self.iterate(jax.lax.stop_gradient(start), rows)
        coefficients, factors = normalised(
            outcome.value, factors_of_rows(outcome.value, rows), rows
        )
        return InstrumentedEstimate(
            coefficients=coefficients,
            factors=factors,
            given=rows.given,
            used=rows.used,
            path=outcome.path,
            num_steps=outcome.num_steps,
            result=outcome.result,
        )

    def rows(
        self,
        portfolios: ManagedPortfolios,
        given: Float[Array, "time given"] | None = None,
        given_observed: Bool[Array, "time given"] | None = None,
    ) -> Rows:
        """The rows that say something about the factors, with the intercept among the given."""
        counts = portfolios.counts
        columns = jnp.zeros((len(counts), 0), counts.dtype) if given is None else given
        used = counts >= max(self.num_factors, 1)
        if given_observed is not None:
            used = used & jnp.all(given_observed, axis=1)
        if self.intercept:
            columns = jnp.concatenate([columns, jnp.ones_like(counts)[:, None]], axis=1)
        held, columns = jax.tree.map(
            lambda leaf: jnp.where(used.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0),
            (portfolios, columns),
        )
        return Rows(held, columns, used, self.ridge.astype(counts.dtype))

    def start(self, rows: Rows) -> Coefficients:
        """The leading left singular vectors of the x_t, and no weight on given factors."""
        returns = rows.portfolios.returns
        _, vectors = jnp.linalg.eigh(einsum("tl,tm->lm", returns, returns))
        gamma = vectors[:, ::-1][:, : self.num_factors]
        return Coefficients(
            gamma, jnp.zeros((returns.shape[1], rows.given.shape[1]), returns.dtype)
        )

    def iterate(self, start: Coefficients, rows: Rows) -> Outcome:
        """Steps to their fixed point."""
        dtype = start.gamma.dtype
        rounding = 10.0 * jnp.finfo(dtype).eps
        tolerance = jnp.maximum(self.tolerance.astype(dtype), rounding)
        accuracy = derivative_accuracy(start)
        solver = lx.GMRES(rtol=accuracy, atol=accuracy, max_steps=200)
        rule = SmallestMove(tolerance)
        return fixed_point(
            als_step, start, rows, rule=rule, max_steps=self.max_steps, linear_solver=solver
        )[0]


def factors_of_rows(coefficients: Coefficients, rows: Rows) -> Float[Array, "time factors"]:
    """f_t = (Gamma' W_t Gamma)^{-1} Gamma' (x_t - W_t Gamma_g g_t), zero in rows not used."""
    gamma, gram = coefficients.gamma, rows.portfolios.gram
    size = gamma.shape[1]
    if size == 0:
        return jnp.zeros((len(gram), 0), gram.dtype)
    weighted = einsum("tlm,mk->tlk", gram, gamma)
    normal = einsum("tlk,lj->tkj", weighted, gamma)
    normal = jnp.where(rows.used[:, None, None], normal, jnp.eye(size, dtype=gram.dtype))
    explained = einsum("tlk,lm,tm->tk", weighted, coefficients.given, rows.given)
    right = rows.portfolios.returns @ gamma - explained
    inverse, _ = spd_inverse(normal, fastest_implementation(size))
    return einsum("tkj,tj->tk", inverse, right)


def coefficients_of_factors(factors: Float[Array, "time factors"], rows: Rows) -> Coefficients:
    """Gamma and Gamma_g by least squares on all cells, the factors known."""
    portfolios = rows.portfolios
    regressors = jnp.concatenate([factors, rows.given], axis=1)
    num_characteristics, width = portfolios.returns.shape[1], regressors.shape[1]
    size = num_characteristics * width
    weighted = portfolios.counts[:, None] * regressors
    squares = einsum("tq,tp->tqp", weighted, regressors)
    normal = einsum("tlm,tqp->lqmp", portfolios.gram, squares).reshape(size, size)
    right = einsum("tl,tq->lq", portfolios.returns, weighted).reshape(size)
    penalty = rows.ridge * jnp.mean(jnp.diagonal(normal))
    factor = cho_factor(normal + penalty * jnp.eye(size, dtype=normal.dtype), lower=True)
    found = cho_solve(factor, right).reshape(num_characteristics, width)
    return Coefficients(found[:, : factors.shape[1]], found[:, factors.shape[1] :])


def normalised(
    coefficients: Coefficients, factors: Float[Array, "time factors"], rows: Rows
) -> tuple[Coefficients, Float[Array, "time factors"]]:
    """The same fit with Gamma' Gamma = I, Gamma' Gamma_g = 0, f_t of diagonal descending second
    moment and positive means."""
    size = factors.shape[1]
    if size == 0:
        return coefficients, factors
    gamma = coefficients.gamma
    # Gamma = Q C' with C the lower Cholesky factor of Gamma' Gamma, so Gamma f = Q (C' f).
    chol = jnp.linalg.cholesky(einsum("lk,lj->kj", gamma, gamma))
    basis = solve_triangular(chol, gamma.T, lower=True).T
    # The part of Gamma_g in the span of Gamma is a loading on the latent factors: move it there.
    shared = basis.T @ coefficients.given
    factors = factors @ chol + rows.given @ shared.T
    given = coefficients.given - basis @ shared
    _, vectors = jnp.linalg.eigh(einsum("tk,tj->kj", factors, factors))
    vectors = vectors[:, ::-1]
    factors = factors @ vectors
    sign = jnp.where(jnp.sum(factors, axis=0) < 0, -1.0, 1.0).astype(factors.dtype)
    return Coefficients(basis @ vectors * sign, given), factors * sign


def als_step(coefficients: Coefficients, rows: Rows) -> tuple[Coefficients, Float[Array, ""]]:
    """Factors given Gamma, Gamma given the factors, normalised; and the largest move."""
    factors = factors_of_rows(coefficients, rows)
    moved, factors = normalised(coefficients_of_factors(factors, rows), factors, rows)
    return moved, largest_move(coefficients, moved, factors, rows)


def largest_move(
    before: Coefficients, after: Coefficients, factors: Float[Array, "time factors"], rows: Rows
) -> Float[Array, ""]:
    """The largest change of an entry of Gamma, whose columns have length one, and of the returns
    by given factors relative to the largest root mean square of c_t in one of its parts."""
    move = jnp.max(jnp.abs(after.gamma - before.gamma), initial=0.0)
    if after.given.shape[1] == 0:
        return move
    total = jnp.sum(rows.used).astype(factors.dtype)
    scales = [jnp.sqrt(jnp.sum(part**2, axis=0) / total) for part in (factors, rows.given)]
    parts = [jnp.abs(c) * s for c, s in zip((after.gamma, after.given), scales, strict=True)]
    largest = jnp.max(jnp.concatenate(parts, axis=1))
    change = jnp.max(jnp.abs(after.given - before.given) * scales[1])
    return jnp.maximum(move, change / jnp.where(largest > 0, largest, 1.0))
