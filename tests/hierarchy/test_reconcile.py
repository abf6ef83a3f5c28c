"""Reconciliation against dense algebra: projections, laws, fixed and missing nodes, invariances."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from hierarchy.structures import H7_RESIDUALS, dense_gls, dense_summing, equities, h7
from jaxfc.forecast import FactorForecast, GaussianForecast, SampleForecast
from jaxfc.hierarchy import (
    ERM,
    OLS,
    WLS,
    BottomUp,
    CoherentForecast,
    Hierarchy,
    LevelConditional,
    Method,
    MiddleOut,
    MinT,
    TopDown,
    reconcile,
    reconcile_means,
)
from jaxfc.hierarchy.sample_cov import sample_cov, shrunk_cov

RNG = np.random.default_rng(11)
HORIZON, NODES = 3, 11
MEAN = jnp.asarray(RNG.normal(size=(HORIZON, NODES)))
RESIDUALS = RNG.normal(size=(40, NODES)) @ (np.eye(NODES) + 0.3 * RNG.normal(size=(NODES, NODES)))
HISTORY = np.asarray(equities().aggregate(RNG.uniform(1, 2, size=(40, 7))))
ROOT = RNG.normal(size=(HORIZON * NODES,) * 2)
COV = jnp.asarray((ROOT @ ROOT.T).reshape(HORIZON, NODES, HORIZON, NODES))
GAUSSIAN = GaussianForecast(MEAN, COV)
METHODS: dict[str, Method] = {
    "bottom-up": BottomUp(),
    "average proportions": TopDown(),
    "proportion of averages": TopDown("proportion_of_averages"),
    "forecast proportions": TopDown("forecast_proportions"),
    "signed": TopDown("signed"),
    "middle-out": MiddleOut("sector", "signed"),
    "middle-out averages": MiddleOut("sector"),
    "OLS": OLS(),
    "structural": WLS(),
    "variance": WLS("variance"),
    "sample": MinT("sample"),
    "shrink": MinT(),
    "centred": MinT(centred=True),
    "oracle": MinT("oracle"),
    "given": MinT(COV[0, :, 0]),
    "ERM": ERM(),
    "level": LevelConditional("sector"),
    "combined": LevelConditional(exogenous=False),
}


def means(method: Method, mean=MEAN, hierarchy: Hierarchy | None = None, **rest):
    rest = {"residuals": RESIDUALS, "history": HISTORY} | rest
    return reconcile_means(mean, hierarchy or equities(), method, **rest)


@pytest.mark.parametrize("name", METHODS)
def test_results_add_up_and_coherent_forecasts_stay(name: str):
    """Coherence; and idempotence of every method that keeps coherent forecasts."""
    hierarchy, method = equities(), METHODS[name]
    result = means(method)
    np.testing.assert_allclose(hierarchy.incoherence(result), 0.0, atol=1e-15)
    spreads = ("average proportions", "proportion of averages", "middle-out averages", "ERM")
    if name not in spreads:
        np.testing.assert_allclose(means(method, result), result, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "cov"),
    [
        ("OLS", np.eye(NODES)),
        ("structural", np.diag(np.sum(dense_summing(equities()) ** 2, axis=1))),
        ("variance", np.diag(np.mean(RESIDUALS**2, axis=0))),
        ("sample", RESIDUALS.T @ RESIDUALS / 40),
        ("given", np.asarray(COV[0, :, 0])),
    ],
)
def test_the_dual_projection_is_the_primal_regression(name: str, cov: np.ndarray):
    primal = dense_gls(dense_summing(equities()), cov)
    np.testing.assert_allclose(means(METHODS[name]), np.asarray(MEAN) @ primal.T, rtol=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_shrinkage_is_that_of_the_pairwise_formula(centred: bool):
    """The textbook loop over pairs, both conventions, with more series than dates and fewer."""
    for data in (RESIDUALS, RESIDUALS[:6]):
        num_times = len(data)
        values = data - data.mean(0) if centred else data
        degrees = num_times - 1 if centred else num_times
        cov = values.T @ values / degrees
        units = values / np.sqrt(np.diag(cov))
        top = bottom = 0.0
        for i in range(NODES):
            for j in range(NODES):
                if i != j:
                    products = units[:, i] * units[:, j]
                    corr = products.mean()
                    spread = np.sum(products**2) - num_times * corr**2
                    top += spread / (num_times * (num_times - 1))
                    bottom += corr**2
        intensity = min(max(top / bottom, 0.0), 1.0)
        expected = intensity * np.diag(np.diag(cov)) + (1 - intensity) * cov
        observed = jnp.ones(data.shape, dtype=bool)
        shrunk = shrunk_cov(jnp.asarray(data), observed, centred=centred)
        np.testing.assert_allclose(shrunk.dense(), expected, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(shrunk.diagonal(), np.diag(cov), rtol=1e-12)


def test_missing_residuals_count_for_their_own_dates():
    """A series seldom seen keeps its variance (not a tenth of it), and W stays semidefinite."""
    holes = RESIDUALS.copy()
    holes[:36, 7] = np.nan
    holes[3:9, 2] = np.nan
    observed = ~np.isnan(holes)
    cov = np.asarray(sample_cov(jnp.asarray(holes), jnp.asarray(observed), centred=False).dense())
    np.testing.assert_allclose(np.diag(cov), np.nanmean(holes**2, axis=0), rtol=1e-12)
    assert np.min(np.linalg.eigvalsh(cov)) > -1e-12
    both = observed[:, 2] & observed[:, 5]
    pair = np.sum(holes[both, 2] * holes[both, 5]) / np.sqrt(both.sum() * 40)
    np.testing.assert_allclose(cov[2, 5], pair, rtol=1e-12)
    variance = means(WLS("variance"), residuals=holes)
    expected = means(WLS(jnp.asarray(np.nanmean(holes**2, axis=0))))
    np.testing.assert_allclose(variance, expected, rtol=1e-12)
    filled = np.where(observed, holes, 1e9)
    filled[~observed] = np.nan
    np.testing.assert_array_equal(means(MinT(), residuals=filled), means(MinT(), residuals=holes))
    frame = pd.DataFrame(holes, columns=list(equities().names)).iloc[:, ::-1]
    np.testing.assert_array_equal(means(MinT(), residuals=frame), means(MinT(), residuals=holes))


@pytest.mark.parametrize("name", METHODS)
def test_units_do_not_matter(name: str):
    """y -> c y with its errors and values in sample gives c times the result."""
    method = METHODS[name]
    base = means(method)
    for scale in (1e-6, 1e6):
        if name == "given":
            method = MinT(scale**2 * COV[0, :, 0])
        result = means(method, scale * MEAN, residuals=scale * RESIDUALS, history=scale * HISTORY)
        np.testing.assert_allclose(result / scale, base, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["signed", "OLS", "structural", "shrink", "combined"])
def test_the_order_of_the_series_does_not_matter(name: str):
    order = np.array([4, 0, 6, 2, 1, 5, 3])
    frame = pd.DataFrame(
        {
            "market": ["M"] * 7,
            "sector": np.array(["Tech"] * 3 + ["Energy"] * 2 + ["Gold", None], object)[order],
            "asset": np.array(list("abcdefg"))[order],
        }
    )
    weights = np.array([3.0, 1.0, 2.0, 2.0, 0.5, 1.0, 0.5])[order]
    other = Hierarchy.from_levels(frame, weights=weights, average=True)
    place = [equities().labels.index(name) for name in other.names]
    result = means(
        METHODS[name],
        MEAN[:, np.array(place)],
        other,
        residuals=RESIDUALS[:, place],
        history=HISTORY[:, place],
    )
    np.testing.assert_allclose(result, means(METHODS[name])[:, np.array(place)], rtol=1e-10)


def test_a_gaussian_law_is_mapped_by_the_matrix_of_each_step():
    matrix = dense_gls(dense_summing(equities()), np.mean(RESIDUALS**2, axis=0) * np.eye(NODES))
    law = reconcile(GAUSSIAN, equities(), WLS("variance"), residuals=RESIDUALS)
    assert isinstance(law, GaussianForecast)
    expected = np.einsum("ai,hikj,bj->hakb", matrix, COV, matrix)
    np.testing.assert_allclose(law.cov, expected, rtol=1e-9, atol=1e-9)
    own = reconcile(GAUSSIAN, equities(), MinT("forecast"))
    for step in range(HORIZON):
        cov = np.asarray(COV[step, :, step])
        one = dense_gls(dense_summing(equities()), cov)
        np.testing.assert_allclose(own.mean[step], one @ MEAN[step], rtol=1e-9)
        np.testing.assert_allclose(own.cov[step, :, step], one @ cov @ one.T, rtol=1e-7, atol=1e-9)
        # Minimum trace: no other unbiased map of this kind has smaller variances.
        other = matrix @ cov @ matrix.T
        assert np.all(np.diag(other) >= np.diag(own.cov[step, :, step]) - 1e-9)
    np.testing.assert_allclose(equities().incoherence(own.mean), 0.0, atol=1e-14)


def test_draws_are_coherent_one_by_one():
    draws = GAUSSIAN.sample(50, key=jax.random.key(0))
    law = reconcile(SampleForecast(draws), equities(), MinT(), residuals=RESIDUALS)
    assert isinstance(law, SampleForecast)
    np.testing.assert_allclose(equities().incoherence(law.draws), 0.0, atol=1e-13)
    for draw in (0, 49):
        np.testing.assert_allclose(law.draws[draw], means(MinT(), draws[draw]), rtol=1e-10)


def test_a_factor_law_keeps_its_form_until_it_is_asked():
    rng = np.random.default_rng(3)
    loadings, root = rng.normal(size=(NODES, 2)), rng.normal(size=(6, 6))
    factor_cov = jnp.asarray((root @ root.T).reshape(3, 2, 3, 2))
    base = FactorForecast(
        MEAN, jnp.asarray(loadings), factor_cov, jnp.asarray(rng.uniform(1, 2, NODES)), jnp.eye(3)
    )
    dense = GaussianForecast(base.mean, base.cov)
    for method in (WLS(), MinT("forecast")):
        law, expected = (reconcile(one, equities(), method) for one in (base, dense))
        assert isinstance(law, CoherentForecast)
        np.testing.assert_allclose(law.mean, expected.mean, rtol=1e-9)
        np.testing.assert_allclose(law.cov, expected.cov, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(law.quantile(0.9), expected.quantile(0.9), rtol=1e-8)
        sums = law.cumulative().aggregate(jnp.ones((1, NODES)))
        np.testing.assert_allclose(
            sums.std, expected.cumulative().aggregate(jnp.ones((1, NODES))).std, rtol=1e-8
        )
        draws = law.sample(40, key=jax.random.key(1))
        np.testing.assert_allclose(equities().incoherence(draws), 0.0, atol=1e-13)


def test_immutable_nodes_stay_and_others_give_way():
    """Against minimisation with the fixed values as constraints (dense KKT system)."""
    hierarchy, cov = equities(), np.asarray(COV[0, :, 0])
    constraints = np.hstack([np.eye(4), -np.asarray(hierarchy.summing.matrix())])
    fixed = [0, 2, 6]
    names = [hierarchy.names[i] for i in fixed]
    result = means(MinT(jnp.asarray(cov)), immutable=names)
    np.testing.assert_allclose(result[:, np.array(fixed)], MEAN[:, np.array(fixed)], rtol=1e-12)
    rows = np.vstack([constraints, np.eye(NODES)[fixed]])
    precision = np.linalg.inv(cov)
    system = np.block([[precision, rows.T], [rows, np.zeros((7, 7))]])
    right = np.concatenate([precision @ MEAN.T, np.zeros((4, 3)), np.asarray(MEAN[:, fixed].T)])
    expected = np.linalg.solve(system, right)[:NODES].T
    np.testing.assert_allclose(result, expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match=r"'Energy', 'd', 'e' are bound to each other"):
        means(OLS(), immutable=("Energy", "d", "e", "a"))
    with pytest.raises(ValueError, match="TopDown cannot keep immutable"):
        means(TopDown(), immutable=("M",))


def test_missing_base_forecasts_are_rows_that_are_dropped():
    """G = (S_o' W_o^-1 S_o)^-1 S_o' W_o^-1 with the rows o of nodes that have forecasts."""
    hierarchy, cov = equities(), np.asarray(COV[0, :, 0])
    full = dense_summing(hierarchy)
    for gone in (["Tech"], ["Tech", "b"], ["M", "Tech", "a"], ["Gold", "g"]):
        places = [hierarchy.labels.index(name) for name in gone]
        seen = np.setdiff1d(np.arange(NODES), places)
        part = full[seen]
        mean = MEAN.at[:, np.array(places)].set(jnp.nan)
        method = MinT(jnp.asarray(cov))
        if np.linalg.matrix_rank(part) < 7:
            with pytest.raises(ValueError, match="not determined"):
                means(method, mean)
            continue
        inverse = np.linalg.inv(cov[np.ix_(seen, seen)])
        matrix = full @ np.linalg.solve(part.T @ inverse @ part, part.T @ inverse)
        expected = np.asarray(MEAN)[:, seen] @ matrix.T
        np.testing.assert_allclose(means(method, mean), expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(means(method, missing=gone), expected, rtol=1e-7, atol=1e-9)
        law = reconcile(GAUSSIAN, hierarchy, method, missing=gone)
        base = np.asarray(COV)[:, seen][:, :, :, seen]
        np.testing.assert_allclose(
            law.cov, np.einsum("ai,hikj,bj->hakb", matrix, base, matrix), rtol=1e-6, atol=1e-8
        )
    with pytest.raises(ValueError, match="'b' is NaN at steps \\[2\\] only"):
        means(OLS(), MEAN.at[1, 5].set(jnp.nan))
    with pytest.raises(ValueError, match="'a', 'b' are not determined"):
        means(OLS(), missing=("a", "b"))
    with pytest.raises(ValueError, match="'M' are both immutable and missing"):
        means(OLS(), missing=("M",), immutable=("M",))


@pytest.mark.parametrize("name", ["bottom-up", "forecast proportions", "signed", "OLS", "shrink"])
def test_weights_of_each_horizon_are_a_loop_over_hierarchies(name: str):
    weights = np.random.default_rng(5).uniform(1, 2, size=(HORIZON, 7))
    moving = equities().with_weights(weights)
    result = means(METHODS[name], hierarchy=moving)
    for step in range(HORIZON):
        one = means(METHODS[name], MEAN[step : step + 1], equities(weights[step]))
        np.testing.assert_allclose(result[step], one[0], rtol=1e-10)
    np.testing.assert_allclose(moving.incoherence(result), 0.0, atol=1e-15)
    with pytest.raises(ValueError, match="weights for 3 steps, the forecast has a horizon of 2"):
        means(METHODS["OLS"], MEAN[:2], moving)


def test_weights_may_sum_to_anything():
    """Long and short holdings of any size, against dense algebra; counts are a special case."""
    rng = np.random.default_rng(9)
    frame = equities().to_frame()
    for weights in (37.0 * rng.normal(size=7), np.ones(7), 1e-4 * rng.uniform(size=7)):
        matrix = (frame.iloc[:4] != 0.0) * weights
        hierarchy = Hierarchy.from_matrix(matrix)
        summing = np.vstack([matrix.to_numpy(), np.eye(7)])
        structural = np.diag(np.sum(summing**2, axis=1))
        for method, cov in ((OLS(), np.eye(NODES)), (WLS(), structural)):
            expected = np.asarray(MEAN) @ dense_gls(summing, cov).T
            result = reconcile_means(MEAN, hierarchy, method)
            np.testing.assert_allclose(result, expected, rtol=1e-8, atol=1e-10)


def test_a_batch_of_origins_is_a_loop_and_compiles_once():
    origins = jnp.asarray(np.random.default_rng(6).normal(size=(4, HORIZON, NODES)))
    residuals = jnp.asarray(np.random.default_rng(7).normal(size=(4, 30, NODES)))
    traces = []

    @jax.jit
    def batch(origins, residuals):
        traces.append(None)
        return jax.vmap(
            lambda mean, errors: reconcile_means(mean, equities(), MinT(), residuals=errors)
        )(origins, residuals)

    result = batch(origins, residuals)
    assert batch(2 * origins, residuals).shape == (4, HORIZON, NODES) and len(traces) == 1
    for origin in range(4):
        one = means(MinT(), origins[origin], residuals=residuals[origin])
        np.testing.assert_allclose(result[origin], one, rtol=1e-10)


@pytest.mark.parametrize("name", ["shrink", "signed", "missing"])
def test_everything_lowers_for_cuda(name: str):
    rest = {"missing": ("Tech", "b")} if name == "missing" else {}
    method = METHODS["OLS" if name == "missing" else name]

    def run(mean, residuals):
        return reconcile_means(mean, equities(), method, residuals=residuals, **rest)

    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(MEAN, jnp.asarray(RESIDUALS))
    assert exported.platforms == ("cuda",)


def test_errors_that_add_up_themselves_are_no_weights():
    """A sector of one asset with the errors of the asset: a constraint without any variance."""
    errors = RESIDUALS.copy()
    errors[:, 3] = errors[:, 9] * (1 + 1e-15)
    with pytest.raises(ValueError, match="residuals that add up themselves"):
        means(MinT("sample"), residuals=errors)
    coherent = np.asarray(equities().aggregate(errors[:, 4:]))
    with pytest.raises(ValueError, match="residuals that add up themselves"):
        means(MinT("sample"), residuals=coherent)
    for kind in ("shrink", "oracle"):
        assert np.all(np.isfinite(means(MinT(kind), residuals=coherent)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: means(OLS(), MEAN[:, :9]), "has 9 series, the hierarchy 11 nodes"),
        (lambda: reconcile_means(MEAN, equities(), MinT()), "needs the errors of the base"),
        (lambda: reconcile_means(MEAN, equities(), TopDown()), "needs the values of the nodes"),
        (
            lambda: means(MinT(), residuals=np.where(np.arange(11) == 5, np.nan, RESIDUALS)),
            "residuals of 'b' are missing at all dates",
        ),
        (
            lambda: means(MinT(), residuals=np.where(RESIDUALS > 1, np.inf, RESIDUALS)),
            "residuals of .* are infinite",
        ),
        (lambda: means(MinT("sample"), residuals=RESIDUALS[:2]), "fewer dates than aggregates"),
        (lambda: means(MiddleOut("x")), "no level 'x'"),
        (lambda: MinT("best"), "MinT takes one of"),
        (lambda: MinT("sample", intensity=0.5), "an intensity belongs to"),
        (lambda: WLS("best"), "WLS takes"),
        (lambda: TopDown("best"), "proportions are one of"),
        (lambda: means(MinT("forecast")), "use `reconcile`"),
    ],
)
def test_bad_input_is_named(call, words: str):
    with pytest.raises(ValueError, match=words):
        call()


def test_zero_mean_residuals_are_fine():
    """Regressions with an intercept leave residuals that sum to zero: nothing special."""
    centred = RESIDUALS - RESIDUALS.mean(axis=0)
    hierarchy = h7()
    residuals = H7_RESIDUALS - H7_RESIDUALS.mean(axis=0)
    base = jnp.asarray([[10.0, 6, 5, 4, 1, 2, 4]])
    for method in (WLS("variance"), MinT(), MinT(centred=True)):
        assert bool(jnp.all(jnp.isfinite(means(method, residuals=centred))))
        assert bool(
            jnp.all(jnp.isfinite(reconcile_means(base, hierarchy, method, residuals=residuals)))
        )
