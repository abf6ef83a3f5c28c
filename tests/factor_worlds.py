"""Small factor-model worlds and their dense-Gaussian oracle: numpy only."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import multivariate_normal


class World(NamedTuple):
    """Parameters as numpy arrays; `initial_*` the law of the first p periods in ascending time."""

    loadings: np.ndarray
    intercept: np.ndarray
    idiosyncratic_cov: np.ndarray
    transition: np.ndarray
    innovation_cov: np.ndarray
    initial_mean: np.ndarray
    initial_cov: np.ndarray


def make_world(num_series, num_factors, num_lags, *, seed=0, full=False, roots=(0.3, 0.8)):
    """Orthogonal-similar VAR coefficients with eigenvalues in `roots` divided by p."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(num_series, num_factors))
    intercept = 0.3 * rng.normal(size=num_series)
    if full:
        root = rng.normal(size=(num_series, num_series)) / np.sqrt(num_series)
        idiosyncratic = root @ root.T + 0.5 * np.eye(num_series)
    else:
        idiosyncratic = rng.uniform(0.4, 1.2, num_series)
    if num_lags == 0:
        eye = np.eye(num_factors)
        empty = np.zeros((0, num_factors, num_factors))
        zero = np.zeros(num_factors)
        return World(loadings, intercept, idiosyncratic, empty, eye, zero, eye)
    transition = []
    for _ in range(num_lags):
        basis = np.linalg.qr(rng.normal(size=(num_factors, num_factors)))[0]
        transition.append(basis @ np.diag(rng.uniform(*roots, num_factors)) @ basis.T / num_lags)
    transition = np.stack(transition)
    innovation = 0.2 * np.ones((num_factors, num_factors)) + 0.8 * np.eye(num_factors)
    initial_cov = stationary_law(transition, innovation)
    mean = np.zeros(num_lags * num_factors)
    return World(loadings, intercept, idiosyncratic, transition, innovation, mean, initial_cov)


def stationary_law(transition, innovation):
    """Covariance of p consecutive periods, ascending, by scipy's Lyapunov solver."""
    num_lags, num_factors, _ = transition.shape
    size = num_lags * num_factors
    companion = np.eye(size, k=-num_factors)
    companion[:num_factors] = np.concatenate(list(transition), axis=1)
    noise = np.zeros((size, size))
    noise[:num_factors, :num_factors] = innovation
    cov = solve_discrete_lyapunov(companion, noise)
    order = np.arange(size).reshape(num_lags, num_factors)[::-1].ravel()
    return cov[np.ix_(order, order)]


def simulate(world, num_times, *, seed=1, missing=0.0):
    """values (zero where missing), observed (bool), factors."""
    rng = np.random.default_rng(seed)
    num_series, num_factors = world.loadings.shape
    num_lags = len(world.transition)
    factors = np.zeros((num_times + 100, num_factors))
    noise = rng.multivariate_normal(np.zeros(num_factors), world.innovation_cov, len(factors))
    for t in range(len(factors)):
        lags = (world.transition[i] @ factors[t - 1 - i] for i in range(min(num_lags, t)))
        factors[t] = noise[t] + sum(lags, np.zeros(num_factors))
    factors = factors[100:]
    cov = world.idiosyncratic_cov
    cov = np.diag(cov) if cov.ndim == 1 else cov
    errors = rng.multivariate_normal(np.zeros(num_series), cov, num_times)
    values = world.intercept + factors @ world.loadings.T + errors
    observed = rng.random(values.shape) >= missing
    return np.where(observed, values, 0.0), observed, factors


class DenseAnswer(NamedTuple):
    """Posterior of all factors, means (periods, K), cov (periods K, periods K), and ln p(x)."""

    means: np.ndarray
    cov: np.ndarray
    loglik: float

    def lag_cov(self, time, lag):
        num_factors = self.means.shape[1]
        rows = slice(time * num_factors, (time + 1) * num_factors)
        columns = slice((time - lag) * num_factors, (time - lag + 1) * num_factors)
        return self.cov[rows, columns]


def dense_answer(world, values, observed, *, presample=0):
    """Condition the joint Gaussian law of (factors, observed cells) by brute force."""
    num_times, _num_series = values.shape
    num_factors = world.loadings.shape[1]
    num_lags = len(world.transition)
    periods = num_times + presample
    size = periods * num_factors
    system = np.eye(size)
    noise = np.kron(np.eye(periods), world.innovation_cov)
    shift = np.zeros(size)
    if num_lags:
        first = num_lags * num_factors
        noise[:first, :first] = world.initial_cov
        shift[:first] = world.initial_mean
        for t in range(num_lags, periods):
            for lag in range(1, num_lags + 1):
                rows = slice(t * num_factors, (t + 1) * num_factors)
                columns = slice((t - lag) * num_factors, (t - lag + 1) * num_factors)
                system[rows, columns] = -world.transition[lag - 1]
    inverse = np.linalg.inv(system)
    prior_cov, prior_mean = inverse @ noise @ inverse.T, inverse @ shift
    design = np.kron(np.eye(num_times), world.loadings)
    design = np.concatenate([np.zeros((len(design), presample * num_factors)), design], axis=1)
    cov = world.idiosyncratic_cov
    errors = np.kron(np.eye(num_times), np.diag(cov) if cov.ndim == 1 else cov)
    seen = np.flatnonzero(observed.ravel())
    design, errors = design[seen], errors[np.ix_(seen, seen)]
    mean = design @ prior_mean + np.tile(world.intercept, num_times)[seen]
    total = design @ prior_cov @ design.T + errors
    gain = np.linalg.solve(total, design @ prior_cov).T
    data = values.ravel()[seen]
    means = prior_mean + gain @ (data - mean)
    posterior = prior_cov - gain @ design @ prior_cov
    loglik = multivariate_normal.logpdf(data, mean, total, allow_singular=False)
    return DenseAnswer(means.reshape(periods, num_factors), posterior, loglik)
