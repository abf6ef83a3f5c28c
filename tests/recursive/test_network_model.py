"""Networks as models: the anchor, what is learned, nothing ahead, checkpoints, backtests."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.evaluation.benchmarks import FirstOrder
from jaxfc.forecast import GaussianForecast
from jaxfc.recursive import (
    CategoricalHead,
    ConstantNet,
    Curriculum,
    DecayingNet,
    LinearNet,
    NetworkModel,
    Ramp,
    RecursiveNet,
    Training,
    WeightedVarianceNet,
)
from jaxfc.recursive.checkpoint import train_with_checkpoints
from jaxfc.results import RESULTS, is_okay

KEY = jax.random.key(0)
SHORT = Training(num_steps=30, batch_size=16, round_length=10, warm_up=3, average=0.8)
LONGER = Training(300, 32, 0.02, round_length=50, average=0.9, weight_decay=0.0)


def persistent(num_rows=160, seed=0):
    """Two AR(1) of slope 0.8, with holes."""
    rng = np.random.default_rng(seed)
    noise = 0.6 * rng.normal(size=(num_rows, 2))
    values = np.zeros((num_rows, 2))
    for t in range(1, num_rows):
        values[t] = 0.8 * values[t - 1] + noise[t]
    values[rng.random(values.shape) < 0.05] = np.nan
    values[-1] = 1.5, -1.5
    index = pd.bdate_range("2010-01-01", periods=num_rows)
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, ["A", "B"]), frequency="B")


@pytest.fixture(scope="module")
def panel():
    return persistent()


@pytest.fixture(scope="module")
def recursive(panel):
    model = NetworkModel(
        RecursiveNet(width=8, num_supervision=2, num_inner=2), 2, 8, training=SHORT
    )
    return model, model.fit(panel, key=KEY)


@pytest.fixture(scope="module")
def linear():
    model = NetworkModel(LinearNet(), 2, 4, training=LONGER, log_squares=False)
    return model, model.fit(persistent(600), key=KEY)


def test_fit_reports(recursive):
    _, fitted = recursive
    assert bool(is_okay(fitted.result)) and int(fitted.num_steps) == 30
    assert np.isfinite(fitted.loglik) and fitted.thinking.shape == (2,)
    assert np.isfinite(np.asarray(fitted.trace.validation)).all()
    np.testing.assert_allclose(fitted.trace.supervision, 1.5)
    forecast = fitted.forecast(2)
    assert isinstance(forecast, GaussianForecast)
    np.testing.assert_allclose(forecast.mean[:1], fitted.forecast(1).mean)
    np.testing.assert_allclose(forecast.cov[:1, :, :1], fitted.forecast(1).cov)
    path = fitted.simulate(6, key=KEY)
    assert path.shape == (6, 2) and np.isfinite(path).all()


def test_saved_and_loaded(recursive, tmp_path):
    _, fitted = recursive
    jaxfc.save(fitted, tmp_path / "net.jaxfc")
    again = jaxfc.load(tmp_path / "net.jaxfc")
    np.testing.assert_array_equal(again.forecast(2).mean, fitted.forecast(2).mean)


def test_what_is_linear_is_learned(linear):
    """The mean of a trained linear net is near 0.8 times the last value, its deviation near 0.6,
    and it beats the constant by about log(1 / 0.6)."""
    model, fitted = linear
    forecast = fitted.forecast(1)
    np.testing.assert_allclose(forecast.mean[0], [1.2, -1.2], atol=0.25)
    np.testing.assert_allclose(forecast.std[0], 0.6, atol=0.12)
    assert not bool(fitted.collapsed)
    constant = dataclasses.replace(model, architecture=ConstantNet()).fit(persistent(600), key=KEY)
    assert float(fitted.validation_loss) < float(constant.validation_loss) - 0.1
    assert bool(constant.collapsed)
    scale = constant.forecast(1).std
    np.testing.assert_allclose(scale[0], np.sqrt(0.36 / 0.36), atol=0.25)


def test_nothing_looks_ahead_and_hidden_cells_do_not_count(linear, panel):
    _, fitted = linear
    values, observed = panel.arrays()

    def mean(values, row):
        return jnp.sum(fitted.given(values[: row + 1], observed[: row + 1]).forecast(1).mean)

    slope = np.asarray(jax.grad(mean)(values, 60))
    np.testing.assert_array_equal(slope[61:], 0.0)
    np.testing.assert_array_equal(slope[~np.asarray(observed)], 0.0)
    assert np.abs(slope[60]).max() > 0.1
    # What the training holds back, and what is hidden, changes no weight.
    hidden = jnp.where(observed, values, 1e6)
    again = fitted.given(hidden, observed).forecast(1)
    np.testing.assert_array_equal(again.mean, fitted.given(values, observed).forecast(1).mean)


def test_an_untrained_net_is_its_anchor(panel):
    values, observed = panel.arrays()
    anchor = FirstOrder("estimated", "estimated")
    model = NetworkModel(DecayingNet(4), 2, 6, anchor=anchor, training=SHORT)
    fitted = eqx.filter_jit(model.untrained)(values, observed, key=KEY)
    alone = anchor.estimate(values[: model.num_training(160)], observed[: model.num_training(160)])
    ahead = jax.jit(lambda values, observed: alone.given(values, observed).forecast(2))
    expected = alone.given(values[-6:], observed[-6:]).forecast(2)
    found = fitted.forecast(2)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(found.cov, expected.cov, rtol=1e-10, atol=1e-14)
    # Every held-back example is scored at the anchor: its own log score, worked out here.
    score = []
    for origin in range(model.num_training(160) - 1, 158):
        rows = slice(origin - 5, origin + 1)
        law = ahead(values[rows], observed[rows])
        target, seen = (
            values[origin + 1 : origin + 3],
            np.asarray(observed[origin + 1 : origin + 3]),
        )
        errors = (np.asarray(target) - np.asarray(law.mean)) / np.asarray(law.std)
        each = 0.5 * errors**2 + np.log(np.asarray(law.std)) + 0.5 * np.log(2 * np.pi)
        score.extend(each[seen])
    np.testing.assert_allclose(fitted.validation_loss, np.mean(score), rtol=1e-9)


def test_divergence_keeps_the_last_good_weights(panel):
    wild = dataclasses.replace(SHORT, learning_rate=jnp.asarray(1e300), largest_norm=1e300)
    model = NetworkModel(LinearNet(), 1, 4, training=wild)
    fitted = model.fit(panel, key=KEY, throw=False)
    assert bool(fitted.result == RESULTS.diverged_training)
    start = eqx.filter_jit(model.untrained)(*panel.arrays(), key=KEY)
    np.testing.assert_allclose(fitted.forecast(1).mean, start.forecast(1).mean)
    assert int(fitted.num_steps) < 30
    with pytest.raises(RuntimeError, match="not finite"):
        model.fit(panel, key=KEY)


def test_early_stopping_keeps_the_best_round(panel):
    """On a learning rate that spoils weights, training stops `patience` rounds after the best."""
    eager = dataclasses.replace(
        LONGER, learning_rate=jnp.asarray(0.1), patience=2, round_length=10, warm_up=0
    )
    fitted = NetworkModel(LinearNet(), 1, 8, training=eager).fit(panel, key=KEY)
    validation = np.asarray(fitted.trace.validation)[0]
    ran = np.flatnonzero(np.isfinite(validation))
    assert len(ran) < len(validation)
    assert int(np.nanargmin(validation)) == ran[-1] - 2
    np.testing.assert_allclose(fitted.validation_loss, np.nanmin(validation), rtol=1e-12)
    assert int(fitted.num_steps) == 10 * len(ran)


def test_interrupted_training_goes_on_bit_for_bit(panel, tmp_path):
    curriculum = Curriculum(Ramp(1.0, 2.0, 20.0), Ramp(0.5, 0.0, 20.0), Ramp(-3.0, 0.0, 20.0))
    training = dataclasses.replace(
        SHORT, dropout=0.1, gradient_noise=0.01, variance_penalty=0.1, curriculum=curriculum
    )
    model = NetworkModel(DecayingNet(4), 2, 6, training=training)
    whole = train_with_checkpoints(model, panel, tmp_path / "whole", key=KEY)
    first = train_with_checkpoints(model, panel, tmp_path / "parts", key=KEY, max_rounds=1)
    assert int(first.num_steps) == 10
    parts = train_with_checkpoints(model, panel, tmp_path / "parts", key=KEY)
    assert int(parts.num_steps) == int(whole.num_steps) == 30
    leaves = (jax.tree.leaves(eqx.filter(fit, eqx.is_array)) for fit in (whole, parts))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    fitted = model.fit(panel, key=KEY)
    np.testing.assert_allclose(fitted.forecast(2).mean, whole.forecast(2).mean, rtol=1e-9)
    with pytest.raises(ValueError, match="another training: it differs in key"):
        train_with_checkpoints(model, panel, tmp_path / "parts", key=jax.random.key(1))
    with pytest.raises(ValueError, match="it differs in data"):
        train_with_checkpoints(model, persistent(seed=1), tmp_path / "parts", key=KEY)
    content = (tmp_path / "parts").read_bytes()
    (tmp_path / "parts").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged"):
        train_with_checkpoints(model, panel, tmp_path / "parts", key=KEY)


@pytest.mark.slow
def test_seeds_side_by_side_and_in_turn(panel):
    """Both ways train the same networks, and the forecast's outputs are their mean."""
    fits = []
    for side_by_side in (True, False):
        training = dataclasses.replace(SHORT, num_seeds=2, side_by_side=side_by_side)
        fits.append(NetworkModel(DecayingNet(3), 1, 4, training=training).fit(panel, key=KEY))
    means = [np.asarray(fit.forecast(1).mean) for fit in fits]
    np.testing.assert_allclose(means[0], means[1], rtol=1e-7)
    fitted = fits[1]
    single = [
        eqx.tree_at(
            lambda fit: fit.network,
            fitted,
            jax.tree.map(lambda leaf, seed=seed: leaf[seed : seed + 1], fitted.network),
        )
        for seed in range(2)
    ]
    each = [np.asarray(fit.forecast(1).mean) for fit in single]
    assert np.abs(each[0] - each[1]).max() > 1e-6
    np.testing.assert_allclose(np.mean(each, axis=0), means[1], rtol=1e-9)


def test_weighted_variance_is_the_recursion(panel):
    """Its scale is the textbook's exponentially weighted one, cut off at the window."""
    values, observed = panel.arrays()
    model = NetworkModel(WeightedVarianceNet(), 1, 20, training=SHORT)
    fitted = eqx.filter_jit(model.untrained)(values, observed, key=KEY)
    rows, seen = np.asarray(values)[-20:], np.asarray(observed)[-20:]
    centred = rows - np.asarray(fitted.scaling.mean)
    weights = np.exp(-np.arange(20)[::-1, None] / 16.0) * seen
    std = np.sqrt(np.sum(weights * centred**2, axis=0) / weights.sum(axis=0))
    ratio = np.log(std / np.asarray(fitted.scaling.std))
    expected = np.asarray(fitted.scaling.std) * np.exp(6 * np.tanh(ratio / 6))
    np.testing.assert_allclose(fitted.forecast(1).std[0], expected, rtol=1e-10)


def test_targets_and_backtest(panel):
    """One series forecast from both; the backtest and its table work unchanged."""
    model = NetworkModel(LinearNet(), 1, 4, training=SHORT, targets=("B",))
    result = jaxfc.backtest(
        model, panel, origins=jaxfc.Rolling(window=100, step=20), horizon=1, key=KEY
    )
    assert result.names == ("B",) and result.okay.all()
    scores = result.scores()
    assert np.isfinite(scores["rmse"]).all() and set(scores.index.get_level_values("series")) == {
        "B"
    }
    with pytest.raises(ValueError, match="cannot simulate the others"):
        model.fit(panel, key=KEY).simulate(3, key=KEY)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NetworkModel(window=300), "hold no example: 300 rows to look back"),
        (NetworkModel(LinearNet(), 40), "32 validation rows hold no example of 40 steps ahead"),
        (NetworkModel(LinearNet(), targets=("C",)), "targets must be different series"),
        (
            NetworkModel(LinearNet(), head=CategoricalHead((0.0, 1.0))),
            "none of the classes",
        ),
        (NetworkModel(RecursiveNet(patch=5)), "not made of patches of 5"),
    ],
)
def test_unfit_panels_are_refused(model, message, panel):
    with pytest.raises(ValueError, match=message):
        model.fit(panel, key=KEY)


def test_bad_options_are_refused(panel, linear):
    with pytest.raises(ValueError, match="pass key"):
        NetworkModel(LinearNet()).fit(panel)
    with pytest.raises(ValueError, match="trained for 2 steps ahead, 3 are asked for"):
        linear[1].forecast(3)
    with pytest.raises(ValueError, match="takes no anchor"):
        NetworkModel(WeightedVarianceNet(), anchor=FirstOrder("zero", "one"))
    with pytest.raises(ValueError, match="dropout is a share"):
        Training(dropout=1.0)
    with pytest.raises(ValueError, match="looks back 4 rows, the data have 3"):
        linear[1].given(*(part[:3] for part in panel.arrays()))
