"""The posterior precision of the factor path in super-blocks, whatever couples its periods.

With a panel that couples no periods the super-blocks have p periods and the prior alone fills what
is off their diagonal; with one that does (errors with memory, sums over a window) they have as many
periods as the widest coupling, and prior and data add up band by band.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.typing import Array, Float
from jaxfc_kernels.banded import PathBands, add_bands, super_blocks, var_bands
from jaxfc_kernels.collapse import Collapsed
from jaxfc_kernels.var_precision import path_precision


class PathBlocks(NamedTuple):
    """`diagonal`, `lower` (blocks, m, m), `linear` (blocks, m) of the posterior precision; the
    log-determinant of the prior's; `length`: periods in a super-block."""

    diagonal: Array
    lower: Array
    linear: Array
    prior_log_det: Array
    length: int


def path_blocks(parameters: FactorParameters, collapsed: Collapsed, presample: int) -> PathBlocks:
    """Prior of the path plus the collapsed panel.

    The path is padded to whole super-blocks by periods without data at its end, which is exact.
    States beyond the factors (`collapsed` has more columns than there are factors) have their prior
    in `collapsed`.
    """
    if collapsed.lagged_information is not None:
        return banded_blocks(parameters, collapsed, presample)
    num_lags, num_factors = parameters.num_lags, parameters.num_factors
    num_times = collapsed.vectors.shape[0]
    num_blocks = -(-(num_times + presample) // num_lags)
    padding = num_blocks * num_lags - num_times - presample
    size = num_lags * num_factors
    prior = path_precision(
        parameters.transition,
        parameters.innovation_cov,
        parameters.initial_mean,
        parameters.initial_cov,
        num_blocks,
    )
    pad = ((presample, padding), (0, 0))
    information = jnp.pad(collapsed.information, (*pad, (0, 0)))
    linear = jnp.pad(collapsed.vectors, pad).reshape(num_blocks, size)
    linear = linear.at[0].add(prior.linear)
    diagonal = prior.diagonal + block_diagonals(
        information.reshape(num_blocks, num_lags, num_factors, num_factors)
    )
    return PathBlocks(diagonal, prior.lower, linear, prior.log_det, num_lags)


def banded_blocks(parameters: FactorParameters, collapsed: Collapsed, presample: int) -> PathBlocks:
    """`path_blocks` of a panel that couples periods."""
    assert collapsed.lagged_information is not None
    num_times, num_states = collapsed.vectors.shape
    length = max(parameters.num_lags, collapsed.lagged_information.shape[0], 1)
    num_blocks = -(-(num_times + presample) // length)
    num_periods = num_blocks * length
    prior = prior_bands(parameters, num_periods)
    pad = (presample, num_periods - num_times - presample)
    extra = (0, num_states - parameters.num_factors)
    data = jnp.concatenate([collapsed.information[None], collapsed.lagged_information])
    data = jnp.pad(data, ((0, 0), pad, (0, 0), (0, 0)))
    # Periods without data leave states beyond the factors without a law; any regular one will do.
    unit = jnp.concatenate([jnp.zeros(parameters.num_factors), jnp.ones(extra[1])])
    outside = jnp.arange(num_periods)
    outside = (outside < presample) | (outside >= presample + num_times)
    data = data.at[0].add(outside[:, None, None] * jnp.diag(unit.astype(data.dtype)))
    bands = add_bands(jnp.pad(prior.bands, ((0, 0), (0, 0), extra, extra)), data)
    linear = jnp.pad(collapsed.vectors, (pad, (0, 0))) + jnp.pad(prior.linear, ((0, 0), extra))
    diagonal, lower = super_blocks(bands, length)
    linear = linear.reshape(num_blocks, length * num_states)
    return PathBlocks(diagonal, lower, linear, prior.log_det, length)


def prior_bands(parameters: FactorParameters, num_periods: int) -> PathBands:
    """The prior of the factor path, period by period; p = 0: independent N(0, I)."""
    if parameters.num_lags:
        return var_bands(
            parameters.transition,
            parameters.innovation_cov,
            parameters.initial_mean,
            parameters.initial_cov,
            num_periods,
        )
    num_factors, dtype = parameters.num_factors, parameters.loadings.dtype
    identity = jnp.eye(num_factors, dtype=dtype)
    return PathBands(
        bands=jnp.broadcast_to(identity, (1, num_periods, num_factors, num_factors)),
        linear=jnp.zeros((num_periods, num_factors), dtype),
        log_det=jnp.zeros((), dtype),
    )


def block_diagonals(
    blocks: Float[Array, "blocks lags factors factors"],
) -> Float[Array, "blocks states states"]:
    """Block-diagonal matrices from their diagonal blocks."""
    num_blocks, num_lags, num_factors, _ = blocks.shape
    if num_lags == 1:
        return blocks[:, 0]
    unit = jnp.eye(num_lags, dtype=blocks.dtype)[:, None, :, None]
    spread = blocks[:, :, :, None, :] * unit
    return spread.reshape(num_blocks, num_lags * num_factors, num_lags * num_factors)


def lag_covs_from_blocks(
    covs: Float[Array, "blocks states states"],
    cross_covs: Float[Array, "blocks states states"],
    length: int,
    num_factors: int,
) -> Float[Array, "orders periods factors factors"]:
    """Cov[F_t, F_{t-l}], l = 0..length, from super-block covariances (a cut, no arithmetic)."""
    num_blocks = covs.shape[0]
    if length == 1:
        return jnp.stack([covs, cross_covs])
    both = jnp.concatenate([cross_covs, covs], axis=2)
    both = both.reshape(num_blocks, length, num_factors, 2 * length, num_factors)
    orders = []
    for lag in range(length + 1):
        cut = [both[:, i, :, length + i - lag, :] for i in range(length)]
        orders.append(jnp.stack(cut, axis=1).reshape(-1, num_factors, num_factors))
    return jnp.stack(orders)
