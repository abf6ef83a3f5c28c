"""What is asked of arguments: numbers within their range, a key where a model draws, values of
single rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxfc.typing import Array, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows


def required_key(key: PRNGKeyArray | None, what: str) -> PRNGKeyArray:
    """`key`, or `ValueError` if there is none; `what` says why it is needed."""
    if key is None:
        raise ValueError(f"{what}: pass key=jax.random.key(...).")
    return key


def refuse_sums(aggregation: AggregationRows | None, reader: str) -> None:
    """Raise `ValueError` for sums and averages over several rows; `reader` is who cannot read
    them, e.g. the name of the model."""
    if aggregation is not None:
        raise ValueError(
            f"{reader} reads every value as that of its own row; the panel has sums or averages "
            "over several rows. Select the other series or bring them to one frequency."
        )


def check_positive(**values: Any) -> None:
    """Raise `ValueError` for a value, by name, that is not positive and finite."""
    check_numbers(values, lambda known: known > 0.0, "positive and finite")


def check_not_negative(**values: Any) -> None:
    """Raise `ValueError` for a value, by name, that is negative, infinite or no number."""
    check_numbers(values, lambda known: known >= 0.0, "finite and not negative")


def check_numbers(
    values: Mapping[str, Any], holds: Callable[[np.ndarray], np.ndarray], what: str
) -> None:
    """Raise `ValueError` naming the first value that is not finite or not `what` it should be.

    Numbers inside a transformation are not known and pass, as does what is no number.
    """
    for name, value in values.items():
        if isinstance(value, Tracer) or not isinstance(value, Array | np.ndarray | float | int):
            continue
        known = np.asarray(value)
        if not np.all(holds(known) & np.isfinite(known)):
            raise ValueError(f"{name} must be {what}, got {known.tolist()}.")
