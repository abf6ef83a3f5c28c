"""Rolling evaluation of a model against simple benchmarks: one table, and sentences from it."""

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from jaxfc.evaluation import scores
from jaxfc.evaluation.benchmarks import benchmark_models
from jaxfc.model import Model
from jaxfc.panel import Panel
from jaxfc.running.backtest import backtest
from jaxfc.running.backtest_result import Backtest
from jaxfc.running.origins import Rolling

BAND_90 = 1.6448536269514722
MODEL = "factor model"


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """One-step backtests by model, their scores, and which series the windows left out."""

    backtests: dict[str, Backtest]
    scores: pd.DataFrame
    origins: Rolling
    left_out: tuple[str, ...]

    def forecasts(self) -> pd.DataFrame:
        """All forecasts, one row per model, origin and series."""
        tables = {
            name: run.to_frame(quantiles=(0.05, 0.95)) for name, run in self.backtests.items()
        }
        return pd.concat(tables, names=["model"]).reset_index(level=0).reset_index(drop=True)


def usable_series(panel: Panel, origins: Rolling) -> list[str]:
    """Series with at least 3 different observations in the first and in the last window."""
    rows = origins.rows(panel.index, 1)
    kept = []
    for i, name in enumerate(panel.names):
        parts = []
        for row in (int(rows[0]), int(rows[-1])):
            window = slice(row + 1 - origins.window, row + 1)
            seen = panel.observed[window, i]
            parts.append(len(np.unique(panel.values[window, i][seen])))
        if min(parts) >= 3:
            kept.append(name)
    return kept


def evaluate(model: Model, panel: Panel, origins: Rolling, targets: list[str]) -> Evaluation:
    """One-step backtests of `model` and of the four benchmarks on the same windows.

    The model sees every series that is observed in the windows; `targets` are series at the
    panel's own frequency, which the benchmarks forecast by themselves.
    """
    names = usable_series(panel, origins)
    backtests = {MODEL: backtest(model, panel.select(names), origins)}
    alone = panel.select(targets)
    backtests |= {name: backtest(b, alone, origins) for name, b in benchmark_models().items()}
    table = pd.concat([score_rows(backtests, target) for target in targets], ignore_index=True)
    left_out = tuple(name for name in panel.names if name not in names)
    return Evaluation(backtests, table, origins, left_out)


def one_step(run: Backtest, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and realised value of one series, one step ahead; NaN if failed."""
    column = run.names.index(target)
    okay = run.okay
    mean = np.where(okay, run.mean[:, 0, column], np.nan)
    std = np.where(okay, run.std[:, 0, column], np.nan)
    return mean, std, run.realised[:, 0, column]


def score_rows(backtests: dict[str, Backtest], target: str) -> pd.DataFrame:
    """Scores of all models for one series over the weeks in which all of them have a forecast.

    `t` is the statistic of squared errors less those of the zero forecast (negative: better).
    """
    parts = {name: one_step(run, target) for name, run in backtests.items()}
    common = np.all([np.isfinite(mean + std + y) for mean, std, y in parts.values()], axis=0)
    zero_losses = (parts["zero"][2] - parts["zero"][0])[common] ** 2
    rows = []
    for name, (mean, std, realised) in parts.items():
        mean, std, y = mean[common], std[common], realised[common]
        losses = (y - mean) ** 2
        inside = scores.coverage(mean - BAND_90 * std, mean + BAND_90 * std, y)
        crps = scores.crps_gaussian(mean, std, y)
        same = name == "zero"
        t = np.nan if same else float(scores.difference_t_statistic(losses, zero_losses))
        rows.append(
            {
                "series": target,
                "model": name,
                "rmse": float(scores.rmse(mean, y)),
                "mae": float(scores.mae(mean, y)),
                "crps": float(np.mean(np.asarray(crps))),
                "coverage_90": float(inside),
                "rmse_ratio_to_zero": float(np.sqrt(losses.mean() / zero_losses.mean())),
                "t": t,
                "weeks": int(common.sum()),
                "failed": int((~backtests[name].okay).sum()),
            }
        )
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame, target: str) -> list[str]:
    """What the scores of one series say, in sentences."""
    rows = table[table.series == target].set_index("model")
    ours, weeks = rows.loc[MODEL], int(rows.loc[MODEL, "weeks"])
    best = str(rows.drop(index=MODEL).rmse.idxmin())
    gain = 100.0 * (1.0 - ours.rmse_ratio_to_zero**2)
    kind = "less" if gain >= 0 else "more"
    critical = float(stats.t.ppf(0.975, weeks - 1))
    if not np.isfinite(ours.t) or abs(ours.t) < critical:
        proof = "the difference is within what chance alone produces"
    else:
        proof = f"the difference is {'in favour of' if ours.t < 0 else 'against'} the model"
    first = (
        f"{target}, {weeks} weeks: the factor model's squared error is {abs(gain):.1f}% {kind} "
        f"than that of forecasting zero every week (RMSE {ours.rmse:.3f} against "
        f"{rows.loc['zero', 'rmse']:.3f} percent a week; t = {ours.t:.2f}): {proof}."
    )
    lead = rows.loc[best, "rmse"]
    order = "below" if ours.rmse < lead else "not below"
    second = (
        f"The best benchmark is {best} with RMSE {lead:.3f}; the factor model is {order} it. A "
        "weekly return is hardly forecastable, and a ratio near 1 is what to expect."
    )
    noise = np.sqrt(0.9 * 0.1 / weeks)
    off = abs(ours.coverage_90 - 0.9) > 1.96 * noise
    third = (
        f"The 90% intervals held {100 * ours.coverage_90:.0f}% of the weeks (chance alone moves "
        f"this by ±{100 * 1.96 * noise:.0f} points): "
        + ("they are not calibrated in these weeks." if off else "consistent with 90%.")
    )
    sentences = [first, second, third]
    if ours.failed:
        sentences.append(f"{int(ours.failed)} estimations failed; those weeks are not scored.")
    return sentences
