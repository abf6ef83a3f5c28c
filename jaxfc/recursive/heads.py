"""Heads: what the outputs of a network mean, as a law whose moments start from an anchor's.

Every output is a residual: zeros give the anchor's mean m and standard deviation s exactly, and a
network whose last layer starts at zero starts there. Losses are negative log densities (pinball
losses for quantiles) in the units of the data, summed over the observed entries of one window.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp

from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, GaussianForecast
from jaxfc.recursive.laws import MixtureForecast
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.constants import LOG_2PI

# Log scales stay within so much of the anchor's: a factor of 400 either way.
LARGEST_LOG_SCALE = 6.0

Outputs = Float[Array, "horizon series outputs"]


class Moments(eqx.Module):
    """Mean and standard deviation that a head refines, in units of the data, and the correlations
    of the law that they come from (None: taken as zero)."""

    location: Float[Array, "horizon series"]
    scale: Float[Array, "horizon series"]
    corr: Float[Array, "horizon series horizon series"] | None = None

    def correlations(self) -> Float[Array, "horizon series horizon series"]:
        """`corr`, or the identity."""
        return identity_like(self.location) if self.corr is None else self.corr


def identity_like(
    entries: Float[Array, "horizon series"],
) -> Float[Array, "horizon series horizon series"]:
    """The identity over all (step, series)."""
    return jnp.eye(entries.size, dtype=entries.dtype).reshape(*entries.shape, *entries.shape)


class Head(eqx.Module):
    """What `num_outputs` outputs for each step and series mean."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Outputs for each step and series."""

    @abc.abstractmethod
    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        """Loss of one window, summed over the observed entries of `target`."""

    @abc.abstractmethod
    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        """The joint law; `key` for heads that answer with draws."""

    def from_log_scale(self, log_scale: Float[Array, "horizon series"]) -> Outputs:
        """Outputs that keep the anchor's mean and multiply its scale by exp(`log_scale`).

        **Raises:** `ValueError` for a head without a scale.
        """
        outputs = jnp.zeros((*log_scale.shape, self.num_outputs), log_scale.dtype)
        return outputs.at[..., 1].set(log_scale)


def located(outputs: Outputs, anchor: Moments) -> tuple[Array, Array]:
    """Mean m + s a and standard deviation s exp(b) of outputs a, b."""
    return anchor.location + anchor.scale * outputs[..., 0], anchor.scale * grown(outputs[..., 1])


def grown(log_scale: Array) -> Array:
    """exp of a log scale, bounded smoothly."""
    return jnp.exp(LARGEST_LOG_SCALE * jnp.tanh(log_scale / LARGEST_LOG_SCALE))


def summed(losses: Array, observed: Array) -> Array:
    """Sum over what is observed; losses are finite everywhere."""
    return jnp.sum(jnp.where(observed, losses, 0.0))


def scaled_cov(stds: Array, corr: Array) -> Array:
    """Covariance of standard deviations and correlations over (horizon, series)."""
    return stds[..., None, None] * corr * stds


class GaussianHead(Head):
    """y ~ N(m + s a, (s exp b)^2) for outputs a, b; correlations are the anchor's.

    The loss is that of the marginals: correlations are kept, not trained (`LowRankHead` trains
    them).
    """

    @property
    def num_outputs(self) -> int:
        return 2

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        mean, std = located(outputs, anchor)
        errors = (jnp.where(observed, target, mean) - mean) / std
        return summed(0.5 * errors**2 + jnp.log(std) + 0.5 * LOG_2PI, observed)

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        mean, std = located(outputs, anchor)
        return GaussianForecast(mean, scaled_cov(std, anchor.correlations()))


class StudentHead(Head):
    """Student's law of mean m + s a and standard deviation s exp b.

    Degrees of freedom 2 + softplus(c + 6), c the mean of the third outputs: one number for all
    entries, about 8 at first. The joint law is multivariate t with the anchor's correlations, and
    the loss that of its marginals.
    """

    @property
    def num_outputs(self) -> int:
        return 3

    def degrees(self, outputs: Outputs) -> Float[Array, ""]:
        """Degrees of freedom, above 2."""
        return 2.0 + jax.nn.softplus(jnp.mean(outputs[..., 2]) + 6.0)

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        mean, std = located(outputs, anchor)
        v = self.degrees(outputs)
        errors = (jnp.where(observed, target, mean) - mean) / std
        level = gammaln(0.5 * v) - gammaln(0.5 * (v + 1.0)) + 0.5 * jnp.log(jnp.pi * (v - 2.0))
        tails = 0.5 * (v + 1.0) * jnp.log1p(errors**2 / (v - 2.0))
        return summed(level + jnp.log(std) + tails, observed)

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        mean, std = located(outputs, anchor)
        v = self.degrees(outputs)
        scatter = scaled_cov(std * jnp.sqrt((v - 2.0) / v), anchor.correlations())
        return MixtureForecast(jnp.ones(1, mean.dtype), mean[None], scatter[None], v)


class MixtureHead(Head):
    """A mixture of `num_components` normal laws, P(k) = softmax of the mean over entries.

    The component is common to all entries of a window, entries are independent within it. Zeros
    give components of the anchor's mean and variances s^2 c_k, c_k from 2/(K+1) to 2K/(K+1): the
    anchor's moments, and components that differ, without which they could never part.
    """

    num_components: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        check_counts(num_components=self.num_components)

    @property
    def num_outputs(self) -> int:
        return 3 * self.num_components

    def components(self, outputs: Outputs, anchor: Moments) -> tuple[Array, Array, Array]:
        """Log probabilities (components,), means and standard deviations (components, ...)."""
        size = self.num_components
        shifts, log_scales, logits = jnp.split(jnp.moveaxis(outputs, -1, 0), 3)
        spread = jnp.sqrt(2.0 * jnp.arange(1, size + 1, dtype=outputs.dtype) / (size + 1))
        means = anchor.location + anchor.scale * shifts
        stds = anchor.scale * spread[:, None, None] * grown(log_scales)
        return jax.nn.log_softmax(jnp.mean(logits, axis=(1, 2))), means, stds

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        logits, means, stds = self.components(outputs, anchor)
        errors = (jnp.where(observed, target, anchor.location) - means) / stds
        entries = 0.5 * errors**2 + jnp.log(stds) + 0.5 * LOG_2PI
        return -logsumexp(logits - jnp.sum(jnp.where(observed, entries, 0.0), axis=(1, 2)))

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        logits, means, stds = self.components(outputs, anchor)
        identity = identity_like(anchor.location)
        scatters = jax.vmap(lambda std: scaled_cov(std, identity))(stds)
        return MixtureForecast(jnp.exp(logits), means, scatters)

    def from_log_scale(self, log_scale: Float[Array, "horizon series"]) -> Outputs:
        size = self.num_components
        outputs = jnp.zeros((*log_scale.shape, self.num_outputs), log_scale.dtype)
        return outputs.at[..., size : 2 * size].set(log_scale[..., None])


class LowRankHead(Head):
    """y ~ N(m + s a, S (I - diag(f f') + f f') S) over all (step, series), S = diag(s exp b).

    f = g / sqrt(1 + |g|^2) by entry, g = `rank` outputs plus a fixed pattern of size 0.3 (cosines,
    the first constant): S are the standard deviations, f the loadings of the correlations. Means
    and standard deviations start at the anchor's, correlations at those of the pattern (without it
    they would have no gradient). Costs O(entries rank^2) a window.
    """

    rank: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_counts(rank=self.rank)

    @property
    def num_outputs(self) -> int:
        return 2 + self.rank

    def raw_loadings(self, outputs: Outputs) -> Float[Array, "horizon series rank"]:
        """g, whose product g g' + I is proportional to the covariance by entry."""
        num_series = outputs.shape[1]
        places = (np.arange(num_series) + 0.5)[:, None] / num_series
        pattern = 0.3 * np.cos(np.pi * places * np.arange(self.rank))
        return outputs[..., 2:] + jnp.asarray(pattern, outputs.dtype)

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        mean, std = located(outputs, anchor)
        raw = self.raw_loadings(outputs)
        # In units of std / sqrt(1 + |g|^2) the covariance is I + g g'.
        unit = std * jax.lax.rsqrt(1.0 + jnp.sum(raw**2, axis=-1))
        errors = ((jnp.where(observed, target, mean) - mean) / unit).reshape(-1)
        raw = jnp.where(observed[..., None], raw, 0.0).reshape(-1, self.rank)
        chol = jnp.linalg.cholesky(jnp.eye(self.rank, dtype=raw.dtype) + raw.T @ raw)
        common = jax.scipy.linalg.solve_triangular(chol, raw.T @ errors, lower=True)
        quadratic = jnp.sum(errors**2) - jnp.sum(common**2)
        log_det = jnp.sum(jnp.log(jnp.diagonal(chol)))
        return 0.5 * quadratic + log_det + summed(jnp.log(unit) + 0.5 * LOG_2PI, observed)

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        mean, std = located(outputs, anchor)
        raw = self.raw_loadings(outputs)
        loadings = raw * jax.lax.rsqrt(1.0 + jnp.sum(raw**2, axis=-1, keepdims=True))
        own = 1.0 - jnp.sum(loadings**2, axis=-1)
        corr = jnp.einsum("hir,gjr->higj", loadings, loadings)
        corr = corr + own[..., None, None] * identity_like(mean)
        return GaussianForecast(mean, scaled_cov(std, corr))
