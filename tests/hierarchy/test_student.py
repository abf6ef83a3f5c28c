"""Reconciliation with an uncertain covariance: conditioning of the joint law, limits, the prior's
size by brute force, Student's quantiles against scipy, verbs of the law against draws."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

from jaxfc.hierarchy import Hierarchy, MinT, StudentForecast, reconcile_means, reconcile_student
from jaxfc.hierarchy.prior_size import leave_one_out, marginal_likelihood, most_likely
from jaxfc.hierarchy.student_quantile import student_quantile

pytestmark = pytest.mark.slow

MATRIX = np.array([[0.4, 0.1, 0.3, 0.2], [0.8, 0.2, 0.0, 0.0], [0.0, 0.0, 0.6, 0.4]])
CONSTRAINTS = np.hstack([np.eye(3), -MATRIX])


@pytest.fixture(scope="module")
def hierarchy():
    frame = pd.DataFrame(MATRIX, index=["top", "A", "B"], columns=["a", "b", "c", "d"])
    return Hierarchy.from_matrix(frame)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    residuals = rng.normal(size=(15, 7)) @ rng.normal(size=(7, 7))
    return residuals, rng.normal(size=(2, 7))


def posterior(residuals, prior_df, prior_cov):
    scale = (prior_df - 8.0) * prior_cov + residuals.T @ residuals
    return prior_df + len(residuals), scale


def test_conditioning_of_the_joint_law(hierarchy, world):
    """The predictive t of all base errors, given C e = -C y^, by the formulas of a joint t."""
    residuals, mean = world
    prior_cov = np.diag(np.mean(residuals**2, axis=0))
    law = reconcile_student(jnp.asarray(mean), hierarchy, residuals, prior_df=11.0)
    degrees, scale = posterior(residuals, 11.0, prior_cov)
    # Coordinates (C e, bottom of e) of the predictive law t_{nu' - n + 1}(0, Psi' / (nu' - n + 1)).
    turn = np.vstack([CONSTRAINTS, np.hstack([np.zeros((4, 3)), np.eye(4)])])
    joint_df = degrees - 7 + 1
    turned = turn @ scale @ turn.T / joint_df
    first, cross, last = turned[:3, :3], turned[3:, :3], turned[3:, 3:]
    summing = np.vstack([MATRIX, np.eye(4)])
    assert float(law.df) == joint_df + 3
    for step in range(2):
        seen = -CONSTRAINTS @ mean[step]
        centre = mean[step, 3:] + cross @ np.linalg.solve(first, seen)
        size = (joint_df + seen @ np.linalg.solve(first, seen)) / (joint_df + 3)
        left = size * (last - cross @ np.linalg.solve(first, cross.T))
        np.testing.assert_allclose(law.mean[step], summing @ centre, rtol=1e-12, atol=1e-12)
        got = law.step_scale[step, step] * law.node_scale
        np.testing.assert_allclose(got, summing @ left @ summing.T, rtol=1e-10, atol=1e-12)
    assert float(jnp.max(jnp.abs(law.node_scale @ CONSTRAINTS.T))) < 1e-12
    assert law.step_scale[0, 1] == 0.0


def test_density_of_the_law_by_brute_force(hierarchy, world):
    """The conditional density along the bottom series is proportional to the joint one."""
    residuals, mean = world
    law = reconcile_student(jnp.asarray(mean), hierarchy, residuals, prior_df=12.0)
    degrees, scale = posterior(residuals, 12.0, np.diag(np.mean(residuals**2, axis=0)))
    joint = scipy.stats.multivariate_t(mean[0], scale / (degrees - 6), df=degrees - 6)
    bottom = scipy.stats.multivariate_t(
        law.mean[0, 3:], law.step_scale[0, 0] * law.node_scale[3:, 3:], df=float(law.df)
    )
    points = np.random.default_rng(1).normal(size=(20, 4)) * 3.0
    nodes = points @ np.vstack([MATRIX, np.eye(4)]).T
    gap = joint.logpdf(nodes) - bottom.logpdf(points)
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)


def test_a_certain_covariance_gives_mint(hierarchy, world):
    residuals, mean = world
    root = np.random.default_rng(2).normal(size=(7, 9))
    cov = root @ root.T
    law = reconcile_student(
        jnp.asarray(mean), hierarchy, residuals, prior_df=1e9, prior_cov=jnp.asarray(cov)
    )
    want = reconcile_means(jnp.asarray(mean), hierarchy, MinT(jnp.asarray(cov)))
    np.testing.assert_allclose(law.mean, want, atol=1e-6)
    inner = np.linalg.solve(CONSTRAINTS @ cov @ CONSTRAINTS.T, CONSTRAINTS @ cov)
    gaussian = cov - cov @ CONSTRAINTS.T @ inner
    np.testing.assert_allclose(law.cov[1, :, 1], gaussian, atol=1e-6)
    normal = law.mean + scipy.special.ndtri(0.05) * jnp.sqrt(jnp.diagonal(jnp.asarray(gaussian)))
    np.testing.assert_allclose(law.quantile(0.05), normal, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_size_of_the_prior(hierarchy, world, dense):
    """Both criteria against densities with matrices, and their maximum."""
    residuals, mean = world
    prior = np.diag(np.mean(residuals**2, axis=0))
    if dense:
        prior = prior + 0.2 * np.sqrt(np.outer(np.diag(prior), np.diag(prior)))
    factor = np.linalg.cholesky(np.linalg.inv(prior))
    values, vectors = np.linalg.eigh(residuals @ factor @ factor.T @ residuals.T)
    values = jnp.maximum(jnp.asarray(values), 0.0)

    def left_out(excess):
        total = 0.0
        for t in range(15):
            others = np.delete(residuals, t, axis=0)
            degrees, scale = posterior(others, excess + 8.0, prior)
            law = scipy.stats.multivariate_t(np.zeros(7), scale / (degrees - 6), df=degrees - 6)
            total += law.logpdf(residuals[t]) / 15
        return total

    def joint(excess):
        """One date after the other, each given those before."""
        total = 0.0
        for t in range(15):
            degrees, scale = posterior(residuals[:t], excess + 8.0, prior)
            law = scipy.stats.multivariate_t(np.zeros(7), scale / (degrees - 6), df=degrees - 6)
            total += law.logpdf(residuals[t]) / 15
        return total

    points = np.array([0.5, 3.0, 40.0])
    for name, ours, theirs in (
        ("leave_one_out", leave_one_out, left_out),
        ("marginal_likelihood", marginal_likelihood, joint),
    ):
        score = jax.jit(lambda c, ours=ours: ours(c, values, jnp.asarray(vectors) ** 2, 7))
        gap = [float(score(c)) - theirs(c) for c in points]
        np.testing.assert_allclose(gap, gap[0], atol=1e-10)
        best = float(most_likely(ours, jnp.asarray(residuals), jnp.asarray(prior)))
        assert float(score(best)) > max(float(score(best * 1.02)), float(score(best / 1.02)))
        law = reconcile_student(
            jnp.asarray(mean),
            hierarchy,
            residuals,
            prior_df=name,
            prior_cov=jnp.asarray(prior),
        )
        assert float(law.df) == pytest.approx(best + 8 + 15 - 4 + 1)


def test_incoherence_widens_the_law(hierarchy, world):
    residuals, mean = world
    mean = jnp.asarray(mean).at[1].set(hierarchy.aggregate(jnp.asarray(mean[1, 3:])))
    law = reconcile_student(mean, hierarchy, residuals, prior_df=11.0)
    np.testing.assert_allclose(law.mean[1], mean[1], atol=1e-12)
    assert float(law.step_scale[1, 1]) == pytest.approx(1.0 / float(law.df))
    assert float(law.step_scale[0, 0]) > 1.01 / float(law.df)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_scale(hierarchy, world, size):
    residuals, mean = world
    one = reconcile_student(jnp.asarray(mean), hierarchy, residuals)
    two = reconcile_student(jnp.asarray(size * mean), hierarchy, size * residuals)
    np.testing.assert_allclose(two.mean / size, one.mean, atol=1e-10)
    np.testing.assert_allclose(two.std / size, one.std, rtol=1e-10)
    assert float(two.df) == pytest.approx(float(one.df), rel=1e-10)


def test_quantiles_of_students_law():
    degrees = np.array([0.7, 1.0, 2.5, 8.0, 300.0, 1e6])[:, None]
    levels = np.array([1e-9, 1e-4, 0.02, 0.3, 0.4999, 0.5, 0.6, 0.975, 0.9999])
    got = jax.jit(student_quantile)(jnp.asarray(degrees), jnp.asarray(levels))
    want = scipy.special.stdtrit(degrees, levels)
    np.testing.assert_allclose(got, want, rtol=2e-9, atol=1e-12)
    assert got[0, 5] == 0.0
    normal = student_quantile(jnp.asarray(jnp.inf), jnp.asarray(0.1))
    assert float(normal) == pytest.approx(scipy.special.ndtri(0.1))


def test_slopes_of_students_quantiles():
    degrees = jnp.array([1.0, 2.5, 8.0, 300.0])[:, None]
    levels = jnp.array([1e-4, 0.02, 0.3, 0.6, 0.99])
    total = lambda n, q: jnp.sum(student_quantile(n, q))  # noqa: E731
    by_degrees, by_level = jax.jit(jax.grad(total, argnums=(0, 1)))(
        jnp.broadcast_to(degrees, (4, 5)), jnp.broadcast_to(levels, (4, 5))
    )
    count, level = np.asarray(degrees), np.asarray(levels)
    quantile = scipy.special.stdtrit
    step = 1e-4 * count
    numeric = (quantile(count + step, level) - quantile(count - step, level)) / (2 * step)
    np.testing.assert_allclose(by_degrees, numeric, rtol=2e-5, atol=1e-9)
    density = scipy.stats.t.pdf(quantile(count, level), count)
    np.testing.assert_allclose(by_level, 1.0 / density, rtol=1e-7)


def test_draws_and_verbs(hierarchy, world):
    residuals, mean = world
    law = reconcile_student(jnp.asarray(mean), hierarchy, residuals, prior_df=11.0)
    draws = jax.jit(lambda key: law.sample(200_000, key=key))(jax.random.key(0))
    assert float(jnp.max(jnp.abs(hierarchy.incoherence(draws)))) < 1e-12
    np.testing.assert_allclose(jnp.std(draws, axis=0), law.std, rtol=0.02)
    levels = jnp.array([0.02, 0.5, 0.9])
    got = jnp.quantile(draws, levels, axis=0)
    np.testing.assert_allclose(got, law.quantile(levels), atol=0.05 * float(jnp.max(law.std)))
    # Steps are uncorrelated, but their sizes go together, as the covariance is common to them.
    units = (draws[:, :, 0] - law.mean[:, 0]) / law.std[:, 0]
    df = float(law.df)
    assert abs(float(jnp.mean(units[:, 0] * units[:, 1]))) < 0.01
    together = float(jnp.mean(units[:, 0] ** 2 * units[:, 1] ** 2))
    assert together == pytest.approx((df - 2.0) / (df - 4.0), rel=0.02) and together > 1.08
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(2, 7)))
    whole, scale = law.cov, jnp.arange(1.0, 8.0)
    summed = law.cumulative()
    want = jnp.cumsum(jnp.cumsum(whole, axis=0), axis=2)
    np.testing.assert_allclose(summed.cov, want, atol=1e-12)
    np.testing.assert_allclose(summed.mean, jnp.cumsum(law.mean, axis=0), atol=1e-14)
    combined = law.aggregate(weights)
    want = jnp.einsum("ai,hikj,bj->hakb", weights, whole, weights)
    np.testing.assert_allclose(combined.cov, want, atol=1e-12)
    moved = law.affine(scale, jnp.ones((2, 7)))
    np.testing.assert_allclose(moved.std, scale * law.std, rtol=1e-12)
    np.testing.assert_allclose(moved.mean, scale * law.mean + 1.0, rtol=1e-12)
    assert law.marginal(2).mean.shape == (2, 1)
    heavy = StudentForecast(law.mean, law.step_scale, law.node_scale, jnp.asarray(2.0))
    assert np.all(np.isinf(heavy.std))


def test_gradients_and_export(hierarchy, world):
    residuals, mean = map(jnp.asarray, world)

    def loss(mean, residuals, weights, df):
        other = hierarchy.with_weights(weights)
        law = reconcile_student(mean, other, residuals, prior_df=df)
        return jnp.sum(law.quantile(jnp.asarray([0.1, 0.8])) ** 2)

    args = (mean, residuals, jnp.asarray([0.4, 0.1, 0.3, 0.2]), jnp.asarray(11.0))
    value = jax.jit(loss)
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*args)
    rng = np.random.default_rng(4)
    for index, slope in enumerate(slopes):
        way = jnp.asarray(rng.normal(size=slope.shape))
        step = 1e-5

        def moved(size, index=index, way=way):
            return value(*(a + size * way if i == index else a for i, a in enumerate(args)))

        numeric = float(moved(step) - moved(-step)) / (2 * step)
        assert float(jnp.sum(slope * way)) == pytest.approx(numeric, rel=1e-6)
    exported = jax.export.export(jax.jit(loss), platforms=["cuda"])(*args)
    assert "callback" not in exported.mlir_module()


def test_bad_input(hierarchy, world):
    residuals, mean = world
    mean = jnp.asarray(mean)
    holes = residuals.copy()
    holes[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"'b' are missing .*dropna"):
        reconcile_student(mean, hierarchy, holes)
    with pytest.raises(ValueError, match="'A' are all zero"):
        reconcile_student(mean, hierarchy, residuals * (np.arange(7) != 1))
    with pytest.raises(ValueError, match="exceed the number of nodes plus one, 8"):
        reconcile_student(mean, hierarchy, residuals, prior_df=8.0)
    with pytest.raises(ValueError, match="step to step"):
        moving = hierarchy.with_weights(np.ones((2, 4)))
        reconcile_student(mean, moving, residuals)
    with pytest.raises(ValueError, match="no dates"):
        reconcile_student(mean, hierarchy, residuals[:0])
