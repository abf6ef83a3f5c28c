"""Properties of transforms: textbook loops agree on any series with gaps, and inverting the future
of a transformed series gives its levels."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.inversion import invert
from jaxfc.panel import Panel
from jaxfc.transform_rules import (
    Difference,
    DifferenceOfGrowth,
    Growth,
    Level,
    Log,
    LogDifference,
    SecondLogDifference,
    Standardise,
    applied,
)
from jaxfc.transforms import transform

ROWS, AHEAD, SERIES = 8, 3, 4
INDEX = pd.date_range("2001-01-31", periods=ROWS + AHEAD, freq="ME")
NAMES = list("abcd")
GAUSSIAN = (Level(), Difference(), Difference(2))
LOGS = (Log(), LogDifference(), LogDifference(100), SecondLogDifference())
GROWTH = (Growth(), DifferenceOfGrowth())
levels = st.floats(0.5, 100.0).map(lambda x: round(x, 3))


def level_arrays(num_rows):
    """Positive levels of which no difference is constant."""
    cells = st.lists(levels, min_size=num_rows * SERIES, max_size=num_rows * SERIES)
    drift = np.array([0, 1, 3, 4, 8, 9, 11, 16, 17, 21, 26])[:num_rows, None] * np.ones(SERIES)
    return cells.map(lambda c: np.reshape(c, (num_rows, SERIES)) + drift)


def textbook(rule, y):
    """One transform in a loop, NaN where a value that it needs is missing."""
    z = np.full(len(y), np.nan)
    for t in range(len(y)):
        back = y[max(t - 2, 0) : t + 1][::-1]
        now, before, earlier = (*back, np.nan, np.nan)[:3]
        z[t] = {
            Level: lambda now=now: now,
            Log: lambda now=now: np.log(now),
            Difference: lambda n=now, b=before, e=earlier: (
                n - b if rule.order == 1 else (n - b) - (b - e)
            ),
            LogDifference: lambda n=now, b=before: rule.scale * np.log(n / b),
            SecondLogDifference: lambda n=now, b=before, e=earlier: (
                rule.scale * (np.log(n / b) - np.log(b / e))
            ),
            Growth: lambda n=now, b=before: rule.scale * (n - b) / b,
            DifferenceOfGrowth: lambda n=now, b=before, e=earlier: (
                rule.scale * ((n - b) / b - (b - e) / e)
            ),
        }[type(rule)]()
    return z


@pytest.mark.parametrize("rule", [*GAUSSIAN, *LOGS, *GROWTH], ids=repr)
@given(y=level_arrays(ROWS), gaps=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS))
def test_a_loop_over_dates_agrees(rule, y, gaps):
    series = np.where(gaps, np.nan, y[:, 0])
    expected = textbook(rule, series)
    np.testing.assert_allclose(applied(rule, series), expected, rtol=1e-9, atol=1e-7)
    seen = expected[~np.isnan(expected)]
    is_monthly = np.any(~np.isnan(series[1:]) & ~np.isnan(series[:-1]))
    if is_monthly and len(seen) > 1 and np.ptp(seen) > 1e-6:
        frame = pd.DataFrame({"y": series}, index=INDEX[:ROWS])
        panel = Panel.from_frame(frame, frequency="M", kinds={"y": "stock"})
        result = transform(panel, rule).to_frame()["y"]
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-7)


def panel_and_future(y, rules):
    """The transformed panel of the first rows, and what its own rules make of the next ones."""
    frame = pd.DataFrame(y, index=INDEX, columns=NAMES)
    panel = transform(Panel.from_frame(frame.iloc[:ROWS]), dict(zip(NAMES, rules, strict=True)))
    future = [applied(rule, y[:, i])[ROWS:] for i, rule in enumerate(panel.transforms)]
    return panel, jnp.asarray(np.stack(future, axis=1))


mixed = st.lists(
    st.sampled_from([*GAUSSIAN, *LOGS, *GROWTH]).flatmap(
        lambda rule: st.sampled_from([rule, Standardise(rule)])
    ),
    min_size=SERIES,
    max_size=SERIES,
)


@given(y=level_arrays(ROWS + AHEAD), rules=mixed)
def test_inverting_the_future_gives_its_levels(y, rules):
    panel, future = panel_and_future(y, rules)
    back = invert(SampleForecast(jnp.stack([future, future])), panel)
    np.testing.assert_allclose(back.draws, [y[ROWS:]] * 2, rtol=1e-7, atol=1e-7)


@given(
    y=level_arrays(ROWS + AHEAD),
    order=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (0, 1, 2, 1)]),
    seed=st.integers(0, 9),
)
def test_gaussian_laws_are_inverted_as_their_draws_are(y, order, seed):
    """Mean and covariance of the levels are the linear map of the inverse, found by its columns."""
    rules = [Level() if d == 0 else Difference(d) for d in order]
    panel, future = panel_and_future(y, rules)
    size = AHEAD * SERIES
    root = np.random.default_rng(seed).normal(size=(size, size))
    shape = (AHEAD, SERIES, AHEAD, SERIES)
    law = invert(GaussianForecast(future, jnp.asarray((root @ root.T).reshape(shape))), panel)
    np.testing.assert_allclose(law.mean, y[ROWS:], rtol=1e-9, atol=1e-9)
    basis = jnp.concatenate([jnp.zeros((1, size)), jnp.eye(size)]).reshape(-1, AHEAD, SERIES)
    images = np.asarray(invert(SampleForecast(basis), panel).draws).reshape(-1, size)
    inverse = (images[1:] - images[0]).T
    expected = (inverse @ root) @ (inverse @ root).T
    np.testing.assert_allclose(
        np.asarray(law.cov).reshape(size, size), expected, rtol=1e-8, atol=1e-8
    )


@given(y=level_arrays(ROWS), unit=st.floats(1e-3, 1e3))
def test_growth_has_no_unit_and_differences_have_that_of_levels(y, unit):
    frame = pd.DataFrame(y, index=INDEX[:ROWS], columns=NAMES)
    codes = {"a": 5, "b": 7, "c": 2, "d": Standardise(Difference(2))}
    here, there = (transform(Panel.from_frame(f), codes).to_frame() for f in (frame, unit * frame))
    for name, factor in (("a", 1.0), ("b", 1.0), ("c", unit), ("d", 1.0)):
        np.testing.assert_allclose(there[name], factor * here[name], rtol=1e-7, atol=1e-9 * factor)
