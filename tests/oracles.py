"""Independent oracles, obvious and slow: numpy only, no recursion shared with the library."""

from typing import NamedTuple

import numpy as np


class DenseLaw(NamedTuple):
    """A Gaussian law of a time-by-component array: mean (time, n), cov (time, n, time, n)."""

    mean: np.ndarray
    cov: np.ndarray


class DenseStateSpace(NamedTuple):
    """The joint Gaussian law of all states and all observations of a linear state space.

    `mean` stacks the states (time * states) and then the observations (time * series); `cov` is
    their covariance. Lags are covariances of the stack, so any cross-covariance can be read off.
    """

    mean: np.ndarray
    cov: np.ndarray
    num_times: int
    num_states: int
    num_series: int

    @property
    def num_stacked_states(self) -> int:
        return self.num_times * self.num_states

    def states_given(self, values: np.ndarray, observed: np.ndarray) -> DenseLaw:
        """Law of all states given the observed cells: smoothed moments at every pair of times."""
        return self._law_given(values, observed, of_states=True)

    def values_given(self, values: np.ndarray, observed: np.ndarray) -> DenseLaw:
        """Law of all observations given the observed cells (forecasts: the last rows missing)."""
        return self._law_given(values, observed, of_states=False)

    def loglik(self, values: np.ndarray, observed: np.ndarray) -> float:
        """Log-density of the observed cells."""
        seen, errors = self._seen(values, observed)
        cov = self.cov[np.ix_(seen, seen)]
        quadratic = errors @ np.linalg.solve(cov, errors)
        return -0.5 * (len(seen) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + quadratic)

    def _seen(self, values: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = np.flatnonzero(np.asarray(observed).ravel())
        seen = self.num_stacked_states + cells
        return seen, np.asarray(values).ravel()[cells] - self.mean[seen]

    def _law_given(self, values: np.ndarray, observed: np.ndarray, of_states: bool) -> DenseLaw:
        split = self.num_stacked_states
        wanted = np.arange(split) if of_states else np.arange(split, len(self.mean))
        width = self.num_states if of_states else self.num_series
        seen, errors = self._seen(values, observed)
        cross = self.cov[np.ix_(wanted, seen)]
        gain = np.linalg.solve(self.cov[np.ix_(seen, seen)], cross.T).T
        mean = self.mean[wanted] + gain @ errors
        cov = self.cov[np.ix_(wanted, wanted)] - gain @ cross.T
        shape = (self.num_times, width)
        return DenseLaw(mean.reshape(shape), cov.reshape(shape + shape))


def every_time(array: np.ndarray, num_times: int) -> np.ndarray:
    """A constant repeated along a leading time axis."""
    return np.broadcast_to(array, (num_times, *np.shape(array)))


def dense_state_space(
    initial_mean: np.ndarray,
    initial_cov: np.ndarray,
    transition: np.ndarray,
    offset: np.ndarray,
    innovation_cov: np.ndarray,
    design: np.ndarray,
    observation_offset: np.ndarray,
    observation_cov: np.ndarray,
) -> DenseStateSpace:
    """Joint law of x_0..x_{T-1} and y_0..y_{T-1}; all arrays but the first two lead with time.

    x_0 ~ N(initial_mean, initial_cov) is the state of the first observation; row t of `transition`,
    `offset`, `innovation_cov` leads from x_t to x_{t+1}. The states are written as a linear map of
    (x_0, eta_0, ..., eta_{T-2}), so that their covariance needs no recursion.
    """
    num_times, num_series, num_states = np.shape(design)
    size = num_times * num_states
    blocks = [slice(t * num_states, (t + 1) * num_states) for t in range(num_times)]
    from_shocks = np.zeros((size, size))
    shock_mean, shock_cov = np.zeros(size), np.zeros((size, size))
    for to_time, to_block in enumerate(blocks):
        for from_time, from_block in enumerate(blocks[: to_time + 1]):
            product = np.eye(num_states)
            for time in range(from_time, to_time):
                product = np.asarray(transition[time]) @ product
            from_shocks[to_block, from_block] = product
        shock_mean[to_block] = initial_mean if to_time == 0 else offset[to_time - 1]
        shock_cov[to_block, to_block] = initial_cov if to_time == 0 else innovation_cov[to_time - 1]
    state_mean = from_shocks @ shock_mean
    state_cov = from_shocks @ shock_cov @ from_shocks.T

    measure = np.zeros((num_times * num_series, size))
    noise_cov = np.zeros((num_times * num_series, num_times * num_series))
    for time, block in enumerate(blocks):
        rows = slice(time * num_series, (time + 1) * num_series)
        measure[rows, block] = design[time]
        noise_cov[rows, rows] = observation_cov[time]
    value_mean = measure @ state_mean + np.ravel(observation_offset)
    cross = state_cov @ measure.T
    value_cov = measure @ cross + noise_cov
    return DenseStateSpace(
        mean=np.concatenate([state_mean, value_mean]),
        cov=np.block([[state_cov, cross], [cross.T, value_cov]]),
        num_times=num_times,
        num_states=num_states,
        num_series=num_series,
    )
