"""Futures of the M6 model: factors rolled forward from each posterior draw, noise on top."""

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.bayes.asset_returns import AssetFactorProgram, AssetRows
from jaxfc.bayes.program import Parameters
from jaxfc.typing import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.bayes.m6 import FittedM6

# Futures that are drawn together.
NUM_TOGETHER = 256


class AssetPaths(NamedTuple):
    """Joint draws of the next rows: `expected` given parameters and future factors, `returns` with
    the assets' own noise."""

    expected: Float[Array, "draws horizon series"]
    returns: Float[Array, "draws horizon series"]


# Under `jit`: the loop over draws would else be compiled anew at every forecast.
@eqx.filter_jit
def draw_paths(fitted: "FittedM6", horizon: int, *, key: PRNGKeyArray) -> AssetPaths:
    """`num_replicates` futures of every posterior draw, in the units of the data."""
    program = program_ahead(fitted, horizon)
    pooled = fitted.draws.pooled()
    copies = fitted.model.num_replicates
    number = fitted.draws.num_draws * copies

    def one(place: Array) -> AssetPaths:
        parameters = jax.tree.map(lambda x: x[place // copies], pooled)
        own = jax.random.fold_in(key, place)
        return future(program, parameters, fitted.ahead.market_signal, horizon, key=own)

    drawn = map_in_batches(one, jnp.arange(number), NUM_TOGETHER)
    return AssetPaths(*(fitted.scale * part for part in drawn))


def program_ahead(fitted: "FittedM6", horizon: int) -> AssetFactorProgram:
    """The model with the rows to be forecast in place of those that were fitted."""
    ahead = fitted.ahead
    num_series = ahead.earnings.size
    blank = jnp.zeros((horizon, num_series), fitted.scale.dtype)
    features = (ahead.recent_return, ahead.recent_volatility, ahead.earnings)
    x, v, due = (blank.at[0].set(feature) for feature in features)
    rows = AssetRows(blank, jnp.ones_like(blank), x, v, due, blank[:, 0])
    return fitted.model.program(rows)


def future(
    program: AssetFactorProgram,
    parameters: Parameters,
    signal: Float[Array, ""],
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> AssetPaths:
    """One future of standardised returns from one draw of the parameters."""
    shock_key, scale_key, noise_key = jax.random.split(key, 3)
    rows = program.rows
    expected = program.expected(parameters, rows)
    if program.num_factors:
        dynamics, size = program.dynamics, program.num_factors
        shocks = jax.random.normal(shock_key, (horizon, size), expected.dtype)
        volatility = program.factor_scale.ahead(parameters, signal, horizon, key=scale_key)
        factors = dynamics.ahead(parameters["factors"], parameters, shocks, volatility)
        expected = expected + factors @ parameters["loadings"].T
    noise = jax.random.t(noise_key, program.dof(parameters), expected.shape, expected.dtype)
    scale = jnp.exp(program.log_scale(parameters, rows))
    return AssetPaths(expected, expected + scale * noise)


def simulate_rows(
    fitted: "FittedM6", num_steps: int, *, key: PRNGKeyArray
) -> Float[Array, "time series"]:
    """A path of one posterior draw from the stationary law of its factors, features at their mean
    and the scale of the factors' shocks at one. Where a law of several lags starts from lags of
    zero, early rows are simulated and left out."""
    pick_key, path_key, noise_key = jax.random.split(key, 3)
    pooled = fitted.draws.pooled()
    place = jax.random.randint(pick_key, (), 0, fitted.draws.num_draws)
    parameters = jax.tree.map(lambda x: x[place], pooled)
    program = program_ahead(fitted, num_steps)
    blank = jnp.zeros_like(program.rows.returns)
    rows = AssetRows(blank, jnp.ones_like(blank), blank, blank, blank, blank[:, 0])
    mean = program.expected(parameters, rows)
    if program.num_factors:
        num_lags, size = program.dynamics.num_lags, program.num_factors
        early = 0 if num_lags == 1 else 20 * num_lags
        ones = jnp.ones(early + num_steps, mean.dtype)
        factors = program.dynamics.simulate(parameters, ones, size, key=path_key)[early:]
        mean = mean + factors @ parameters["loadings"].T
    noise = jax.random.t(noise_key, program.dof(parameters), mean.shape, mean.dtype)
    return fitted.scale * (mean + jnp.exp(program.log_scale(parameters, rows)) * noise)
