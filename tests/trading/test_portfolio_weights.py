"""Portfolio weights against a solver of convex programs, closed forms and the conditions that a
solution meets; what is refused."""

import cvxpy
import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.results import is_okay
from jaxfc.trading.portfolio_interior import Interior, newton_step, residual
from jaxfc.trading.portfolio_limits import Limits
from jaxfc.trading.portfolio_weights import (
    KellyPortfolio,
    MeanVariance,
    MinimumVariance,
    Quadratic,
    RiskParity,
    scaled_to_gross,
    weighted_moments,
)

allocate = eqx.filter_jit(lambda rule, draws, shares=None: rule.allocate(draws, shares))


def simulated(num_draws: int, num_series: int) -> np.ndarray:
    """Simple returns of assets with a common factor, fat tails and unlike volatilities."""
    rng = np.random.default_rng(num_series)
    std = 0.03 * np.exp(rng.normal(size=num_series))
    common = rng.standard_t(6, size=(num_draws, 1)) * rng.uniform(0.3, 1.2, num_series)
    own = rng.standard_t(6, size=(num_draws, num_series))
    return np.expm1(np.clip(0.7 * std * (common + own), -2, 2)) + 0.3 * std * rng.normal(
        size=num_series
    )


DRAWS = simulated(60, 6)
MEAN, COV = map(np.asarray, weighted_moments(DRAWS, None))
SETS = {
    "long": Limits(),
    "short": Limits(-1.0),
    "slack gross": Limits(-0.05, 0.05),
    "invested": Limits(net=1.0),
    "invested by sign": Limits(-1.0, net=1.0),
    "no gross": Limits(-0.3, 0.3, gross=None),
    "neutral": Limits(-0.4, 0.4, gross=1.5, net=0.0),
    "range": Limits(-0.4, 0.4, gross=1.5, net=(-0.1, 0.2)),
    "pinned": Limits([0.1, 0, 0, -0.2, -0.2, 0], [0.1, 0, 0.5, 0.2, 0.2, 0.5]),
}


def plain_solution(objective, limits, num_series=6):
    """By CLARABEL; the objective is a function of the variable, to be maximised."""
    w = cvxpy.Variable(num_series)
    kept = [w >= np.asarray(limits.lower), w <= np.asarray(limits.upper)]
    if limits.gross is not None:
        kept.append(cvxpy.norm1(w) <= float(limits.gross))
    if limits.net is not None:
        low, high = np.broadcast_to(np.asarray(limits.net), (2,))
        kept += [cvxpy.sum(w) >= low, cvxpy.sum(w) <= high]
    cvxpy.Problem(cvxpy.Maximize(objective(w)), kept).solve(solver="CLARABEL")
    return w.value


def assert_kept(weights, limits):
    """The limits hold, up to the precision of the solver."""
    weights = np.asarray(weights)
    assert np.all(weights >= np.asarray(limits.lower)) and np.all(
        weights <= np.asarray(limits.upper)
    )
    if limits.gross is not None:
        assert np.abs(weights).sum() <= float(limits.gross) * (1.0 + 1e-8)
    if limits.net is not None:
        low, high = np.broadcast_to(np.asarray(limits.net), (2,))
        assert low - 1e-8 <= weights.sum() <= high + 1e-8


def assert_same(weights, expected, cov):
    """The same variance, and weights as near as an almost unmoved variance makes them."""
    np.testing.assert_allclose(weights @ cov @ weights, expected @ cov @ expected, rtol=1e-7)
    np.testing.assert_allclose(weights, expected, atol=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_mean_variance_is_the_solution_of_the_program(name):
    limits = SETS[name]

    def objective(w):
        return MEAN @ w - 1.5 * cvxpy.quad_form(w, cvxpy.psd_wrap(COV))

    found = allocate(MeanVariance(3.0, limits), DRAWS)
    assert bool(is_okay(found.result)) and int(found.num_steps) < 60
    assert_kept(found.weights, limits)
    expected = plain_solution(objective, limits)
    value = [float(MEAN @ w - 1.5 * w @ COV @ w) for w in (np.asarray(found.weights), expected)]
    np.testing.assert_allclose(value[0], value[1], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.weights, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["long", "invested", "range"])
def test_kelly_is_the_solution_of_the_program(name):
    limits = SETS[name]
    shares = np.linspace(1.0, 2.0, 60)
    shares /= shares.sum()
    expected = plain_solution(lambda w: shares @ cvxpy.log(1.0 + DRAWS @ w), limits)
    found = allocate(KellyPortfolio(limits=limits), DRAWS, 7.0 * shares)
    assert bool(is_okay(found.result))
    assert_kept(found.weights, limits)
    growth = [float(shares @ np.log1p(DRAWS @ w)) for w in (np.asarray(found.weights), expected)]
    np.testing.assert_allclose(growth[0], growth[1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.weights, expected, atol=1e-4)


def test_kelly_of_a_coin_stakes_the_edge():
    # Win 1 with probability 0.6, lose the stake with 0.4: stake 0.6 - 0.4.
    coin = np.array([[1.0]] * 6 + [[-1.0]] * 4)
    weights = KellyPortfolio(limits=Limits(-1.0)).weights(coin)
    np.testing.assert_allclose(weights, [0.2], atol=1e-8)
    # At risk aversion g: ratio of marginal utilities, ((1 + w) / (1 - w))^g = 0.6 / 0.4.
    root = 1.5 ** (1.0 / 3.0)
    weights = KellyPortfolio(3.0, Limits(-1.0)).weights(coin)
    np.testing.assert_allclose(weights, [(root - 1.0) / (root + 1.0)], atol=1e-8)


def test_without_binding_limits_the_solutions_are_those_of_linear_algebra():
    wide = Limits(-10.0, 10.0, gross=None)
    found = allocate(MeanVariance(300.0, wide), DRAWS).weights
    np.testing.assert_allclose(found, np.linalg.solve(300.0 * COV, MEAN), rtol=1e-5, atol=1e-6)
    inverse = np.linalg.solve(COV, np.ones(6))
    invested = MinimumVariance(Limits(-10.0, 10.0, gross=None, net=1.0))
    found = allocate(invested, DRAWS).weights
    np.testing.assert_allclose(found, inverse / inverse.sum(), rtol=1e-5, atol=1e-6)


def test_nothing_is_held_where_nothing_is_to_be_gained():
    centred = DRAWS - MEAN
    for rule in (MeanVariance(5.0), MeanVariance(5.0, Limits(-1.0)), KellyPortfolio()):
        found = allocate(rule, centred)
        assert bool(is_okay(found.result))
        np.testing.assert_allclose(found.weights, 0.0, atol=1e-6)
    # Nor is risk taken where the covariance is singular and the net exposure has no room.
    few, neutral = (
        np.concatenate([DRAWS[:3], -DRAWS[:3]]),
        Limits(-0.1, 0.1, gross=None, net=(0, 0)),
    )
    found = allocate(MeanVariance(5.0, neutral), few)
    assert bool(is_okay(found.result))
    assert_kept(found.weights, neutral)
    np.testing.assert_allclose(few @ found.weights, 0.0, atol=1e-8)


INVESTED = Limits(gross=None, net=(0.25, 1.0))


def without_means(seed: int, spread: float = 1.5) -> np.ndarray:
    """Normal draws of a hundred assets with a common factor, each with its opposite; unless all
    have the same loading, one is nearly riskless."""
    rng = np.random.default_rng(seed)
    loadings = 0.05 * rng.uniform(1.0 - spread, 1.0 + spread, 100)
    std = rng.uniform(0.03, 0.1, 100)
    if spread > 0.0:
        loadings[0], std[0] = 0.0002, 0.0005
    chol = np.linalg.cholesky(np.outer(loadings, loadings) + np.diag(std**2))
    half = rng.normal(size=(2000, 100)) @ chol.T
    return np.concatenate([half, -half])


@pytest.mark.parametrize("seed, spread", [(7, 0.0), (5, 1.5), (8, 1.5), (9, 1.5)])
def test_without_means_no_more_is_invested_than_has_to_be(seed, spread):
    draws = without_means(seed, spread)
    mean, cov = map(np.asarray, weighted_moments(draws, None))
    np.testing.assert_allclose(mean, 0.0, atol=1e-16)
    found = allocate(MeanVariance(5.0, INVESTED), draws)
    assert bool(is_okay(found.result)) and int(found.num_steps) < 40
    assert_kept(found.weights, INVESTED)
    pinned = allocate(MinimumVariance(Limits(gross=None, net=0.25)), draws).weights
    assert_same(found.weights, pinned, cov)
    chol = np.linalg.cholesky(cov).T / np.sqrt(pinned @ cov @ pinned)  # a variance of about one
    expected = plain_solution(lambda w: -cvxpy.sum_squares(chol @ w), INVESTED, 100)
    assert_same(found.weights, expected, cov)


@pytest.mark.parametrize("seed, spread", [(7, 0.0), (5, 1.5), (13, 1.5)])
def test_kelly_without_means_meets_the_conditions_of_a_solution(seed, spread):
    draws = without_means(seed, spread)
    found = allocate(KellyPortfolio(limits=INVESTED), draws)
    assert bool(is_okay(found.result)) and int(found.num_steps) < 40
    weights = np.asarray(found.weights)
    assert_kept(weights, INVESTED)
    # The last unit of wealth is worth the same in all assets that are held, less in the others, and
    # less than nothing everywhere: only the lower end of the range keeps it invested.
    np.testing.assert_allclose(weights.sum(), 0.25, atol=1e-8)
    worth = (1.0 / (1.0 + draws @ weights)) @ draws / len(draws)
    held = weights > 1e-5
    level = worth[held].mean()
    assert level < 0.0
    np.testing.assert_allclose(worth[held], level, rtol=1e-3)
    assert np.all(worth[~held] <= level * (1.0 - 1e-3))


@pytest.mark.parametrize("rule", [MeanVariance(5.0, INVESTED), KellyPortfolio(limits=INVESTED)])
def test_single_precision_finds_the_weights_of_double_precision(rule):
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rule)
    for seed in (0, 1, 2):
        draws = without_means(seed, 0.5)
        found = allocate(single, jnp.asarray(draws, jnp.float32))
        assert bool(is_okay(found.result)) and found.weights.dtype == jnp.float32
        np.testing.assert_allclose(found.weights, allocate(rule, draws).weights, atol=1e-3)


@pytest.mark.parametrize("seed, spread", [(7, 0.0), (5, 1.5), (12, 1.5)])
def test_a_net_range_that_uses_up_the_gross_limit_pins_the_net_exposure(seed, spread):
    draws = without_means(seed, spread)
    pinned = allocate(MinimumVariance(), draws).weights
    _, cov = map(np.asarray, weighted_moments(draws, None))
    for side in (1.0, -1.0):
        ends = (1.0, 1.5) if side > 0.0 else (-1.5, -1.0)
        limits = Limits(-1.0, gross=1.0, net=ends)
        found = allocate(MeanVariance(5.0, limits), draws)
        assert bool(is_okay(found.result)) and int(found.num_steps) < 60
        assert_kept(found.weights, limits)
        assert_same(side * found.weights, pinned, cov)


@pytest.mark.parametrize("gross", [None, 1.0])
@pytest.mark.parametrize("net", [None, 0.3, (0.3, 0.9)])
def test_a_step_solves_its_equations_however_tightly_limits_bind(gross, net):
    rng = np.random.default_rng(1)
    root = rng.normal(size=(20, 20)) / 20.0
    objective = Quadratic(jnp.asarray(rng.normal(size=20)), jnp.asarray(root @ root.T))
    room = Limits(-1.0, gross=gross, net=net).room(20)
    # Long and short, a few at their limits; the net exposure is at its lower end, gross at its own.
    weights = jnp.asarray(np.r_[np.full(10, 0.065), np.full(10, -0.035)])
    point = jnp.stack([weights, jnp.abs(weights)])[: 1 if gross is None else 2]
    slacks = jnp.maximum(room.slacks(point), 1e-11)
    multipliers = jnp.where(slacks < 1e-6, jnp.asarray(rng.uniform(1.0, 2.0, slacks.size)), 1e-11)
    state = Interior(point, slacks, multipliers, jnp.asarray(0.1))
    aim = jnp.asarray(1e-12)
    step = newton_step(objective, room, state, aim, objective)
    missed, change = jax.jvp(lambda at: residual(objective, room, at, aim), (state,), (step,))
    left = [
        np.abs(a + b).max() for a, b in zip(*map(jax.tree.leaves, (missed, change)), strict=True)
    ]
    size = max(float(jnp.abs(step.point).max()), 1.0)
    np.testing.assert_array_less(np.array(left) / size, 1e-12)


@pytest.mark.parametrize("limits", [Limits(net=1.0), Limits(0.0, 0.1, gross=None, net=1.0)])
def test_a_hundred_assets_meet_the_conditions_of_a_solution(limits):
    draws = simulated(400, 100)
    found = allocate(MinimumVariance(limits), draws)
    assert bool(is_okay(found.result)) and int(found.num_steps) < 60
    weights = np.asarray(found.weights)
    assert_kept(weights, limits)
    _, cov = weighted_moments(draws, None)
    risk = np.asarray(cov @ weights)
    # Marginal variances are equal where no limit binds, larger at zero, smaller at the top.
    top = float(limits.upper)
    inside = (weights > 1e-5) & (weights < top - 1e-5)
    level = np.median(risk[inside])
    assert inside.sum() >= 3
    np.testing.assert_allclose(risk[inside], level, rtol=1e-3)
    assert np.all(risk[weights <= 1e-5] >= level * (1.0 - 1e-3))
    assert np.all(risk[weights >= top - 1e-5] <= level * (1.0 + 1e-3))


def test_risk_parity_shares_the_risk_by_budgets():
    budgets = np.array([1.0, 2.0, 3.0, 1.0, 1.0, 4.0])
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    for rule, shares in [
        (RiskParity(), np.full(6, 1 / 6)),
        (RiskParity(budgets, signs, gross=1.5), budgets / budgets.sum()),
    ]:
        found = allocate(rule, DRAWS)
        weights = np.asarray(found.weights)
        assert bool(is_okay(found.result))
        contributions = weights * (COV @ weights)
        np.testing.assert_allclose(contributions / contributions.sum(), shares, rtol=1e-7)
        np.testing.assert_allclose(np.abs(weights).sum(), float(rule.gross), rtol=1e-12)
    np.testing.assert_array_equal(np.sign(weights), signs)
    uncorrelated = RiskParity().from_moments(MEAN, np.diag(np.diag(COV))).weights
    inverse = 1.0 / np.sqrt(np.diag(COV))
    np.testing.assert_allclose(uncorrelated, inverse / inverse.sum(), rtol=1e-9)
    many = simulated(50, 80)  # more assets than draws
    assert bool(is_okay(allocate(RiskParity(), many).result))


def test_weights_of_draws_are_repetitions():
    counts = np.array([0, 1, 2] * 20)
    repeated = np.repeat(DRAWS, counts, axis=0)
    rule = KellyPortfolio(2.0, Limits(-1.0))
    by_weight = allocate(rule, DRAWS, 0.3 * counts).weights
    np.testing.assert_allclose(by_weight, allocate(rule, repeated).weights, atol=1e-7)
    mean, cov = weighted_moments(DRAWS, np.ones(60))
    np.testing.assert_allclose(mean, DRAWS.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(DRAWS.T), rtol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        MeanVariance(3.0),
        MeanVariance(3.0, Limits(-1.0)),
        MeanVariance(300.0, Limits(-3.0, 3.0, gross=None, net=(0.8, 1.0))),
        KellyPortfolio(20.0, Limits(-3.0, 3.0, gross=None, net=0.3)),
        RiskParity(),
    ],
    ids=["mean-variance", "short", "net range", "Kelly", "parity"],
)
def test_derivatives_are_those_of_the_solution(rule):
    direction = np.random.default_rng(2).normal(size=DRAWS.shape) * 0.01

    def exposure(size):
        return jnp.arange(6.0) @ rule.weights(DRAWS + size * direction)

    slope = jax.jit(jax.grad(exposure))(0.0)
    at, small = jax.jit(exposure), 1e-4
    expected = (at(small) - at(-small)) / (2.0 * small)
    assert abs(float(slope)) > 1e-4
    np.testing.assert_allclose(slope, expected, rtol=2e-3, atol=1e-5)


def test_a_batch_is_a_loop_and_a_search_cut_short_says_so():
    rule = MeanVariance(3.0, Limits(-1.0))
    batch = np.stack([DRAWS, DRAWS[::-1] * 0.5, -DRAWS])
    together = jax.jit(jax.vmap(rule.weights))(batch)
    one_by_one = np.stack([allocate(rule, draws).weights for draws in batch])
    np.testing.assert_allclose(together, one_by_one, atol=1e-9)
    short = allocate(MeanVariance(3.0, max_steps=3), DRAWS)
    assert not bool(is_okay(short.result)) and int(short.num_steps) == 3
    assert np.all(np.isnan(MeanVariance(3.0, max_steps=3).weights(DRAWS)))
    assert not bool(is_okay(allocate(MeanVariance(3.0), DRAWS * np.nan).result))


def test_scaling_to_a_gross_exposure():
    weights = np.array([[0.1, -0.05], [0.5, 0.25], [2.0, -2.0]])
    found = scaled_to_gross(jnp.asarray(weights), 0.25, 1.0)
    expected = weights * np.array([[0.25 / 0.15], [1.0], [0.25]])
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert np.all(np.isnan(scaled_to_gross(jnp.zeros(2), 0.25, 1.0)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Limits(0.5, 0.1), "lower is above upper for asset 0: 0.5 and 0.1"),
        (lambda: Limits(0.0, np.inf), "upper must be finite"),
        (lambda: Limits(gross=0.0), "gross must be positive"),
        (lambda: Limits(net=(0.5, 0.1)), r"net is \(least, most\)"),
        (lambda: Limits(net=(0.5, 0.6, 0.7)), "net is a number"),
        (lambda: MeanVariance(-1.0), "risk_aversion must be positive"),
        (lambda: KellyPortfolio(0.0), "risk_aversion must be positive"),
        (lambda: KellyPortfolio(max_steps=0), "max_steps must be at least 1"),
        (lambda: RiskParity(np.array([1.0, 0.0])), "budgets must be positive"),
        (lambda: RiskParity(signs=0.5), "signs are 1 or -1"),
        (lambda: MeanVariance(1.0, Limits(np.zeros(3))).weights(DRAWS), "lower has shape"),
        (lambda: MinimumVariance(Limits(0, 0.1, net=1.0)).weights(DRAWS), "between 0 and 0.6"),
        (lambda: MeanVariance(1.0, Limits(0.2)).weights(DRAWS), "sum to 1.2 at least, gross is 1"),
        (lambda: MeanVariance(1.0).weights(DRAWS[:1]), "at least 2 draws"),
        (lambda: MeanVariance(1.0).weights(DRAWS, -np.ones(60)), "draw_weights must be finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rules_lower_for_cuda_in_float32():
    draws = jax.ShapeDtypeStruct((20, 4), jnp.float32)
    for rule in (KellyPortfolio(limits=Limits(-1.0, net=(0.0, 1.0))), RiskParity()):
        rule = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rule)
        found = jax.jit(lambda x, rule=rule: rule.weights(x))
        exported = jax.export.export(found, platforms=["cuda"])(draws)
        assert exported.platforms == ("cuda",)
