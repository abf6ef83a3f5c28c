"""Covariances of the path of a VARMA and of its sum: powers of the companion matrix, summed up."""

import numpy as np


def companion(ar: np.ndarray, ma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi, K and K_1 of the state (r_t, ..., r_{t-p+1}, eps_t, ..., eps_{t-q+1}).

    Without autoregression the state still needs r_t, so that K_1 picks it and not eps_t: a zero
    A_1 is put in.
    """
    num_series = ma.shape[1]
    if len(ar) == 0:
        ar = np.zeros((1, num_series, num_series))
    blocks = np.zeros((len(ar) + len(ma), num_series, len(ar) + len(ma), num_series))
    for lag, coefficients in enumerate([*ar, *ma]):
        blocks[0, :, lag] = coefficients
    for row in range(1, len(ar) + len(ma)):
        if row != len(ar):
            blocks[row, :, row - 1] = np.eye(num_series)
    size = blocks.shape[0] * num_series
    selector = np.eye(size, num_series)
    impact = selector.copy()
    if len(ma):
        impact += np.eye(size, num_series, -len(ar) * num_series)
    return blocks.reshape(size, size), impact, selector


def joint_cov(ar: np.ndarray, ma: np.ndarray, innovation_covs: np.ndarray) -> np.ndarray:
    """Cov(r_{t+i}, r_{t+j}) (horizon, series, horizon, series), i and j from 1:

    K_1' sum_{k = max(0, i-j)}^{i-1} Phi^k K H_{t+i-k} (Phi^{j-i+k} K)' K_1
    """
    transition, impact, selector = companion(ar, ma)
    horizon, num_series, _ = innovation_covs.shape
    joint = np.zeros((horizon, num_series, horizon, num_series))

    def response(lag: int) -> np.ndarray:
        return selector.T @ np.linalg.matrix_power(transition, lag) @ impact

    for i in range(1, horizon + 1):
        for j in range(1, horizon + 1):
            for k in range(max(0, i - j), i):
                term = response(k) @ innovation_covs[i - k - 1] @ response(j - i + k).T
                joint[i - 1, :, j - 1] += term
    return joint


def cumulative_cov(ar: np.ndarray, ma: np.ndarray, innovation_covs: np.ndarray) -> np.ndarray:
    """Cov of r_{t+1} + ... + r_{t+horizon} (series, series), the double sum over i and j.

    Source: Hlouskova, Schmidheiny and Wagner (2009).
    """
    return joint_cov(ar, ma, innovation_covs).sum(axis=(0, 2))
