"""The arrays of a linear-Gaussian state space, and which of them change over time."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array


class TimeVarying(NamedTuple):
    """Declares that a system matrix changes over time: `values` has time as its leading axis."""

    values: Array


class System(NamedTuple):
    """The arrays of a state space; those after `initial_cov` may be `TimeVarying`.

    Shapes: (states,), (states, states), (states, states), (states,), (states, states),
    (series, states), (series,), and for `observation_cov` (series, series), or (series,) when it is
    diagonal.
    """

    initial_mean: Array
    initial_cov: Array
    transition: Array | TimeVarying
    offset: Array | TimeVarying
    innovation_cov: Array | TimeVarying
    design: Array | TimeVarying
    observation_offset: Array | TimeVarying
    observation_cov: Array | TimeVarying


def split_time(fields: tuple, num_times: int) -> tuple[tuple, Callable]:
    """Separate what varies (to be scanned over the first `num_times`) from what is constant.

    **Returns:** the scanned pytree, and a function that puts a time slice of it back in place.
    """
    varying = tuple(
        field.values[:num_times] if isinstance(field, TimeVarying) else None for field in fields
    )

    def at_time(slices: tuple) -> tuple:
        return tuple(
            slice_ if isinstance(field, TimeVarying) else field
            for field, slice_ in zip(fields, slices, strict=True)
        )

    return varying, at_time
