"""Dense reference of `block_tridiagonal`: build the precision, invert it."""

from typing import NamedTuple

import numpy as np


class DensePosterior(NamedTuple):
    """`means` (blocks, m), `covs`, `cross_covs` (blocks, m, m), `log_det`, the whole inverse."""

    means: np.ndarray
    covs: np.ndarray
    cross_covs: np.ndarray
    log_det: float
    dense_cov: np.ndarray


def dense_precision(diagonal: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The precision matrix (blocks * m, blocks * m)."""
    num_blocks, size, _ = diagonal.shape
    dense = np.zeros((num_blocks * size, num_blocks * size))
    for s in range(num_blocks):
        rows = slice(s * size, (s + 1) * size)
        dense[rows, rows] = diagonal[s]
        if s > 0:
            before = slice((s - 1) * size, s * size)
            dense[rows, before] = lower[s]
            dense[before, rows] = lower[s].T
    return dense


def posterior(diagonal: np.ndarray, lower: np.ndarray, linear: np.ndarray) -> DensePosterior:
    """Mean, covariance band and log-determinant by dense algebra."""
    num_blocks, size, _ = diagonal.shape
    dense = dense_precision(diagonal, lower)
    cov = np.linalg.inv(dense)
    blocks = cov.reshape(num_blocks, size, num_blocks, size)
    cross = np.zeros((num_blocks, size, size))
    for s in range(1, num_blocks):
        cross[s] = blocks[s, :, s - 1, :]
    own = np.stack([blocks[s, :, s, :] for s in range(num_blocks)])
    means = (cov @ linear.ravel()).reshape(linear.shape)
    return DensePosterior(means, own, cross, float(np.linalg.slogdet(dense)[1]), cov)
