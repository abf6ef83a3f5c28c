"""What a network may change in the predictive law of a hidden Markov chain.

The outputs of a network are bounded by tanh and zero at the start, where the law is the chain's
own. The first half moves means, in standard deviations; the second half scales the standard
deviations, in logarithms.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.compose.hybrid_regimes import TrainableRegimes, mixture_moments
from jaxfc.forecast import Forecast, GaussianForecast
from jaxfc.regimes import RegimeForecast
from jaxfc.regimes.masked import Rows
from jaxfc.typing import Array, Float
from jaxfc_kernels.constants import LOG_2PI

# How far a residual may go: means by one standard deviation, standard deviations by a factor of e.
LARGEST_SHIFT, LARGEST_LOG_SCALE = 1.0, 1.0


class PredictiveLaw(eqx.Module):
    """The law of a row given the regime's law before it and the outputs of a network."""

    @abc.abstractmethod
    def output_shape(self, num_regimes: int, num_series: int) -> tuple[int, ...]:
        """Shape of the outputs for one row, led by 2: shifts and logarithms of scales."""

    @abc.abstractmethod
    def log_densities(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, "time regimes"],
        outputs: Float[Array, "time 2 *rest"],
        rows: Rows,
    ) -> Float[Array, " time"]:
        """ln f of the observed entries of every row given the rows before it."""

    @abc.abstractmethod
    def moments(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
        """Mean and covariance of one row."""

    @abc.abstractmethod
    def forecast(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> Forecast:
        """The law of one row."""


class MomentAnchor(PredictiveLaw):
    """Normal, around the moments m, C of the chain's predictive mixture.

        y ~ N(m + a sqrt(diag C), e^b C e^b)

    with outputs a and b of each series. At a = b = 0 it is the normal law closest to the exact
    filter's.
    """

    def output_shape(self, num_regimes: int, num_series: int) -> tuple[int, ...]:
        return 2, num_series

    def log_densities(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, "time regimes"],
        outputs: Float[Array, "time 2 *rest"],
        rows: Rows,
    ) -> Float[Array, " time"]:
        means, covs = jax.vmap(self.moments, (None, 0, 0))(regimes, log_predicted, outputs)
        both = rows.seen[:, :, None] * rows.seen[:, None, :]
        identity = jnp.eye(covs.shape[1], dtype=covs.dtype)
        # An entry that is not seen is one of variance one by itself, and is where it should be.
        chols = jnp.linalg.cholesky(both * covs + (1.0 - both) * identity)
        gaps = rows.seen * (rows.values - means)
        solve = jax.vmap(lambda chol, gap: jax.scipy.linalg.solve_triangular(chol, gap, lower=True))
        log_dets = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chols, axis1=1, axis2=2)), axis=1)
        distances = jnp.sum(solve(chols, gaps) ** 2, axis=1)
        return -0.5 * (LOG_2PI * rows.counts + log_dets + distances)

    def moments(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
        mean, cov = regimes.moments(log_predicted)
        scales = jnp.exp(outputs[1])
        shifted = mean + outputs[0] * jnp.sqrt(jnp.diagonal(cov))
        return shifted, scales[:, None] * cov * scales

    def forecast(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> Forecast:
        mean, cov = self.moments(regimes, log_predicted, outputs)
        return GaussianForecast(mean[None], cov[None, :, None, :])


class RegimeExperts(PredictiveLaw):
    """A mixture of experts whose gate is the chain.

        f(y) = sum_k q_k f_k(y; mu_k + a_k sd_k, e^{b_k} S_k e^{b_k})

    with outputs a_k and b_k of each regime and series, sd_k the roots of diag S_k. Occupancy comes
    from the chain: no term has to keep experts in use. At a = b = 0 it is the exact filter's law.
    """

    def output_shape(self, num_regimes: int, num_series: int) -> tuple[int, ...]:
        return 2, num_regimes, num_series

    def log_densities(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, "time regimes"],
        outputs: Float[Array, "time 2 *rest"],
        rows: Rows,
    ) -> Float[Array, " time"]:
        each = regimes.log_densities(rows, outputs[:, 0], outputs[:, 1])
        return jax.nn.logsumexp(log_predicted + each, axis=1)

    def moments(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
        means, scatters = expert_laws(regimes, outputs)
        covs = regimes.tails.cov_factor * scatters
        return mixture_moments(jnp.exp(log_predicted), means, covs)

    def forecast(
        self,
        regimes: TrainableRegimes,
        log_predicted: Float[Array, " regimes"],
        outputs: Float[Array, "2 *rest"],
    ) -> Forecast:
        means, scatters = expert_laws(regimes, outputs)
        return RegimeForecast.ahead(
            state=jnp.exp(log_predicted),
            # The probabilities are those of the row itself: the chain does not move any more.
            transition=jnp.eye(means.shape[0], dtype=means.dtype),
            means=means,
            scatters=scatters,
            tails=regimes.tails,
            horizon=1,
        )


def expert_laws(
    regimes: TrainableRegimes, outputs: Float[Array, "2 regimes series"]
) -> tuple[Float[Array, "regimes series"], Float[Array, "regimes series series"]]:
    """Means and scatter matrices of the experts."""
    scatters = regimes.scatters
    stds, scales = jnp.sqrt(jnp.diagonal(scatters, axis1=1, axis2=2)), jnp.exp(outputs[1])
    return regimes.means + outputs[0] * stds, scales[:, :, None] * scatters * scales[:, None, :]
