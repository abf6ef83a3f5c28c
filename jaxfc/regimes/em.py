"""Expectation and maximisation of a Markov-switching model, one step at a time.

E: probabilities of regimes and of pairs of neighbours given all rows (`jaxfc_kernels`). M: with n
their expected counts and alpha the pseudo-counts of the prior,

    P_ij = (n_ij + alpha_ij) / sum_j (n_ij + alpha_ij),     initial_k = (P(s_1 = k) + alpha) / sum

and each regime's mean and scatter from the rows weighted by its probabilities (`Structure.update`).
The objective, log-likelihood plus log prior, never falls.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.masked import Rows
from jaxfc.regimes.prior import Prior, PriorMoments
from jaxfc.typing import Array, Float, PyTree
from jaxfc_kernels.hidden_markov import (
    Filtered,
    Smoothed,
    hidden_markov_filter,
    hidden_markov_smoother,
)


class RegimeParameters(eqx.Module):
    """Law of the first regime, P[i, j] = P(s_{t+1} = j | s_t = i), means by regime, parameters of
    the scatter matrices (a tuple, see `Emissions`)."""

    initial: Float[Array, " regimes"]
    transition: Float[Array, "regimes regimes"]
    means: Float[Array, "regimes series"]
    scatters: tuple[PyTree, ...]


class Data(NamedTuple):
    """What a step reads."""

    rows: Rows
    prior: Prior
    moments: PriorMoments


class Expectations(NamedTuple):
    """What an E-step knows."""

    filtered: Filtered
    smoothed: Smoothed
    distances: Float[Array, "regimes time"]

    @property
    def loglik(self) -> Float[Array, ""]:
        """ln f of all observed entries."""
        return jnp.sum(self.filtered.loglik_terms)


def expectations(
    emissions: Emissions, parameters: RegimeParameters, rows: Rows, implementation: str
) -> Expectations:
    """Filter and smoother under given parameters."""
    distances, log_dets = emissions.distances(parameters.means, parameters.scatters, rows)
    densities = emissions.tails.log_densities(distances, log_dets, rows.counts).T
    transition = parameters.transition
    filtered = hidden_markov_filter(
        parameters.initial, transition, densities, implementation=implementation
    )
    smoothed = hidden_markov_smoother(filtered, transition, implementation=implementation)
    return Expectations(filtered, smoothed, distances)


def pseudo_counts(prior: Prior, num_regimes: int, dtype) -> Float[Array, "regimes regimes"]:
    """alpha of the transitions."""
    sticky = prior.stickiness * jnp.eye(num_regimes)
    return (prior.concentration + sticky).astype(dtype)


def new_chain(
    first: Float[Array, " regimes"],
    pairs: Float[Array, "regimes regimes"],
    prior: Prior,
    old: Float[Array, "regimes regimes"],
) -> tuple[Float[Array, " regimes"], Float[Array, "regimes regimes"]]:
    """Law of the first regime and transitions; a regime never left keeps its `old` row."""
    counts = pairs + pseudo_counts(prior, first.size, first.dtype)
    totals = jnp.sum(counts, axis=1, keepdims=True)
    transition = jnp.where(totals > 0, counts / jnp.where(totals > 0, totals, 1.0), old)
    initial = first + prior.concentration.astype(first.dtype)
    return initial / jnp.sum(initial), transition


def maximised(
    emissions: Emissions, parameters: RegimeParameters, found: Expectations, data: Data
) -> RegimeParameters:
    """The M-step."""
    weights, pairs = found.smoothed
    initial, transition = new_chain(
        weights[0], jnp.sum(pairs, axis=0), data.prior, parameters.transition
    )
    means, scatters = emissions.update(
        parameters.means, parameters.scatters, data.rows, weights, found.distances, data.moments
    )
    return RegimeParameters(initial, transition, means, scatters)


def log_prior(emissions: Emissions, parameters: RegimeParameters, data: Data) -> Float[Array, ""]:
    """Log density of the prior at the parameters, up to a constant."""
    size, dtype = emissions.num_regimes, parameters.means.dtype
    alpha = pseudo_counts(data.prior, size, dtype)
    chain = weighted_logs(alpha, parameters.transition)
    first = weighted_logs(data.prior.concentration.astype(dtype), parameters.initial)
    laws = emissions.log_prior(parameters.means, parameters.scatters, data.moments)
    return chain + first + laws


def weighted_logs(weights: Array, probabilities: Array) -> Float[Array, ""]:
    """sum w ln p, zero where w is."""
    counts = jnp.broadcast_to(weights, probabilities.shape)
    inside = jnp.where(counts > 0, probabilities, 1.0)
    return jnp.sum(jnp.where(counts > 0, counts * jnp.log(inside), 0.0))


def em_step(
    emissions: Emissions, parameters: RegimeParameters, data: Data, implementation: str
) -> tuple[RegimeParameters, Float[Array, ""]]:
    """New parameters, and the objective at the old ones."""
    found = expectations(emissions, parameters, data.rows, implementation)
    objective = found.loglik + log_prior(emissions, parameters, data)
    return maximised(emissions, parameters, found, data), objective


def from_weights(
    emissions: Emissions, weights: Float[Array, "time regimes"], data: Data
) -> RegimeParameters:
    """Parameters of an M-step from given probabilities of the regimes, as if independent."""
    size = emissions.num_regimes
    means = jnp.broadcast_to(data.moments.mean, (size, data.moments.mean.size))
    scatters = emissions.start(data.moments.scatter)
    distances, _ = emissions.distances(means, scatters, data.rows)
    means, scatters = emissions.update(means, scatters, data.rows, weights, distances, data.moments)
    pairs = weights[:-1].T @ weights[1:]
    even = jnp.full((size, size), 1.0 / size, weights.dtype)
    initial, transition = new_chain(weights[0], pairs, data.prior, even)
    return RegimeParameters(initial, transition, means, scatters)


def in_order(
    emissions: Emissions, parameters: RegimeParameters, measure: Float[Array, " regimes"]
) -> RegimeParameters:
    """Regimes of one structure by `measure`, the smallest first; others keep their places."""
    if not emissions.is_shared:
        return parameters
    order = jnp.argsort(measure)
    return RegimeParameters(
        parameters.initial[order],
        parameters.transition[order][:, order],
        parameters.means[order],
        jax.tree.map(lambda leaf: leaf[order], parameters.scatters),
    )


def total_variance(
    emissions: Emissions, parameters: RegimeParameters, scale: Float[Array, " series"]
) -> Float[Array, " regimes"]:
    """Sum over series of the variance over `scale`, so that the units of a series do not decide."""
    variances = jnp.diagonal(emissions.dense(parameters.scatters), axis1=1, axis2=2)
    return jnp.sum(variances / scale, axis=1)
