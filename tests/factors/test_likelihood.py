"""The likelihood and its score by Fisher's identity: against dense algebra, plain automatic
differentiation of the E-step and finite differences."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from coupled_worlds import small_world
from factor_worlds import dense_answer, make_world, simulate, stationary_law
from jaxfc.calendar import aggregation_pattern, aggregation_rows
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import make_coupling, plan_flows
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.likelihood import loglik, with_initial_law
from jaxfc.factors.moments import ClosedForm

# One lag from the stationary law is also the matter of the errors that remember, below.
CASES = [
    (0, "stationary"),
    pytest.param(1, "stationary", marks=pytest.mark.slow),
    (2, "stationary"),
    (1, "estimated"),
    pytest.param(2, "estimated", marks=pytest.mark.slow),
]


def case(num_lags, initial):
    """Parameters, data, and the world; the initial law is off the stationary one if it is free."""
    world = make_world(5, 2, num_lags)
    values, observed, _ = simulate(world, 13, missing=0.25)
    observed[7] = False
    if initial == "estimated":
        mean = 0.3 * np.arange(1.0, 1.0 + len(world.initial_mean))
        world = world._replace(initial_mean=mean, initial_cov=0.7 * world.initial_cov)
    values = np.where(observed, values, 0.0)
    parameters = FactorParameters(*(jnp.asarray(a) for a in world))
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    return world, parameters, data


def plain_loglik(parameters, data, initial):
    """The E-step's likelihood, to be differentiated through the smoother."""
    presample = parameters.num_lags if initial == "estimated" else 0
    step = EMStep(ClosedForm(), jnp.asarray(0.0), initial=initial, presample=presample)
    values = jnp.where(data.observed > 0, data.values, 0.0)
    data = dataclasses.replace(data, values=values)
    return step.expect(with_initial_law(parameters, initial), data).loglik


@eqx.filter_jit
def both_scores(parameters, data, initial):
    def ours(parameters, values):
        return loglik(parameters, dataclasses.replace(data, values=values), initial=initial)

    def plain(parameters, values):
        return plain_loglik(parameters, dataclasses.replace(data, values=values), initial)

    return [jax.value_and_grad(f, argnums=(0, 1))(parameters, data.values) for f in (ours, plain)]


@pytest.mark.parametrize(("num_lags", "initial"), CASES)
def test_score_equals_plain_differentiation(num_lags, initial):
    world, parameters, data = case(num_lags, initial)
    (value, score), (_, plain) = both_scores(parameters, data, initial)
    presample = num_lags if initial == "estimated" else 0
    observed = np.asarray(data.observed) > 0
    dense = dense_answer(world, np.asarray(data.values), observed, presample=presample)
    assert_allclose(value, dense.loglik, rtol=1e-12)
    for name in ("loadings", "intercept", "idiosyncratic_cov", "transition", "innovation_cov"):
        ours, theirs = getattr(score[0], name), getattr(plain[0], name)
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * np.abs(value), err_msg=name)
    assert_allclose(score[0].initial_mean, plain[0].initial_mean, rtol=1e-10, atol=1e-11)
    assert_allclose(score[0].initial_cov, plain[0].initial_cov, rtol=1e-10, atol=1e-11)
    assert_allclose(score[1], plain[1], rtol=1e-10, atol=1e-10)
    assert np.all(np.asarray(score[1])[~observed] == 0.0)
    if initial == "stationary":
        assert np.all(np.asarray(score[0].initial_cov) == 0.0)
        assert num_lags == 0 or np.abs(score[0].transition).max() > 0.1


def vector_of(parameters):
    """Free vector (Q by its lower triangle) and the way back."""
    size = parameters.num_factors
    lower = np.tril_indices(size)
    given = parameters
    parts = (given.loadings, given.intercept, given.idiosyncratic_cov, given.transition)
    vector, back = ravel_pytree((*parts, given.innovation_cov[lower]))

    def unravel(vector):
        loadings, intercept, variances, transition, triangle = back(vector)
        square = jnp.zeros((size, size)).at[lower].set(triangle)
        return dataclasses.replace(
            parameters,
            loadings=loadings,
            intercept=intercept,
            idiosyncratic_cov=variances,
            transition=transition,
            innovation_cov=square + jnp.tril(square, -1).T,
        )

    return vector, unravel


@pytest.mark.parametrize(("num_lags", "initial"), [(2, "stationary"), (1, "estimated")])
def test_hessian_is_symmetric_and_equals_differences_of_the_score(num_lags, initial):
    world, parameters, data = case(num_lags, initial)
    vector, unravel = vector_of(parameters)

    def value(vector):
        return loglik(unravel(vector), data, initial=initial)

    score = jax.jit(jax.grad(value))
    hessian = np.asarray(jax.jit(jax.jacfwd(jax.grad(value)))(vector))
    size = np.abs(hessian).max()
    assert_allclose(hessian, hessian.T, atol=1e-12 * size)
    steps = 1e-5 * np.eye(len(vector))
    differences = np.stack([(score(vector + s) - score(vector - s)) / 2e-5 for s in steps])
    assert_allclose(hessian, differences, atol=1e-8 * size)

    # The score itself against differences of the dense Gaussian likelihood.
    def dense(vector):
        changed = unravel(jnp.asarray(vector))
        law = (world.initial_mean, world.initial_cov)
        if initial == "stationary":
            cov = stationary_law(np.asarray(changed.transition), np.asarray(changed.innovation_cov))
            law = (world.initial_mean, cov)
        fields = ("loadings", "intercept", "idiosyncratic_cov", "transition", "innovation_cov")
        arrays = {name: np.asarray(getattr(changed, name)) for name in fields}
        observed = np.asarray(data.observed) > 0
        presample = num_lags if initial == "estimated" else 0
        changed = world._replace(**arrays, initial_mean=law[0], initial_cov=law[1])
        return dense_answer(changed, np.asarray(data.values), observed, presample=presample).loglik

    slopes = [(dense(vector + s) - dense(vector - s)) / 2e-5 for s in steps]
    found = score(vector)
    assert_allclose(found, slopes, atol=1e-7 * np.abs(found).max())


def test_a_batch_under_jit_and_the_kalman_engine_agree():
    _, parameters, data = case(2, "stationary")
    scales = jnp.asarray([0.9, 1.1])
    batch = jax.vmap(lambda s: dataclasses.replace(parameters, loadings=s * parameters.loadings))(
        scales
    )

    @eqx.filter_jit
    def product(parameters, moments=None):
        """One Hessian-vector product."""
        gradient = jax.grad(lambda p: loglik(p, data, moments=moments))
        return jax.jvp(gradient, (parameters,), (parameters,))[1].loadings

    together = eqx.filter_jit(eqx.filter_vmap(product))(batch)
    for index in range(2):
        single = jax.tree.map(lambda leaf, i=index: leaf[i], batch)
        assert_allclose(together[index], product(single), rtol=1e-10)
    kalman = product(parameters, KalmanMoments())
    assert_allclose(kalman, product(parameters), rtol=1e-8)


def coupled_case(flows):
    """AR(1) errors over gaps; with `flows` the last two of five series are quarterly sums."""
    world, ar = small_world(num_lags=1)
    index = pd.date_range("2000-01-31", periods=16, freq="ME")
    kinds = ("stock",) * 3 + (("change_in_flow", "flow_sum") if flows else ("stock",) * 2)
    frequencies = ("M",) * 3 + (("Q",) * 2 if flows else ("M",) * 2)
    rows = aggregation_rows(index, "M", frequencies, kinds) if flows else None
    plan = plan_flows(rows)
    observed = np.random.default_rng(3).random((16, 5)) < 0.8
    if plan is not None:
        ar[list(plan.columns)] = 0.0
        for i in plan.columns:
            pattern = aggregation_pattern(index, "M", frequencies[i], kinds[i])
            observed[:, i] = np.asarray(pattern.answered)
    mask = jnp.asarray(observed, float)
    coupling = make_coupling(AutoregressiveErrors(3), plan, mask, rows)
    values = np.where(observed, np.random.default_rng(4).normal(size=observed.shape), 0.0)
    arrays = (jnp.asarray(a) for a in world)
    parameters = FactorParameters(*arrays, idiosyncratic_ar=jnp.asarray(ar))
    return parameters, PanelData(jnp.asarray(values), mask, coupling=coupling)


@pytest.mark.parametrize("flows", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_score_and_curvature_with_errors_that_remember_and_flows(flows):
    """The E-step's likelihood is checked against dense algebra in `test_coupled`."""
    parameters, data = coupled_case(flows)
    (value, score), (plain_value, plain) = both_scores(parameters, data, "stationary")
    assert_allclose(value, plain_value, rtol=1e-13)
    names = ("loadings", "intercept", "idiosyncratic_cov", "transition", "idiosyncratic_ar")
    for name in names:
        ours, theirs = getattr(score[0], name), getattr(plain[0], name)
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * np.abs(value), err_msg=name)
    assert_allclose(score[1], plain[1], rtol=1e-10, atol=1e-10)

    # A flow's own errors have no memory: its coefficient is no parameter.
    assert data.coupling is not None
    stocks = np.asarray(data.coupling.stocks) > 0
    everything = parameters.idiosyncratic_ar
    assert everything is not None
    chosen = tuple(getattr(parameters, name) for name in names[:-1])
    vector, back = ravel_pytree((*chosen, everything[stocks]))

    def gradient(vector):
        def inner(vector):
            *parts, ar = back(vector)
            parts.append(everything.at[stocks].set(ar))
            changes = dict(zip(names, parts, strict=True))
            return loglik(dataclasses.replace(parameters, **changes), data)

        return jax.grad(inner)(vector)

    direction = jnp.asarray(np.random.default_rng(5).normal(size=vector.shape))
    product = jax.jit(lambda v: jax.jvp(gradient, (v,), (direction,))[1])(vector)
    score_of, step = jax.jit(gradient), 1e-5 * direction
    differences = (score_of(vector + step) - score_of(vector - step)) / 2e-5
    assert_allclose(product, differences, atol=1e-7 * np.abs(product).max())


def test_unsuitable_errors_are_refused():
    _, parameters, data = case(1, "stationary")
    full = dataclasses.replace(parameters, idiosyncratic_cov=jnp.eye(5))
    with pytest.raises(ValueError, match="independent across series"):
        loglik(full, data)
    with pytest.raises(ValueError, match="need the gaps of the panel"):
        loglik(dataclasses.replace(parameters, idiosyncratic_ar=jnp.zeros(5)), data)
    with pytest.raises(ValueError, match="initial must be one of"):
        loglik(parameters, data, initial="free")
