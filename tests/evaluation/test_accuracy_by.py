"""Accuracy by condition against pandas and the test of the cases by themselves; labels by hand."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from jaxfc.evaluation.accuracy_by import (
    accuracy_by,
    likely_regimes,
    times_of_day,
    volatility_terciles,
)

RNG = np.random.default_rng(3)
LABELS = np.array(["a", "b", "", "b", "a", "a"] * 20)


@pytest.fixture(scope="module")
def losses():
    base = RNG.gamma(2.0, size=120)
    ours = base + RNG.normal(-0.2, 0.5, 120)
    ours[[4, 50]] = np.nan
    return {"ours": ours, "base": base, "third": base + 1.0}


def by_hand(differences):
    """Diebold and Mariano with Bartlett's weights: pairs with a case left out are left out, the
    others keep their distance; corrected for few cases (Harvey, Leybourne and Newbold 1997)."""
    counted = ~np.isnan(differences)
    count = counted.sum()
    gaps = np.where(counted, differences - np.nanmean(differences), 0.0)
    last = int(4.0 * (len(gaps) / 100.0) ** (2.0 / 9.0))
    long_run = gaps @ gaps / count
    for lag in range(1, last + 1):
        long_run += 2.0 * (1.0 - lag / (last + 1)) * (gaps[lag:] @ gaps[:-lag]) / count
    return np.nanmean(differences) / np.sqrt(long_run / count) * np.sqrt((count - 1) / count)


def test_means_are_those_of_pandas_and_statistics_those_of_the_cases(losses):
    found = accuracy_by(losses, LABELS, benchmark="base")
    frame = pd.DataFrame(losses).dropna()
    means = frame.groupby(LABELS[frame.index]).mean()
    assert found.index.tolist() == ["a", "b", "all"]
    for name in losses:
        assert_allclose(found.loc[["a", "b"], ("loss", name)], means.loc[["a", "b"], name])
        assert_allclose(found.loc["all", ("loss", name)], frame[name].mean())
    sizes = frame.groupby(LABELS[frame.index]).size()
    assert found["", "cases"].tolist() == [sizes["a"], sizes["b"], len(frame)]
    statistic = by_hand(np.where(LABELS == "b", losses["ours"] - losses["base"], np.nan))
    assert_allclose(found.loc["b", ("statistic", "ours")], statistic, rtol=1e-10)
    p_value = 2.0 * stats.t.sf(abs(statistic), sizes["b"] - 1)
    assert_allclose(found.loc["b", ("p_value", "ours")], p_value, rtol=1e-8)
    assert_allclose(found["difference", "third"], 1.0)


def test_an_edge_in_one_condition_is_seen_there(losses):
    """In the program of the cases above: as many cases, conditions and models."""
    labels = np.where(np.arange(120) % 2 == 0, "open", "midday")
    gain = np.where(labels == "open", 1.0, 0.0) + RNG.normal(0.0, 0.5, 120)
    edge = losses | {"ours": losses["base"] - gain}
    found = accuracy_by(edge, labels, benchmark="base")
    assert found.loc["open", ("p_value", "ours")] < 1e-6
    assert found.loc["midday", ("p_value", "ours")] > 0.01


def test_labels():
    volatility = np.array([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    expected = ["", "calm", "calm", "middling", "middling", "turbulent", "turbulent"]
    assert volatility_terciles(volatility).tolist() == expected
    assert likely_regimes(np.array([[0.2, 0.8], [0.7, 0.3]])).tolist() == ["regime 2", "regime 1"]
    index = pd.DatetimeIndex(["2024-01-02 09:31", "2024-01-03 09:59:59", "2024-01-03 16:00"])
    assert times_of_day(index, "30min").tolist() == ["09:30", "09:30", "16:00"]
    assert times_of_day(index).tolist() == ["09:00", "09:00", "16:00"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda given: accuracy_by(given, LABELS, benchmark="none"), "is none of the models"),
        (lambda given: accuracy_by(given, LABELS[1:], benchmark="base"), "one label a case"),
        (lambda given: accuracy_by(given, ["all"] * 120, benchmark="base"), "stands for all cases"),
        (lambda given: volatility_terciles(np.full(3, np.nan)), "no volatility is known"),
        (lambda given: times_of_day(pd.DatetimeIndex(["2024-01-02"]), "7h"), "must divide a day"),
    ],
)
def test_bad_input_is_refused(losses, make, message):
    with pytest.raises(ValueError, match=message):
        make(losses)
