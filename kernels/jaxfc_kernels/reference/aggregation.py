"""Dense reference of `aggregation`: the matrix Q_i of one series."""

import numpy as np

from jaxfc_kernels.aggregation import AggregationRows


def dense_rows(rows: AggregationRows, series: int) -> np.ndarray:
    """Q_i (time, time), rows at period ends, by a loop over times."""
    pattern = int(rows.group[series])
    num_times = rows.own_row.shape[1]
    dense = np.zeros((num_times, num_times))
    for t in range(num_times):
        for row, weight in (
            (int(rows.own_row[pattern, t]), float(rows.own_weight[pattern, t])),
            (int(rows.next_row[pattern, t]), float(rows.next_weight[pattern, t])),
        ):
            if row < num_times:
                dense[row, t] += weight
    return dense
