"""What rates and impact coefficients must satisfy; traced values pass, they belong to a program."""

import numpy as np
from jax.core import Tracer

from jaxfc.typing import Array


def check_positive(**values: Array) -> None:
    """Raise `ValueError` for a value, by name, that is not a positive finite number."""
    for name, value in values.items():
        if not isinstance(value, Tracer):
            numbers = np.asarray(value)
            if not np.all((numbers > 0) & np.isfinite(numbers)):
                raise ValueError(f"{name} must be positive and finite, got {numbers}.")


def check_not_negative(**values: Array) -> None:
    """Raise `ValueError` for a value, by name, that is negative, infinite or no number."""
    for name, value in values.items():
        if not isinstance(value, Tracer):
            numbers = np.asarray(value)
            if not np.all((numbers >= 0) & np.isfinite(numbers)):
                raise ValueError(f"{name} must be finite and not negative, got {numbers}.")
