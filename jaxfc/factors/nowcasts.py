"""Nowcasts: every incomplete series at the panel's frequency, with what the data leave open."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.factors.condition import fitted_data
from jaxfc.factors.methods import EM, PCA, Candidate
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.moments import sample_factors
from jaxfc.factors.panel_law import expected_panel, sample_panel
from jaxfc.factors.reconstruct import Nowcast, reconstruct_jointly, reconstruction_draws
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def nowcast(
    fitted: FittedFactorModel, panel: "Panel", num_draws: int, *, key: PRNGKeyArray
) -> Nowcast:
    """Mean and standard deviation of all series at the panel's frequency, in data units.

        x = z + S Q' (Q S Q')^{-1} (y - Q z),   z = W f + mu + e,   f ~ p(f | panel), e ~ N(0, S)

    The mean is exact: the data where a row was observed by itself; elsewhere the rebuilt panel of
    a two-step fit, and for one-step fits W E[f | panel] + mu (plus what the errors of the same row
    say, for a full S). Every mean satisfies Q x = y. The standard deviation comes from
    `num_draws` such draws (relative error 1 / sqrt(2 num_draws)) and is exactly 0 where the value
    itself was observed.

    Parameters are taken as known. After a two-step fit the factors have their law given the
    *rebuilt* panel, the convention of the source: the bands then leave out what rebuilt cells do
    not know about the factors, and are too narrow where much is missing (`predict` conditions on
    the data instead, whatever estimated the parameters). One-step fits are exact, flows and errors
    with memory included.

    **Arguments:** the panel that was fitted; `num_draws` at least 2.

    **Raises:** `ValueError` for another panel than the fitted one, or fewer than 2 draws.

    Source: Defend et al. (2021), section 3; conditioning by kriging (Journel and Huijbregts 1978).
    """
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 to have a spread, got {num_draws}.")
    values, observed = panel.arrays()
    if observed.shape != fitted.observed.shape or bool(jnp.any(observed != fitted.observed)):
        raise ValueError(
            f"the panel {observed.shape} is not the one that was fitted "
            f"{fitted.observed.shape}, or other cells of it are observed; nowcast takes the panel "
            "given to fit."
        )
    return nowcast_arrays(fitted, values, observed, panel.aggregation, num_draws, key=key)


@eqx.filter_jit
def nowcast_arrays(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
    num_draws: int,
    *,
    key: PRNGKeyArray,
) -> Nowcast:
    """`nowcast` on arrays: pure. Memory: draws x time x series."""
    seen = observed & by_itself(aggregation, observed.shape)
    if not rebuilds_panel(fitted) and not isinstance(fitted.model.method, PCA):
        draws = sample_panel(fitted, values, observed, num_draws, key=key, aggregation=aggregation)
        mean = expected_panel(fitted, values, observed, aggregation)
        std = jnp.where(seen, 0.0, jnp.std(draws, axis=0, ddof=1))
        return Nowcast(mean=jnp.where(seen, values, mean), std=std)
    mask = observed.astype(values.dtype)
    standardised = fitted.scaling.standardise(values, mask, aggregation)
    factor_key, error_key = jax.random.split(key)
    common = common_draws(fitted, num_draws, key=factor_key)
    cov = fitted.parameters.idiosyncratic_cov
    noise = jax.random.normal(error_key, common.shape, common.dtype)
    if uses_cross_section(fitted):
        unconditional = common + noise @ jnp.linalg.cholesky(cov).T

        def conditioned(path: Array) -> Array:
            return reconstruct_jointly(aggregation, standardised, mask, path, cov)

        draws = jax.vmap(conditioned)(unconditional)
    else:
        errors = noise * jnp.sqrt(fitted.parameters.variances)
        draws = reconstruction_draws(aggregation, standardised, mask, common, errors)
    std = jnp.where(seen, 0.0, fitted.scaling.scale * jnp.std(draws, axis=0, ddof=1))
    mean = fitted.common
    if rebuilds_panel(fitted):
        mean = fitted.scaling.restore(fitted.completed)
    mean = jnp.where(seen, values, mean)
    return Nowcast(mean=mean, std=std)


def by_itself(aggregation: AggregationRows | None, shape: tuple[int, ...]) -> Array:
    """Which cells are the value of their own row if observed, (time, series)."""
    if aggregation is None:
        return jnp.ones(shape, bool)
    own = jnp.asarray(aggregation.own_row) == jnp.arange(shape[0])
    plain = own.all(axis=1) & (jnp.asarray(aggregation.own_weight) == 1.0).all(axis=1)
    return jnp.broadcast_to(plain[jnp.asarray(aggregation.group)], shape)


def rebuilds_panel(fitted: FittedFactorModel) -> bool:
    """Whether the estimation rebuilt the incomplete series itself (two-step methods)."""
    return fitted.model.method.rebuilds_panel


def uses_cross_section(fitted: FittedFactorModel) -> bool:
    """Whether the estimation rebuilt each series from the errors of all."""
    correlated = fitted.model.idiosyncratic == "full"
    return correlated and getattr(fitted.model.method, "cross_section", False)


def common_draws(
    fitted: FittedFactorModel, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, "draws time series"]:
    """Draws of W f + mu in standardised units; the factors of principal components are known."""
    parameters, presample = fitted.parameters, fitted.model.presample
    if isinstance(fitted.model.method, PCA):
        factors = jnp.broadcast_to(fitted.factors, (num_draws, *fitted.factors.shape))
    else:
        data = fitted_data(fitted)
        mask = data.observed
        centred = data.values - mask * parameters.intercept
        step = EM().step(fitted.model, Candidate())
        collapsed = step.collapse(parameters, data, centred)
        factors = sample_factors(parameters, collapsed, num_draws, key=key, presample=presample)
        factors = factors[:, presample:]
    return parameters.intercept + factors @ parameters.loadings.T
