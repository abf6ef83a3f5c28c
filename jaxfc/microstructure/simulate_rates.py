"""The order flow of Cont, Stoikov and Talreja: its rates, and their estimates from events."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from jaxfc.arguments import check_not_negative, check_positive
from jaxfc.microstructure.events import EventKind
from jaxfc.typing import Array, Float, Int


class OrderFlow(eqx.Module):
    """Rates of orders of one lot, by the distance to the best price of the other side.

    Limit orders come at a distance of i = 1 .. D ticks at rate lambda(i) on each side, market
    orders at rate mu on each side, and each resting order at distance i is cancelled at rate
    theta(i). Further away nothing happens.

    **Arguments:** `limit` lambda and `cancel` theta by distance, `market` mu, all per unit of time.

    **Raises:** `ValueError` for negative or infinite rates, no limit order, lengths that differ.

    Source: Cont, Stoikov and Talreja (2010), section 2.
    """

    limit: Float[Array, " distances"]
    cancel: Float[Array, " distances"]
    market: Float[Array, ""]

    def __check_init__(self):
        if self.limit.ndim != 1 or self.limit.shape != self.cancel.shape or not len(self.limit):
            raise ValueError(
                "limit and cancel must have one rate for each of the same distances, got shapes "
                f"{self.limit.shape} and {self.cancel.shape}."
            )
        check_not_negative(limit=self.limit, cancel=self.cancel, market=self.market)
        check_positive(**{"the sum of limit": jnp.sum(self.limit)})

    @property
    def num_distances(self) -> int:
        """D."""
        return len(self.limit)


class FlowEstimate(NamedTuple):
    """Rates, and the standard errors of `limit`, `cancel` and `market`."""

    flow: OrderFlow
    limit_error: Float[Array, " distances"]
    cancel_error: Float[Array, " distances"]
    market_error: Float[Array, ""]


def estimate_flow(
    gap: Float[Array, " events"],
    kind: Int[Array, " events"],
    distance: Int[Array, " events"],
    depth: Float[Array, "events distances"],
    num_sides: Float[Array, " events"],
) -> FlowEstimate:
    """Maximum likelihood rates: counts over exposures,

        lambda(i) = N_limit(i) / (2 T),  mu = N_market / int num_sides dt,
        theta(i) = N_cancel(i) / int depth_i dt,

    with standard errors rate / sqrt(count) (infinite without events: nothing is known).

    **Arguments:** one row an event: the time `gap` since the one before, its `kind` (ADD, DELETE or
    EXECUTE, others are passed over), its `distance` to the other side's best price before it, the
    `depth` before it at distances 1 .. D, both sides added, and the `num_sides` of the book that
    then had orders. Sizes in lots of the average order. `simulate_zero_intelligence.exposures`
    makes these columns.

    Source: Cont, Stoikov and Talreja (2010), section 3.2.
    """
    num_distances = depth.shape[1]
    at = distance[:, None] == 1 + jnp.arange(num_distances)
    adds = jnp.sum(at & (kind == EventKind.ADD)[:, None], axis=0)
    cancels = jnp.sum(at & (kind == EventKind.DELETE)[:, None], axis=0)
    trades = jnp.sum(kind == EventKind.EXECUTE)
    limit, limit_error = rate_of(adds, 2.0 * jnp.sum(gap))
    cancel, cancel_error = rate_of(cancels, gap @ depth)
    market, market_error = rate_of(trades, jnp.sum(gap * num_sides))
    flow = OrderFlow(limit, cancel, market)
    return FlowEstimate(flow, limit_error, cancel_error, market_error)


def rate_of(count: Int[Array, "..."], exposure: Float[Array, "..."]) -> tuple[Array, Array]:
    """N / E and sqrt(N) / E; zero and infinite where nothing was exposed or came."""
    seen = (count > 0) & (exposure > 0)
    safe = jnp.where(seen, exposure, 1.0)
    rate = jnp.where(seen, count / safe, 0.0)
    return rate, jnp.where(seen, jnp.sqrt(count.astype(safe.dtype)) / safe, jnp.inf)
