"""Portfolios that are bought again: an account kept in money, no trade without weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.compose.held_portfolio import hold

COST = 0.003


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.0, 0.4, (6, 3))
    returns = 0.1 * rng.normal(size=(6, 3))
    weights[3] = np.nan
    return weights, returns


def test_the_account_is_that_of_a_loop_in_money(world):
    """Positions and cash in money; a trade costs a share of its value, taken from all wealth alike
    (the second-order effect that the docstring leaves out is what `alike` says)."""
    weights, returns = world
    found = hold(jnp.asarray(weights), jnp.asarray(returns), COST)
    wealth, positions = 1.0, np.zeros(3)
    for k, (target, earned) in enumerate(zip(weights, returns, strict=True)):
        wanted = positions if np.isnan(target).any() else target * wealth
        traded = np.abs(wanted - positions).sum()
        kept = 1.0 - COST * traded / wealth
        cash = (wealth - wanted.sum()) * kept
        after = cash + (wanted * kept * (1.0 + earned)).sum()
        np.testing.assert_allclose(found.turnover[k], traded / wealth, atol=1e-14)
        np.testing.assert_allclose(found.weights[k], wanted / wealth, atol=1e-14)
        np.testing.assert_allclose(found.net[k], after / wealth - 1.0, atol=1e-14)
        np.testing.assert_allclose(found.gross[k], wanted @ earned / wealth, atol=1e-14)
        positions, wealth = wanted * kept * (1.0 + earned), after
    assert float(found.turnover[3]) == 0.0


def test_slopes_with_a_row_that_was_not_found(world):
    weights, returns = map(jnp.asarray, world)

    def last(weights):
        return hold(weights, returns, COST).net[4]

    slope = np.asarray(jax.jit(jax.grad(last))(weights))
    assert np.isfinite(slope).all() and np.all(slope[[3, 5]] == 0.0)
    step = jnp.zeros_like(weights).at[4, 1].set(1e-6)
    numeric = float(last(weights + step) - last(weights - step)) / 2e-6
    assert slope[4, 1] == pytest.approx(numeric, rel=1e-7)


def test_a_negative_cost_is_refused(world):
    weights, returns = map(jnp.asarray, world)
    with pytest.raises(ValueError, match="cost must not be negative"):
        hold(weights, returns, -0.1)
