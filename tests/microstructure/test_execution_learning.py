"""Orders worked in a simulated market: costs against loops, learned policies against optima."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure.execution_feedback import optimal_feedback
from jaxfc.microstructure.execution_market import ExecutionMarket
from jaxfc.microstructure.execution_policy import FeedbackPolicy, SchedulePolicy
from jaxfc.microstructure.execution_schedules import AlmgrenChriss
from jaxfc.microstructure.execution_training import (
    ExpectedShortfall,
    MeanAndRisk,
    Pathwise,
    PolicyGradient,
    path_values,
    train_policy,
)
from jaxfc.microstructure.impact_propagator import cheapest_schedule, exponential_decay
from jaxfc.results import RESULTS

PAPER = {
    "volatility": 0.95,
    "temporary": 2.5e-6,
    "permanent": 2.5e-7,
    "fixed_cost": 0.0625,
    "duration": 5.0,
}
QUANTITY = 1e6
RESILIENT = ExecutionMarket(20, duration=20.0, transient=1.0, resilience=0.3)
SIGNALLED = ExecutionMarket(
    10,
    duration=10.0,
    volatility=0.1,
    temporary=0.1,
    permanent=0.02,
    transient=0.5,
    resilience=0.3,
    signal_scale=0.02,
    signal_persistence=0.7,
)


def test_a_path_against_a_loop():
    """Costs slot by slot, from the shocks that the path shows."""
    market = ExecutionMarket(
        6,
        duration=3.0,
        volatility=0.4,
        temporary=0.2,
        permanent=0.1,
        fixed_cost=0.01,
        transient=0.5,
        resilience=0.8,
        signal_scale=0.1,
        signal_persistence=0.6,
    )
    shares = jnp.array([0.1, 0.5, 0.2, 0.0, 0.9, 0.3])
    path = market.run(lambda state: shares[state.slot], -2.0, key=jax.random.key(0))
    left, impact, cost = -2.0, 0.0, 0.0
    for k in range(6):
        assert path.states.remaining[k] == pytest.approx(left)
        assert path.states.impact[k] == pytest.approx(impact, abs=1e-15)
        n = left * (float(shares[k]) if k < 5 else 1.0)
        assert path.trades[k] == pytest.approx(n, abs=1e-15)
        paid = 0.1 * (-2.0 - left) + impact + 0.25 * n + 0.2 * n / 0.5 + 0.01 * np.sign(n)
        left -= n
        cost += n * paid + left * float(path.states.signal[k])
        impact = np.exp(-0.4) * (impact + 0.5 * n)
        assert path.holdings[k] == pytest.approx(left, abs=1e-15)
    assert path.cost - path.risk == pytest.approx(cost, rel=1e-12)
    risk = float(market.running_risk(path.holdings))
    assert risk == pytest.approx(0.16 * 0.5 * float(jnp.sum(path.holdings**2)))
    run = jax.jit(jax.vmap(lambda key: market.run(lambda s: shares[s.slot], -2.0, key=key)))
    many = run(jax.random.split(jax.random.key(1), 20_000))
    assert jnp.mean(many.risk) == pytest.approx(0.0, abs=4 * (risk / 20_000) ** 0.5)
    assert jnp.var(many.risk) == pytest.approx(risk, rel=0.05)
    deviation = 0.1 / np.sqrt(1 - 0.36)
    np.testing.assert_allclose(jnp.std(many.states.signal, axis=0), deviation, rtol=0.03)
    assert jnp.mean(many.states.signal[:, 1] * many.states.signal[:, 0]) == pytest.approx(
        0.6 * deviation**2, rel=0.1
    )


@pytest.mark.parametrize("aversion", [0.0, 1e-6, 1e-5])
def test_dynamic_programming_gives_almgren_and_chriss(aversion):
    market, closed = ExecutionMarket(5, **PAPER), AlmgrenChriss(**PAPER, num_steps=5)
    best = optimal_feedback(market, QUANTITY, aversion)
    path = market.run(best, QUANTITY, key=jax.random.key(0))
    holdings = closed.holdings(QUANTITY, aversion)
    np.testing.assert_allclose(path.holdings[:-1], holdings[1:-1], rtol=1e-9)
    cost = closed.expected_cost(holdings)
    assert path.cost - path.risk == pytest.approx(float(cost), rel=1e-12)
    value = cost + aversion * closed.cost_variance(holdings) - 0.0625 * QUANTITY
    assert best.objective == pytest.approx(float(value), rel=1e-12)


def test_dynamic_programming_gives_the_cheapest_trades_of_a_resilient_book():
    best = optimal_feedback(RESILIENT, 1.0)
    path = RESILIENT.run(best, 1.0, key=jax.random.key(0))
    times = jnp.arange(20.0)
    trades, cost = cheapest_schedule(exponential_decay(jnp.abs(times[:, None] - times), 0.3), 1.0)
    np.testing.assert_allclose(path.trades, trades, rtol=1e-9)
    assert path.cost == pytest.approx(float(cost), rel=1e-12)
    assert best.objective == pytest.approx(float(cost), rel=1e-12)


def test_dynamic_programming_with_a_signal_is_the_mean_of_its_paths_and_the_least_nearby():
    best = optimal_feedback(SIGNALLED, 1.0, 2.0)
    keys = jax.random.split(jax.random.key(0), 40_000)

    @jax.jit
    def values(gains):
        return path_values(
            best._replace(gains=gains), SIGNALLED, jnp.asarray(1.0), MeanAndRisk(2.0), keys
        )

    found = values(best.gains)
    error = float(jnp.std(found)) / len(keys) ** 0.5
    assert jnp.mean(found) == pytest.approx(float(best.objective), abs=4 * error)
    rng = np.random.default_rng(0)
    for _ in range(3):
        change = 0.1 * rng.normal(size=best.gains.shape)
        worse = values(best.gains + jnp.asarray(change)) - found
        assert jnp.mean(worse) > 0


def test_a_learned_schedule_is_that_of_almgren_and_chriss():
    """Three risk aversions under one `vmap`, deterministic: one share of a million left over."""
    market, closed = ExecutionMarket(5, **PAPER), AlmgrenChriss(**PAPER, num_steps=5)

    def learn(aversion):
        trained = train_policy(
            SchedulePolicy(market),
            market,
            QUANTITY,
            key=jax.random.key(0),
            objective=MeanAndRisk(aversion),
            num_steps=1500,
            num_paths=2,
            learning_rate=0.05,
        )
        path = market.run(trained.policy, QUANTITY, key=jax.random.key(1))
        return path.holdings, trained.result

    aversions = jnp.array([1e-7, 1e-6, 2e-6])
    holdings, result = jax.jit(jax.vmap(learn))(aversions)
    exact = jax.vmap(lambda aversion: closed.holdings(QUANTITY, aversion))(aversions)
    np.testing.assert_allclose(holdings, exact[:, 1:], atol=1.0)
    assert bool(jnp.all(result == RESULTS.successful))


def test_a_learned_feedback_finds_the_blocks_of_a_resilient_book():
    policy = FeedbackPolicy(RESILIENT, 1.0, key=jax.random.key(0))
    key = jax.random.key(1)
    even = RESILIENT.run(policy, 1.0, key=key)
    np.testing.assert_allclose(even.trades, 0.05, rtol=1e-12)
    assert even.cost == pytest.approx(0.14041, abs=1e-5)
    learn = eqx.filter_jit(
        lambda key: train_policy(policy, RESILIENT, 1.0, key=key, num_steps=600, num_paths=2)
    )
    path = RESILIENT.run(learn(key).policy, 1.0, key=key)
    optimum = float(optimal_feedback(RESILIENT, 1.0).objective)
    assert optimum == pytest.approx(0.13059, abs=1e-5)
    assert optimum - 1e-9 < path.cost < optimum * 1.003


def share_of_signal(gradient, num_steps, num_paths):
    """How much of what the signal is worth, from the best blind schedule to the best feedback, a
    policy learns to gain; on new paths, the same for both."""
    aim = MeanAndRisk(1.0)
    start = FeedbackPolicy(SIGNALLED, 1.0, key=jax.random.key(0))
    best = optimal_feedback(SIGNALLED, 1.0, 1.0)
    blind = eqx.tree_at(lambda market: market.signal_scale, SIGNALLED, jnp.asarray(0.0))

    @eqx.filter_jit
    def gap(key):
        learned = train_policy(
            start,
            SIGNALLED,
            1.0,
            key=key,
            objective=aim,
            gradient=gradient,
            num_steps=num_steps,
            num_paths=num_paths,
        )
        keys = jax.random.split(jax.random.key(9), 10_000)
        values = [
            path_values(policy, SIGNALLED, jnp.asarray(1.0), aim, keys)
            for policy in (learned.policy, best)
        ]
        return values[0] - values[1]

    lost = np.asarray(gap(jax.random.key(1)))
    # The optimum is over all feedback: no policy is better but by chance.
    assert lost.mean() > -4 * lost.std() / len(lost) ** 0.5
    worth = optimal_feedback(blind, 1.0, 1.0).objective - best.objective
    return 1.0 - lost.mean() / float(worth)


def test_learned_feedback_uses_the_signal():
    assert share_of_signal(Pathwise(), 150, 64) > 0.8


@pytest.mark.slow
def test_policy_gradient_uses_the_signal_too():
    assert share_of_signal(PolicyGradient(0.5), 400, 512) > 0.6


def test_the_score_gradient_is_that_through_the_market():
    """Means over many paths of both estimates, for a schedule in a market without noise."""
    market = ExecutionMarket(
        3, duration=3.0, temporary=0.5, transient=0.5, resilience=0.5, volatility=0.3
    )
    policy = SchedulePolicy(market)
    small = PolicyGradient(0.02)

    @jax.jit
    def slopes(keys):
        def mean(policy, gradient):
            one = lambda keys: gradient.surrogate(  # noqa: E731
                policy, market, jnp.asarray(1.0), MeanAndRisk(0.5), keys
            )[0]
            return jax.vmap(one)(keys)

        by_score = jax.jacfwd(lambda policy: mean(policy, small))(policy).shifts
        through = jax.grad(lambda policy: jnp.mean(mean(policy, Pathwise())))(policy).shifts
        return by_score, through

    by_score, through = slopes(jax.random.split(jax.random.key(0), (400, 50)))
    error = by_score.std(axis=0) / 400**0.5
    assert np.all(np.abs(by_score.mean(axis=0) - through)[:2] < 4 * error[:2])
    assert np.all(np.abs(through[:2]) > 4 * error[:2])
    assert by_score[0, 2] == 0


def test_expected_shortfall_is_the_mean_of_the_worst():
    costs = jnp.asarray(np.random.default_rng(0).normal(size=1000))
    values = ExpectedShortfall(0.9).of_paths(costs, costs, costs)
    worst = np.sort(np.asarray(costs))[-100:].mean()
    assert jnp.mean(values) == pytest.approx(worst, rel=2e-3)
    market = ExecutionMarket(8, duration=8.0, volatility=0.3, transient=1.0, resilience=0.3)
    policy = SchedulePolicy(market)
    learn = jax.jit(
        lambda key: (
            train_policy(
                policy,
                market,
                1.0,
                key=key,
                objective=ExpectedShortfall(0.9),
                num_steps=200,
            ).policy
        )
    )
    learned = learn(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 10_000)
    tails = [
        jnp.mean(path_values(p, market, jnp.asarray(1.0), ExpectedShortfall(0.9), keys))
        for p in (policy, learned)
    ]
    assert tails[1] < 0.9 * tails[0]
    # Haste: risk is aversion to what is held.
    held = [jnp.sum(market.run(p, 1.0, key=keys[0]).holdings) for p in (policy, learned)]
    assert held[1] < held[0]


def test_training_lowers_for_cuda_and_refuses_nonsense():
    start = FeedbackPolicy(SIGNALLED, 1.0, key=jax.random.key(0))
    learn = jax.jit(
        lambda key: (
            train_policy(start, SIGNALLED, 1.0, key=key, num_steps=3, num_paths=4).objectives
        )
    )
    assert jax.export.export(learn, platforms=["cuda"])(jax.random.key(0)).platforms == ("cuda",)
    with pytest.raises(ValueError, match="num_paths"):
        train_policy(start, SIGNALLED, 1.0, key=jax.random.key(0), num_paths=1)
    with pytest.raises(ValueError, match="transient"):
        ExecutionMarket(3, transient=-1.0)
    with pytest.raises(ValueError, match="signal_persistence"):
        ExecutionMarket(3, signal_persistence=1.0)
    with pytest.raises(ValueError, match="width"):
        FeedbackPolicy(SIGNALLED, 1.0, width=0, key=jax.random.key(0))


def test_a_step_without_a_number_changes_nothing():
    class Broken(MeanAndRisk):
        def of_paths(self, costs, risks, running):
            return costs * jnp.nan

    market = ExecutionMarket(3, transient=1.0, resilience=1.0)
    found = train_policy(
        SchedulePolicy(market), market, 1.0, key=jax.random.key(0), objective=Broken(), num_steps=2
    )
    assert bool(found.result == RESULTS.diverged)
    np.testing.assert_array_equal(found.policy.shifts, 0.0)
