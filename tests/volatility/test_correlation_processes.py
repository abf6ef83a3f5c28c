"""Equicorrelation, BEKK, constant correlations and likelihoods of pairs against dense algebra."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import jaxfc
from jaxfc.volatility import (
    DCC,
    DECO,
    GARCH,
    CompositeLikelihood,
    ConstantCorrelation,
    CorrelationModel,
    FullLikelihood,
    NonlinearShrinkage,
    Normal,
    SampleTarget,
    ScalarBEKK,
    StudentT,
    VarianceModel,
    ZeroMean,
    correlation_standard_errors,
)
from jaxfc.volatility.correlation_process import Targets, log_det_and_quadratic
from jaxfc.volatility.dcc import row_losses
from jaxfc.volatility.entries import Pairs
from jaxfc.volatility.likelihood import Standardised
from jaxfc.volatility.search import by_forward_mode

pytestmark = pytest.mark.slow

NUM_TIMES, NUM_SERIES = 240, 4


def panel_of(values):
    index = pd.bdate_range("2000-01-03", periods=len(values))
    names = [f"r{i}" for i in range(values.shape[1])]
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, names))


@pytest.fixture(scope="module")
def returns():
    """DCC with a = 0.06, b = 0.9 and GARCH variances."""
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(NUM_SERIES, 2))
    target = loadings @ loadings.T + np.eye(NUM_SERIES)
    target = target / np.sqrt(np.outer(np.diag(target), np.diag(target)))
    quasi, product, variance, rows = target, target, np.ones(NUM_SERIES), []
    for _ in range(NUM_TIMES):
        quasi = 0.04 * target + 0.06 * product + 0.9 * quasi
        scale = np.sqrt(np.diag(quasi))
        units = np.linalg.cholesky(quasi / np.outer(scale, scale)) @ rng.normal(size=NUM_SERIES)
        rows.append(np.sqrt(variance) * units)
        product = np.outer(units, units)
        variance = 0.1 + 0.1 * rows[-1] ** 2 + 0.8 * variance
    return np.asarray(rows)


@pytest.fixture(scope="module")
def data(returns):
    """Standardised residuals with holes, and their targets."""
    known = np.random.default_rng(0).random(returns.shape) > 0.15
    units = np.where(known, returns / returns.std(axis=0), 0.0)
    both = SampleTarget().corr(jnp.asarray(units), jnp.asarray(known))
    down = np.minimum(units, 0.0)
    return Standardised(jnp.asarray(units), jnp.asarray(known)), Targets(
        both, jnp.asarray(down.T @ down / len(down))
    )


PROCESSES = {
    "plain": (DCC(), [0.05, 0.9]),
    "asymmetric": (DCC(num_asymmetric=1), [0.04, 0.03, 0.9]),
    "corrected": (DCC(2, corrected=True), [0.05, 0.02, 0.85]),
    "bekk": (ScalarBEKK(), [0.05, 0.9]),
    "constant": (ConstantCorrelation(), []),
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("pairs", ["contiguous", "all"])
def test_a_recursion_of_pairs_is_part_of_that_of_the_matrix(data, name, pairs):
    process, parameters = PROCESSES[name]
    (units, known), targets = data
    parameters = jnp.asarray(parameters)
    entries = CompositeLikelihood(pairs).entries(NUM_SERIES)
    whole = jax.vmap(process.corr)(process.filter(parameters, units, known, targets)[1])
    _, some = process.run(
        parameters,
        units,
        known,
        targets.of(entries),
        lambda quasi, unit, seen: process.corr(quasi, entries),
        entries,
    )
    np.testing.assert_allclose(some, jax.vmap(entries.of)(whole), atol=1e-14)


def chain(units, known, corrs, law):
    """Density of a Markov chain along the series: f(z_1) f(z_2 | z_1) f(z_3 | z_2) ..., as those of
    pairs over those of single series; a pair with a hole is left out."""
    total = 0.0
    for unit, seen, corr in zip(units, known, corrs, strict=True):
        total += sum(law(unit[[i]], corr[np.ix_([i], [i])]) for i in np.flatnonzero(seen))
        for i in range(NUM_SERIES - 1):
            if seen[i] and seen[i + 1]:
                both = [i, i + 1]
                alone = sum(law(unit[[k]], corr[np.ix_([k], [k])]) for k in both)
                total += law(unit[both], corr[np.ix_(both, both)]) - alone
    return total


@pytest.mark.parametrize("name", ["plain", "bekk"])
def test_contiguous_pairs_are_a_chain(data, name):
    process, parameters = PROCESSES[name]
    (units, known), targets = data
    corrs = np.asarray(
        jax.vmap(process.corr)(process.filter(jnp.asarray(parameters), units, known, targets)[1])
    )

    def normal(x, cov):
        return scipy.stats.multivariate_normal(np.zeros(len(x)), cov).logpdf(x)

    def student(x, cov):
        return scipy.stats.multivariate_t(np.zeros(len(x)), cov * 5 / 7, df=7).logpdf(x)

    for law, reference, shapes in ((Normal(), normal, []), (StudentT(), student, [7.0])):
        densities = CompositeLikelihood().log_densities(
            process, law, jnp.asarray(parameters), jnp.asarray(shapes), data[0], targets
        )
        expected = chain(np.asarray(units), np.asarray(known), corrs, reference)
        assert float(jnp.sum(densities)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("pairs", ["contiguous", "all"])
def test_two_series_have_one_likelihood(data, pairs):
    (units, known), targets = data
    two = Standardised(units[:, :2], known[:, :2])
    small = Targets(targets.both[:2, :2], targets.falls[:2, :2])
    case = DCC(), StudentT(), jnp.asarray([0.05, 0.9]), jnp.asarray([7.0]), two, small
    whole = FullLikelihood().log_densities(*case)
    np.testing.assert_allclose(
        CompositeLikelihood(pairs).log_densities(*case), whole, rtol=1e-11, atol=1e-11
    )


def test_equicorrelation_in_closed_form(data):
    (units, known), targets = data
    known = known.at[5].set(False)
    parameters, process = jnp.asarray([0.05, 0.9]), DECO()
    units = jnp.where(known, units, 0.0)
    run = process.filter(parameters, units, known, targets)[1]
    found = jax.vmap(process.log_det_and_square)(run, units, known)
    corrs = jax.vmap(process.corr)(run)
    dense = jax.vmap(log_det_and_quadratic)(corrs, units, known)
    np.testing.assert_allclose(found, dense, atol=1e-12)
    off = ~np.eye(NUM_SERIES, dtype=bool)
    each = jax.vmap(DCC().corr)(run)
    mean = np.asarray(each)[:, off].mean(axis=1)
    np.testing.assert_allclose(np.asarray(corrs)[:, off], np.tile(mean, (12, 1)).T, atol=1e-14)


def test_slopes_of_a_row_are_those_of_plain_algebra():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 4))
    cov, units = jnp.asarray(root @ root.T + np.eye(4)), jnp.asarray(rng.normal(size=4))
    seen = jnp.asarray([True, False, True, True])

    def ours(cov, units):
        return jnp.stack(log_det_and_quadratic(0.5 * (cov + cov.T), units, seen))

    def plain(cov, units):
        block = 0.5 * (cov + cov.T)[jnp.ix_(jnp.asarray([0, 2, 3]), jnp.asarray([0, 2, 3]))]
        rest = units[jnp.asarray([0, 2, 3])]
        return jnp.stack([jnp.linalg.slogdet(block)[1], rest @ jnp.linalg.solve(block, rest)])

    np.testing.assert_allclose(ours(cov, units), plain(cov, units), rtol=1e-12)
    for transform in (jax.jacfwd, jax.jacrev, lambda f, argnums: jax.hessian(f, argnums)):
        found, expected = (transform(f, argnums=(0, 1))(cov, units) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), found, expected)


def test_the_forward_gradient_is_the_reverse_one(data):
    known, targets = data
    model = CorrelationModel(DCC(num_asymmetric=1), innovations=StudentT())
    free = jnp.asarray([-1.0, -2.0, 2.0, 0.3])

    def mean(x, rest):
        return jnp.mean(row_losses(x, rest))

    rest = model, known, targets
    value, forward = jax.value_and_grad(lambda x: by_forward_mode(mean, x, rest))(free)
    expected, reverse = jax.value_and_grad(mean)(free, rest)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)


MARGINS = VarianceModel(GARCH(), mean=ZeroMean())


@pytest.fixture(scope="module")
def pairwise(returns):
    model = CorrelationModel(DCC(), margins=MARGINS, likelihood=CompositeLikelihood("all"))
    return model.fit(panel_of(returns))


def test_estimates_by_pairs(pairwise):
    errors = np.asarray(correlation_standard_errors(pairwise))
    assert np.all(np.abs(np.asarray(pairwise.parameters) - [0.06, 0.9]) < 3 * errors)
    assert np.all(errors < [0.05, 0.15])


def test_a_warm_start_ends_where_the_cold_one_does(pairwise, returns):
    warm = pairwise.model.starting_from(pairwise).fit(panel_of(returns))
    np.testing.assert_allclose(warm.parameters, pairwise.parameters, rtol=1e-4)
    np.testing.assert_allclose(warm.margins.parameters, pairwise.margins.parameters, atol=1e-5)
    assert int(warm.num_steps) < int(pairwise.num_steps)
    assert int(warm.margins.num_steps) < int(pairwise.margins.num_steps)


def test_scalar_bekk_is_that_of_the_returns(returns):
    margins = VarianceModel(GARCH(0, 0), mean=ZeroMean())
    model = CorrelationModel(ScalarBEKK(), margins=margins)
    fitted = model.fit(panel_of(returns))
    a, b = np.asarray(fitted.parameters)
    level = returns.T @ returns / len(returns)
    cov, product, total, covs = level, level, 0.0, []
    for row in returns:
        cov = (1 - a - b) * level + a * product + b * cov
        covs.append(cov)
        total += scipy.stats.multivariate_normal(np.zeros(NUM_SERIES), cov).logpdf(row)
        product = np.outer(row, row)
    assert float(fitted.loglik) == pytest.approx(total, rel=1e-10)
    np.testing.assert_allclose(fitted.covs[:-1], covs, rtol=1e-6)
    # Covariances ahead return geometrically: exact, and what every method says.
    ahead = (1 - a - b) * level + a * product + b * cov
    for method in ("iterated", "ES-Q"):
        found = fitted.forecast(5, method=method).innovation_covs[4]
        expected = level + (a + b) ** 4 * (ahead - level)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    diagonal = np.diagonal(np.asarray(fitted.corrs), axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, 1.0, rtol=1e-12)


def test_constant_correlations_leave_the_margins_to_move(returns):
    fitted = CorrelationModel(ConstantCorrelation(), margins=MARGINS).fit(panel_of(returns))
    assert fitted.model.names == () and fitted.parameters.size == 0
    units = np.asarray(fitted.margins.units)
    level = SampleTarget().corr(fitted.margins.units, jnp.ones(units.shape, bool))
    law = scipy.stats.multivariate_normal(np.zeros(NUM_SERIES), level)
    scales = 0.5 * np.log(np.asarray(fitted.margins.variances)[:-1]).sum()
    assert float(fitted.loglik) == pytest.approx(law.logpdf(units).sum() - scales, rel=1e-12)
    ahead = fitted.forecast(3, method="ES-R").innovation_covs
    stds = np.sqrt(np.diagonal(np.asarray(ahead), axis1=1, axis2=2))
    np.testing.assert_allclose(ahead[2] / np.outer(stds[2], stds[2]), level, rtol=1e-12)


def test_rows_of_residuals_are_drawn_again(pairwise):
    """A path of one row has the residuals' own law: their covariance, and no other values."""
    drawn = pairwise.forecast(1, key=jax.random.key(0), num_draws=4000, innovations="bootstrap")
    chol = np.linalg.cholesky(np.asarray(pairwise.covs[-1]))
    used = np.linalg.solve(chol, np.asarray(drawn.draws)[:, 0].T).T
    covs, units = np.asarray(pairwise.covs)[:-1], np.asarray(pairwise.margins.filtered().residuals)
    ours = np.stack(
        [np.linalg.solve(np.linalg.cholesky(c), e) for c, e in zip(covs, units, strict=True)]
    )
    distances = np.abs(used[:, None] - ours).max(axis=2).min(axis=1)
    assert np.max(distances) < 1e-9
    assert len(np.unique(used[:, 0].round(9))) > 0.9 * NUM_TIMES
    margins = pairwise.margins.forecast(
        2, key=jax.random.key(1), num_draws=500, innovations="bootstrap"
    )
    # Series keep their dependence, which independent laws would not.
    corr = np.corrcoef(np.asarray(margins.draws)[:, 0].T)
    np.testing.assert_allclose(corr, pairwise.targets.both, atol=0.2)
    with pytest.raises(ValueError, match="innovations must be one of"):
        pairwise.forecast(1, key=jax.random.key(0), innovations="residuals")


def test_more_series_than_rows():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(50, 60)) + rng.normal(size=(50, 1))
    margins = VarianceModel(GARCH(0, 0), mean=ZeroMean())
    model = CorrelationModel(
        DCC(), margins=margins, target=NonlinearShrinkage(), likelihood=CompositeLikelihood()
    )
    fitted = model.fit(panel_of(wide), throw=False)
    assert np.linalg.eigvalsh(np.asarray(fitted.covs[-1]))[0] > 0.0
    with pytest.raises(ValueError, match="Use target=NonlinearShrinkage"):
        dataclasses.replace(model, target=SampleTarget()).fit(panel_of(wide))
    copies = np.concatenate([wide[:, :3], wide[:, :1]], axis=1)
    twins = CorrelationModel(DCC(), margins=margins, likelihood=CompositeLikelihood())
    with pytest.raises(RuntimeError, match=r"not positive definite.*NonlinearShrinkage"):
        twins.fit(panel_of(copies))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="use FullLikelihood"):
        CorrelationModel(DECO(), likelihood=CompositeLikelihood())
    with pytest.raises(ValueError, match="pairs must be one of"):
        CompositeLikelihood("some")
    with pytest.raises(ValueError, match="no asymmetric terms"):
        ScalarBEKK(num_asymmetric=1)
    assert Pairs.all(4).num_pairs == 6 and Pairs.contiguous(4).num_pairs == 3
