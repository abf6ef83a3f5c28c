"""Dense oracle of factor models with AR(1) errors and low-frequency rows: numpy only."""

from typing import NamedTuple

import numpy as np

from factor_worlds import make_world


class DenseLaw(NamedTuple):
    """Joint law of the factors (time, K), stacked, and of the high-frequency panel (time, N)."""

    factor_cov: np.ndarray
    loadings: np.ndarray
    error_cov: np.ndarray
    intercept: np.ndarray

    @property
    def panel_cov(self):
        """Covariance of the panel, ordered time by series."""
        return self.loadings @ self.factor_cov @ self.loadings.T + self.error_cov


def dense_law(world, ar, num_times):
    """The law of a stationary world whose errors are AR(1) with coefficients `ar`."""
    num_series, num_factors = world.loadings.shape
    size, num_lags = num_times * num_factors, len(world.transition)
    system, noise = np.eye(size), np.kron(np.eye(num_times), world.innovation_cov)
    first = max(num_lags, 1) * num_factors
    noise[:first, :first] = world.initial_cov
    for t in range(num_lags, num_times):
        for lag in range(1, num_lags + 1):
            rows = slice(t * num_factors, (t + 1) * num_factors)
            columns = slice((t - lag) * num_factors, (t - lag + 1) * num_factors)
            system[rows, columns] = -world.transition[lag - 1]
    inverse = np.linalg.inv(system)
    distance = np.abs(np.subtract.outer(np.arange(num_times), np.arange(num_times)))
    errors = np.zeros((num_times, num_series, num_times, num_series))
    for i in range(num_series):
        errors[:, i, :, i] = world.idiosyncratic_cov[i] * ar[i] ** distance
    cells = num_times * num_series
    return DenseLaw(
        inverse @ noise @ inverse.T,
        np.kron(np.eye(num_times), world.loadings),
        errors.reshape(cells, cells),
        world.intercept,
    )


class Answer(NamedTuple):
    """Means of factors (time, K) and panel (time, N), factor covariance (time K, time K), panel
    covariance (time N, time N), log-likelihood."""

    means: np.ndarray
    panel: np.ndarray
    cov: np.ndarray
    panel_cov: np.ndarray
    loglik: float


def condition(law, rows, values):
    """Law of factors and panel given y = rows vec(x): `rows` (observations, time * series)."""
    num_series = len(law.intercept)
    num_times = law.panel_cov.shape[0] // num_series
    level = np.tile(law.intercept, num_times)
    cov = law.panel_cov
    total = rows @ cov @ rows.T
    surprise = values - rows @ level
    factor_cross = law.factor_cov @ law.loadings.T @ rows.T
    solved = np.linalg.solve(total, surprise)
    loglik = -0.5 * (
        len(values) * np.log(2 * np.pi) + np.linalg.slogdet(total)[1] + surprise @ solved
    )
    gain = np.linalg.solve(total, factor_cross.T)
    panel_cross = cov @ rows.T
    return Answer(
        (factor_cross @ solved).reshape(num_times, -1),
        (level + panel_cross @ solved).reshape(num_times, num_series),
        law.factor_cov - factor_cross @ gain,
        cov - panel_cross @ np.linalg.solve(total, panel_cross.T),
        float(loglik),
    )


def cell_rows(observed):
    """Rows that pick the observed cells."""
    return np.eye(observed.size)[np.flatnonzero(observed.ravel())]


def aggregated_rows(observed, aggregation):
    """Rows of the observed cells of a panel whose series may be sums over several rows."""
    num_times, num_series = observed.shape
    rows = []
    for t in range(num_times):
        for i in range(num_series):
            if observed[t, i]:
                weights = np.zeros((num_times, num_series))
                group = aggregation.group[i]
                for place in range(num_times):
                    if aggregation.own_row[group][place] == t:
                        weights[place, i] += aggregation.own_weight[group][place]
                    if aggregation.next_row[group][place] == t:
                        weights[place, i] += aggregation.next_weight[group][place]
                rows.append(weights.ravel())
    return np.array(rows)


def small_world(num_series=5, num_factors=2, num_lags=2, seed=0):
    """Parameters and AR coefficients of both signs."""
    world = make_world(num_series, num_factors, num_lags, seed=seed)
    ar = np.random.default_rng(seed + 50).uniform(-0.6, 0.9, num_series)
    return world, ar


def draw_values(law, rows, seed=1):
    """One draw of the observations."""
    rng = np.random.default_rng(seed)
    num_times = law.panel_cov.shape[0] // len(law.intercept)
    mean = rows @ np.tile(law.intercept, num_times)
    return rng.multivariate_normal(mean, rows @ law.panel_cov @ rows.T)


def placed(observed, values):
    """Observations back in their cells, zero elsewhere."""
    panel = np.zeros(observed.shape)
    panel[observed] = values
    return panel
