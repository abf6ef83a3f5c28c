"""What the numbers of a prior must satisfy, wherever they are known."""

from collections.abc import Callable

import equinox as eqx
import numpy as np
from jax.core import Tracer


def check_positive(prior: eqx.Module, *names: str) -> None:
    """Raise `ValueError` unless the fields of `prior` called `names` are positive and finite.

    Numbers inside a transformation (`vmap` over priors, say) are not known and pass.
    """
    check_numbers(prior, names, lambda known: known > 0.0, "positive")


def check_not_negative(prior: eqx.Module, *names: str) -> None:
    """The same for fields that may be zero."""
    check_numbers(prior, names, lambda known: known >= 0.0, "0 or more")


def check_numbers(
    prior: eqx.Module,
    names: tuple[str, ...],
    holds: Callable[[np.ndarray], np.ndarray],
    what: str,
) -> None:
    """Raise `ValueError` naming the first field that is not finite or not `what` it should be."""
    for name in names:
        value = getattr(prior, name)
        if isinstance(value, Tracer):
            continue
        known = np.asarray(value)
        if not np.all(holds(known) & np.isfinite(known)):
            raise ValueError(
                f"{name} of {type(prior).__name__} must be {what} and finite, got {known.tolist()}."
            )
