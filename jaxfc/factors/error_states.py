"""The state of a factor model whose errors are states: AR(1) errors, low-frequency flows.

    x_it = mu_i + W_i f_t + e_it,  e_it = r_i e_i,t-1 + v_it,  f_t = sum_l A_l f_{t-l} + u_t
    y_it = sum_{j < L} w_itj x_i,t-j + noise,  noise ~ N(0, measurement_cov_i)

y is what is observed; a series at the panel's own frequency has w = (1, 0, ..). The state is

    (f_t, f_{t-1}, .., f_{t-m+1})           m = max(p, longest window), all factors of one lag first
    e_it of the series with a window of 1   in the order of the panel
    (e_it, e_i,t-1, .., e_i,t-L_i+1)        of the other series, one after the other, newest first

so it has m K + N + (windows beyond 1) entries: exact and general, the slow way.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float
from jaxfc_kernels.aggregation import AggregationRows

# Growth of a quarter over the quarter before, in monthly growth rates (Mariano and Murasawa 2003).
GROWTH_WEIGHTS = (1.0, 2.0, 3.0, 2.0, 1.0)

Weights = (
    Float[Array | np.ndarray, "series window"]
    | Float[Array | np.ndarray, "time series window"]
    | AggregationRows
)


class StateLayout(NamedTuple):
    """Where everything stands in the state: K factors, m periods of them, L_i errors per series."""

    num_factors: int
    depth: int
    windows: tuple[int, ...]

    @property
    def num_factor_states(self) -> int:
        return self.depth * self.num_factors

    @property
    def num_states(self) -> int:
        return self.num_factor_states + sum(self.windows)

    @property
    def error_positions(self) -> np.ndarray:
        """Index of e_it, newest, of every series."""
        windows = np.asarray(self.windows)
        is_short = windows == 1
        lengths = np.concatenate([windows[is_short], windows[~is_short]])
        starts = self.num_factor_states + np.cumsum(lengths) - lengths
        positions = np.empty(len(windows), int)
        positions[np.concatenate([np.flatnonzero(is_short), np.flatnonzero(~is_short)])] = starts
        return positions

    @property
    def error_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Series and lag of every error in the state, series by series."""
        series = np.repeat(np.arange(len(self.windows)), self.windows)
        first = np.cumsum(self.windows) - self.windows
        return series, np.arange(len(series)) - first[series]


def aggregation_weights(rows: AggregationRows) -> np.ndarray:
    """w[t, i, j], the weight of x_i,t-j in what is observed of series i in row t.

    (time, series, window), the window being the longest of any row: 1 for monthly in months, 5 for
    quarterly changes in flows.
    """
    own_row, next_row = np.asarray(rows.own_row), np.asarray(rows.next_row)
    num_patterns, num_times = own_row.shape
    weights = np.zeros((num_patterns, num_times, num_times))
    for target, weight in ((own_row, rows.own_weight), (next_row, rows.next_weight)):
        pattern, time = np.nonzero(target < num_times)
        row = target[pattern, time]
        np.add.at(weights, (pattern, row, row - time), np.asarray(weight)[pattern, time])
    used = np.flatnonzero(np.any(weights != 0, axis=(0, 1)))
    window = 1 + int(used.max(initial=0))
    return weights[np.asarray(rows.group), :, :window].swapaxes(0, 1)


def observation_weights(
    weights: Weights | None,
    num_series: int,
) -> np.ndarray:
    """Weights as a concrete array, (series, window) or (time, series, window)."""
    if weights is None:
        return np.ones((num_series, 1))
    known = aggregation_weights(weights) if isinstance(weights, AggregationRows) else weights
    known = np.asarray(known)
    if known.ndim not in (2, 3) or known.shape[-2] != num_series:
        raise ValueError(
            f"weights must be (series, window) or (time, series, window) with {num_series} series, "
            f"got {known.shape}."
        )
    return known


def state_layout(weights: np.ndarray, num_factors: int, num_lags: int) -> StateLayout:
    """The smallest state that holds every window."""
    used = weights != 0 if weights.ndim == 2 else np.any(weights != 0, axis=0)
    lags = np.arange(1, used.shape[1] + 1)
    windows = np.maximum(np.max(np.where(used, lags, 0), axis=1), 1)
    return StateLayout(
        num_factors, max(num_lags, int(windows.max()), 1), tuple(int(w) for w in windows)
    )


def state_design(
    layout: StateLayout, loadings: Array, weights: Array | np.ndarray
) -> Float[Array, "series states"] | Float[Array, "time series states"]:
    """Row i: w_ij W_i at lag j of the factors, w_ij at lag j of the own error."""
    kept = jnp.asarray(weights, loadings.dtype)[..., : layout.depth]
    pad = [(0, 0)] * (kept.ndim - 1) + [(0, layout.depth - kept.shape[-1])]
    kept = jnp.pad(kept, pad)
    common = (kept[..., None] * loadings[:, None, :]).reshape(*kept.shape[:-1], -1)
    errors = jnp.zeros((*kept.shape[:-1], layout.num_states - layout.num_factor_states), kept.dtype)
    series, lag = layout.error_cells
    position = layout.error_positions[series] + lag - layout.num_factor_states
    errors = errors.at[..., series, position].set(kept[..., series, lag])
    return jnp.concatenate([common, errors], axis=-1)


def state_dynamics(
    layout: StateLayout, transition: Array, innovation_cov: Array, ar: Array, innovation_var: Array
) -> tuple[Float[Array, "states states"], Float[Array, "states states"]]:
    """Transition and innovation covariance of the state."""
    num_factors, size = layout.num_factors, layout.num_states
    # Everything but the newest factors and errors moves down by one lag.
    shift = np.zeros((size, size))
    shift[: layout.num_factor_states, : layout.num_factor_states] = np.eye(
        layout.num_factor_states, k=-num_factors
    )
    newest = layout.error_positions
    for start, window in zip(newest, layout.windows, strict=True):
        later = np.arange(start + 1, start + window)
        shift[later, later - 1] = 1.0
    matrix = jnp.asarray(shift, transition.dtype)
    for lag, coefficients in enumerate(transition):
        columns = slice(lag * num_factors, (lag + 1) * num_factors)
        matrix = matrix.at[:num_factors, columns].set(coefficients)
    matrix = matrix.at[newest, newest].set(ar)
    noise = jnp.zeros((size, size), transition.dtype)
    noise = noise.at[:num_factors, :num_factors].set(innovation_cov)
    return matrix, noise.at[newest, newest].set(innovation_var)
