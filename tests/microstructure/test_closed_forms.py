"""Published schedules, costs and laws of impact, against printed numbers and dense minimisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from jaxfc.microstructure.execution_schedules import (
    AlmgrenChriss,
    liquidate_assets,
    obizhaeva_wang,
)
from jaxfc.microstructure.impact_laws import equity_costs, square_root_impact
from jaxfc.microstructure.impact_propagator import (
    cheapest_schedule,
    decay_allows,
    exponential_decay,
    power_decay,
    price_manipulation,
    propagated_prices,
    trading_cost,
)

# Almgren and Chriss (2000), section 3: the case of the paper, recomputed in extended precision.
PAPER = {
    "volatility": 0.95,
    "temporary": 2.5e-6,
    "permanent": 2.5e-7,
    "fixed_cost": 0.0625,
    "duration": 5.0,
    "num_steps": 5,
}
QUANTITY = 1e6
TABLE = {  # risk aversion: kappa, holdings x_1 .. x_4, E, V
    0.0: (0.0, (800000.0, 600000.0, 400000.0, 200000.0), 662500.00, 1.083000e12),
    1e-7: (0.194629, (757882.4, 544564.3, 351939.7, 172688.8), 670057.46, 9.247186e11),
    1e-6: (0.607076, (541955.6, 289854.2, 147897.5, 62141.8), 911226.99, 3.641286e11),
    2e-6: (0.846297, (428598.8, 182932.8, 76295.7, 27643.4), 1140715.17, 2.019313e11),
    1e-5: (1.726711, (177868.3, 31636.2, 5621.6, 969.2), 1845211.26, 2.948515e10),
}


@pytest.fixture(scope="module")
def paper():
    return AlmgrenChriss(**PAPER)


@pytest.fixture(scope="module")
def schedules(paper):
    def one(aversion):
        holdings = paper.holdings(QUANTITY, aversion)
        cost, variance = paper.expected_cost(holdings), paper.cost_variance(holdings)
        return paper.urgency(aversion), holdings, cost, variance

    return jax.jit(jax.vmap(one))(jnp.array(list(TABLE)))


def test_table_of_almgren_and_chriss(schedules):
    for i, (kappa, between, cost, variance) in enumerate(TABLE.values()):
        found = [np.asarray(part[i]) for part in schedules]
        assert found[0] == pytest.approx(kappa, abs=5e-7)
        np.testing.assert_allclose(found[1], [QUANTITY, *between, 0.0], atol=0.05)
        assert found[2] == pytest.approx(cost, abs=0.005)
        assert found[3] == pytest.approx(variance, rel=5e-7)


def test_schedule_is_the_least_of_its_quadratic_form(paper, schedules):
    """Dense algebra: (H + 2 lambda sigma^2 tau) x = right side, over the inner holdings."""
    size = paper.num_steps - 1
    net, risk = 2.375e-6, 0.95**2
    second = 2 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)
    edge = np.zeros(size)
    edge[0] = QUANTITY
    for i, aversion in enumerate(TABLE):
        dense = np.linalg.solve(2 * net * second + 2 * aversion * risk * np.eye(size), edge)
        np.testing.assert_allclose(schedules[1][i][1:-1], 2 * net * dense, rtol=1e-9)


def test_schedule_is_smooth_where_the_urgency_vanishes(paper):
    @jax.jit
    @jax.vmap
    def second(aversion):
        return jax.value_and_grad(lambda x: paper.holdings(QUANTITY, x)[2])(aversion)

    # On both sides of the switch between the expansion and the curve, and far out.
    aversions = jnp.array([0.0, 1e-14, 1e-13, 3e-13, 1e-12, 1e-9, 1.0])
    values, slopes = second(aversions)
    np.testing.assert_allclose(values[:5], values[0] + slopes[0] * aversions[:5], rtol=1e-11)
    assert slopes[0] == pytest.approx(float((values[5] - values[0]) / 1e-9), rel=1e-2)
    np.testing.assert_allclose(slopes[:5], slopes[0], rtol=1e-4)
    assert values[6] == pytest.approx(0.0, abs=1.0)


def test_single_precision(paper, schedules):
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), paper)
    curves = jax.jit(jax.vmap(lambda aversion: single.holdings(jnp.float32(QUANTITY), aversion)))
    found = curves(jnp.array(list(TABLE), jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, schedules[1], rtol=2e-5)


def test_several_assets_against_dense_minimisation_and_one_by_one():
    rng = np.random.default_rng(0)
    size, steps, slot, aversion = 3, 4, 0.5, 0.7
    root = rng.normal(size=(size, size))
    cov = root @ root.T + np.eye(size)
    temporary = np.diag([1.0, 2.0, 0.5]) + 0.1
    permanent = np.diag([0.1, 0.3, 0.2]) + 0.05
    quantities = np.array([1.0, -2.0, 3.0])
    options = {"duration": steps * slot, "num_steps": steps}
    sell = jax.jit(lambda *case: liquidate_assets(*case, aversion, **options))
    found = sell(*map(jnp.asarray, (quantities, cov, temporary, permanent)))
    net = temporary - 0.5 * slot * permanent
    inner = steps - 1
    second = 2 * np.eye(inner) - np.eye(inner, k=1) - np.eye(inner, k=-1)
    matrix = np.kron(second, net / slot) + np.kron(np.eye(inner), aversion * slot * cov)
    edge = np.zeros((inner, size))
    edge[0] = net / slot @ quantities
    dense = np.linalg.solve(matrix, edge.ravel()).reshape(inner, size)
    np.testing.assert_allclose(found[1:-1], dense, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0], quantities, rtol=1e-12)
    np.testing.assert_allclose(found[-1], 0.0, atol=1e-12)
    one = AlmgrenChriss(2.0, 1.0, 0.1, 0.0, 2.0, 4)
    alone = sell(jnp.ones(3), 4.0 * jnp.eye(3), jnp.eye(3), 0.1 * jnp.eye(3))
    np.testing.assert_allclose(alone[:, 1], one.holdings(1.0, aversion), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"temporary": -1.0}, "temporary"),
        ({"volatility": np.nan}, "volatility"),
        ({"permanent": 1e-5}, "raise num_steps"),
    ],
)
def test_impossible_markets_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        AlmgrenChriss(**{**PAPER, **change})


def test_holdings_of_another_length_are_refused(paper):
    with pytest.raises(ValueError, match="expected 6 values, got 5"):
        paper.expected_cost(jnp.zeros(5))


def test_obizhaeva_wang_against_1001_points():
    """Printed blocks, and the limit of discrete trades."""
    found = obizhaeva_wang(1.0, 20.0, 1.0, 1.0)
    assert found.block == pytest.approx(0.0455, abs=5e-5)
    assert found.rate * 20 == pytest.approx(0.909, abs=5e-4)
    assert 2 * found.block + 20 * found.rate == pytest.approx(1.0, rel=1e-12)
    times = jnp.linspace(0.0, 20.0, 1001)
    kernel = exponential_decay(jnp.abs(times[:, None] - times), 1.0)
    trades, cost = cheapest_schedule(kernel, 1.0)
    # Half the rate of the first interval is in the first trade.
    assert trades[0] == pytest.approx(float(found.block), abs=5e-4)
    assert cost == pytest.approx(float(found.cost), abs=2e-6)
    np.testing.assert_allclose(trades[1:-1], found.rate * 0.02, rtol=1e-3)
    assert trading_cost(exponential_decay(times, 1.0), trades) == pytest.approx(
        float(cost), rel=1e-10
    )


@pytest.mark.parametrize(
    ("stock", "bps", "permanent"),
    [
        ((6.561e6, 1728e6, 0.0157), (32.2, 24.6, 18.4), 19.9),
        ((1.929e6, 168e6, 0.0226), (42.9, 32.0, 23.1), 21.7),
    ],
)
def test_equity_costs_of_the_published_table(stock, bps, permanent):
    """Almgren et al. (2005), table of IBM and DRI: a tenth of a day's volume in T days."""
    volume, outstanding, volatility = stock
    durations = jnp.array([0.1, 0.2, 0.5])
    found = equity_costs(0.1 * volume, durations, volume, outstanding, volatility)
    np.testing.assert_allclose(1e4 * found.realised, bps, atol=0.1)
    assert 1e4 * found.permanent == pytest.approx(permanent, abs=0.1)
    sale = equity_costs(-0.1 * volume, durations, volume, outstanding, volatility)
    np.testing.assert_allclose(sale.realised, -found.realised, rtol=1e-12)


def test_square_root_law():
    found = square_root_impact(jnp.array([-4.0, 0.0, 1.0]), 100.0, 0.02, coefficient=0.8)
    np.testing.assert_allclose(found, [-0.8 * 0.02 * 0.2, 0.0, 0.8 * 0.02 * 0.1], rtol=1e-12)
    steeper = square_root_impact(4.0, 100.0, 0.02, exponent=0.6)
    assert steeper == pytest.approx(0.02 * 0.04**0.6, rel=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_propagator_against_loops(exponent):
    rng = np.random.default_rng(1)
    trades, decay = rng.normal(size=12), np.asarray(power_decay(jnp.arange(12.0), 0.4, 2.0))
    prices, cost = np.zeros(12), 0.0
    for t in range(12):
        for s in range(t + 1):
            part = decay[t - s] * np.sign(trades[s]) * abs(trades[s]) ** exponent
            prices[t] += part
            cost += trades[t] * part * (0.5 if s == t else 1.0)
    found = propagated_prices(jnp.asarray(decay), jnp.asarray(trades), exponent)
    np.testing.assert_allclose(found, prices, rtol=1e-12)
    assert trading_cost(jnp.asarray(decay), jnp.asarray(trades), exponent) == pytest.approx(
        cost, rel=1e-12
    )


def test_manipulation_is_found_where_the_kernel_allows_it():
    times = jnp.arange(24.0)
    lags = jnp.abs(times[:, None] - times)
    check = jax.jit(price_manipulation)
    for kernel in (exponential_decay(lags, 0.3), power_decay(lags, 0.5)):
        found = check(kernel)
        assert not found.possible and found.least_cost > 0
        projected = np.eye(24) - 1 / 24
        values = np.linalg.eigvalsh(projected @ np.asarray(kernel) @ projected)
        # One of the values is that of the ones, which the projection made zero.
        assert found.least_cost == pytest.approx(0.5 * values[np.abs(values) > 1e-12][0], rel=1e-9)
    # Decay that waits before it sets in is no positive definite kernel (its spectrum turns
    # negative).
    found = check(jnp.where(lags < 6, 1.0 - 0.01 * lags, 0.0))
    trip = np.asarray(found.round_trip)
    assert found.possible
    assert trip.sum() == pytest.approx(0.0, abs=1e-12)
    assert trip @ trip == pytest.approx(1.0, rel=1e-12)
    decay = jnp.where(times < 6, 1.0 - 0.01 * times, 0.0)
    assert trading_cost(decay, found.round_trip) == pytest.approx(float(found.least_cost))
    assert not check(jnp.ones((4, 4))).possible  # permanent impact only: round trips cost nothing


@pytest.mark.parametrize(
    ("delta", "gamma"), [(0.5, 0.4), (0.3, 0.6), (0.5, 0.6), (0.7, 0.5), (1.0, 0.2)]
)
def test_condition_on_concave_impact_against_round_trips_in_closed_form(delta, gamma):
    """Buy at one rate in 1 - e of the time, sell at another: integrals of t^-gamma, exactly."""

    def cost(log_share):
        e = np.exp(log_share)
        slow = e / (1 - e)
        bought = (1 - e) ** (2 - gamma)
        crossed = 1 - bought - e ** (2 - gamma)
        return (slow ** (1 + delta) * bought + e ** (2 - gamma) - slow**delta * crossed) / e ** (
            1 + delta
        )

    least = minimize_scalar(cost, bounds=(-40.0, -0.7), method="bounded").fun
    assert bool(decay_allows(delta, gamma)) == (least > 0)


def test_exponential_decay_of_concave_impact_is_manipulable():
    decay = exponential_decay(jnp.arange(101.0), 0.02)
    slow = jnp.concatenate([jnp.full(100, 0.01), jnp.array([-1.0])])
    assert trading_cost(decay, slow, 0.5) < 0 < trading_cost(decay, slow, 1.0)
