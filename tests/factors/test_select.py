"""Selection of sizes: one batch of masked candidates equals a loop over models of every size."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import (
    EM,
    PCA,
    AutoregressiveErrors,
    Blocks,
    DynamicFactorModel,
    TwoStepEM,
    trace_r_squared,
)
from jaxfc.factors.criteria import factor_criteria
from jaxfc.factors.em import PanelData
from jaxfc.factors.methods import Candidate
from jaxfc.factors.moments import expected_factor_loglik
from jaxfc.factors.select import jitted_select, select_model, select_sizes, size_classes
from jaxfc.factors.selection import SelectionRule
from jaxfc.panel import Panel
from jaxfc.results import is_okay
from jaxfc_kernels.aggregation import identity_rows

pytestmark = pytest.mark.slow

MAX_FACTORS, MAX_LAGS = 3, 2
TIGHT = DynamicFactorModel(1, 0, method=EM(rtol=1e-8, max_steps=1000))
LOOSE = DynamicFactorModel(1, 0, method=EM(rtol=1e-6, max_steps=1000))
RULE = SelectionRule(factors="eigenvalue_ratio", lags="expected", parameters="all")


def simulated(seed, num_lags, num_times=100, num_series=12):
    """Two factors with 0, 1 or 2 lags, a tenth of the cells missing."""
    rng = np.random.default_rng(seed)
    first, second = {0: (0.0, 0.0), 1: (0.8, 0.0), 2: (0.3, 0.6)}[num_lags]
    factors = np.zeros((num_times + 50, 2))
    for t in range(2, num_times + 50):
        factors[t] = first * factors[t - 1] + second * factors[t - 2] + rng.normal(size=2)
    factors = factors[50:] / factors[50:].std(axis=0)
    values = factors @ rng.normal(size=(2, num_series))
    values = values + 0.5 * rng.normal(size=values.shape)
    observed = rng.uniform(size=values.shape) > 0.1
    return jnp.asarray(values), jnp.asarray(observed)


@pytest.fixture(scope="module")
def panel():
    return simulated(0, 1)


@pytest.fixture(scope="module")
def selection(panel):
    return jitted_select(TIGHT, *panel, MAX_FACTORS, MAX_LAGS, rule=RULE)


@eqx.filter_jit
def fit_with_path(model, values, observed):
    """A model of exactly one size, and its expected factor log-likelihood as it stands."""
    fitted = model.estimate(values, observed)
    data = PanelData(fitted.completed, observed.astype(values.dtype))
    posterior = EM().step(model, Candidate()).expect(fitted.parameters, data).posterior
    return fitted, expected_factor_loglik(fitted.parameters, posterior)


@pytest.fixture(scope="module")
def by_hand(panel):
    """The loop: one program for each size."""
    sizes = [(2, 0), (2, 1)]
    models = {(k, p): dataclasses.replace(TIGHT, num_factors=k, num_lags=p) for k, p in sizes}
    return {size: fit_with_path(model, *panel) for size, model in models.items()}


def test_the_batch_equals_the_loop(selection, by_hand):
    for (num_factors, num_lags), (fitted, _) in by_hand.items():
        at = (num_factors - 1, num_lags)
        # A static candidate has a free Q where the static model has I: the same optimum by another
        # path. With lags the two take the very same steps.
        tolerance = 1e-8 if num_lags else 1e-4
        assert abs(float(selection.loglik[at] - fitted.loglik)) < tolerance
        if num_lags:
            assert int(selection.num_steps[at]) == int(fitted.num_steps)


def test_expected_likelihoods_are_on_one_normalisation(selection, by_hand):
    """A fit's factors have unit second moment already, so its value needs no shift."""
    for (num_factors, num_lags), (_, expected) in by_hand.items():
        found = selection.expected_loglik[num_factors - 1, num_lags]
        assert abs(float(found - expected)) < (1e-6 if num_lags else 0.2)


def test_masked_factors_span_those_of_the_small_model(panel, by_hand):
    model = dataclasses.replace(TIGHT, num_factors=MAX_FACTORS, num_lags=MAX_LAGS)
    candidate = Candidate(factors=jnp.arange(3) < 2, lags=jnp.arange(2) < 1)
    masked = eqx.filter_jit(lambda *p: model.estimate_from(*p, candidate=candidate))(*panel)
    fitted, _ = by_hand[2, 1]
    assert float(trace_r_squared(fitted.factors, masked.factors[:, :2])) > 1 - 1e-10
    np.testing.assert_array_equal(masked.factors[:, 2], 0.0)
    np.testing.assert_array_equal(masked.parameters.transition[1], 0.0)
    np.testing.assert_allclose(
        masked.forecast(3).mean, fitted.forecast(3).mean, rtol=1e-7, atol=1e-8
    )


def test_the_choice_follows_from_the_tables(selection):
    okay = np.asarray(is_okay(selection.result))
    assert okay[:2].all() and int(selection.num_failed) == np.sum(~okay)
    lags = np.argmin(np.where(okay, selection.aic, np.inf), axis=1)
    np.testing.assert_array_equal(selection.lags_by_factors, np.where(okay.any(axis=1), lags, -1))
    assert int(selection.num_factors) == int(selection.criteria.selected("eigenvalue_ratio"))
    best = selection.best_model
    assert (best.num_factors, best.num_lags) == (2, 1)
    assert best.method == TIGHT.method


def test_the_table_shows_every_candidate(selection):
    frame = selection.to_frame()
    assert frame.index.names == ["num_factors", "num_lags"] and len(frame) == 9
    assert list(frame.index[frame["chosen"]]) == [(2, 1)]
    np.testing.assert_array_equal(frame["loglik"], selection.loglik.reshape(-1))
    okay = np.asarray(is_okay(selection.result)).reshape(-1)
    np.testing.assert_array_equal(frame["result"] == "successful", okay)


def test_the_aic_counts_all_parameters(selection):
    # K = 2, p = 1, N = 12: loadings 24, variances 12, A 4, Q 3, less 4 for the transformation
    expected = 2 * (24 + 12 + 4 + 3 - 4) - 2 * float(selection.expected_loglik[1, 1])
    assert float(selection.aic[1, 1]) == pytest.approx(expected, rel=1e-12)


def test_the_truth_is_recovered():
    """2 factors with 0, 1, 2 lags, (T, N) = (100, 12), 10% missing: share of 8 panels each."""
    for num_lags in range(3):
        chosen = []
        for seed in range(8):
            values, observed = simulated(100 * num_lags + seed, num_lags)
            found = jitted_select(LOOSE, values, observed, MAX_FACTORS, MAX_LAGS, rule=RULE)
            chosen.append((int(found.num_factors), int(found.num_lags)))
        assert np.mean([k == 2 for k, _ in chosen]) >= 0.8, chosen
        assert np.mean([p == num_lags for _, p in chosen]) >= 0.7, chosen


def test_a_panel_in_a_batch_is_selected_as_alone(panel):
    """Here with the candidates one by one inside the batch of panels."""
    panels = jax.tree.map(lambda *leaves: jnp.stack(leaves), panel, simulated(1, 0))
    rule = SelectionRule(factors="ic2", panel="pairwise")

    def select(values, observed, batch_size=None):
        return select_sizes(LOOSE, values, observed, 2, 0, rule=rule, batch_size=batch_size)

    chunked = eqx.filter_jit(eqx.filter_vmap(lambda *p: select(*p, batch_size=1)))(*panels)
    alone = eqx.filter_jit(select)(*panel)
    other = jax.tree.map(lambda leaf: leaf[0], chunked)
    np.testing.assert_allclose(other.loglik, alone.loglik, rtol=1e-10)
    np.testing.assert_allclose(other.criteria.ic2, alone.criteria.ic2, rtol=1e-10)
    assert int(other.num_factors) == int(alone.num_factors)
    np.testing.assert_allclose(factor_criteria(*panel, 2).ic2, alone.criteria.ic2, rtol=1e-10)


def test_padding_by_class_changes_no_result(panel, selection):
    """Smaller arrays, the same steps; static candidates have I for Q there, the same optimum."""
    found = jitted_select(TIGHT, *panel, MAX_FACTORS, MAX_LAGS, rule=RULE, padding="class")
    np.testing.assert_array_equal(found.num_steps[:2, 1:], selection.num_steps[:2, 1:])
    np.testing.assert_allclose(found.loglik[:2, 1:], selection.loglik[:2, 1:], atol=1e-7)
    np.testing.assert_allclose(found.loglik[:2, 0], selection.loglik[:2, 0], atol=1e-3)
    np.testing.assert_allclose(found.criteria.ic2[:2], selection.criteria.ic2[:2], atol=1e-4)
    assert (int(found.num_factors), int(found.num_lags)) == (2, 1)
    sizes = np.indices((5, 3)).reshape(2, -1) + np.asarray([[1], [0]])
    classes = size_classes(sizes, "class")
    assert sorted(np.concatenate(classes)) == list(range(15))
    largest = [tuple(sizes[:, members].max(axis=1)) for members in classes]
    assert largest == [(5, 0), (3, 1), (5, 1), (3, 2), (5, 2)]
    with pytest.raises(ValueError, match="padding must be 'largest' or 'class', got 'none'"):
        size_classes(sizes, "none")


def test_failed_candidates_are_counted_and_never_chosen(panel):
    """One step is never enough: no candidate converges, so there is nothing to choose."""
    model = dataclasses.replace(LOOSE, method=EM(rtol=1e-6, max_steps=1))
    rule = SelectionRule(factors="ic2")
    found = eqx.filter_jit(select_sizes)(model, *panel, 2, 0, rule=rule)
    assert int(found.num_failed) == 2 and int(found.num_lags) == -1
    assert found.lags_by_factors.tolist() == [-1, -1]
    assert set(found.to_frame()["result"]) == {"nonlinear_max_steps_reached"}
    assert not found.to_frame()["chosen"].any()
    assert bool(jnp.all(jnp.isfinite(found.loglik)))
    with pytest.raises(ValueError, match="2 of 2 candidates were not estimated"):
        _ = found.best_model
    index = pd.date_range("2000-01-07", periods=100, freq="W-FRI")
    frame = pd.DataFrame(np.where(panel[1], panel[0], np.nan), index)
    frame.columns = [f"s{i}" for i in range(12)]
    host = Panel.from_frame(frame)
    with pytest.raises(RuntimeError, match="no model can be chosen: 2 of 2"):
        select_model(model, host, 2, 0, rule=rule)
    kept = select_model(model, host, 2, 0, rule=rule, throw=False)
    np.testing.assert_array_equal(kept.loglik, found.loglik)


def test_errors_with_memory_and_flows_are_selected(panel):
    """The same steps as a fit of one size; the model that is returned is the one that was given."""
    values, observed = map(np.asarray, panel)
    index = pd.date_range("2000-01-31", periods=len(values), freq="ME")
    frame = pd.DataFrame(values, index=index).where(observed).iloc[:, :6]
    frame[5] = frame[5].where(index.month % 3 == 0)
    frame.columns = [f"x{i}" for i in range(6)]
    mixed = Panel.from_frame(frame, kinds={"x5": "change_in_flow"})
    model = DynamicFactorModel(
        1, 1, method=EM(rtol=1e-6, max_steps=30), errors=AutoregressiveErrors()
    )
    rule = SelectionRule(factors="eigenvalue_ratio", parameters="all")
    found = select_model(model, mixed, 2, 1, rule=rule, throw=False)
    fitted = dataclasses.replace(model, num_factors=2).fit(mixed, throw=False)
    assert int(found.num_steps[1, 1]) == int(fitted.num_steps) > 1
    np.testing.assert_allclose(found.loglik[1, 1], fitted.loglik, rtol=1e-9)
    # loadings 12, variances and coefficients 6 each, A 4, Q 3, less 4 for the transformation
    count = 12 + 6 + 6 + 4 + 3 - 4
    assert float(found.aic[1, 1]) == pytest.approx(2 * count - 2 * float(fitted.loglik), rel=1e-9)
    assert found.model.errors.longest_gap is None


def test_two_step_candidates_are_judged_on_the_panels_they_rebuild(panel):
    values, observed = panel
    model = DynamicFactorModel(1, 0, method=TwoStepEM(rtol=1e-2, max_steps=5))
    rows = identity_rows(*values.shape, values.dtype)
    rule = SelectionRule(factors="pc1")

    @eqx.filter_jit
    def run(values, observed):
        found = select_sizes(model, values, observed, 2, 0, rule=rule, aggregation=rows)
        largest = dataclasses.replace(model, num_factors=2)
        return found, largest.estimate_from(values, observed, aggregation=rows)

    found, fitted = run(values, observed)
    completed = np.asarray(fitted.completed)
    eigenvalues = np.linalg.eigvalsh(np.cov(completed.T, bias=True))[::-1]
    ratio = eigenvalues[1] / eigenvalues[2]
    np.testing.assert_allclose(found.criteria.eigenvalue_ratio[1], ratio, rtol=1e-6)
    assert abs(float(found.loglik[1, 0] - fitted.loglik)) < 1e-6


@pytest.mark.parametrize(
    ("model", "rule", "sizes", "message"),
    [
        (DynamicFactorModel(1, 0, method=PCA()), RULE, (3, 1), "maximises no likelihood"),
        (DynamicFactorModel(1, 0, initial="estimated"), RULE, (3, 1), "paths of one length"),
        (
            DynamicFactorModel(1, 0, method=TwoStepEM()),
            SelectionRule(panel="pairwise"),
            (3, 1),
            "panel='rebuilt'",
        ),
        (
            DynamicFactorModel(1, 0, restrictions=Blocks({"a": ("x", "y")})),
            RULE,
            (3, 1),
            "hold for one number of factors",
        ),
        (LOOSE, RULE, (1, 1), "max_factors must be from 2"),
        (LOOSE, RULE, (3, -1), "max_lags must be at least 0"),
    ],
)
def test_what_cannot_be_selected_is_refused(panel, model, rule, sizes, message):
    with pytest.raises(ValueError, match=message):
        select_sizes(model, *panel, *sizes, rule=rule)


@pytest.mark.parametrize("option", ["factors", "lags", "parameters", "residual", "panel"])
def test_unknown_options_are_refused(option):
    with pytest.raises((ValueError, TypeError), match="mistaken"):
        SelectionRule(**{option: "mistaken"})
