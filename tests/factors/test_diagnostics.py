"""Diagnostics against statsmodels, scipy and pandas on complete series, and loops on gappy ones."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from dense_panel import dense_law
from jaxfc.factors import EM, DynamicFactorModel, TwoStepEM
from jaxfc.factors.diagnostics import (
    PredictionErrors,
    outliers,
    r_squared,
    residual_corr,
    residual_tests,
    standardised_errors,
)
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.panel import Panel

NAMES = [f"s{i}" for i in range(5)]
NUM_TIMES, NUM_LAGS, NUM_ARCH_LAGS = 60, 5, 3


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(1)
    factors = np.stack([np.convolve(e, 0.8 ** np.arange(8))[:60] for e in rng.normal(size=(2, 60))])
    values = 3.0 + factors.T @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(60, 5))
    values[rng.uniform(size=values.shape) < 0.15] = np.nan
    values[:12, 4] = np.nan  # a late start
    values[-2:, :2] = np.nan
    values[30, 2] = 30.0  # an outlier
    index = pd.date_range("2015-01-31", periods=60, freq="ME")
    return Panel.from_frame(pd.DataFrame(values, index, NAMES))


@pytest.fixture(scope="module")
def fitted(panel):
    return DynamicFactorModel(2, 1, method=EM(max_steps=5)).fit(panel, throw=False)


@pytest.fixture(scope="module")
def errors(fitted, panel):
    return standardised_errors(fitted, panel)


def test_r_squared_is_nested_least_squares(fitted, panel):
    shares = r_squared(fitted, panel)
    factors = np.asarray(fitted.factors)
    for i in range(5):
        seen = panel.observed[:, i]
        y = panel.values[seen, i]

        def explained(columns, y=y, seen=seen):
            design = np.column_stack([np.ones(seen.sum()), factors[seen][:, columns]])
            rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            return 1.0 - np.sum(rest**2) / np.sum((y - y.mean()) ** 2)

        expected = [explained([0]), explained([0, 1])]
        np.testing.assert_allclose(shares.cumulative[i], expected, atol=1e-10)
        np.testing.assert_allclose(shares.marginal[i], np.diff([0, *expected]), atol=1e-10)
        np.testing.assert_allclose(
            shares.individual[i], [explained([0]), explained([1])], atol=1e-10
        )
    frame = shares.to_frame(panel.names, "cumulative")
    assert list(frame.index) == NAMES
    np.testing.assert_array_equal(frame["factor 2"], shares.cumulative[:, 1])


def test_r_squared_of_a_quarterly_sum_is_on_summed_factors():
    rng = np.random.default_rng(2)
    months = pd.date_range("2018-01-31", periods=36, freq="ME")
    monthly = pd.DataFrame(
        rng.normal(size=(36, 1)) + 0.7 * rng.normal(size=(36, 3)), months, list("abc")
    )
    quarterly = monthly["a"].resample("QE").sum().to_frame("Q") + rng.normal(size=(12, 1))
    mixed = Panel.from_frames({"M": monthly, "Q": quarterly}, kinds={"Q": "flow_sum"})
    model = DynamicFactorModel(1, 1, method=TwoStepEM(max_steps=2))
    fitted = model.fit(mixed, throw=False)
    summed = np.asarray(fitted.factors)[:, 0].reshape(12, 3).sum(axis=1)
    expected = np.corrcoef(summed, quarterly["Q"])[0, 1] ** 2
    np.testing.assert_allclose(r_squared(fitted, mixed).cumulative[3, 0], expected, rtol=1e-10)
    with pytest.raises(ValueError, match="series 'Q' are flows"):
        standardised_errors(fitted, mixed)
    with pytest.raises(ValueError, match="flows are not values"):
        residual_corr(fitted, mixed)


def test_errors_are_those_of_a_plain_filter(fitted, panel, errors):
    space = jax.tree.map(np.asarray, fitted.state_space())
    mean, cov = space.initial_mean, space.initial_cov
    noise = np.diag(space.observation_cov)
    for t in range(NUM_TIMES):
        seen = panel.observed[t]
        predicted = space.observation_offset + space.design @ mean
        total = space.design @ cov @ space.design.T + noise
        z = ((panel.values[t] - predicted) / np.sqrt(np.diag(total)))[seen]
        np.testing.assert_allclose(np.asarray(errors.standardised)[t, seen], z, atol=1e-9)
        np.testing.assert_allclose(errors.predicted[t], predicted, atol=1e-9)
        gain = np.linalg.solve(total[np.ix_(seen, seen)], space.design[seen] @ cov).T
        mean = mean + gain @ (panel.values[t] - predicted)[seen]
        cov = cov - gain @ space.design[seen] @ cov
        mean = space.transition @ mean
        cov = space.transition @ cov @ space.transition.T + space.innovation_cov
    assert np.all(np.asarray(errors.standardised)[~panel.observed] == 0.0)
    frame = errors.to_frame(panel)
    assert np.array_equal(frame.notna().to_numpy(), panel.observed)


def test_errors_with_memory_are_predicted_too(panel):
    """Against the dense joint law: each row given all rows before it."""
    model = DynamicFactorModel(1, 1, method=EM(max_steps=3), errors=AutoregressiveErrors())
    fitted = model.fit(panel, throw=False)
    errors = standardised_errors(fitted, panel)
    mean, cov = dense_law(fitted, panel)
    seen = panel.observed.ravel()
    for t in (0, 1, 20, 59):
        now = slice(5 * t, 5 * t + 5)
        before = seen & (np.arange(len(seen)) < 5 * t)
        gain = np.linalg.solve(cov[np.ix_(before, before)], cov[before][:, now]).T
        predicted = mean[now] + gain @ (panel.values.ravel() - mean)[before]
        spread = np.sqrt(np.diag(cov[now, now] - gain @ cov[before][:, now]))
        np.testing.assert_allclose(errors.predicted[t], predicted, atol=1e-8)
        np.testing.assert_allclose(errors.std[t], spread, rtol=1e-8)
        z = np.where(panel.observed[t], (panel.values[t] - predicted) / spread, 0.0)
        np.testing.assert_allclose(errors.standardised[t], z, atol=1e-8)


def as_errors(values, observed):
    values = jnp.asarray(values)
    return PredictionErrors(values, 0 * values, 1 + 0 * values, jnp.asarray(observed))


@pytest.fixture(scope="module")
def complete():
    rng = np.random.default_rng(3)
    return np.column_stack([rng.normal(size=60), rng.standard_t(3, size=60), rng.normal(size=60)])


@pytest.fixture(scope="module")
def complete_tests(complete):
    everything = as_errors(complete, np.ones(complete.shape, bool))
    return residual_tests(everything, num_lags=NUM_LAGS, num_arch_lags=NUM_ARCH_LAGS)


def test_complete_series_have_the_statistics_of_statsmodels(complete, complete_tests):
    diagnostic = pytest.importorskip("statsmodels.stats.diagnostic")
    stattools = pytest.importorskip("statsmodels.stats.stattools")
    tsa = pytest.importorskip("statsmodels.tsa.stattools")
    for i, z in enumerate(complete.T):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # announcements of changed return types
            box = diagnostic.acorr_ljungbox(z, lags=[NUM_LAGS])
            arch = diagnostic.het_arch(z, nlags=NUM_ARCH_LAGS)
            ratio = tsa.breakvar_heteroskedasticity_test(z)
            normal = stattools.jarque_bera(z)
        expected = {
            "ljung_box": (float(box["lb_stat"].iloc[0]), float(box["lb_pvalue"].iloc[0])),
            "jarque_bera": (normal[0], normal[1]),
            "arch": (arch[0], arch[1]),
            "heteroscedasticity": (ratio[0], ratio[1]),
        }
        for name, (value, p_value) in expected.items():
            statistic = getattr(complete_tests, name)
            np.testing.assert_allclose(statistic.value[i], value, rtol=1e-10, err_msg=name)
            np.testing.assert_allclose(statistic.p_value[i], p_value, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(complete_tests.ljung_box.dof, NUM_LAGS)
    np.testing.assert_array_equal(complete_tests.jarque_bera.dof, 2)
    np.testing.assert_array_equal(complete_tests.arch.dof, NUM_ARCH_LAGS)
    np.testing.assert_array_equal(complete_tests.heteroscedasticity.dof, 20)


@pytest.fixture(scope="module")
def gappy():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(60, 1))
    observed = rng.random((60, 1)) > 0.25
    return np.where(observed, values, 0.0), observed


def test_missing_cells_are_left_out(gappy):
    """Every statistic by a loop over what is there; masked cells may hold anything."""
    values, observed = gappy
    tests = residual_tests(as_errors(values, observed), num_lags=NUM_LAGS, num_arch_lags=2)
    seen, z = observed[:, 0], values[:, 0]
    count = seen.sum()
    centred = np.where(seen, z - z[seen].mean(), np.nan)
    total = 0.0
    for lag in range(1, NUM_LAGS + 1):
        pairs = [centred[t] * centred[t - lag] for t in range(lag, 60)]
        pairs = [product for product in pairs if not np.isnan(product)]
        total += len(pairs) * (np.mean(pairs) / np.nanmean(centred**2)) ** 2
    np.testing.assert_allclose(tests.ljung_box.value[0], (count + 2) / count * total, rtol=1e-10)

    rows = [t for t in range(2, 60) if seen[t] and seen[t - 1] and seen[t - 2]]
    design = np.array([[1.0, z[t - 1] ** 2, z[t - 2] ** 2] for t in rows])
    y = z[rows] ** 2
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    share = 1.0 - np.sum(rest**2) / np.sum((y - y.mean()) ** 2)
    np.testing.assert_allclose(tests.arch.value[0], len(rows) * share, rtol=1e-10)

    third = int(np.round(count / 3))
    there = z[seen] ** 2
    ratio = there[-third:].sum() / there[:third].sum()
    np.testing.assert_allclose(tests.heteroscedasticity.value[0], ratio, rtol=1e-10)
    assert tests.heteroscedasticity.denominator_dof[0] == third
    assert tests.num_observed[0] == count

    noisy = np.where(observed, values, 77.0)
    again = residual_tests(as_errors(noisy, observed), num_lags=NUM_LAGS, num_arch_lags=2)
    np.testing.assert_array_equal(tests.to_frame(["x"]), again.to_frame(["x"]))


def test_parameters_cost_degrees_of_freedom_and_short_series_get_nan(complete):
    observed = np.ones(complete.shape, bool)
    observed[4:, 2] = False
    tests = residual_tests(as_errors(complete, observed), num_lags=4, num_parameters=3)
    np.testing.assert_array_equal(tests.ljung_box.dof[:2], 1)
    frame = tests.to_frame(["a", "b", "c"])
    assert frame.loc["c", ("", "num_observed")] == 4
    assert frame.xs("p_value", axis=1, level=1).loc["a"].notna().all()
    assert np.isnan(frame.loc["c", ("ljung_box", "p_value")])
    assert np.isnan(frame.loc["c", ("arch", "value")])


def test_rejections_happen_as_often_as_they_should():
    """Under the null each test rejects 5% of 2,000 gappy series (Monte Carlo error 0.5%)."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(200, 2000))
    observed = rng.random(values.shape) > 0.2
    tests = residual_tests(as_errors(np.where(observed, values, 0.0), observed), num_lags=6)
    for name in ("ljung_box", "arch", "heteroscedasticity"):
        share = np.mean(np.asarray(getattr(tests, name).p_value) < 0.05)
        assert 0.03 < share < 0.07, name


def test_the_planted_outlier_leads_the_table(panel, errors):
    table = outliers(errors, panel, threshold=3.0)
    first = table.iloc[0]
    assert (first["series"], first["date"]) == ("s2", pd.Timestamp("2017-07-31"))
    assert first["value"] == 30.0
    assert np.all(np.diff(np.abs(table["standardised"])) <= 0)
    assert np.all(np.abs(table["standardised"]) > 3.0)
    assert outliers(errors, panel, threshold=1e6).empty


def test_residual_corr_is_pandas_and_finds_a_pair(panel, fitted):
    result = residual_corr(fitted, panel)
    rest = (panel.to_frame() - np.asarray(fitted.common)).where(panel.observed)
    np.testing.assert_allclose(result.corr, rest.corr(), atol=1e-10)
    seen = panel.observed.astype(int)
    np.testing.assert_array_equal(result.num_pairs, seen.T @ seen)
    table = result.largest(panel.names, 3)
    scipy_stats = pytest.importorskip("scipy.stats")
    both = rest[[table["first"][0], table["second"][0]]].dropna()
    r, p_value = scipy_stats.pearsonr(*both.to_numpy().T)
    np.testing.assert_allclose(table.loc[0, ["corr", "p_value"]].astype(float), [r, p_value])
    assert np.all(np.diff(np.abs(table["corr"])) <= 0)


def test_bad_requests_are_named(panel, fitted, errors):
    with pytest.raises(ValueError, match="not the one that was fitted"):
        r_squared(fitted, panel.window(1, None))
    with pytest.raises(ValueError, match="has 2 series, the fitted model 5"):
        standardised_errors(fitted, panel.select(["s0", "s1"]))
    with pytest.raises(ValueError, match="num_lags must be from 1 to 58"):
        residual_tests(errors, num_lags=59)
    with pytest.raises(ValueError, match="num_parameters must be from 0 to 4"):
        residual_tests(errors, num_lags=5, num_parameters=5)
    with pytest.raises(ValueError, match="threshold must be positive"):
        outliers(errors, panel, threshold=0.0)
    with pytest.raises(ValueError, match="not that of the errors"):
        outliers(errors, panel.window(1, None))
