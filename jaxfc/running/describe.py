"""What a configuration is, as JSON values: the same text for the same options in every process."""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def describe(thing: Any) -> Any:
    """A configuration as nested JSON values: classes by name with their fields, arrays as lists.

    A function is known by its module and name, so two functions of one name are told apart by
    nobody.

    **Raises:** `ValueError` for an object whose content cannot be seen.
    """
    if isinstance(thing, enum.Enum):
        return f"{name_of(type(thing))}.{thing.name}"
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if isinstance(thing, np.ndarray | np.generic | jax.Array):
        return describe_array(thing)
    if isinstance(thing, Mapping):
        return {str(name): describe(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if isinstance(thing, functools.partial):
        given = {"arguments": describe(thing.args), "options": describe(thing.keywords)}
        return {"partial": describe(thing.func), **given}
    if isinstance(thing, type) or hasattr(thing, "__qualname__"):
        return name_of(thing)
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing)]
        fields = {name: describe(getattr(thing, name, None)) for name in names}
        return {"class": name_of(type(thing)), **fields}
    if hasattr(thing, "__dict__"):
        return {"class": name_of(type(thing)), **describe(vars(thing))}
    raise ValueError(
        f"{thing!r} cannot be written into the configuration of a store: make "
        f"{type(thing).__name__} a dataclass or an equinox.Module."
    )


def describe_array(values: np.ndarray | np.generic | jax.Array) -> Any:
    """A number as a number, an array as its type and nested lists, a key as its words."""
    if isinstance(values, jax.Array) and jnp.issubdtype(values.dtype, jax.dtypes.prng_key):
        return {"key": np.asarray(jax.random.key_data(values)).tolist()}
    array = np.asarray(values)
    if array.ndim == 0:
        return describe(array.item())
    return {"dtype": str(array.dtype), "values": [describe(value) for value in array.tolist()]}


def name_of(thing: Callable[..., Any]) -> str:
    """Module and name of a class or function."""
    return f"{thing.__module__}.{thing.__qualname__}"


def difference(theirs: Any, ours: Any, name: str) -> tuple[str, Any, Any]:
    """Where two descriptions first differ, and how."""
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        pairs = ((f"{name}.{key}", value, ours[key]) for key, value in theirs.items())
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        both = zip(theirs, ours, strict=True)
        pairs = ((f"{name}[{i}]", left, right) for i, (left, right) in enumerate(both))
    else:
        return name, theirs, ours
    for inner, left, right in pairs:
        if left != right:
            return difference(left, right, inner)
    return name, theirs, ours
