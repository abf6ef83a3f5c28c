"""From returns to portfolios: every link again in numpy, slopes, windows, no look-ahead."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import jaxfc
from jaxfc.compose.factor_dcc import FactorDCC, FittedFactorDCC
from jaxfc.compose.portfolio_chain import PortfolioChain
from jaxfc.forecast import Forecast, GaussianForecast
from jaxfc.hierarchy import Hierarchy, MinT, reconcile
from jaxfc.results import SUCCESSFUL, is_okay
from jaxfc.trading import Allocation, Limits, MinimumVariance
from jaxfc.typing import Array
from jaxfc.volatility import (
    DCC,
    ConstantCorrelation,
    CorrelationModel,
    LinearShrinkage,
    RiskMetrics,
    VarianceModel,
    ZeroMean,
)

NUM_ASSETS, WINDOW, HORIZON, NUM_TIMES, COST = 6, 100, 5, 115, 0.002
GROUPS = np.array([[1 / 6] * 6, [1 / 3] * 3 + [0.0] * 3, [0.0] * 3 + [1 / 3] * 3])
SUMMING = np.vstack([GROUPS, np.eye(NUM_ASSETS)])
NAMES = [f"r{i}" for i in range(NUM_ASSETS)]
HIERARCHY = Hierarchy.from_matrix(pd.DataFrame(GROUPS, ["market", "A", "B"], NAMES))
RULE = MinimumVariance(Limits(0.0, 0.5, gross=None, net=1.0))
START = {"intensity": 0.3, "half_life": 15.0}
# Returns whose slopes are looked at: one of all windows, one of the last and of what is earned.
CELLS = {"early": (70, 0), "late": (109, 4)}
STILL = {"early": 0.0, "late": 0.0, "hidden": 0.0}


def simulated(num_assets=NUM_ASSETS, num_times=NUM_TIMES, seed=0):
    """Simple returns of a day with two factors whose variances move."""
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.5, 1.5, (num_assets, 2))
    loadings[num_assets // 2 :, 1] *= -1
    level = rng.uniform(0.6, 1.6, num_assets)
    variances, factors, rows = np.ones(2), np.zeros(2), []
    for _ in range(100 + num_times):
        shocks = np.sqrt(variances) * rng.normal(size=2)
        variances = 0.1 + 0.2 * shocks**2 + 0.7 * variances
        factors = 0.2 * factors + shocks
        rows.append(0.01 * (0.03 + loadings @ factors + level * rng.normal(size=num_assets)))
    return jnp.asarray(rows[100:])


class InverseVariance(eqx.Module):
    """Weights in proportion to 1 / variance: a rule whose program is short."""

    def from_moments(self, mean, cov):
        shares = 1.0 / jnp.diagonal(cov)
        return Allocation(shares / jnp.sum(shares), jnp.asarray(0), SUCCESSFUL)


def chain_of(theta, full=True):
    """GARCH and DCC of the factors, exponential smoothing of the errors, both searches to the end
    so that differences of the answer are smooth. Not `full`: smoothing and constant correlations,
    and a short rule, which compile in a fraction of the time."""
    decay = 0.5 ** (1.0 / theta["half_life"])
    smooth = VarianceModel(RiskMetrics(decay), mean=ZeroMean())
    garch = VarianceModel(mean=ZeroMean(), tolerance=1e-8)
    correlations = CorrelationModel(ConstantCorrelation(), margins=smooth)
    if full:
        correlations = CorrelationModel(DCC(), margins=garch, tolerance=1e-8)
    factors = jaxfc.DynamicFactorModel(2, 1, method=jaxfc.PPCA())
    model = FactorDCC(factors, correlations, idiosyncratic=smooth)
    errors = LinearShrinkage(theta["intensity"])
    rule = RULE if full else InverseVariance()
    return PortfolioChain(model, HIERARCHY, rule, errors, horizon=HORIZON)


def sharpe_ratio(theta, moves, values, observed, full):
    """That of the periods after costs, and all that led to it; `moves` are added to `CELLS`, the
    last of them to all cells that are not observed."""
    for name, cell in CELLS.items():
        values = values.at[cell].add(moves[name])
    values = values + jnp.where(observed, 0.0, moves["hidden"])
    path = chain_of(theta, full).run(values, observed, WINDOW, cost=COST)
    net = path.portfolio.net
    return jnp.mean(net) / jnp.std(net), path


@pytest.fixture(scope="module")
def values():
    return simulated()


@pytest.fixture(scope="module")
def observed():
    return jnp.ones((NUM_TIMES, NUM_ASSETS), bool).at[20:30, 1].set(False).at[-3, 2].set(False)


@pytest.fixture(scope="module", params=["short", pytest.param("full", marks=pytest.mark.slow)])
def program(request):
    """The chain with its slopes by hyperparameters and by data: one compiled function."""
    full = request.param == "full"

    @jax.jit
    def run(theta, moves, values, observed):
        def both(theta, moves):
            found = sharpe_ratio(theta, moves, values, observed, full)
            return found[0], found

        slopes, found = jax.jacfwd(both, argnums=(0, 1), has_aux=True)(theta, moves)
        return *found, slopes

    return run


@pytest.fixture(scope="module")
def answer(program, values, observed):
    return program(START, STILL, values, observed)


class Links(NamedTuple):
    """The chain's parts at the last origin, and its answer there."""

    fitted: FittedFactorDCC
    base: GaussianForecast
    coherent: Forecast
    weights: Array


@pytest.fixture(scope="module")
def links(values, observed):
    @jax.jit
    def run(values, observed):
        chain = chain_of(START)
        fitted = chain.model.estimate(*chain.nodes(values, observed))
        base = chain.base_law(fitted)
        coherent = reconcile(base, HIERARCHY, MinT("forecast"), missing=())
        found = RULE.from_moments(coherent.mean[0, 3:], coherent.cov[0, 3:, 0, 3:])
        return Links(fitted, base, coherent, found.weights)

    last = NUM_TIMES - HORIZON - 1
    return run(values[last + 1 - WINDOW : last + 1], observed[last + 1 - WINDOW : last + 1])


def garch_ahead(parameters, residuals, horizon):
    """Variances of the rows and of `horizon` more by the recursion, begun at the mean square."""
    omega, alpha, beta = parameters
    variance = square = np.mean(residuals**2)
    path = []
    for row in [*residuals, *[None] * horizon]:
        variance = omega + alpha * square + beta * variance
        path.append(variance)
        square = variance if row is None else row**2
    return np.asarray(path)


def factor_sums(fitted):
    """Covariance of f_{T+1} + ... + f_{T+h}: GARCH, DCC and VAR by plain recursions."""
    surprises = fitted.surprises
    innovations = np.asarray(surprises.innovations)
    assert np.asarray(surprises.known).all()
    margins = np.asarray(fitted.common.margins.parameters)
    variances = np.stack(
        [garch_ahead(p, u, HORIZON) for p, u in zip(margins, innovations.T, strict=True)], axis=1
    )
    units = innovations / np.sqrt(variances[: len(innovations)])
    a, b = np.asarray(fitted.common.parameters)
    moment = units.T @ units / len(units)
    scale = np.sqrt(np.diag(moment))
    target = moment / np.outer(scale, scale)
    quasi = product = target
    covs = []
    for k in range(len(units) + HORIZON):
        quasi = (1 - a - b) * target + a * product + b * quasi
        root = np.sqrt(np.diag(quasi))
        corr = quasi / np.outer(root, root)
        product = np.outer(units[k], units[k]) if k < len(units) else corr
        covs.append(corr * np.sqrt(np.outer(variances[k], variances[k])))
    transition = np.asarray(fitted.factors.parameters.transition)[0]
    powers = [np.linalg.matrix_power(transition, k) for k in range(HORIZON + 1)]
    total = np.zeros((2, 2))
    for s in range(HORIZON):
        reach = sum(powers[: HORIZON - s])
        total += reach @ covs[len(units) + s] @ reach.T
    carried = sum(powers[1:])
    return total + carried @ np.asarray(surprises.last_cov) @ carried.T


def test_the_law_of_the_month_is_the_dense_one(links):
    """L F L' + D C D of all nodes; C the shrunk correlations of standardised errors."""
    fitted, base = links[:2]
    loadings = np.asarray(fitted.loadings)
    errors, seen = np.asarray(fitted.surprises.errors), np.asarray(fitted.own.observed)
    decay = 0.5 ** (1.0 / START["half_life"])
    nodes = errors.shape[1]
    units, last = np.zeros_like(errors), np.zeros(nodes)
    for i in range(nodes):
        variance = np.mean(errors[seen[:, i], i] ** 2)
        for t in range(WINDOW):
            if seen[t, i]:
                units[t, i] = errors[t, i] / np.sqrt(variance)
                variance = decay * variance + (1 - decay) * errors[t, i] ** 2
        last[i] = variance
    counts = seen.T.astype(float) @ seen
    moment = units.T @ units / counts
    level = np.trace(moment) / nodes
    shrunk = (1 - START["intensity"]) * moment + START["intensity"] * level * np.eye(nodes)
    corr = shrunk / np.sqrt(np.outer(np.diag(shrunk), np.diag(shrunk)))
    own = corr * HORIZON * np.sqrt(np.outer(last, last))
    expected = loadings @ factor_sums(fitted) @ loadings.T + own
    np.testing.assert_allclose(base.cov[0, :, 0], expected, rtol=1e-8, atol=1e-12)


def test_nodes_are_the_sums_of_what_is_seen(values, observed):
    nodes, seen = chain_of(START).nodes(values, observed)
    np.testing.assert_allclose(nodes[:20], values[:20] @ SUMMING.T, atol=1e-15)
    expected = np.ones((NUM_TIMES, 9), bool)
    expected[20:30, [0, 1, 4]] = False
    expected[-3, [0, 1, 5]] = False
    np.testing.assert_array_equal(seen, expected)


def test_reconciliation_and_weights_are_the_dense_ones(links):
    """The projection by S (S' W^-1 S)^-1 S' W^-1, the weights by a general solver."""
    _, base, coherent, weights = links
    cov = np.asarray(base.cov[0, :, 0])
    inverse = np.linalg.inv(cov)
    matrix = np.linalg.solve(SUMMING.T @ inverse @ SUMMING, SUMMING.T @ inverse)
    mean = matrix @ np.asarray(base.mean[0])
    np.testing.assert_allclose(coherent.mean[0], SUMMING @ mean, rtol=1e-7, atol=1e-12)
    reconciled = matrix @ cov @ matrix.T
    np.testing.assert_allclose(coherent.cov[0, 3:, 0, 3:], reconciled, rtol=1e-7, atol=1e-12)
    assert np.all(np.diag(reconciled) < np.diag(cov)[3:])
    scale = np.trace(reconciled)
    found = optimize.minimize(
        lambda w: w @ reconciled @ w / scale,
        np.full(NUM_ASSETS, 1 / NUM_ASSETS),
        jac=lambda w: 2 * reconciled @ w / scale,
        bounds=[(0.0, 0.5)] * NUM_ASSETS,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-15},
    )
    np.testing.assert_allclose(weights, found.x, atol=1e-6)


@pytest.mark.slow
def test_a_run_is_its_links_at_every_origin(links, values, observed):
    @jax.jit
    def run(values, observed):
        return chain_of(START).run(values, observed, WINDOW, batch_size=2)

    path = run(values, observed)
    np.testing.assert_allclose(path.portfolio.weights[-1], links.weights, atol=1e-9)
    cov = np.asarray(links.coherent.cov[0, 3:, 0, 3:])
    variance = np.asarray(links.weights) @ cov @ np.asarray(links.weights)
    np.testing.assert_allclose(path.variance[-1], variance, rtol=1e-8)
    assert np.all(np.asarray(is_okay(path.result)))


def test_what_the_portfolios_earn_is_compounded(values, observed, answer):
    path = answer[1]
    known = np.where(observed, values, 0.0)
    assert list(np.asarray(path.origins)) == [99, 104, 109]
    for k, origin in enumerate(np.asarray(path.origins)):
        growth = np.prod(1.0 + known[origin + 1 : origin + 1 + HORIZON], axis=0)
        gross = np.asarray(path.portfolio.weights[k]) @ (growth - 1.0)
        np.testing.assert_allclose(path.portfolio.gross[k], gross, atol=1e-14)
    net = np.asarray(path.portfolio.net)
    assert float(answer[0]) == pytest.approx(net.mean() / net.std(), rel=1e-12)
    assert np.all(net < np.asarray(path.portfolio.gross))


def test_slopes_through_the_estimation_are_those_of_differences(program, values, observed, answer):
    """Of the Sharpe ratio after costs, by hyperparameters and by returns of a window."""
    slope, by_moves = answer[2]

    def value(theta=START, moves=STILL):
        return float(program(theta, moves, values, observed)[0])

    for name, step in (("intensity", 1e-4), ("half_life", 1e-2)):
        ends = [value(START | {name: START[name] + s}) for s in (step, -step)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        assert abs(numeric) > 1e-5
        assert float(slope[name]) == pytest.approx(numeric, rel=1e-4)
    for name in CELLS:
        ends = [value(moves=STILL | {name: s}) for s in (1e-5, -1e-5)]
        numeric = (ends[0] - ends[1]) / 2e-5
        assert float(by_moves[name]) == pytest.approx(numeric, rel=1e-3)
    assert float(by_moves["hidden"]) == 0.0


def test_weights_see_no_later_row(program, values, observed, answer):
    """Rows after an origin may be anything: its weights stay the same to the last bit."""
    origins = np.asarray(answer[1].origins)
    later = values.at[origins[1] + 1 :].multiply(-3.0)
    hidden = observed.at[origins[1] + 3 :, ::2].set(False)
    changed = program(START, STILL, later, hidden)[1]
    before = answer[1].portfolio
    np.testing.assert_array_equal(changed.portfolio.weights[:2], before.weights[:2])
    np.testing.assert_array_equal(changed.portfolio.net[:1], before.net[:1])
    assert np.abs(np.asarray(changed.portfolio.weights[2] - before.weights[2])).max() > 1e-4


@pytest.mark.slow
def test_backward_derivatives_are_the_forward_ones(values, observed):
    def value(theta):
        return sharpe_ratio(theta, STILL, values, observed, False)[0]

    forward, backward = jax.jit(lambda theta: (jax.jacfwd(value)(theta), jax.grad(value)(theta)))(
        START
    )
    for name in START:
        assert float(backward[name]) == pytest.approx(float(forward[name]), rel=1e-8)


@pytest.mark.slow
def test_two_hundred_assets_with_garch_errors():
    """214 nodes in one program: ten sectors, three regions crossing them, the market."""
    values = simulated(200, 121, seed=1)
    numbers = np.arange(200)
    groups = [np.ones(200), *(numbers % 10 == k for k in range(10))]
    groups += [numbers // 67 == k for k in range(3)]
    rows = np.asarray([np.asarray(g, float) / np.sum(g) for g in groups])
    names = [f"g{i}" for i in range(len(rows))]
    hierarchy = Hierarchy.from_matrix(pd.DataFrame(rows, names, [f"r{i}" for i in numbers]))
    model = FactorDCC(jaxfc.DynamicFactorModel(2, 1, method=jaxfc.PPCA()))
    limits = Limits(0.0, 0.05, gross=None, net=1.0)
    chain = PortfolioChain(model, hierarchy, MinimumVariance(limits), LinearShrinkage(0.2))

    @jax.jit
    def run(values):
        return chain.run(values, jnp.ones(values.shape, bool), 100)

    path = run(values)
    weights = np.asarray(path.portfolio.weights)[0]
    assert weights.shape == (200,) and weights.sum() == pytest.approx(1.0, abs=1e-8)
    assert weights.min() >= 0.0 and weights.max() <= 0.05
    # Twenty-one days of all assets alike have a larger variance.
    assert 0.0 < float(path.variance[0]) < 21 * float(jnp.var(jnp.mean(values, axis=1)))


@pytest.mark.slow
def test_it_lowers_for_cuda(values, observed):
    chain = chain_of(START)

    def weights(values, observed):
        return chain.run(values, observed, WINDOW).portfolio.weights

    exported = jax.export.export(jax.jit(weights), platforms=["cuda"])(values, observed)
    assert exported.platforms == ("cuda",)


def test_bad_input_is_named(values, observed):
    chain = chain_of(START)
    with pytest.raises(ValueError, match="115 rows leave no origin: a window of 111"):
        chain.run(values, observed, 111)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        dataclasses.replace(chain, horizon=0)
    moving = HIERARCHY.with_weights(np.ones((5, 6)))
    with pytest.raises(ValueError, match="weights for each step"):
        eqx.tree_at(lambda c: c.hierarchy, chain, moving).__check_init__()
    with pytest.raises(ValueError, match="MinT takes one of"):
        MinT("dcc")
