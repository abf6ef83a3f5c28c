"""Correlations of rows to come, by formula and by drawn paths."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc.volatility.innovations import Normal
from jaxfc.volatility.simulate import (
    BURN_IN,
    expected_news,
    next_moments,
    next_state,
    resampled,
    state_after,
    state_before,
)

if TYPE_CHECKING:
    from jaxfc.volatility.dcc import FittedCorrelationModel

METHODS = ("iterated", "ES-R", "ES-Q")


def state_of(fitted: "FittedCorrelationModel"):
    """State of the correlations after the last row."""
    data = fitted.margins.filtered().standardised
    ours = fitted.model.split(fitted.parameters)[0]
    return fitted.model.correlations.filter(ours, *data, fitted.targets)[0]


def correlations_ahead(
    fitted: "FittedCorrelationModel", horizon: int, method: str
) -> Float[Array, "horizon series series"]:
    """R_{T+1}, ..., R_{T+horizon}; see `FittedCorrelationModel.forecast`."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    how, targets = fitted.model.correlations, fitted.targets
    ours = fitted.model.split(fitted.parameters)[0]
    state = state_of(fitted)
    if method == "iterated":
        nothing = jnp.zeros(targets.both.shape[0], targets.both.dtype)
        unseen = jnp.zeros(targets.both.shape[0], bool)

        def step(state, _):
            quasi = how.quasi(ours, state, targets)
            return how.advance(state, quasi, nothing, unseen, targets), how.corr(quasi)

        return jax.lax.scan(step, state, None, length=horizon)[1]
    decay = how.decay(ours)
    if decay is None:
        raise ValueError(
            f"{method} is defined for symmetric recursions of order (1, 1); use method='iterated' "
            "or draws."
        )
    kept = decay ** jnp.arange(horizon, dtype=ours.dtype)[:, None, None]
    first = how.quasi(ours, state, targets)
    if method == "ES-Q":
        return jax.vmap(how.corr)((1.0 - kept) * targets.both + kept * first)
    return (1.0 - kept) * how.corr(targets.both) + kept * how.corr(first)


def draw_units(
    fitted: "FittedCorrelationModel", size: tuple[int, ...], *, key: PRNGKeyArray
) -> Float[Array, "..."]:
    """Draws of R^{-1/2} z: normal, or the same over the root of a chi-squared (joint Student)."""
    normal_key, scale_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, size, fitted.parameters.dtype)
    if isinstance(fitted.model.innovations, Normal):
        return normal
    nu = fitted.model.split(fitted.parameters)[1][0]
    chi = 2.0 * jax.random.gamma(scale_key, 0.5 * nu, size[:-1], normal.dtype)
    return normal * jnp.sqrt((nu - 2.0) / chi)[..., None]


def whitened(
    fitted: "FittedCorrelationModel",
) -> tuple[Float[Array, "time series"], Bool[Array, "time series"]]:
    """R_t^{-1/2} z_t by the Cholesky factor, and which residuals are known."""
    data = fitted.margins.filtered().standardised

    def one(corr: Array, units: Array) -> Array:
        chol = jnp.linalg.cholesky(corr)
        return jax.scipy.linalg.solve_triangular(chol, units, lower=True)

    return jax.vmap(one)(fitted.matrices(data)[:-1], data.units), data.known


def draw_returns(
    fitted: "FittedCorrelationModel",
    horizon: int,
    num_draws: int,
    innovations: str = "law",
    *,
    key: PRNGKeyArray,
    long_run: bool = False,
) -> Float[Array, "draws horizon series"]:
    """Paths on which each drawn row feeds variances and correlations of those that follow; from the
    last row on, or (`long_run`) after `BURN_IN` rows from the unconditional state."""
    margins, how, targets = fitted.margins, fitted.model.correlations, fitted.targets
    spec = margins.model.specification
    ours = fitted.model.split(fitted.parameters)[0]
    seen = jnp.ones(targets.both.shape[0], bool)
    length = horizon + (BURN_IN if long_run else 0)

    begin = state_before if long_run else state_after
    series_state = margins.each_series(lambda *case: begin(spec, *case), out_axes=0)
    expected = jax.vmap(lambda p: expected_news(spec, p))(margins.parameters)
    first = how.begin(targets) if long_run else state_of(fitted)
    ahead = jax.vmap(lambda p, state: next_moments(spec, p, state))
    after = jax.vmap(lambda p, *rest: next_state(spec, p, *rest))

    def step(state, unit):
        own, joint = state
        moments = ahead(margins.parameters, own)
        quasi = how.quasi(ours, joint, targets)
        units = jnp.linalg.cholesky(how.corr(quasi)) @ unit
        residuals = jnp.sqrt(moments[1]) * units
        own = after(margins.parameters, expected, own, moments, residuals)
        return (own, how.advance(joint, quasi, units, seen, targets)), moments[0] + residuals

    if innovations == "bootstrap":
        draws = resampled(*whitened(fitted), (num_draws, length), key=key)
    else:
        draws = draw_units(fitted, (num_draws, length, targets.both.shape[0]), key=key)
    paths = jax.vmap(lambda row: jax.lax.scan(step, (series_state, first), row)[1])(draws)
    return paths[:, length - horizon :]
