"""The model end to end: recovery, order, units, batches, holes, no look-ahead, slopes, refusals."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.regimes import (
    FullCovariance,
    MarketSectorCovariance,
    Prior,
    RegimeModel,
    StudentTails,
    market_covariance,
)
from jaxfc.regimes.select import compare_regimes, regime_criteria, rolling_density
from jaxfc.results import RESULTS, is_okay
from regimes.regime_worlds import SECTORS, switching_panel

pytestmark = pytest.mark.slow

NUM_TIMES = 240
MODEL = RegimeModel(2, tolerance=1e-10)


@eqx.filter_jit
def estimated(model, values, observed):
    return model.estimate(values, observed)


@pytest.fixture(scope="module")
def world():
    values, observed, regimes = switching_panel(NUM_TIMES, seed=1)
    return jnp.asarray(values), jnp.asarray(observed), regimes


@pytest.fixture(scope="module")
def fitted(world):
    return estimated(MODEL, world[0], world[1])


def panel_of(values, names="ABCD", **options):
    index = pd.bdate_range("2020-01-01", periods=len(values))
    return jaxfc.Panel.from_frame(pd.DataFrame(np.asarray(values), index, list(names)), **options)


def test_regimes_are_found_and_in_order(world, fitted):
    values, observed, regimes = world
    assert bool(is_okay(fitted.result))
    found = fitted.probabilities(values, observed)
    agree = np.mean((np.asarray(found.smoothed)[:, 1] > 0.5) == regimes)
    assert agree > 0.95
    path = np.asarray(fitted.most_likely_regimes(values, observed))
    assert np.mean(path == regimes) > 0.95
    totals = jnp.trace(fitted.covs, axis1=1, axis2=2)
    assert float(totals[1]) > 3 * float(totals[0])
    for probabilities in found[:3]:
        np.testing.assert_allclose(jnp.sum(probabilities, axis=1), 1.0, atol=1e-12)
    assert float(jnp.sum(found.loglik_terms)) == pytest.approx(float(fitted.loglik), rel=1e-12)
    np.testing.assert_allclose(fitted.transition[0] @ fitted.durations**0, 1.0, atol=1e-12)
    np.testing.assert_allclose(fitted.stationary @ fitted.transition, fitted.stationary, atol=1e-13)
    np.testing.assert_allclose(jnp.sum(fitted.expected_rows), np.asarray(observed).any(1).sum())


def test_fit_takes_a_panel_and_gives_a_table(world, fitted):
    panel = panel_of(world[0])
    again = MODEL.fit(panel)
    np.testing.assert_allclose(again.means, fitted.means, atol=1e-9)
    frame = again.to_frame(panel.names)
    assert list(frame.index) == [1, 2]
    assert frame["std", "A"].iloc[1] > frame["std", "A"].iloc[0]
    labelled = panel.label(again.forecast(2))
    assert labelled.shape[0] >= 2


def test_structures_by_regime(world):
    """Sectors in calm, the market alone in turbulence: the world as it is."""
    values, observed, regimes = world
    model = RegimeModel(2, (MarketSectorCovariance(SECTORS), market_covariance()))
    fitted = estimated(model, values, observed)
    found = fitted.probabilities(values, observed).smoothed[:, 1] > 0.5
    assert np.mean(np.asarray(found) == regimes) > 0.95
    calm, wild = np.asarray(fitted.covs)
    market = 9.0 * np.outer([0.5, 0.7, 0.4, 0.6], [0.5, 0.7, 0.4, 0.6]) + np.eye(4)
    np.testing.assert_allclose(wild, market, atol=1.7)
    assert calm[0, 1] > calm[0, 2] > 0
    loadings = fitted.parameters.scatters[0].loadings
    np.testing.assert_array_equal(np.asarray(loadings)[:2, 2], 0.0)
    np.testing.assert_array_equal(np.asarray(loadings)[2:, 1], 0.0)


def test_units_and_origin_do_not_matter(world, fitted):
    """Scales from 1e-6 to 1e6 and levels: the same regimes, moments in other units."""
    values, observed, _ = world
    scale = jnp.array([1e-6, 1.0, 1e6, -30.0])
    moved = estimated(MODEL, scale * values + 5.0 * scale, observed)
    np.testing.assert_allclose(moved.transition, fitted.transition, rtol=1e-7)
    np.testing.assert_allclose(moved.means, scale * (fitted.means + 5.0), rtol=1e-7)
    expected = scale[:, None] * fitted.covs * scale
    np.testing.assert_allclose(moved.covs, expected, rtol=1e-6, atol=0)
    steps = jnp.abs(moved.num_steps - fitted.num_steps)
    assert int(steps) <= 1
    for c in (1e-6, 1e6):
        same = estimated(MODEL, c * values, observed)
        np.testing.assert_allclose(same.means, c * fitted.means, rtol=1e-10)
        np.testing.assert_allclose(same.covs, c**2 * fitted.covs, rtol=1e-10)


def test_order_of_the_series_does_not_matter(world, fitted):
    values, observed, _ = world
    order = jnp.array([2, 0, 3, 1])
    other = estimated(MODEL, values[:, order], observed[:, order])
    np.testing.assert_allclose(other.means, fitted.means[:, order], rtol=1e-8)
    assert float(other.loglik) == pytest.approx(float(fitted.loglik), rel=1e-11)


def test_a_mask_is_a_truncation(world):
    """Rows appended without an observation leave the estimate alone, and what is hidden is not
    read: values there are NaN."""
    values, observed, _ = world
    cut = NUM_TIMES - 40
    masked = observed & (jnp.arange(NUM_TIMES) < cut)[:, None]
    masked_fit = estimated(MODEL, jnp.where(masked, values, jnp.nan), masked)
    whole = estimated(MODEL, values[:cut], observed[:cut])
    np.testing.assert_allclose(masked_fit.means, whole.means, rtol=1e-4, atol=1e-5)
    given = whole.given(values, masked)
    ahead = jnp.linalg.matrix_power(whole.transition.T, 40) @ whole.state
    np.testing.assert_allclose(given.state, ahead, rtol=1e-9)
    assert float(given.loglik) == pytest.approx(float(whole.loglik), rel=1e-12)


def test_batch_equals_loop_and_a_slow_member_spoils_nothing(world, fitted):
    """One member stops at the bound on steps, the other converges to what it is alone."""
    values, observed, _ = world
    model = dataclasses.replace(MODEL, max_steps=40)
    noise = jnp.asarray(np.random.default_rng(5).normal(size=values.shape))
    both = jnp.stack([jnp.where(observed, values, 0.0), noise])
    masks = jnp.stack([observed, observed])

    @jax.jit
    def run(values, masks):
        found = jax.vmap(model.estimate)(values, masks)
        return found.parameters.means, found.result, found.num_steps

    means, results, steps = run(both, masks)
    np.testing.assert_allclose(means[0], fitted.means, rtol=1e-9)
    codes = [jax.tree.map(lambda leaf, i=i: leaf[i], results) for i in range(2)]
    assert bool(is_okay(codes[0]))
    assert bool(codes[1] == RESULTS.nonlinear_max_steps_reached)
    alone = estimated(model, noise, observed)
    np.testing.assert_allclose(means[1], alone.means, rtol=1e-8)
    assert int(steps[0]) == int(fitted.num_steps)


def test_more_starts_are_never_worse(world):
    values, observed, _ = world
    one = estimated(RegimeModel(3), values, observed)
    several = RegimeModel(3, num_starts=4, short_steps=8)
    run = eqx.filter_jit(several.estimate)
    many = run(values, observed, key=jax.random.key(0))
    best = [float(jnp.nanmax(fit.path)) for fit in (one, many)]
    assert best[1] > best[0] - 0.5
    again = run(values, observed, key=jax.random.key(0))
    np.testing.assert_array_equal(many.means, again.means)
    with pytest.raises(ValueError, match="num_starts=4 draws random starts: pass key"):
        several.estimate(values, observed)


def test_nothing_looks_ahead(world, fitted):
    """Slopes of predicted and filtered probabilities by later rows are exactly zero; those by
    hidden cells too; those by what is known are not."""
    values, observed, _ = world
    row = 60
    values = jnp.where(observed, values, 0.0)[:120]
    observed = observed[:120]

    def crisis(values):
        found = fitted.probabilities(values, observed)
        return jnp.stack([found.predicted[row, 1], found.filtered[row, 1], found.smoothed[row, 1]])

    slopes = np.asarray(jax.jit(jax.jacrev(crisis))(values))
    np.testing.assert_array_equal(slopes[0, row:], 0.0)
    np.testing.assert_array_equal(slopes[1, row + 1 :], 0.0)
    assert np.abs(slopes[0, row - 1]).max() > 0 and np.abs(slopes[2, row + 1]).max() > 0
    np.testing.assert_array_equal(slopes[:, ~np.asarray(observed)], 0.0)
    step = np.zeros(values.shape)
    step[row - 2] = 1e-5 * np.asarray(observed[row - 2])
    difference = (np.asarray(crisis(values + step)) - np.asarray(crisis(values - step))) / 2e-5
    expected = (slopes * step).sum(axis=(1, 2)) / 1e-5
    np.testing.assert_allclose(expected, difference, rtol=1e-5, atol=1e-9)


def test_the_forecast_is_differentiable_through_em():
    """d (covariance ahead) / d (a value), regimes estimated again: implicit function theorem
    against differences of two estimates."""
    values, observed, _ = switching_panel(80, seed=3)
    values = jnp.asarray(np.where(observed, values, 0.0))
    model = RegimeModel(2, prior=Prior(mean_strength=0.5), tolerance=1e-15, max_steps=3000)

    @jax.jit
    def ahead(values):
        forecast = model.estimate(values, jnp.asarray(observed)).forecast(2)
        return jnp.sum(forecast.std**2) + jnp.sum(forecast.mean)

    slope = np.asarray(jax.jit(jax.grad(ahead))(values))
    np.testing.assert_array_equal(slope[~observed], 0.0)
    rng = np.random.default_rng(0)
    direction = jnp.asarray(rng.normal(size=values.shape) * observed)
    difference = float(ahead(values + 1e-4 * direction) - ahead(values - 1e-4 * direction)) / 2e-4
    assert float(jnp.sum(slope * direction)) == pytest.approx(difference, rel=2e-4)


def test_parallel_form_and_student_rows(world):
    """Both implementations of the filter give one estimate; a lone outlier makes no regime of t."""
    values, observed, _ = world
    values = values.at[30].set(25.0)
    observed = observed.at[30].set(True)
    fits = [
        estimated(RegimeModel(2, tails=StudentTails(4.0), implementation=name), values, observed)
        for name in ("sequential", "parallel", "blocked")
    ]
    np.testing.assert_allclose(fits[0].covs, fits[1].covs, rtol=1e-8)
    assert float(fits[0].expected_rows.min()) > 20
    assert fits[0].forecast(2).quantile(0.01).shape == (2, 4)


def test_an_empty_regime_has_its_own_code():
    """Noise and one outlier, a weak prior: the second regime is the outlier alone."""
    values = np.random.default_rng(0).normal(size=(60, 2))
    values[20] = 40.0
    model = RegimeModel(2, prior=Prior(cov_strength=0.1))
    fitted = model.fit(panel_of(values, "AB"), throw=False)
    assert bool(fitted.result == RESULTS.empty_regime)
    assert bool(jnp.all(jnp.isfinite(fitted.covs)))
    with pytest.raises(RuntimeError, match="holds fewer than two rows in expectation"):
        model.fit(panel_of(values, "AB"))


def test_simulated_rows_have_the_long_run_moments(fitted):
    path = np.asarray(jax.jit(lambda: fitted.simulate(40_000, key=jax.random.key(1)))())
    law = np.asarray(fitted.stationary)
    mean = law @ np.asarray(fitted.means)
    square = np.einsum("k,kij->ij", law, fitted.covs)
    centred = np.asarray(fitted.means) - mean
    cov = square + np.einsum("k,ki,kj->ij", law, centred, centred)
    np.testing.assert_allclose(path.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(path.T), cov, atol=0.12)


def test_criteria_and_predictive_density_choose_two(world):
    values, observed, _ = world
    panel = panel_of(values)
    table = compare_regimes(
        RegimeModel(tolerance=1e-6, max_steps=100), panel, (1, 2, 3), origins=(180,)
    )
    assert table["bic"].idxmin() == table["icl"].idxmin() == 2
    assert table["predictive"].idxmax() != 1
    assert list(table["num_parameters"]) == [14, 31, 50]
    fitted = RegimeModel(1).fit(panel)
    loglik = float(fitted.loglik)
    found = regime_criteria(fitted, jnp.asarray(observed))
    rows = int(np.asarray(observed).any(axis=1).sum())
    assert float(found.bic) == pytest.approx(-2 * loglik + 14 * np.log(rows), rel=1e-12)
    assert float(fitted.entropy) == pytest.approx(0.0, abs=1e-9)


def test_predictive_density_is_that_of_a_loop(world):
    values, observed, _ = world
    model = RegimeModel(2, tolerance=1e-6, max_steps=50)
    origins = (150, 200)
    found = eqx.filter_jit(rolling_density)(model, values, observed, origins)
    expected = np.zeros(NUM_TIMES)
    for start, end in ((150, 200), (200, NUM_TIMES)):
        mask = observed & (jnp.arange(NUM_TIMES) < start)[:, None]
        fitted = estimated(model, values, mask)
        for row in (start, end - 1):
            before = observed & (jnp.arange(NUM_TIMES) < row)[:, None]
            upto = observed & (jnp.arange(NUM_TIMES) <= row)[:, None]
            gain = fitted.given(values, upto).loglik - fitted.given(values, before).loglik
            assert float(found.loglik_terms[row]) == pytest.approx(float(gain), abs=1e-8)
            expected[row] = float(gain)
    np.testing.assert_array_equal(found.loglik_terms[:150], 0.0)
    assert float(found.total) == pytest.approx(float(jnp.sum(found.loglik_terms)))
    with pytest.raises(ValueError, match="origins must ascend within"):
        rolling_density(model, values, observed, (200, 150))


def test_lowers_for_cuda(world):
    values, observed = world[0][:40], world[1][:40]
    structures = (MarketSectorCovariance(SECTORS), FullCovariance())
    model = RegimeModel(2, structures, num_starts=2)

    def run(values, observed, key):
        fitted = model.estimate(values, observed, key=jax.random.wrap_key_data(key))
        ahead = fitted.forecast(3)
        return ahead.cov, ahead.cumulative().quantile(0.05), fitted.stationary

    data = jax.random.key_data(jax.random.key(0))
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(values, observed, data)
    assert exported.platforms == ("cuda",)


def test_save_and_load(fitted, tmp_path):
    jaxfc.save(fitted, tmp_path / "regimes.jaxfc")
    again = jaxfc.load(tmp_path / "regimes.jaxfc")
    np.testing.assert_array_equal(again.forecast(2).mean, fitted.forecast(2).mean)


def test_bad_input_is_named(world, fitted):
    values = np.asarray(world[0])
    with pytest.raises(ValueError, match="there are 3 structures for 2 regimes"):
        RegimeModel(2, (FullCovariance(),) * 3)
    with pytest.raises(ValueError, match="num_regimes must be at least 1, got 0"):
        RegimeModel(0)
    with pytest.raises(ValueError, match="implementation must be one of"):
        RegimeModel(2, implementation="fast")
    with pytest.raises(ValueError, match="sectors must be numbered 0, 1,"):
        MarketSectorCovariance((0, 2))
    with pytest.raises(ValueError, match="sectors name 3 series, the panel has 4"):
        RegimeModel(2, MarketSectorCovariance((0, 0, 1))).fit(panel_of(values))
    flat = np.where(np.arange(4) == 2, 1.5, values)
    with pytest.raises(ValueError, match="series 'C' is constant; drop it"):
        RegimeModel(2).fit(panel_of(flat, allow_constant=True))
    thin = np.where((np.arange(4) == 1) & (np.arange(NUM_TIMES)[:, None] > 8), np.nan, values)
    with pytest.raises(ValueError, match=r"series 'B' has \d observations, 2 regimes"):
        RegimeModel(2).fit(panel_of(thin))
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        fitted.forecast(0)
    with pytest.raises(ValueError, match="the forecast is exact and takes no key"):
        fitted.forecast(1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="the regimes have structures of their own"):
        RegimeModel(2, (FullCovariance(), FullCovariance())).with_regimes(3)
