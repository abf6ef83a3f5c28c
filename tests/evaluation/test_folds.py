"""Folds against loops over rows, skfolio's indices, published counts; all folds in one program."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxfc.evaluation.folds import combinatorial_purged, purged_k_fold, walk_forward


def loop_folds(num_times, num_groups, num_test, spans, embargo):
    """Row by row, from the words of the definition."""
    groups = [[t for t in range(num_times) if t * num_groups // num_times == g]
              for g in range(num_groups)]  # fmt: skip
    train, test = [], []
    for chosen in itertools.combinations(range(num_groups), num_test):
        inside, keeps = np.zeros(num_times, bool), np.zeros(num_times, bool)
        for g in chosen:
            inside[groups[g]] = True
        for t in range(num_times):
            mine = range(t, t + spans[t] + 1)
            ok = not inside[t]
            for g in chosen:
                theirs = {u for s in groups[g] for u in range(s, s + spans[s] + 1)}
                ok &= not theirs & set(mine)
                ok &= not max(theirs) < t <= max(theirs) + embargo
            keeps[t] = ok
        train.append(keeps)
        test.append(inside)
    return np.array(train), np.array(test)


@pytest.mark.parametrize(
    ("num_times", "num_groups", "num_test", "horizon", "embargo"),
    [(23, 5, 1, 0, 0), (23, 5, 1, 2, 3), (40, 5, 2, 2, 1), (36, 6, 2, "varies", 2)],
)
def test_folds_are_those_of_a_loop(num_times, num_groups, num_test, horizon, embargo):
    spans = np.full(num_times, 0 if horizon == "varies" else horizon)
    if horizon == "varies":
        spans = np.random.default_rng(1).integers(0, 5, num_times)
        horizon = spans
    found = combinatorial_purged(num_times, num_groups, num_test, horizon=horizon, embargo=embargo)
    train, test = loop_folds(num_times, num_groups, num_test, spans, embargo)
    assert_array_equal(found.test, test)
    assert_array_equal(found.train, train)


def test_folds_are_those_of_skfolio():
    """skfolio 1.12.2 `CombinatorialPurgedCV(6, 2, purged_size=3, embargo_size=2)`, 60 rows: the
    training rows of folds 0, 7 and 14, and `recombined_paths`."""
    found = combinatorial_purged(60, 6, 2, horizon=3, embargo=2)
    expected = {
        0: range(25, 60),
        7: [*range(0, 7), *range(25, 37), *range(55, 60)],
        14: range(0, 37),
    }
    for fold, rows in expected.items():
        assert_array_equal(np.flatnonzero(found.train[fold]), list(rows))
    paths = [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8], [1, 5, 9, 10, 11],
             [2, 6, 9, 12, 13], [3, 7, 10, 12, 14], [4, 8, 11, 13, 14]]  # fmt: skip
    assert_array_equal(found.source[:, ::10].T, paths)


@pytest.mark.parametrize(("groups", "tested", "counts"), [(6, 2, (15, 5)), (10, 8, (45, 36))])
def test_counts_are_those_of_the_book(groups, tested, counts):
    found = combinatorial_purged(120, groups, tested, horizon=0)
    assert (len(found.test), len(found.source)) == counts
    assert counts[1] * groups == tested * math.comb(groups, tested)
    # Every path tests every row once, by a fold that does test it and does not train on it.
    rows = np.broadcast_to(np.arange(120), found.source.shape)
    assert found.test[found.source, rows].all() and not found.train[found.source, rows].any()
    # No fold answers for a row in two paths.
    assert all(len(set(found.source[:, t])) == counts[1] for t in (0, 60, 119))


def test_walk_forward_is_that_of_a_loop_and_of_skfolio():
    found = walk_forward(22, train_size=8, test_size=4, horizon=2)
    for fold, start in enumerate((10, 14, 18)):
        assert np.flatnonzero(found.test[fold]).tolist() == list(range(start, start + 4))
        assert np.flatnonzero(found.train[fold]).tolist() == list(range(start - 10, start - 2))
    assert len(found.train) == 3
    grows = walk_forward(24, train_size=8, test_size=4, horizon=2, expanding=True)
    assert [row.nonzero()[0][[0, -1]].tolist() for row in grows.train] == [[0, 9], [0, 13], [0, 17]]
    assert grows.test[-1, -1] and not grows.test[0, :12].any()


def test_all_folds_are_one_vmap_and_paths_put_them_together():
    """Least squares of every fold by weights of zero and one, against numpy row by row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 0.5 * x + rng.normal(size=40)
    folds = combinatorial_purged(40, 5, 2, horizon=1)

    def forecast(train):
        weights = train.astype(x.dtype)
        return x * jnp.sum(weights * x * y) / jnp.sum(weights * x * x)

    paths = np.asarray(folds.paths(jax.jit(jax.vmap(forecast))(folds.train)))
    assert paths.shape == (4, 40)
    for path, row in ((0, 3), (1, 17), (3, 39)):
        train = folds.train[folds.source[path, row]]
        own = np.linalg.lstsq(x[train, None], y[train], rcond=None)[0]
        assert_allclose(paths[path, row], x[row] * own[0], rtol=1e-10)
    ahead = walk_forward(40, train_size=20, test_size=5, horizon=1)
    path = np.asarray(ahead.paths(np.ones((len(ahead.train), 40, 2))))
    assert path.shape == (1, 40, 2)
    assert_array_equal(np.isnan(path[0, :, 1]), np.arange(40) < 25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: purged_k_fold(20, 30, horizon=0), "at most the 20 rows"),
        (lambda: combinatorial_purged(20, 4, 4, horizon=0), "must be below num_groups=4"),
        (lambda: purged_k_fold(20, 4, horizon=-1), "must not be negative, got -1"),
        (lambda: purged_k_fold(20, 4, horizon=0, embargo=-2), "embargo counts rows"),
        (lambda: purged_k_fold(20, 4, horizon=np.arange(3)), "one a row"),
        (lambda: purged_k_fold(20, 2, horizon=15), r"fold 0 \(test groups \[0\]\) has no training"),
        (lambda: combinatorial_purged(400, 40, 20, horizon=0), "take fewer groups"),
        (lambda: walk_forward(20, train_size=15, test_size=4, horizon=2), "needs 21 rows"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
