"""Limits of portfolio weights: what they say, and whether any weights can keep them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.trading.portfolio_room import PRECISION_POWER, Room, without_forced_signs
from jaxfc.typing import Array, Float


def as_numbers(value: Any) -> Array:
    """One number, or several, as an array of floats."""
    return jnp.asarray(value, jnp.result_type(float))


def optional_numbers(value: Any) -> Array | None:
    """As `as_numbers`; None stays None."""
    return None if value is None else as_numbers(value)


class Limits(eqx.Module):
    """What portfolio weights may be; weights are shares of wealth, the rest is cash.

        lower_i <= w_i <= upper_i,    sum_i |w_i| <= gross,    sum_i w_i = net (or within a range)

    By default long-only without leverage: between 0 and 1 each, `gross` 1, any net exposure. With
    `lower=-1.0` weights may be short. `gross=None`: no limit beyond those of the assets. `net`: a
    number that the sum has to equal (1.0: fully invested), a pair (least, most), or None.

    **Arguments:** `lower`, `upper`: one number for all assets or (series,); an asset with both
    equal is pinned.

    **Raises:** `ValueError` for limits that are not finite or that no weights can keep.
    """

    lower: Float[Array, "*#series"] = eqx.field(converter=as_numbers, default=0.0)
    upper: Float[Array, "*#series"] = eqx.field(converter=as_numbers, default=1.0)
    gross: Float[Array, ""] | None = eqx.field(
        converter=optional_numbers, default=1.0, kw_only=True
    )
    net: Float[Array, "*ends"] | None = eqx.field(
        converter=optional_numbers, default=None, kw_only=True
    )

    def __check_init__(self):
        if self.net is not None and self.net.shape not in ((), (2,)):
            raise ValueError(f"net is a number, (least, most) or None, got shape {self.net.shape}.")
        leaves = [leaf for leaf in jax.tree.leaves(self) if isinstance(leaf, Array)]
        if leaves and not any(isinstance(leaf, Tracer) for leaf in leaves):
            check_limits(self)

    def check_series(self, num_series: int) -> None:
        """Raises `ValueError` for limits of another number of assets or that cannot be kept."""
        for name, limit in (("lower", self.lower), ("upper", self.upper)):
            if limit.shape not in ((), (num_series,)):
                raise ValueError(
                    f"{name} has shape {limit.shape}; the draws have {num_series} series, so give "
                    f"one number or {num_series}."
                )
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            check_reachable(self, num_series)

    def room(self, num_series: int) -> Room:
        """The limits as affine constraints of `num_series` weights, loosened by rounding."""
        dtype = self.lower.dtype
        loose = float(jnp.finfo(dtype).eps) ** PRECISION_POWER
        lower, upper = (jnp.broadcast_to(x, (num_series,)) for x in (self.lower, self.upper))
        gross, net = self.gross, self.net
        if gross is not None:
            lower, upper, gross, net = without_forced_signs(lower, upper, gross, net, loose)
        # Only pinned assets: what is clipped of the others afterwards would add up in the sum.
        width = jnp.where(upper - lower > loose, 0.0, loose)
        if net is not None and net.ndim == 1:
            net = net + loose * jnp.asarray([-1.0, 1.0], dtype)
        return Room(lower - width, upper + width, gross, net)


def check_limits(limits: Limits) -> None:
    """Raises `ValueError` for limits that are not finite or in the wrong order."""
    for name in ("lower", "upper", "gross", "net"):
        value = getattr(limits, name)
        if value is not None and not np.all(np.isfinite(np.asarray(value))):
            raise ValueError(
                f"{name} must be finite, got {np.asarray(value).tolist()}; give a number large "
                "enough not to matter, or None for no gross or net limit."
            )
    lower, upper = np.broadcast_arrays(np.asarray(limits.lower), np.asarray(limits.upper))
    crossed = np.flatnonzero(np.atleast_1d(lower > upper))
    if crossed.size:
        place = int(crossed[0])
        raise ValueError(
            f"lower is above upper for asset {place}: {np.atleast_1d(lower)[place]:g} and "
            f"{np.atleast_1d(upper)[place]:g}."
        )
    if limits.gross is not None and not float(limits.gross) > 0.0:
        raise ValueError(f"gross must be positive, got {float(limits.gross):g}.")
    if limits.net is not None and limits.net.ndim == 1 and limits.net[0] > limits.net[1]:
        raise ValueError(f"net is (least, most), got {np.asarray(limits.net).tolist()}.")


def check_reachable(limits: Limits, num_series: int) -> None:
    """Raises `ValueError` if no weights keep all limits."""
    lower, upper = (
        np.broadcast_to(np.asarray(x, float), (num_series,)) for x in (limits.lower, limits.upper)
    )
    smallest = np.clip(0.0, lower, upper)
    least_gross, its_net = np.abs(smallest).sum(), smallest.sum()
    least, most = lower.sum(), upper.sum()
    slack = 1e-6 * max(1.0, np.abs(lower).sum(), np.abs(upper).sum())
    if limits.net is not None:
        low, high = np.broadcast_to(np.asarray(limits.net, float), (2,))
        if low > most + slack or high < least - slack:
            raise ValueError(
                f"the weights sum to between {least:g} and {most:g} within their limits, net asks "
                f"for {low:g} to {high:g}; widen lower and upper, or change net."
            )
        # Away from the smallest weights each unit of net exposure is a unit of gross exposure.
        least_gross += abs(np.clip(its_net, low, high) - its_net)
    if limits.gross is not None and least_gross > float(limits.gross) + slack:
        raise ValueError(
            f"the limits need absolute weights that sum to {least_gross:g} at least, gross is "
            f"{float(limits.gross):g}; raise gross or loosen lower, upper and net."
        )
