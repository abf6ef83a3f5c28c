"""A hidden Markov chain that can be trained with whatever stands on it.

Parameters without bounds: logits of the chain, means, Cholesky factors with logarithms on their
diagonal. Rows before t decide what is said of row t, to the last bit: neither a later value nor a
later hole changes which operations an earlier row goes through.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.regimes import FittedRegimes, Tails
from jaxfc.regimes.masked import Rows, complete_distances, masked_distances
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.hidden_markov import logarithmic_filter
from jaxfc_kernels.hidden_markov_products import weighted_log_sum

# Probabilities that were estimated as smaller start from here: ln 0 has no derivative.
SMALLEST = 1e-12


class Predicted(NamedTuple):
    """ln P(s_t | rows before t) for t = 0..T (time + 1, regimes), ln f(y_t | rows before) (time,)
    of the chain alone."""

    log_probabilities: Float[Array, "later regimes"]
    loglik_terms: Float[Array, " time"]


class TrainableRegimes(eqx.Module):
    """y_t | s_t = k ~ law(mu_k, L_k L_k'), P(s_{t+1} = j | s_t = i) = P_ij, with derivatives.

    `initial_logits`, `transition_logits`: P is their softmax by row; `means` mu; `roots`: the lower
    triangles of L_k with logarithms of its diagonal (what stands above is not read); `tails` as
    estimated, never trained.
    """

    initial_logits: Float[Array, " regimes"]
    transition_logits: Float[Array, "regimes regimes"]
    means: Float[Array, "regimes series"]
    roots: Float[Array, "regimes series series"]
    tails: Tails

    @classmethod
    def starting_at(cls, fitted: FittedRegimes) -> "TrainableRegimes":
        """The estimate as it is; a structure of its covariances is not kept by later training."""
        chols = jnp.linalg.cholesky(fitted.emissions.dense(fitted.parameters.scatters))
        logs = jnp.log(jnp.diagonal(chols, axis1=1, axis2=2))
        return cls(
            initial_logits=jnp.log(jnp.maximum(fitted.parameters.initial, SMALLEST)),
            transition_logits=jnp.log(jnp.maximum(fitted.transition, SMALLEST)),
            means=fitted.means,
            roots=jnp.tril(chols, -1) + jax.vmap(jnp.diag)(logs),
            tails=fitted.emissions.tails,
        )

    @property
    def transition(self) -> Float[Array, "regimes regimes"]:
        """P, rows sum to one."""
        return jax.nn.softmax(self.transition_logits, axis=1)

    @property
    def scatters(self) -> Float[Array, "regimes series series"]:
        """L_k L_k'."""
        stds = jnp.exp(jnp.diagonal(self.roots, axis1=1, axis2=2))
        chols = jnp.tril(self.roots, -1) + jax.vmap(jnp.diag)(stds)
        return jnp.einsum("kab,kcb->kac", chols, chols, precision="highest")

    def log_densities(
        self,
        rows: Rows,
        shifts: Float[Array, "time regimes series"] | None = None,
        log_scales: Float[Array, "time regimes series"] | None = None,
    ) -> Float[Array, "time regimes"]:
        """ln f(y_t | s_t = k) of the observed entries, zero for rows without any.

        With `shifts` a and `log_scales` b row t has mean mu_k + a sd_k and scatter e^b S_k e^b,
        sd_k the roots of the diagonal of S_k.
        """
        none = jnp.zeros((1, *self.means.shape), self.means.dtype)
        shifts = none if shifts is None else shifts
        log_scales = none if log_scales is None else log_scales

        def one(mean: Array, scatter: Array, shift: Array, log_scale: Array) -> Array:
            std = jnp.sqrt(jnp.diagonal(scatter))
            units = rows.seen * (rows.values - mean - shift * std) * jnp.exp(-log_scale)
            distances, log_dets = row_distances(scatter, Rows(units, rows.seen))
            log_dets = log_dets + 2.0 * jnp.sum(rows.seen * log_scale, axis=1)
            return self.tails.log_densities(distances, log_dets, rows.counts)

        each = jax.vmap(one, in_axes=(0, 0, 1, 1), out_axes=1)
        return each(self.means, self.scatters, shifts, log_scales)

    def predicted(self, rows: Rows) -> Predicted:
        """The law of the regime before each row and after the last."""
        first = jax.nn.log_softmax(self.initial_logits)
        densities = self.log_densities(rows)
        # The kernel's own choice of a recursion looks at all rows at once.
        found = logarithmic_filter(first, self.transition, densities)
        last = weighted_log_sum(found.log_filtered[-1], self.transition)
        return Predicted(jnp.concatenate([found.log_predicted, last[None]]), found.loglik_terms)

    def after(
        self, log_predicted: Float[Array, " regimes"], row: Float[Array, " series"]
    ) -> Float[Array, " regimes"]:
        """The law of the next regime once a whole row is known."""
        densities = self.log_densities(Rows(row[None], jnp.ones_like(row)[None]))
        found = logarithmic_filter(log_predicted, self.transition, densities)
        return weighted_log_sum(found.log_filtered[0], self.transition)

    def moments(
        self, log_predicted: Float[Array, " regimes"]
    ) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
        """Mean and covariance of the mixture of the regimes with these probabilities."""
        return mixture_moments(
            jnp.exp(log_predicted), self.means, self.tails.cov_factor * self.scatters
        )


class RegimeAttention(eqx.Module):
    """Attention over regimes whose prior is their predicted probabilities q.

        w_k = q_k exp(keys_k' W h / sqrt(d)) / sum_j (same),   context = sum_k w_k values_k

    with embeddings of width d. `query` W starts at zero: w is then q.
    """

    keys: Float[Array, "regimes width"]
    values: Float[Array, "regimes width"]
    query: Float[Array, "width hidden"]

    def __init__(self, num_regimes: int, width: int, num_hidden: int, *, key: PRNGKeyArray):
        keys, values = jax.random.normal(key, (2, num_regimes, width))
        self.keys, self.values = keys, values
        self.query = jnp.zeros((width, num_hidden))

    def weights(
        self, hidden: Float[Array, " hidden"], log_predicted: Float[Array, " regimes"]
    ) -> Float[Array, " regimes"]:
        """w."""
        evidence = self.keys @ (self.query @ hidden) / self.keys.shape[1] ** 0.5
        return jax.nn.softmax(evidence + log_predicted)

    def __call__(
        self, hidden: Float[Array, " hidden"], log_predicted: Float[Array, " regimes"]
    ) -> Float[Array, " width"]:
        """The context."""
        return self.weights(hidden, log_predicted) @ self.values


def mixture_moments(
    weights: Float[Array, " regimes"],
    means: Float[Array, "regimes series"],
    covs: Float[Array, "regimes series series"],
) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
    """m = sum w_k mu_k and sum w_k [V_k + (mu_k - m)(mu_k - m)']."""
    mean = weights @ means
    gaps = means - mean
    return mean, jnp.einsum("k,kab->ab", weights, covs) + (weights[:, None] * gaps).T @ gaps


def row_distances(
    scatter: Float[Array, "series series"], rows: Rows
) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
    """y' S^{-1} y and ln |S| of the observed entries of every row.

    Rows that are whole (or empty) have one formula and rows with holes another, whatever the other
    rows are; that of holes costs O(N^3) a row and is computed if any row has some.
    """
    zero = jnp.zeros(scatter.shape[0], scatter.dtype)
    whole = jnp.max(rows.seen, axis=1) == jnp.min(rows.seen, axis=1)
    complete = complete_distances(zero, scatter, rows)
    partial = jax.lax.cond(
        jnp.all(whole),
        lambda scatter, rows: jax.tree.map(jnp.zeros_like, complete),
        lambda scatter, rows: masked_distances(zero, scatter, rows),
        scatter,
        rows,
    )
    distances, log_dets = (
        jnp.where(whole, first, second) for first, second in zip(complete, partial, strict=True)
    )
    return distances, log_dets
