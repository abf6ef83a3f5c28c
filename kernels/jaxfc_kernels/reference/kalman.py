"""The textbook Kalman filter and Rauch-Tung-Striebel smoother: loops, inverses, deleted rows."""

from typing import NamedTuple

import numpy as np

from jaxfc_kernels.kalman_system import System, TimeVarying


class TextbookMoments(NamedTuple):
    """The moments of `jaxfc_kernels.kalman` and `kalman_smoother`, as numpy arrays."""

    predicted_means: np.ndarray
    predicted_covs: np.ndarray
    filtered_means: np.ndarray
    filtered_covs: np.ndarray
    loglik_terms: np.ndarray
    smoothed_means: np.ndarray
    smoothed_covs: np.ndarray
    smoothed_cross_covs: np.ndarray


def at_time(field, time: int) -> np.ndarray:
    """The value of a system field at one time."""
    return np.asarray(field.values[time] if isinstance(field, TimeVarying) else field)


def as_matrix(cov: np.ndarray) -> np.ndarray:
    """An observation covariance as a matrix."""
    return np.diag(cov) if cov.ndim == 1 else cov


def kalman_filter_smoother(
    system: System, values: np.ndarray, observed: np.ndarray
) -> TextbookMoments:
    """Filter forwards on the observed rows, smooth backwards; needs invertible predicted covs.

    Source: Anderson and Moore (1979), chapters 3 and 7; Rauch, Tung and Striebel (1965).
    """
    num_times = len(values)
    mean, cov = np.asarray(system.initial_mean), np.asarray(system.initial_cov)
    predicted, filtered, terms = [], [], []
    for time in range(num_times):
        predicted.append((mean, cov))
        seen = np.asarray(observed[time])
        design = at_time(system.design, time)[seen]
        errors = (values[time] - at_time(system.observation_offset, time))[seen] - design @ mean
        noise = as_matrix(at_time(system.observation_cov, time))[np.ix_(seen, seen)]
        inverse = np.linalg.inv(design @ cov @ design.T + noise)
        gain = cov @ design.T @ inverse
        mean, cov = mean + gain @ errors, cov - gain @ design @ cov
        filtered.append((mean, cov))
        log_det = -np.linalg.slogdet(inverse)[1]
        terms.append(-0.5 * (seen.sum() * np.log(2 * np.pi) + log_det + errors @ inverse @ errors))
        transition = at_time(system.transition, time)
        mean = at_time(system.offset, time) + transition @ mean
        cov = transition @ cov @ transition.T + at_time(system.innovation_cov, time)

    smoothed, cross_covs = [filtered[-1]], []
    for time in reversed(range(num_times - 1)):
        mean, cov = filtered[time]
        next_mean, next_cov = predicted[time + 1]
        later_mean, later_cov = smoothed[0]
        gain = cov @ at_time(system.transition, time).T @ np.linalg.inv(next_cov)
        mean = mean + gain @ (later_mean - next_mean)
        cov = cov + gain @ (later_cov - next_cov) @ gain.T
        smoothed.insert(0, (mean, cov))
        cross_covs.insert(0, later_cov @ gain.T)

    num_states = len(system.initial_mean)
    return TextbookMoments(
        predicted_means=np.array([mean for mean, _ in predicted]),
        predicted_covs=np.array([cov for _, cov in predicted]),
        filtered_means=np.array([mean for mean, _ in filtered]),
        filtered_covs=np.array([cov for _, cov in filtered]),
        loglik_terms=np.array(terms),
        smoothed_means=np.array([mean for mean, _ in smoothed]),
        smoothed_covs=np.array([cov for _, cov in smoothed]),
        smoothed_cross_covs=np.array(cross_covs).reshape(num_times - 1, num_states, num_states),
    )
