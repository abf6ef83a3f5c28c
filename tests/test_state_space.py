"""StateSpace: its verbs against the dense joint law, other software, and themselves."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfc.state_space import StateSpace, TimeVarying, stationary_law
from oracles import dense_state_space, every_time

NUM_TIMES, NUM_SERIES, NUM_STATES, HORIZON = 6, 3, 2, 3


def random_cov(rng, *shape):
    factor = rng.normal(size=(*shape, shape[-1]))
    return factor @ np.swapaxes(factor, -1, -2) / shape[-1] + 0.3 * np.eye(shape[-1])


def random_arrays(num_times, seed=0):
    """Arrays of a state space, all different at every time."""
    rng = np.random.default_rng(seed)
    return {
        "initial_mean": rng.normal(size=NUM_STATES),
        "initial_cov": random_cov(rng, NUM_STATES),
        "transition": 0.5 * rng.normal(size=(num_times, NUM_STATES, NUM_STATES)),
        "offset": rng.normal(size=(num_times, NUM_STATES)),
        "innovation_cov": random_cov(rng, num_times, NUM_STATES),
        "design": rng.normal(size=(num_times, NUM_SERIES, NUM_STATES)),
        "observation_offset": rng.normal(size=(num_times, NUM_SERIES)),
        "observation_cov": random_cov(rng, num_times, NUM_SERIES),
    }


def varying_space(arrays):
    start = ("initial_mean", "initial_cov")
    return StateSpace(**{k: v if k in start else TimeVarying(v) for k, v in arrays.items()})


def constant_arrays(seed=0):
    arrays = random_arrays(1, seed)
    return {k: v if k.startswith("initial") else v[0] for k, v in arrays.items()}


def repeated(arrays, num_times):
    return {
        k: v if k.startswith("initial") else every_time(v, num_times) for k, v in arrays.items()
    }


def random_data(seed=1, num_times=NUM_TIMES):
    rng = np.random.default_rng(seed)
    values = 2.0 * rng.normal(size=(num_times, NUM_SERIES))
    observed = rng.uniform(size=values.shape) < 0.7
    observed[2] = False
    values[~observed] = np.nan
    return jnp.asarray(values), jnp.asarray(observed)


@eqx.filter_jit
def smooth(space, values, observed, implementation="joint"):
    return space.smooth(values, observed, implementation=implementation)


@eqx.filter_jit
def log_prob(space, values, observed):
    return space.log_prob(values, observed)


SPACE = StateSpace(**constant_arrays())


def test_posterior_is_the_conditional_law():
    arrays = random_arrays(NUM_TIMES + 2)  # a longer time axis: row t uses entry t
    values, observed = random_data()
    posterior = smooth(varying_space(arrays), values, observed)
    cut = {k: v if k.startswith("initial") else v[:NUM_TIMES] for k, v in arrays.items()}
    dense = dense_state_space(**cut)
    law = dense.states_given(values, observed)
    times = np.arange(NUM_TIMES)
    close = {"rtol": 1e-10, "atol": 1e-10}
    assert_allclose(posterior.smoothed_means, law.mean, **close)
    assert_allclose(posterior.smoothed_covs, law.cov[times, :, times], **close)
    assert_allclose(posterior.smoothed_cross_covs, law.cov[times[1:], :, times[:-1]], **close)
    assert_allclose(posterior.loglik, dense.loglik(values, observed), **close)
    for t in times:
        past = np.asarray(observed) & (times < t)[:, None]
        past_law = dense.states_given(values, past)
        assert_allclose(posterior.predicted_means[t], past_law.mean[t], **close)
        assert_allclose(posterior.predicted_covs[t], past_law.cov[t, :, t], **close)
        now = np.asarray(observed) & (times <= t)[:, None]
        now_law = dense.states_given(values, now)
        assert_allclose(posterior.filtered_means[t], now_law.mean[t], **close)
        assert_allclose(posterior.filtered_covs[t], now_law.cov[t, :, t], **close)
        error = np.where(observed[t], values[t] - dense.values_given(values, past).mean[t], 0.0)
        assert_allclose(posterior.prediction_errors[t], error, **close)
        term = dense.loglik(values, now) - dense.loglik(values, past)
        assert_allclose(posterior.loglik_terms[t], term, **close)


def test_filter_and_log_prob_agree_with_smooth():
    values, observed = random_data()
    posterior = smooth(SPACE, values, observed)
    filtered = eqx.filter_jit(SPACE.filter)(values, observed)
    for name in filtered.__dataclass_fields__:
        assert_allclose(getattr(filtered, name), getattr(posterior, name), rtol=1e-13, err_msg=name)
    assert_allclose(log_prob(SPACE, values, observed), posterior.loglik, rtol=1e-13)


def test_implementations_agree_on_a_diagonal():
    arrays = constant_arrays()
    variances = np.diag(arrays["observation_cov"])
    as_matrix = StateSpace(**(arrays | {"observation_cov": np.diag(variances)}))
    as_vector = StateSpace(**(arrays | {"observation_cov": variances}))
    values, observed = random_data()
    expected = smooth(as_matrix, values, observed)
    for implementation in ("joint", "univariate", "collapsed"):
        posterior = smooth(as_vector, values, observed, implementation)
        for name in posterior.__dataclass_fields__:
            ours, theirs = getattr(posterior, name), getattr(expected, name)
            assert_allclose(
                ours, theirs, rtol=1e-10, atol=1e-10, err_msg=f"{implementation} {name}"
            )


def test_loglik_and_smoother_equal_statsmodels():
    mlemodel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel")
    values, observed = random_data(num_times=30)
    arrays = random_arrays(30)
    model = mlemodel.MLEModel(
        np.where(observed, values, np.nan), k_states=NUM_STATES, k_posdef=NUM_STATES
    )
    names = {
        "design": "design",
        "obs_intercept": "observation_offset",
        "obs_cov": "observation_cov",
        "transition": "transition",
        "state_intercept": "offset",
        "state_cov": "innovation_cov",
    }
    for theirs, ours in names.items():
        model[theirs] = np.ascontiguousarray(np.moveaxis(arrays[ours], 0, -1))
    model["selection"] = np.eye(NUM_STATES)
    model.initialize_known(arrays["initial_mean"], arrays["initial_cov"])
    theirs = model.ssm.smooth()
    ours = smooth(varying_space(arrays), values, observed)
    assert_allclose(ours.loglik, theirs.llf, rtol=1e-8)
    assert_allclose(ours.smoothed_means, theirs.smoothed_state.T, rtol=1e-8, atol=1e-10)
    covs = np.moveaxis(theirs.smoothed_state_cov, -1, 0)
    assert_allclose(ours.smoothed_covs, covs, rtol=1e-8, atol=1e-10)


def test_gradient_of_log_prob_against_finite_differences():
    """Central differences along one random direction over all fields, with gaps in the data."""
    values, observed = random_data()
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), SPACE)
    direction = eqx.tree_at(
        lambda space: (space.initial_cov, space.innovation_cov, space.observation_cov),
        direction,
        replace_fn=lambda d: d + d.T,
    )

    def along(step):
        return log_prob(jax.tree.map(lambda a, d: a + step * d, SPACE, direction), values, observed)

    slope = jax.jit(jax.grad(along))(0.0)
    step = 1e-5
    assert_allclose(slope, (along(step) - along(-step)) / (2 * step), rtol=1e-7)
    gradient = jax.jit(jax.grad(lambda v: log_prob(SPACE, v, observed)))(values)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[~np.asarray(observed)] == 0.0)


def test_no_look_ahead_by_derivative():
    """Filtered and predicted moments do not move with later data; the smoothed ones do."""
    values, observed = random_data()
    jacobian = jax.jit(jax.jacobian(lambda v: SPACE.smooth(v, observed)))(values)
    times = np.arange(NUM_TIMES)
    later = times[:, None] < times
    same_or_later = times[:, None] <= times

    def moves(name, future):  # derivative of row t with respect to row s of the data
        array = np.asarray(getattr(jacobian, name))
        size = np.abs(array).reshape(NUM_TIMES, -1, NUM_TIMES, NUM_SERIES).sum(axis=(1, 3))
        return size[future]

    assert np.all(moves("filtered_means", later) == 0.0)
    assert np.all(moves("loglik_terms", later) == 0.0)
    assert np.all(moves("prediction_errors", later) == 0.0)
    assert np.all(moves("predicted_means", same_or_later) == 0.0)
    assert np.any(moves("smoothed_means", later) != 0.0)


def test_batch_equals_loop():
    panels = [random_data(seed) for seed in (1, 2, 3)]
    values, observed = (jnp.stack(x) for x in zip(*panels, strict=True))
    spaces = [StateSpace(**constant_arrays(seed)) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *spaces)
    batch = eqx.filter_jit(eqx.filter_vmap(lambda s, v, o: s.smooth(v, o)))(
        stacked, values, observed
    )
    for i, (space, panel) in enumerate(zip(spaces, panels, strict=True)):
        single = smooth(space, *panel)
        for name in single.__dataclass_fields__:
            ours, theirs = getattr(batch, name)[i], getattr(single, name)
            assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg=name)


def test_mask_equals_truncation():
    """Unobserved rows at the end change nothing before them and add nothing to the likelihood."""
    values, _ = random_data()
    values = jnp.nan_to_num(values)
    stop = 4
    masked = smooth(
        SPACE, values, jnp.broadcast_to(jnp.arange(NUM_TIMES)[:, None] < stop, values.shape)
    )
    short = smooth(SPACE, values[:stop], None)
    assert_allclose(masked.loglik, short.loglik, rtol=1e-12)
    assert_allclose(masked.smoothed_means[:stop], short.smoothed_means, rtol=1e-11)
    assert_allclose(masked.smoothed_covs[:stop], short.smoothed_covs, rtol=1e-11, atol=1e-14)
    assert np.all(np.asarray(masked.loglik_terms[stop:]) == 0.0)


@pytest.mark.parametrize("varying", [True, False], ids=["varying", "constant"])
def test_forecast_is_the_dense_law(varying):
    total = NUM_TIMES + HORIZON
    arrays = random_arrays(total) if varying else constant_arrays()
    space = varying_space(arrays) if varying else StateSpace(**arrays)
    dense = dense_state_space(**(arrays if varying else repeated(arrays, total)))
    values, observed = random_data()
    forecast = eqx.filter_jit(space.forecast)(values, observed, HORIZON)
    padding = ((0, HORIZON), (0, 0))
    law = dense.values_given(np.pad(values, padding), np.pad(observed, padding))
    assert_allclose(forecast.mean, law.mean[NUM_TIMES:], rtol=1e-10)
    future = law.cov[NUM_TIMES:, :, NUM_TIMES:]
    assert_allclose(forecast.cov, future, rtol=1e-10, atol=1e-10)
    matrix = np.asarray(forecast.cov).reshape(HORIZON * NUM_SERIES, -1)
    assert np.array_equal(matrix, matrix.T)


def test_simulation_has_the_joint_law():
    """Means and covariances of 4000 paths within 5 standard errors, at fixed key."""
    num_steps, num_paths = 3, 4000
    arrays = random_arrays(num_steps)
    dense = dense_state_space(**arrays)
    space = varying_space(arrays)
    keys = jax.random.split(jax.random.key(11), num_paths)
    states, values = jax.jit(jax.vmap(lambda key: space.simulate(num_steps, key=key)))(keys)
    flat = np.concatenate([x.reshape(num_paths, -1) for x in (states, values)], axis=1)
    variances = np.diag(dense.cov)
    mean_errors = (flat.mean(axis=0) - dense.mean) / np.sqrt(variances / num_paths)
    assert np.abs(mean_errors).max() < 5.0
    cov_stds = np.sqrt((np.outer(variances, variances) + dense.cov**2) / num_paths)
    assert np.abs((np.cov(flat.T) - dense.cov) / cov_stds).max() < 5.0


def test_posterior_draws_have_the_smoothed_moments():
    """4000 draws within 5 standard errors, at fixed key; draws repeat for the same key."""
    values, observed = random_data()
    num_draws = 4000
    sample = eqx.filter_jit(
        lambda key: SPACE.sample_posterior(values, observed, num_draws, key=key)
    )
    draws = sample(jax.random.key(3))
    assert draws.shape == (num_draws, NUM_TIMES, NUM_STATES)
    posterior = smooth(SPACE, values, observed)
    variances = np.diagonal(posterior.smoothed_covs, axis1=1, axis2=2)
    mean_errors = (draws.mean(axis=0) - posterior.smoothed_means) / np.sqrt(variances / num_draws)
    assert np.abs(mean_errors).max() < 5.0
    variance_errors = (draws.var(axis=0) / variances - 1.0) / np.sqrt(2.0 / num_draws)
    assert np.abs(variance_errors).max() < 5.0
    assert np.array_equal(draws, sample(jax.random.key(3)))


def test_float32_stays_float32_and_close():
    """Within 2e-4 posterior standard deviations, and 1e-4 of the covariances' scale."""
    values, observed = random_data()
    exact = smooth(SPACE, values, observed)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), SPACE)
    rough = smooth(single, values.astype(jnp.float32), observed)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough))
    stds = np.sqrt(np.diagonal(exact.smoothed_covs, axis1=1, axis2=2))
    assert np.abs((rough.smoothed_means - exact.smoothed_means) / stds).max() < 2e-4
    scale = stds[:, :, None] * stds[:, None, :]
    assert np.abs((rough.smoothed_covs - exact.smoothed_covs) / scale).max() < 1e-4
    assert_allclose(rough.loglik, exact.loglik, rtol=1e-5)


def test_float32_with_a_persistent_state_and_precise_data():
    """AR 0.999, noise variance 1e-4: covariances of 500 meet 1e-4, a ratio beyond float32's eps.

    Means within 0.02 posterior standard deviations, variances within 1 %.
    """
    num_times = 100
    arrays = constant_arrays() | {
        "initial_cov": np.eye(NUM_STATES) / (1 - 0.999**2),
        "transition": 0.999 * np.eye(NUM_STATES),
        "innovation_cov": np.eye(NUM_STATES),
        "observation_cov": np.full(NUM_SERIES, 1e-4),
    }
    space = StateSpace(**arrays)
    _, values = space.simulate(num_times, key=jax.random.key(2))
    _, observed = random_data(num_times=num_times)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), space)
    exact = smooth(space, values, observed, "collapsed")
    variances = np.diagonal(exact.smoothed_covs, axis1=1, axis2=2)
    for implementation in ("joint", "collapsed"):
        rough = smooth(single, values.astype(jnp.float32), observed, implementation)
        errors = np.asarray(rough.smoothed_means - exact.smoothed_means) / np.sqrt(variances)
        ratios = np.diagonal(rough.smoothed_covs, axis1=1, axis2=2) / variances
        assert np.abs(errors).max() < 0.02
        assert np.abs(ratios - 1.0).max() < 0.01


def test_gradients_of_the_implementations_agree():
    """With rows of fewer observed series than states, and none: no branch leaves a NaN."""
    arrays = constant_arrays()
    arrays["observation_cov"] = np.diag(arrays["observation_cov"])
    space = StateSpace(**arrays)
    values, observed = random_data()
    observed = observed.at[3].set(jnp.array([False, True, False]))

    def gradient(implementation):
        def loss(space):
            return space.log_prob(values, observed, implementation=implementation)

        return jax.jit(jax.grad(loss))(space)

    expected = gradient("joint")
    for implementation in ("univariate", "collapsed"):
        ours = gradient(implementation)
        for name in space.__dataclass_fields__:
            pair = [getattr(gradients, name) for gradients in (ours, expected)]
            if name in ("initial_cov", "innovation_cov"):  # defined on symmetric matrices only
                pair = [matrix + matrix.T for matrix in pair]
            assert_allclose(*pair, rtol=1e-9, atol=1e-9, err_msg=f"{implementation} {name}")


def test_one_trace_for_repeated_calls():
    num_traces = 0

    @eqx.filter_jit
    def run(space, values, observed):
        nonlocal num_traces
        num_traces += 1
        return space.log_prob(values, observed)

    for seed in (1, 2, 3):
        run(StateSpace(**constant_arrays(seed)), *random_data(seed))
    assert num_traces == 1


@pytest.mark.parametrize("implementation", ["joint", "univariate", "collapsed"])
def test_lowers_for_cuda(implementation):
    variances = np.diag(constant_arrays()["observation_cov"])
    arrays = constant_arrays() | {"observation_cov": variances}
    values, observed = random_data()

    def verbs(arrays, values, observed, key):
        space = StateSpace(**arrays)
        how = {"implementation": implementation}
        return (
            space.filter(values, observed, **how).loglik_terms,
            space.smooth(values, observed, **how).smoothed_cross_covs,
            jax.grad(lambda v: space.log_prob(v, observed, **how))(values),
            space.sample_posterior(values, observed, 2, key=key, **how),
            space.forecast(values, observed, HORIZON, **how).cov,
            space.simulate(HORIZON, key=key),
        )

    arrays = jax.tree.map(jnp.asarray, arrays)
    args = (arrays, values, observed, jax.random.key(0))
    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(*args)
    assert exported.platforms == ("cuda",)


def test_stationary_law_is_unchanged_by_a_step():
    arrays = constant_arrays()
    dynamics = (jnp.asarray(arrays[name]) for name in ("transition", "offset", "innovation_cov"))
    mean, cov = stationary_law(*dynamics)
    started = arrays | {"initial_mean": mean, "initial_cov": cov}
    dense = dense_state_space(**repeated({k: np.asarray(v) for k, v in started.items()}, 2))
    assert_allclose(dense.mean[NUM_STATES : 2 * NUM_STATES], mean, rtol=1e-12)
    later = slice(NUM_STATES, 2 * NUM_STATES)
    assert_allclose(dense.cov[later, later], cov, rtol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"initial_mean": np.zeros((2, 1))}, r"initial_mean must have shape \(states,\)"),
        ({"transition": np.eye(3)}, r"transition must have shape \(2, 2\), got \(3, 3\)"),
        ({"design": np.zeros((7, 3, 2))}, r"pass design=TimeVarying"),
        (
            {"design": TimeVarying(np.zeros((3, 2)))},
            r"design must have shape \(time,\) \+ \(3, 2\)",
        ),
        (
            {"observation_cov": np.ones(2)},
            r"observation_cov must .* \(3, 3\) or \(3,\), got \(2,\)",
        ),
        ({"observation_offset": np.zeros(())}, r"observation_offset must have shape \(series,\)"),
        ({"offset": np.zeros(2, int)}, "offset is int64"),
    ],
)
def test_bad_fields_raise(change, message):
    with pytest.raises(ValueError, match=message):
        StateSpace(**(constant_arrays() | change))


def test_bad_data_and_short_time_axes_raise():
    values, observed = random_data()
    with pytest.raises(ValueError, match=r"values must have shape \(time, 3\)"):
        SPACE.log_prob(values[:, :2], observed[:, :2])
    with pytest.raises(ValueError, match="values are float32"):
        SPACE.log_prob(values.astype(jnp.float32), observed)
    short = varying_space(random_arrays(NUM_TIMES + 1))
    with pytest.raises(ValueError, match=r"transition has 7 time entries.*need 8"):
        short.log_prob(jnp.zeros((8, NUM_SERIES)), None)
    with pytest.raises(ValueError, match="horizon of 3 need 9"):
        short.forecast(values, observed, HORIZON)
    with pytest.raises(ValueError, match="simulating 9 rows need 9"):
        short.simulate(9, key=jax.random.key(0))
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        SPACE.forecast(values, observed, 0)
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        SPACE.sample_posterior(values, observed, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="implementation must be one of"):
        SPACE.smooth(values, observed, implementation="fast")
