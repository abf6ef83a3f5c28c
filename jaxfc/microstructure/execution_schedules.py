"""Schedules of an order in closed form: Almgren and Chriss, Obizhaeva and Wang.

Holdings are what is left to trade, at the start and after each slot; a sale and a purchase of one
quantity cost the same.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular

from jaxfc.arguments import check_not_negative, check_positive
from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float, as_scalar

# Below it the hyperbolic curve equals its second-order expansion in the precision in use.
STRAIGHT = {"float32": 1e-3, "float64": 1e-7}


class AlmgrenChriss(eqx.Module):
    """Linear temporary and permanent impact, over `num_steps` slots of length tau = T / N.

    Slot k of a sale trades n_k at S_{k-1} - epsilon - eta n_k / tau, and moves the price by
    -gamma n_k beside a normal move of sd sigma sqrt(tau). Cost has

        E = gamma X^2 / 2 + epsilon sum_k |n_k| + (eta - gamma tau / 2) / tau sum_k n_k^2,
        V = sigma^2 tau sum_{k=1}^N x_k^2.

    **Arguments:** `volatility` sigma (price per root of time), `temporary` eta (price times time
    per share), `permanent` gamma (price per share), `fixed_cost` epsilon (price), `duration` T.

    **Raises:** `ValueError` for negative values, and where gamma tau / 2 is not below eta: the
    slots are then so long that trading at once would earn money.

    Source: Almgren and Chriss (2000), equations 4, 5, 13 to 20.
    """

    volatility: Float[Array, ""] = eqx.field(converter=as_scalar)
    temporary: Float[Array, ""] = eqx.field(converter=as_scalar)
    permanent: Float[Array, ""] = eqx.field(converter=as_scalar)
    fixed_cost: Float[Array, ""] = eqx.field(converter=as_scalar)
    duration: Float[Array, ""] = eqx.field(converter=as_scalar)
    num_steps: int = eqx.field(static=True)

    def __check_init__(self):
        check_counts(num_steps=self.num_steps)
        check_positive(duration=self.duration, temporary=self.temporary)
        check_not_negative(
            volatility=self.volatility, permanent=self.permanent, fixed_cost=self.fixed_cost
        )
        net = self.net_temporary
        if not isinstance(net, Tracer) and not bool(jnp.all(net > 0)):
            raise ValueError(
                "permanent impact times half a slot must be below temporary impact, got "
                f"temporary={self.temporary}, permanent={self.permanent} and slots of "
                f"{self.slot}; raise num_steps."
            )

    @property
    def slot(self) -> Float[Array, "*batch"]:
        """tau."""
        return self.duration / self.num_steps

    @property
    def net_temporary(self) -> Float[Array, "*batch"]:
        """eta - gamma tau / 2."""
        return self.temporary - 0.5 * self.permanent * self.slot

    def curvature(self, risk_aversion: float | Float[Array, ""]) -> Float[Array, ""]:
        """cosh(kappa tau) - 1 = lambda sigma^2 tau^2 / (2 (eta - gamma tau / 2))."""
        return 0.5 * risk_aversion * (self.volatility * self.slot) ** 2 / self.net_temporary

    def urgency(self, risk_aversion: float | Float[Array, ""]) -> Float[Array, ""]:
        """kappa, per unit of time; its inverse is how long the order lives."""
        return 2.0 * jnp.arcsinh(jnp.sqrt(0.5 * self.curvature(risk_aversion))) / self.slot

    def holdings(
        self, quantity: float | Float[Array, ""], risk_aversion: float | Float[Array, ""]
    ) -> Float[Array, " times"]:
        """x_0 .. x_N = X sinh(kappa (T - t)) / sinh(kappa T): the least E + lambda V.

        Differentiable in everything, also at a risk aversion (per unit of cost) of zero, where the
        schedule is the straight line.
        """
        return quantity * remaining_shares(self.curvature(risk_aversion), self.num_steps)

    def expected_cost(self, holdings: Float[Array, " times"]) -> Float[Array, ""]:
        """E of any holdings, from X to their last."""
        check_length(holdings, self.num_steps)
        trades = holdings[:-1] - holdings[1:]
        linear = self.fixed_cost * jnp.sum(jnp.abs(trades))
        moved = 0.5 * self.permanent * (holdings[0] - holdings[-1]) ** 2
        return moved + linear + self.net_temporary / self.slot * jnp.sum(trades**2)

    def cost_variance(self, holdings: Float[Array, " times"]) -> Float[Array, ""]:
        """V of any holdings."""
        check_length(holdings, self.num_steps)
        return self.volatility**2 * self.slot * jnp.sum(holdings[1:] ** 2)


def check_length(holdings: Float[Array, " times"], num_steps: int) -> None:
    """Raise `ValueError` unless holdings stand at the start and after each slot."""
    if len(holdings) != num_steps + 1:
        raise ValueError(
            f"holdings stand at the start and after each of {num_steps} slots: expected "
            f"{num_steps + 1} values, got {len(holdings)}."
        )


def remaining_shares(curvature: Float[Array, ""], num_steps: int) -> Float[Array, " times"]:
    """sinh(k (N - j)) / sinh(k N) for j = 0 .. N, where cosh(k) = 1 + `curvature`."""
    left = 1.0 - jnp.arange(num_steps + 1, dtype=curvature.dtype) / num_steps
    # k^2 = 2 c up to O(c^2), so that the curve is smooth in the curvature at zero.
    square = 2.0 * curvature * num_steps**2
    straight = square < STRAIGHT[curvature.dtype.name]
    line = left + square * left * (left**2 - 1.0) / 6.0
    safe = jnp.where(straight, 1.0, curvature)
    total = 2.0 * num_steps * jnp.arcsinh(jnp.sqrt(0.5 * safe))
    # In exponentials of negative numbers, which cannot overflow.
    falling = jnp.expm1(-2.0 * total * left) / jnp.expm1(-2.0 * total)
    return jnp.where(straight, line, jnp.exp(total * (left - 1.0)) * falling)


def liquidate_assets(
    quantities: Float[Array, " series"],
    cov: Float[Array, "series series"],
    temporary: Float[Array, "series series"],
    permanent: Float[Array, "series series"],
    risk_aversion: float | Float[Array, ""],
    *,
    duration: float | Float[Array, ""],
    num_steps: int,
) -> Float[Array, "times series"]:
    """Holdings of several assets sold together, the least E + lambda V.

    With symmetric impact matrices H, Gamma and H~ = H - Gamma tau / 2 = L L', holdings obey
    x_{j+1} - 2 x_j + x_{j-1} = lambda tau^2 H~^{-1} C x_j, which the eigenvectors of
    L^{-1} C L^{-T} split into curves of single assets.

    **Arguments:** `cov` C of price changes per unit of time; the rest as in `AlmgrenChriss`.

    **Raises:** `ValueError` for no slot.

    Source: Almgren and Chriss (2000), appendix A.
    """
    check_counts(num_steps=num_steps)
    slot = duration / num_steps
    chol = jnp.linalg.cholesky(temporary - 0.5 * slot * permanent)
    half = solve_triangular(chol, cov, lower=True)
    risks, modes = jnp.linalg.eigh(solve_triangular(chol, half.T, lower=True))
    curvatures = 0.5 * risk_aversion * slot**2 * jnp.maximum(risks, 0.0)
    shares = jnp.stack([remaining_shares(c, num_steps) for c in curvatures], axis=1)
    weights = modes.T @ (chol.T @ quantities)
    return solve_triangular(chol.T, modes @ (shares * weights).T, lower=False).T


class ResilientSchedule(NamedTuple):
    """A block at the start and one at the end, a constant rate between, and what it all costs."""

    block: Float[Array, ""]
    rate: Float[Array, ""]
    cost: Float[Array, ""]


def obizhaeva_wang(
    quantity: float | Float[Array, ""],
    duration: float | Float[Array, ""],
    resilience: float | Float[Array, ""],
    impact: float | Float[Array, ""],
) -> ResilientSchedule:
    """The cheapest way through a book whose impact decays as exp(-rho t), at no spread.

        block = X / (rho T + 2),  rate = rho X / (rho T + 2),  cost = kappa X^2 / (rho T + 2).

    **Arguments:** `quantity` X, `duration` T, `resilience` rho per unit of time, `impact` kappa of
    one share on the price, of the part that decays (the permanent part costs gamma X^2 / 2
    whatever one does).

    Source: Obizhaeva and Wang (2013), proposition 3.
    """
    block = quantity / (resilience * duration + 2.0)
    return ResilientSchedule(
        jnp.asarray(block), jnp.asarray(resilience * block), jnp.asarray(impact * quantity * block)
    )
