"""Approximations of posteriors that are normal, or known by quadrature, and what they say of
themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpyro import distributions as dist

from bayes.known_posteriors import eight_schools, eight_schools_moments, regression
from jaxfc.bayes.approximation import LowRankLaw, PrecisionLaw, gap_to, law_draws, wasserstein
from jaxfc.bayes.laplace import DenseHessian, DiagonalHessian, Laplace, find_mode
from jaxfc.bayes.pathfinder import Pairs, Pathfinder, law_of
from jaxfc.bayes.program import Program
from jaxfc.bayes.variational import LowRankNormal, MeanFieldNormal
from jaxfc.results import RESULTS, SUCCESSFUL
from jaxfc.typing import as_scalar

KEY = jax.random.key(5)
NUM_DRAWS = 2000
# Relative standard error of a variance of so many independent draws: sqrt(2/2000) = .03.
VARIANCE_ERROR = 0.15
MEAN_ERROR = 0.12


@pytest.fixture(scope="module")
def sample():
    return eqx.filter_jit(lambda how, program, key: how.sample(program, key=key))


@pytest.fixture(scope="module")
def program():
    return regression()


def standardised(draws, program):
    """Means less the exact ones in exact sds, and variances over the exact ones."""
    mean, cov = program.posterior()
    b = draws.pooled()["b"]
    return (jnp.mean(b, 0) - mean) / np.sqrt(np.diag(cov)), jnp.var(b, 0) / np.diag(cov)


def laws():
    """By name a law, its mean and its covariance."""
    random = np.random.default_rng(0)
    mean, log_scale = random.normal(size=5), 0.3 * random.normal(size=5)
    factor = random.normal(size=(5, 2))
    square = random.normal(size=(5, 5))
    precision = square @ square.T + np.eye(5)
    diagonal = np.diag(np.exp(2 * log_scale))
    at, scale = jnp.asarray(mean), jnp.asarray(log_scale)
    dense = PrecisionLaw(at, jnp.asarray(np.linalg.cholesky(precision)))
    return {
        "mean_field": (LowRankLaw(at, scale, jnp.zeros((5, 0))), mean, diagonal),
        "low_rank": (
            LowRankLaw(at, scale, jnp.asarray(factor)),
            mean,
            diagonal + factor @ factor.T,
        ),
        "dense": (dense, mean, np.linalg.inv(precision)),
    }


@pytest.mark.parametrize("name", ["mean_field", "low_rank", "dense"])
def test_laws_have_the_density_and_the_moments_of_their_covariance(name):
    law, mean, cov = laws()[name]
    draws, log_prob = law.sample(20_000, key=KEY)
    dense = scipy.stats.multivariate_normal(mean, cov)
    np.testing.assert_allclose(log_prob[:50], dense.logpdf(np.asarray(draws[:50])), rtol=1e-10)
    np.testing.assert_allclose(jnp.mean(draws, 0), mean, atol=0.1)
    scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    np.testing.assert_allclose(np.cov(draws.T) / scale, cov / scale, atol=0.04)
    if isinstance(law, LowRankLaw):
        np.testing.assert_allclose(law.entropy(), dense.entropy(), rtol=1e-12)


def test_pathfinders_law_is_the_dense_recursion():
    """BFGS's inverse Hessian, pair by pair, with more slots than numbers, some of them empty."""
    random = np.random.default_rng(1)
    square = random.normal(size=(6, 6))
    steps = np.concatenate([np.zeros((6, 2)), random.normal(size=(6, 3))], axis=1)
    changes = (square @ square.T + np.eye(6)) @ steps
    variances = random.uniform(0.5, 2, 6)
    inverse = np.diag(variances)
    for s, y in zip(steps.T[2:], changes.T[2:], strict=True):
        shear = np.eye(6) - np.outer(s, y) / (s @ y)
        inverse = shear @ inverse @ shear.T + np.outer(s, s) / (s @ y)
    position, slope = random.normal(size=(2, 6))
    pairs = Pairs(*map(jnp.asarray, (steps, changes, variances)))
    law = law_of(pairs, jnp.asarray(position), jnp.asarray(slope))
    np.testing.assert_allclose(law.mean, position + inverse @ slope, rtol=1e-10)
    draws, log_prob = law.sample(20, key=KEY)
    dense = scipy.stats.multivariate_normal(np.asarray(law.mean), inverse)
    np.testing.assert_allclose(log_prob, dense.logpdf(np.asarray(draws)), rtol=1e-10)
    root = np.sqrt(variances)[:, None] * (
        np.eye(6) + law.basis @ (law.chol @ law.chol.T - np.eye(6)) @ law.basis.T
    ) * np.sqrt(variances)  # fmt: skip
    np.testing.assert_allclose(root, inverse, atol=1e-10)


def test_laplace_of_a_normal_posterior_is_exact(sample, program):
    draws = sample(Laplace(num_draws=NUM_DRAWS), program, KEY)
    mean, variance = standardised(draws, program)
    np.testing.assert_allclose(mean, 0, atol=MEAN_ERROR)
    np.testing.assert_allclose(variance, 1, atol=VARIANCE_ERROR)
    assert draws.result == SUCCESSFUL and draws.pareto_k < 0.3
    # Draws are of the posterior itself, so all their densities differ from the law's by a constant.
    np.testing.assert_allclose(draws.energy, -draws.log_density)
    density = program.log_density({"b": draws.parameters["b"][0, 7]})
    np.testing.assert_allclose(draws.log_density[0, 7], density, rtol=1e-12)


def test_diagonal_laplace_has_the_conditional_variances(sample, program):
    draws = sample(Laplace(DiagonalHessian(), num_draws=NUM_DRAWS), program, KEY)
    precision = np.linalg.inv(program.posterior()[1])
    variance = jnp.var(draws.pooled()["b"], 0) * np.diag(precision)
    np.testing.assert_allclose(variance, 1, atol=VARIANCE_ERROR)


def test_curvature_that_is_no_maximum_is_said():
    """A saddle has no law; a search cut short is said too."""

    def saddle(x):
        return x[0] ** 2 - x[1] ** 2

    law, falls = DiagonalHessian().law(saddle, jnp.zeros(2))
    assert not falls and jnp.all(jnp.isfinite(law.log_scale))
    found = find_mode(lambda x: -jnp.sum((x - 3) ** 4), jnp.zeros(2), 2, as_scalar(1e-12))
    assert found.num_steps == 2 and not found.ended


class Wall(Program):
    """ln p = 5 x_0 - x_0^2 / 2 - x_1^2 / 2 for x_0 below `wall`, else hardly anything: beyond 5
    there is no wall in the way."""

    wall: jax.Array

    def priors(self):
        return {"x": lambda _: dist.Normal(jnp.zeros(2), 1.0)}

    def log_likelihood(self, parameters):
        x = parameters["x"]
        return jnp.where(x[0] < self.wall, 5.0 * x[0], -1e3)

    def start(self):
        return {"x": jnp.array([0.9, 3.0])}

    def simulated(self, parameters, *, key):
        return self


@pytest.mark.parametrize("curvature", [DenseHessian(), DiagonalHessian()])
def test_a_search_that_gets_stuck_is_no_mode(sample, curvature):
    """At a wall the density is curved downwards and not at its highest."""
    how = Laplace(curvature, num_draws=40, max_pareto_k=np.inf)
    start, named = Wall(jnp.asarray(1.0)).flat()
    walled, free = Wall(jnp.asarray(1.0)), Wall(jnp.asarray(9.0))
    found = find_mode(lambda x: walled.log_density(named(x)), start, 1000, as_scalar(1e-6))
    assert found.ended and abs(found.position[0] - 1.0) < 0.01
    assert sample(how, walled, KEY).result == RESULTS.mode_not_found
    assert sample(how, free, KEY).result == SUCCESSFUL


@pytest.mark.parametrize("name", ["mean_field", "low_rank", "dense"])
def test_laws_say_what_a_newton_step_promises(name):
    law, _, cov = laws()[name]
    slope = np.random.default_rng(3).normal(size=5)
    np.testing.assert_allclose(law.promise(jnp.asarray(slope)), slope @ cov @ slope / 2, rtol=1e-10)


def test_mean_field_has_the_mean_and_the_conditional_variances(sample, program):
    """The exact optimum of the family for a normal posterior; a start there ends there sooner."""
    how = MeanFieldNormal(num_draws=NUM_DRAWS, num_steps=1500, num_pairs=10)
    draws, law = eqx.filter_jit(lambda p, key: how.sample_tuned(p, key=key))(program, KEY)
    mean, cov = program.posterior()
    sds = np.sqrt(np.diag(cov))
    np.testing.assert_allclose((law.mean - mean) / sds, 0, atol=0.03)
    conditional = 1 / np.diag(np.linalg.inv(cov))
    np.testing.assert_allclose(jnp.exp(2 * law.log_scale), conditional, rtol=0.05)
    assert draws.result == SUCCESSFUL and draws.pareto_k < 0.7
    short = MeanFieldNormal(num_steps=50, warm=law)
    again = eqx.filter_jit(lambda p, key: short.approximate(p, key=key).law)(program, KEY)
    np.testing.assert_allclose((again.mean - mean) / sds, 0, atol=0.1)
    with pytest.raises(ValueError, match="`warm` has numbers and rank"):
        LowRankNormal(rank=2, warm=law).sample(program, key=KEY)


def test_low_rank_law_reaches_a_correlated_posterior(sample, program):
    draws = sample(LowRankNormal(rank=3, num_draws=NUM_DRAWS, num_steps=1500), program, KEY)
    mean, variance = standardised(draws, program)
    np.testing.assert_allclose(mean, 0, atol=MEAN_ERROR)
    np.testing.assert_allclose(variance, 1, atol=2 * VARIANCE_ERROR)
    assert draws.result == SUCCESSFUL and draws.pareto_k < 0.5


def test_a_bound_that_still_rises_is_said(sample, program):
    far = eqx.tree_at(lambda p: p.values, program, program.values + 50 * program.design[:, 0])
    draws = sample(MeanFieldNormal(num_steps=100, num_draws=50), far, KEY)
    assert draws.result == RESULTS.nonlinear_max_steps_reached
    broken = eqx.tree_at(lambda p: p.values, program, program.values * jnp.nan)
    draws = sample(MeanFieldNormal(num_steps=100, num_draws=50), broken, KEY)
    assert draws.result == RESULTS.diverged


def test_pathfinder_of_a_normal_posterior(sample, program):
    draws = sample(Pathfinder(num_draws=NUM_DRAWS, num_steps=15), program, KEY)
    mean, variance = standardised(draws, program)
    np.testing.assert_allclose(mean, 0, atol=MEAN_ERROR)
    np.testing.assert_allclose(variance, 1, atol=VARIANCE_ERROR)
    assert draws.result == SUCCESSFUL and draws.pareto_k < 0.7


def test_pareto_k_finds_a_law_that_misses_the_posterior(program):
    """Half the exact sd: ratios have no variance, and the draws say so."""
    mean, cov = program.posterior()
    chol = np.linalg.cholesky(np.linalg.inv(cov))

    @jax.jit
    def of(chol):
        law = PrecisionLaw(jnp.asarray(mean), chol)
        arguments = NUM_DRAWS, as_scalar(0.7), jnp.asarray(0), SUCCESSFUL
        return law_draws(program, law, *arguments, key=KEY)

    exact, narrow = of(jnp.asarray(chol)), of(jnp.asarray(2 * chol))
    assert exact.result == SUCCESSFUL and exact.pareto_k < 0.3
    assert narrow.result == RESULTS.poor_approximation and narrow.pareto_k > 0.7


def test_gap_is_that_of_the_laws(sample):
    """Against scipy's distance, with other numbers of draws, and for a shift and a narrowing."""
    random = np.random.default_rng(2)
    x, y = random.normal(size=(2, 60, 3)), random.normal(size=(1, 50, 3)) + 1
    found = wasserstein(jnp.asarray(x), jnp.asarray(y))
    each = [scipy.stats.wasserstein_distance(x[..., i].ravel(), y[0, :, i]) for i in range(3)]
    np.testing.assert_allclose(found, each, rtol=1e-12)
    program = regression()
    exact = sample(Laplace(num_draws=NUM_DRAWS), program, KEY)
    moved = jax.tree.map(lambda b: jnp.mean(b, 1, keepdims=True) + 0.5 * (b - 2), exact.parameters)
    near = eqx.tree_at(lambda d: d.parameters, exact, moved)
    gap = jax.jit(lambda x, y: gap_to(x, y, program.identified))(exact, near)
    b = exact.parameters["b"]
    shift = (0.5 * (jnp.mean(b, (0, 1)) - 2)) / jnp.std(b, (0, 1))
    np.testing.assert_allclose(gap.mean["b"], shift, rtol=1e-10)
    np.testing.assert_allclose(gap.log_sd["b"], np.log(0.5), rtol=1e-10)
    assert jnp.all(gap.wasserstein["b"] >= jnp.abs(gap.mean["b"]) - 1e-10)
    table = gap.table()
    np.testing.assert_allclose(table.loc["b", "max_mean_gap"], jnp.max(jnp.abs(shift)), rtol=1e-10)
    assert table.loc["b", "numbers"] == 4


@pytest.mark.slow
def test_eight_schools_by_the_variational_law(sample):
    """A funnel: the mean of mu is found, the spread of tau is too small, as the file says."""
    exact = eight_schools_moments()
    draws = sample(LowRankNormal(rank=3, num_draws=NUM_DRAWS), eight_schools(), KEY).pooled()
    gap = (jnp.mean(draws["mu"]) - exact["mu"][0]) / exact["mu"][1]
    assert abs(gap) < 0.1
    np.testing.assert_allclose(jnp.std(draws["mu"]), exact["mu"][1], rtol=0.1)
    assert jnp.std(draws["tau"]) < exact["tau"][1]


@pytest.mark.parametrize(
    "how",
    [
        MeanFieldNormal(num_steps=60, num_draws=40),
        pytest.param(Laplace(num_draws=40), marks=pytest.mark.slow),
        pytest.param(Pathfinder(num_steps=8, num_draws=40, num_paths=2), marks=pytest.mark.slow),
    ],
    ids=lambda how: type(how).__name__,
)
def test_a_batch_is_its_members_one_by_one_and_the_key_decides(sample, how):
    programs = [regression(seed) for seed in (0, 1)]
    both = jax.tree.map(lambda *x: jnp.stack(x), *programs)
    keys = jax.random.split(KEY, 2)
    batch = eqx.filter_jit(eqx.filter_vmap(lambda p, key: how.sample(p, key=key)))(both, keys)
    for place, one in enumerate(programs):
        found = sample(how, one, keys[place]).parameters["b"]
        np.testing.assert_allclose(batch.parameters["b"][place], found, rtol=1e-6)
    assert jnp.any(found != sample(how, programs[1], keys[0]).parameters["b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanFieldNormal(num_steps=5), "num_steps=5 is too few"),
        (lambda: LowRankNormal(rank=0), "rank must be at least 1, got 0"),
        (lambda: Laplace(num_draws=0), "num_draws must be at least 1, got 0"),
        (lambda: Pathfinder(num_paths=0), "num_paths must be at least 1, got 0"),
    ],
)
def test_counts_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
