"""How idiosyncratic errors behave over time: strategies passed to
`DynamicFactorModel(errors=...)`."""

import abc
import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float, as_scalar
from jaxfc_kernels.autoregressive_errors import Gaps, find_gaps

# Longer gaps than this are not worth their cost: a super-block has that many periods.
LONGEST_GAP = 12


class Errors(eqx.Module):
    """The law of e_it over time, series by series."""

    @abc.abstractmethod
    def resolved(self, observed: np.ndarray) -> "Errors":
        """The strategy with its shape-determining options read off a mask (host side)."""

    @abc.abstractmethod
    def gaps(self, observed: Float[Array, "time series"]) -> Gaps | None:
        """Where each series' observed dates lie, as far as its errors remember; None: they do
        not."""


class IndependentErrors(Errors):
    """e_it independent over time."""

    def resolved(self, observed: np.ndarray) -> "IndependentErrors":
        return self

    def gaps(self, observed: Float[Array, "time series"]) -> None:
        return None


class AutoregressiveErrors(Errors):
    """e_it = r_i e_{i,t-1} + v_it, integrated out exactly: no error is a state.

    A series is quasi-differenced across its own gaps, whatever they are, up to `longest_gap`
    periods (None: the longest gap of the panel that is fitted, at most 12). After a longer gap the
    series starts anew, an error of the order |r_i|^gap which the fit reports as `gap_error`. The
    cost grows with the cube of that length. `largest` bounds |r_i|. Errors of low-frequency flows
    are AR(1) at the panel's own frequency too, unless `of_flows=False`: then they are independent,
    at one scalar a flow and period less.

    **Raises:** `ValueError` for a gap below 1 or a bound outside (0, 1).
    """

    longest_gap: int | None = eqx.field(static=True, default=None)
    largest: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.995)
    of_flows: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.longest_gap is not None and self.longest_gap < 1:
            raise ValueError(f"longest_gap must be at least 1 (or None), got {self.longest_gap}.")

    def resolved(self, observed: np.ndarray) -> "AutoregressiveErrors":
        if self.longest_gap is not None:
            return self
        longest = min(max(longest_gap(observed), 1), LONGEST_GAP)
        return dataclasses.replace(self, longest_gap=longest)

    def gaps(self, observed: Float[Array, "time series"]) -> Gaps:
        if self.longest_gap is None:
            raise ValueError(
                "AutoregressiveErrors() reads the longest gap off the panel in `fit`; traced code "
                "needs it as a number: AutoregressiveErrors(longest_gap=...)."
            )
        return find_gaps(observed, self.longest_gap)


def longest_gap(observed: np.ndarray) -> int:
    """Longest distance between consecutive observed dates of any series (0: none has two)."""
    longest = 0
    for column in np.asarray(observed, bool).T:
        dates = np.flatnonzero(column)
        if len(dates) > 1:
            longest = max(longest, int(np.diff(dates).max()))
    return longest


def gap_error(
    ar: Float[Array, " series"], observed: Float[Array, "time series"], longest: int
) -> Float[Array, " series"]:
    """Largest |r_i|^gap over the gaps beyond `longest`, across which a series was started anew; 0
    for a series without such a gap."""
    num_times = observed.shape[0]
    gaps = find_gaps(observed, num_times).before
    distance = jnp.min(jnp.where(gaps > longest, gaps, num_times + 1), axis=0)
    return jnp.where(distance <= num_times, jnp.abs(ar) ** distance, 0.0)
