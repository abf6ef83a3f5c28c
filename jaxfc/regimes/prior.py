"""Priors that keep regimes from collapsing, said as rows that were seen before the sample."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float, as_scalar

# Share of the prior scatter that is diagonal, so that it is regular for any number of series.
DIAGONAL_SHARE = 0.1


class Prior(eqx.Module):
    """Normal-inverse-Wishart and Dirichlet priors, by their strength in rows.

    With c = `cov_strength`, k = `mean_strength`, the pooled mean m_0 and prior scatter S_0:

        ln p(mu, S) = -1/2 [c (ln |S| + tr S_0 S^{-1}) + k (mu - m_0)' S^{-1} (mu - m_0)]
        ln p(P) = sum_ij (concentration + [i = j] stickiness) ln P_ij

    up to constants: mu and S are normal-inverse-Wishart, rows of P Dirichlet, the law of the first
    state Dirichlet with `concentration`. S_0 is that of all rows over K^{2 / N} (what is left to a
    regime of a sample cut in K equal parts), one tenth of it put on the diagonal. `cov_strength`
    None is N + 2 for full covariances and 4 for the others. All zero: maximum likelihood.

    Source: Fraley and Raftery (2007); `stickiness` as in Fox et al. (2011).

    **Raises:** `ValueError` for negative strengths.
    """

    mean_strength: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.01)
    cov_strength: Float[Array, ""] | None = eqx.field(
        converter=lambda x: None if x is None else as_scalar(x), default=None
    )
    concentration: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.5)
    stickiness: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)

    def __check_init__(self):
        for name in ("mean_strength", "cov_strength", "concentration", "stickiness"):
            value = getattr(self, name)
            if isinstance(value, jnp.ndarray) and eqx.is_array(value):
                try:
                    negative = float(value) < 0
                except TypeError:  # traced: a value to be chosen inside a program
                    continue
                if negative:
                    raise ValueError(f"{name} counts rows and must not be negative, got {value}.")


def no_prior() -> Prior:
    """Maximum likelihood: a regime may collapse on a few rows, which `result` then tells."""
    return Prior(mean_strength=0.0, cov_strength=0.0, concentration=0.0, stickiness=0.0)


class PriorMoments(NamedTuple):
    """What a regime's update needs: m_0 (series,), S_0 (series, series) and the strengths."""

    mean: Float[Array, " series"]
    scatter: Float[Array, "series series"]
    mean_strength: Float[Array, ""]
    cov_strength: Float[Array, ""] | None


def pooled_moments(
    values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> tuple[Float[Array, " series"], Float[Array, "series series"]]:
    """Mean and a positive semidefinite covariance of all rows.

    S_ij = sum_t z_it z_jt / sqrt(n_i n_j) over the rows that have both: the sample covariance where
    nothing is missing, else with correlations drawn towards zero.
    """
    counts = jnp.maximum(jnp.sum(observed, axis=0), 1)
    mean = jnp.sum(jnp.where(observed, values, 0.0), axis=0) / counts
    scaled = jnp.where(observed, values - mean, 0.0) / jnp.sqrt(counts)
    return mean, scaled.T @ scaled


def prior_moments(prior: Prior, mean: Array, scatter: Array, num_regimes: int) -> PriorMoments:
    """The prior of every regime, from the moments of all rows."""
    own = jnp.diag(jnp.diagonal(scatter))
    regular = (1.0 - DIAGONAL_SHARE) * scatter + DIAGONAL_SHARE * own
    strength = prior.cov_strength
    return PriorMoments(
        mean=mean,
        scatter=regular * num_regimes ** (-2.0 / mean.size),
        mean_strength=prior.mean_strength.astype(mean.dtype),
        cov_strength=None if strength is None else strength.astype(mean.dtype),
    )
