"""Values at risk and shortfalls: closed forms, plain loops, SciPy, simulated sizes and power."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from jaxfc import evaluation
from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.evaluation import tail_risk
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.lognormal import ExponentialForecast
from jaxfc.volatility import VolatilityForecast

RNG = np.random.default_rng(8)
MEAN = np.array([[0.1, -0.2], [0.3, 0.0], [0.0, 0.1]])
COVS = np.array([[[1.0, 0.3], [0.3, 2.0]], [[1.5, -0.2], [-0.2, 0.5]], [[0.7, 0.1], [0.1, 0.9]]])
P = 0.05
# Value at risk and shortfall of a standard normal return.
NORMAL = stats.norm.ppf(P), -stats.norm.pdf(stats.norm.ppf(P)) / P


def normal_shortfall(mean, std, probability):
    """The mean below the quantile by quadrature."""
    quantile = stats.norm.ppf(probability, mean, std)
    return stats.norm.expect(lambda x: x, loc=mean, scale=std, ub=quantile) / probability


def test_normal_laws_of_portfolios_and_sums():
    forecast = VolatilityForecast(jnp.asarray(MEAN), jnp.asarray(COVS))
    weights = np.array([[0.4, 0.6]])
    month = forecast.aggregate(jnp.asarray(weights)).cumulative()
    levels = np.array([0.01, 0.05])
    shortfall = evaluation.expected_shortfall(month, levels)
    risk = evaluation.value_at_risk(month, levels)
    assert shortfall.shape == risk.shape == (2, 3, 1)
    for h in range(3):
        mean = (MEAN[: h + 1] @ weights[0]).sum()
        std = np.sqrt(sum(weights[0] @ cov @ weights[0] for cov in COVS[: h + 1]))
        for k, level in enumerate(levels):
            assert float(risk[k, h, 0]) == pytest.approx(stats.norm.ppf(level, mean, std))
            expected = normal_shortfall(mean, std, level)
            assert float(shortfall[k, h, 0]) == pytest.approx(expected, rel=1e-7)
    one = evaluation.expected_shortfall(forecast, 0.05)
    assert one.shape == (3, 2)
    joint = np.zeros((3, 2, 3, 2))
    for h in range(3):
        joint[h, :, h] = COVS[h]
    dense = GaussianForecast(jnp.asarray(MEAN), jnp.asarray(joint))
    np.testing.assert_allclose(one, evaluation.expected_shortfall(dense, 0.05), rtol=1e-12)


@pytest.mark.parametrize("level", [0.004, 0.05, 0.1, 0.217, 0.5])
def test_shortfall_of_draws_is_the_mean_of_its_order_statistics(level):
    draws = RNG.standard_t(4, size=(103, 2, 3))
    forecast = SampleForecast(jnp.asarray(draws))
    got = evaluation.expected_shortfall(forecast, level)
    expected = np.zeros((2, 3))
    for place in np.ndindex(2, 3):
        ordered, left, total = sorted(draws[:, *place]), 103 * level, 0.0
        for value in ordered:
            total += min(left, 1.0) * value
            left = max(left - 1.0, 0.0)
        expected[place] = total / (103 * level)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    risk = evaluation.value_at_risk(forecast, level)
    np.testing.assert_allclose(risk, np.quantile(draws, level, axis=0), rtol=1e-12)
    assert np.all(got <= risk)


def test_draws_of_a_normal_law_have_its_shortfall():
    num_draws = 40_000
    draws = jax.random.normal(jax.random.key(0), (num_draws, 1, 20))
    got = np.asarray(evaluation.expected_shortfall(SampleForecast(draws), np.array([P])))[0, 0]
    # Variance of the mean of (z - v) 1{z < v} / p.
    tail = np.minimum(stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000) - NORMAL[0], 0.0)
    error = tail.std() / P / np.sqrt(num_draws * 20)
    assert got.mean() == pytest.approx(NORMAL[1], abs=3.5 * error)


def test_laws_with_draws_inside_and_laws_without_a_shortfall():
    parts = jnp.asarray(RNG.normal(size=(4, 50, 2, 1)))
    decomposed = DecomposedForecast(*parts, jnp.zeros((2, 1)), jnp.zeros(2))
    expected = evaluation.expected_shortfall(SampleForecast(parts.sum(axis=0)), 0.1)
    np.testing.assert_allclose(evaluation.expected_shortfall(decomposed, 0.1), expected)
    normal = GaussianForecast(jnp.zeros((1, 1)), jnp.ones((1, 1, 1, 1)))
    with pytest.raises(TypeError, match="as_draws"):
        evaluation.expected_shortfall(ExponentialForecast(normal, jnp.array([True])), 0.1)
    for function in (evaluation.value_at_risk, evaluation.expected_shortfall):
        for level in (0.95, 0.0, np.array([0.01, 0.99])):
            with pytest.raises(ValueError, match=r"0\.05 for a confidence of 95"):
                function(normal, level)


def test_scores_case_by_case():
    risk, shortfall = -1.0 - RNG.uniform(size=(2, 30, 2))
    shortfall = shortfall + np.minimum(risk, 0.0)
    realised = RNG.normal(size=30) * 2.0
    realised[4] = np.nan
    levels = np.array([0.05, 0.1])
    ticks = evaluation.quantile_score(risk, realised, levels)
    joint = evaluation.joint_tail_score(risk, shortfall, realised, levels)
    for t in range(30):
        for k, p in enumerate(levels):
            v, e, y = risk[t, k], shortfall[t, k], realised[t]
            tick = (float(y < v) - p) * (v - y)
            score = -float(y <= v) * (v - y) / (p * e) + v / e + np.log(-e) - 1.0
            np.testing.assert_allclose(ticks[t, k], tick if t != 4 else np.nan, rtol=1e-12)
            np.testing.assert_allclose(joint[t, k], score if t != 4 else np.nan, rtol=1e-12)
    assert np.isnan(evaluation.joint_tail_score(risk, -shortfall, realised, levels)).all()
    low, high = risk[:, 0], risk[:, 0] + 3.0
    both = evaluation.quantile_score(np.stack([low, high], 1), realised, np.array([0.1, 0.9]))
    interval = evaluation.interval_score(low, high, realised, 0.8)
    np.testing.assert_allclose(2 / 0.2 * both.sum(axis=1), interval, rtol=1e-12)
    violations = evaluation.tail_violations(risk, realised)
    expected = np.where(np.isnan(realised)[:, None], np.nan, realised[:, None] < risk)
    np.testing.assert_array_equal(violations, expected)


def test_scores_are_smallest_at_the_truth():
    """Expectations under a normal law from 200,000 equally likely returns."""
    returns = jnp.asarray(stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000))
    ones = jnp.ones_like(returns)

    def joint(pair):
        return jnp.mean(evaluation.joint_tail_score(pair[0] * ones, pair[1] * ones, returns, P))

    def tick(pair):
        return jnp.mean(evaluation.quantile_score(pair[0] * ones, returns, P))

    truth = jnp.asarray(NORMAL)
    for score in (joint, tick):
        value, slope = jax.value_and_grad(score)(truth)
        np.testing.assert_allclose(slope, 0.0, atol=2e-4)
        for change in ((0.1, 0.0), (-0.1, 0.0)):
            assert score(truth + jnp.asarray(change)) > value + 1e-4
    for change in ((0.0, 0.1), (0.0, -0.1)):
        assert joint(truth + jnp.asarray(change)) > joint(truth) + 1e-4


def forecasts(num_cases, scale):
    """Right forecasts of normal returns of changing volatility, and outcomes times `scale`."""
    std = np.exp(0.3 * RNG.normal(size=(num_cases, 2)))
    realised = scale * std * RNG.normal(size=(num_cases, 2))
    return NORMAL[0] * std, NORMAL[1] * std, realised, std


@pytest.fixture(scope="module")
def wrong():
    """Outcomes of a larger risk than forecast in the second column only, and a gap."""
    risk, shortfall, realised, std = forecasts(400, np.array([1.0, 1.6]))
    realised[[7, 50], 0] = np.nan
    return risk, shortfall, realised, std


def z_statistic(kind, risk, shortfall, realised):
    """Acerbi and Szekely's statistic of one column, case by case."""
    total, hits, count = 0.0, 0, 0
    for v, e, y in zip(risk, shortfall, realised, strict=True):
        if not np.isnan(y):
            count += 1
            if y < v:
                hits += 1
                total += y / e
    return 1.0 - total / (hits if kind == "conditional" else count * P)


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_acerbi_szekely_is_the_loop_over_cases_and_draws(wrong, kind):
    risk, shortfall, realised, std = wrong
    draws = std * RNG.normal(size=(99, 400, 2))
    given = evaluation.acerbi_szekely(risk, shortfall, realised, P, kind=kind, draws=draws)
    key = jax.random.key(5)
    drawn = evaluation.acerbi_szekely(
        risk, shortfall, realised, P, kind=kind, key=key, num_draws=99
    )
    noise = [jax.random.normal(jax.random.fold_in(key, i), (400, 2)) for i in range(99)]
    for result, outcomes in ((given, draws), (drawn, std * np.asarray(noise))):
        for column in range(2):
            one = functools.partial(z_statistic, kind, risk[:, column], shortfall[:, column])
            masked = np.where(np.isnan(realised[:, column]), np.nan, outcomes[..., column])
            expected = one(realised[:, column])
            simulated = np.array([one(row) for row in masked])
            assert float(result.statistic[column]) == pytest.approx(expected, rel=1e-9)
            share = (1 + np.sum(simulated <= expected)) / 100
            assert float(result.p_value[column]) == pytest.approx(share, rel=1e-9)
        assert list(result.num_cases) == [398, 400]
        assert result.p_value[1] < 0.02


def test_mcneil_frey_is_the_t_test_of_scipy_and_a_bootstrap(wrong):
    risk, shortfall, realised, std = wrong
    student = evaluation.mcneil_frey(risk, shortfall, realised, scale=std)
    key = jax.random.key(2)
    bootstrap = evaluation.mcneil_frey(risk, shortfall, realised, scale=std, key=key, num_draws=99)
    uniform = [jax.random.uniform(jax.random.fold_in(key, i), (400, 2)) for i in range(99)]
    for column in range(2):
        hits = realised[:, column] < risk[:, column]
        residuals = ((realised - shortfall) / std)[hits, column]
        expected = stats.ttest_1samp(residuals, 0.0, alternative="less")
        assert float(student.statistic[column]) == pytest.approx(expected.statistic, rel=1e-10)
        assert float(student.p_value[column]) == pytest.approx(expected.pvalue, rel=1e-10)
        assert float(student.degrees[column]) == hits.sum() - 1
        assert float(student.num_cases[column]) == hits.sum()
        centred, count = residuals - residuals.mean(), 0
        for u in np.asarray(uniform)[:, : len(residuals), column]:
            redrawn = centred[np.floor(u * len(residuals)).astype(int)]
            count += stats.ttest_1samp(redrawn, 0.0).statistic <= expected.statistic
        assert float(bootstrap.p_value[column]) == pytest.approx((1 + count) / 100)
        assert float(bootstrap.statistic[column]) == float(student.statistic[column])
    assert student.p_value[1] < 0.05
    plain = evaluation.mcneil_frey(risk, shortfall, realised)
    residuals = (realised - shortfall)[:, 1][realised[:, 1] < risk[:, 1]]
    expected = stats.ttest_1samp(residuals, 0.0).statistic
    assert float(plain.statistic[1]) == pytest.approx(expected, rel=1e-10)


def clustered(num_cases):
    """Violations of which one makes another more likely."""
    series = [1.0]
    for draw in RNG.uniform(size=num_cases - 1):
        series.append(float(draw < (0.4 if series[-1] else 0.08)))
    return np.array(series)


def dynamic_quantile(violations, probability, risk, num_lags):
    """Engle and Manganelli's statistic with a pseudo-inverse, row by row; rank and rows."""
    rows, hits = [], []
    for t in range(num_lags, len(violations)):
        past = violations[t - num_lags : t][::-1] - probability
        row = [1.0, *past, *([] if risk is None else [risk[t]])]
        if np.isfinite(row).all() and np.isfinite(violations[t]):
            rows.append(row)
            hits.append(violations[t] - probability)
    rows, hits = np.array(rows), np.array(hits)
    fitted = rows @ (np.linalg.pinv(rows, rcond=1e-10) @ hits)
    statistic = fitted @ fitted / (probability * (1 - probability))
    return statistic, np.linalg.matrix_rank(rows, tol=1e-8), len(hits)


def test_dynamic_quantiles_are_least_squares_row_by_row():
    violations = np.stack(
        [clustered(150), (RNG.uniform(size=150) < 0.1).astype(float), np.zeros(150)], 1
    )
    violations[[60, 61], 0] = np.nan
    # The second column's value at risk never moves.
    risk = np.stack([-2.0 - RNG.uniform(size=150), np.full(150, -1.7), -RNG.uniform(size=150)], 1)
    risk[30, 0] = np.nan
    for bounds, num_lags, ranks in ((risk, 3, [5, 4, 2]), (None, 2, [3, 3, 1])):
        result = evaluation.engle_manganelli(violations, 0.1, bounds, num_lags=num_lags)
        for column in range(3):
            own = None if bounds is None else bounds[:, column]
            expected, rank, count = dynamic_quantile(violations[:, column], 0.1, own, num_lags)
            assert float(result.statistic[column]) == pytest.approx(expected, rel=1e-9)
            assert float(result.degrees[column]) == rank == ranks[column]
            assert float(result.num_cases[column]) == count
            tail = stats.chi2.sf(expected, rank)
            assert float(result.p_value[column]) == pytest.approx(tail, rel=1e-8)
        assert float(result.p_value[0]) < 0.02


def duration_ratio(violations):
    """Likelihood ratio of Weibull against exponential durations by SciPy's search; and how many."""
    kept = violations[np.isfinite(violations)]
    places = np.flatnonzero(kept) + 1
    complete = np.diff(places)
    censored = [] if places[0] == 1 else [places[0]]
    censored += [] if places[-1] == len(kept) else [len(kept) - places[-1]]
    everything = np.concatenate([complete, censored])

    def minus_loglik(shape):
        scale = (len(complete) / np.sum(everything**shape)) ** (1 / shape)
        law = stats.weibull_min(shape, scale=1 / scale)
        return -law.logpdf(complete).sum() - law.logsf(censored).sum()

    best = optimize.minimize_scalar(
        minus_loglik, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10}
    )
    return 2 * (minus_loglik(1.0) - best.fun), len(complete)


def test_durations_are_fitted_as_by_scipy():
    """Quiet and wild spells in the first column, violations at both ends in the others."""
    num_cases = 1500
    chances = np.where(np.arange(num_cases) // 150 % 2 == 0, 1.9 * P, 0.1 * P)
    violations = np.stack([chances, np.full(num_cases, P), np.full(num_cases, P)], 1)
    violations = (RNG.uniform(size=violations.shape) < violations).astype(float)
    violations[0] = 0.0, 0.0, 1.0
    violations[-1] = 0.0, 1.0, 0.0
    violations[20:24, 0] = np.nan
    key = jax.random.key(4)
    result = evaluation.christoffersen_pelletier(violations, P, key=key, num_draws=19)
    uniform = [jax.random.uniform(jax.random.fold_in(key, i), violations.shape) for i in range(19)]
    for column in range(3):
        own = violations[:, column]
        expected, count = duration_ratio(own)
        assert float(result.statistic[column]) == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert float(result.num_cases[column]) == count
        drawn = np.where(np.isnan(own), np.nan, np.asarray(uniform)[:, :, column] < P)
        share = (1 + sum(duration_ratio(row)[0] >= expected for row in drawn)) / 20
        assert float(result.p_value[column]) == pytest.approx(share)
    assert float(result.p_value[0]) == pytest.approx(1 / 20)


def test_sizes_are_right_for_many_series_at_once():
    """Right normal forecasts of a volatility that swings: tests reject as often as they say."""
    num_cases, size = 400, 0.05
    std = jnp.exp(0.5 * jnp.sin(jnp.arange(num_cases) / 10.0))
    pair = NORMAL[0] * std, NORMAL[1] * std

    def by_their_laws(key):
        realised = std * jax.random.normal(key, (num_cases,))
        violations = evaluation.tail_violations(pair[0], realised)
        dynamic = evaluation.engle_manganelli(violations, P, pair[0], num_lags=2)
        student = evaluation.mcneil_frey(*pair, realised, scale=std)
        return jnp.stack([dynamic.p_value, student.p_value]) <= size

    def by_simulation(key):
        path_key, key = jax.random.split(key)
        how = {"key": key, "num_draws": 19}
        realised = std * jax.random.normal(path_key, (num_cases,))
        violations = evaluation.tail_violations(pair[0], realised)
        results = (
            evaluation.acerbi_szekely(*pair, realised, P, **how),
            evaluation.acerbi_szekely(*pair, realised, P, kind="conditional", **how),
            evaluation.mcneil_frey(*pair, realised, scale=std, **how),
            evaluation.christoffersen_pelletier(violations, P, **how),
        )
        # A twentieth is the smallest p-value of 19 draws, up to rounding.
        return jnp.stack([result.p_value <= size + 1e-9 for result in results])

    for reject, num_series in ((by_their_laws, 2000), (by_simulation, 400)):
        keys = jax.random.split(jax.random.key(1), num_series)
        shares = np.asarray(jax.jit(jax.vmap(reject))(keys)).mean(axis=0)
        band = 3.5 * np.sqrt(size * (1 - size) / num_series)
        # Student's law is for symmetric residuals: of 20 from a normal tail it rejects too few.
        if reject is by_their_laws:
            assert shares[1] < size - band
            shares = shares[:1]
        np.testing.assert_allclose(shares, size, atol=band)


def test_no_case_is_no_answer():
    empty, key = jnp.full(20, jnp.nan), jax.random.key(0)
    for result in (
        evaluation.acerbi_szekely(-jnp.ones(20), -jnp.ones(20), empty, P, key=jax.random.key(0)),
        evaluation.acerbi_szekely(jnp.ones(20), jnp.ones(20), -empty, P, key=jax.random.key(0)),
        evaluation.mcneil_frey(-jnp.ones(20), -jnp.ones(20), empty),
        evaluation.mcneil_frey(-jnp.ones(20), -jnp.ones(20), empty, key=jax.random.key(0)),
        evaluation.engle_manganelli(empty, P),
        evaluation.christoffersen_pelletier(empty, P, key=key, num_draws=3),
        evaluation.christoffersen_pelletier(jnp.zeros(20), P, key=key, num_draws=3),
    ):
        assert np.isnan(result.statistic) and np.isnan(result.p_value)
        assert float(result.num_cases) == 0.0
    positive = evaluation.acerbi_szekely(
        jnp.ones(20), jnp.ones(20), jnp.zeros(20), P, key=jax.random.key(0), num_draws=3
    )
    assert np.isnan(positive.statistic) and np.isnan(positive.p_value)


def test_what_is_not_defined_is_refused():
    case = -jnp.ones(9)
    with pytest.raises(ValueError, match="kind must be"):
        evaluation.acerbi_szekely(case, case, case, P, kind="Z2", key=jax.random.key(0))
    with pytest.raises(ValueError, match="either draws"):
        evaluation.acerbi_szekely(case, case, case, P)
    with pytest.raises(ValueError, match="num_lags must be between 1 and 8"):
        evaluation.engle_manganelli(jnp.zeros(9), P, num_lags=0)
    with pytest.raises(ValueError, match="num_lags must be between 0 and 8"):
        evaluation.engle_manganelli(jnp.zeros(9), P, case, num_lags=9)
    with pytest.raises(ValueError, match="probability in"):
        evaluation.quantile_score(case, case, 1.0)


def test_single_precision_stays_single_and_lowers_for_cuda():
    risk, shortfall, realised, _ = (jnp.asarray(x, jnp.float32) for x in forecasts(40, 1.0))

    def everything(risk, shortfall, realised, key):
        hits = evaluation.tail_violations(risk, realised)
        return (
            tail_risk.quantile_score(risk, realised, P),
            tail_risk.joint_tail_score(risk, shortfall, realised, P),
            evaluation.acerbi_szekely(risk, shortfall, realised, P, key=key),
            evaluation.mcneil_frey(risk, shortfall, realised, key=key),
            evaluation.mcneil_frey(risk, shortfall, realised),
            evaluation.engle_manganelli(hits, P, risk),
            evaluation.christoffersen_pelletier(hits, P, key=key),
        )

    arguments = (risk, shortfall, realised, jax.random.key(0))
    shapes = jax.eval_shape(everything, *arguments)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exported = jax.export.export(jax.jit(everything), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)
