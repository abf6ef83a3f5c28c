"""Checks of a state space and its data: shapes, dtypes, and how far the time axes reach."""

import jax.numpy as jnp

from jaxfc.typing import Array
from jaxfc_kernels.kalman_system import System, TimeVarying


def vector_length(name: str, field: Array | TimeVarying, axis: str) -> int:
    """The length of a vector field; raises `ValueError` if it is none."""
    is_varying = isinstance(field, TimeVarying)
    array = field.values if is_varying else field
    if array.ndim != 1 + is_varying:
        expected = f"(time, {axis})" if is_varying else f"({axis},)"
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}.")
    return array.shape[-1]


def check_field(
    name: str, field: Array | TimeVarying, shapes: tuple[tuple[int, ...], ...], dtype: jnp.dtype
) -> None:
    """Raise `ValueError` unless a field has one of `shapes`, after its time axis, and `dtype`."""
    is_varying = isinstance(field, TimeVarying)
    array = field.values if is_varying else field
    shape = array.shape[1:] if is_varying else array.shape
    if shape not in shapes:
        lead = "(time,) + " if is_varying else ""
        expected = " or ".join(f"{lead}{shape}" for shape in shapes)
        hint = ""
        if not is_varying and array.shape[1:] in shapes:
            hint = f" If it changes over time, pass {name}=TimeVarying(values)."
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}.{hint}")
    if array.dtype != dtype or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"all fields must share one real floating dtype: initial_mean is {dtype}, "
            f"{name} is {array.dtype}."
        )


def check_coverage(system: System, num_needed: int, purpose: str) -> None:
    """Raise `ValueError` if the time axis of a `TimeVarying` field is too short."""
    for name, field in system._asdict().items():
        if isinstance(field, TimeVarying) and field.values.shape[0] < num_needed:
            raise ValueError(
                f"{name} has {field.values.shape[0]} time entries, but {purpose} need "
                f"{num_needed}; extend TimeVarying(values) along its first axis."
            )


def check_data(system: System, values: Array, observed: Array | None) -> tuple[Array, Array | None]:
    """Raise `ValueError` if data do not fit; **returns** values and mask as arrays."""
    values = jnp.asarray(values)
    num_series = vector_length("observation_offset", system.observation_offset, "series")
    if values.ndim != 2 or values.shape[1] != num_series or values.shape[0] < 1:
        raise ValueError(
            f"values must have shape (time, {num_series}) with at least one row, "
            f"got {values.shape}."
        )
    if values.dtype != system.initial_mean.dtype:
        raise ValueError(
            f"values are {values.dtype} but the state space is {system.initial_mean.dtype}; "
            "convert one of them."
        )
    observed = None if observed is None else jnp.asarray(observed)
    if observed is not None and observed.shape != values.shape:
        raise ValueError(
            f"observed must have the shape of values, {values.shape}, got {observed.shape}."
        )
    check_coverage(system, values.shape[0], f"{values.shape[0]} rows of data")
    return values, observed
