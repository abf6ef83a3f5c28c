"""The estimation path of the R package dfms (method "BM"), rewritten from its conventions.

A slow test-side oracle in plain numpy: time loops, explicit inverses, companion form. It exists to
reproduce numbers that dfms publishes, so every convention below is that of dfms, not of jaxfc:

- data are centred and scaled by the mean and standard deviation (ddof 1) of their observed values;
  then leading and trailing rows with more than 80 % missing are dropped;
- starting values: interior gaps by a cubic spline, then the ends by the median smoothed with a
  centred moving average of 7 terms; principal components of the covariance of the filled panel,
  signed so that each has a positive product with the row means; VAR(p) without intercept;
- the state (f_t, ..., f_{t-p+1}) starts at t = 0, one period before the first row, with mean zero
  and the stationary covariance; EM re-estimates both from the smoothed state at t = 0;
- the "log-likelihood" subtracts N log(2 pi) / 2 in every row with at least one observation, also
  where fewer than N series are observed (the Gaussian density has only the observed ones);
- iteration k reports the log-likelihood at the parameters before its own M-step; it stops, after
  at least 25 iterations, once the relative change of it is below 1e-4.

Source of the method: Banbura and Modugno (2014), Journal of Applied Econometrics 29, 133-160.
"""

import dataclasses

import numpy as np

MAX_MISSING_SHARE = 0.8
HALF_WINDOW = 3
MIN_ITERATIONS = 25
RTOL = 1e-4
VARIANCE_FLOOR = 1e-7


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Companion-form parameters; `initial_mean` and `initial_cov` are of the state at t = 0."""

    loadings: np.ndarray  # (series, factors)
    idiosyncratic_var: np.ndarray  # (series,)
    transition: np.ndarray  # (states, states), companion
    innovation_cov: np.ndarray  # (states, states), zero outside the first block
    initial_mean: np.ndarray  # (states,)
    initial_cov: np.ndarray  # (states, states)


@dataclasses.dataclass(frozen=True)
class Smoothed:
    """Smoothed moments of the state at t = 0..T and the two log-likelihoods."""

    means: np.ndarray  # (time + 1, states)
    covs: np.ndarray  # (time + 1, states, states)
    lag_covs: np.ndarray  # (time, states, states), Cov(state_t, state_{t-1}), t = 1..T
    loglik: float  # Gaussian log density of the observed values
    reported_loglik: float  # with N instead of the number observed in the constant


def standardize(panel):
    """Centre and scale by observed mean and standard deviation, then trim nearly empty ends."""
    scaled = (panel - np.nanmean(panel, axis=0)) / np.nanstd(panel, axis=0, ddof=1)
    kept = np.flatnonzero(np.isnan(scaled).mean(axis=1) <= MAX_MISSING_SHARE)
    return scaled[kept[0] : kept[-1] + 1]


def end_cubic_third_derivative(times, values):
    """Third derivative of the cubic through four points: 6 times a third divided difference."""
    differences = values.astype(float)
    for order in (1, 2, 3):
        differences = np.diff(differences) / (times[order:] - times[: len(times) - order])
    return 6.0 * differences[0]


def cubic_spline(knots, values, times):
    """Cubic spline whose end pieces share the third derivative of the end four-point cubics.

    Forsythe, Malcolm and Moler (1977): with M the second derivatives at the knots and h the
    spacings, the interior equations h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} =
    6 (slope_i - slope_{i-1}) are closed by (M_1 - M_0) / h_0 and (M_n - M_{n-1}) / h_{n-1}.
    """
    step = np.diff(knots).astype(float)
    slope = np.diff(values) / step
    num = len(knots)
    system, right = np.zeros((num, num)), np.zeros(num)
    for i in range(1, num - 1):
        system[i, i - 1 : i + 2] = step[i - 1], 2.0 * (step[i - 1] + step[i]), step[i]
        right[i] = 6.0 * (slope[i] - slope[i - 1])
    system[0, :2], system[-1, -2:] = (-1.0, 1.0), (-1.0, 1.0)
    right[0] = step[0] * end_cubic_third_derivative(knots[:4], values[:4])
    right[-1] = step[-1] * end_cubic_third_derivative(knots[-4:], values[-4:])
    second = np.linalg.solve(system, right)
    piece = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, num - 2)
    past, ahead, h = times - knots[piece], knots[piece + 1] - times, step[piece]
    curved = (second[piece] * ahead**3 + second[piece + 1] * past**3) / (6.0 * h)
    left = (values[piece] / h - second[piece] * h / 6.0) * ahead
    return curved + left + (values[piece + 1] / h - second[piece + 1] * h / 6.0) * past


def fill_series(series):
    """Spline inside, median smoothed by a centred moving average at the ends."""
    filled, known = series.copy(), np.flatnonzero(~np.isnan(series))
    span = np.arange(known[0], known[-1] + 1)
    if len(known) < len(span):
        filled[span] = cubic_spline(known, series[known], span)
    missing = np.isnan(filled)
    filled[missing] = np.nanmedian(filled)
    padded = np.pad(filled, HALF_WINDOW, mode="edge")
    width = 2 * HALF_WINDOW + 1
    filled[missing] = np.convolve(padded, np.full(width, 1.0 / width), mode="valid")[missing]
    return filled


def starting_values(data, num_factors, num_lags):
    """Principal components of the filled panel, then a VAR on them by least squares."""
    num_series, num_states = data.shape[1], num_factors * num_lags
    filled = np.column_stack([fill_series(data[:, i]) for i in range(num_series)])
    vectors = np.linalg.eigh(np.cov(filled.T))[1][:, ::-1][:, :num_factors]
    vectors = vectors * np.sign(filled.mean(axis=1) @ (filled @ vectors))
    factors = filled @ vectors

    target = factors[num_lags:]
    num_rows = len(target)
    lags = np.hstack(
        [factors[num_lags - k : num_lags - k + num_rows] for k in range(1, num_lags + 1)]
    )
    coefficients = np.linalg.solve(lags.T @ lags, lags.T @ target)
    transition = np.eye(num_states, k=-num_factors)
    transition[:num_factors] = coefficients.T
    innovation_cov = np.zeros((num_states, num_states))
    residuals = target - lags @ coefficients
    innovation_cov[:num_factors, :num_factors] = np.cov(residuals.T)
    stationary = np.linalg.solve(
        np.eye(num_states**2) - np.kron(transition, transition), innovation_cov.ravel()
    )
    return Parameters(
        loadings=vectors,
        idiosyncratic_var=np.nanvar(data - factors @ vectors.T, axis=0, ddof=1),
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=np.zeros(num_states),
        initial_cov=stationary.reshape(num_states, num_states),
    )


def smooth(data, params):
    """Kalman filter and Rauch-Tung-Striebel smoother from t = 0; NaN is missing."""
    transition, num_states = params.transition, len(params.transition)
    num_rows, num_series = data.shape
    design = np.zeros((num_series, num_states))
    design[:, : params.loadings.shape[1]] = params.loadings
    mean, cov = params.initial_mean, params.initial_cov
    filtered, predicted, loglik, num_unobserved = [(mean, cov)], [], 0.0, 0
    for row in data:
        mean = transition @ mean
        cov = transition @ cov @ transition.T + params.innovation_cov
        predicted.append((mean, cov))
        seen = ~np.isnan(row)
        if seen.any():
            z = design[seen]
            error = row[seen] - z @ mean
            error_cov = z @ cov @ z.T + np.diag(params.idiosyncratic_var[seen])
            solved = np.linalg.solve(error_cov, np.column_stack([error, z @ cov]))
            loglik -= 0.5 * (np.linalg.slogdet(2.0 * np.pi * error_cov)[1] + error @ solved[:, 0])
            num_unobserved += num_series - seen.sum()
            mean, cov = mean + cov @ z.T @ solved[:, 0], cov - cov @ z.T @ solved[:, 1:]
        filtered.append((mean, cov))

    means = np.zeros((num_rows + 1, num_states))
    covs = np.zeros((num_rows + 1, num_states, num_states))
    lag_covs = np.zeros((num_rows, num_states, num_states))
    means[-1], covs[-1] = filtered[-1]
    for t in range(num_rows - 1, -1, -1):
        (mean, cov), (mean_ahead, cov_ahead) = filtered[t], predicted[t]
        gain = np.linalg.solve(cov_ahead, transition @ cov).T
        means[t] = mean + gain @ (means[t + 1] - mean_ahead)
        covs[t] = cov + gain @ (covs[t + 1] - cov_ahead) @ gain.T
        lag_covs[t] = covs[t + 1] @ gain.T
    return Smoothed(
        means, covs, lag_covs, loglik, loglik - 0.5 * num_unobserved * np.log(2.0 * np.pi)
    )


def em_step(data, params):
    """One EM iteration: the new parameters and the smoothed moments at the old ones."""
    moments = smooth(data, params)
    num_rows, num_factors = len(data), params.loadings.shape[1]
    means, covs = moments.means, moments.covs
    now = means[1:].T @ means[1:] + covs[1:].sum(axis=0)
    before = means[:-1].T @ means[:-1] + covs[:-1].sum(axis=0)
    cross = means[1:].T @ means[:-1] + moments.lag_covs.sum(axis=0)

    transition, innovation_cov = params.transition.copy(), params.innovation_cov.copy()
    transition[:num_factors] = np.linalg.solve(before.T, cross[:num_factors].T).T
    innovation_cov[:num_factors, :num_factors] = (
        now[:num_factors, :num_factors] - transition[:num_factors] @ cross[:num_factors].T
    ) / num_rows

    factors, factor_covs = means[1:, :num_factors], covs[1:, :num_factors, :num_factors]
    loadings, variances = params.loadings.copy(), params.idiosyncratic_var.copy()
    for i, series in enumerate(data.T):
        seen = ~np.isnan(series)
        second = factors[seen].T @ factors[seen] + factor_covs[seen].sum(axis=0)
        loadings[i] = np.linalg.solve(second, factors[seen].T @ series[seen])
        errors = series[seen] - factors[seen] @ loadings[i]
        spread = loadings[i] @ factor_covs[seen].sum(axis=0) @ loadings[i]
        variances[i] = (errors @ errors + spread + (~seen).sum() * variances[i]) / num_rows
    new = Parameters(
        loadings,
        np.maximum(variances, VARIANCE_FLOOR),
        transition,
        innovation_cov,
        means[0],
        covs[0],
    )
    return new, moments


def estimate(data, num_factors, num_lags):
    """All parameter values visited (start first) and the log-likelihoods dfms reports."""
    visited, reported = [starting_values(data, num_factors, num_lags)], []
    while True:
        new, moments = em_step(data, visited[-1])
        visited.append(new)
        reported.append(moments.reported_loglik)
        if len(reported) > MIN_ITERATIONS:
            change = abs(reported[-1] - reported[-2])
            if change < RTOL * 0.5 * (abs(reported[-1]) + abs(reported[-2])):
                return visited, np.array(reported)
