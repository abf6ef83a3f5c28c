"""The bootstrap's law by counting, confidence sets and superior ability against arch."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from arch.bootstrap import (
    MCS,
    SPA,
    CircularBlockBootstrap,
    MovingBlockBootstrap,
    StationaryBootstrap,
)

from jaxfc.evaluation import calibration, comparison, conformal, multiple

NUM_CASES, NUM_MODELS, NUM_DRAWS, BLOCK, SEED = 120, 5, 400, 6, 20
BOOTSTRAPS = {
    "stationary": StationaryBootstrap,
    "circular": CircularBlockBootstrap,
    "moving block": MovingBlockBootstrap,
}
RNG = np.random.default_rng(8)
ERRORS = RNG.normal(size=(NUM_CASES, NUM_MODELS + 1)) + 0.8 * RNG.normal(size=(NUM_CASES, 1))
ERRORS[1:] += 0.4 * ERRORS[:-1]
LOSSES = (ERRORS * np.array([1.0, 0.8, 0.97, 1.15, 1.05, 1.1])) ** 2
BENCHMARK, LOSSES = LOSSES[:, 0], LOSSES[:, 1:]


def arch_indices(kind):
    """The indices that arch draws with the seed."""
    bootstrap = BOOTSTRAPS[kind](BLOCK, np.arange(NUM_CASES), seed=SEED)
    return np.stack([data[0][0] for data in bootstrap.bootstrap(NUM_DRAWS)])


INDICES = {kind: arch_indices(kind) for kind in BOOTSTRAPS}


@pytest.mark.parametrize(("statistic", "method"), [("range", "R"), ("max", "max")])
def test_confidence_set_is_that_of_arch(statistic, method):
    for kind in BOOTSTRAPS:
        peer = MCS(LOSSES, 0.1, NUM_DRAWS, BLOCK, method, kind, seed=SEED)  # pyright: ignore
        peer.compute()
        expected = peer.pvalues.sort_index()["Pvalue"].to_numpy()
        # A size in the middle of the p-values, so that some models are left out.
        peer.size = float(np.median(expected)) + 1e-9
        got = multiple.model_confidence_set(
            LOSSES, INDICES[kind], size=peer.size, statistic=statistic
        )
        np.testing.assert_allclose(got.p_values, expected, rtol=0, atol=1e-12)
        assert np.flatnonzero(got.included).tolist() == peer.included
        order = np.argsort(np.asarray(got.elimination_order))
        assert order.tolist() == peer.pvalues.index.tolist()
        assert 0.0 < np.sort(expected)[-2] < 1.0 and 0 < len(peer.excluded) < NUM_MODELS


@pytest.mark.parametrize("nested", [False, True])
def test_superior_ability_is_that_of_arch(nested):
    differences = BENCHMARK[:, None] - LOSSES
    for kind in BOOTSTRAPS:
        options = (BLOCK, NUM_DRAWS, kind)
        peer = SPA(BENCHMARK, LOSSES, *options, nested=nested, seed=SEED)
        peer.compute()
        length = None if nested else BLOCK
        got = multiple.superior_predictive_ability(
            BENCHMARK, LOSSES, INDICES[kind], block_length=length, studentise=False
        )
        values = np.array([got.p_lower, got.p_consistent, got.p_upper])
        np.testing.assert_allclose(values, peer.pvalues, rtol=0, atol=1e-12)
        assert int(got.best) == differences.mean(axis=0).argmax()
        np.testing.assert_allclose(got.statistic, differences.mean(axis=0).max(), rtol=1e-12)
        # arch 8 never divides by a standard deviation: it is given divided losses instead.
        scale = deviations(differences, INDICES[kind], nested)
        peer = SPA(np.zeros(NUM_CASES), -differences / scale, *options, nested=nested, seed=SEED)
        peer.compute()
        got = multiple.superior_predictive_ability(
            BENCHMARK, LOSSES, INDICES[kind], block_length=length
        )
        values = np.array([got.p_lower, got.p_consistent, got.p_upper])
        np.testing.assert_allclose(values, peer.pvalues, rtol=0, atol=1e-12)
        expected = np.sqrt(NUM_CASES) * differences.mean(axis=0) / scale
        np.testing.assert_allclose(got.statistics, expected, rtol=1e-11)
        assert values[0] <= values[1] <= values[2] and values[0] < values[2]


def deviations(differences, indices, nested):
    """Standard deviations of the mean, times sqrt(n): over draws, or Hansen's kernel lag by lag."""
    if nested:
        means = np.stack([differences[draw].mean(axis=0) for draw in indices])
        return np.sqrt(NUM_CASES * means.var(axis=0))
    centred, stay = differences - differences.mean(axis=0), 1 - 1 / BLOCK
    total = (centred**2).mean(axis=0)
    for lag in range(1, NUM_CASES):
        share = lag / NUM_CASES
        weight = (1 - share) * stay**lag + share * stay ** (NUM_CASES - lag)
        total += 2 * weight * (centred[lag:] * centred[:-lag]).sum(axis=0) / NUM_CASES
    return np.sqrt(total)


def test_missing_cases_are_left_out_for_all_models():
    gaps = LOSSES.copy()
    gaps[[4, 50], [1, 3]] = np.nan
    kept = np.isfinite(gaps).all(axis=1)
    mean, errors = multiple.mean_and_draws(jnp.asarray(gaps), INDICES["circular"])
    np.testing.assert_allclose(mean, LOSSES[kept].mean(axis=0), rtol=1e-12)
    for number in (0, 7):
        draw = INDICES["circular"][number]
        expected = LOSSES[draw[kept[draw]]].mean(axis=0) - LOSSES[kept].mean(axis=0)
        np.testing.assert_allclose(errors[number], expected, rtol=1e-10, atol=1e-13)
    unknown = multiple.model_confidence_set(np.full_like(LOSSES, np.nan), INDICES["circular"])
    assert np.all(np.isnan(unknown.p_values)) and not np.any(unknown.included)


@pytest.mark.parametrize("statistic", ["range", "max"])
def test_equal_models_stay_together(statistic):
    twins = np.stack([LOSSES[:, 0], LOSSES[:, 0], LOSSES[:, 0] + 1.0], 1)
    got = multiple.model_confidence_set(twins, INDICES["stationary"], statistic=statistic)
    np.testing.assert_array_equal(got.p_values, [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(got.included, [True, True, False])
    ability = multiple.superior_predictive_ability(
        LOSSES[:, 0], twins[:, :2], INDICES["stationary"], block_length=BLOCK
    )
    assert float(ability.statistic) == 0.0 and float(ability.p_consistent) == 1.0


def test_blocks_have_the_length_and_the_places_of_their_kind():
    key = jax.random.key(2)
    drawn = {
        kind: np.asarray(multiple.block_indices(60, 500, 7, kind, key=key))
        for kind in ("stationary", "circular", "moving")
    }
    for kind in ("circular", "moving"):
        places = np.arange(60) % 7 > 0
        step = (np.diff(drawn[kind], axis=1) % 60 == 1)[:, places[1:]]
        assert step.all()
        starts = drawn[kind][:, ::7]
        highest = 59 if kind == "circular" else 53
        assert starts.min() == 0 and starts.max() == highest
    assert np.all(np.diff(drawn["moving"], axis=1)[:, places[1:]] == 1)
    carried_on = (np.diff(drawn["stationary"], axis=1) % 60 == 1).mean()
    # A new block begins at the next case by chance, too.
    expected = 1 - 1 / 7 + 1 / 7 / 60
    assert carried_on == pytest.approx(expected, abs=4 * np.sqrt(expected / 7 / (500 * 59)))
    for kind in ("stationary", "circular"):
        counts = np.bincount(drawn[kind].ravel(), minlength=60)
        assert counts.std() / counts.mean() < 0.1 and counts.min() > 0


def test_a_draw_depends_on_the_key_and_its_number_only():
    few, more, other = (
        np.asarray(multiple.block_indices(40, draws, 4.5, key=jax.random.key(seed)))
        for draws, seed in ((3, 0), (8, 0), (3, 1))
    )
    np.testing.assert_array_equal(few, more[:3])
    assert not np.array_equal(few, other) and not np.array_equal(few[0], few[1])
    assert few.min() >= 0 and few.max() < 40


def test_variance_of_stationary_draws_is_the_closed_form():
    indices = multiple.block_indices(NUM_CASES, 20_000, 4.0, key=jax.random.key(5))
    _, errors = multiple.mean_and_draws(jnp.asarray(LOSSES), indices)
    centred = jnp.asarray(LOSSES - LOSSES.mean(axis=0))
    closed = multiple.stationary_variance(centred, jnp.asarray(120.0), jnp.asarray(4.0))
    simulated = NUM_CASES * np.var(np.asarray(errors), axis=0)
    # The variance of 20,000 nearly normal draws has a relative standard error of 1 %.
    np.testing.assert_allclose(simulated, closed, rtol=0.05)


def test_many_data_sets_at_once_cover_and_do_not_reject():
    num_sets, size = 500, 0.1
    indices = multiple.block_indices(100, 200, 1, "circular", key=jax.random.key(0))

    def one_set(key):
        losses = jax.random.normal(key, (100, 4)) ** 2
        in_set = multiple.model_confidence_set(losses[:, 1:], indices, size=size).included
        ability = multiple.superior_predictive_ability(losses[:, 0], losses[:, 1:], indices)
        return jnp.all(in_set), ability.p_upper < size

    keys = jax.random.split(jax.random.key(7), num_sets)
    together, rejected = map(np.asarray, jax.jit(jax.vmap(one_set))(keys))
    band = 3.5 * np.sqrt(size * (1 - size) / num_sets)
    # All models are best: the set is to keep all of them with probability 1 - size.
    assert together.mean() == pytest.approx(1 - size, abs=band)
    assert rejected.mean() == pytest.approx(size, abs=band)


def test_comparisons_lower_for_cuda():
    def everything(benchmark, losses, indices, key):
        drawn = multiple.block_indices(NUM_CASES, 20, BLOCK, key=key)
        intervals = losses[:, :2] - 1.0, losses[:, :2] + 1.0
        return (
            multiple.model_confidence_set(losses, indices, statistic="range"),
            multiple.model_confidence_set(losses, drawn, statistic="max"),
            multiple.superior_predictive_ability(benchmark, losses, drawn, block_length=BLOCK),
            comparison.diebold_mariano(losses, losses[:, ::-1], horizon=2),
            comparison.giacomini_white(losses[:, 0], benchmark),
            conformal.AdaptiveConformal().calibrate(*intervals, losses[:, :2], 0.9),
            conformal.QuantileTracker(0.1).calibrate(*intervals, losses[:, :2], 0.9),
            calibration.berkowitz(losses),
            calibration.conditional_coverage((losses > 1.0).astype(float), 0.1),
        )

    arguments = (BENCHMARK, LOSSES, INDICES["circular"], jax.random.key(0))
    exported = jax.export.export(jax.jit(everything), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)


def test_what_does_not_fit_is_refused():
    key, indices = jax.random.key(0), INDICES["circular"]
    for length, kind in ((0.5, "stationary"), (2.5, "circular"), (41, "moving")):
        with pytest.raises(ValueError, match="block_length must be"):
            multiple.block_indices(40, 3, length, kind, key=key)  # pyright: ignore
    with pytest.raises(ValueError, match="at least 2 models"):
        multiple.model_confidence_set(LOSSES[:, :1], indices)
    with pytest.raises(ValueError, match="at least 3 cases"):
        multiple.superior_predictive_ability(BENCHMARK[:2], LOSSES[:2], indices[:, :2] % 2)
    with pytest.raises(Exception, match="indices"):
        multiple.model_confidence_set(LOSSES, indices[:, :9])
    with pytest.raises(Exception, match="statistic"):
        multiple.model_confidence_set(LOSSES, indices, statistic="mean")  # pyright: ignore
    with pytest.raises(Exception, match="kind"):
        multiple.block_indices(40, 3, 4, "fixed", key=key)  # pyright: ignore
