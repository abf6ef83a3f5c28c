"""Base forecasts of every node by itself: an autoregression fitted here, and saved AutoARIMAs.

    python experiments/hierarchies_base.py FOLDER_OF_DATA OUT [NAMES]

makes the AutoARIMA forecasts of the benchmarks' last dates with statsforecast. That package asks
for an older pandas than the project's: run it in an environment of its own. It takes about an hour
on one core; single series are kept, so that it can be interrupted.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

LEVEL = 80
NORMAL_QUANTILE = 1.2815515655446004  # of (1 + LEVEL / 100) / 2


@dataclasses.dataclass(frozen=True)
class Base:
    """Means and standard deviations (horizon, nodes); residuals and values in sample (time,
    nodes), of the same dates."""

    mean: np.ndarray
    std: np.ndarray
    residuals: np.ndarray
    history: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """Forecasts in sample."""
        return self.history - self.residuals


def autoregression(
    values: np.ndarray, horizon: int, order: int, period: int, differences: int
) -> Base:
    """An autoregression of each column around means of the season, by Yule and Walker's equations,

        z_t = D^d y_t - c_{t mod m} = sum_{k<=p} phi_k z_{t-k} + e_t

    with autocovariances divided by the number of dates, which is never explosive; least squares
    are, for series that end with a spike. Iterated over the horizon; variances are those of the
    moving average form with known coefficients. Residuals that nearly sum to zero are refused by
    hierarchicalforecast: the first date is left out of those given on, for all methods alike.
    """
    moved = np.diff(values, n=differences, axis=0).T
    num_times = moved.shape[1]
    means = np.stack([moved[:, s::period].mean(axis=1) for s in range(period)], axis=1)
    centred = moved - means[:, np.arange(num_times) % period]
    covs = np.stack(
        [
            np.sum(centred[:, lag:] * centred[:, : num_times - lag], axis=1)
            for lag in range(order + 1)
        ],
        axis=1,
    )
    apart = np.abs(np.arange(order)[:, None] - np.arange(order))
    phi = np.linalg.solve(covs[:, apart], covs[:, 1:, None])[..., 0]
    past = np.stack([centred[:, order - k : num_times - k] for k in range(1, order + 1)], axis=2)
    residuals = centred[:, order:] - np.einsum("itp,ip->it", past, phi)
    degrees = residuals.shape[1] - period - order
    variance = np.sum(residuals**2, axis=1) / degrees
    path = centred
    for _ in range(horizon):
        new = np.sum(phi * path[:, : -order - 1 : -1], axis=1)
        path = np.concatenate([path, new[:, None]], axis=1)
    ahead = path[:, num_times:] + means[:, np.arange(num_times, num_times + horizon) % period]
    for level in range(differences, 0, -1):
        last = np.diff(values, n=level - 1, axis=0)[-1]
        ahead = last[:, None] + np.cumsum(ahead, axis=1)
    weights = moving_average(phi, horizon, differences)
    std = np.sqrt(variance[:, None] * np.cumsum(weights**2, axis=1))
    return Base(ahead.T, std.T, residuals.T[1:], values[differences + order + 1 :])


def moving_average(phi: np.ndarray, horizon: int, differences: int) -> np.ndarray:
    """psi_0..psi_{h-1} of every node: the response of the level to one innovation."""
    weights = np.zeros((phi.shape[0], horizon))
    weights[:, 0] = 1.0
    for step in range(1, horizon):
        for k in range(min(step, phi.shape[1])):
            weights[:, step] += phi[:, k] * weights[:, step - 1 - k]
    for _ in range(differences):
        weights = np.cumsum(weights, axis=1)
    return weights


def saved(path: Path, values: np.ndarray, columns: np.ndarray) -> Base:
    """Forecasts that `main` wrote, of the nodes in another order; `values` in sample."""
    with np.load(path) as stored:
        mean, std, fitted = (stored[name][:, columns] for name in ("mean", "std", "fitted"))
    residuals = values - fitted
    known = np.all(np.isfinite(residuals), axis=1)
    return Base(mean, std, residuals[known], values[known])


def auto_arima(values: np.ndarray, horizon: int, period: int) -> dict[str, np.ndarray]:
    """statsforecast's AutoARIMA of one series."""
    import pandas as pd
    from statsforecast import StatsForecast  # pyright: ignore[reportMissingImports]
    from statsforecast.models import AutoARIMA, Naive  # pyright: ignore[reportMissingImports]

    frame = pd.DataFrame({"unique_id": "a", "ds": np.arange(len(values)), "y": values})
    model = AutoARIMA(season_length=period)
    engine = StatsForecast(models=[model], freq=1, n_jobs=1, fallback_model=Naive())
    ahead = engine.forecast(df=frame, h=horizon, level=[LEVEL], fitted=True)
    width = ahead[f"AutoARIMA-hi-{LEVEL}"] - ahead[f"AutoARIMA-lo-{LEVEL}"]
    return {
        "mean": ahead["AutoARIMA"].to_numpy(),
        "std": width.to_numpy() / (2.0 * NORMAL_QUANTILE),
        "fitted": engine.forecast_fitted_values()["AutoARIMA"].to_numpy(),
    }


def main() -> None:
    """Make what is missing, series by series, and join it."""
    import pandas as pd

    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    horizons = {"tourismsmall": 4, "traffic": 7, "wiki2": 7, "labour": 12}
    for name in sys.argv[3:] or horizons:
        horizon, parts = horizons[name], out / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        table = pd.read_csv(next(data.glob(f"{name}_data.csv*")), index_col=0)
        if name == "labour":
            table = table[table.index < "2020-01-01"]
        found = []
        for i, column in enumerate(table.columns):
            path = parts / f"{name}_{i}.npz"
            if not path.exists():
                values = table[column].to_numpy(float)[:-horizon]
                np.savez(path, **auto_arima(values, horizon, horizon))  # one season ahead
            with np.load(path) as stored:
                found.append({key: stored[key] for key in ("mean", "std", "fitted")})
        joined = {key: np.stack([one[key] for one in found], axis=1) for key in found[0]}
        np.savez_compressed(out / f"{name}.npz", names=np.array(table.columns, str), **joined)


if __name__ == "__main__":
    main()
