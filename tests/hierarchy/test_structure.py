"""Hierarchies: their sums against matrices, all ways to build them, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from hierarchy.structures import H7_LEVELS, dense_summing, equities, h7
from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import Hierarchy
from jaxfc.hierarchy.tree import tree_of

SUMMING = np.vstack([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], np.eye(4)])
PATHS = ["T/A/AA", "T/A/AB", "T/B/BA", "T/B/BB"]


def edges(weights: bool = False) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "node": ["total", "A", "B", "AA", "AB", "BA", "BB"],
            "parent": [None, "total", "total", "A", "A", "B", "B"],
        }
    )
    return frame.assign(weight=[1.0, 0.5, 0.5, 0.8, 0.2, 0.6, 0.4]) if weights else frame


def test_all_ways_to_build_one_tree():
    matrix = pd.DataFrame(SUMMING[:3], ["total", "A", "B"], ["AA", "AB", "BA", "BB"])
    constraints = pd.DataFrame(
        [[1, -1, -1, 0, 0, 0, 0], [0, 1, 0, -1, -1, 0, 0], [0, 0, 1, 0, 0, -1, -1]],
        columns=["total", "A", "B", "AA", "AB", "BA", "BB"],
    )
    built = {
        "levels": h7(),
        "edges": Hierarchy.from_edges(edges()),
        "matrix": Hierarchy.from_matrix(matrix),
        "constraints": Hierarchy.from_constraints(constraints),
        "paths": Hierarchy.from_paths(PATHS),
    }
    for hierarchy in built.values():
        np.testing.assert_array_equal(dense_summing(hierarchy), SUMMING)
        assert hierarchy.labels.parents == (-1, 0, 0, 1, 1, 2, 2)
    assert built["levels"].names == built["edges"].names == built["constraints"].names
    assert built["paths"].names[1] == "T/A" and built["paths"].bottom == tuple(PATHS)
    assert built["levels"].labels.level_names == ("total", "group", "series")


def test_the_weighted_tree_has_the_weights_of_its_edges():
    expected = [[0.4, 0.1, 0.3, 0.2], [0.8, 0.2, 0, 0], [0, 0, 0.6, 0.4]]
    hierarchy = Hierarchy.from_edges(edges(weights=True))
    np.testing.assert_allclose(hierarchy.summing.matrix(), expected, rtol=1e-15)
    tree = tree_of(hierarchy.summing, hierarchy.labels)
    np.testing.assert_allclose(tree.edge_weights, [1, 0.5, 0.5, 0.8, 0.2, 0.6, 0.4], rtol=1e-14)
    same = Hierarchy.from_levels(H7_LEVELS, weights=np.array([4, 1, 3, 2.0]), average=True)
    np.testing.assert_allclose(same.summing.matrix(), expected, rtol=1e-15)
    assert Hierarchy.from_matrix(pd.DataFrame(expected, list("TXY"), list("abcd"))).is_tree
    crooked = pd.DataFrame([[1, 2, 1, 1.0], [1, 1, 0, 0], [0, 0, 1, 1]], list("TXY"), list("abcd"))
    assert not Hierarchy.from_matrix(crooked).is_tree


def test_unequal_depth_and_crossing_groups():
    market = equities()
    assert market.names == ("M", "Tech", "Energy", "Gold", *"abcdefg")
    assert market.labels.parents == (-1, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0)
    np.testing.assert_allclose(np.sum(market.summing.matrix(), axis=1), 1.0, rtol=1e-14)
    frame = pd.DataFrame(
        {"country": list("UUDD"), "kind": list("xyxy"), "series": ["Ux", "Uy", "Dx", "Dy"]}
    )
    crossing = Hierarchy.from_levels(frame, groups=[["country"], ["kind"]])
    assert crossing.names == ("U", "D", "x", "y", "Ux", "Uy", "Dx", "Dy") and not crossing.is_tree
    np.testing.assert_array_equal(crossing.summing.matrix()[2], [1, 0, 1, 0])
    paths = Hierarchy.from_paths(["T/A/x", "T/A/y/z", "T/w"])
    assert paths.names == ("T", "T/A", "T/A/y", "T/A/x", "T/A/y/z", "T/w")
    assert paths.labels.parents == (-1, 0, 1, 1, 2, 0)


def test_sums_are_those_of_the_matrix():
    rng = np.random.default_rng(1)
    hierarchy = equities()
    summing, matrix = hierarchy.summing, np.asarray(hierarchy.summing.matrix())
    nodes = jnp.asarray(rng.normal(size=(11, 3)))
    constraints = np.hstack([np.eye(4), -matrix])
    np.testing.assert_allclose(summing.incoherence(nodes), constraints @ nodes, atol=1e-14)
    np.testing.assert_allclose(
        summing.constraint_rows(nodes[:4]), constraints.T @ nodes[:4], atol=1e-14
    )
    full = dense_summing(hierarchy)
    np.testing.assert_allclose(summing.summed_rows(nodes), full.T @ nodes, atol=1e-14)
    np.testing.assert_allclose(summing.row_squares(), np.diagonal(full @ full.T), atol=1e-14)
    variances = jnp.asarray(rng.uniform(size=7))
    np.testing.assert_allclose(
        summing.weighted_product(variances), matrix * variances @ matrix.T, atol=1e-14
    )
    np.testing.assert_allclose(hierarchy.aggregate(nodes[:7].T), (full @ nodes[:7]).T, atol=1e-14)


def test_weights_of_each_date_and_drift():
    rng = np.random.default_rng(2)
    weights = rng.uniform(size=(5, 7))
    hierarchy = equities().with_weights(weights)
    returns = rng.normal(size=(5, 7)) / 100
    nodes = hierarchy.aggregate(returns)
    for date in range(5):
        one = equities(weights[date])
        np.testing.assert_allclose(nodes[date], one.aggregate(returns[date]), atol=1e-15)
        np.testing.assert_allclose(
            hierarchy.step(date).summing.weights, one.summing.weights, rtol=1e-14
        )
    np.testing.assert_allclose(hierarchy.incoherence(nodes), 0.0, atol=1e-16)
    drifting = equities().drifted(weights[0], returns)
    wealth = weights[0] * np.vstack([np.ones(7), np.cumprod(1 + returns, axis=0)])
    market = drifting.aggregate(returns)[:, 0]
    np.testing.assert_allclose(market, wealth[1:].sum(1) / wealth[:-1].sum(1) - 1, atol=1e-14)
    total = Hierarchy.from_levels(H7_LEVELS).drifted(weights[0, :4], returns[:, :4])
    held = np.sum(total.summing.weights[:, 0], axis=-1)
    np.testing.assert_allclose(held, weights[0, :4].sum(), rtol=1e-14)


def test_constraints_that_are_redundant_or_leave_nothing():
    rows = pd.DataFrame([[1, -1, -1, 0], [0, 2, 0, -1], [2, 0, -2, -1]], columns=list("abcd"))
    hierarchy = Hierarchy.from_constraints(rows)
    values = hierarchy.aggregate(jnp.array([3.0, 5.0]))
    named = pd.Series(np.asarray(values), hierarchy.names)[list("abcd")].to_numpy()
    np.testing.assert_allclose(rows.to_numpy() @ named, 0.0, atol=1e-14)
    assert hierarchy.bottom == ("c", "d")
    assert Hierarchy.from_constraints(rows, bottom=["a", "b"]).bottom == ("a", "b")
    with pytest.raises(ValueError, match="fix 'b' by other bottom series"):
        Hierarchy.from_constraints(rows, bottom=["b", "d"])
    with pytest.raises(ValueError, match="do not determine"):
        Hierarchy.from_constraints(rows, bottom=["a"])
    with pytest.raises(ValueError, match="leave nothing free"):
        Hierarchy.from_constraints(pd.DataFrame(np.eye(2), columns=["a", "b"]))


def test_the_law_of_all_nodes_from_the_bottom():
    rng = np.random.default_rng(3)
    hierarchy = equities()
    root = rng.normal(size=(14, 14))
    cov = (root @ root.T).reshape(2, 7, 2, 7)
    law = hierarchy.forecast(
        GaussianForecast(jnp.asarray(rng.normal(size=(2, 7))), jnp.asarray(cov))
    )
    full = dense_summing(hierarchy)
    np.testing.assert_allclose(law.cov[0, :, 1], full @ cov[0, :, 1] @ full.T, rtol=1e-12)


def test_a_hierarchy_is_a_pytree_whose_names_are_hashed_once():
    traces = []

    @jax.jit
    def top(hierarchy: Hierarchy, bottom: jax.Array) -> jax.Array:
        traces.append(None)
        return hierarchy.aggregate(bottom)[0]

    bottom = jnp.arange(7.0)
    first, second = top(equities(), bottom), top(equities(np.arange(1.0, 8.0)), bottom)
    assert len(traces) == 1 and first != second
    slope = jax.grad(lambda w: top(equities().with_weights(w), bottom))(jnp.ones(7))
    np.testing.assert_allclose(slope, (np.arange(7) - 3) / 7, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Hierarchy.from_paths(["T/a", "T/a"]), "'T/a' stand for more than one"),
        (lambda: Hierarchy.from_paths(["T/a", "T/a/b"]), "'T/a' are series and groups"),
        (lambda: Hierarchy.from_paths(["T//b"]), "'T//b' have empty labels"),
        (
            lambda: Hierarchy.from_edges(
                pd.DataFrame({"node": ["a", "b", "c"], "parent": ["b", "c", "b"]})
            ),
            "cycle: 'b' -> 'c' -> 'b'",
        ),
        (
            lambda: Hierarchy.from_edges(pd.DataFrame({"node": ["a", "b"], "parent": [None, "x"]})),
            "'b' are orphans: their parents 'x'",
        ),
        (
            lambda: Hierarchy.from_edges(
                pd.DataFrame({"node": ["a", "a"], "parent": [None, None]})
            ),
            "'a' stand for more than one",
        ),
        (
            lambda: Hierarchy.from_levels(
                pd.DataFrame({"c": list("ab"), "s": list("xx"), "n": ["1", "2"]})
            ),
            "'x' stand for more than one.*separator",
        ),
        (
            lambda: Hierarchy.from_levels(pd.DataFrame({"s": ["x", "x"], "n": ["1", None]})),
            "no name in the last column 'n'",
        ),
        (lambda: equities(np.array([1, 1, -2, 1, 1, 1, 1.0])), "series of 'Tech' sum to zero"),
        (lambda: equities(np.array([1, np.nan, 1, 1, 1, 1, 1])), "weights of 'b' are not finite"),
        (lambda: h7().with_weights({"AA": 1.0, "Z": 2.0}), "missing for 'AB'.*unknown series 'Z'"),
        (
            lambda: Hierarchy.from_matrix(pd.DataFrame([[1, 1], [1, 1]], ["T", "a"], ["a", "b"])),
            "row 'a' has the name of a series",
        ),
        (
            lambda: Hierarchy.from_matrix(pd.DataFrame([[1, 1], [0, 0]], ["T", "U"], ["a", "b"])),
            "aggregates 'U' have no weight",
        ),
        (lambda: h7().labels.index("C"), "no node 'C'"),
        (lambda: h7().labels.at_level("x"), "no level 'x'"),
    ],
)
def test_bad_structures_are_refused_by_name(build, words: str):
    with pytest.raises(ValueError, match=words):
        build()


def test_data_that_contradict_the_weights():
    hierarchy = h7()
    bottom = np.arange(12.0).reshape(3, 4) + 1
    frame = pd.DataFrame(np.asarray(hierarchy.aggregate(bottom)), columns=list(hierarchy.names))
    hierarchy.check(frame)
    hierarchy.check(frame.mask(frame == 3.0))
    with pytest.raises(ValueError, match=r"'B' contradict.*'B' is 16 at 1, its series sum to 15"):
        hierarchy.check(frame.assign(B=[7.0, 16.0, 23.0]))
    with pytest.raises(ValueError, match="'A' have no value"):
        hierarchy.check(frame.assign(A=np.nan))
    with pytest.raises(ValueError, match="no columns 'BB'"):
        hierarchy.check(frame.drop(columns="BB"))
