"""Is the model adequate: variance explained, prediction errors, outliers, what stays correlated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc

from jaxfc.factors.condition import check_fitted_panel
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.residual_tests import ResidualTests, tests_of
from jaxfc.state_space import TimeVarying
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.aggregation import AggregationRows, aggregate

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class RSquared(eqx.Module):
    """Shares of each series' variance, (series, factors).

    `individual`: by factor k alone; `cumulative`: by factors 1..k together; `marginal`: what factor
    k adds to those before it, i.e. its part that is orthogonal to them. Marginal shares sum to the
    last cumulative one.
    """

    individual: Float[Array, "series factors"]
    marginal: Float[Array, "series factors"]
    cumulative: Float[Array, "series factors"]

    def to_frame(self, names: Sequence[str], which: str = "marginal") -> "pd.DataFrame":
        """One row a series, one column a factor, of one of the three."""
        import pandas as pd

        shares = np.asarray(getattr(self, which))
        columns = [f"factor {k + 1}" for k in range(shares.shape[1])]
        return pd.DataFrame(shares, list(names), columns)


def r_squared(fitted: FittedFactorModel, panel: "Panel") -> RSquared:
    """R^2 of every series on the smoothed factors, over its observed cells.

        x_it = a_i + b_i1 f_1t + ... + b_ik f_kt + residual,     k = 1..K

    in the order of the factors, by one Cholesky factor for each series (K + 1 rows). Aggregates are
    regressed on the factors aggregated alike. The factors have seen the series, so these are
    measures of fit; a series with AR(1) errors or one that has a factor of its own is near 1.

    **Raises:** `ValueError` if `panel` is not the one that was fitted.

    Source: McCracken and Ng (2016), section 3 (marginal R^2).
    """
    check_fitted_panel(fitted, panel)
    values, observed = panel.arrays()
    return jitted_r_squared(values, observed, fitted.factors, panel.aggregation)


@eqx.filter_jit
def jitted_r_squared(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    factors: Float[Array, "time factors"],
    aggregation: AggregationRows | None,
) -> RSquared:
    """`r_squared` on arrays: pure."""
    num_factors = factors.shape[1]

    def of_one(x: Array, seen: Array, group: Array) -> tuple[Array, Array]:
        regressors = factors
        if aggregation is not None:
            alike = aggregation._replace(group=jnp.full(num_factors, group))
            regressors = aggregate(alike, factors)
        both = jnp.concatenate([regressors, jnp.where(seen, x, 0.0)[:, None]], axis=1)
        both = seen[:, None] * (both - seen.astype(x.dtype) @ both / jnp.sum(seen))
        moments = both.T @ both
        total = moments[-1, -1]
        alone = moments[-1, :-1] ** 2 / (jnp.diagonal(moments)[:-1] * total)
        # Row K of the Cholesky factor of the regressors: the series on orthogonalised factors.
        chol = jnp.linalg.cholesky(moments[:-1, :-1])
        projections = jax.scipy.linalg.solve_triangular(chol, moments[:-1, -1], lower=True)
        return alone, projections**2 / total

    group = jnp.zeros(values.shape[1], int)
    if aggregation is not None:
        group = jnp.asarray(aggregation.group)
    individual, marginal = jax.vmap(of_one, in_axes=(1, 1, 0))(values, observed, group)
    return RSquared(individual, marginal, jnp.cumsum(marginal, axis=1))


class PredictionErrors(eqx.Module):
    """One-step prediction errors x_it - E[x_it | rows before t], (time, series).

    `standardised` errors are divided by their standard deviation `std` (data units) and are zero
    where not `observed`; `predicted` is the prediction in data units. Under the model each series'
    standardised errors are independent N(0, 1).
    """

    standardised: Float[Array, "time series"]
    predicted: Float[Array, "time series"]
    std: Float[Array, "time series"]
    observed: Bool[Array, "time series"]

    def to_frame(self, panel: "Panel") -> "pd.DataFrame":
        """Standardised errors, dates x series, NaN where not observed."""
        import pandas as pd

        errors = np.where(np.asarray(self.observed), np.asarray(self.standardised), np.nan)
        return pd.DataFrame(errors, index=panel.index, columns=list(panel.names))


def standardised_errors(fitted: FittedFactorModel, panel: "Panel") -> PredictionErrors:
    """Standardised one-step prediction errors of every observed cell, in data units before scaling.

        z_it = (x_it - c_i - d_i' a_t) / sqrt(d_i' P_t d_i + H_ii)

    with a_t, P_t the predicted state of `fitted.state_space()`. Each series is scaled by itself, so
    errors of one row may be correlated. The panel may be another than the fitted one.

    **Raises:** `ValueError` for another number of series, and for low-frequency flows, whose
    observations are not values of their row.

    Source: Durbin and Koopman (2012), section 7.5.
    """
    num_series = fitted.parameters.loadings.shape[0]
    if panel.num_series != num_series:
        raise ValueError(f"the panel has {panel.num_series} series, the fitted model {num_series}.")
    if panel.aggregation is not None:
        kinds = zip(panel.names, panel.kinds, strict=True)
        flows = [name for name, kind in kinds if kind != "stock"]
        raise ValueError(
            f"series {', '.join(map(repr, flows[:5]))} are flows over several rows, which have no "
            "one-step prediction error at the panel's frequency; test the stocks alone, with "
            "the model fitted to panel.select([...])."
        )
    return jitted_errors(fitted, *panel.arrays())


@eqx.filter_jit
def jitted_errors(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
) -> PredictionErrors:
    """`standardised_errors` on arrays: pure."""
    space = fitted.state_space()
    # Errors with memory are states; then nothing is left of the observation covariance.
    has_memory = fitted.parameters.idiosyncratic_ar is not None
    how = "univariate" if has_memory else "joint"
    filtered = space.filter(values, observed, implementation=how)
    design, offset, noise = (
        field.values if isinstance(field, TimeVarying) else field
        for field in (space.design, space.observation_offset, space.observation_cov)
    )
    if noise.shape[-1:] == noise.shape[-2:-1]:
        noise = jnp.diagonal(noise, axis1=-2, axis2=-1)
    spread = jnp.einsum("...is,tsr,...ir->ti", design, filtered.predicted_covs, design)
    predicted = offset + jnp.einsum("...is,ts->ti", design, filtered.predicted_means)
    std = jnp.sqrt(spread + noise)
    return PredictionErrors(filtered.prediction_errors / std, predicted, std, observed)


def residual_tests(
    errors: PredictionErrors, *, num_lags: int = 12, num_arch_lags: int = 4, num_parameters: int = 0
) -> ResidualTests:
    """Tests of the standardised prediction errors of every series; missing cells are left out.

    Ljung-Box on `num_lags` autocorrelations (degrees of freedom less `num_parameters`),
    Jarque-Bera, ARCH-LM on `num_arch_lags` lags, and the ratio H of the last third's to the first
    third's sum of squares. Degrees of freedom are in the answer; series with too few data get NaN.

    **Raises:** `ValueError` for a number of lags below 1 or not below the number of rows, or
    `num_parameters` not between 0 and `num_lags` - 1.

    Source: see each test in `jaxfc.factors.residual_tests`.
    """
    num_times = errors.standardised.shape[0]
    for name, lags in (("num_lags", num_lags), ("num_arch_lags", num_arch_lags)):
        if not 1 <= lags < num_times - 1:
            raise ValueError(f"{name} must be from 1 to {num_times - 2} (rows less 2), got {lags}.")
    if not 0 <= num_parameters < num_lags:
        raise ValueError(
            f"num_parameters must be from 0 to {num_lags - 1} (lags less 1), got {num_parameters}."
        )
    mask = errors.observed.astype(errors.standardised.dtype)
    return jitted_tests(errors.standardised, mask, num_lags, num_arch_lags, num_parameters)


jitted_tests = eqx.filter_jit(tests_of)


def outliers(errors: PredictionErrors, panel: "Panel", *, threshold: float = 4.0) -> "pd.DataFrame":
    """Cells whose prediction error exceeds `threshold` standard deviations, the largest first.

    **Returns:** a frame with the columns series, date, value, predicted (data units) and
    standardised.

    **Raises:** `ValueError` unless the panel is that of the errors and the threshold positive.
    """
    import pandas as pd

    if panel.observed.shape != errors.observed.shape:
        raise ValueError(
            f"the panel {panel.observed.shape} is not that of the errors {errors.observed.shape}."
        )
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}.")
    standardised = np.asarray(errors.standardised)
    rows, columns = np.nonzero(np.abs(standardised) > threshold)
    order = np.argsort(-np.abs(standardised[rows, columns]), kind="stable")
    rows, columns = rows[order], columns[order]
    return pd.DataFrame(
        {
            "series": [panel.names[i] for i in columns],
            "date": panel.index[rows],
            "value": panel.values[rows, columns],
            "predicted": np.asarray(errors.predicted)[rows, columns],
            "standardised": standardised[rows, columns],
        }
    )


class ResidualCorr(eqx.Module):
    """Correlations of residuals over the cells both series have, and the number of these."""

    corr: Float[Array, "series series"]
    num_pairs: Float[Array, "series series"]

    def largest(self, names: Sequence[str], num_pairs: int = 20) -> "pd.DataFrame":
        """The `num_pairs` pairs of series with the largest absolute correlation.

        `p_value` is that of a Student t test of zero correlation, for one pair chosen beforehand.
        """
        import pandas as pd

        corr, counts = np.asarray(self.corr), np.asarray(self.num_pairs)
        first, second = np.triu_indices(len(corr), 1)
        size = np.nan_to_num(np.abs(corr[first, second]), nan=-1.0)
        order = np.argsort(-size, kind="stable")[:num_pairs]
        first, second = first[order], second[order]
        r, count = corr[first, second], counts[first, second]
        p_value = betainc(jnp.asarray((count - 2.0) / 2.0), 0.5, jnp.asarray(1.0 - r**2))
        return pd.DataFrame(
            {
                "first": [names[i] for i in first],
                "second": [names[i] for i in second],
                "corr": r,
                "num_observed": count.astype(int),
                "p_value": np.asarray(p_value),
            }
        )


def residual_corr(fitted: FittedFactorModel, panel: "Panel") -> ResidualCorr:
    """Correlations across series of what the smoothed factors leave unexplained.

    Large pairs say where a block or another factor is missing: the model takes the errors of
    different series for independent. NaN for pairs that share fewer than three cells. Errors with
    memory are correlated over time, which makes large values by chance more likely.

    **Raises:** `ValueError` if `panel` is not the one that was fitted, and for low-frequency flows.
    """
    check_fitted_panel(fitted, panel)
    if panel.aggregation is not None:
        raise ValueError(
            "residuals of low-frequency flows are not values of their row; select the stocks."
        )
    return jitted_residual_corr(fitted, *panel.arrays())


@eqx.filter_jit
def jitted_residual_corr(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
) -> ResidualCorr:
    """`residual_corr` on arrays: pure. Pairs are centred over the cells that they share."""
    mask = observed.astype(values.dtype)
    errors = jnp.where(observed, (values - fitted.common) / fitted.scaling.scale, 0.0)
    counts = mask.T @ mask
    divisor = jnp.maximum(counts, 1.0)
    sums, squares, products = errors.T @ mask, (errors**2).T @ mask, errors.T @ errors
    cov = products - sums * sums.T / divisor
    variance = squares - sums**2 / divisor  # of the row's series over the cells shared
    corr = cov / jnp.sqrt(variance * variance.T)
    return ResidualCorr(jnp.where(counts >= 3, corr, jnp.nan), counts)
