"""Draws of hierarchies: whole dates of errors, ranks, coverage of conformal sets; coherence of
every draw, gaps by name, lowering for CUDA."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.hierarchy import (
    Hierarchy,
    MinT,
    bootstrap_forecast,
    conformal,
    copula_forecast,
    reconcile,
    reconcile_means,
)

pytestmark = pytest.mark.slow

MATRIX = np.array([[0.4, 0.1, 0.3, 0.2], [0.8, 0.2, 0.0, 0.0], [0.0, 0.0, 0.6, -0.4]])


@pytest.fixture(scope="module")
def hierarchy():
    frame = pd.DataFrame(MATRIX, index=["top", "A", "B"], columns=["a", "b", "c", "d"])
    return Hierarchy.from_matrix(frame)


def dated(num_dates, num_series):
    """Errors that tell their date and series: date + series / 100."""
    return np.arange(1.0, num_dates + 1)[:, None] + np.arange(num_series) / 100.0


def test_blocks_of_whole_dates(hierarchy):
    mean = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)))
    errors = dated(12, 7)
    law = bootstrap_forecast(
        mean, hierarchy, errors, num_draws=400, key=jax.random.key(0), block_length=2
    )
    moved = np.asarray(law.draws - mean)
    dates = np.round(moved[..., 0])
    np.testing.assert_allclose(moved, dates[..., None] + np.arange(7) / 100.0, atol=1e-12)
    assert np.all(dates[:, 1] == dates[:, 0] + 1) and np.all(dates[:, 3] == dates[:, 2] + 1)
    assert set(dates[:, 0]) == set(range(1, 12)) and np.any(dates[:, 2] != dates[:, 1] + 1)
    # All blocks are equally likely, and blocks of a draw are independent.
    counts = np.bincount(dates[:, 0].astype(int), minlength=12)[1:]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(dates[:, 0], dates[:, 2])[0, 1]) < 0.2
    whole = bootstrap_forecast(mean, hierarchy, errors, num_draws=50, key=jax.random.key(1))
    steps = np.diff(np.asarray(whole.draws - mean)[..., 0], axis=1)
    np.testing.assert_allclose(steps, 1.0, atol=1e-12)


def test_errors_of_whole_origins(hierarchy):
    rng = np.random.default_rng(1)
    paths, mean = rng.normal(size=(6, 3, 7)), jnp.asarray(rng.normal(size=(3, 7)))
    law = bootstrap_forecast(
        mean, hierarchy, paths, num_draws=60, key=jax.random.key(0), centred=True
    )
    centred = paths - paths.mean(axis=0)
    moved = np.asarray(law.draws - mean)
    found = np.abs(moved[:, None] - centred).max(axis=(2, 3)).min(axis=1)
    assert np.max(found) < 1e-12
    with pytest.raises(ValueError, match="whole origins"):
        bootstrap_forecast(
            mean, hierarchy, paths, num_draws=9, key=jax.random.key(0), block_length=2
        )


def test_bootstrap_then_reconcile(hierarchy):
    rng = np.random.default_rng(2)
    residuals, mean = rng.normal(size=(30, 7)), jnp.asarray(rng.normal(size=(2, 7)))
    law = bootstrap_forecast(mean, hierarchy, residuals, num_draws=100, key=jax.random.key(0))
    got = reconcile(law, hierarchy, MinT("shrink"), residuals=residuals)
    assert isinstance(got, SampleForecast)
    assert float(jnp.max(jnp.abs(hierarchy.incoherence(got.draws)))) < 1e-12
    one = reconcile_means(law.draws[7], hierarchy, MinT("shrink"), residuals=residuals)
    np.testing.assert_allclose(got.draws[7], one, atol=1e-12)


def test_gaps_are_named_or_skipped(hierarchy):
    errors = dated(12, 7)
    errors[4, 3] = np.nan
    mean = jnp.zeros((2, 7))
    with pytest.raises(ValueError, match=r"'a' are missing .*skip"):
        bootstrap_forecast(mean, hierarchy, errors, num_draws=9, key=jax.random.key(0))

    def skipping(errors):
        return bootstrap_forecast(
            mean, hierarchy, errors, num_draws=300, key=jax.random.key(0), incomplete="skip"
        )

    draws = skipping(errors).draws
    starts = np.unique(np.round(np.asarray(draws)[:, 0, 0]))
    np.testing.assert_array_equal(starts, [1, 2, 3, 6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(jax.jit(lambda e: skipping(e).draws)(errors), draws)
    errors[::2, 5] = np.nan
    with pytest.raises(ValueError, match=r"no 2 consecutive dates .* most often: 'c', 'a'"):
        skipping(errors)
    errors[1, 6] = np.inf
    with pytest.raises(ValueError, match="'d' are infinite"):
        skipping(errors)
    with pytest.raises(ValueError, match="errors of shape"):
        bootstrap_forecast(mean, hierarchy, errors[:, :6], num_draws=9, key=jax.random.key(0))
    with pytest.raises(ValueError, match="2 consecutive dates"):
        bootstrap_forecast(mean, hierarchy, dated(1, 7), num_draws=9, key=jax.random.key(0))
    with pytest.raises(ValueError, match="block_length must be between"):
        bootstrap_forecast(
            mean, hierarchy, dated(9, 7), num_draws=9, key=jax.random.key(0), block_length=3
        )


@pytest.fixture(scope="module")
def dependent():
    """Errors of the bottom series with heavy tails and a strong common part; a Gaussian law."""
    rng = np.random.default_rng(3)
    errors = rng.standard_t(3, size=(40, 1)) * [1.0, 1.0, -1.0, 0.2] + rng.normal(size=(40, 4))
    root = rng.normal(size=(8, 8))
    cov = (root @ root.T).reshape(2, 4, 2, 4)
    return errors, GaussianForecast(jnp.asarray(rng.normal(size=(2, 4))), jnp.asarray(cov))


def test_ranks_of_draws_are_those_of_the_errors(hierarchy, dependent):
    errors, bottom = dependent
    law = copula_forecast(bottom, hierarchy, errors, key=jax.random.key(0))
    draws = np.asarray(law.draws)
    assert draws.shape == (39, 2, 7)
    assert float(jnp.max(jnp.abs(hierarchy.incoherence(law.draws)))) < 1e-12
    both = np.concatenate([draws[:, 0, 3:], draws[:, 1, 3:]], axis=1)
    template = np.concatenate([errors[:-1], errors[1:]], axis=1)
    np.testing.assert_allclose(
        scipy.stats.spearmanr(both).statistic, scipy.stats.spearmanr(template).statistic, atol=1e-12
    )
    # The marginal law is that of `bottom`: its draws, in another order.
    own = np.asarray(bottom.sample(39, key=jax.random.split(jax.random.key(0), 3)[1]))
    np.testing.assert_array_equal(np.sort(draws[..., 3:], axis=0), np.sort(own, axis=0))


def test_copula_of_many_draws(hierarchy, dependent):
    errors, bottom = dependent
    law = copula_forecast(bottom, hierarchy, errors, key=jax.random.key(1), num_draws=20_000)
    np.testing.assert_allclose(law.std[:, 3:], bottom.std, rtol=0.03)
    got = scipy.stats.spearmanr(np.asarray(law.draws[:, 0, 3:])).statistic
    np.testing.assert_allclose(got, scipy.stats.spearmanr(errors[:-1]).statistic, atol=0.03)
    # Blocks repeat: equal errors leave their draws in random order, not in that of the draws.
    same = np.asarray(
        copula_forecast(
            bottom, hierarchy, np.ones((40, 4)), key=jax.random.key(1), num_draws=5000
        ).draws[:, 0, 3:]
    )
    assert np.max(np.abs(np.corrcoef(same.T) - np.eye(4))) < 0.06


def test_copula_with_weights_of_each_step(hierarchy, dependent):
    errors, bottom = dependent
    moving = hierarchy.with_weights(np.array([[1.0, 2.0, 3.0, 4.0], [-0.5, 0.1, 0.2, 0.3]]))
    law = copula_forecast(bottom, moving, errors, key=jax.random.key(0))
    plain = copula_forecast(bottom, hierarchy, errors, key=jax.random.key(0))
    np.testing.assert_array_equal(law.draws[..., 3:], plain.draws[..., 3:])
    for step in range(2):
        want = moving.step(step).aggregate(plain.draws[:, step, 3:])
        np.testing.assert_allclose(law.draws[:, step], want, atol=1e-13)


def test_bad_input_of_copulas(hierarchy, dependent):
    errors, bottom = dependent
    holes = errors.copy()
    holes[7, 1] = np.nan
    with pytest.raises(ValueError, match="'b' are missing"):
        copula_forecast(bottom, hierarchy, holes, key=jax.random.key(0))
    law = copula_forecast(bottom, hierarchy, holes, key=jax.random.key(0), incomplete="skip")
    assert law.draws.shape[0] == 37 and bool(jnp.all(jnp.isfinite(law.draws)))
    # Under jit gaps are not seen: they spoil their series rather than pass for the largest error.
    key = jax.random.key(0)
    traced = jax.jit(lambda e: copula_forecast(bottom, hierarchy, e, key=key).draws)(holes)
    assert bool(jnp.all(jnp.isnan(traced[..., 4]))) and bool(jnp.all(jnp.isfinite(traced[..., 3])))
    with pytest.raises(ValueError, match="give num_draws"):
        jax.jit(lambda e: copula_forecast(bottom, hierarchy, e, key=key, incomplete="skip"))(holes)
    with pytest.raises(ValueError, match="3 series, the hierarchy 4"):
        copula_forecast(
            bottom.aggregate(jnp.ones((3, 4))), hierarchy, errors, key=jax.random.key(0)
        )


def coherent_errors(rng, count, horizon):
    bottom = rng.standard_t(4, size=(count, horizon, 4)) + rng.normal(size=(count, horizon, 1))
    return bottom @ np.vstack([MATRIX, np.eye(4)]).T


def test_order_statistics(hierarchy):
    rng = np.random.default_rng(4)
    errors, mean = coherent_errors(rng, 19, 2), jnp.asarray(rng.normal(size=(2, 7)))
    sets = conformal(mean, hierarchy, errors)
    ordered = np.sort(errors, axis=0)
    lower, upper = sets.interval(0.9)
    np.testing.assert_allclose(lower, mean + ordered[0], atol=1e-14)
    np.testing.assert_allclose(upper, mean + ordered[18], atol=1e-14)
    lower, upper = sets.interval(0.5)
    np.testing.assert_allclose(lower, mean + ordered[4], atol=1e-14)
    np.testing.assert_allclose(upper, mean + ordered[14], atol=1e-14)
    got = sets.quantile(jnp.array([0.05, 0.5, 0.95, 0.99]))
    want = [mean + ordered[0], mean + ordered[9], mean + ordered[18], np.full((2, 7), np.inf)]
    np.testing.assert_allclose(got, np.stack(want), atol=1e-14)
    law = sets.forecast()
    assert float(jnp.max(jnp.abs(hierarchy.incoherence(law.draws)))) < 1e-12
    np.testing.assert_allclose(law.draws[..., 3:] - mean[:, 3:], errors[..., 3:], atol=1e-13)


def test_regions(hierarchy):
    rng = np.random.default_rng(5)
    errors, mean = coherent_errors(rng, 19, 2), jnp.asarray(rng.normal(size=(2, 7)))
    scale = rng.uniform(0.5, 2.0, size=(2, 7))
    sets = conformal(mean, hierarchy, errors, scale=jnp.asarray(scale))
    scores = np.abs(errors) / scale
    lower, upper = sets.region(0.9)
    reach = np.sort(scores.max(axis=2), axis=0)[17][:, None] * scale
    np.testing.assert_allclose(upper, mean + reach, atol=1e-13)
    np.testing.assert_allclose(lower, mean - reach, atol=1e-13)
    _, upper = sets.region(0.9, path=True)
    reach = np.sort(scores.max(axis=(1, 2)))[17] * scale
    np.testing.assert_allclose(upper, mean + reach, atol=1e-13)
    own = np.sqrt(np.mean(errors**2, axis=0))
    np.testing.assert_allclose(conformal(mean, hierarchy, errors).scale, own, rtol=1e-12)


def test_coverage(hierarchy):
    """With 19 origins exactly 90 percent, whatever the law: each node, and all at once."""
    worlds = coherent_errors(np.random.default_rng(6), 6000 * 20, 1).reshape(6000, 20, 1, 7)

    def covered(errors):
        sets = conformal(jnp.zeros((1, 7)), hierarchy, errors[:19], scale=jnp.ones((1, 7)))
        lower, upper = sets.interval(0.9)
        each = (errors[19] >= lower) & (errors[19] <= upper)
        lower, upper = sets.region(0.9)
        together = jnp.all((errors[19] >= lower) & (errors[19] <= upper))
        own = conformal(jnp.zeros((1, 7)), hierarchy, errors[:19]).region(0.9)
        scaled = jnp.all((errors[19] >= own[0]) & (errors[19] <= own[1]))
        return each[0], together, scaled

    each, together, scaled = jax.jit(jax.vmap(covered))(jnp.asarray(worlds))
    error = np.sqrt(0.9 * 0.1 / 6000)
    np.testing.assert_allclose(np.mean(each, axis=0), 0.9, atol=4 * error)
    assert abs(float(jnp.mean(together)) - 0.9) < 4 * error
    # Scales from the same errors: somewhat too narrow, as the docstring says.
    assert 0.84 < float(jnp.mean(scaled)) < 0.9


def test_missing_errors_and_bad_input(hierarchy):
    rng = np.random.default_rng(7)
    errors, mean = coherent_errors(rng, 25, 2), jnp.zeros((2, 7))
    errors[:6, 1, 4] = np.nan
    sets = conformal(mean, hierarchy, errors)
    lower, _ = sets.interval(0.9)
    assert float(lower[1, 4]) == np.min(errors[6:, 1, 4])
    assert float(lower[0, 4]) == np.min(errors[:, 0, 4])
    reach = np.abs(errors[6:] / np.asarray(sets.scale)).max(axis=(1, 2))
    _, upper = sets.region(0.9, path=True)
    np.testing.assert_allclose(upper, np.sort(reach)[17] * sets.scale, rtol=1e-12)
    assert sets.forecast().draws.shape == (19, 2, 7)
    with pytest.raises(ValueError, match=r"errors at 39 origins; 'top', .* have 19"):
        sets.interval(0.95)
    with pytest.raises(ValueError, match=r"needs 99 origins .* got 19"):
        sets.region(0.99)
    with pytest.raises(ValueError, match="scale of 'b' is not positive"):
        conformal(mean, hierarchy, errors * (np.arange(7) != 4))
    with pytest.raises(ValueError, match="errors of 2 steps"):
        conformal(mean, hierarchy, errors[:, 0])
    errors[3, 0, 2] = -np.inf
    with pytest.raises(ValueError, match="'B' are infinite"):
        conformal(mean, hierarchy, errors)


def test_verbs_lower_for_cuda(hierarchy):
    def verbs(mean, errors, paths, key):
        one = bootstrap_forecast(mean, hierarchy, errors, num_draws=9, key=key, incomplete="skip")
        law = SampleForecast(one.draws[..., 3:])
        two = copula_forecast(law, hierarchy, errors[:, 3:], key=key, num_draws=9)
        sets = conformal(mean, hierarchy, paths)
        return one.draws, two.draws, sets.interval(0.5), sets.region(0.5), sets.forecast().draws

    args = (jnp.zeros((2, 7)), jnp.zeros((12, 7)), jnp.ones((19, 2, 7)), jax.random.key(0))
    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(*args)
    assert "callback" not in exported.mlir_module()
