"""Moments of the factors: closed form = Kalman = dense Gaussian conditioning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from factor_worlds import dense_answer, make_world, simulate
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.moments import ClosedForm, expected_factor_loglik, sample_factors
from jaxfc_kernels.collapse import collapse_diagonal

ENGINES = [ClosedForm(), ClosedForm(implementation="cholesky"), KalmanMoments()]


def parameters_of(world, dtype=jnp.float64):
    return FactorParameters(*(jnp.asarray(a, dtype) for a in world))


def step_with(moments, *, full=False, presample=0):
    kind = "full" if full else "diagonal"
    return EMStep(moments, jnp.asarray(1e-8), idiosyncratic=kind, presample=presample)


@eqx.filter_jit
def expect(step, parameters, data):
    return step.expect(parameters, data)


def largest_error(expectation, dense, num_lags):
    posterior = expectation.posterior
    errors = [np.abs(posterior.means - dense.means).max()]
    for lag in range(num_lags + 1):
        for t in range(lag, len(dense.means)):
            errors.append(np.abs(posterior.lag_covs[lag, t] - dense.lag_cov(t, lag)).max())
    return max(errors)


@pytest.mark.parametrize("num_lags", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_engines_equal_dense_conditioning(num_lags, missing):
    world = make_world(5, 2, num_lags, seed=num_lags)
    values, observed, _ = simulate(world, 13, missing=missing)
    if missing:
        observed[3] = False  # a row without any observation
        values = np.where(observed, values, 0.0)
    dense = dense_answer(world, values, observed)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    for engine in ENGINES:
        expectation = expect(step_with(engine), parameters_of(world), data)
        assert largest_error(expectation, dense, num_lags) < 1e-10
        assert abs(expectation.loglik / dense.loglik - 1) < 1e-9


@pytest.mark.parametrize("presample", [1, 2, 3])
def test_free_initial_law_before_the_panel(presample):
    world = make_world(4, 2, 2, seed=7)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    world = world._replace(initial_mean=rng.normal(size=4), initial_cov=root @ root.T + np.eye(4))
    values, observed, _ = simulate(world, 9, missing=0.3)
    dense = dense_answer(world, values, observed, presample=presample)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    for engine in (ClosedForm(), KalmanMoments()):
        expectation = expect(step_with(engine, presample=presample), parameters_of(world), data)
        assert largest_error(expectation, dense, 2) < 1e-10
        assert abs(expectation.loglik / dense.loglik - 1) < 1e-9


@pytest.mark.parametrize("complete", [True, False])
def test_full_idiosyncratic_covariance(complete):
    world = make_world(5, 2, 2, full=True)
    values, observed, _ = simulate(world, 11, missing=0.0 if complete else 0.3)
    dense = dense_answer(world, values, observed)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float), complete=complete)
    expectation = expect(step_with(ClosedForm(), full=True), parameters_of(world), data)
    assert largest_error(expectation, dense, 2) < 1e-10
    assert abs(expectation.loglik / dense.loglik - 1) < 1e-9


@pytest.mark.parametrize("num_lags", [0, 1, 2, 3, 4])
def test_long_panel(num_lags):
    """400 rows, gaps, and a number of rows that is not a multiple of every p."""
    world = make_world(2, 1, num_lags, seed=3)
    values, observed, _ = simulate(world, 400, missing=0.2)
    dense = dense_answer(world, values, observed)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    for engine in (ClosedForm(), KalmanMoments()):
        expectation = expect(step_with(engine), parameters_of(world), data)
        assert largest_error(expectation, dense, num_lags) < 1e-10
        assert abs(expectation.loglik / dense.loglik - 1) < 1e-9


def test_entropy_identity():
    """ln p(x) = E[ln p(x, F) | x] + entropy of F | x, with the dense posterior's determinant."""
    world = make_world(5, 2, 2)
    values, observed, _ = simulate(world, 12, missing=0.2)
    dense = dense_answer(world, values, observed)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    step = EMStep(ClosedForm(), jnp.asarray(1e-8), criterion="expected_loglik")
    expectation = expect(step, parameters_of(world), data)
    size = dense.means.size
    entropy = 0.5 * (size * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(dense.cov)[1])
    np.testing.assert_allclose(expectation.criterion + entropy, dense.loglik, rtol=1e-11)


def test_expected_loglik_shifts_under_rotation():
    """E[ln p(F)] is not invariant: F -> R F shifts it by -T ln |det R| (factors.md section 7)."""
    world = make_world(5, 2, 1)
    values, observed, _ = simulate(world, 10)
    matrix = np.array([[2.0, 0.5], [0.0, 1.5]])
    inverse = np.linalg.inv(matrix)
    rotated = world._replace(
        loadings=world.loadings @ inverse,
        transition=matrix @ world.transition @ inverse,
        innovation_cov=matrix @ world.innovation_cov @ matrix.T,
        initial_cov=matrix @ world.initial_cov @ matrix.T,
    )
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    answers = [expect(step_with(ClosedForm()), parameters_of(w), data) for w in (world, rotated)]
    np.testing.assert_allclose(answers[0].loglik, answers[1].loglik, rtol=1e-12)
    logs = [
        expected_factor_loglik(parameters_of(w), a.posterior)
        for w, a in zip((world, rotated), answers, strict=True)
    ]
    shift = -10 * np.log(np.linalg.det(matrix))
    np.testing.assert_allclose(logs[1] - logs[0], shift, rtol=1e-10)


@pytest.mark.parametrize("num_lags", [0, 2])
def test_draws_have_the_posterior_law(num_lags):
    world = make_world(5, 2, num_lags)
    values, observed, _ = simulate(world, 6, missing=0.4)
    dense = dense_answer(world, values, observed)
    mask = jnp.asarray(observed, float)
    parameters = parameters_of(world)
    centred = jnp.asarray(values) - mask * parameters.intercept
    collapsed = collapse_diagonal(centred, mask, parameters.loadings, parameters.idiosyncratic_cov)
    num_draws = 20_000
    draws = sample_factors(parameters, collapsed, num_draws, key=jax.random.key(0))
    draws = np.asarray(draws).reshape(num_draws, -1)
    variances = np.diag(dense.cov)
    # 5 standard errors: of a mean, s / sqrt(n); of a covariance, sqrt((s_i s_j)^2 2 / n) at most.
    error = np.abs(draws.mean(0) - dense.means.ravel()) / np.sqrt(variances / num_draws)
    assert error.max() < 5
    error = np.abs(np.cov(draws.T) - dense.cov) / np.sqrt(np.outer(variances, variances))
    assert error.max() < 5 * np.sqrt(2 / num_draws)


# Largest error of E[F | x] in posterior standard deviations, and relative error of Cov[F_t | x]:
# the kinds of state-space.md's float32 table. Options, innovation variance (None: such that the
# factors have unit variance, as an estimation keeps them), scale of the idiosyncratic variances,
# tolerances: 1e-4 and 1e-5, one or two digits less in the corners.
FLOAT32_CASES = {
    "eigenvalues below 0.75": ((0.25, 0.75), None, 1.0, 1e-4, 1e-5),
    "AR 0.99": ((0.99, 0.99), None, 1.0, 1e-4, 1e-5),
    "AR 0.999, small errors": ((0.999, 0.999), None, 1e-3, 1e-3, 1e-4),
    "AR 0.99, noise 1e-2": ((0.99, 0.99), 1e-2, 1.0, 1e-4, 1e-5),
    "AR 0.99, noise 1e-4": ((0.99, 0.99), 1e-4, 1.0, 1e-3, 1e-4),
    "AR 0.99, noise 1e-6": ((0.99, 0.99), 1e-6, 1.0, 1e-3, 1e-3),
}


@pytest.mark.parametrize("case", FLOAT32_CASES)
def test_float32_keeps_its_digits(case):
    roots, noise, error_scale, mean_tolerance, cov_tolerance = FLOAT32_CASES[case]
    world = make_world(30, 3, 2, roots=roots)
    noise = noise or 1.0 / np.diag(world.initial_cov).mean()
    world = world._replace(
        intercept=np.zeros(30),
        idiosyncratic_cov=error_scale * world.idiosyncratic_cov,
        innovation_cov=noise * world.innovation_cov,
        initial_cov=noise * world.initial_cov,
    )
    values, observed, _ = simulate(world, 100, missing=0.2)
    answers = {}
    for dtype in (jnp.float32, jnp.float64):
        data = PanelData(jnp.asarray(values, dtype), jnp.asarray(observed, dtype))
        step = EMStep(ClosedForm(), jnp.asarray(1e-8, dtype))
        answers[dtype] = expect(step, parameters_of(world, dtype), data)
    low, high = answers[jnp.float32], answers[jnp.float64]
    assert low.posterior.means.dtype == jnp.float32
    std = np.sqrt(np.einsum("tii->ti", high.posterior.covs))
    assert (np.abs(low.posterior.means - high.posterior.means) / std).max() < mean_tolerance
    scale = np.abs(high.posterior.covs).max(axis=(1, 2), keepdims=True)
    assert (np.abs(low.posterior.covs - high.posterior.covs) / scale).max() < cov_tolerance
    assert abs(low.loglik / high.loglik - 1) < 1e-4


def test_kalman_refuses_a_start_inside_the_data():
    world = make_world(4, 1, 4)
    values, observed, _ = simulate(world, 9)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    with pytest.raises(ValueError, match="presample = 0 or at least 3"):
        step_with(KalmanMoments(), presample=2).expect(parameters_of(world), data)


def test_unknown_implementation_is_refused():
    world = make_world(4, 2, 1)
    values, observed, _ = simulate(world, 9)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    with pytest.raises(ValueError, match="gauss_jordan"):
        step_with(ClosedForm(implementation="lu")).expect(parameters_of(world), data)
