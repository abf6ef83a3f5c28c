"""Numbers of other programs and exact rational results.

FoReco (R, printed in its documentation, seed 123), bayesRecon (R, its Gaussian example),
hierarchicalforecast 1.5.3, and exact results on the tree of seven nodes (primal regression and dual
projection in rational arithmetic). Conventions: mean squares of residuals unless said otherwise.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from hierarchy.structures import H7_RESIDUALS, h7
from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import (
    OLS,
    WLS,
    BottomUp,
    Hierarchy,
    LevelConditional,
    MiddleOut,
    MinT,
    TopDown,
    reconcile,
    reconcile_means,
)

BASE = jnp.asarray([[10.0, 6, 5, 4, 1, 2, 4]])
BOTTOM = np.array([[4, 2, 6], [1, 1, 2], [2, 3, 4], [3, 4, 8]]).T.astype(float)
H7_EXACT = {
    "bottom-up": (BottomUp(), [11, 5, 6, 4, 1, 2, 4]),
    "average proportions": (TopDown(), [10, 4, 6, 3, 1, 7 / 3, 11 / 3]),
    "proportion of averages": (
        TopDown("proportion_of_averages"),
        [10, 4, 6, 3, 1, 9 / 4, 15 / 4],
    ),
    "forecast proportions": (
        TopDown("forecast_proportions"),
        [10, 60 / 11, 50 / 11, 48 / 11, 12 / 11, 50 / 33, 100 / 33],
    ),
    "middle-out average": (
        MiddleOut("group"),
        [11, 6, 5, 133 / 30, 47 / 30, 122 / 63, 193 / 63],
    ),
    "middle-out averages": (
        MiddleOut("group", "proportion_of_averages"),
        [11, 6, 5, 9 / 2, 3 / 2, 15 / 8, 25 / 8],
    ),
    "middle-out forecast": (
        MiddleOut("group", "forecast_proportions"),
        [11, 6, 5, 24 / 5, 6 / 5, 5 / 3, 10 / 3],
    ),
    "OLS": (OLS(), [73 / 7, 113 / 21, 106 / 21, 88 / 21, 25 / 21, 32 / 21, 74 / 21]),
    "structural": (WLS(), [32 / 3, 16 / 3, 16 / 3, 25 / 6, 7 / 6, 5 / 3, 11 / 3]),
    "variance": (
        WLS("variance"),
        np.array([313665, 158735, 154930, 122388, 36347, 52084, 102846]) / 29347,
    ),
    "MinT": (
        MinT(jnp.diag(jnp.array([3.0, 2, 2, 1, 1, 1, 2])) + 0.5),
        [31 / 3, 1709 / 327, 1670 / 327, 1345 / 327, 364 / 327, 547 / 327, 1123 / 327],
    ),
}


@pytest.mark.parametrize("name", H7_EXACT)
def test_exact_results_on_seven_nodes(name: str):
    method, expected = H7_EXACT[name]
    history = np.asarray(h7().aggregate(BOTTOM))
    result = reconcile_means(BASE, h7(), method, residuals=H7_RESIDUALS, history=history)
    np.testing.assert_allclose(result[0], expected, rtol=1e-13)


def test_the_total_immutable():
    result = reconcile_means(BASE, h7(), OLS(), immutable=("total",))
    expected = [10, 31 / 6, 29 / 6, 49 / 12, 13 / 12, 17 / 12, 41 / 12]
    np.testing.assert_allclose(result[0], expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("centred", "intensity", "expected"),
    [
        (
            False,  # hts, FoReco, bayesRecon
            0.651579099871205,
            [10.67159454, 5.47376771, 5.19782682, 4.21687451, 1.25689320, 1.68195269, 3.51587413],
        ),
        (
            True,  # hierarchicalforecast 1.5.3, which agrees to 3e-8 (its ridge of 2e-8)
            0.673417422302107,
            [10.67895547, 5.47029279, 5.20866268, 4.21327657, 1.25701622, 1.69373994, 3.51492274],
        ),
    ],
)
def test_both_conventions_of_shrinkage(centred: bool, intensity: float, expected: list[float]):
    for method in (MinT(centred=centred), MinT(centred=centred, intensity=intensity)):
        result = reconcile_means(BASE, h7(), method, residuals=H7_RESIDUALS)
        np.testing.assert_allclose(result[0], expected, atol=5e-9)


def test_weighted_hierarchy():
    matrix = [[0.4, 0.1, 0.3, 0.2], [0.8, 0.2, 0, 0], [0, 0, 0.6, 0.4]]
    hierarchy = Hierarchy.from_matrix(pd.DataFrame(matrix, list("TXY"), list("abcd")))
    base = jnp.asarray([[1, 0.5, 2, 1.2, -0.6, 1, 3]])
    bottom_up = reconcile_means(base, hierarchy, BottomUp())
    np.testing.assert_allclose(bottom_up[0, :3], [1.32, 0.84, 1.8], rtol=1e-13)
    ols = np.array([4699 / 3788, 9905 / 15152, 27687 / 15152, 18577 / 18940])
    rest = [-49607 / 75760, 15629 / 15152, 22887 / 7576]
    result = reconcile_means(base, hierarchy, OLS())
    np.testing.assert_allclose(result[0], [*ols, *rest], rtol=1e-12)
    upper = np.array([10929 / 9286, 2517 / 4643, 8412 / 4643])
    lower = [19722 / 23215, -15963 / 23215, 4706 / 4643, 13971 / 4643]
    result = reconcile_means(base, hierarchy, WLS(jnp.array([1.0, 2, 2, 4, 4, 4, 4])))
    np.testing.assert_allclose(result[0], [*upper, *lower], rtol=1e-12)
    structural = reconcile_means(base, hierarchy, WLS())
    printed = [1.19, 0.56233333, 1.81766667, 0.87333333, -0.68166667, 1.02038462, 3.01358974]
    np.testing.assert_allclose(structural[0], printed, atol=5e-9)
    np.testing.assert_allclose(
        hierarchy.summing.row_squares(), [0.3, 0.68, 0.52, 1, 1, 1, 1], rtol=1e-14
    )


def test_foreco_cross_sectional_weighted():
    """csrec, wls, Z = X + Y; residual mean squares and results as printed, to six decimals."""
    hierarchy = Hierarchy.from_matrix(pd.DataFrame([[1.0, 1.0]], ["Z"], ["X", "Y"]))
    method = WLS(jnp.array([0.567134, 0.953743, 0.999872]))
    base = jnp.asarray([[20.070508, 10.129288, 11.715065], [19.439524, 9.769823, 11.558708]])
    result = reconcile_means(base, hierarchy, method)
    printed = [[20.469599, 9.458141, 11.011458], [19.864525, 9.055103, 10.809421]]
    np.testing.assert_allclose(result, printed, atol=3e-6)
    ols = reconcile_means(base[1:], hierarchy, OLS())
    np.testing.assert_allclose(ols[0], [20.069193, 9.140154, 10.929039], atol=1e-6)


def test_foreco_level_conditional():
    """cslcc, wls, exogenous levels; naive bottom forecasts of 10."""
    variances = [1.110462, 0.866973, 0.852970, 0.565582, 0.669801, 1.358584, 0.384965]
    residuals = np.sqrt(np.array([variances, variances]))
    base = np.array([39.439524, 19.769823, 21.558708, 10.070508, 10.129288, 11.715065, 10.460916])
    naive = jnp.asarray(np.concatenate([base[:3], np.full(4, 10.0)])[None])
    hierarchy = h7()
    total = reconcile_means(naive, hierarchy, LevelConditional("total"), residuals=residuals)
    group = reconcile_means(naive, hierarchy, LevelConditional("group"), residuals=residuals)
    printed_total = [
        39.439524, 19.767567, 19.671957, 9.893588, 9.873979, 9.744387, 9.927570,
    ]  # fmt: skip
    printed_group = [
        41.328531, 19.769823, 21.558708, 9.894620, 9.875202, 11.214555, 10.344153,
    ]  # fmt: skip
    np.testing.assert_allclose(total[0], printed_total, atol=1.1e-6)
    np.testing.assert_allclose(group[0], printed_group, atol=1.1e-6)
    bottom_up = reconcile_means(jnp.asarray(base[None]), hierarchy, BottomUp())
    np.testing.assert_allclose(bottom_up[0, :3], [42.375777, 20.199796, 22.175981], atol=1e-6)
    combined = reconcile_means(naive, hierarchy, LevelConditional(), residuals=residuals)
    mean = (total + group + reconcile_means(naive, hierarchy, BottomUp())) / 3
    np.testing.assert_allclose(combined, mean, rtol=1e-14)


def test_bayesrecon_gaussian():
    """u = b1 + b2, means (9, 2, 4), standard deviations (3, 2, 2); exact posterior."""
    hierarchy = Hierarchy.from_matrix(pd.DataFrame([[1.0, 1.0]], ["u"], ["b1", "b2"]))
    cov = jnp.diag(jnp.array([9.0, 4, 4]))[None, :, None, :]
    base = GaussianForecast(jnp.asarray([[9.0, 2, 4]]), cov)
    law = reconcile(base, hierarchy, MinT("forecast"))
    np.testing.assert_allclose(law.mean[0], [126 / 17, 46 / 17, 80 / 17], rtol=1e-14)
    bottom = np.array([[52, -16], [-16, 52]]) / 17
    np.testing.assert_allclose(law.cov[0, 1:, 0, 1:], bottom, rtol=1e-13)
    np.testing.assert_allclose(law.cov[0, 0, 0, 0], 72 / 17, rtol=1e-13)


def test_the_ols_mapping_of_the_eight_by_five_tree():
    """Forecasting: Principles and Practice, third edition, section 11.3: exact rows of G."""
    frame = pd.DataFrame({"t": ["T"] * 5, "g": list("AAABB"), "s": ["AA", "AB", "AC", "BA", "BB"]})
    rows = reconcile_means(jnp.eye(8), Hierarchy.from_levels(frame), OLS()).T * 29
    np.testing.assert_allclose(rows[0, 0], 17, rtol=1e-13)
    np.testing.assert_allclose(rows[3], [3, 5, -2, 21, -8, -8, -1, -1], rtol=1e-12)
    np.testing.assert_allclose(rows[6], [4, -3, 7, -1, -1, -1, 18, -11], rtol=1e-12)


def test_projection_in_a_given_norm():
    """I - D^-1 C' (C D^-1 C')^-1 C with D = diag(4, 2, 2, 1, 1, 1, 1), as gluonts projects."""
    norm = np.array([4.0, 2, 2, 1, 1, 1, 1])
    constraints = np.hstack([np.eye(3), -np.asarray(h7().summing.matrix())])
    inverse = np.diag(1 / norm)
    middle = np.linalg.inv(constraints @ inverse @ constraints.T)
    matrix = np.eye(7) - inverse @ constraints.T @ middle @ constraints
    result = reconcile_means(jnp.eye(7), h7(), WLS(jnp.asarray(1 / norm))).T
    np.testing.assert_allclose(result, matrix, atol=1e-14)


def test_the_faults_of_counting():
    """Unequal depth and signed data, on which forecast proportions of other programs fail."""
    paths = Hierarchy.from_paths(["T/A/x", "T/A/y", "T/leaf"])
    base = jnp.asarray([[10.0, 6, 2, 3, 4]])
    result = reconcile_means(base, paths, TopDown("forecast_proportions"))
    np.testing.assert_allclose(result[0], [10, 6, 2.4, 3.6, 4], rtol=1e-14)
    pair = Hierarchy.from_paths(["T/x", "T/y"])
    returns, errors = jnp.asarray([[0.004, 0.01, -0.0099]]), np.array([[0.01] * 3, [-0.01] * 3])
    signed = reconcile_means(returns, pair, TopDown("signed"), residuals=errors)
    np.testing.assert_allclose(signed[0], [0.004, 0.01195, -0.00795], rtol=1e-12)
    kept = reconcile_means(returns, pair, WLS("variance"), residuals=errors, immutable=("T",))
    np.testing.assert_allclose(signed, kept, rtol=1e-12)
