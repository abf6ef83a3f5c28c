"""The model as users meet it: every method, forecasts, batches, derivatives, refusals."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from factor_worlds import dense_answer, make_world, simulate
from jaxfc.factors import (
    EM,
    PCA,
    PPCA,
    DynamicFactorModel,
    KalmanMoments,
    TwoStepEM,
    trace_r_squared,
)
from jaxfc.factors.em import PanelData
from jaxfc.factors.iterate import iterate
from jaxfc.factors.methods import Candidate, ppca_start
from jaxfc.model import jitted_estimate
from jaxfc.results import RESULTS, is_okay
from precision import single_precision

NUM_TIMES, NUM_SERIES = 40, 7


@pytest.fixture(scope="module")
def world():
    world = make_world(NUM_SERIES, 2, 1, seed=2)
    return world._replace(idiosyncratic_cov=0.2 * world.idiosyncratic_cov)


@pytest.fixture(scope="module")
def data(world):
    values, observed, factors = simulate(world, NUM_TIMES, missing=0.2)
    return jnp.asarray(values), jnp.asarray(observed), factors


@pytest.fixture(scope="module")
def panel(data):
    values, observed, _ = data
    index = pd.date_range("2001-01-31", periods=NUM_TIMES, freq="ME")
    frame = pd.DataFrame(np.where(observed, values, np.nan), index, list("ABCDEFG"))
    return jaxfc.Panel.from_frame(frame)


@pytest.fixture(scope="module")
def fitted(panel):
    return DynamicFactorModel(2, 1).fit(panel)


def estimated(model, values, observed):
    """By the program of `fit`, which is traced once per configuration and shape."""
    return jitted_estimate(model, values, observed, None, None)


METHODS = {
    "PCA": DynamicFactorModel(2, 1, method=PCA()),
    "PPCA": DynamicFactorModel(2, 1, method=PPCA()),
    "EM": DynamicFactorModel(2, 1),
    "EM full": DynamicFactorModel(2, 1, method=EM(max_steps=10), idiosyncratic="full"),
    "EM estimated": DynamicFactorModel(
        2, 2, method=EM(rtol=1e-4), initial="estimated", intercept="estimated"
    ),
    "static": DynamicFactorModel(2, 0),
    "Kalman": DynamicFactorModel(2, 1, moments=KalmanMoments()),
    "two-step": DynamicFactorModel(2, 1, method=TwoStepEM(), idiosyncratic="full"),
    "two-step repaired": DynamicFactorModel(
        2, 1, method=TwoStepEM(conditional_cov=True, restart=False)
    ),
    "two-step joint": DynamicFactorModel(
        2, 1, method=TwoStepEM(cross_section=True, max_steps=3), idiosyncratic="full"
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_the_factors(name, panel, data):
    """Trace R^2 far above chance for all; loadings and forecasts in the right shapes and units."""
    fitted = METHODS[name].fit(panel, throw=False)
    bounded = "full" in name or "joint" in name
    assert bool(is_okay(fitted.result)) or bounded
    truth = jnp.asarray(data[2] - data[2].mean(axis=0))
    assert trace_r_squared(truth, fitted.factors) > 0.85
    assert np.isfinite(fitted.loglik)
    forecast = fitted.forecast(3)
    assert forecast.mean.shape == (3, NUM_SERIES)
    # Far ahead, the law is the unconditional one: the sample mean, about the sample spread.
    far = fitted.forecast(60)
    np.testing.assert_allclose(
        far.mean[-1], fitted.scaling.restore(fitted.parameters.intercept), atol=1e-2
    )
    ratio = far.std[-1] / fitted.scaling.scale
    assert np.all((ratio > 0.7) & (ratio < 1.4))


def test_kalman_and_closed_form_fit_the_same_model(panel, fitted):
    kalman = METHODS["Kalman"].fit(panel)
    np.testing.assert_allclose(kalman.loglik, fitted.loglik, rtol=1e-9)
    np.testing.assert_allclose(kalman.factors, fitted.factors, atol=1e-8)


def test_fit_reports_its_path(fitted):
    path = np.asarray(fitted.loglik_path)
    steps = int(fitted.num_steps)
    assert np.isfinite(path[:steps]).all() and np.isnan(path[steps:]).all()
    assert np.diff(path[:steps]).min() > -1e-6 * abs(path[0])
    assert fitted.loglik >= path[steps - 1] - 1e-6


def test_loglik_is_in_data_units(panel, fitted, data):
    """Scaling a series by 10 changes ln p(x) by -n ln 10 and nothing else."""
    frame = panel.to_frame()
    frame["A"] *= 10.0
    scaled = DynamicFactorModel(2, 1).fit(jaxfc.Panel.from_frame(frame))
    count = int(np.asarray(data[1])[:, 0].sum())
    np.testing.assert_allclose(scaled.loglik, fitted.loglik - count * np.log(10.0), rtol=1e-10)
    np.testing.assert_allclose(scaled.factors, fitted.factors, atol=1e-9)
    np.testing.assert_allclose(
        scaled.forecast(2).mean[:, 0], 10 * fitted.forecast(2).mean[:, 0], rtol=1e-8
    )


def test_forecast_equals_dense_conditioning(fitted, data):
    """Rows appended to the panel as missing, conditioned on by brute force."""
    values, observed, _ = data
    parameters, horizon = fitted.parameters, 3
    standardised = fitted.scaling.standardise(values, observed.astype(float), None)
    padded = np.concatenate([standardised, np.zeros((horizon, NUM_SERIES))])
    mask = np.concatenate([observed, np.zeros((horizon, NUM_SERIES), bool)])
    names = ("loadings", "intercept", "idiosyncratic_cov", "transition", "innovation_cov")
    rest = {name: np.asarray(getattr(parameters, name)) for name in names}
    world = make_world(NUM_SERIES, 2, 1)._replace(
        **rest,
        initial_mean=np.asarray(parameters.initial_mean),
        initial_cov=np.asarray(parameters.initial_cov),
    )
    dense = dense_answer(world, padded, mask)
    forecast = fitted.forecast(horizon)
    scale = np.asarray(fitted.scaling.scale)
    factors = dense.means[-horizon:]
    mean = fitted.scaling.centre + scale * (factors @ rest["loadings"].T + rest["intercept"])
    np.testing.assert_allclose(forecast.mean, mean, atol=1e-10)
    size = horizon * 2
    cov = dense.cov[-size:, -size:].reshape(horizon, 2, horizon, 2)
    loadings = scale[:, None] * rest["loadings"]
    expected = np.einsum("ia,hakb,jb->hikj", loadings, cov, loadings)
    for h in range(horizon):
        expected[h, :, h, :] += np.diag(scale**2 * rest["idiosyncratic_cov"])
    np.testing.assert_allclose(forecast.cov, expected, atol=1e-10)
    total = forecast.cumulative()
    np.testing.assert_allclose(total.cov[-1, :, -1, :], expected.sum(axis=(0, 2)), atol=1e-10)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, NUM_SERIES)))
    portfolio = total.aggregate(weights)
    np.testing.assert_allclose(
        portfolio.std[-1] ** 2,
        np.diag(weights @ expected.sum(axis=(0, 2)) @ weights.T),
        rtol=1e-9,
    )


@pytest.mark.parametrize("name", ["EM", "static"])
def test_state_space_is_the_same_model(name, panel, data):
    values, observed, _ = data
    fitted = METHODS[name].fit(panel)
    space = fitted.state_space()
    posterior = eqx.filter_jit(space.smooth)(values, observed)
    np.testing.assert_allclose(posterior.loglik, fitted.loglik, rtol=1e-9)
    np.testing.assert_allclose(posterior.smoothed_means[:, :2], fitted.factors, atol=1e-9)
    ahead, expected = space.forecast(values, observed, 3), fitted.forecast(3)
    np.testing.assert_allclose(ahead.mean, expected.mean, atol=1e-9)
    np.testing.assert_allclose(ahead.cov, expected.cov, atol=1e-9)
    mean, cov = fitted.forecast_factors(3)
    loadings = fitted.scaling.scale[:, None] * fitted.parameters.loadings
    level = fitted.scaling.restore(fitted.parameters.intercept)
    np.testing.assert_allclose(level + mean @ loadings.T, expected.mean, atol=1e-10)
    np.testing.assert_allclose(cov, expected.factor_cov, atol=1e-12)


def test_simulated_panels_have_the_model_law(fitted):
    draws = fitted.simulate(20_000, key=jax.random.key(0))
    variances = fitted.parameters.variances + jnp.einsum(
        "ia,ab,ib->i",
        fitted.parameters.loadings,
        fitted.parameters.factor_cov,
        fitted.parameters.loadings,
    )
    expected = fitted.scaling.scale * jnp.sqrt(variances)
    np.testing.assert_allclose(draws.std(axis=0), expected, rtol=0.05)


@pytest.fixture(scope="module")
def batch(world):
    """Three panels of one shape, one of them hopeless (a series that is a copy of another)."""
    panels = [simulate(world, 25, seed=s, missing=0.2)[:2] for s in range(3)]
    values, observed = (jnp.asarray(np.stack(a)) for a in zip(*panels, strict=True))
    return values, observed


TRACES = []


@eqx.filter_jit
def traced(model, values, observed):
    TRACES.append(1)
    return eqx.filter(model.estimate(values, observed), eqx.is_array)


@eqx.filter_jit
def together(model, values, observed):
    return jax.vmap(lambda v, o: traced(model, v, o))(values, observed)


def test_batch_equals_loop_and_traces_once(batch):
    values, observed = batch
    model = DynamicFactorModel(2, 1, method=EM(rtol=1e-5, max_steps=300))
    TRACES.clear()
    loop = [traced(model, values[i], observed[i]) for i in range(3)]
    assert len(TRACES) == 1
    # A float of the model is no part of the program.
    other = DynamicFactorModel(2, 1, method=EM(rtol=1e-4, max_steps=300))
    assert traced(other, values[0], observed[0]).num_steps < loop[0].num_steps
    assert len(TRACES) == 1
    batched = together(model, values, observed)
    for i, alone in enumerate(loop):
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(a, b[i], atol=1e-8)


def test_a_failing_member_does_not_spoil_a_batch(batch):
    values, observed = batch
    values = values.at[1, 3, 2].set(jnp.inf)
    observed = observed.at[1, 3, 2].set(True)
    model = DynamicFactorModel(2, 1, method=EM(rtol=1e-3, max_steps=300))
    fitted = together(model, values, observed)
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], fitted.result) for i in range(3)]
    assert [bool(is_okay(result)) for result in members] == [True, False, True]
    assert members[1] == RESULTS.diverged
    assert np.isfinite(fitted.loglik[0]) and np.isfinite(fitted.loglik[2])


def test_mask_equals_truncation(data):
    """Rows masked away at the end change nothing but the number of rows, step by step."""
    values, observed, _ = data
    model = DynamicFactorModel(2, 1)
    cut = NUM_TIMES - 5
    masked = estimated(model, values, observed.at[cut:].set(False))
    truncated = estimated(model, values[:cut], observed[:cut])
    assert int(masked.num_steps) == int(truncated.num_steps)
    np.testing.assert_allclose(masked.loglik, truncated.loglik, rtol=1e-10)
    np.testing.assert_allclose(masked.factors[:cut], truncated.factors, atol=1e-8)
    ahead = truncated.scaling.restore(
        masked.factors[cut:] @ masked.parameters.loadings.T + masked.parameters.intercept
    )
    np.testing.assert_allclose(truncated.forecast(5).mean, ahead, atol=1e-8)


TAIL_INVARIANT = {
    "full": dict(idiosyncratic="full", method=EM(rtol=1e-9, max_steps=10)),
    "latent, expected": dict(
        method=EM(rtol=1e-9, max_steps=8, missing_as_latent=True, criterion="expected_loglik")
    ),
}


@pytest.mark.parametrize("name", TAIL_INVARIANT)
def test_mask_equals_truncation_in_every_step(name, data):
    values, observed, _ = data
    model = DynamicFactorModel(2, 1, **TAIL_INVARIANT[name])
    cut = NUM_TIMES - 5
    masked = estimated(model, values, observed.at[cut:].set(False))
    truncated = estimated(model, values[:cut], observed[:cut])
    np.testing.assert_allclose(masked.loglik_path, truncated.loglik_path, rtol=1e-9)
    np.testing.assert_allclose(masked.factors[:cut], truncated.factors, atol=1e-8)


@pytest.mark.parametrize("idiosyncratic", ["diagonal", "full"])
def test_mask_equals_truncation_for_two_steps(data, idiosyncratic):
    """What a two-step method fills in after the last row with data is no information."""
    values, observed, _ = data
    method = TwoStepEM(conditional_cov=True, restart=False, max_steps=5)
    model = DynamicFactorModel(2, 1, method=method, idiosyncratic=idiosyncratic)
    cut = NUM_TIMES - 5
    masked = estimated(model, values, observed.at[cut:].set(False))
    truncated = estimated(model, values[:cut], observed[:cut])
    np.testing.assert_allclose(masked.loglik, truncated.loglik, rtol=1e-10)
    np.testing.assert_allclose(masked.common[:cut], truncated.common, atol=1e-8)
    np.testing.assert_allclose(masked.common[cut:], truncated.forecast(5).mean, atol=1e-8)
    np.testing.assert_allclose(
        masked.scaling.restore(masked.completed)[cut:], masked.common[cut:], atol=1e-10
    )


@pytest.fixture(scope="module")
def wide():
    values, observed, _ = simulate(make_world(10, 2, 1, seed=5), 60, missing=0.1)
    return jnp.asarray(values), jnp.asarray(observed)


@jax.jit
def quantity(values, observed, weight):
    """What no rotation changes, after so many steps that the fit is converged to rounding."""
    model = DynamicFactorModel(2, 1, method=EM(rtol=0.0, max_steps=400))
    fitted = model.estimate(values, observed)
    forecast = jnp.sum(fitted.forecast(2).mean)
    return weight * fitted.loglik + (1.0 - weight) * forecast


derivative = jax.jit(jax.grad(quantity))


def test_forecast_does_not_depend_on_what_is_not_observed(wide):
    values, observed = wide
    observed = observed.at[-4:].set(False)  # the future
    gradient = np.asarray(derivative(values, observed, 0.0))
    assert np.all(gradient[~np.asarray(observed)] == 0.0)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient[:-4]).max() > 0


def test_implicit_derivative_through_converged_em(wide):
    """Against central differences of complete re-estimations."""
    values, observed = wide
    direction = np.where(observed, np.random.default_rng(0).normal(size=values.shape), 0.0)
    step = 1e-4
    for weight in (0.0, 1.0):
        exact = jnp.sum(derivative(values, observed, weight) * direction)
        ahead, back = (
            quantity(values + sign * step * direction, observed, weight) for sign in (1, -1)
        )
        np.testing.assert_allclose(exact, (ahead - back) / (2 * step), rtol=1e-5)


def test_warm_start_needs_fewer_steps(data):
    values, observed, _ = data
    model = DynamicFactorModel(2, 1)
    cold = estimated(model, values, observed)
    warm = eqx.filter_jit(model.estimate_from)(values, observed, start=cold.parameters)
    assert warm.num_steps < cold.num_steps
    assert warm.loglik >= cold.loglik - 1e-6
    with pytest.raises(ValueError, match="PCA is a closed form"):
        DynamicFactorModel(2, 1, method=PCA()).estimate_from(
            values, observed, start=cold.parameters
        )


def test_max_steps_is_reported(panel):
    model = DynamicFactorModel(2, 1, method=EM(rtol=1e-12, max_steps=2))
    fitted = model.fit(panel, throw=False)
    assert fitted.result == RESULTS.nonlinear_max_steps_reached
    assert int(fitted.num_steps) == 2
    with pytest.raises(RuntimeError, match="max_steps"):
        model.fit(panel)


def test_iteration_stops_where_the_likelihood_is_lost():
    def lost(value, args):
        return value + 1.0, jnp.where(value > 3.0, jnp.nan, value)

    outcome = iterate(lost, jnp.asarray(1.0), None, rtol=jnp.asarray(1e-9), max_steps=300)
    assert outcome.result == RESULTS.diverged
    assert int(outcome.num_steps) < 10


def test_expected_likelihood_may_fall_without_being_a_failure(data):
    values, observed, _ = data
    method = EM(rtol=1e-4, criterion="expected_loglik", max_steps=2000)
    fitted = eqx.filter_jit(DynamicFactorModel(2, 1, method=method).estimate)(values, observed)
    assert bool(is_okay(fitted.result))


def test_isotropic_variances_do_not_depend_on_how_missing_cells_are_counted(data):
    values, observed, _ = data
    observed = observed.at[:20, 0].set(False)
    fits = [
        eqx.filter_jit(
            DynamicFactorModel(
                2,
                1,
                idiosyncratic="isotropic",
                method=EM(rtol=1e-12, max_steps=2000, missing_as_latent=latent),
            ).estimate
        )(values, observed)
        for latent in (False, True)
    ]
    np.testing.assert_allclose(
        fits[0].parameters.variances, fits[1].parameters.variances, rtol=1e-4
    )
    np.testing.assert_allclose(fits[0].loglik, fits[1].loglik, rtol=1e-7)


def test_a_constant_series_in_a_batch_stays_constant(data):
    """The rounding of a mean is not data: 0.1 is not exact in binary."""
    values, observed, _ = data
    fits = []
    for constant in (0.1, 0.25):
        changed = values.at[:, 6].set(constant)
        fits.append(estimated(DynamicFactorModel(2, 1), changed, observed))
    np.testing.assert_allclose(fits[0].factors, fits[1].factors, atol=1e-6)
    assert abs(fits[0].scaling.scale[6] - 1.0) < 1e-12


def test_float32_data_under_x64(data):
    values, observed, _ = data
    model = DynamicFactorModel(2, 1, method=EM(rtol=1e-4))
    fitted = eqx.filter_jit(model.estimate)(values.astype(jnp.float32), observed)
    assert fitted.factors.dtype == jnp.float32 and bool(is_okay(fitted.result))


def test_principal_components_need_a_last_row(panel):
    late = panel.as_of(panel.index[-3])
    with pytest.raises(ValueError, match="ends with rows without data"):
        DynamicFactorModel(2, 1, method=PCA()).fit(late)


def test_static_model_with_full_covariance_is_not_identified():
    with pytest.raises(ValueError, match="not identified"):
        DynamicFactorModel(2, 0, idiosyncratic="full")


def test_iteration_stops_and_reports_a_falling_likelihood():
    def worse(value, args):
        return value + 1.0, -(value**2) - 1.0

    outcome = iterate(worse, jnp.asarray(1.0), None, rtol=jnp.asarray(1e-6), max_steps=50)
    assert outcome.result == RESULTS.likelihood_decreased
    assert int(outcome.num_steps) == 2


def test_nonstationary_dynamics_are_reported():
    """Factors that grow: with a stationary start the initial law would not exist."""
    time = np.arange(30.0)
    rng = np.random.default_rng(0)
    growth = np.exp(0.3 * time)
    values = growth[:, None] * rng.uniform(0.5, 1.5, 6) + 0.01 * rng.normal(size=(30, 6))
    values = jnp.asarray(values)
    model = DynamicFactorModel(1, 1, standardise=False, method=EM(max_steps=30))
    fitted = eqx.filter_jit(model.estimate)(values, jnp.ones(values.shape, bool))
    assert fitted.result == RESULTS.nonstationary


def test_float32_fit_is_close_to_float64(data, fitted):
    values, observed, _ = data
    with single_precision():
        low = values.astype(jnp.float32)
        model = DynamicFactorModel(2, 1, method=EM(rtol=1e-5))
        answer = eqx.filter_jit(model.estimate)(low, observed)
        assert answer.factors.dtype == jnp.float32
        assert bool(is_okay(answer.result))
        np.testing.assert_allclose(answer.loglik, fitted.loglik, rtol=1e-3)
        assert trace_r_squared(answer.factors, fitted.factors.astype(jnp.float32)) > 0.999


@pytest.mark.parametrize("name", ["EM full", "EM estimated", "Kalman", "two-step"])
def test_estimate_and_forecast_lower_for_cuda(name, data):
    values, observed, _ = data
    model = METHODS[name]

    def verbs(values, observed):
        fitted = model.estimate(values, observed)
        forecast = fitted.forecast(2)
        return forecast.mean, forecast.std, fitted.loglik

    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(values, observed)
    assert exported.platforms == ("cuda",)


def test_ppca_start_is_the_closed_form(data):
    """W = U (L - s^2)^{1/2}, s^2 the mean of the remaining eigenvalues, on a complete panel."""
    world = make_world(NUM_SERIES, 2, 1, seed=2)
    values, observed, _ = simulate(world, NUM_TIMES)
    values = (values - values.mean(0)) / values.std(0)
    mask = jnp.asarray(observed, float)
    start = ppca_start(DynamicFactorModel(2, 1), PanelData(jnp.asarray(values), mask), Candidate())
    eigenvalues, vectors = np.linalg.eigh(values.T @ values / NUM_TIMES)
    noise = eigenvalues[:-2].mean()
    loadings = vectors[:, :-3:-1] * np.sqrt(eigenvalues[:-3:-1] - noise)
    np.testing.assert_allclose(start.loadings @ start.loadings.T, loadings @ loadings.T, atol=1e-10)
    np.testing.assert_allclose(start.idiosyncratic_cov, noise, rtol=1e-10)


def fit_frame(frame, model=None):
    return (model or DynamicFactorModel(2, 1)).fit(jaxfc.Panel.from_frame(frame))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_factors=0, num_lags=1), "num_factors must be at least 1, got 0"),
        (dict(num_factors=1, num_lags=-1), "num_lags must be 0"),
        (dict(num_factors=1, num_lags=1, idiosyncratic="dense"), "idiosyncratic must be one of"),
        (dict(num_factors=1, num_lags=1, initial="zero"), "initial must be one of"),
        (dict(num_factors=1, num_lags=1, intercept="none"), "intercept must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DynamicFactorModel(**options)


def test_bad_method_options():
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        EM(max_steps=0)
    with pytest.raises(ValueError, match="unknown criterion 'aic'"):
        EM(criterion="aic")
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        TwoStepEM(max_steps=0)
    with pytest.raises(ValueError, match="cross_section=True with conditional_cov=True"):
        TwoStepEM(cross_section=True, conditional_cov=True)


def test_bad_panels(panel):
    frame = panel.to_frame()
    with pytest.raises(ValueError, match="num_factors = 7 needs more than 7 series, got 7"):
        fit_frame(frame, DynamicFactorModel(7, 1))
    with pytest.raises(ValueError, match="num_lags = 9 needs at least 11 rows, got 10"):
        fit_frame(frame.iloc[:10], DynamicFactorModel(2, 9))
    with pytest.raises(TypeError, match=r"fit takes a jaxfc\.Panel, got DataFrame"):
        DynamicFactorModel(2, 1).fit(frame)
    late = panel.as_of(panel.index[2])
    first = frame.index[:3]
    if frame.loc[first].notna().any().all():
        frame.loc[first, "B"] = np.nan
        late = jaxfc.Panel.from_frame(frame).as_of(panel.index[2])
    with pytest.raises(ValueError, match=r"series '[A-G]' has no observation"):
        DynamicFactorModel(2, 1).fit(late)


def test_constant_series_is_named(panel):
    frame = panel.to_frame()
    frame["C"] = 3.5
    constant = jaxfc.Panel.from_frame(frame, allow_constant=True)
    with pytest.raises(ValueError, match=r"series 'C' is constant \(3.5\)"):
        DynamicFactorModel(2, 1).fit(constant)


def test_full_covariance_of_principal_components_is_refused(panel):
    model = DynamicFactorModel(2, 1, method=PCA(), idiosyncratic="full")
    with pytest.raises(ValueError, match="singular along the loadings"):
        model.fit(panel)


def test_horizon_and_key_are_checked(fitted):
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        fitted.forecast(0)
    with pytest.raises(ValueError, match="omit `key`"):
        fitted.forecast(1, key=jax.random.key(0))


def test_flows_need_a_method_that_reads_them():
    rng = np.random.default_rng(0)
    weeks = pd.date_range("2001-01-05", periods=60, freq="W-FRI")
    weekly = pd.DataFrame(rng.normal(size=(60, 4)), weeks, list("ABCD"))
    months = pd.date_range("2001-02-28", periods=11, freq="ME")
    monthly = pd.DataFrame(rng.normal(size=(11, 2)), months, ["E", "F"])
    kinds = {"E": "flow_sum", "F": "change_in_flow"}
    panel = jaxfc.Panel.from_frames({"W-FRI": weekly, "M": monthly}, kinds=kinds)
    with pytest.raises(ValueError, match=r"series 'E', 'F' are flows .* use method=EM\(\)"):
        DynamicFactorModel(1, 1, method=PPCA()).fit(panel)
    values, observed = panel.arrays()
    with pytest.raises(ValueError, match="positions of aggregated series"):
        DynamicFactorModel(1, 1).estimate(values, observed, aggregation=panel.aggregation)
    with pytest.raises(ValueError, match="PPCA cannot read aggregated series"):
        DynamicFactorModel(1, 1, method=PPCA()).estimate(
            values, observed, aggregation=panel.aggregation
        )
    fitted = DynamicFactorModel(1, 1, method=TwoStepEM()).fit(panel, throw=False)
    from jaxfc_kernels.aggregation import aggregate

    mask = np.asarray(observed, float)
    scaled = fitted.scaling.standardise(values, jnp.asarray(mask), panel.aggregation)
    rebuilt = mask * np.asarray(aggregate(panel.aggregation, fitted.completed))
    np.testing.assert_allclose(rebuilt, scaled, atol=1e-9)
