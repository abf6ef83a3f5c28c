"""Numbers of factors and lags, all candidates estimated in one compiled program (Algorithm A1)."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import map_in_batches
from jaxfc.factors.checks import has_priors
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.criteria import check_sizes, criteria_from, eigenvalues_of, factor_criteria
from jaxfc.factors.identify import second_moment
from jaxfc.factors.methods import EM, PCA, PPCA, Candidate
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.moments import expected_factor_loglik
from jaxfc.factors.selection import Padding, Selection, SelectionRule, num_parameters
from jaxfc.results import RESULTS, is_okay
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.constants import LOG_2PI

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def select_model(
    model: DynamicFactorModel,
    panel: "Panel",
    max_factors: int,
    max_lags: int,
    *,
    rule: SelectionRule | None = None,
    batch_size: int | None = None,
    padding: Padding = "largest",
    throw: bool = True,
) -> Selection:
    """Numbers of factors 1..`max_factors` and lags 0..`max_lags` of a panel (Algorithm A1).

    For each K and p the model is estimated; p*(K) minimises the AIC; K* is then chosen by a
    criterion that ignores the dynamics; the answer is (K*, p*(K*)). `model` gives all options but
    the two numbers. All candidates run in one compiled program, `batch_size` of them at a time
    (default: all at once, fastest on an accelerator; 1 needs least memory and stops each candidate
    when it has converged), in arrays with masks, which changes no result: of the `padding`
    "largest" size of all, or of the largest of their "class" (the lags, and two halves of the
    numbers of factors): a fraction of the work on a core, and a few times the compilation.

    **Raises:** `ValueError` if the panel is unfit for the largest candidate, for a method without a
    maximised likelihood (PCA, PPCA), for restrictions, for sizes or options out of range;
    `RuntimeError` if `throw` and no choice could be made because candidates failed.

    Source: Defend et al. (2021), section 3, Algorithm A1.
    """
    largest = dataclasses.replace(model, num_factors=max_factors, num_lags=max_lags)
    check_selection(model, rule or SelectionRule(), max_factors, max_lags, len(panel.names))
    largest = in_precision_of_jax(largest.resolved(panel))
    largest.check(panel)
    selection = jitted_select(
        largest,
        *panel.arrays(),
        max_factors,
        max_lags,
        rule=SelectionRule() if rule is None else rule,
        aggregation=panel.aggregation,
        batch_size=batch_size,
        padding=padding,
    )
    selection = dataclasses.replace(selection, model=model)
    if throw and (int(selection.num_factors) < 1 or int(selection.num_lags) < 0):
        raise RuntimeError(
            f"no model can be chosen: {int(selection.num_failed)} of {selection.loglik.size} "
            "candidates were not estimated. Raise max_steps, lower max_factors, or pass "
            "throw=False and look at to_frame()."
        )
    return selection


def select_sizes(
    model: DynamicFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    max_factors: int,
    max_lags: int,
    *,
    rule: SelectionRule,
    aggregation: AggregationRows | None = None,
    batch_size: int | None = None,
    padding: Padding = "largest",
) -> Selection:
    """`select_model` on arrays: pure, for `jit` and `vmap` over panels.

    The likelihood of a two-step candidate is that of the panel it rebuilt, as in the source.
    """
    check_selection(model, rule, max_factors, max_lags, values.shape[1])
    shape = (max_factors, max_lags + 1)
    numbers = np.indices(shape).reshape(2, -1) + np.asarray([[1], [0]])
    estimated = []
    classes = size_classes(numbers, padding)
    for members in classes:
        num_factors, num_lags = numbers[:, members]
        largest = dataclasses.replace(
            model, num_factors=int(num_factors.max()), num_lags=int(num_lags.max())
        )

        def estimate(sizes: Array, largest: DynamicFactorModel = largest) -> Estimated:
            active = jnp.arange(largest.num_factors) < sizes[0]
            lags = jnp.arange(largest.num_lags) < sizes[1] if largest.num_lags else None
            candidate = Candidate(factors=active, lags=lags)
            fitted = largest.estimate_from(
                values, observed, aggregation=aggregation, candidate=candidate
            )
            return summarise(fitted, candidate, active, rule)

        sizes = jnp.asarray(numbers[:, members].T)
        estimated.append(map_in_batches(estimate, sizes, batch_size))
    places = np.argsort(np.concatenate(classes))
    estimated = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[places], *estimated)
    estimated = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), estimated)
    count = num_parameters(model, rule, numbers[0], numbers[1], values.shape[1]).reshape(shape)
    aic = 2.0 * count - 2.0 * estimated.fit
    usable = is_okay(estimated.result) & jnp.isfinite(aic)
    by_factors = jnp.argmin(jnp.where(usable, aic, jnp.inf), axis=1)
    lags_by_factors = jnp.where(jnp.any(usable, axis=1), by_factors, -1)
    if rule.panel == "pairwise":
        criteria = factor_criteria(
            values,
            observed,
            max_factors,
            multiplier=rule.multiplier,
            residual=rule.residual,
            standardise=model.standardise,
        )
    else:
        eigenvalues = estimated.eigenvalues[np.arange(max_factors), by_factors]
        eigenvalues = jnp.where(lags_by_factors[:, None] < 0, jnp.nan, eigenvalues)
        criteria = criteria_from(eigenvalues, values.shape[0], rule.multiplier, rule.residual)
    num_factors = criteria.selected(rule.factors)
    return Selection(
        model=model,
        rule=rule,
        num_factors=num_factors,
        num_lags=jnp.where(num_factors > 0, lags_by_factors[num_factors - 1], -1),
        lags_by_factors=lags_by_factors,
        criteria=criteria,
        loglik=estimated.loglik,
        expected_loglik=estimated.expected_loglik,
        aic=aic,
        num_steps=estimated.num_steps,
        result=estimated.result,
    )


jitted_select = eqx.filter_jit(select_sizes)


def size_classes(numbers: Int[np.ndarray, "2 candidates"], padding: str) -> list[np.ndarray]:
    """Positions of the candidates that share arrays, by their numbers of factors and lags."""
    num_factors, num_lags = numbers
    if padding == "largest":
        return [np.arange(num_factors.size)]
    if padding != "class":
        raise ValueError(f"padding must be 'largest' or 'class', got {padding!r}.")
    # Without lags no loop runs over time and the padding costs little.
    upper = (num_factors > (num_factors.max() + 1) // 2) & (num_lags > 0)
    labels = 2 * num_lags + upper
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def check_selection(
    model: DynamicFactorModel,
    rule: SelectionRule,
    max_factors: int,
    max_lags: int,
    num_series: int,
) -> None:
    """Raise `ValueError` for a selection that is not defined."""
    check_sizes(max_factors, num_series, rule.residual)
    if max_lags < 0:
        raise ValueError(f"max_lags must be at least 0, got {max_lags}.")
    if isinstance(model.method, PCA | PPCA):
        raise ValueError(
            f"{type(model.method).__name__} maximises no likelihood of the dynamics, so an AIC of "
            "the lags says nothing; use method=EM() or TwoStepEM()."
        )
    if model.restrictions is not None:
        raise ValueError(
            f"{type(model.restrictions).__name__} hold for one number of factors and lags; select "
            "without them, then restrict the model that was chosen."
        )
    if has_priors(model):
        raise ValueError(
            "shrunk variances and random intercepts are no maximum of the likelihood, which an AIC "
            "needs; select with idiosyncratic='diagonal' and intercept='sample', then fit."
        )
    if rule.panel == "pairwise" and model.method.rebuilds_panel:
        raise ValueError(
            "panel='pairwise' takes observations for values of their rows, two-step methods read "
            "sums over several rows; use panel='rebuilt'."
        )
    if rule.lags == "expected" and model.initial == "estimated":
        raise ValueError(
            "with initial='estimated' the factor path is longer the more lags there are, and "
            "lags='expected' compares paths of one length; use lags='loglik' or "
            "initial='stationary'."
        )


class Estimated(eqx.Module):
    """What the selection needs of one candidate (or of all of them, by number)."""

    loglik: Float[Array, "..."]
    expected_loglik: Float[Array, "..."] | None
    num_steps: Int[Array, "..."]
    result: RESULTS
    eigenvalues: Float[Array, "... series"]

    @property
    def fit(self) -> Float[Array, "..."]:
        """What the AIC is made of."""
        return self.loglik if self.expected_loglik is None else self.expected_loglik


def summarise(
    fitted: FittedFactorModel,
    candidate: Candidate,
    active: Bool[Array, " factors"],
    rule: SelectionRule,
) -> Estimated:
    """One candidate's entries of the tables."""
    expected = None
    data = fitted_data(fitted)
    if rule.lags == "expected":
        posterior = EM().step(fitted.model, candidate).expect(fitted.parameters, data).posterior
        expected = expected_factor_loglik(fitted.parameters, posterior)
        # Each inactive factor is white noise: -1/2 (ln 2 pi + 1) a period. The others are put on
        # unit second moment M: R = M^{-1/2} shifts the value by -T ln |det R|.
        num_periods = posterior.means.shape[0]
        expected = expected + 0.5 * num_periods * (LOG_2PI + 1.0) * jnp.sum(~active)
        both = active[:, None] & active
        moment = jnp.where(both, second_moment(posterior), jnp.eye(active.size))
        expected = expected + 0.5 * num_periods * jnp.linalg.slogdet(moment)[1]
    parameters = fitted.parameters
    common = parameters.intercept + fitted.factors @ parameters.loadings.T
    rebuilt = jnp.where(data.observed > 0, data.values, common)
    centred = rebuilt - jnp.mean(rebuilt, axis=0)
    eigenvalues = eigenvalues_of(centred, jnp.ones_like(centred))
    return Estimated(fitted.loglik, expected, fitted.num_steps, fitted.result, eigenvalues)
