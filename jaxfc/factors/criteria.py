"""How many factors: criteria that look at the eigenvalues of the panel's covariance only.

With l_1 >= l_2 >= ... the eigenvalues of the N x N covariance of the (standardised) panel, every
criterion for every K = 1..Kmax is a function of them, so one eigendecomposition serves all.
"""

from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import pairwise_cov
from jaxfc.factors.scaling import fit_scaling
from jaxfc.typing import Array, Bool, Float, Int

if TYPE_CHECKING:
    import pandas as pd

Residual = Literal["ppca", "pca"]
FactorCriterion = Literal[
    "modified", "pc1", "pc2", "pc3", "ic1", "ic2", "ic3", "eigenvalue_ratio", "growth_ratio"
]
MAXIMISED = ("eigenvalue_ratio", "growth_ratio")


class FactorCriteria(eqx.Module):
    """Criteria by number of factors, entry K - 1 for K = 1..Kmax.

    `modified`, `pc1`..`pc3` and `ic1`..`ic3` are smallest at the number they select,
    `eigenvalue_ratio` and `growth_ratio` largest.
    """

    modified: Float[Array, " factors"]
    pc1: Float[Array, " factors"]
    pc2: Float[Array, " factors"]
    pc3: Float[Array, " factors"]
    ic1: Float[Array, " factors"]
    ic2: Float[Array, " factors"]
    ic3: Float[Array, " factors"]
    eigenvalue_ratio: Float[Array, " factors"]
    growth_ratio: Float[Array, " factors"]

    def to_frame(self) -> "pd.DataFrame":
        """One row for each number of factors, one column for each criterion (host side)."""
        import pandas as pd

        columns = {name: np.asarray(getattr(self, name)) for name in CRITERIA}
        return pd.DataFrame(columns, index=pd.RangeIndex(1, self.pc1.size + 1, name="num_factors"))

    def selected(self, criterion: FactorCriterion) -> Int[Array, ""]:
        """The number of factors that a criterion selects; 0 if it is nowhere finite."""
        check_criterion(criterion)
        return best(criterion, getattr(self, criterion)) + 1


CRITERIA = tuple(FactorCriteria.__dataclass_fields__)


def check_criterion(criterion: str) -> None:
    """Raise `ValueError` if there is no such criterion."""
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion {criterion!r}; use one of {', '.join(CRITERIA)}.")


def best(criterion: FactorCriterion, values: Float[Array, " factors"]) -> Int[Array, ""]:
    """Position of the best value of a criterion among the finite ones, -1 if there are none."""
    signed = values if criterion in MAXIMISED else -values
    finite = jnp.isfinite(signed)
    return jnp.where(jnp.any(finite), jnp.argmax(jnp.where(finite, signed, -jnp.inf)), -1)


def factor_criteria(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    max_factors: int,
    *,
    multiplier: Float[Array, ""] | float | None = None,
    residual: Residual = "ppca",
    standardise: bool = True,
) -> FactorCriteria:
    """All criteria for K = 1..`max_factors` from one eigendecomposition; for `jit` and `vmap`.

        V(K) = sum_{k>K} l_k / N,            v(K) = sum_{k>K} l_k / (N - K),      m = min(N, T)
        PC_j(K) = V(K) + K V(Kmax) g_j,      IC_j(K) = ln V(K) + K g_j
        g_1 = (N + T) / (N T) ln(N T / (N + T)),   g_2 = (N + T) / (N T) ln m,   g_3 = ln m / m
        modified(K) = V_r(K) + K s^2 g_2,    s^2 = multiplier (v(1) - v(Kmax))
        ER(K) = l_K / l_{K+1},               GR(K) = ln(V(K-1) / V(K)) / ln(V(K) / V(K+1))

    V_r is v, the residual variance of probabilistic principal components, for `residual="ppca"` and
    V for "pca". `multiplier` scales the penalty; the default 1 / (Kmax - 1) makes it the slope of
    the line through v(1) and v(Kmax). Too small a multiplier does less harm than too large a one.

    The covariance of an incomplete panel is the pairwise one (each entry over the times at which
    both series are observed), which need not be definite: what it adds to the small eigenvalues
    makes all but the two ratios select too many factors (`select_model` rebuilds the panel
    instead), and a ratio or logarithm of a value below zero is NaN and is not selected. Series are
    centred, and put on unit variance if `standardise`.

    **Raises:** `ValueError` unless 2 <= `max_factors` <= N - 2, or for an unknown `residual`.

    Source: Bai and Ng (2002), section 5; Ahn and Horenstein (2013), section 2; Defend et al.
    (2021), equations 16 to 19.
    """
    check_sizes(max_factors, values.shape[1], residual)
    mask = observed.astype(values.dtype)
    scaling = fit_scaling(values, mask, None, standardise)
    eigenvalues = eigenvalues_of(scaling.standardise(values, mask, None), mask)
    # The same panel whatever K: row K - 1 of the eigenvalues by K is always the same.
    by_number = jnp.broadcast_to(eigenvalues, (max_factors, eigenvalues.size))
    return criteria_from(by_number, values.shape[0], multiplier, residual)


def check_sizes(max_factors: int, num_series: int, residual: str) -> None:
    """Raise `ValueError` if the criteria are not defined for these sizes."""
    if not 2 <= max_factors <= num_series - 2:
        raise ValueError(
            f"max_factors must be from 2 to {num_series - 2} (the number of series less 2), got "
            f"{max_factors}."
        )
    if residual not in ("ppca", "pca"):
        raise ValueError(f"unknown residual {residual!r}; use 'ppca' or 'pca'.")


def eigenvalues_of(
    values: Float[Array, "time series"], observed: Float[Array, "time series"]
) -> Float[Array, " series"]:
    """Eigenvalues of the pairwise covariance of a centred panel, descending."""
    return jnp.linalg.eigvalsh(pairwise_cov(values, observed))[::-1]


def criteria_from(
    eigenvalues: Float[Array, "factors series"],
    num_times: int,
    multiplier: Float[Array, ""] | float | None,
    residual: Residual,
) -> FactorCriteria:
    """The criteria, where row K - 1 holds the eigenvalues of the panel as seen with K factors.

    The rows differ for panels that were completed by a model with K factors.
    """
    max_factors, num_series = eigenvalues.shape
    if multiplier is None:
        multiplier = 1.0 / (max_factors - 1)
    numbers = np.arange(1, max_factors + 1)
    # remaining[K - 1, k] = sum of the eigenvalues after the k-th, seen with K factors; summed from
    # the smallest on, as a difference from the trace would lose the digits of a small rest.
    remaining = jnp.cumsum(eigenvalues[:, ::-1], axis=1)[:, ::-1]
    rows = np.arange(max_factors)
    before, at, after = (remaining[rows, numbers + shift] for shift in (-1, 0, 1))
    pca, ppca = at / num_series, at / (num_series - numbers)
    smaller = min(num_series, num_times)
    rate = (num_series + num_times) / (num_series * num_times)
    penalties = (
        -rate * np.log(rate),
        rate * np.log(smaller),
        np.log(smaller) / smaller,
    )
    pc = [pca + numbers * pca[-1] * penalty for penalty in penalties]
    ic = [jnp.log(pca) + numbers * penalty for penalty in penalties]
    slope = multiplier * (ppca[0] - ppca[-1])
    fit = ppca if residual == "ppca" else pca
    return FactorCriteria(
        modified=fit + numbers * slope * penalties[1],
        pc1=pc[0],
        pc2=pc[1],
        pc3=pc[2],
        ic1=ic[0],
        ic2=ic[1],
        ic3=ic[2],
        eigenvalue_ratio=eigenvalues[rows, numbers - 1] / positive(eigenvalues[rows, numbers]),
        growth_ratio=jnp.log(before / at) / jnp.log(at / after),
    )


def positive(eigenvalues: Float[Array, " factors"]) -> Float[Array, " factors"]:
    """NaN where not positive: a ratio to such an eigenvalue says nothing."""
    return jnp.where(eigenvalues > 0, eigenvalues, jnp.nan)
