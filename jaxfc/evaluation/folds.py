"""Which rows train and which test: walk-forward, purged k-fold, combinatorial purged folds.

A fold is two masks over the rows, and a mask is an information set: a model sees
`observed & fold.train[:, None]`. All folds have one shape, so one `vmap` estimates all of them.

The target of row t becomes known at row t + `horizon`; a row whose span t..t + horizon meets that
of a test row knows what is tested, and is purged from the training rows.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.typing import Array, Bool, Float, Int

Spans = int | Int[np.ndarray, " time"]
MOST_FOLDS = 100_000


class Folds(NamedTuple):
    """`train` and `test` rows of every fold, and which fold answers for a row in each path.

    A path is a whole history out of sample: row t of path p is tested by fold `source[p, t]`, -1
    where no fold tests it.
    """

    train: Bool[np.ndarray, "folds time"]
    test: Bool[np.ndarray, "folds time"]
    source: Int[np.ndarray, "paths time"]

    def paths(
        self, answers: Float[Array, "folds time *rest"] | Float[np.ndarray, "folds time *rest"]
    ) -> Float[Array, "paths time *rest"]:
        """Answers of the folds (forecasts, losses, returns) put together to paths; NaN where no
        fold tests a row."""
        answers = jnp.asarray(answers)
        rows = jnp.arange(self.source.shape[1])
        found = answers[jnp.asarray(self.source), rows]
        tested = (self.source >= 0).reshape(*self.source.shape, *(1,) * (found.ndim - 2))
        return jnp.where(tested, found, jnp.nan)


def walk_forward(
    num_times: int,
    *,
    train_size: int,
    test_size: int,
    horizon: int,
    expanding: bool = False,
) -> Folds:
    """Folds that test the next `test_size` rows and train on the last `train_size` before them.

        train  b_k - train_size .. b_k - 1,  b_k = a_k - horizon,  test  a_k .. a_k + test_size - 1

    with a_{k+1} = a_k + test_size, the last test row being the last row; `expanding` trains on all
    rows up to b_k - 1. Later rows never train, so an embargo has nothing to do.

    **Raises:** `ValueError` for sizes below 1, a negative horizon, or too few rows for one fold.
    """
    check_counts(num_times=num_times, train_size=train_size, test_size=test_size)
    check_horizon(horizon, num_times)
    needed = train_size + horizon + test_size
    if num_times < needed:
        raise ValueError(
            f"a fold of {train_size} training rows, a horizon of {horizon} and {test_size} test "
            f"rows needs {needed} rows, there are {num_times}; shorten one of them."
        )
    starts = np.arange(num_times - test_size, train_size + horizon - 1, -test_size)[::-1, None]
    rows = np.arange(num_times)
    first = 0 if expanding else starts - horizon - train_size
    train = (rows >= first) & (rows < starts - horizon)
    test = (rows >= starts) & (rows < starts + test_size)
    return Folds(train, test, tested_by(test, 1))


def purged_k_fold(num_times: int, num_folds: int, *, horizon: Spans, embargo: int = 0) -> Folds:
    """K consecutive groups, each tested once by a fold that trains on the others, purged.

    **Arguments:** `horizon`: rows until the target of a row is known, one number or one a row;
    `embargo`: rows left out besides after the last row that a test target needs.

    **Raises:** `ValueError` as `combinatorial_purged`.

    Source: Lopez de Prado (2018), section 7.4.
    """
    return combinatorial_purged(num_times, num_folds, 1, horizon=horizon, embargo=embargo)


def combinatorial_purged(
    num_times: int, num_groups: int, num_test_groups: int, *, horizon: Spans, embargo: int = 0
) -> Folds:
    """A fold for each choice of k of N consecutive groups as test rows, the others training.

        folds C(N, k),   paths C(N - 1, k - 1) = k / N C(N, k)

    Group g is tested by C(N - 1, k - 1) folds; in order, these answer for its rows in the paths
    0, 1, .... Row t does not train where t..t + horizon_t meets s..s + horizon_s of a test row s,
    nor in the `embargo` rows after the last row that the targets of a test group need.

    **Arguments:** as `purged_k_fold`; groups are of equal length, or one row apart.

    **Raises:** `ValueError` for counts out of range, spans that are not one for each row, negative
    ones, more than 100,000 folds, or a fold without a training row.

    Source: Lopez de Prado (2018), sections 7.4 and 12.4.
    """
    check_counts(num_times=num_times, num_groups=num_groups, num_test_groups=num_test_groups)
    if not num_test_groups < num_groups <= num_times:
        raise ValueError(
            f"num_test_groups={num_test_groups} must be below num_groups={num_groups}, and that at "
            f"most the {num_times} rows."
        )
    if embargo < 0:
        raise ValueError(f"embargo counts rows and must not be negative, got {embargo}.")
    count = math.comb(num_groups, num_test_groups)
    if count > MOST_FOLDS:
        raise ValueError(f"{count:,} folds; take fewer groups ({MOST_FOLDS:,} at most).")
    ends = np.arange(num_times) + check_horizon(horizon, num_times)
    group = np.arange(num_times) * num_groups // num_times
    # A group's span is that of its rows, and all groups' are found before any fold.
    purged = np.stack([meets(group == g, ends, embargo) for g in range(num_groups)])
    chosen = np.array(list(itertools.combinations(range(num_groups), num_test_groups)))
    tested = np.zeros((count, num_groups), bool)
    np.put_along_axis(tested, chosen, True, axis=1)
    test = tested[:, group]
    train = ~(tested.astype(int) @ purged > 0)
    empty = np.flatnonzero(~train.any(axis=1))
    if empty.size:
        raise ValueError(
            f"fold {empty[0]} (test groups {chosen[empty[0]].tolist()}) has no training row left; "
            "take fewer groups, fewer test groups, or a shorter horizon or embargo."
        )
    return Folds(train, test, tested_by(test, math.comb(num_groups - 1, num_test_groups - 1)))


def meets(
    tested: Bool[np.ndarray, " time"], ends: Int[np.ndarray, " time"], embargo: int
) -> Bool[np.ndarray, " time"]:
    """Rows whose span meets that of one consecutive group, which lie in it, or in its embargo."""
    rows = np.arange(tested.size)
    first, last = rows[tested][0], ends[tested].max()
    return (ends >= first) & (rows <= last + embargo)


def tested_by(
    test: Bool[np.ndarray, "folds time"], num_paths: int
) -> Int[np.ndarray, "paths time"]:
    """The folds that test each row, in order; -1 where there are fewer."""
    order = np.cumsum(test, axis=0) - 1
    source = np.full((num_paths, test.shape[1]), -1)
    fold, row = np.nonzero(test)
    source[order[fold, row], row] = fold
    return source


def check_horizon(horizon: Spans, num_times: int) -> Spans:
    """The rows until targets are known, if they are counts."""
    spans = np.asarray(horizon)
    if spans.ndim and spans.shape != (num_times,):
        raise ValueError(f"horizon of shape {spans.shape} for {num_times} rows; give one a row.")
    if np.any(spans < 0):
        raise ValueError(f"horizon counts rows and must not be negative, got {spans.min()}.")
    return horizon
