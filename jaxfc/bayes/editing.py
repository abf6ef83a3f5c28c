"""Editing the draws of a forecast: what one knows of some series, draw by draw.

Every function takes a forecast made of draws, changes the named series from a step on, and leaves
all other numbers of every draw, so that the joint law of the rest is what it was. Weights of a
`WeightedForecast` stay. Names are resolved by `names`, a panel or one name a series; without it
series are named by their positions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.views_statements import names_of, unknown_name
from jaxfc.bayes.views_weighted import WeightedForecast
from jaxfc.forecast import SampleForecast
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.panel import Panel

Draws = TypeVar("Draws", SampleForecast, WeightedForecast)
Series = str | int | Sequence[str] | Sequence[int]
Amount = float | Float[Array, "..."] | Float[np.ndarray, "..."]


def with_zero_return(
    forecast: Draws,
    series: Series,
    *,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """The series return nothing from `from_step` on, in every draw: they were delisted or bought.

    Of a forecast of returns; of levels, see `with_frozen`.
    """
    return changed(forecast, series, jnp.zeros_like, names, from_step)


def with_added(
    forecast: Draws,
    series: Series,
    amount: Amount,
    *,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """`amount` more in every draw: one number, one a series, or (steps, series)."""
    return changed(forecast, series, lambda part: jnp.add(part, amount), names, from_step)


def with_scaled(
    forecast: Draws,
    series: Series,
    factor: Amount,
    *,
    about: Amount = 0.0,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """`factor` times as far from `about`, in every draw: about zero, or about the means."""

    def scaled(part: Array) -> Array:
        return jnp.asarray(about + factor * (part - about))

    return changed(forecast, series, scaled, names, from_step)


def with_capped(
    forecast: Draws,
    series: Series,
    *,
    lower: Amount = -jnp.inf,
    upper: Amount = jnp.inf,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """Values below `lower` or above `upper` become those: a bid, a limit, a floor.

    **Raises:** `ValueError` if a lower bound is above its upper one, or one is not a number.
    """
    if not np.all(np.asarray(lower) <= np.asarray(upper)):
        raise ValueError(f"lower {lower} is above upper {upper}, or one of them is NaN.")
    return changed(forecast, series, lambda part: jnp.clip(part, lower, upper), names, from_step)


def with_frozen(
    forecast: Draws,
    series: Series,
    *,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """Every draw keeps its value of `from_step` for all later steps: trading halts.

    Of a forecast of levels; returns of a halted asset are zero (`with_zero_return`).
    """

    def kept(part: Array) -> Array:
        return jnp.broadcast_to(part[:, :1], part.shape)

    return changed(forecast, series, kept, names, from_step)


def with_path(
    forecast: Draws,
    series: Series,
    path: Amount,
    *,
    names: "Panel | Sequence[str] | None" = None,
    from_step: int = 1,
) -> Draws:
    """The series follow `path` in every draw: a scenario. NaN leaves what was drawn.

    **Arguments:** `path` (steps,) for all the series or (steps, series), the steps from
    `from_step` to the end of the horizon.

    The other series keep their law, they do not answer to the scenario: for what the scenario
    implies for them, put a view on it (`with_views`).

    **Raises:** `ValueError` if the path does not have these steps.
    """
    steps = forecast.draws.shape[1] - from_step + 1
    values = jnp.asarray(path, forecast.draws.dtype)
    if values.ndim not in (1, 2) or values.shape[0] != steps:
        raise ValueError(
            f"a path from step {from_step} of {forecast.draws.shape[1]} has {steps} values, got "
            f"shape {values.shape}."
        )
    values = values[:, None] if values.ndim == 1 else values

    def replaced(part: Array) -> Array:
        return jnp.where(jnp.isnan(values), part, values)

    return changed(forecast, series, replaced, names, from_step)


def changed(
    forecast: Draws,
    series: Series,
    change: Callable[[Array], Array],
    names: "Panel | Sequence[str] | None",
    from_step: int,
) -> Draws:
    """The forecast with `change` of (draws, steps from `from_step`, series) put in its place.

    **Raises:** `ValueError` for unknown series, one named twice or a step outside the horizon,
    `TypeError` for a forecast that is not made of draws.
    """
    if not isinstance(forecast, SampleForecast | WeightedForecast):
        raise TypeError(
            f"a {type(forecast).__name__} has no draws to edit; pass "
            "SampleForecast(forecast.sample(num_draws, key=key))."
        )
    _, horizon, num_series = forecast.draws.shape
    if not 1 <= from_step <= horizon:
        raise ValueError(f"from_step must be in 1..{horizon}, got {from_step}.")
    places = jnp.asarray(positions(series, names, num_series))
    part = forecast.draws[:, from_step - 1 :, places]
    after = jnp.broadcast_to(change(part), part.shape)
    draws = forecast.draws.at[:, from_step - 1 :, places].set(after)
    return eqx.tree_at(lambda f: f.draws, forecast, draws)


def positions(series: Series, names: "Panel | Sequence[str] | None", num_series: int) -> list[int]:
    """Columns of the named or numbered series."""
    wanted = [series] if isinstance(series, str | int) else list(series)
    if not wanted:
        raise ValueError("no series was named.")
    known = None if names is None else names_of(names, num_series)
    places = []
    for one in wanted:
        if isinstance(one, str):
            if known is None:
                raise ValueError(f"the series {one!r} is named; pass names=panel, or positions.")
            if one not in known:
                raise unknown_name(one, known, "series")
            places.append(known.index(one))
        elif -num_series <= one < num_series:
            places.append(int(one) % num_series)
        else:
            raise ValueError(f"position {one} is out of range for {num_series} series.")
    twice = [one for one, place in zip(wanted, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ValueError(f"series {twice[0]!r} is named twice; name every series once.")
    return places
