"""Trajectories of a return: factor paths, coefficients and residuals drawn, then carried ahead.

For c = 1..C (Defend et al. 2021, section 4, and Ramsauer 2017, definition 4.2.1): a whole path of
the factors from its exact law given the panel, least squares on that path, a draw of the
coefficients from their law, and the regression carried ahead with drawn residuals.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.compose.regression import (
    Regression,
    factor_columns,
    own_columns,
    regress,
)
from jaxfc.compose.residuals import NormalResiduals, Residuals
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


class Trajectories(eqx.Module):
    """How prediction intervals are drawn: `num_draws` trajectories, each source of uncertainty on
    or off, and the law of the residuals.

    Without `factor_risk` every trajectory has the factors' mean path; without `coefficient_risk`
    the coefficients estimated on its path; without `residual_risk` no residual is added.
    """

    num_draws: int = eqx.field(static=True, default=500)
    factor_risk: bool = eqx.field(static=True, default=True, kw_only=True)
    coefficient_risk: bool = eqx.field(static=True, default=True, kw_only=True)
    residual_risk: bool = eqx.field(static=True, default=True, kw_only=True)
    residuals: Residuals = eqx.field(default_factory=NormalResiduals, kw_only=True)

    def __check_init__(self):
        if self.num_draws < 2:
            raise ValueError(f"num_draws must be at least 2, got {self.num_draws}.")


class Drawn(NamedTuple):
    """Coefficients and future residuals of every trajectory."""

    coefficients: Float[Array, "draws regressors"]
    residuals: Float[Array, "draws horizon"]


def draw_regressions(
    how: Trajectories,
    returns: Float[Array, " time"],
    weights: Float[Array, " time"],
    paths: Float[Array, "draws time factors"],
    active: Bool[Array, " regressors"],
    num_own_lags: int,
    num_factor_lags: int,
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> Drawn:
    """Least squares on every path, coefficients and residuals drawn. O(draws time columns^2)."""
    own = own_columns(returns, num_own_lags)
    coefficient_key, residual_key = jax.random.split(key)

    def estimate(path: Array) -> Regression:
        columns = jnp.concatenate([own, factor_columns(path, num_factor_lags)], axis=1)
        return regress(columns, returns, weights, active)

    def draw(regression: Regression, keys: tuple[Array, Array]) -> tuple[Array, Array]:
        coefficients = regression.coefficients
        if how.coefficient_risk:
            noise = jax.random.normal(keys[0], active.shape, coefficients.dtype)
            coefficients = regression.draw(jnp.where(active, noise, 0.0))
        residuals = jnp.zeros(horizon, coefficients.dtype)
        if how.residual_risk:
            residuals = how.residuals.draw(regression, weights, horizon, key=keys[1])
        return coefficients, residuals

    # A core holds the regressors of one path in its cache and not those of all of them, so that one
    # after the other is several times faster there; an accelerator takes them side by side.
    regressions = jax.lax.platform_dependent(
        paths, cpu=lambda cases: jax.lax.map(estimate, cases), default=jax.vmap(estimate)
    )
    number = how.num_draws
    keys = jax.random.split(coefficient_key, number), jax.random.split(residual_key, number)
    return Drawn(*jax.vmap(draw)(regressions, keys))


def lag_rows(
    extended: Float[Array, "*draws extended factors"], num_lags: int, horizon: int
) -> Float[Array, "*draws horizon columns"]:
    """Regressors of the steps ahead: row j holds f_{T+j-1}, ..., f_{T+j-s}, where the path ends
    with f_{T+horizon-1}."""
    last = extended.shape[-2]
    rows = [extended[..., last - horizon - i : last - i, :] for i in range(num_lags)]
    return jnp.concatenate(rows, axis=-1) if rows else extended[..., :horizon, :0]


def carry_ahead(
    own_coefficients: Float[Array, "draws lags"],
    inputs: Float[Array, "draws horizon"],
    last: Float[Array, " lags"],
) -> Float[Array, "draws horizon"]:
    """x_j = input_j + sum_i beta_i x_{j-i}, started from `last` (newest first): linear in the
    inputs and in `last`."""

    def advance(history, step):
        new = step + jnp.sum(own_coefficients * history, axis=1)
        if own_coefficients.shape[1]:
            history = jnp.concatenate([new[:, None], history[:, :-1]], axis=1)
        return history, new

    start = jnp.broadcast_to(last, own_coefficients.shape)
    _, path = jax.lax.scan(advance, start, inputs.T)
    return path.T
