"""The estimation paths of dfms with quarterly series and with AR(1) errors, rewritten.

A slow test-side oracle in plain numpy, from the conventions of dfms 1.0; what it shares with the
monthly model is in `dfms_pipeline`. dfms publishes no numbers of these models, so that only what
happens at given parameters can be compared. Monthly and quarterly series (`quarterly.vars`):

- the state holds max(p, 5) months of the factors, then five months of the quarterly errors, all
  series of a month together; quarterly errors are white noise, added up as 1-2-3-2-1 and observed
  without further noise; monthly series have independent noise;
- starting values: principal components of the filled panel, quarterly columns (as if monthly)
  included; quarterly loadings by least squares on five months of components under the restriction
  1-2-3-2-1; variances from the residuals of row 5 on, the quarterly ones not divided by 19;
- every zero on the diagonal of the innovation covariance, that of the lags, becomes 1e-6 and stays;
- the first covariance solves (I - A x A + 1e-4 I) vec P = vec Q;
- EM regresses a quarterly series on the factors without taking its expected error off, and its
  errors' variance is their mean square; the first covariance keeps the block of the factors and the
  diagonal of the errors.

AR(1) errors (`idio.ar1 = TRUE`): one state per series beside p months of the factors, measurement
noise of the tolerance, 1e-4; loadings by regression of the series less its expected error; the
first covariance keeps the block of the factors and the diagonal of the errors. The start of the
errors here is the autoregression of the components' residuals over pairs of observed months.
"""

import dataclasses

import numpy as np

from golden import dfms_pipeline as dfms

WINDOW = 5
WEIGHTS = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
LAG_VARIANCE = 1e-6
RIDGE = 1e-4


def restricted(square, right, num_factors):
    """Coefficients of five lags in the ratio of the weights: least squares on the weighted sum."""
    sums = np.kron(WEIGHTS[:, None], np.eye(num_factors))
    return sums @ np.linalg.solve(sums.T @ square @ sums, sums.T @ right)


def starting_values(data, num_factors, num_lags, num_quarterly):
    """Components, restricted regressions, a VAR by least squares."""
    num_times, num_series = data.shape
    num_monthly = num_series - num_quarterly
    start = dfms.starting_values(data, num_factors, num_lags)
    filled = np.column_stack([dfms.fill_series(data[:, i]) for i in range(num_series)])
    factors = filled @ start.loadings
    depth = max(num_lags, WINDOW)
    size = num_factors * depth
    stacked = np.hstack([factors[WINDOW - 1 - j : num_times - j] for j in range(WINDOW)])
    loadings = np.zeros((num_series, size))
    loadings[:, :num_factors] = start.loadings
    for i in range(num_monthly, num_series):
        seen = ~np.isnan(data[WINDOW - 1 :, i])
        regressors, target = stacked[seen], data[WINDOW - 1 :, i][seen]
        loadings[i, : WINDOW * num_factors] = restricted(
            regressors.T @ regressors, regressors.T @ target, num_factors
        )
    residuals = data[WINDOW - 1 :] - stacked @ loadings[:, : WINDOW * num_factors].T
    variances = np.nanvar(residuals, axis=0, ddof=1)

    num_states = size + WINDOW * num_quarterly
    transition = np.zeros((num_states, num_states))
    transition[:num_factors, : num_factors * num_lags] = start.transition[:num_factors]
    transition[num_factors:size, : size - num_factors] = np.eye(size - num_factors)
    transition[size + num_quarterly :, size:-num_quarterly] = np.eye(4 * num_quarterly)
    noise = np.full(num_states, LAG_VARIANCE)
    noise[size : size + num_quarterly] = variances[num_monthly:]
    innovation_cov = np.diag(noise)
    innovation_cov[:num_factors, :num_factors] = start.innovation_cov[:num_factors, :num_factors]
    kron = np.kron(transition, transition)
    system = (1.0 + RIDGE) * np.eye(num_states**2) - kron
    initial_cov = np.linalg.solve(system, innovation_cov.ravel()).reshape(num_states, num_states)
    sums = np.zeros((num_series, WINDOW * num_quarterly))
    sums[num_monthly:] = np.kron(WEIGHTS, np.eye(num_quarterly))
    return dfms.Parameters(
        loadings=np.hstack([loadings, sums]),
        idiosyncratic_var=np.append(variances[:num_monthly], np.zeros(num_quarterly)),
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=np.zeros(num_states),
        initial_cov=initial_cov,
    )


def em_step(data, params, num_factors, num_lags, num_quarterly):
    """One EM iteration: the new parameters and the smoothed moments at the old ones."""
    moments = dfms.smooth(data, params)
    num_rows, num_series = data.shape
    num_monthly = num_series - num_quarterly
    size = num_factors * max(num_lags, WINDOW)
    means, covs = moments.means, moments.covs
    now = means[1:].T @ means[1:] + covs[1:].sum(axis=0)
    before = means[:-1].T @ means[:-1] + covs[:-1].sum(axis=0)
    cross = means[1:].T @ means[:-1] + moments.lag_covs.sum(axis=0)

    newest, lags = slice(num_factors), slice(num_factors * num_lags)
    transition, innovation_cov = params.transition.copy(), params.innovation_cov.copy()
    transition[newest, lags] = np.linalg.solve(before[lags, lags].T, cross[newest, lags].T).T
    innovation_cov[newest, newest] = (
        now[newest, newest] - transition[newest, lags] @ cross[newest, lags].T
    ) / num_rows
    errors = np.arange(size, size + num_quarterly)
    innovation_cov[errors, errors] = now[errors, errors] / num_rows

    loadings, variances = params.loadings.copy(), params.idiosyncratic_var.copy()
    for i, series in enumerate(data.T):
        seen = ~np.isnan(series)
        columns = newest if i < num_monthly else slice(WINDOW * num_factors)
        some, some_covs = means[1:][seen][:, columns], covs[1:][seen][:, columns, columns]
        square, right = some.T @ some + some_covs.sum(axis=0), some.T @ series[seen]
        if i < num_monthly:
            loadings[i, columns] = np.linalg.solve(square, right)
            surprise = series[seen] - means[1:][seen] @ loadings[i]
            spread = loadings[i] @ covs[1:][seen].sum(axis=0) @ loadings[i]
            total = surprise @ surprise + spread + (~seen).sum() * variances[i]
            variances[i] = max(total / num_rows, dfms.VARIANCE_FLOOR)
        else:
            loadings[i, columns] = restricted(square, right, num_factors)
    initial_cov = params.initial_cov.copy()
    initial_cov[:size, :size] = covs[0][:size, :size]
    rest = np.arange(size, len(transition))
    initial_cov[rest, rest] = covs[0][rest, rest]
    updated = dataclasses.replace(
        params,
        loadings=loadings,
        idiosyncratic_var=variances,
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=means[0],
        initial_cov=initial_cov,
    )
    return updated, moments


def ar_starting_values(data, num_factors, num_lags):
    """The monthly model's start, its residuals as stationary autoregressions."""
    start = dfms.starting_values(data, num_factors, num_lags)
    num_series, size = len(start.loadings), num_factors * num_lags
    filled = np.column_stack([dfms.fill_series(series) for series in data.T])
    residuals = data - filled @ start.loadings @ start.loadings.T
    pairs = residuals[1:] * residuals[:-1]
    squares = np.where(np.isnan(pairs), np.nan, residuals[:-1] ** 2)
    ar = np.nansum(pairs, axis=0) / np.nansum(squares, axis=0)
    variances = np.nanvar(residuals[1:] - ar * residuals[:-1], axis=0, ddof=1)
    transition, innovation_cov, initial_cov = (np.zeros((size + num_series,) * 2) for _ in "123")
    for total, factors, errors in (
        (transition, start.transition, ar),
        (innovation_cov, start.innovation_cov, variances),
        (initial_cov, start.initial_cov, variances / (1.0 - ar**2)),
    ):
        total[:size, :size], total[size:, size:] = factors, np.diag(errors)
    lags = np.zeros((num_series, size - num_factors))
    return dfms.Parameters(
        loadings=np.hstack([start.loadings, lags, np.eye(num_series)]),
        idiosyncratic_var=np.full(num_series, dfms.RTOL),
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=np.zeros(size + num_series),
        initial_cov=initial_cov,
    )


def ar_em_step(data, params, num_factors, num_lags):
    """One EM iteration with AR(1) errors."""
    moments = dfms.smooth(data, params)
    num_rows, size = len(data), num_factors * num_lags
    means, covs = moments.means, moments.covs
    now = means[1:].T @ means[1:] + covs[1:].sum(axis=0)
    before = means[:-1].T @ means[:-1] + covs[:-1].sum(axis=0)
    cross = means[1:].T @ means[:-1] + moments.lag_covs.sum(axis=0)
    newest, lags = slice(num_factors), slice(size)
    transition, innovation_cov = params.transition.copy(), params.innovation_cov.copy()
    transition[newest, lags] = np.linalg.solve(before[lags, lags].T, cross[newest, lags].T).T
    innovation_cov[newest, newest] = (
        now[newest, newest] - transition[newest, lags] @ cross[newest, lags].T
    ) / num_rows
    loadings = params.loadings.copy()
    for i, series in enumerate(data.T):
        error, seen = size + i, ~np.isnan(series)
        transition[error, error] = cross[error, error] / before[error, error]
        innovation_cov[error, error] = (
            now[error, error] - transition[error, error] * cross[error, error]
        ) / num_rows
        some, some_covs = means[1:][seen][:, newest], covs[1:][seen][:, newest]
        square = some.T @ some + some_covs[:, :, newest].sum(axis=0)
        right = some.T @ (series[seen] - means[1:][seen][:, error])
        right -= some_covs[:, :, error].sum(axis=0)
        loadings[i, newest] = np.linalg.solve(square, right)
    initial_cov = np.diag(np.diag(covs[0]))
    initial_cov[:size, :size] = covs[0][:size, :size]
    updated = dataclasses.replace(
        params,
        loadings=loadings,
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=means[0],
        initial_cov=initial_cov,
    )
    return updated, moments
