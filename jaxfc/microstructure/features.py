"""What the state of a book and its trades say, row by row; no row knows a later one.

All are NaN in rows whose book is not valid (flows: nor the one before), and only there.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.microstructure.book import BookStates, is_one_of, where_valid
from jaxfc.microstructure.events import BookEvents, EventKind, EventLog
from jaxfc.typing import Array, Bool, Float


def order_flow_imbalance(states: BookStates) -> Float[Array, "time levels"]:
    """Net flow of bids minus asks at every level since the row before, in lots.

        e_t = q^b_t 1{P^b_t >= P^b_s} - q^b_s 1{P^b_t <= P^b_s}
            - q^a_t 1{P^a_t <= P^a_s} + q^a_s 1{P^a_t >= P^a_s},    s = t - 1

    Column 0 is the best level. A missing level counts as one of size 0 at the worst price. Sums
    over rows are the imbalance of an interval (`accumulate`). NaN where this book or the one before
    is not valid.

    Source: Cont, Kukanov and Stoikov (2014), eq. 4; Xu, Gould and Howison (2018) for more levels.
    """
    bids = side_flow(states.bid_price, states.bid_size)
    asks = side_flow(-states.ask_price, states.ask_size)
    continued = states.continued[:, None]
    return jnp.where(continued, (bids - asks).astype(jnp.result_type(float)), jnp.nan)


def side_flow(price: Array, size: Array) -> Array:
    """What came minus what went at every level of a side whose better prices are larger."""
    price = jnp.where(size > 0, price, jnp.iinfo(price.dtype).min)
    earlier_price, earlier_size = price[:-1], size[:-1]
    came = jnp.where(price[1:] >= earlier_price, size[1:], 0)
    went = jnp.where(price[1:] <= earlier_price, earlier_size, 0)
    return jnp.pad(came - went, ((1, 0), (0, 0)))


def queue_imbalance(states: BookStates, num_levels: int = 1) -> Float[Array, " time"]:
    """(bids - asks) / (bids + asks) over the best `num_levels` levels, between -1 and 1.

    **Raises:** `ValueError` if the states have fewer levels.

    Source: Gould and Bonart (2016), eq. 2.
    """
    check_counts(num_levels=num_levels)
    if num_levels > states.bid_size.shape[1]:
        raise ValueError(
            f"num_levels={num_levels}, but the states have {states.bid_size.shape[1]} levels; "
            "replay the log with more."
        )
    dtype = jnp.result_type(float)
    bids, asks = (
        jnp.sum(size[:, :num_levels].astype(dtype), axis=1)
        for size in (states.bid_size, states.ask_size)
    )
    total = jnp.where(states.valid, bids + asks, 1.0)
    return where_valid(states, (bids - asks) / total)


def weighted_mid_from_mid(states: BookStates) -> Float[Array, " time"]:
    """(bid * ask size + ask * bid size) / (bid size + ask size) at the best level, minus the mid:
    spread * imbalance / 2, in ticks.

    Source: Stoikov (2018), section 2.
    """
    return 0.5 * states.spread * queue_imbalance(states)


def signed_flow(events: BookEvents) -> Float[Array, " events"]:
    """Size of a trade with the sign of who came to it, in lots: buyers +, sellers -; else 0.

    Trades are executions, hidden executions and reported trades; auctions have no such side.
    """
    trades = is_one_of(events.kind, EventKind.EXECUTE, EventKind.HIDDEN, EventKind.TRADE)
    return jnp.where(trades, -events.side * events.size, 0).astype(jnp.result_type(float))


def event_marks(events: BookEvents) -> Float[Array, "events marks"]:
    """Ones where a row is of a class: limit orders, cancellations, trades, each of buyers and of
    sellers in turn.

    A `SET` row is of no class: whether it adds depends on the book.
    """
    limit = events.kind == int(EventKind.ADD)
    cancel = is_one_of(events.kind, EventKind.REDUCE, EventKind.DELETE)
    flow = signed_flow(events)
    bid, ask = events.side == 1, events.side == -1
    marks = [limit & bid, limit & ask, cancel & bid, cancel & ask, flow > 0, flow < 0]
    return jnp.stack(marks, axis=1).astype(jnp.result_type(float))


MARK_NAMES = ("buy_limit", "sell_limit", "buy_cancel", "sell_cancel", "buy_trade", "sell_trade")


def realised_volatility(price: Float[Array, " time"], num_steps: int) -> Float[Array, " time"]:
    """Root of the sum of the last `num_steps` squared log returns of a price, in any unit.

        v_t = sqrt(sum_{i < num_steps} (log P_{t-i} - log P_{t-i-1})^2)

    A log return over `num_steps` rows, not annualised; sample the price at a clock first
    (`strikes`). NaN until there are `num_steps` returns, and while one of them is NaN.

    Source: Andersen, Bollerslev, Diebold and Labys (2003).
    """
    check_counts(num_steps=num_steps)
    # By exact differences of ticks: in float32 logs of prices hide changes of one tick.
    returns = jnp.log1p(jnp.diff(price) / price[:-1])
    squares = jnp.pad(returns**2, (num_steps, 0), constant_values=jnp.nan)
    # Windows summed afresh: a difference of running totals would carry one NaN to all later rows.
    total = jax.lax.reduce_window(squares, 0.0, jax.lax.add, (num_steps,), (1,), "VALID")
    return jnp.sqrt(total)


def feature_table(
    log: EventLog, columns: Mapping[str, Array], usable: Bool[Array, " time"]
) -> tuple[Float[Array, "time features"], Bool[Array, "time features"]]:
    """Columns side by side as `values` and `observed`, as models take them: nothing is observed,
    and values are 0, in rows that are not `usable` (`states.valid`, `states.continued`).

    Host side. Columns are of the rows of the log, one array a name.

    **Raises:** `ValueError` for a column of another length; for NaN or infinity in a usable row, by
    name of the feature, file and line.
    """
    for name, column in columns.items():
        if column.shape != (len(log),):
            raise ValueError(
                f"feature {name!r} has shape {column.shape}, expected one value for each of the "
                f"{len(log)} rows of {log.source}."
            )
    values = jnp.stack(list(columns.values()), axis=1)
    wrong = np.asarray(~jnp.isfinite(values) & usable[:, None])
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise ValueError(
            f"{log.source}, line {log.line[row]}: feature {list(columns)[place]!r} is "
            f"{float(values[row, place])}; leave such rows out of usable=, or repair the feature."
        )
    observed = jnp.broadcast_to(usable[:, None], values.shape)
    return jnp.where(observed, values, 0.0), observed
