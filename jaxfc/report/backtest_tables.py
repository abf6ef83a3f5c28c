"""Tables of the report of a backtest: accuracy, benchmarks, calibration."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.evaluation.calibration import berkowitz, pit_kolmogorov, pit_uniformity
from jaxfc.evaluation.comparison import diebold_mariano, giacomini_white
from jaxfc.hypothesis import HypothesisTest
from jaxfc.report.backtest_data import LEVELS, OneStep, usable_origins
from jaxfc.running.backtest_result import Backtest
from jaxfc.typing import Array, Float

ZERO = "zero"
SCORES = {"num_cases": "forecasts", "rmse": "RMSE", "mae": "MAE", "crps": "CRPS"}
LEAST_PAIRS = 10  # for tests of predictive ability, whose laws hold in long samples
Losses = Float[np.ndarray, " origins"] | Float[Array, " origins"]


def accuracy_table(backtest: Backtest, step: OneStep) -> pd.DataFrame:
    """By horizon: realised values of usable forecasts, RMSE, MAE, CRPS, share outside the 90%
    interval, mean interval score."""
    keep = usable_origins(backtest)[:, None, None] & np.isfinite(backtest.mean)
    counted = np.where(keep, np.asarray(backtest.realised), np.nan)
    scores = dataclasses.replace(backtest, realised=counted).scores(levels=LEVELS[-1:])
    table = scores.xs(step.name, level="series").reset_index()
    return pd.DataFrame(table).rename(columns=SCORES)


def check_losses(step: OneStep, losses: Mapping[str, Losses]) -> None:
    """Refuses losses that do not have one entry for each origin."""
    for name, values in losses.items():
        if np.shape(values) != step.mean.shape:
            raise ValueError(
                f"benchmark_losses[{name!r}] has shape {np.shape(values)}; give one squared error "
                f"of one step ahead for each of the {len(step.mean)} origins, NaN where there is "
                "none."
            )


def benchmark_table(step: OneStep, losses: Mapping[str, Losses]) -> pd.DataFrame:
    """By benchmark: its RMSE and the ratio to it, over the origins that both have, with the tests
    of Diebold and Mariano and of Giacomini and White on squared errors.

    `losses`: squared errors by origin; the forecast zero is always there.
    """
    rows = []
    own = jnp.asarray(step.errors**2)
    for name, values in {ZERO: step.realised**2, **losses}.items():
        theirs = jnp.asarray(values)
        both = np.isfinite(np.asarray(own)) & np.isfinite(np.asarray(theirs))
        count = int(both.sum())
        row: dict[str, object] = {"benchmark": name, "forecasts": count}
        rmse = [float(np.sqrt(np.mean(np.asarray(of)[both]))) for of in (own, theirs) if count]
        row["its RMSE"] = rmse[1] if count else np.nan
        row["RMSE ratio"] = rmse[0] / rmse[1] if count and rmse[1] > 0 else np.nan
        row |= dict.fromkeys(("t (Diebold-Mariano)", "p (Diebold-Mariano)"), np.nan)
        row["p (Giacomini-White)"] = np.nan
        if count >= LEAST_PAIRS:
            equal, given = diebold_mariano(own, theirs), giacomini_white(own, theirs)
            row["t (Diebold-Mariano)"] = float(equal.statistic)
            row["p (Diebold-Mariano)"] = float(equal.p_value)
            row["p (Giacomini-White)"] = float(given.p_value)
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_table(step: OneStep, num_bins: int) -> pd.DataFrame:
    """Tests that the probability integral transforms are uniform, and independent as well."""
    transforms = jnp.asarray(step.transforms)
    tests: dict[str, HypothesisTest] = {
        f"uniform (Pearson, {num_bins} bins)": pit_uniformity(transforms, num_bins),
        "uniform (Kolmogorov)": pit_kolmogorov(transforms),
        "normal scores independent N(0, 1) (Berkowitz)": berkowitz(transforms),
    }
    return pd.DataFrame(
        [
            {"law of the transforms": name, "statistic": float(t.statistic), "p": float(t.p_value)}
            for name, t in tests.items()
        ]
    )
