"""The Kalman engine of factor moments: collapsed filter and smoother on the companion form."""

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import (
    FactorPosterior,
    Moments,
    collapsed_misfit,
    static_posterior,
)
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import Collapsed
from jaxfc_kernels.kalman_smoother import collapsed_filter_smoother
from jaxfc_kernels.kalman_system import System, TimeVarying
from jaxfc_kernels.lyapunov import companion


class KalmanMoments(Moments):
    """Kalman filter and smoother on the state (F_t, ..., F_{t-p+1}), panel collapsed beforehand.

    The same numbers as `ClosedForm` at 14 T K^3 p^3 flops and depth 2 T; for comparison and for
    one-step quantities. An initial law that is not the stationary one must lie at least p - 1
    periods before the panel (`presample`), else the first state would mix data and start.
    """

    def posterior(
        self, parameters: FactorParameters, collapsed: Collapsed, *, presample: int = 0
    ) -> FactorPosterior:
        num_lags, num_factors = parameters.num_lags, parameters.num_factors
        if collapsed.lagged_information is not None:
            raise ValueError(
                "KalmanMoments cannot read panels whose errors have memory or whose series are "
                "sums over several rows; use moments=ClosedForm(), or the state space with errors "
                "as states (`ar_error_space`)."
            )
        if num_lags == 0:
            return static_posterior(parameters, collapsed)
        if 0 < presample < num_lags - 1:
            raise ValueError(
                f"KalmanMoments needs presample = 0 or at least {num_lags - 1}, got {presample}."
            )
        # The stationary law is the same p - 1 periods earlier, where no state mixes in data.
        virtual = num_lags - 1 if presample == 0 else 0
        without_data = presample + virtual - (num_lags - 1)
        pad = ((without_data, 0), (0, 0))
        vectors = state_vectors(jnp.pad(collapsed.vectors, pad), num_lags)
        information = state_matrices(jnp.pad(collapsed.information, (*pad, (0, 0))), num_lags)
        remainders = jnp.zeros(vectors.shape[0], vectors.dtype)
        remainders = remainders.at[0].set(collapsed.log_normaliser + collapsed.quadratic)
        filtered, smoothed = collapsed_filter_smoother(
            companion_system(parameters), TimeVarying(information), vectors, remainders
        )
        means, lag_covs = unstack(
            smoothed.smoothed_means,
            smoothed.smoothed_covs,
            smoothed.smoothed_cross_covs,
            num_lags,
            num_factors,
        )
        means, lag_covs = means[virtual:], cut_start(lag_covs[:, virtual:])
        misfit = collapsed_misfit(collapsed, means[presample:])
        return FactorPosterior(means, lag_covs, filtered.loglik + 0.5 * misfit)


def state_vectors(
    vectors: Float[Array, "time factors"], num_lags: int
) -> Float[Array, "time states"]:
    """Collapsed data as seen by the companion state: only its newest factors are measured."""
    return jnp.pad(vectors, ((0, 0), (0, (num_lags - 1) * vectors.shape[1])))


def state_matrices(
    matrices: Float[Array, "time factors factors"], num_lags: int
) -> Float[Array, "time states states"]:
    """The same for information matrices."""
    extra = (num_lags - 1) * matrices.shape[1]
    return jnp.pad(matrices, ((0, 0), (0, extra), (0, extra)))


def companion_system(parameters: FactorParameters) -> System:
    """State space of the factors alone; the observation fields are not read after a collapse."""
    num_lags, num_factors = parameters.num_lags, parameters.num_factors
    size = num_lags * num_factors
    dtype = parameters.loadings.dtype
    newest_first = jnp.arange(size).reshape(num_lags, num_factors)[::-1].reshape(-1)
    noise = jnp.zeros((size, size), dtype)
    noise = noise.at[:num_factors, :num_factors].set(parameters.innovation_cov)
    return System(
        initial_mean=parameters.initial_mean[newest_first],
        initial_cov=parameters.initial_cov[newest_first][:, newest_first],
        transition=companion(parameters.transition),
        offset=jnp.zeros(size, dtype),
        innovation_cov=noise,
        design=parameters.loadings,
        observation_offset=parameters.intercept,
        observation_cov=parameters.idiosyncratic_cov,
    )


def unstack(
    means: Float[Array, "time states"],
    covs: Float[Array, "time states states"],
    cross_covs: Float[Array, "steps states states"],
    num_lags: int,
    num_factors: int,
) -> tuple[Float[Array, "periods factors"], Float[Array, "orders periods factors factors"]]:
    """Factor moments of all periods, the p - 1 before the first state included."""
    num_states = means.shape[0]
    blocks = covs.reshape(num_states, num_lags, num_factors, num_lags, num_factors)
    first = means[0].reshape(num_lags, num_factors)[::-1]
    all_means = jnp.concatenate([first[:-1], means[:, :num_factors]])
    orders = []
    zero = jnp.zeros((num_factors, num_factors), means.dtype)
    for lag in range(num_lags):
        # Before the first state: its own lags, F at position i from the newest with i + lag.
        early = [
            blocks[0, i, :, i + lag, :] if i + lag < num_lags else zero
            for i in range(num_lags - 1, 0, -1)
        ]
        late = blocks[:, 0, :, lag, :]
        orders.append(jnp.concatenate([jnp.stack(early), late]) if early else late)
    last = cross_covs.reshape(-1, num_lags, num_factors, num_lags, num_factors)[:, 0, :, -1, :]
    orders.append(jnp.concatenate([jnp.zeros((num_lags, *zero.shape), means.dtype), last]))
    return all_means, jnp.stack(orders)


def cut_start(
    lag_covs: Float[Array, "orders periods factors factors"],
) -> Float[Array, "orders periods factors factors"]:
    """Zero where t - l lies before the first period, as `FactorPosterior` says."""
    num_orders, num_periods = lag_covs.shape[:2]
    inside = jnp.arange(num_periods) >= jnp.arange(num_orders)[:, None]
    return jnp.where(inside[:, :, None, None], lag_covs, 0.0)
