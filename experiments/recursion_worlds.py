"""Two simulated worlds of daily returns whose best forecast is known, and the exact Bayes filter.

World A: three regimes, and given the regime a normal law with two factors. World B: A with a common
AR(1) log volatility, Student noise, GARCH of the idiosyncratic parts, momentum of the factors and
one asset that leads three others. Assets of world A have variance one in the long run.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import multivariate_normal

from jaxfc.typing import Array, Float, Int, PRNGKeyArray
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.hidden_markov import hidden_markov_filter

BURN_IN = 500
NUM_ASSETS = 8
TRANSITION = np.array([[0.985, 0.013, 0.002], [0.020, 0.960, 0.020], [0.005, 0.045, 0.950]])
# Means and standard deviations of two factors, and the size of idiosyncratic shocks, by regime.
FACTOR_MEANS = np.array([[0.06, 0.0], [0.0, 0.0], [-0.2, 0.0]])
FACTOR_STDS = np.array([[0.5, 0.3], [1.0, 0.6], [2.4, 1.0]])
OWN_SIZES = np.array([0.5, 0.8, 1.4])


class World(eqx.Module):
    """Parameters of either world; `degrees` None is normal noise.

        f_t = m_k + momentum f_{t-1} + S_k v_t z_t,   e_it = o_ki v_t sqrt(g_it) z_it
        y_t = B f_t + e_t + lead e_{0,t-1},   v_t^2 = exp(h_t - s^2 / 2),   E v_t^2 = 1
        h_t = persistence h_{t-1} + ...  with standard deviation s
        g_it = 1 - a - b + (a z_{i,t-1}^2 + b) g_{i,t-1}

    k is the regime of the day; all z have variance one.
    """

    transition: Float[Array, "regimes regimes"]
    factor_means: Float[Array, "regimes factors"]
    factor_stds: Float[Array, "regimes factors"]
    own_stds: Float[Array, "regimes series"]
    loadings: Float[Array, "series factors"]
    momentum: Float[Array, " factors"]
    lead: Float[Array, " series"]
    persistence: Float[Array, ""]
    log_variance_std: Float[Array, ""]
    garch: Float[Array, "2"]
    degrees: int | None = eqx.field(static=True)

    @property
    def stationary(self) -> Float[Array, " regimes"]:
        """The law of the regime in the long run."""
        size = self.transition.shape[0]
        ones = jnp.ones((size, size))
        return jnp.linalg.solve((jnp.eye(size) - self.transition + ones).T, ones[0])

    @property
    def means(self) -> Float[Array, "regimes series"]:
        """Means of returns by regime, in world A."""
        return self.factor_means @ self.loadings.T

    @property
    def covs(self) -> Float[Array, "regimes series series"]:
        """Covariances of returns by regime, in world A."""
        common = jnp.einsum("if,kf,jf->kij", self.loadings, self.factor_stds**2, self.loadings)
        return common + jax.vmap(jnp.diag)(self.own_stds**2)


class Path(NamedTuple):
    """Returns, their mean and standard deviation given all that is hidden of the same day
    (regime, volatility), and the regimes."""

    values: Float[Array, "time series"]
    means: Float[Array, "time series"]
    stds: Float[Array, "time series"]
    regimes: Int[Array, " time"]


def make_world(name: str) -> World:
    """World "A" or "B"."""
    if name not in ("A", "B"):
        raise ValueError(f"the worlds are A and B, got {name!r}.")
    place = np.arange(NUM_ASSETS)
    loadings = np.stack([np.linspace(0.6, 1.3, NUM_ASSETS), np.cos(np.pi * place / 3.5)], axis=1)
    own = OWN_SIZES[:, None] * np.linspace(1.3, 0.7, NUM_ASSETS)
    share = np.linalg.matrix_power(TRANSITION, 10_000)[0]
    means = FACTOR_MEANS @ loadings.T
    within = FACTOR_STDS**2 @ (loadings**2).T + own**2
    variance = share @ (within + means**2) - (share @ means) ** 2
    scale = 1.0 / np.sqrt(variance)
    rich = name == "B"
    lead = np.zeros(NUM_ASSETS)
    lead[1:4] = 0.25 * rich
    parts = (
        TRANSITION,
        FACTOR_MEANS,
        FACTOR_STDS,
        own * scale,
        loadings * scale[:, None],
        np.array([0.15, 0.1]) * rich,
        lead,
        np.array(0.98),
        np.array(0.6 * rich),
        np.array([0.08, 0.88]) * rich,
    )
    return World(
        *(jnp.asarray(part, jnp.result_type(float)) for part in parts), 6 if rich else None
    )


def unit_noise(
    shape: tuple[int, ...], degrees: int | None, *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Normal or Student noise of variance one."""
    normal_key, key = jax.random.split(key)
    normal = jax.random.normal(normal_key, shape)
    if degrees is None:
        return normal
    squares = sum(jax.random.normal(each, shape) ** 2 for each in jax.random.split(key, degrees))
    return normal * jnp.sqrt((degrees - 2.0) / squares)


def simulate(world: World, num_days: int, *, key: PRNGKeyArray) -> Path:
    """One path from the world's long run."""
    regime_key, level_key, factor_key, own_key = jax.random.split(key, 4)
    size = BURN_IN + num_days
    num_series, num_factors = world.loadings.shape
    below = jnp.cumsum(world.transition, axis=1)[:, :-1]
    std = world.log_variance_std
    fresh = std * jnp.sqrt(1.0 - world.persistence**2)

    def step(state: tuple[Array, ...], given: tuple[Array, ...]):
        regime, log_variance, own_variance, factors, leader = state
        uniform, level_noise, factor_noise, own_noise = given
        regime = jnp.sum(uniform >= below[regime])
        log_variance = world.persistence * log_variance + fresh * level_noise
        level = jnp.exp(0.5 * log_variance - 0.25 * std**2)
        expected = world.factor_means[regime] + world.momentum * factors
        factor_stds = level * world.factor_stds[regime]
        own_stds = level * world.own_stds[regime] * jnp.sqrt(own_variance)
        factors, own = expected + factor_stds * factor_noise, own_stds * own_noise
        mean = world.loadings @ expected + world.lead * leader
        variance = world.loadings**2 @ factor_stds**2 + own_stds**2
        value = world.loadings @ factors + own + world.lead * leader
        shock, decay = world.garch
        own_variance = 1.0 - shock - decay + (shock * own_noise**2 + decay) * own_variance
        day = Path(value, mean, jnp.sqrt(variance), regime)
        return (regime, log_variance, own_variance, factors, own[0]), day

    zero = jnp.zeros(())
    start = (jnp.zeros((), int), zero, jnp.ones(num_series), jnp.zeros(num_factors), zero)
    noise = (
        jax.random.uniform(regime_key, (size,)),
        jax.random.normal(level_key, (size,)),
        unit_noise((size, num_factors), world.degrees, key=factor_key),
        unit_noise((size, num_series), world.degrees, key=own_key),
    )
    path = jax.lax.scan(step, start, noise)[1]
    return jax.tree.map(lambda leaf: leaf[BURN_IN:], path)


class Mixture(NamedTuple):
    """What a chain says of each day from the days before: mean and standard deviation of each
    return, and its log density."""

    means: Float[Array, "time series"]
    stds: Float[Array, "time series"]
    log_densities: Float[Array, "time series"]


def filtered_mixture(
    values: Float[Array, "time series"],
    initial: Float[Array, " regimes"],
    transition: Float[Array, "regimes regimes"],
    means: Float[Array, "regimes series"],
    covs: Float[Array, "regimes series series"],
    implementation: str,
) -> Mixture:
    """The one-step law of every day under a hidden Markov model: the exact Bayes filter where the
    parameters are those of world A."""
    joint = jax.vmap(lambda mean, cov: multivariate_normal.logpdf(values, mean, cov), out_axes=1)
    found = hidden_markov_filter(
        initial, transition, joint(means, covs), implementation=implementation
    )
    weights = jnp.exp(found.log_predicted)
    variances = jnp.diagonal(covs, axis1=1, axis2=2)
    mean = weights @ means
    spread = (means[None] - mean[:, None]) ** 2 + variances
    each = normal_loss(values[:, None], means, jnp.sqrt(variances))
    log_density = jax.nn.logsumexp(found.log_predicted[:, :, None] - each, axis=1)
    return Mixture(mean, jnp.sqrt(jnp.einsum("tk,tki->ti", weights, spread)), log_density)


def normal_loss(values: Array, means: Array, stds: Array) -> Array:
    """Minus the log density of normal laws, entry by entry."""
    return 0.5 * ((values - means) / stds) ** 2 + jnp.log(stds) + 0.5 * LOG_2PI
