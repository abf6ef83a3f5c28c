"""Portfolio weights from joint draws of the next simple returns: minimum variance, mean-variance,
expected utility of wealth (Kelly), equal risk contributions."""

import abc
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.arguments import check_positive
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, is_okay
from jaxfc.trading.portfolio_interior import Objective, minimise
from jaxfc.trading.portfolio_limits import Limits, as_numbers, optional_numbers
from jaxfc.trading.portfolio_parity import equal_contributions
from jaxfc.typing import Array, Float, Int, as_scalar

Draws = Float[Array, "draws series"] | Float[np.ndarray, "draws series"]
DrawWeights = Float[Array, " draws"] | Float[np.ndarray, " draws"] | None
Mean = Float[Array, " series"] | Float[np.ndarray, " series"]
Cov = Float[Array, "series series"] | Float[np.ndarray, "series series"]


class Allocation(eqx.Module):
    """Portfolio weights, shares of wealth (the rest is cash), and how they were found."""

    weights: Float[Array, " series"]
    num_steps: Int[Array, ""]
    result: RESULTS


class PortfolioRule(eqx.Module):
    """A way from joint draws of the next simple returns to portfolio weights; pure and static."""

    @abc.abstractmethod
    def allocate(self, draws: Draws, draw_weights: DrawWeights = None) -> Allocation:
        """The weights with a result code.

        **Arguments:** `draws`: simple returns of one period (0.01: one per cent), in excess of cash
        where cash earns interest. `draw_weights`: of any scale, not negative.

        Derivatives are those of the solution and exist where no limit is just about to bind.
        """

    @final
    def weights(self, draws: Draws, draw_weights: DrawWeights = None) -> Float[Array, " series"]:
        """The weights alone, NaN where they were not found (`allocate` says why)."""
        found = self.allocate(draws, draw_weights)
        return jnp.where(is_okay(found.result), found.weights, jnp.nan)


class MomentRule(PortfolioRule):
    """A rule that reads the means and covariances of the returns only."""

    def allocate(self, draws: Draws, draw_weights: DrawWeights = None) -> Allocation:
        return self.from_moments(*weighted_moments(draws, draw_weights))

    @abc.abstractmethod
    def from_moments(self, mean: Mean, cov: Cov) -> Allocation:
        """The weights from the means and covariances of the simple returns."""


class MeanVariance(MomentRule):
    """The weights that maximise w' mean - risk_aversion / 2 w' cov w within `limits`.

    Source: Markowitz (1952).

    **Raises:** `ValueError` for a risk aversion that is not positive and limits that cannot hold.
    """

    risk_aversion: Float[Array, ""] = eqx.field(converter=as_scalar)
    limits: Limits = eqx.field(default_factory=Limits)
    max_steps: int = eqx.field(static=True, default=100, kw_only=True)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        check_positive(risk_aversion=self.risk_aversion)

    def from_moments(self, mean: Mean, cov: Cov) -> Allocation:
        mean, cov = jnp.asarray(mean), jnp.asarray(cov)
        return within(Quadratic(-mean, self.risk_aversion * cov), self.limits, self.max_steps)


class MinimumVariance(MomentRule):
    """The weights that minimise w' cov w within `limits`; by default fully invested, long-only.

    **Raises:** `ValueError` for limits that cannot hold.
    """

    limits: Limits = eqx.field(default_factory=lambda: Limits(gross=None, net=1.0))
    max_steps: int = eqx.field(static=True, default=100, kw_only=True)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)

    def from_moments(self, mean: Mean, cov: Cov) -> Allocation:
        cov = jnp.asarray(cov)
        nothing = jnp.zeros(cov.shape[0], cov.dtype)
        return within(Quadratic(nothing, cov), self.limits, self.max_steps)


class KellyPortfolio(PortfolioRule):
    """The weights that maximise the expected utility of wealth over the draws, within `limits`.

        sum_d p_d U(1 + w' r_d),    U(V) = ln V,  or  (V^(1-g) - 1) / (1-g)  at risk aversion g

    At `risk_aversion` 1 the growth of wealth (Kelly 1956); at g, about 1/g of that portfolio. In
    all draws wealth stays positive, so no more is staked than the worst draw allows.

    **Raises:** `ValueError` for a risk aversion that is not positive and limits that cannot hold.
    """

    risk_aversion: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0)
    limits: Limits = eqx.field(default_factory=Limits)
    max_steps: int = eqx.field(static=True, default=100, kw_only=True)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        check_positive(risk_aversion=self.risk_aversion)

    def allocate(self, draws: Draws, draw_weights: DrawWeights = None) -> Allocation:
        draws = jnp.asarray(draws)
        shares = normalised(draw_weights, draws)
        return within(Utility(draws, shares, self.risk_aversion), self.limits, self.max_steps)


class RiskParity(MomentRule):
    """The weights whose contributions to the risk of the portfolio are in proportion to budgets.

        w_i (cov w)_i = b_i w' cov w,    sum_i |w_i| = gross

    unique given the signs of the weights: they solve min y' cov y / 2 - sum_i b_i ln y_i. Limits
    per asset would contradict the budgets, so there are none.

    **Arguments:** `budgets`: positive, of any scale; None: all equal. `signs`: 1 for long, -1 for
    short, one number or (series,).

    Source: Maillard, Roncalli and Teiletche (2010); Spinu (2013) for the convex problem.

    **Raises:** `ValueError` for budgets or a gross exposure that are not positive, signs that are
    not 1 or -1.
    """

    budgets: Float[Array, " series"] | None = eqx.field(converter=optional_numbers, default=None)
    signs: Float[Array, "*#series"] = eqx.field(converter=as_numbers, default=1.0)
    gross: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0)
    max_steps: int = eqx.field(static=True, default=200, kw_only=True)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        check_positive(gross=self.gross)
        if self.budgets is not None:
            check_positive(budgets=self.budgets)
        if not isinstance(self.signs, Tracer) and not np.all(np.abs(np.asarray(self.signs)) == 1):
            raise ValueError(f"signs are 1 or -1, got {np.asarray(self.signs).tolist()}.")

    def from_moments(self, mean: Mean, cov: Cov) -> Allocation:
        cov = jnp.asarray(cov)
        num_series = cov.shape[0]
        budgets = jnp.ones(num_series, cov.dtype) if self.budgets is None else self.budgets
        signs = jnp.broadcast_to(self.signs, (num_series,)).astype(cov.dtype)
        found = equal_contributions(signs[:, None] * cov * signs, budgets, self.max_steps)
        sized = self.gross * found.weights / jnp.sum(found.weights)
        return Allocation(signs * sized, found.num_steps, found.result)


class Quadratic(Objective):
    """linear' w + w' matrix w / 2."""

    linear: Float[Array, " series"]
    matrix: Float[Array, "series series"]

    @property
    def num_series(self) -> int:
        return self.linear.shape[0]

    def gradient(self, weights: Float[Array, " series"]) -> Float[Array, " series"]:
        return self.linear + self.matrix @ weights

    def hessian(self, weights: Float[Array, " series"]) -> Float[Array, "series series"]:
        return self.matrix


class Utility(Objective):
    """Minus the expected utility of wealth at constant relative risk aversion."""

    draws: Float[Array, "draws series"]
    shares: Float[Array, " draws"]
    risk_aversion: Float[Array, ""]

    @property
    def num_series(self) -> int:
        return self.draws.shape[1]

    def wealth(self, weights: Float[Array, " series"]) -> Float[Array, " draws"]:
        return 1.0 + self.draws @ weights

    def gradient(self, weights: Float[Array, " series"]) -> Float[Array, " series"]:
        return -(self.shares * self.wealth(weights) ** -self.risk_aversion) @ self.draws

    def hessian(self, weights: Float[Array, " series"]) -> Float[Array, "series series"]:
        bend = self.risk_aversion * self.wealth(weights) ** (-self.risk_aversion - 1.0)
        return (self.draws.T * (self.shares * bend)) @ self.draws

    def longest(
        self, weights: Float[Array, " series"], step: Float[Array, " series"]
    ) -> Float[Array, ""]:
        change = self.draws @ step
        falls = change < 0.0
        room = -self.wealth(weights) / jnp.where(falls, change, -1.0)
        return jnp.min(jnp.where(falls, room, jnp.inf))


def within(objective: Objective, limits: Limits, max_steps: int) -> Allocation:
    """The weights within the limits at which the objective is smallest."""
    num_series = objective.num_series
    limits.check_series(num_series)
    found = minimise(objective, limits.room(num_series), max_steps)
    # The solver's limits are loosened by rounding; the answer keeps those that were asked for.
    return Allocation(
        jnp.clip(found.weights, limits.lower, limits.upper), found.num_steps, found.result
    )


def normalised(draw_weights: DrawWeights, draws: Array) -> Float[Array, " draws"]:
    """The weights of the draws, summing to 1.

    **Raises:** `ValueError` for weights that are negative, infinite or all zero.
    """
    num_draws = draws.shape[0]
    if num_draws < 2:
        raise ValueError(f"portfolio weights need at least 2 draws, got {num_draws}.")
    if draw_weights is None:
        return jnp.full(num_draws, 1.0 / num_draws, draws.dtype)
    draw_weights = jnp.asarray(draw_weights)
    if not isinstance(draw_weights, Tracer):
        numbers = np.asarray(draw_weights)
        if not (np.all(numbers >= 0.0) and 0.0 < numbers.sum() < np.inf):
            raise ValueError(
                "draw_weights must be finite, not negative and not all zero; got "
                f"{numbers.min():g} to {numbers.max():g}."
            )
    return draw_weights / jnp.sum(draw_weights)


def weighted_moments(
    draws: Draws, draw_weights: DrawWeights
) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
    """Mean and unbiased covariance of weighted draws: divided by 1 - sum p^2 with p the shares."""
    draws = jnp.asarray(draws)
    shares = normalised(draw_weights, draws)
    mean = shares @ draws
    centred = draws - mean
    return mean, (centred.T * shares) @ centred / (1.0 - jnp.sum(shares**2))


def scaled_to_gross(
    weights: Float[Array, "*cases series"], least: float | Array, most: float | Array
) -> Float[Array, "*cases series"]:
    """`weights` scaled so that sum |w| lies between `least` and `most`; NaN if all are zero.

    The least gross exposure of a competition (0.25 in M6) is no convex limit, so it is met after
    the weights were chosen.
    """
    gross = jnp.sum(jnp.abs(weights), axis=-1, keepdims=True)
    return weights * jnp.clip(gross, least, most) / gross
