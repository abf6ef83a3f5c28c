"""What portfolios earn that are bought again every period, net of the costs of trading."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfc.typing import Array, Float


class HeldPortfolio(eqx.Module):
    """One portfolio over the periods; returns are simple ones of a period (0.01: one per cent).

    `weights` are held over the period (after trading); `turnover` is the traded value over wealth,
    `gross` the return before and `net` that after costs.
    """

    weights: Float[Array, "periods series"]
    turnover: Float[Array, " periods"]
    gross: Float[Array, " periods"]
    net: Float[Array, " periods"]


def hold(
    weights: Float[Array, "periods series"],
    returns: Float[Array, "periods series"],
    cost: float | Float[Array, ""] = 0.0,
) -> HeldPortfolio:
    """The returns of a portfolio that trades to `weights` at the start of every period; pure.

        turnover_k = sum_i |w_ik - h_ik|,   net_k = (1 - cost turnover_k) (1 + w_k' R_k) - 1
        h_i,k+1 = w_ik (1 + R_ik) / (1 + w_k' R_k),    h_0 = 0

    h are the shares that prices left; what weights leave of one is cash without interest. The first
    purchase is paid for too. Costs are those of the target weights: the second-order effect of
    paying them out of wealth is left out.

    **Arguments:** `weights`, shares of wealth, a row NaN where none were found: nothing is traded
    then. `returns`: simple returns R of each series over the period. `cost`: share of the traded
    value that is lost.

    **Raises:** `ValueError` for a negative cost.
    """
    if not isinstance(cost, Tracer) and not float(cost) >= 0.0:
        raise ValueError(f"cost must not be negative, got {float(cost):g}.")

    def step(held: Array, row: tuple[Array, Array]) -> tuple[Array, tuple[Array, ...]]:
        target, earned = row
        found = jnp.all(jnp.isfinite(target))
        # No NaN enters a branch that is differentiated.
        traded = jnp.where(found, jnp.where(found, target, 0.0), held)
        turnover = jnp.sum(jnp.abs(traded - held))
        gross = traded @ earned
        net = (1.0 - cost * turnover) * (1.0 + gross) - 1.0
        return traded * (1.0 + earned) / (1.0 + gross), (traded, turnover, gross, net)

    return HeldPortfolio(*jax.lax.scan(step, jnp.zeros_like(weights[0]), (weights, returns))[1])
