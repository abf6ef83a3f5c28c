"""Tests of residuals, series by series, with cells missing: said with their degrees of freedom.

All are pure functions of one (time,) series of residuals and its mask; on complete series they are
the textbook statistics.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammaincc

from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    import pandas as pd


class Statistic(eqx.Module):
    """A test statistic, its degrees of freedom and p-value, by series; NaN with too few data.

    `denominator_dof` is there for F statistics only; the others are chi-squared.
    """

    value: Float[Array, "*series"]
    dof: Float[Array, "*series"]
    p_value: Float[Array, "*series"]
    denominator_dof: Float[Array, "*series"] | None = None


class ResidualTests(eqx.Module):
    """Tests by series: no autocorrelation, normal, no ARCH effects, constant variance."""

    ljung_box: Statistic
    jarque_bera: Statistic
    arch: Statistic
    heteroscedasticity: Statistic
    num_observed: Float[Array, " series"]

    def to_frame(self, names: Sequence[str]) -> "pd.DataFrame":
        """One row a series; columns (test, value / dof / denominator_dof / p_value)."""
        import pandas as pd

        columns = {("", "num_observed"): np.asarray(self.num_observed)}
        for test in ("ljung_box", "jarque_bera", "arch", "heteroscedasticity"):
            statistic = getattr(self, test)
            for field in ("value", "dof", "denominator_dof", "p_value"):
                if getattr(statistic, field) is not None:
                    columns[test, field] = np.asarray(getattr(statistic, field))
        frame = pd.DataFrame(columns, index=list(names))
        frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["test", "statistic"])
        return frame


def tests_of(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    num_lags: int,
    num_arch_lags: int,
    num_parameters: int,
) -> ResidualTests:
    """All tests for every series; pure."""

    def of_one(z: Array, mask: Array) -> ResidualTests:
        return ResidualTests(
            ljung_box(z, mask, num_lags, num_parameters),
            jarque_bera(z, mask),
            arch_lm(z, mask, num_arch_lags),
            heteroscedasticity(z, mask),
            jnp.sum(mask)[None],
        )

    tests = jax.vmap(of_one, in_axes=1)(values, observed)
    return eqx.tree_at(lambda t: t.num_observed, tests, tests.num_observed[:, 0])


def chi_squared(value: Array, dof: Array, valid: Array) -> Statistic:
    """A chi-squared statistic, NaN where not `valid`."""
    valid = valid & (dof > 0)
    value = jnp.where(valid, value, jnp.nan)
    p_value = gammaincc(jnp.maximum(dof, 1.0) / 2.0, jnp.where(valid, value, 0.0) / 2.0)
    return Statistic(value, dof, jnp.where(valid, p_value, jnp.nan))


def centred(values: Float[Array, " time"], observed: Float[Array, " time"]) -> tuple[Array, Array]:
    """Deviations from the mean, zero where not observed, and the number of observations."""
    count = jnp.sum(observed)
    mean = jnp.sum(observed * values) / jnp.maximum(count, 1.0)
    return jnp.where(observed > 0, values - mean, 0.0), count


def ljung_box(
    values: Float[Array, " time"],
    observed: Float[Array, " time"],
    num_lags: int,
    num_parameters: int = 0,
) -> Statistic:
    """Q = (n + 2) / n sum_k n_k (c_k / c_0)^2 ~ chi^2, c_k the mean of the n_k pairs k rows apart.

    On a complete series n_k = n - k, which is Ljung and Box (1978). Degrees of freedom: the lags
    that have pairs, less `num_parameters` (those of an ARMA model fitted to the series).

    Source: Ljung and Box (1978); Stoffer and Toloi (1992) for missing values.
    """
    deviations, count = centred(values, observed)
    variance = jnp.sum(deviations**2) / jnp.maximum(count, 1.0)
    total, lags_with_pairs = jnp.zeros((), values.dtype), jnp.zeros((), values.dtype)
    for lag in range(1, num_lags + 1):
        pairs = jnp.sum(observed[lag:] * observed[:-lag])
        cov = jnp.sum(deviations[lag:] * deviations[:-lag]) / jnp.maximum(pairs, 1.0)
        total = total + pairs * (cov / variance) ** 2
        lags_with_pairs = lags_with_pairs + (pairs > 0)
    dof = lags_with_pairs - num_parameters
    return chi_squared((count + 2.0) / count * total, dof, count > num_lags)


def jarque_bera(values: Float[Array, " time"], observed: Float[Array, " time"]) -> Statistic:
    """n / 6 (skewness^2 + (kurtosis - 3)^2 / 4) ~ chi^2(2) over the observed cells.

    Source: Jarque and Bera (1987).
    """
    deviations, count = centred(values, observed)
    second, third, fourth = (jnp.sum(deviations**k) / count for k in (2, 3, 4))
    skewness, kurtosis = third / second**1.5, fourth / second**2
    value = count / 6.0 * (skewness**2 + (kurtosis - 3.0) ** 2 / 4.0)
    return chi_squared(value, jnp.full_like(value, 2.0), count > 3)


def arch_lm(
    values: Float[Array, " time"], observed: Float[Array, " time"], num_lags: int
) -> Statistic:
    """n R^2 ~ chi^2(lags) of z_t^2 on a constant and its lags, over the n rows that have them all.

    Source: Engle (1982).
    """
    num_times = values.shape[0]
    squares = values**2
    windows = [slice(num_lags - lag, num_times - lag) for lag in range(num_lags + 1)]
    complete = jnp.prod(jnp.stack([observed[window] for window in windows]), axis=0)
    stacked = jnp.stack([jnp.where(complete > 0, squares[window], 0.0) for window in windows])
    count = jnp.sum(complete)
    means = jnp.sum(stacked, axis=1, keepdims=True) / jnp.maximum(count, 1.0)
    deviations = complete * (stacked - means)
    moments = deviations @ deviations.T
    enough = count > num_lags + 1
    regressors = jnp.where(enough, moments[1:, 1:], jnp.eye(num_lags, dtype=values.dtype))
    explained = moments[0, 1:] @ jnp.linalg.solve(regressors, moments[1:, 0])
    value = count * explained / moments[0, 0]
    return chi_squared(value, jnp.full_like(value, float(num_lags)), enough)


def heteroscedasticity(values: Float[Array, " time"], observed: Float[Array, " time"]) -> Statistic:
    """H = sum of the last h squared residuals over that of the first h ~ F(h, h), two-sided.

    h is a third of the observations of the series, so a late start or a gap moves the thirds.

    Source: Harvey (1989), section 5.4; Durbin and Koopman (2012), section 2.12.
    """
    place, count = jnp.cumsum(observed), jnp.sum(observed)
    third = jnp.round(count / 3.0)
    squares = jnp.where(observed > 0, values, 0.0) ** 2
    early = jnp.sum(jnp.where(place <= third, squares, 0.0))
    late = jnp.sum(jnp.where(place > count - third, squares, 0.0))
    enough = third >= 2
    ratio = jnp.where(enough, late / early, 1.0)
    half = jnp.maximum(third, 1.0) / 2.0
    upper = betainc(half, half, 1.0 / (1.0 + ratio))
    p_value = 2.0 * jnp.minimum(upper, 1.0 - upper)
    p_value = jnp.where(enough, p_value, jnp.nan)
    return Statistic(jnp.where(enough, ratio, jnp.nan), third, p_value, third)
