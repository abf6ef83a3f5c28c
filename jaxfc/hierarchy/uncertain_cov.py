"""Reconciliation with an uncertain covariance: an inverse Wishart prior, updated by residuals."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.hierarchy.checks import check_nodes, sample_array
from jaxfc.hierarchy.error_cov import DenseCov, ErrorCov, StructuredCov
from jaxfc.hierarchy.labels import marked
from jaxfc.hierarchy.mapping import projection
from jaxfc.hierarchy.prior_size import leave_one_out, marginal_likelihood, most_likely
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.hierarchy.student import StudentForecast
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float

Criterion = Literal["leave_one_out", "marginal_likelihood"]


def reconcile_student(
    mean: Float[Array, "horizon nodes"],
    hierarchy: Hierarchy,
    residuals: Float[Array, "time nodes"] | np.ndarray | pd.DataFrame,
    *,
    prior_df: float | Array | Criterion = "leave_one_out",
    prior_cov: Float[Array, " nodes"] | Float[Array, "nodes nodes"] | None = None,
) -> StudentForecast:
    """The law of the nodes given that they add up, when the covariance of the errors is uncertain.

    Errors are N(0, W) given W, and W is inverse Wishart with nu degrees and scale
    Psi = (nu - n - 1) `prior_cov` before the T residuals e_t are seen. With nu' = nu + T and
    Psi' = Psi + sum_t e_t e_t' a base forecast y^ with incoherence d = C y^ becomes

        y~ = y^ - Psi' C' Q^-1 d,   Q = C Psi' C',   df = nu' - n_b + 1,
        scale = (1 + d' Q^-1 d) / df  (Psi' - Psi' C' Q^-1 C Psi')

    so the mean is that of MinT with W = Psi', tails are heavier the less is known, and the scale
    grows with the incoherence: base forecasts that contradict each other are trusted less.

    Each step is conditioned on its own incoherence with the same residuals (give those of its
    horizon, step by step, where errors grow); steps are uncorrelated and share the chi^2 of the
    law. Costs O(nodes^2 (L + aggregates)), and O(T^3) for the choice of `prior_df`.

    **Arguments:** `mean` in the order of `hierarchy.names`; `residuals` (dates, nodes) in the same
    units, complete. `prior_df` nu > nodes + 1: a number, or chosen from the residuals by the
    log density of each left-out date or by the marginal likelihood (then a constant in
    derivatives). `prior_cov`, the expected covariance: variances (nodes,) or a matrix; by default
    the mean squared residuals.

    **Raises:** `ValueError` for residuals with missing cells (the law of W is then no longer
    inverse Wishart), naming the nodes; nodes without any error; a prior without a mean; weights
    that differ from step to step.

    Source: Carrara et al. (2025), t-Rec of bayesRecon.
    """
    mean = jnp.asarray(mean)
    check_nodes(mean, hierarchy)
    errors = sample_array(residuals, hierarchy, "residuals")
    assert errors is not None
    check_errors(errors, hierarchy, needs_variance=prior_cov is None)
    if hierarchy.num_steps is not None:
        raise ValueError(
            "the weights differ from step to step: reconcile each step by hierarchy.step(index)."
        )
    if isinstance(prior_df, str):
        if prior_df not in ("leave_one_out", "marginal_likelihood"):
            raise ValueError(
                f"prior_df is a number, 'leave_one_out' or 'marginal_likelihood', got {prior_df!r}."
            )
        excess = None
    else:
        excess = jnp.asarray(prior_df, dtype=mean.dtype) - (len(hierarchy.names) + 1)
        if not isinstance(excess, Tracer) and not float(excess) > 0.0:
            raise ValueError(
                f"prior_df must exceed the number of nodes plus one, {len(hierarchy.names) + 1}, "
                f"for the covariance to have a mean; got {float(prior_df):g}."
            )
    prior = None if prior_cov is None else jnp.asarray(prior_cov)
    criterion = prior_df if isinstance(prior_df, str) else None
    return condition(mean, hierarchy.summing, errors, excess, criterion, prior)


@eqx.filter_jit
def condition(
    mean: Float[Array, "horizon nodes"],
    summing: Summing,
    errors: Float[Array, "time nodes"],
    excess: Float[Array, ""] | None,
    criterion: Criterion | None,
    prior: Array | None,
) -> StudentForecast:
    """The compiled part; `excess` is nu - n - 1."""
    num_times, num_nodes = errors.shape
    if prior is None:
        prior = jnp.mean(errors**2, axis=0)
    if excess is None:
        chosen = marginal_likelihood if criterion == "marginal_likelihood" else leave_one_out
        excess = most_likely(chosen, *jax.lax.stop_gradient((errors, prior)))
    cov = posterior_scale(excess, prior, errors)
    gaps = summing.incoherence(mean.T)
    mapped = projection(summing, cov)
    distances = jnp.sum(gaps * mapped.multipliers(gaps), axis=0)
    df = excess + num_nodes + 1 + num_times - summing.num_bottom + 1.0
    half = mapped.apply(cov.dense())
    nodes = mapped.apply(half.T)
    return StudentForecast(
        mean=mapped.apply(mean.T).T,
        step_scale=jnp.diag((1.0 + distances) / df),
        node_scale=0.5 * (nodes + nodes.T),
        df=df,
    )


def posterior_scale(
    excess: Float[Array, ""], prior: Array, errors: Float[Array, "time nodes"]
) -> ErrorCov:
    """Psi' = excess * prior + E' E."""
    if prior.ndim == 1:
        return StructuredCov(excess * prior, errors.T)
    return DenseCov(excess * prior + errors.T @ errors)


def check_errors(errors: Array, hierarchy: Hierarchy, *, needs_variance: bool) -> None:
    """Refuses residuals that are not complete, and nodes without errors."""
    if isinstance(errors, Tracer):
        return
    host = np.asarray(errors)
    if host.shape[0] == 0:
        raise ValueError("residuals have no dates; one is needed, more than the nodes are better.")
    bad = ~np.all(np.isfinite(host), axis=0)
    if np.any(bad):
        raise ValueError(
            f"residuals of {marked(hierarchy.names, bad)} are missing or infinite at some "
            f"dates; give the dates at which all nodes have one (residuals.dropna()), or use "
            f"MinT('shrink'), which takes missing ones."
        )
    still = ~np.any(host != 0.0, axis=0)
    if needs_variance and np.any(still):
        raise ValueError(
            f"residuals of {marked(hierarchy.names, still)} are all zero; drop these nodes or "
            f"give prior_cov."
        )
