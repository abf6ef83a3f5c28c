"""`ClosedForm(engine=...)`: dense conditioning, float32, derivatives, whole fits, CUDA lowering."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from factor_worlds import dense_answer, make_world, simulate
from jaxfc.factors import EM, ClosedForm, DynamicFactorModel
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import FactorPosterior
from jaxfc_kernels.collapse import Collapsed, collapse_diagonal
from jaxfc_kernels.tridiagonal_engines import ENGINES

PARALLEL = [name for name in ENGINES if name != "sequential"]


def collapsed_world(
    world, values, observed, dtype=jnp.float64
) -> tuple[FactorParameters, Collapsed]:
    """Parameters and collapsed data as the E-step hands them to `ClosedForm`."""
    parameters = FactorParameters(*(jnp.asarray(a, dtype) for a in world))
    mask = jnp.asarray(observed, dtype)
    centred = jnp.asarray(values, dtype) - mask * parameters.intercept
    cov = parameters.idiosyncratic_cov
    return parameters, collapse_diagonal(centred, mask, parameters.loadings, cov)


@eqx.filter_jit
def posterior(moments, parameters, collapsed, presample=0) -> FactorPosterior:
    return moments.posterior(parameters, collapsed, presample=presample)


@pytest.mark.parametrize(("num_lags", "presample"), [(1, 0), (2, 0), (2, 3)])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_equal_dense_conditioning(engine, num_lags, presample):
    world = make_world(4, 2, num_lags, seed=num_lags)
    values, observed, _ = simulate(world, 11, missing=0.3)
    observed[5] = False
    values = np.where(observed, values, 0.0)
    dense = dense_answer(world, values, observed, presample=presample)
    parameters, collapsed = collapsed_world(world, values, observed)
    answer = posterior(ClosedForm(engine=engine), parameters, collapsed, presample)
    np.testing.assert_allclose(answer.means, dense.means, atol=1e-11)
    for lag in range(num_lags + 1):
        for t in range(lag, len(dense.means)):
            np.testing.assert_allclose(answer.lag_covs[lag, t], dense.lag_cov(t, lag), atol=1e-11)


# Roots of the VAR, innovation variance (None: such that factors have unit variance), scale of the
# idiosyncratic variances; largest error of means in posterior standard deviations, and of
# covariances relative to the largest of their period. Tolerances as for the sequential engine.
FLOAT32_CASES = {
    "AR 0.99": ((0.99, 0.99), None, 1.0, 1e-4, 1e-5),
    "AR 0.999, small errors": ((0.999, 0.999), None, 1e-3, 1e-3, 1e-4),
    "AR 0.99, noise 1e-6": ((0.99, 0.99), 1e-6, 1.0, 1e-3, 1e-3),
}


@pytest.mark.parametrize("case", FLOAT32_CASES)
@pytest.mark.parametrize("engine", PARALLEL)
def test_float32_keeps_its_digits(engine, case):
    roots, noise, error_scale, mean_tolerance, cov_tolerance = FLOAT32_CASES[case]
    world = make_world(30, 2, 1, roots=roots)
    noise = noise or 1.0 / np.diag(world.initial_cov).mean()
    world = world._replace(
        intercept=np.zeros(30),
        idiosyncratic_cov=error_scale * world.idiosyncratic_cov,
        innovation_cov=noise * world.innovation_cov,
        initial_cov=noise * world.initial_cov,
    )
    values, observed, _ = simulate(world, 64, missing=0.2)
    moments = ClosedForm(engine=engine)
    low = posterior(moments, *collapsed_world(world, values, observed, jnp.float32))
    high = posterior(moments, *collapsed_world(world, values, observed))
    assert low.means.dtype == jnp.float32
    std = np.sqrt(np.einsum("tii->ti", high.covs))
    assert (np.abs(low.means - high.means) / std).max() < mean_tolerance
    scale = np.abs(high.covs).max(axis=(1, 2), keepdims=True)
    assert (np.abs(low.covs - high.covs) / scale).max() < cov_tolerance


@pytest.mark.parametrize("engine", PARALLEL)
def test_derivative_of_the_evidence(engine):
    """By every parameter, equal to that of the sequential engine."""
    world = make_world(4, 1, 2)
    parameters, collapsed = collapsed_world(world, *simulate(world, 14, missing=0.2)[:2])

    def gradient(engine):
        def evidence(parameters):
            cov = parameters.initial_cov  # only along symmetric matrices do engines have to agree
            parameters = eqx.tree_at(lambda p: p.initial_cov, parameters, 0.5 * (cov + cov.T))
            return ClosedForm(engine=engine).posterior(parameters, collapsed).evidence

        return eqx.filter_jit(eqx.filter_grad(evidence))(parameters)

    pairs = zip(*(jax.tree.leaves(gradient(e)) for e in (engine, "sequential")), strict=True)
    sizes = []
    for own, expected in pairs:
        np.testing.assert_allclose(own, expected, rtol=1e-8, atol=1e-9)
        sizes.append(np.abs(expected).max())
    assert max(sizes) > 1.0


def test_a_whole_fit_does_not_depend_on_the_engine():
    world = make_world(6, 1, 1, seed=3)
    values, observed, _ = simulate(world, 40, missing=0.2)

    def fit(engine):
        method = EM(rtol=1e-6, max_steps=20)
        model = DynamicFactorModel(1, 1, method=method, moments=ClosedForm(engine=engine))
        return eqx.filter_jit(model.estimate)(jnp.asarray(values), jnp.asarray(observed))

    own, expected = fit("odd_even"), fit("sequential")
    assert int(own.num_steps) == int(expected.num_steps) > 1
    np.testing.assert_allclose(own.loglik, expected.loglik, rtol=1e-12)
    np.testing.assert_allclose(own.factors, expected.factors, atol=1e-9)
    np.testing.assert_allclose(own.factor_covs, expected.factor_covs, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_posterior_and_its_derivative_lower_for_cuda(engine):
    world = make_world(4, 1, 2)
    arguments = collapsed_world(world, *simulate(world, 14, missing=0.2)[:2])

    def verbs(parameters, collapsed):
        def evidence(parameters):
            answer = ClosedForm(engine=engine).posterior(parameters, collapsed)
            return answer.evidence, answer

        return jax.value_and_grad(evidence, has_aux=True)(parameters)

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(*shapes)
    assert exported.platforms == ("cuda",)


def test_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="unknown engine 'fastest'; use one of 'sequential'"):
        ClosedForm(engine="fastest")
