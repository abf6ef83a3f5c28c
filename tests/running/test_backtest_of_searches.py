"""Backtests of models whose likelihood is searched for its maximum."""

import numpy as np
import pandas as pd

from jaxfc.panel import Panel
from jaxfc.running.backtest import backtest
from jaxfc.running.origins import Rolling, window_panel
from jaxfc.volatility import GARCH, VarianceModel, ZeroMean


def test_variances_are_those_of_a_loop_over_windows():
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(70) // 10 % 2 == 0, 1.0, 2.0)[:, None]
    index = pd.date_range("2000-01-07", periods=70, freq="W-FRI")
    frame = pd.DataFrame(scale * rng.normal(size=(70, 2)), index, ["a", "b"])
    panel = Panel.from_frame(frame)
    model, origins = VarianceModel(GARCH(1, 0), mean=ZeroMean()), Rolling(window=60, num_origins=2)
    done = backtest(model, panel, origins, horizon=2)
    assert done.okay.all()
    for i, row in enumerate(origins.rows(panel.index, 2)):
        alone = model.fit(window_panel(panel, int(row), 60)).forecast(2)
        np.testing.assert_allclose(done.std[i], alone.std, rtol=1e-6)
