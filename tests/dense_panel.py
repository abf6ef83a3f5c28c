"""The joint Gaussian law of all cells of a panel under a fitted factor model, by big matrices."""

import jax
import numpy as np

from factor_worlds import World, dense_answer
from jaxfc.calendar import aggregation_pattern


def dense_law(fitted, panel):
    """Mean and covariance of all cells as the series report them, row by row, in data units.

    Cells in which no complete period of a low-frequency series ends have no meaning.
    """
    parameters = jax.tree.map(np.asarray, fitted.parameters)
    world = World(*(getattr(parameters, name) for name in World._fields))
    num_times, num_series = panel.values.shape
    presample = fitted.model.presample
    # The oracle of the factors wants an observation: one with so much noise that it says nothing.
    seen = np.zeros((num_times, num_series), bool)
    seen[0, 0] = True
    loose = world._replace(idiosyncratic_cov=np.r_[1e30, world.idiosyncratic_cov[1:]])
    factors = dense_answer(loose, np.zeros(seen.shape), seen, presample=presample)
    skipped = presample * world.loadings.shape[1]
    design = np.kron(np.eye(num_times), world.loadings)
    cov = design @ factors.cov[skipped:, skipped:] @ design.T
    cov += error_cov(parameters, num_times)
    mean = world.intercept + factors.means[presample:] @ world.loadings.T
    scale, centre = np.asarray(fitted.scaling.scale), np.asarray(fitted.scaling.centre)
    spread = np.tile(scale, num_times)
    reports = reporting(panel)
    cov = spread[:, None] * cov * spread
    return reports @ (centre + scale * mean).ravel(), reports @ cov @ reports.T


def error_cov(parameters, num_times):
    """Covariance of all errors at the panel's own frequency, S_i r_i^|t - s|."""
    variances, ar = parameters.idiosyncratic_cov, parameters.idiosyncratic_ar
    ar = np.zeros(len(variances)) if ar is None else ar
    apart = np.abs(np.subtract.outer(np.arange(num_times), np.arange(num_times)))
    errors = np.zeros((num_times, len(variances), num_times, len(variances)))
    for i, variance in enumerate(variances):
        errors[:, i, :, i] = variance * ar[i] ** apart
    return errors.reshape(num_times * len(variances), -1)


def reporting(panel):
    """Matrix from all cells at the panel's frequency to all cells as they are reported."""
    num_times, num_series = panel.values.shape
    matrix = np.zeros((num_times + 1, num_series, num_times, num_series))
    for i in range(num_series):
        pattern = aggregation_pattern(
            panel.index, panel.frequency, panel.frequencies[i], panel.kinds[i]
        )
        for t in range(num_times):
            matrix[pattern.own_row[t], i, t, i] += pattern.own_weight[t]
            matrix[pattern.next_row[t], i, t, i] += pattern.next_weight[t]
    return matrix[:-1].reshape(num_times * num_series, -1)


def dense_gain(law, observed):
    """Matrix that takes data (all cells) to conditional means of all cells."""
    _, cov = law
    seen = observed.ravel()
    gain = np.zeros_like(cov)
    gain[:, seen] = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
    return gain


def dense_moments(law, values, observed):
    """Conditional means and standard deviations of all cells, each of the panel's shape."""
    mean, cov = law
    gain = dense_gain(law, observed)
    means = mean + gain @ (values.ravel() - mean)
    variances = np.diag(cov - gain @ cov).clip(0.0)
    return means.reshape(values.shape), np.sqrt(variances).reshape(values.shape)
