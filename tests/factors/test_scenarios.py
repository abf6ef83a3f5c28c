"""Conditional forecasts against dense Gaussian algebra and statsmodels; contradictions named."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from factor_worlds import stationary_law
from jaxfc.factors import EM, PCA, DynamicFactorModel, TwoStepEM
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.panel_law import expected_panel
from jaxfc.factors.scenario_paths import check_identities, scenario_panel
from jaxfc.factors.scenarios import conditional_forecast
from jaxfc.panel import Panel

pytestmark = pytest.mark.slow

NUM_TIMES, NUM_SERIES, HORIZON = 20, 4, 3
NAMES = list("abcd")
NAN = np.nan


def make_panel():
    """Monthly stocks with holes and a ragged edge."""
    rng = np.random.default_rng(3)
    factor = np.convolve(rng.normal(size=NUM_TIMES + 1), [1.0, 0.7], mode="valid")
    values = factor[:, None] * [1.0, 0.8, -0.9, 0.5] + 0.5 * rng.normal(
        size=(NUM_TIMES, NUM_SERIES)
    )
    values[rng.random(values.shape) < 0.15] = NAN
    values[-2:, 1] = NAN
    values[-1, 0] = 0.75
    index = pd.date_range("2020-01-31", periods=NUM_TIMES, freq="ME")
    return Panel.from_frame(pd.DataFrame(5.0 + 3.0 * values, index=index, columns=NAMES))


@pytest.fixture(scope="module")
def panel():
    return make_panel()


METHODS = {
    "diagonal": {"method": EM(max_steps=4)},
    "full": {"method": EM(max_steps=4), "idiosyncratic": "full"},
    "AR(1)": {"method": EM(max_steps=4), "errors": AutoregressiveErrors()},
    "two-step": {"method": TwoStepEM(max_steps=2)},
}


@pytest.fixture(scope="module", params=METHODS)
def fitted(request, panel):
    model = DynamicFactorModel(1, 2, variance_floor=1e-2, **METHODS[request.param])
    return model.fit(panel, throw=False)


@pytest.fixture(scope="module")
def plain(panel):
    return DynamicFactorModel(1, 1, method=EM(max_steps=4)).fit(panel, throw=False)


@pytest.fixture(scope="module")
def paths(panel):
    """Two paths with free cells, one of them reaching back into the ragged edge."""
    dates = panel.extend(HORIZON).index[-HORIZON - 1 :]
    table = pd.DataFrame(NAN, index=dates, columns=["b", "d"])
    table.loc[dates[0], "b"] = 4.0  # the last row of the panel
    table.loc[dates[2], "b"] = 9.5
    table.loc[dates[1], "d"] = 7.25
    return table


def with_paths(panel, paths):
    """The extended panel, its values and mask in numpy, written out by hand."""
    extended = panel.extend(HORIZON)
    values, observed = extended.values.copy(), extended.observed.copy()
    for date, row in paths.iterrows():
        for name, value in row.items():
            if not np.isnan(value):
                place = extended.index.get_loc(date), panel.names.index(name)
                values[place], observed[place] = value, True
    return values, observed


def dense_law(fitted, values, observed):
    """Mean and covariance of all cells given the observed ones, in data units, by one matrix."""
    parameters = jax.tree.map(np.asarray, fitted.parameters)
    loadings, cov, slopes = parameters.loadings, parameters.idiosyncratic_cov, parameters.transition
    num_times, num_series = values.shape
    num_factors, num_lags = loadings.shape[1], len(slopes)
    # Autocovariances of the factors: the joint law of p periods, then Yule-Walker forward.
    block = stationary_law(slopes, parameters.innovation_cov)
    first = block[:num_factors]  # Cov[f_0, f_j], j = 0..p-1
    lags = [first[:, j * num_factors : (j + 1) * num_factors].T for j in range(num_lags)]
    for _ in range(num_lags, num_times):  # Cov[f_{t+h}, f_t] = sum_l A_l Cov[f_{t+h-l}, f_t]
        lags.append(sum(slopes[i] @ lags[-1 - i] for i in range(num_lags)))
    joint = np.zeros((num_times, num_series, num_times, num_series))
    ar = parameters.idiosyncratic_ar
    ar = np.zeros(num_series) if ar is None else ar
    for t in range(num_times):
        for s in range(t + 1):
            part = loadings @ lags[t - s] @ loadings.T
            if cov.ndim == 1:
                part = part + np.diag(cov * ar ** (t - s))
            elif s == t:
                part = part + cov
            joint[t, :, s, :], joint[s, :, t, :] = part, part.T
    scale, centre = np.asarray(fitted.scaling.scale), np.asarray(fitted.scaling.centre)
    joint = scale[:, None, None] * joint * scale
    big = joint.reshape(values.size, values.size)
    mean = np.tile(centre + scale * parameters.intercept, num_times)
    seen = observed.ravel()
    gain = np.linalg.solve(big[np.ix_(seen, seen)], big[seen]).T
    mean = mean + gain @ (values.ravel() - mean)[seen]
    return mean.reshape(values.shape), (big - gain @ big[seen]).reshape(joint.shape)


def test_law_is_dense_conditioning(fitted, panel, paths):
    answer = conditional_forecast(fitted, panel, HORIZON, paths)
    mean, cov = dense_law(fitted, *with_paths(panel, paths))
    np.testing.assert_allclose(answer.mean, mean[-HORIZON:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(answer.cov, cov[-HORIZON:, :, -HORIZON:], rtol=0, atol=1e-9)


def test_given_cells_have_their_value_and_no_variance(fitted, panel, paths):
    answer = conditional_forecast(fitted, panel, HORIZON, paths)
    assert float(answer.mean[1, 1]) == 9.5
    assert float(answer.mean[0, 3]) == 7.25
    spread = np.asarray(answer.std)
    assert spread[1, 1] == 0.0
    assert spread[0, 3] == 0.0
    assert np.sum(spread > 0.1) == HORIZON * NUM_SERIES - 2


def test_mean_is_that_of_the_panel_law(plain, panel, paths):
    answer = conditional_forecast(plain, panel, HORIZON, paths)
    values, observed = with_paths(panel, paths)
    expected = expected_panel(plain, jax.numpy.asarray(values), jax.numpy.asarray(observed))
    np.testing.assert_allclose(answer.mean, expected[-HORIZON:], rtol=0, atol=1e-10)


def test_statsmodels_says_the_same(plain, panel, paths):
    """Scenario data appended, NaN elsewhere, smoothed by statsmodels at the same parameters."""
    mlemodel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel")
    values, observed = with_paths(panel, paths)
    space = jax.tree.map(np.asarray, plain.state_space())
    endog = np.where(observed, values, NAN)
    model = mlemodel.MLEModel(endog, k_states=1, k_posdef=1)
    model["transition"], model["state_cov"] = space.transition, space.innovation_cov
    model["selection"] = np.eye(1)
    model["design"], model["obs_cov"] = space.design, np.diag(space.observation_cov)
    model["obs_intercept"] = space.observation_offset[:, None]
    model.ssm.initialize_known(space.initial_mean, space.initial_cov)
    smoothed = model.ssm.smooth()
    states = smoothed.smoothed_state.T[-HORIZON:]
    answer = conditional_forecast(plain, panel, HORIZON, paths)
    free = ~observed[-HORIZON:]
    mean = space.observation_offset + states @ space.design.T
    np.testing.assert_allclose(np.asarray(answer.mean)[free], mean[free], rtol=1e-9)
    spread = smoothed.smoothed_state_cov[0, 0, -HORIZON:]
    variance = spread[:, None] * space.design[:, 0] ** 2 + space.observation_cov
    np.testing.assert_allclose(np.asarray(answer.std)[free] ** 2, variance[free], rtol=1e-8)


def test_draws_have_the_exact_law(fitted, panel, paths):
    num_draws = 20_000
    exact = conditional_forecast(fitted, panel, HORIZON, paths)
    drawn = conditional_forecast(
        fitted, panel, HORIZON, paths, num_draws=num_draws, key=jax.random.key(0)
    )
    error = np.asarray(drawn.mean - exact.mean)
    assert np.all(np.abs(error) <= 5 * np.asarray(exact.std) / np.sqrt(num_draws) + 1e-12)
    size = HORIZON * NUM_SERIES
    off = np.abs(np.asarray(drawn.cov - exact.cov)).reshape(size, size)
    spread = np.asarray(exact.std).ravel()
    assert np.all(off <= 7 * np.outer(spread, spread) / np.sqrt(num_draws) + 1e-12)


def test_a_mapping_is_a_frame_of_the_horizon(plain, panel):
    by_name = conditional_forecast(plain, panel, HORIZON, {"d": [7.25, NAN, 3.0]})
    dates = ["2021-09-15", "2021-11-02"]  # any day of the month
    frame = pd.DataFrame({"d": [7.25, 3.0]}, index=pd.to_datetime(dates))
    by_date = conditional_forecast(plain, panel, HORIZON, frame)
    np.testing.assert_array_equal(by_name.mean, by_date.mean)


def test_another_panel_than_the_fitted_one(plain, panel, paths):
    shorter = panel.window(4, None)
    answer = conditional_forecast(plain, shorter, HORIZON, paths)
    mean, _ = dense_law(plain, *with_paths(shorter, paths))
    np.testing.assert_allclose(answer.mean, mean[-HORIZON:], rtol=0, atol=1e-9)


def frame_of(name, date, value):
    return pd.DataFrame({name: [value]}, index=pd.to_datetime([date]))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"e": [1.0, 2.0, 3.0]}, "no series 'e'"),
        ({"a": [1.0, 2.0]}, r"'a' has shape \(2,\), the horizon 3"),
        ({"a": [NAN] * 3}, "give no value"),
        ({"a": [np.inf, 1.0, 1.0]}, "'a' is infinite .* 2021-09-30"),
        (frame_of("a", "2022-03-31", 2.5), r"'a' gives 2.5 on 2022-03-31, outside"),
        (frame_of("a", "2019-03-31", 2.5), r"'a' gives 2.5 on 2019-03-31, outside"),
        (frame_of("a", "2021-08-31", 2.5), r"'a' says 2.5 on 2021-08-31, where 7.25 was observed"),
        (pd.DataFrame({"a": [1.0]}), "needs dates"),
        (
            pd.DataFrame({"a": [1.0, 2.0]}, index=pd.to_datetime(["2021-09-01", "2021-09-30"])),
            "two rows for the period of 2021-09-30",
        ),
        (
            pd.DataFrame([[1.0, 2.0]], index=pd.to_datetime(["2021-09-01"]), columns=["a", "a"]),
            "'a' twice",
        ),
    ],
)
def test_bad_paths_are_named(plain, panel, paths, message):
    with pytest.raises(ValueError, match=message):
        conditional_forecast(plain, panel, HORIZON, paths)


def test_a_hole_in_the_history_is_no_scenario(plain, panel):
    row, column = np.argwhere(~panel.observed[:-2])[0]
    date = panel.index[row]
    with pytest.raises(ValueError, match=f"{date:%Y-%m-%d}, before its last observation"):
        conditional_forecast(plain, panel, HORIZON, frame_of(panel.names[column], date, 1.0))


def test_an_observed_value_may_be_repeated(plain, panel):
    same = pd.DataFrame({"a": [7.25, 6.0]}, index=pd.to_datetime(["2021-08-31", "2021-09-30"]))
    repeated = conditional_forecast(plain, panel, HORIZON, same)
    once = conditional_forecast(plain, panel, HORIZON, frame_of("a", "2021-09-30", 6.0))
    np.testing.assert_array_equal(repeated.mean, once.mean)


def test_identities_are_checked_where_all_members_are_given(plain, panel):
    paths = {"a": [6.0, 6.0, NAN], "b": [2.0, 2.5, 3.0], "c": [4.0, 3.5, 9.0]}
    identity = {"a": 1.0, "b": -1.0, "c": -1.0}
    held = conditional_forecast(plain, panel, HORIZON, paths, identities=[identity])
    np.testing.assert_array_equal(held.mean[:2, 0], [6.0, 6.0])
    conditional_forecast(plain, panel, HORIZON, {"a": [1.0] * 3}, identities=[identity])
    with pytest.raises(ValueError, match=r"2021-10-31: 'a' is given as 6, .* imply 6.25"):
        conditional_forecast(
            plain, panel, HORIZON, paths | {"b": [2.0, 2.75, 3.0]}, identities=[identity]
        )
    with pytest.raises(ValueError, match="there is no 'z'"):
        conditional_forecast(plain, panel, HORIZON, paths, identities=[{"a": 1.0, "z": -1.0}])
    with pytest.raises(ValueError, match=r"= 100 on 2021-09-30: 'b' is given as 2, .* imply 96"):
        conditional_forecast(
            plain, panel, HORIZON, paths, identities=[({"b": 1.0, "c": 1.0}, 100.0)]
        )


@pytest.fixture(scope="module")
def mixed():
    """Three monthly series and a quarterly total; the history ends with a whole quarter."""
    rng = np.random.default_rng(5)
    months = pd.date_range("2018-01-31", periods=24, freq="ME")
    values = rng.normal(size=24)[:, None] + 0.5 * rng.normal(size=(24, 3))
    monthly = pd.DataFrame(values, index=months, columns=list("abm"))
    quarterly = pd.DataFrame({"Q": monthly["m"].resample("QE").sum()})
    return Panel.from_frames({"M": monthly, "Q": quarterly}, kinds={"Q": "flow_sum"})


def test_a_quarter_and_its_months_must_agree(mixed):
    """The checks of paths need no fit: a quarter given with all its months, and its calendar."""
    identity = {"Q": 1.0, "m": -1.0}
    right = scenario_panel(mixed, 3, {"m": [1.0, 2.0, 3.0], "Q": [NAN, NAN, 6.0]})
    check_identities(right, 24, [identity], 1e-6)
    assert right.observed[-1, 3]
    wrong = scenario_panel(mixed, 3, {"m": [1.0, 2.0, 3.0], "Q": [NAN, NAN, 7.0]})
    with pytest.raises(ValueError, match=r"2020-03-31: 'Q' is given as 7, .* imply 6"):
        check_identities(wrong, 24, [identity], 1e-6)
    free = scenario_panel(mixed, 3, {"m": [1.0, NAN, 3.0], "Q": [NAN, NAN, 7.0]})
    check_identities(free, 24, [identity], 1e-6)
    with pytest.raises(ValueError, match="'Q' gives 7 on 2020-02-29, but a series of kind"):
        scenario_panel(mixed, 3, {"Q": [NAN, 7.0, NAN]})


@pytest.fixture(scope="module")
def mixed_fit(mixed):
    return DynamicFactorModel(1, 1, method=EM(max_steps=4)).fit(mixed, throw=False)


def test_stocks_given_beside_flows(mixed_fit, mixed):
    """The quarter that is not over yet is no obstacle: exact mean, and the spread of draws."""
    known = np.asarray(mixed.index < "2019-11")[:, None]
    vintage = dataclasses.replace(mixed, observed=mixed.observed & known)
    paths = {"a": [2.0, 2.0, NAN], "m": [1.0, NAN, NAN]}
    exact = conditional_forecast(mixed_fit, vintage, 3, paths)
    extended = scenario_panel(vintage, 3, paths)
    expected = expected_panel(mixed_fit, *extended.arrays(), extended.aggregation)
    np.testing.assert_allclose(exact.mean, expected[-3:], rtol=0, atol=1e-9)
    num_draws = 20_000
    drawn = conditional_forecast(
        mixed_fit, vintage, 3, paths, num_draws=num_draws, key=jax.random.key(1)
    )
    off = np.abs(np.asarray(drawn.cov - exact.cov)).reshape(12, 12)
    spread = np.asarray(exact.std).ravel()
    assert np.all(off <= 7 * np.outer(spread, spread) / np.sqrt(num_draws) + 1e-12)


def test_a_given_quarter_is_the_sum_of_its_drawn_months(mixed_fit, mixed):
    paths = {"Q": [NAN, NAN, 6.0]}
    with pytest.raises(ValueError, match="'Q' is a flow over several rows"):
        conditional_forecast(mixed_fit, mixed, 3, paths)
    key = jax.random.key(2)
    drawn = conditional_forecast(mixed_fit, mixed, 3, paths, num_draws=50, key=key)
    np.testing.assert_allclose(drawn.draws[:, :, 3].sum(axis=1), 6.0, rtol=1e-9)
    assert float(jax.numpy.std(drawn.draws[:, 0, 3])) > 0.1


def test_what_has_no_answer_is_refused(plain, panel):
    paths = {"a": [1.0] * HORIZON}
    other = DynamicFactorModel(1, 1, method=PCA()).fit(panel.window(0, 17), throw=False)
    with pytest.raises(ValueError, match="not moments given the observed cells"):
        conditional_forecast(other, panel, HORIZON, paths)
    with pytest.raises(ValueError, match="both num_draws and key"):
        conditional_forecast(plain, panel, HORIZON, paths, num_draws=10)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        conditional_forecast(plain, panel, HORIZON, paths, num_draws=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="has 3 series, the fitted model 4"):
        conditional_forecast(plain, panel.select(list("abc")), HORIZON, paths)
