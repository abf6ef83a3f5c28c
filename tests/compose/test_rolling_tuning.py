"""Hyperparameters by gradient on earlier windows: a plain loop, grids, no look-ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfc.compose.rolling_tuning import tune
from jaxfc.evaluation import crps_gaussian
from jaxfc.volatility import LinearShrinkage, RiskMetrics, VarianceModel, ZeroMean

NUM_ROWS, LENGTH, LOOKBACK, BLOCK, NUM_STEPS = 170, 60, 40, 12, 15
START = {"log_half_life": 1.0}


def volatile(seed=0):
    """One series whose standard deviation wanders slowly."""
    rng = np.random.default_rng(seed)
    logs = np.cumsum(0.05 * rng.normal(size=NUM_ROWS))
    return np.exp(logs) * rng.normal(size=NUM_ROWS)


def windows_of(rows):
    """Windows of `LENGTH` rows and the row that follows each."""
    return jnp.asarray(np.lib.stride_tricks.sliding_window_view(rows, LENGTH + 1))


def score(theta, window):
    """CRPS of the next row by exponential smoothing with a half-life, estimated on the window."""
    decay = 0.5 ** jnp.exp(-theta["log_half_life"])
    model = VarianceModel(RiskMetrics(decay), mean=ZeroMean())
    past = window[:-1, None]
    std = model.estimate(past, jnp.ones(past.shape, bool)).forecast(1).std[0]
    return crps_gaussian(jnp.zeros(1), std, window[-1:])[0]


@jax.jit
def tuned(windows):
    return tune(score, START, windows, lookback=LOOKBACK, block=BLOCK, num_steps=NUM_STEPS)


@pytest.fixture(scope="module")
def found():
    return tuned(windows_of(volatile()))


OPTIMISER = optax.adam(0.1)


def mean_of(theta, windows):
    """The mean score, and the scores."""
    scores = jax.vmap(lambda window: score(theta, window))(windows)
    return jnp.mean(scores), scores


@pytest.fixture(scope="module")
def one_step():
    """Loss, scores, slope, and theta and the optimiser's memory after a step."""

    @jax.jit
    def step(theta, memory, windows):
        (value, scores), slope = jax.value_and_grad(mean_of, has_aux=True)(theta, windows)
        updates, memory = OPTIMISER.update(slope, memory)
        return value, scores, slope, optax.apply_updates(theta, updates), memory

    return step


def at(log_half_life):
    theta = {"log_half_life": jnp.asarray(log_half_life)}
    return theta, OPTIMISER.init(theta)


def test_it_is_a_plain_loop(found, one_step):
    windows = windows_of(volatile())
    theta, memory = at(1.0)
    assert found.first == LOOKBACK and len(found.outcomes) == len(windows) - LOOKBACK
    scored = []
    for b in range(-(-(len(windows) - LOOKBACK) // BLOCK)):
        before = windows[b * BLOCK : b * BLOCK + LOOKBACK]
        for step in range(NUM_STEPS):
            value, _, _, theta, memory = one_step(theta, memory, before)
            np.testing.assert_allclose(found.losses[b, step], value, rtol=1e-12)
        chosen = found.hyperparameters["log_half_life"][b]
        np.testing.assert_allclose(chosen, theta["log_half_life"], rtol=1e-10)
        # The same program scores the block: the last `BLOCK` of as many windows as it takes.
        end = min(LOOKBACK + (b + 1) * BLOCK, len(windows))
        number = end - LOOKBACK - b * BLOCK
        scored.extend(one_step(theta, memory, windows[end - LOOKBACK : end])[1][-number:])
    np.testing.assert_allclose(found.outcomes, scored, rtol=1e-10)


def test_the_loss_falls_to_that_of_a_grid(found, one_step):
    """On the windows before the last block."""
    last = len(found.losses) - 1
    before = windows_of(volatile())[last * BLOCK : last * BLOCK + LOOKBACK]
    along = [float(one_step(*at(x), before)[0]) for x in np.linspace(-1.0, 6.0, 29)]
    first = float(one_step(*at(1.0), before)[0])
    assert first - min(along) > 1e-3
    assert float(found.losses[last, -1]) - min(along) < 0.2 * (first - min(along))


def test_the_slope_of_the_score_is_that_of_differences(one_step):
    windows = windows_of(volatile())[:LOOKBACK]
    for place in (1.0, 3.0):
        ends = [float(one_step(*at(place + s), windows)[0]) for s in (1e-5, -1e-5)]
        slope = one_step(*at(place), windows)[2]
        numeric = (ends[0] - ends[1]) / 2e-5
        assert float(slope["log_half_life"]) == pytest.approx(numeric, rel=1e-6)


def test_later_data_change_nothing_before_them(found):
    """Row r is the outcome of window r - LENGTH: whatever comes after the windows of a block leaves
    its hyperparameters, losses and scores the same to the last bit."""
    block = 3
    last = LOOKBACK + block * BLOCK + LENGTH  # the row that the first window of the block scores
    rows = volatile()
    rows[last:] *= -7.0
    changed = tuned(windows_of(rows))
    ours, theirs = (x.hyperparameters["log_half_life"] for x in (found, changed))
    np.testing.assert_array_equal(ours[: block + 1], theirs[: block + 1])
    np.testing.assert_array_equal(found.losses[: block + 1], changed.losses[: block + 1])
    num_same = block * BLOCK
    np.testing.assert_array_equal(found.outcomes[:num_same], changed.outcomes[:num_same])
    assert not np.array_equal(ours[block + 1 :], theirs[block + 1 :])
    assert float(found.outcomes[num_same]) != float(changed.outcomes[num_same])


@pytest.mark.slow
def test_the_slope_of_a_choice_by_later_rows_is_zero():
    """With a gap: derivatives of theta of a block by every window from the gap on."""
    rows = jnp.asarray(volatile()[:40])
    index = jnp.arange(40 - 9)[:, None] + jnp.arange(10)

    def chosen(rows):
        found = tune(
            score, START, rows[index], lookback=10, block=5, gap=2, num_steps=2, batch_size=4
        )
        return found.hyperparameters["log_half_life"]

    slopes = np.asarray(jax.jit(jax.jacfwd(chosen))(rows))
    for block, slope in enumerate(slopes):
        last = block * 5 + 10 - 1 + 9  # the last row of the last window that the block learns from
        assert np.all(slope[last + 1 :] == 0.0) and slope[last] != 0.0


def test_a_sharpe_ratio_is_raised_through_shrinkage():
    """Minimum-variance weights of a shrunk correlation: the objective of all windows together."""
    rng = np.random.default_rng(1)
    truth = 0.3 + 0.7 * np.eye(8)
    rows = rng.normal(size=(312, 8)) @ np.linalg.cholesky(truth).T + 0.3
    windows = np.swapaxes(np.lib.stride_tricks.sliding_window_view(rows, 13, axis=0), 1, 2)

    def earned(theta, window):
        past = window[:-1] - jnp.mean(window[:-1], axis=0)
        target = LinearShrinkage(jax.nn.sigmoid(theta))
        inverse = jnp.linalg.solve(target.corr(past, jnp.ones(past.shape, bool)), jnp.ones(8))
        return window[-1] @ inverse / jnp.sum(inverse)

    def minus_sharpe(returns):
        return -jnp.mean(returns) / jnp.std(returns)

    @jax.jit
    def run(windows):
        options = dict(lookback=280, block=20, num_steps=30, optimiser=optax.adam(0.3))
        found = tune(earned, -4.0, windows, objective=minus_sharpe, **options)
        grid = jnp.linspace(-6.0, 6.0, 61)
        before = jax.vmap(lambda x: jax.vmap(lambda w: earned(x, w))(windows[:280]))(grid)
        return found.losses[0], jax.vmap(minus_sharpe)(before)

    losses, along = run(jnp.asarray(windows))
    start = float(along[10])  # that of -4
    assert float(losses[0]) == pytest.approx(start, rel=1e-9)
    assert float(jnp.min(along)) < start - 0.05
    assert float(losses[-1]) < 0.9 * float(jnp.min(along)) + 0.1 * start


def test_a_step_that_is_not_finite_is_not_taken():
    """A window in which the outcome is NaN stops the search while it is looked back to."""
    windows = jnp.full((12, 1), 10.0).at[4].set(jnp.nan)
    found = jax.jit(
        lambda w: tune(lambda x, row: (x - row[0]) ** 2, 0.0, w, lookback=3, block=1, num_steps=2)
    )(windows)
    stopped = np.isnan(np.asarray(found.losses)).all(axis=1)
    assert list(np.flatnonzero(stopped)) == [2, 3, 4]
    thetas = np.asarray(found.hyperparameters)
    assert np.isfinite(thetas).all() and np.all(thetas[2:5] == thetas[1])
    assert np.all(np.diff(thetas[4:]) > 0)


def test_bad_input_is_named():
    windows = jnp.zeros((10, 3))
    with pytest.raises(ValueError, match="10 windows leave none to score"):
        tune(score, START, windows, lookback=8, gap=2)
    with pytest.raises(ValueError, match="gap must be 0 or more"):
        tune(score, START, windows, lookback=8, gap=-1)
    with pytest.raises(ValueError, match="block must be at least 1"):
        tune(score, START, windows, lookback=8, block=0)
