"""EM with errors as states: against the NY Fed's MATLAB code, and against plain loops."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from factor_worlds import make_world
from golden import dfms_mixed, panels
from golden import dfms_pipeline as dfms
from golden.cases import assert_same_parameters, space_of
from golden.frbny import MONTHLY, stored
from golden.frbny_start import starting_values
from jaxfc.factors.augmented import AugmentedParameters, augmented_space
from jaxfc.factors.augmented_em import augmented_em, run_augmented_em
from jaxfc.panel import Panel
from oracles import dense_state_space, every_time

pytestmark = pytest.mark.slow

LOG_2PI = np.log(2.0 * np.pi)
DFM = ["dfm_111", "dfm_112", "dfm_11F", "dfm_221", "dfm_222", "dfm_22F"]
BLOCKS = ["dfm_blocks_111", "dfm_blocks_112", "dfm_blocks_221", "dfm_blocks_222"]
NEWS = ["news_112", "news_222", "news_blocks_112", "news_blocks_222"]


@eqx.filter_jit
def smooth(space, values, observed):
    return space.smooth(values, observed, implementation="univariate")


def constant_design(space):
    assert isinstance(space.design, jax.Array)
    return space.design


@eqx.filter_jit
def em_step(method, parameters, values, observed):
    return method.step(parameters, values, observed)


@pytest.mark.parametrize("name", DFM + BLOCKS + NEWS)
def test_likelihood_and_smoothed_panel_of_matlab(name):
    theirs = stored(name)
    values, observed = theirs.panel()
    space = augmented_space(theirs.parameters, theirs.weights)
    ours = smooth(space, values, observed)
    without_constant = ours.loglik + 0.5 * LOG_2PI * observed.sum()
    assert_allclose(without_constant, theirs.read("loglik"), rtol=1e-12)
    assert_allclose(ours.smoothed_means @ constant_design(space).T, theirs.read("x_sm"), atol=2e-13)


@pytest.mark.parametrize("name", ["dfm_11", "dfm_22", "dfm_blocks_11", "dfm_blocks_22"])
def test_one_em_step_of_matlab(name):
    before, after = stored(f"{name}1"), stored(f"{name}2")
    # Its EM leaves out the last row, which is empty.
    ours, loglik = em_step(before.method, before.parameters, *before.panel(rows=slice(-1)))
    assert_allclose(loglik, before.read("loglik"), rtol=1e-12)
    assert_same_parameters(ours, after.parameters, 2e-12)


@pytest.mark.parametrize(("name", "num_steps"), [("dfm_11", 177), ("dfm_22", 197)])
def test_em_ends_where_matlab_ends(name, num_steps):
    """From its parameters after one step, by its rule; its end is one step short of settled."""
    start, end = stored(f"{name}1"), stored(f"{name}F")
    data = start.panel(rows=slice(-1))
    ours = run_augmented_em(start.method, start.parameters, *data, rtol=1e-4, max_steps=300)
    assert int(ours.num_steps) == num_steps
    assert_same_parameters(ours.value, end.parameters, 1e-11)
    once, loglik = em_step(end.method, end.parameters, *data)
    _, next_loglik = em_step(end.method, once, *data)
    assert_allclose(loglik, end.read("loglik"), rtol=1e-11)
    assert 0 < next_loglik - loglik < 1e-4 * abs(loglik)
    for field in ("loadings", "transition", "innovation_cov", "idiosyncratic_innovation_var"):
        old, new = getattr(end.parameters, field), getattr(once, field)
        assert_allclose(new, old, rtol=0, atol=3e-4 * np.abs(old).max())


def with_signs(parameters, signs):
    """The same model with some factors turned round."""
    states = np.ones(len(parameters.initial_mean))
    states[: 5 * len(signs)] = np.tile(signs, 5)
    return dataclasses.replace(
        parameters,
        loadings=parameters.loadings * signs,
        transition=parameters.transition * signs[:, None] * signs,
        innovation_cov=parameters.innovation_cov * signs[:, None] * signs,
        initial_mean=parameters.initial_mean * states,
        initial_cov=parameters.initial_cov * states[:, None] * states,
    )


@pytest.mark.parametrize(
    ("name", "per_block", "num_lags"),
    [("dfm_111", 1, 1), ("dfm_221", 2, 2), ("dfm_blocks_111", 1, 1), ("dfm_blocks_221", 2, 2)],
)
def test_start_values_of_matlab(name, per_block, num_lags):
    """The files hold what one step makes of the start values; components have no sign."""
    theirs = stored(name)
    data = panels.frbny_growth(theirs.names)
    start = starting_values(data, theirs.in_block, per_block, num_lags)
    ours, _ = em_step(theirs.method, start, *theirs.panel(rows=slice(-1)))
    signs = np.sign(np.sum(np.asarray(ours.loadings * theirs.parameters.loadings), axis=0))
    assert_same_parameters(with_signs(ours, signs), theirs.parameters, 2e-12)


@pytest.mark.parametrize("name", NEWS)
def test_news_of_matlab(name):
    """GDP of 2016Q3 between two vintages: revisions, then weight times surprise, data units."""
    theirs = stored(name)
    month, num_rows, target = (2016 - 2000) * 12 + 8, 211, len(theirs.names)
    centre, scale = theirs.read("Mx"), theirs.read("Wx")
    old = theirs.vintage("2016-06-29", num_rows)
    new = theirs.vintage("2016-07-29", num_rows)
    space = augmented_space(theirs.parameters, theirs.weights)
    was_seen, is_seen = ~np.isnan(old), ~np.isnan(new)

    @eqx.filter_jit
    def nowcast(values, observed):
        data = jnp.where(observed, (values - centre) / scale, 0.0)
        means = space.smooth(data, observed, implementation="univariate").smoothed_means
        panel = centre + scale * (means @ constant_design(space).T)
        return panel[month, target], panel

    revised = jnp.asarray(np.where(is_seen, new, 0.0))
    kept, released = jnp.asarray(was_seen & is_seen), jnp.asarray(is_seen & ~was_seen)
    before, _ = nowcast(jnp.asarray(np.where(was_seen, old, 0.0)), jnp.asarray(was_seen))
    after_revision, forecasts = nowcast(revised, kept)
    (after, _), weights = jax.value_and_grad(nowcast, has_aux=True)(revised, jnp.asarray(is_seen))
    assert_allclose(after_revision - before, theirs.read("impact_revisions"), rtol=1e-9)
    table = theirs.read("news_table")
    rows, columns = np.nonzero(np.asarray(released))
    assert set(columns) == set(np.flatnonzero(~np.isnan(table[:, 0])))
    assert len(columns) == len(set(columns))
    for row, i in zip(rows, columns, strict=True):
        ours = (forecasts[row, i], revised[row, i], weights[row, i])
        assert_allclose(ours, table[i, :3], rtol=1e-9)
        assert_allclose(ours[2] * (ours[1] - ours[0]), table[i, 3], rtol=1e-9)
    assert_allclose(after - after_revision, np.nansum(table[:, 3]), rtol=1e-9)


@pytest.fixture(scope="module")
def bm14_small(shared_data):
    growth, table = panels.bm14_growth(shared_data / "bm14")
    return dfms.standardize(growth[:, table["small"].to_numpy(bool)])


def in_our_shapes(params, num_factors, num_lags):
    """Parameters of dfms with AR(1) errors: the same order of states as ours."""
    size = num_factors * num_lags
    lags = params.transition[:num_factors, :size].reshape(num_factors, num_lags, num_factors)
    fields = (
        params.loadings[:, :num_factors],
        lags.swapaxes(0, 1),
        params.innovation_cov[:num_factors, :num_factors],
        np.diag(params.transition)[size:],
        np.diag(params.innovation_cov)[size:],
        params.idiosyncratic_var,
        params.initial_mean,
        params.initial_cov,
    )
    return AugmentedParameters(*map(jnp.asarray, fields))


def test_ar_errors_as_in_dfms(bm14_small):
    """Three EM steps on the ten monthly series, each from the parameters of dfms."""
    num_factors, num_lags, monthly = 2, 3, bm14_small[:, :10]
    params = dfms_mixed.ar_starting_values(monthly, num_factors, num_lags)
    method = augmented_em(10, num_factors, num_lags)
    observed = ~np.isnan(monthly)
    data = jnp.asarray(np.where(observed, monthly, 1e6)), jnp.asarray(observed)
    for _ in range(3):
        ours, loglik = em_step(method, in_our_shapes(params, num_factors, num_lags), *data)
        params, moments = dfms_mixed.ar_em_step(monthly, params, num_factors, num_lags)
        assert_allclose(loglik, moments.loglik, rtol=1e-11)
        theirs = in_our_shapes(params, num_factors, num_lags)
        # dfms drops what the errors at the start share with each other and with the factors.
        kept = np.where(theirs.initial_cov != 0, ours.initial_cov, 0.0)
        ours = eqx.tree_at(lambda p: p.initial_cov, ours, jnp.asarray(kept))
        assert_same_parameters(ours, theirs, 1e-9)


def test_quarterly_series_as_in_dfms(bm14_small):
    """Likelihood and smoothed states of monthly and quarterly series at visited parameters."""
    params = dfms_mixed.starting_values(bm14_small, 2, 2, 4)
    observed = ~np.isnan(bm14_small)
    values = jnp.asarray(np.where(observed, bm14_small, 1e6))
    for _ in range(2):
        ours = smooth(space_of(params), values, jnp.asarray(observed))
        params, theirs = dfms_mixed.em_step(bm14_small, params, 2, 2, 4)
        assert_allclose(ours.loglik, theirs.loglik, rtol=1e-11)
        assert_allclose(ours.smoothed_means, theirs.means[1:], atol=1e-8)
        assert_allclose(ours.smoothed_covs, theirs.covs[1:], atol=1e-8)


def calendar_case():
    """Weeks with a monthly average and a change in a monthly flow; two blocks, one zero loading."""
    rng = np.random.default_rng(2)
    weeks = pd.date_range("2020-01-05", periods=18, freq="W")
    weekly = pd.DataFrame(rng.normal(size=(18, 3)), weeks, ["a", "b", "c"])
    weekly = weekly.mask(rng.random(weekly.shape) < 0.2)
    months = pd.date_range("2020-02-29", periods=3, freq="ME")
    monthly = pd.DataFrame(rng.normal(size=(3, 2)), months, ["average", "change"])
    kinds = {"average": "flow_average", "change": "change_in_flow"}
    panel = Panel.from_frames({"W": weekly, "M": monthly}, kinds=kinds)
    assert panel.aggregation is not None
    loads = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)
    method = augmented_em(5, 3, 2, panel.aggregation, blocks=(0, 0, 1), loads=loads)
    same = np.equal.outer((0, 0, 1), (0, 0, 1))
    world = make_world(5, 3, 2)
    size = method.layout.num_states
    root = rng.normal(size=(size, size)) / size
    parameters = AugmentedParameters(
        loadings=jnp.asarray(world.loadings * loads),
        transition=jnp.asarray(world.transition * same),
        innovation_cov=jnp.asarray(world.innovation_cov * same),
        idiosyncratic_ar=jnp.asarray([0.5, -0.3, 0.8, 0.2, 0.4]),
        idiosyncratic_innovation_var=jnp.asarray(rng.uniform(0.3, 0.8, 5)),
        measurement_cov=jnp.full(5, 0.3),
        initial_mean=jnp.asarray(0.1 * rng.normal(size=size)),
        initial_cov=jnp.asarray(np.eye(size) + root @ root.T),
    )
    return panel, method, parameters, loads


def dense_posterior(space, values, observed):
    """Means (time, states) and covariances (time, states, time, states) by dense algebra."""
    num_times = len(values)
    law = dense_state_space(
        np.asarray(space.initial_mean),
        np.asarray(space.initial_cov),
        every_time(np.asarray(space.transition), num_times),
        every_time(np.asarray(space.offset), num_times),
        every_time(np.asarray(space.innovation_cov), num_times),
        np.asarray(space.design.values),
        every_time(np.asarray(space.observation_offset), num_times),
        every_time(np.diag(space.observation_cov), num_times),
    )
    return law.states_given(values, observed), law.loglik(values, observed)


def test_step_on_an_irregular_calendar_equals_plain_loops():
    panel, method, parameters, loads = calendar_case()
    values, observed = np.where(panel.observed, panel.values, 7.0), panel.observed
    ours, loglik = em_step(method, parameters, jnp.asarray(values), jnp.asarray(observed))

    # Independent: the joint law of all states by conditioning, then sums over rows.
    space = augmented_space(parameters, panel.aggregation, presample=True)
    first = ((1, 0), (0, 0))
    law, expected = dense_posterior(space, np.pad(values, first), np.pad(observed, first))
    assert_allclose(loglik, expected, rtol=1e-11)
    mean, num_times = law.mean, len(values)

    def second(t, s):
        return law.cov[t, :, s] + np.outer(mean[t], mean[s])

    now = np.sum([second(t, t) for t in range(1, num_times + 1)], axis=0)
    before = np.sum([second(t, t) for t in range(num_times)], axis=0)
    cross = np.sum([second(t, t - 1) for t in range(1, num_times + 1)], axis=0)
    for block in ([0, 1], [2]):
        lagged = [*block, *(k + 3 for k in block)]
        lags = cross[np.ix_(block, lagged)] @ np.linalg.inv(before[np.ix_(lagged, lagged)])
        cov = (now[np.ix_(block, block)] - lags @ cross[np.ix_(block, lagged)].T) / num_times
        actual = np.concatenate([a[np.ix_(block, block)] for a in ours.transition], axis=1)
        assert_allclose(actual, lags, rtol=1e-9)
        assert_allclose(ours.innovation_cov[np.ix_(block, block)], cov, rtol=1e-9)
    assert_allclose(ours.transition[:, :2, 2], 0.0)
    assert_allclose(ours.innovation_cov[2, :2], 0.0)

    weights = np.asarray(method.weights)
    depth = method.layout.depth
    for i, newest in enumerate(method.layout.error_positions):
        ar = cross[newest, newest] / before[newest, newest]
        assert_allclose(ours.idiosyncratic_ar[i], ar, rtol=1e-9)
        variance = (now[newest, newest] - ar * cross[newest, newest]) / num_times
        assert_allclose(ours.idiosyncratic_innovation_var[i], variance, rtol=1e-9)
        active = np.flatnonzero(loads[i])
        square, right = np.zeros((len(active),) * 2), np.zeros(len(active))
        for t in np.flatnonzero(observed[:, i]):
            flow = np.zeros((len(active), len(mean[0])))
            error = np.zeros(len(mean[0]))
            for lag in range(min(depth, weights.shape[2])):
                flow[np.arange(len(active)), 3 * lag + active] = weights[t, i, lag]
                if weights[t, i, lag]:
                    error[newest + lag] = weights[t, i, lag]
            moment = second(t + 1, t + 1)
            square += flow @ moment @ flow.T
            right += values[t, i] * flow @ mean[t + 1] - flow @ moment @ error
        expected_row = np.zeros(3)
        expected_row[active] = np.linalg.solve(square, right)
        assert_allclose(ours.loadings[i], expected_row, rtol=1e-8, atol=1e-12)
    assert_allclose(ours.initial_mean, mean[0], atol=1e-10)
    assert_allclose(ours.initial_cov, law.cov[0, :, 0], atol=1e-10)


def test_likelihood_rises():
    panel, method, parameters, _ = calendar_case()
    values = jnp.asarray(np.where(panel.observed, panel.values, 0.0))
    outcome = run_augmented_em(
        method, parameters, values, jnp.asarray(panel.observed), rtol=1e-12, max_steps=15
    )
    assert np.all(np.diff(outcome.path) > 0)


def test_patterns_that_cannot_be_meant_are_refused():
    loads = np.ones((len(MONTHLY), 2), bool)
    loads[3] = False
    with pytest.raises(ValueError, match=r"series \[3\] load on no factor"):
        augmented_em(len(MONTHLY), 2, 1, loads=loads)
    with pytest.raises(ValueError, match="1 blocks"):
        augmented_em(len(MONTHLY), 2, 1, blocks=(0,))
    method = augmented_em(5, 1, 1)
    _, _, parameters, _ = calendar_case()
    assert method.layout.num_states != parameters.initial_mean.shape[0]
    with pytest.raises(ValueError, match="initial_mean has"):
        augmented_space(parameters)
