"""Starting values of the NY Fed's nowcasting code, rewritten in plain numpy from its conventions.

- interior gaps by a not-a-knot cubic spline, then the ends by the median smoothed with a centred
  moving average of 7; rows at the ends with more than 80 % missing are left out;
- block after block: principal components of the monthly residuals of the block, quarterly loadings
  by least squares on five months of them under the restriction 1-2-3-2-1, residuals of the
  block's fit to the next; the first four rows are never fitted;
- each block's VAR by least squares, its first covariance the stationary one, its mean zero;
- monthly errors: autoregressions of the filled residuals between a series' first and last
  observation; quarterly ones: 0.1, variance of the residuals over 19 (1 + 4 + 9 + 4 + 1).
"""

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import block_diag, solve_discrete_lyapunov

from golden.dfms_mixed import restricted
from golden.frbny import DEPTH, NUM_QUARTERLY, state_order
from jaxfc.factors.augmented import AugmentedParameters

HALF_WINDOW = 3
MAX_MISSING_SHARE = 0.8
NOISE = 1e-4
QUARTERLY_AR = 0.1


def filled(series):
    """Spline inside, median smoothed by a centred moving average at the ends."""
    full, known = series.copy(), np.flatnonzero(~np.isnan(series))
    span = np.arange(known[0], known[-1] + 1)
    full[span] = CubicSpline(known, series[known], bc_type="not-a-knot")(span)
    missing = np.isnan(full)
    full[missing] = np.nanmedian(full)
    width = 2 * HALF_WINDOW + 1
    padded = np.pad(full, HALF_WINDOW, mode="edge")
    full[missing] = np.convolve(padded, np.full(width, 1.0 / width), mode="valid")[missing]
    return full


def fit_block(residuals, with_gaps, members, per_block, num_lags):
    """Loadings on five months of the block's components, and the law of the components."""
    num_times, num_series = residuals.shape
    monthly = members[members < num_series - NUM_QUARTERLY]
    vectors = np.linalg.eigh(np.atleast_2d(np.cov(residuals[:, monthly].T)))[1]
    vectors = vectors[:, ::-1][:, :per_block]
    if np.all(vectors.sum(axis=0) < 0):
        vectors = -vectors
    factors = residuals[:, monthly] @ vectors
    lags = [factors[DEPTH - 1 - j : num_times - j] for j in range(max(num_lags + 1, DEPTH))]
    stacked = np.hstack(lags[:DEPTH])
    loadings = np.zeros((num_series, per_block * DEPTH))
    loadings[monthly, :per_block] = vectors
    for i in members[members >= num_series - NUM_QUARTERLY]:
        target = with_gaps[DEPTH - 1 :, i]
        seen = ~np.isnan(target)
        some = stacked[seen]
        loadings[i] = restricted(some.T @ some, some.T @ target[seen], per_block)
    past = np.hstack(lags[1 : num_lags + 1])
    coefficients = np.linalg.solve(past.T @ past, past.T @ lags[0]).T
    size = per_block * DEPTH
    transition = np.eye(size, k=-per_block)
    transition[:per_block] = 0.0
    transition[:per_block, : per_block * num_lags] = coefficients
    noise = np.zeros((size, size))
    noise[:per_block, :per_block] = np.cov((lags[0] - past @ coefficients.T).T)
    explained = np.vstack([np.zeros((DEPTH - 1, size)), stacked]) @ loadings.T
    return loadings, transition, noise, residuals - explained


def blocks_of(*parts) -> np.ndarray:
    """A block-diagonal matrix."""
    return np.asarray(block_diag(*parts))


def monthly_error(residual, is_missing):
    """Autoregression of a filled residual between the first and the last observation."""
    known = np.flatnonzero(~is_missing)
    path = residual[known[0] : known[-1] + 1]
    ar = path[:-1] @ path[1:] / (path[:-1] @ path[:-1])
    return ar, np.var(path[1:] - ar * path[:-1], ddof=1)


def starting_values(data, in_block, per_block, num_lags) -> AugmentedParameters:
    """Parameters before the first EM step; `data` standardised, NaN where missing."""
    crowded = np.flatnonzero(np.isnan(data).mean(axis=1) <= MAX_MISSING_SHARE)
    data = data[crowded[0] : crowded[-1] + 1]
    num_series, num_blocks = in_block.shape
    residuals = np.column_stack([filled(series) for series in data.T])
    missing = np.isnan(data)
    with_gaps = data
    parts = []
    for block in in_block.T:
        members = np.flatnonzero(block)
        *part, residuals = fit_block(residuals, with_gaps, members, per_block, num_lags)
        parts.append(part)
        missing[: DEPTH - 1] = True
        with_gaps = np.where(missing, np.nan, residuals)
    num_monthly = num_series - NUM_QUARTERLY
    errors = [monthly_error(residuals[:, i], missing[:, i]) for i in range(num_monthly)]
    ar, variances = np.array(errors).T
    scale = np.nanvar(with_gaps[:, num_monthly:], axis=0, ddof=1) / 19.0
    ar = np.append(ar, np.full(NUM_QUARTERLY, QUARTERLY_AR))
    variances = np.append(variances, (1.0 - QUARTERLY_AR**2) * scale)
    toeplitz = QUARTERLY_AR ** np.abs(np.subtract.outer(np.arange(DEPTH), np.arange(DEPTH)))
    first = blocks_of(
        *(solve_discrete_lyapunov(transition, noise) for _, transition, noise in parts),
        np.diag(variances[:num_monthly] / (1.0 - ar[:num_monthly] ** 2)),
        *(s * toeplitz for s in scale),
    )
    order = state_order(num_blocks, per_block, len(first))
    newest = slice(per_block)
    lags = [slice(lag * per_block, (lag + 1) * per_block) for lag in range(num_lags)]
    fields = (
        np.hstack([loadings[:, newest] for loadings, _, _ in parts]),
        np.stack([blocks_of(*(t[newest, lag] for _, t, _ in parts)) for lag in lags]),
        blocks_of(*(noise[newest, newest] for _, _, noise in parts)),
        ar,
        variances,
        np.full(num_series, NOISE),
        np.zeros(len(first)),
        first[np.ix_(order, order)],
    )
    return AugmentedParameters(*map(jnp.asarray, fields))
