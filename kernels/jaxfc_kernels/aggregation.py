"""Temporal aggregation rows, stored compactly: y_i = Q_i x_i for every series i of a panel.

A low-frequency observation is a weighted sum of high-frequency values over its own period and, for
changes in flows, over the period before. Each high-frequency time t therefore enters at most two
rows, and Q_i (up to T x T) is stored as two indices and two weights per time:

    y[r] = sum_{t: own_row[t] = r} own_weight[t] x[t] + sum_{t: next_row[t] = r} next_weight[t] x[t]

Rows are indexed by the time at which their period ends, so y has the shape of x and a mask says
which rows are observed. Series that share a calendar and a kind share one pattern (`group`).
"""

from typing import NamedTuple

from jax import Array


class AggregationRows(NamedTuple):
    """Aggregation patterns of a panel.

    `group` (series,) names the pattern of each series. Per pattern and time: `own_row` is the index
    of the time at which t's low-frequency period ends, `own_weight` the weight of x[t] in that row;
    `next_row` and `next_weight` the same for the row of the following period. An index equal to the
    number of times means "no such row"; its weight must be 0. A stock (or a series at the panel's
    own frequency) has own_row[t] = t, own_weight = 1, next_weight = 0.
    """

    group: Array
    own_row: Array
    own_weight: Array
    next_row: Array
    next_weight: Array
