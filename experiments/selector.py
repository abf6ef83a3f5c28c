"""An estimator for studies that first chooses the numbers of factors and lags (Algorithm A1).

K* minimises `modified` of `jaxfc.factors.criteria` over K = min..max: V(K) + K s^2 g_2 with
s^2 = m (v(1) - v(Kmax)) and v the residual variance of probabilistic principal components. That
criterion looks at no dynamics, so with gaps it reads, for every K, the panel that the static model
with K factors has completed. Then EM runs for p = 0..max at K* only, and p* minimises the AIC.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.candidate import Candidate
from jaxfc.factors.criteria import best, criteria_from, factor_criteria
from jaxfc.factors.methods import EM
from jaxfc.factors.model import DynamicFactorModel
from jaxfc.factors.select import Estimated, check_selection, summarise
from jaxfc.factors.selection import SelectionRule
from jaxfc.factors.worlds import FactorWorld, SimulatedPanel
from jaxfc.results import RESULTS, is_okay, select
from jaxfc.typing import Array, Bool, Float, Int, as_scalar

EXPECTED = SelectionRule(lags="expected")


class Range(NamedTuple):
    """Numbers of factors min..max and of lags 0..max that are tested."""

    min_factors: int
    max_factors: int
    max_lags: int


class Selector(eqx.Module):
    """Selection with the multiplier m = `relative` / (Kmax - 1), then EM with diagonal errors.

    `ranges`: of them a world takes the first that its number of factors lies in. `rtol` and
    `max_steps` bound the EM of the lags, `static_rtol` that of the static models which complete a
    panel with gaps.
    """

    relative: Float[Array, ""] = eqx.field(converter=as_scalar)
    ranges: tuple[Range, ...] = eqx.field(static=True)
    rtol: float = eqx.field(static=True, default=1e-4)
    static_rtol: float = eqx.field(static=True, default=1e-3)
    max_steps: int = eqx.field(static=True, default=100)

    def applies(self, world: FactorWorld) -> bool:
        """Stocks only: flows are no observations of their rows."""
        return world.num_flows == 0

    def bind(self, world: FactorWorld) -> "BoundSelector":
        """The selection for one panel.

        **Raises:** `ValueError` if no range holds the world's number of factors, or the criterion
        is not defined up to the end of the range.
        """
        for tested in self.ranges:
            if tested.min_factors <= world.num_factors <= tested.max_factors:
                break
        else:
            raise ValueError(f"none of {self.ranges} holds {world.num_factors} factors.")
        method = EM(rtol=self.rtol, max_steps=self.max_steps)
        sizes = tested.max_factors, tested.max_lags
        dynamic = DynamicFactorModel(*sizes, method=method, standardise=False)
        check_selection(dynamic, EXPECTED, *sizes, world.num_series)
        static = DynamicFactorModel(
            tested.max_factors,
            0,
            method=EM(rtol=self.static_rtol, max_steps=self.max_steps),
            idiosyncratic="isotropic",
            standardise=False,
        )
        multiplier = self.relative / (tested.max_factors - 1)
        return BoundSelector(multiplier, dynamic, static, tested.min_factors, world.missing == 0.0)


class Selected(eqx.Module):
    """The chosen numbers, `lags_by_expected` by equation (20) instead of the log-likelihood, and
    the factors of the chosen model, zeros behind the K*-th. `result`, `num_steps`: of its EM."""

    num_factors: Int[Array, ""]
    num_lags: Int[Array, ""]
    lags_by_expected: Int[Array, ""]
    factors: Float[Array, "time factors"]
    num_steps: Int[Array, ""]
    result: RESULTS


class BoundSelector(eqx.Module):
    """A selection with its multiplier and models of the largest sizes."""

    multiplier: Float[Array, ""]
    dynamic: DynamicFactorModel
    static: DynamicFactorModel
    min_factors: int = eqx.field(static=True)
    complete: bool = eqx.field(static=True)

    def __call__(self, panel: SimulatedPanel) -> Selected:
        num_factors = self.choose_factors(panel)
        max_factors, max_lags = self.dynamic.num_factors, self.dynamic.num_lags
        active = jnp.arange(max_factors) < num_factors

        def estimate(num_lags: Array) -> tuple[Estimated, Array]:
            lags = jnp.arange(max_lags) < num_lags if max_lags else None
            candidate = Candidate(factors=active, lags=lags)
            fitted = self.dynamic.estimate_from(panel.values, panel.observed, candidate=candidate)
            return summarise(fitted, candidate, active, EXPECTED), fitted.factors

        orders = jnp.arange(max_lags + 1)
        estimated, factors = jax.vmap(estimate)(orders)
        penalty = 2.0 * orders * num_factors**2
        usable = estimated.result == RESULTS.nonlinear_max_steps_reached
        usable = (usable | is_okay(estimated.result)) & (num_factors > 0)
        chosen = smallest(penalty - 2.0 * estimated.loglik, usable)
        by_expected = smallest(penalty - 2.0 * estimated.fit, usable)
        at = jnp.maximum(chosen, 0)
        result = jax.tree.map(lambda code: code[at], estimated.result)
        failed = (chosen < 0) & ((result == RESULTS.successful) | (num_factors < 1))
        return Selected(
            num_factors=num_factors,
            num_lags=chosen,
            lags_by_expected=by_expected,
            factors=jnp.where(active, factors[at], 0.0),
            num_steps=estimated.num_steps[at],
            result=select(failed, cast(RESULTS, RESULTS.diverged), result),
        )

    def choose_factors(self, panel: SimulatedPanel) -> Int[Array, ""]:
        """K*, or 0 where the criterion is nowhere finite."""
        size, least = self.static.num_factors, self.min_factors
        if self.complete:
            criteria = factor_criteria(
                panel.values,
                panel.observed,
                size,
                multiplier=self.multiplier,
                standardise=False,
            )
        else:
            # The slope of the penalty needs K = 1 too.
            numbers = np.unique([1, *range(least, size + 1)])
            rows = jax.lax.map(lambda k: self.completed_eigenvalues(panel, k), jnp.asarray(numbers))
            eigenvalues = jnp.full((size, rows.shape[1]), jnp.nan).at[numbers - 1].set(rows)
            criteria = criteria_from(eigenvalues, panel.values.shape[0], self.multiplier, "ppca")
        tested = np.arange(1, size + 1) >= least
        return best("modified", jnp.where(tested, criteria.modified, jnp.nan)) + 1

    def completed_eigenvalues(
        self, panel: SimulatedPanel, num_factors: Array
    ) -> Float[Array, " series"]:
        """Those of the panel as completed by the static model, NaN where that failed."""
        active = jnp.arange(self.static.num_factors) < num_factors
        candidate = Candidate(factors=active)
        fitted = self.static.estimate_from(panel.values, panel.observed, candidate=candidate)
        return summarise(fitted, candidate, active, SelectionRule()).eigenvalues


def smallest(values: Float[Array, " orders"], usable: Bool[Array, " orders"]) -> Int[Array, ""]:
    """Position of the smallest value that is finite and usable, -1 if there is none."""
    usable = usable & jnp.isfinite(values)
    return jnp.where(jnp.any(usable), jnp.argmin(jnp.where(usable, values, jnp.inf)), -1)


def captured(truth: Array, factors: Array) -> Float[Array, ""]:
    """Trace R^2, where columns of zeros stand for factors that were not chosen."""
    gram, cross = factors.T @ factors, factors.T @ truth
    gram = gram + jnp.diag(jnp.where(jnp.diagonal(gram) > 0, 0.0, 1.0))
    explained = jnp.sum(cross * jnp.linalg.solve(gram, cross))
    return explained / jnp.sum(truth**2)


def truth_of(panel: SimulatedPanel) -> tuple[int, int]:
    """K and p of the world."""
    return panel.parameters.num_factors, panel.parameters.num_lags


def num_factors(panel: SimulatedPanel, estimate: Selected) -> Array:
    """K*."""
    return estimate.num_factors


def num_lags(panel: SimulatedPanel, estimate: Selected) -> Array:
    """p*."""
    return estimate.num_lags


def factors_right(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether K* = K."""
    return estimate.num_factors == truth_of(panel)[0]


def lags_right(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether p* = p."""
    return estimate.num_lags == truth_of(panel)[1]


def lags_right_expected(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether p* = p by equation (20)."""
    return estimate.lags_by_expected == truth_of(panel)[1]


def both_right(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether K* = K and p* = p."""
    return factors_right(panel, estimate) & lags_right(panel, estimate)


def too_many(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether K* > K."""
    return estimate.num_factors > truth_of(panel)[0]


def too_few(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Whether K* < K."""
    return estimate.num_factors < truth_of(panel)[0]


def trace_r2(panel: SimulatedPanel, estimate: Selected) -> Array:
    """Trace R^2 of the chosen model's factors."""
    return captured(panel.factors, estimate.factors)


def trace_r2_demeaned(panel: SimulatedPanel, estimate: Selected) -> Array:
    """The same of factors less their means: with gaps, a factor too many may turn into a constant,
    which recovers the mean that centring the panel took away."""
    truth, factors = (f - jnp.mean(f, axis=0) for f in (panel.factors, estimate.factors))
    return captured(truth, factors)


METRICS: dict[str, Callable[[SimulatedPanel, Selected], Array]] = {
    "selected_factors": num_factors,
    "selected_lags": num_lags,
    "factors_right": factors_right,
    "lags_right": lags_right,
    "lags_right_expected": lags_right_expected,
    "both_right": both_right,
    "too_many": too_many,
    "too_few": too_few,
    "trace_r2": trace_r2,
    "trace_r2_demeaned": trace_r2_demeaned,
}
