"""What the numbers of a prior must satisfy, wherever they are known."""

import equinox as eqx

from jaxfc import arguments


def check_positive(prior: eqx.Module, *names: str) -> None:
    """Raise `ValueError` unless the fields of `prior` called `names` are positive and finite."""
    arguments.check_positive(**fields_of(prior, names))


def check_not_negative(prior: eqx.Module, *names: str) -> None:
    """The same for fields that may be zero."""
    arguments.check_numbers(
        fields_of(prior, names), lambda known: known >= 0.0, "0 or more and finite"
    )


def fields_of(prior: eqx.Module, names: tuple[str, ...]) -> dict[str, object]:
    """The fields by what messages call them."""
    return {f"{name} of {type(prior).__name__}": getattr(prior, name) for name in names}
