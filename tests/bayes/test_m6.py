"""The M6 model from panel to forecast: units, lags, gaps, refusals, the scale of the forecast."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfc
from bayes.asset_worlds import CLASSES, asset_frame, asset_panel_of, small_program
from jaxfc.bayes import (
    NUTS,
    ConstantScale,
    FirstOrder,
    FixedScale,
    GivenWeights,
    HalfLife,
    LearnedScale,
    LinearRamp,
    M6Model,
    Momentum,
    PooledHMC,
    RecentScale,
    VectorFirstOrder,
    align_loadings,
    effective_num_periods,
    warm_start,
)
from jaxfc.bayes.adaptation import add_draws, no_moments, regularised_variance
from jaxfc.bayes.asset_paths import future
from jaxfc.bayes.pooled_hmc import window_ends
from jaxfc.model import jitted_estimate
from jaxfc.results import RESULTS, is_okay

SHORT = PooledHMC(num_chains=2, num_draws=40, num_warmup=40, num_leapfrogs=8)


@pytest.fixture(scope="module")
def panel():
    return asset_panel_of(asset_frame())


@pytest.fixture(scope="module")
def model():
    return M6Model(CLASSES, num_factors=1, inference=SHORT, past=LinearRamp(20.0))


@pytest.fixture(scope="module")
def fitted(model, panel):
    return model.fit(panel, key=jax.random.key(0), throw=False)


def test_rows_are_standardised_and_lagged_as_by_hand(model, panel):
    resolved = model.resolved(panel)
    data = resolved.data(*panel.arrays())
    frame = asset_frame()
    for place, asset in enumerate("ABCDEF"):
        returns = frame[asset]
        scale = 1.4826 * np.nanmedian(np.abs(returns))
        np.testing.assert_allclose(data.scale[place], scale, rtol=1e-12)
        expected = np.nan_to_num(returns / scale)
        np.testing.assert_allclose(data.rows.returns[:, place], expected, rtol=1e-12)
        recent = frame[f"{asset} recent return"]
        z = ((recent - recent.mean()) / recent.std(ddof=0)).to_numpy()
        np.testing.assert_allclose(data.rows.recent_return[1:, place], z[:-1], atol=1e-12)
        np.testing.assert_allclose(data.ahead.recent_return[place], z[-1], atol=1e-12)
    assert not data.rows.recent_return[0].any()
    due = frame["A earnings ahead"].to_numpy()
    np.testing.assert_array_equal(data.rows.earnings[1:, 0], due[:-1])
    np.testing.assert_array_equal(data.rows.earnings[:, 5], 0.0)
    omega = LinearRamp(20.0).weights(40)
    seen = frame[list("ABCDEF")].notna().to_numpy()
    np.testing.assert_allclose(data.rows.weights, np.asarray(omega)[:, None] * seen, rtol=1e-12)


def test_what_is_not_observed_and_what_comes_later_changes_nothing(model, panel, fitted):
    values, observed = panel.arrays()
    other = jnp.where(observed, values, 123.0)
    refit = jitted_estimate(model.resolved(panel), other, observed, None, jax.random.key(0))
    np.testing.assert_array_equal(refit.draws.log_density, fitted.draws.log_density)


def test_features_explain_the_next_row_only(model, panel):
    values, observed = panel.arrays()
    resolved, place = model.resolved(panel), panel.names.index("A earnings ahead")
    rows = jax.jacfwd(lambda v: resolved.data(v, observed).rows.earnings[:, 0])(values)
    np.testing.assert_array_equal(rows[..., place], np.eye(len(values), k=-1))
    hidden = observed.at[7, panel.names.index("A")].set(False)
    signal, other = (resolved.data(values, o).rows.market_signal for o in (observed, hidden))
    np.testing.assert_array_equal(signal, other)
    np.testing.assert_allclose(jnp.mean(signal**2), 1.0, rtol=1e-12)


def test_forecast_is_of_the_assets_and_follows_the_key(fitted, panel):
    forecast = fitted.forecast(3, key=jax.random.key(1))
    assert forecast.draws.shape == (80, 3, 6)
    assert fitted.forecast_names(panel.names) == tuple("ABCDEF")
    again = fitted.forecast(3, key=jax.random.key(1))
    np.testing.assert_array_equal(forecast.draws, again.draws)
    assert not np.array_equal(forecast.draws, fitted.forecast(3, key=jax.random.key(2)).draws)
    paths = fitted.paths(3, key=jax.random.key(1))
    np.testing.assert_array_equal(paths.returns, forecast.draws)
    assert np.all(np.std(paths.expected, axis=0) < np.std(paths.returns, axis=0))
    path = fitted.simulate(15, key=jax.random.key(3))
    assert path.shape == (15, 6) and np.isfinite(path).all()


@pytest.mark.parametrize("dynamics", [FirstOrder(), Momentum(last=3), VectorFirstOrder()])
def test_futures_have_the_moments_of_the_recursion(dynamics):
    """Means of rows 1 to 3 given one draw of the parameters, and the variance of the first."""
    program = small_program(dynamics=dynamics, factor_scale=RecentScale())
    parameters = program.sample_prior(key=jax.random.key(4))
    parameters |= {"log_excess_mean": jnp.log(12.0), "log_excess_scale": jnp.asarray(0.1)}
    rows = jax.tree.map(lambda x: x[:3], program.rows)
    ahead = dataclasses.replace(program, rows=rows)
    signal, size = jnp.asarray(0.7), 20_000

    @jax.jit
    def futures(key):
        keys = jax.random.split(key, size)
        return jax.vmap(lambda k: future(ahead, parameters, signal, 3, key=k).returns)(keys)

    draws = np.asarray(futures(jax.random.key(5)))
    lags = jnp.pad(parameters["factors"], ((3, 0), (0, 0)))[-dynamics.num_lags :]
    means = np.array(program.expected(parameters, rows))
    for step in range(3):
        row = dynamics.next_row(lags, parameters, jnp.zeros(2), jnp.ones(()))
        lags = jnp.concatenate([lags[1:], row[None]])
        means[step] += parameters["loadings"] @ row
    error = draws.std(0) / np.sqrt(size)
    assert np.all(np.abs(draws.mean(0) - means) < 4.5 * error)
    columns = [
        dynamics.next_row(0 * lags, parameters, unit, jnp.exp(0.7 * effect))
        for effect in [parameters["market_volatility_effect"]]
        for unit in jnp.eye(2)
    ]
    root = parameters["loadings"] @ jnp.stack(columns, axis=1)
    dof = program.dof(parameters)
    own = jnp.exp(2 * program.log_scale(parameters, rows)[0]) * dof / (dof - 2.0)
    variance = jnp.sum(root**2, axis=1) + own
    np.testing.assert_allclose(draws[:, 0].var(0), variance, rtol=0.06)


def test_an_asset_without_returns_is_forecast_from_its_class(model, panel):
    """What a batch of windows relies on, where assets are not yet listed."""
    values, observed = panel.arrays()
    hidden = observed.at[:, panel.names.index("E")].set(False)
    fitted = jitted_estimate(model.resolved(panel), values, hidden, None, jax.random.key(0))
    draws = fitted.forecast(1, key=jax.random.key(1)).draws
    assert np.isfinite(draws).all() and np.isfinite(fitted.loglik)
    start = model.resolved(panel).program(model.resolved(panel).data(values, hidden).rows).start()
    levels = np.asarray(start["level"])
    np.testing.assert_allclose(levels[4], np.delete(levels, 4).mean(), rtol=1e-12)


def test_everything_lowers_for_accelerators(model, panel):
    resolved = model.resolved(panel)

    def run(values, observed, key):
        fitted = resolved.estimate(values, observed, key=key)
        aligned = align_loadings(fitted.draws.pooled()["loadings"])
        return fitted.forecast(2, key=key).draws, fitted.result._value, aligned.loadings

    arguments = *panel.arrays(), jax.random.key(0)
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)


def test_another_number_does_not_compile_anew(model, panel):
    traces = []

    @eqx.filter_jit
    def run(model, values, observed):
        traces.append(1)
        return model.program(model.data(values, observed).rows).start()["level"]

    resolved = model.resolved(panel)
    run(resolved, *panel.arrays())
    other = dataclasses.replace(
        resolved, dynamics=FirstOrder(0.3), inference=dataclasses.replace(SHORT, num_leapfrogs=9)
    )
    run(other, *panel.arrays())
    assert len(traces) == 1


def test_a_short_run_is_not_trusted(fitted, model, panel):
    assert not bool(is_okay(fitted.result))
    assert set(fitted.details()) == {"max_rhat", "min_bulk_ess", "num_divergent", "pareto_k"}
    with pytest.raises(RuntimeError, match=r"M6Model\.fit"):
        model.fit(panel, key=jax.random.key(0))


def test_save_and_load(fitted, tmp_path):
    jaxfc.save(fitted, tmp_path / "m6.jaxfc")
    again = jaxfc.load(tmp_path / "m6.jaxfc")
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        again.forecast(1, key=key).draws, fitted.forecast(1, key=key).draws
    )


@pytest.mark.slow
def test_warm_start_goes_on_from_the_chains(fitted, panel):
    tuned = fitted.draws.tuned
    warm = warm_start(fitted, num_new_rows=1, num_dropped_rows=1)
    assert isinstance(warm, PooledHMC) and warm.warm is not None
    assert warm.warm.position.shape == tuned.position.shape
    assert warm.warm.step_size == tuned.step_size
    moved = dataclasses.replace(fitted.model, inference=warm)
    window = asset_panel_of(asset_frame(41).iloc[1:])
    refit = moved.fit(window, key=jax.random.key(1), throw=False)
    start = moved.program(moved.data(*window.arrays()).rows).flat()[1]
    first = start(warm.warm.position[0])["factors"]
    old = start(tuned.position[0])["factors"]
    np.testing.assert_array_equal(first[:-1], old[1:])
    assert not first[-1].any()
    assert np.isfinite(refit.draws.log_density).all()
    with pytest.raises(ValueError, match="leave `warm` out"):
        moved.fit(asset_panel_of(asset_frame(45)), key=jax.random.key(1))
    with pytest.raises(ValueError, match="cannot append"):
        warm_start(fitted, num_new_rows=-1)


def test_warm_start_needs_pooled_chains(fitted):
    other = eqx.tree_at(lambda f: f.draws, fitted, dataclasses.replace(fitted.draws, tuned=None))
    model = dataclasses.replace(fitted.model, inference=NUTS())
    with pytest.raises(ValueError, match="use PooledHMC"):
        warm_start(dataclasses.replace(other, model=model), num_new_rows=1)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: f.assign(B=0.01), "returns of asset 'B' are constant"),
        (lambda f: f.assign(B=f["B"].where(np.arange(len(f)) < 15, 0.0)), "robust scale"),
        (lambda f: f.drop(columns="C"), "no column 'C'"),
        (lambda f: f.assign(VIX=f["A"]), "column 'VIX' is neither"),
    ],
)
def test_bad_panels_are_named(model, change, message):
    panel = jaxfc.Panel.from_frame(change(asset_frame()), allow_constant=True)
    with pytest.raises(ValueError, match=message):
        model.check(panel)


def test_short_panels_and_assets_without_returns_are_named(model, panel):
    with pytest.raises(ValueError, match="asset 'C' has no return"):
        model.check(panel.window(0, 9))
    with pytest.raises(ValueError, match="the panel has 3 rows"):
        model.check(panel.window(30, 33))


def test_bad_models_and_missing_keys_are_named(model, panel, fitted):
    with pytest.raises(ValueError, match="names no asset"):
        M6Model({})
    with pytest.raises(ValueError, match="class of asset 'A' is ''"):
        M6Model({"A": ""})
    with pytest.raises(ValueError, match="num_factors must be at least 0"):
        M6Model(CLASSES, num_factors=-1)
    with pytest.raises(ValueError, match="7 factors of 6 assets"):
        M6Model(CLASSES)
    with pytest.raises(ValueError, match="weights of HalfLife on the past"):
        dataclasses.replace(model, past=HalfLife(0.0)).check(panel)
    with pytest.raises(ValueError, match="the posterior is drawn"):
        model.fit(panel)
    with pytest.raises(ValueError, match="the forecast is drawn"):
        fitted.forecast(1)
    with pytest.raises(ValueError, match="only a panel can tell"):
        model.estimate(*panel.arrays(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="belong to the rows"):
        fitted.given(*panel.arrays())
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        PooledHMC(num_draws=0)


def test_weights_of_the_past():
    ramp = np.asarray(LinearRamp(2.0).weights(6))
    # Ages 5..0, cut-off 2, oldest 5: 1 - (age - 2) / 5 before it.
    np.testing.assert_allclose(ramp, [0.4, 0.6, 0.8, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(HalfLife(2.0).weights(5), 0.5 ** np.array([2, 1.5, 1, 0.5, 0]))
    np.testing.assert_allclose(effective_num_periods(jnp.ones(7)), 7.0)
    np.testing.assert_allclose(effective_num_periods(jnp.array([1.0, 1.0, 0.0])), 2.0)
    with pytest.raises(ValueError, match="one weight per row"):
        GivenWeights(jnp.ones(3)).weights(4)


def test_windows_double_and_moments_are_those_of_numpy():
    ends, short = window_ends(500)
    np.testing.assert_array_equal(np.flatnonzero(ends), [49, 99, 199, 449])
    assert short[:50].all() and not short[200:].any()
    draws = np.random.default_rng(0).normal(size=(30, 4, 3))
    moments = no_moments(jnp.zeros(3))
    for batch in draws:
        moments = add_draws(moments, jnp.asarray(batch))
    variance = draws.reshape(-1, 3).var(axis=0, ddof=1)
    expected = (120 * variance + 5e-3) / 125
    np.testing.assert_allclose(regularised_variance(moments), expected, rtol=1e-10)


def factor_world(num_rows, num_series):
    """One factor of unit variance, loadings about 0.2, normal errors of scale 0.25."""
    rng = np.random.default_rng(2)
    loadings = 0.2 + 0.03 * rng.normal(size=num_series)
    factor = rng.normal(size=num_rows)
    factor *= 1.0 / factor.std()
    noise = 0.25 * rng.normal(size=(num_rows, num_series))
    return factor[:, None] * loadings + noise, np.mean(loadings)


@pytest.mark.slow
@pytest.mark.parametrize("prior, low, high", [(LearnedScale(), 0.6, 1.7), (FixedScale(), 2.0, 99)])
def test_a_fixed_wide_prior_forecasts_too_much_common_variance(prior, low, high):
    """Twice as many series as rows: the learnt scale is right, the published prior is not."""
    values, loading = factor_world(15, 30)
    program = small_program(
        num_rows=15,
        num_series=30,
        num_factors=1,
        loading_prior=prior,
        factor_scale=ConstantScale(),
        features=(),
        equal_weights=True,
    )
    rows = dataclasses.replace(
        program.rows, returns=jnp.asarray(values), weights=jnp.ones_like(program.rows.returns)
    )
    program = dataclasses.replace(program, rows=rows)
    sampler = PooledHMC(num_chains=2, num_draws=150, num_warmup=150, num_leapfrogs=24)

    @jax.jit
    def market_variance(key):
        draws = sampler.sample(program, key=key)
        return jnp.median(draws.map(program.identified)["market_sd"] ** 2), draws.result

    found, result = market_variance(jax.random.key(0))
    assert result == RESULTS.successful
    assert low < float(found) / loading**2 < high
