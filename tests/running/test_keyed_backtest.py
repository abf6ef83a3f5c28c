"""A backtest with a key of models that draw in estimation and answer exactly."""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.regimes import DiagonalCovariance, RegimeModel
from jaxfc.running.backtest import backtest
from jaxfc.running.origins import Rolling, window_panel

KEY = jax.random.key(3)
ORIGINS = Rolling(window=60, step=1, num_origins=3, refit=2)
MODEL = RegimeModel(
    2, DiagonalCovariance(), num_starts=3, short_steps=2, max_steps=60, tolerance=1e-5
)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(80) // 20 % 2 == 0, 1.0, 3.0)[:, None]
    rows = scale * rng.normal(size=(80, 2))
    index = pd.bdate_range("2010-01-01", periods=80)
    return jaxfc.Panel.from_frame(pd.DataFrame(rows, index, ["A", "B"]), frequency="B")


def test_random_starts_of_regimes_take_the_key_of_a_backtest(panel):
    """Each origin is the fit of its window with its key; between estimations parameters stay."""
    done = backtest(MODEL, panel, ORIGINS, horizon=2, key=KEY)
    rows = [int(row) for row in ORIGINS.rows(panel.index, 2)]
    for i, row in enumerate(rows):
        first = i - i % 2
        key = jax.random.split(jax.random.fold_in(KEY, first))[0]
        fitted = MODEL.fit(window_panel(panel, rows[first], 60), key=key, throw=False)
        now = fitted.given(*window_panel(panel, row, 60).arrays())
        alone = now.forecast(2)
        np.testing.assert_allclose(done.mean[i], alone.mean, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(done.std[i], alone.std, rtol=1e-6)
    # One key for both verbs changes nothing of an exact law.
    np.testing.assert_array_equal(fitted.forecast(2, key=KEY).cov, fitted.forecast(2).cov)


def test_a_key_that_nothing_uses_is_refused(panel):
    plain = RegimeModel(2, DiagonalCovariance(), max_steps=5)
    with pytest.raises(ValueError, match="takes no key"):
        backtest(plain, panel, ORIGINS, key=KEY)
