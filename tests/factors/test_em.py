"""The EM step against a textbook loop, its monotonicity, its derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from factor_worlds import dense_answer, make_world, simulate
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.moments import ClosedForm


def parameters_of(world):
    return FactorParameters(*(jnp.asarray(a) for a in world))


@eqx.filter_jit
def one_step(step, parameters, data):
    return step(parameters, data)


@eqx.filter_jit
def logliks(step, parameters, data, num_steps):
    def body(parameters, _):
        new, loglik = step(parameters, data)
        return new, loglik

    return jax.lax.scan(body, parameters, None, length=num_steps)


def textbook_step(world, values, observed, presample=0):
    """One EM step by loops over cells on dense posterior moments (diagonal errors, no intercept
    update, divisor: number of observations)."""
    dense = dense_answer(world, values, observed, presample=presample)
    num_times, num_series = values.shape
    num_lags, num_factors = len(world.transition), world.loadings.shape[1]
    periods = len(dense.means)

    def second(t, lag=0):
        return dense.lag_cov(t, lag) + np.outer(dense.means[t], dense.means[t - lag])

    loadings, variances = np.zeros_like(world.loadings), np.zeros(num_series)
    for i in range(num_series):
        times = [t for t in range(num_times) if observed[t, i]]
        x = {t: values[t, i] - world.intercept[i] for t in times}
        moments = sum(second(t + presample) for t in times)
        cross = sum(x[t] * dense.means[t + presample] for t in times)
        w = loadings[i] = np.linalg.solve(moments, cross)
        total = sum(
            x[t] ** 2 - 2 * x[t] * w @ dense.means[t + presample] + w @ second(t + presample) @ w
            for t in times
        )
        variances[i] = total / len(times)
    size = num_lags * num_factors
    regressors, cross = np.zeros((size, size)), np.zeros((num_factors, size))
    current = np.zeros((num_factors, num_factors))
    block = lambda i: slice(i * num_factors, (i + 1) * num_factors)  # noqa: E731
    for t in range(num_lags, periods):
        current += second(t)
        for i in range(num_lags):
            cross[:, block(i)] += second(t, i + 1)
            for j in range(num_lags):
                early, late = max(i, j), min(i, j)
                moment = second(t - 1 - late, early - late)
                regressors[block(i), block(j)] += moment if i <= j else moment.T
    coefficients = np.linalg.solve(regressors.T, cross.T).T
    innovation = (current - coefficients @ cross.T) / (periods - num_lags)
    transition = coefficients.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)
    return loadings, variances, transition, innovation


@pytest.mark.parametrize("num_lags", [1, 2])
@pytest.mark.parametrize("initial", ["stationary", "estimated"])
def test_step_equals_textbook_loops(num_lags, initial):
    world = make_world(5, 2, num_lags)
    values, observed, _ = simulate(world, 12, missing=0.3)
    presample = num_lags if initial == "estimated" else 0
    step = EMStep(ClosedForm(), jnp.asarray(0.0), initial=initial, presample=presample)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    new, loglik = one_step(step, parameters_of(world), data)
    expected = textbook_step(world, values, observed, presample)
    answers = (new.loadings, new.idiosyncratic_cov, new.transition, new.innovation_cov)
    for answer, value in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, value, atol=1e-10)
    dense = dense_answer(world, values, observed, presample=presample)
    np.testing.assert_allclose(loglik, dense.loglik, rtol=1e-9)
    if initial == "estimated":
        first = num_lags * 2
        np.testing.assert_allclose(new.initial_mean, dense.means.ravel()[:first], atol=1e-10)
        np.testing.assert_allclose(new.initial_cov, dense.cov[:first, :first], atol=1e-10)


def full_missing_step(world, values, observed):
    """Exact EM for a full covariance: moments of (x_t, f_t) given the data, from dense algebra."""
    dense = dense_answer(world, values, observed)
    num_times, num_series = values.shape
    sum_xz = np.zeros_like(world.loadings)
    sum_xx = np.zeros((num_series, num_series))
    sum_zz = np.zeros((world.loadings.shape[1],) * 2)
    for t in range(num_times):
        seen, gone = np.flatnonzero(observed[t]), np.flatnonzero(~observed[t])
        x = values[t] - world.intercept
        cov, w = world.idiosyncratic_cov, world.loadings
        gain = cov[np.ix_(gone, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
        constant, slope, spread = np.zeros(num_series), np.zeros_like(w), np.zeros_like(cov)
        constant[seen], constant[gone] = x[seen], gain @ x[seen]
        slope[gone] = w[gone] - gain @ w[seen]
        spread[np.ix_(gone, gone)] = cov[np.ix_(gone, gone)] - gain @ cov[np.ix_(seen, gone)]
        f, var = dense.means[t], dense.lag_cov(t, 0)
        second = var + np.outer(f, f)
        mean = constant + slope @ f
        sum_xz += np.outer(constant, f) + slope @ second
        sum_xx += np.outer(mean, mean) + slope @ var @ slope.T + spread
        sum_zz += second
    loadings = np.linalg.solve(sum_zz, sum_xz.T).T
    return loadings, (sum_xx - loadings @ sum_xz.T) / num_times


def test_full_covariance_step_with_missing_cells():
    world = make_world(4, 2, 1, full=True)
    values, observed, _ = simulate(world, 10, missing=0.3)
    step = EMStep(ClosedForm(), jnp.asarray(0.0), idiosyncratic="full")
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    new, _ = one_step(step, parameters_of(world), data)
    loadings, cov = full_missing_step(world, values, observed)
    np.testing.assert_allclose(new.loadings, loadings, atol=1e-10)
    np.testing.assert_allclose(new.idiosyncratic_cov, cov, atol=1e-10)


def test_nothing_missing_equals_unmasked_for_a_full_covariance():
    world = make_world(4, 2, 1, full=True)
    values, observed, _ = simulate(world, 10)
    step = EMStep(ClosedForm(), jnp.asarray(1e-8), idiosyncratic="full")
    answers = []
    for complete in (True, False):
        data = PanelData(jnp.asarray(values), jnp.asarray(observed, float), complete=complete)
        answers.append(one_step(step, parameters_of(world), data))
    for a, b in zip(jax.tree.leaves(answers[0]), jax.tree.leaves(answers[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


EXACT = {
    "diagonal": dict(),
    "isotropic": dict(idiosyncratic="isotropic"),
    "full": dict(idiosyncratic="full"),
    "intercept": dict(estimate_intercept=True),
    "missing as latent": dict(missing_as_latent=True),
}


@pytest.mark.parametrize("kind", EXACT)
def test_exact_em_is_monotone(kind):
    world = make_world(6, 2, 1, full=kind == "full", seed=5)
    values, observed, _ = simulate(world, 40, missing=0.25)
    step = EMStep(ClosedForm(), jnp.asarray(0.0), initial="estimated", presample=1, **EXACT[kind])
    start = parameters_of(make_world(6, 2, 1, seed=9))
    cov = jnp.diag(start.variances) if kind == "full" else start.variances
    if kind == "isotropic":
        cov = jnp.ones_like(cov)
    start = eqx.tree_at(lambda p: p.idiosyncratic_cov, start, cov)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    _, path = logliks(step, start, data, 30)
    assert np.all(np.diff(path) > -1e-9 * abs(path[-1]))
    assert path[-1] > path[0] + 1.0


def test_stationary_start_is_nearly_monotone_and_converges():
    """Not an exact EM: the path may dip, but by less than a millionth, and it settles."""
    world = make_world(6, 2, 2, seed=5)
    values, observed, _ = simulate(world, 40, missing=0.25)
    step = EMStep(ClosedForm(), jnp.asarray(0.0))
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    _, path = logliks(step, parameters_of(world), data, 200)
    assert np.diff(path).min() > -1e-6 * abs(path[-1])
    assert abs(path[-1] - path[-2]) < 1e-4


@pytest.fixture(scope="module")
def likelihood():
    world = make_world(5, 2, 2)
    values, observed, _ = simulate(world, 10, missing=0.3)
    step = EMStep(ClosedForm(), jnp.asarray(0.0))
    parameters = parameters_of(world)
    mask = jnp.asarray(observed, float)

    @jax.jit
    def loglik(parameters, values):
        return step.expect(parameters, PanelData(mask * values, mask)).loglik

    return loglik, parameters, jnp.asarray(values), observed


def test_derivative_of_the_likelihood(likelihood):
    loglik, parameters, values, _ = likelihood
    gradient = jax.jit(jax.grad(loglik))(parameters, values)
    rng = np.random.default_rng(0)
    for name in ("loadings", "intercept", "idiosyncratic_cov", "transition", "innovation_cov"):
        direction = rng.normal(size=getattr(parameters, name).shape)
        if name == "innovation_cov":
            direction = direction + direction.T
        step = 1e-5

        def moved(sign, name=name, direction=direction, step=step):
            value = getattr(parameters, name) + sign * step * direction
            return loglik(eqx.tree_at(lambda p: getattr(p, name), parameters, value), values)

        difference = (moved(1.0) - moved(-1.0)) / (2 * step)
        exact = jnp.sum(getattr(gradient, name) * direction)
        np.testing.assert_allclose(exact, difference, rtol=1e-6)


def test_no_derivative_with_respect_to_missing_cells(likelihood):
    loglik, parameters, values, observed = likelihood
    gradient = np.asarray(jax.jit(jax.grad(loglik, argnums=1))(parameters, values))
    assert np.all(gradient[~observed] == 0.0)
    assert np.all(gradient[observed] != 0.0)
