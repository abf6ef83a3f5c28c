"""Measures of performance against pandas, SciPy, brute force, and the definitions of ruin."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from jaxfc.evaluation.performance import performance
from jaxfc.evaluation.performance_table import performance_table

RNG = np.random.default_rng(3)
RETURNS = stats.t(4).rvs((3, 60), random_state=RNG) * 0.02 + 0.001
RETURNS[1, 5] = np.nan
EXPOSURE = RNG.uniform(0, 1, (3, 60))


@pytest.fixture(scope="module")
def measure():
    def one(returns, exposure):
        return performance(
            returns,
            exposure=exposure,
            turnover=exposure / 2.0,
            periods_per_year=52.0,
            risk_free=0.0004,
            threshold=0.001,
            confidence=0.9,
        )

    return jax.jit(jax.vmap(one))


def by_definition(returns, exposure):
    """Every measure from the returns that are there, by pandas and SciPy."""
    r = pd.Series(returns).dropna()
    wealth = np.exp(np.concatenate([[0.0], r.cumsum()]))
    drawdowns = [wealth[t] / wealth[: t + 1].max() - 1.0 for t in range(len(wealth))]
    excess = r - 0.0004
    quantile = np.quantile(r, 0.1)
    return {
        "total_log_return": r.sum(),
        "mean": r.mean(),
        "volatility": r.std(),
        "sharpe": excess.mean() / excess.std(),
        "annual_mean": 52 * r.mean(),
        "annual_volatility": np.sqrt(52) * r.std(),
        "annual_sharpe": np.sqrt(52) * excess.mean() / excess.std(),
        "sortino": excess.mean() / np.sqrt(np.mean([min(x, 0) ** 2 for x in excess])),
        "omega": sum(x - 0.001 for x in r if x > 0.001) / sum(0.001 - x for x in r if x < 0.001),
        "value_at_risk": quantile,
        "expected_shortfall": np.mean([x for x in r if x <= quantile]),
        "max_drawdown": min(drawdowns),
        "skewness": stats.skew(r),
        "kurtosis": stats.kurtosis(r, fisher=False),
        "mean_exposure": exposure[~np.isnan(returns)].mean(),
        "mean_turnover": exposure[~np.isnan(returns)].mean() / 2.0,
    }


def test_measures_are_their_definitions(measure):
    got = measure(jnp.asarray(RETURNS), jnp.asarray(EXPOSURE))
    for i in range(3):
        for name, expected in by_definition(RETURNS[i], EXPOSURE[i]).items():
            assert_allclose(getattr(got, name)[i], expected, rtol=1e-11, err_msg=name)
    assert set(vars(got)) == set(by_definition(RETURNS[0], EXPOSURE[0]))


def test_degenerate_series_have_documented_answers(measure):
    steps = RETURNS.shape[1]
    constant = np.full(steps, 0.1)
    ruin = np.r_[RETURNS[0, :9], -np.inf, np.full(steps - 10, np.nan)]
    nothing = np.full(steps, np.nan)
    got = measure(jnp.asarray(np.stack([constant, ruin, nothing])), jnp.asarray(EXPOSURE))
    assert_allclose(got.volatility, [0.0, np.nan, np.nan])
    assert_allclose(got.sharpe, [np.nan, np.nan, np.nan])
    assert_allclose(got.skewness, [np.nan, np.nan, np.nan])
    assert_allclose(got.max_drawdown, [0.0, -1.0, 0.0])
    assert_allclose(got.total_log_return, [0.1 * steps, -np.inf, 0.0])
    assert_allclose(got.omega, [np.inf, 0.0, np.nan])
    assert_allclose(got.sortino[0], np.inf)
    assert_allclose(got.mean, [0.1, -np.inf, np.nan])


def test_a_loss_at_the_first_step_is_a_drawdown(measure):
    falling = jnp.log(jnp.asarray([[0.8, 0.9] + [1.0] * 58] * 3))
    assert_allclose(measure(falling, jnp.asarray(EXPOSURE)).max_drawdown, -0.28, rtol=1e-12)


def test_the_mean_has_a_derivative_where_something_is_missing():
    gradient = jax.grad(lambda r: performance(r).sharpe)(jnp.asarray(RETURNS[1]))
    assert gradient[5] == 0.0 and np.isfinite(gradient).all() and np.all(gradient[:5] != 0.0)


def test_table_and_its_bootstrap_are_those_of_single_draws(measure):
    named = {"a": RETURNS[0], "b": RETURNS[1]}
    exposures = {"b": EXPOSURE[1], "a": EXPOSURE[0]}  # by name, not by place
    indices = np.random.default_rng(1).integers(0, 60, (25, 60))
    options = {
        "periods_per_year": 52.0,
        "risk_free": 0.0004,
        "threshold": 0.001,
        "confidence": 0.9,
    }
    plain = performance_table(named, exposures=exposures, **options)
    table = performance_table(
        named, exposures=exposures, indices=indices, size=0.2, batch_size=10, **options
    )
    assert list(plain.index) == ["a", "b"] and "mean_turnover" not in plain
    draws = [by_definition(RETURNS[1, row], EXPOSURE[1, row]) for row in indices]
    for name in plain:
        assert table.loc["b", (name, "estimate")] == plain.loc["b", name]
        assert_allclose(plain.loc["b", name], by_definition(RETURNS[1], EXPOSURE[1])[name])
        bounds = np.quantile([draw[name] for draw in draws], [0.1, 0.9])
        assert_allclose(
            table.loc["b", [(name, "lower"), (name, "upper")]].to_numpy(float), bounds, rtol=1e-9
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_returns": {}}, "no strategy"),
        ({"log_returns": {"a": RETURNS[0], "b": RETURNS[1, :9]}}, "different lengths"),
        ({"exposures": {"c": EXPOSURE[0]}}, "same names"),
        ({"turnovers": {"a": EXPOSURE[0, :9]}}, "one value for each return"),
        ({"indices": np.full((2, 60), 60)}, "entries 0..59"),
        ({"indices": np.zeros((2, 60), int), "size": 1.0}, "in \\(0, 1\\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"log_returns": {"a": RETURNS[0]}} | change
    with pytest.raises(ValueError, match=message):
        performance_table(arguments.pop("log_returns"), **arguments)


def test_a_rate_of_every_step_is_not_redrawn():
    returns = np.random.default_rng(0).normal(size=12)
    rates = np.linspace(0.0, 0.01, 12)
    table = performance_table({"a": returns}, risk_free=rates)
    excess = performance_table({"a": returns - rates})
    np.testing.assert_allclose(table["sharpe"], excess["sharpe"])
    with pytest.raises(ValueError, match="excess of it"):
        performance_table({"a": returns}, risk_free=rates, indices=np.zeros((3, 12), int))
