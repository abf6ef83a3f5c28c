"""Every head and every rival is trained: scores on held-back rows lie between those of the anchor
and of the law that the rows were drawn from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxfc
from jaxfc.recursive import (
    CategoricalHead,
    DecayingNet,
    GatedNet,
    GaussianHead,
    LinearNet,
    LowRankHead,
    MixerNet,
    MixtureHead,
    MultilayerNet,
    NetworkModel,
    PatchAttentionNet,
    QuantileHead,
    RecursiveNet,
    StudentHead,
    Training,
)
from jaxfc.results import is_okay

NUM_ROWS, NUM_HELD = 240, 60
SLOPE, CORR = 0.9, 0.8
STD = np.sqrt(1.0 - SLOPE**2)
KEY = jax.random.key(0)
TRAINING = Training(
    120, 32, 0.03, round_length=40, warm_up=10, average=0.8, weight_decay=0.0, validation=0.25
)
HEADS = (StudentHead(), MixtureHead(2), QuantileHead(), LowRankHead(), CategoricalHead((-1.0, 1.0)))
RIVALS = (
    MultilayerNet(8, 1),
    MixerNet(8, 2, num_blocks=1),
    GatedNet(8),
    DecayingNet(8),
    PatchAttentionNet(8, 2, num_blocks=1, num_heads=2),
    *(
        RecursiveNet(8, mixing, 2, num_blocks=1, num_inner=1, num_supervision=2)
        for mixing in ("tokens", "attention", "none")
    ),
)
# By default the cheapest dense net and the cheapest recurrence are trained.
QUICK = (RIVALS[0], RIVALS[2])


def drawn_rows():
    """Two AR(1) of unit variance with correlated innovations, and the sign of the first."""
    rng = np.random.default_rng(0)
    cov = STD**2 * np.array([[1.0, CORR], [CORR, 1.0]])
    noise = rng.multivariate_normal(np.zeros(2), cov, NUM_ROWS)
    rows = np.zeros((NUM_ROWS, 2))
    for t in range(NUM_ROWS):
        rows[t] = SLOPE * rows[t - 1] + noise[t]
    return np.column_stack([rows, np.sign(rows[:, 0])])


ROWS = drawn_rows()


def true_score(head):
    """Loss an entry of the law that the rows were drawn from, on the rows held back."""
    before, after = ROWS[-NUM_HELD - 1 : -1, :2], ROWS[-NUM_HELD:, :2]
    law = stats.norm(SLOPE * before, STD)
    if isinstance(head, CategoricalHead):
        up = stats.norm.cdf(SLOPE * before[:, 0] / STD)
        return -np.log(np.where(after[:, 0] > 0, up, 1.0 - up)).mean()
    if isinstance(head, QuantileHead):
        pinball = []
        for level in head.levels:
            errors = after - law.ppf(level)
            pinball.append(np.maximum(level * errors, (level - 1.0) * errors))
        return 2.0 * np.mean(pinball)
    if isinstance(head, LowRankHead):
        cov = STD**2 * np.array([[1.0, CORR], [CORR, 1.0]])
        return (
            -stats.multivariate_normal(np.zeros(2), cov).logpdf(after - SLOPE * before).mean() / 2
        )
    return -law.logpdf(after).mean()


def trained(architecture, head):
    """Loss of the anchor (of training rows' moments) and the fitted model, from one program."""
    classes = isinstance(head, CategoricalHead)
    targets = ("D",) if classes else ("A", "B")
    model = NetworkModel(
        architecture, 1, 4, head=head, training=TRAINING, targets=targets, log_squares=False
    )
    index = pd.bdate_range("2010-01-01", periods=NUM_ROWS)
    panel = jaxfc.Panel.from_frame(pd.DataFrame(ROWS, index, list("ABD")), frequency="B")
    model.check(panel)
    model = model.resolved(panel)

    @eqx.filter_jit
    def run(values, observed):
        before = model.untrained(values, observed, key=KEY).validation_loss
        return before, model.estimate(values, observed, key=KEY)

    return run(*panel.arrays())


def assert_learned(head, before, fitted):
    """At least half of the way from the anchor to the truth, which nothing beats but by chance."""
    truth, after = true_score(head), float(fitted.validation_loss)
    assert bool(is_okay(fitted.result))
    assert truth - 0.1 < after < float(before) - 0.5 * (float(before) - truth)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_every_head_learns(head):
    """And its forecast is near the conditional mean (scales are judged by the score)."""
    before, fitted = trained(LinearNet(), head)
    assert_learned(head, before, fitted)
    forecast = fitted.forecast(1, key=KEY)
    if isinstance(head, CategoricalHead):
        up = stats.norm.cdf(SLOPE * ROWS[-1, 0] / STD)
        assert float(fitted.probabilities()[0, 0, 1]) == pytest.approx(up, abs=0.2)
        assert set(np.unique(forecast.draws)) <= {-1.0, 1.0}
        return
    np.testing.assert_allclose(forecast.mean[0], SLOPE * ROWS[-1, :2], atol=0.5)
    if isinstance(head, LowRankHead):
        corr = forecast.cov[0, 0, 0, 1] / (forecast.std[0, 0] * forecast.std[0, 1])
        assert float(corr) > 0.5
    if isinstance(head, QuantileHead):
        assert np.all(np.diff(np.asarray(fitted.quantiles()), axis=0) > 0)


@pytest.mark.parametrize(
    "rival",
    [r if r in QUICK else pytest.param(r, marks=pytest.mark.slow) for r in RIVALS],
    ids=lambda rival: f"{type(rival).__name__}-{getattr(rival, 'mixing', '')}",
)
def test_every_rival_learns(rival):
    before, fitted = trained(rival, GaussianHead())
    assert_learned(GaussianHead(), before, fitted)
    assert not bool(fitted.collapsed)
    assert jnp.isfinite(fitted.thinking).all()
