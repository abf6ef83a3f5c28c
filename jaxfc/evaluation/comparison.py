"""Equal predictive ability of two forecasts: Diebold and Mariano, Giacomini and White.

Losses are case by case, in the order of time, NaN where a case is missing; differences are those
of a model to its benchmark, so that negative means the benchmark loses more. Pure functions:
`jax.vmap` runs Giacomini and White over pairs of models or simulated paths.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from jaxfc.hypothesis import chi_squared_tail, student_two_sided
from jaxfc.typing import Array, Bool, Float

Losses = Float[Array, "cases *rest"] | Float[np.ndarray, "cases *rest"]
Series = Float[Array, " cases"] | Float[np.ndarray, " cases"]
Columns = Float[Array, "cases columns"] | Float[np.ndarray, "cases columns"]
LagKernel = Literal["bartlett", "rectangular"]


class EqualAbility(eqx.Module):
    """Diebold and Mariano's statistic of the mean loss difference, and its p-values.

    `p_value` is against different means, `p_better` against a model that loses less than the
    benchmark, `p_worse` against one that loses more. `degrees` of Student's law are infinite for
    the normal law.
    """

    statistic: Float[Array, "*rest"]
    p_value: Float[Array, "*rest"]
    p_better: Float[Array, "*rest"]
    p_worse: Float[Array, "*rest"]
    mean_difference: Float[Array, "*rest"]
    degrees: Float[Array, "*rest"]
    num_cases: Float[Array, "*rest"]


class ConditionalAbility(eqx.Module):
    """Giacomini and White's statistic, chi-squared with `degrees` (the number of instruments).

    `coefficients` are those of the loss difference on the instruments; `benchmark_share` is the
    share of cases for which they predict a larger loss of the model, so that the decision rule
    takes the benchmark. The model is the choice in the share of all others.
    """

    statistic: Float[Array, ""]
    p_value: Float[Array, ""]
    coefficients: Float[Array, " instruments"]
    benchmark_share: Float[Array, ""]
    num_cases: Float[Array, ""]
    degrees: int = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)


def automatic_lags(num_cases: int) -> int:
    """floor(4 (n / 100)^{2/9}) lags for the Bartlett kernel (Newey and West 1994)."""
    return int(4.0 * (num_cases / 100.0) ** (2.0 / 9.0))


def long_run_cov(
    series: Columns, *, kernel: LagKernel = "bartlett", num_lags: int | None = None
) -> Float[Array, "columns columns"]:
    """Covariance of the mean, times the cases, of series that have mean zero and a memory.

        Gamma_0 + sum_{j=1}^{L} w_j (Gamma_j + Gamma_j'),  Gamma_j = (1/n) sum_t z_t z_{t-j}'

    with w_j = 1 - j / (L + 1) (Bartlett: Newey and West 1987, never indefinite) or w_j = 1
    (rectangular: Hansen 1982, may be indefinite). Columns are taken as they are: subtract a mean
    first where there is one. A row with a NaN is not counted and its products are left out, the
    others keep their distance in time. Costs n L products of rows.

    **Arguments:** `num_lags` L; by default `automatic_lags` for Bartlett, none for rectangular.

    **Raises:** `ValueError` for an unknown kernel or a number of lags outside 0..n-1.
    """
    series = jnp.asarray(series)
    weights = lag_weights(series.shape[0], kernel, num_lags)
    counted = jnp.all(jnp.isfinite(series), axis=1)
    rows = jnp.where(counted[:, None], series, 0.0)
    return weighted_lags(rows, weights) / jnp.sum(counted)


def diebold_mariano(
    losses: Losses,
    benchmark_losses: Losses,
    *,
    horizon: int = 1,
    kernel: LagKernel = "rectangular",
    num_lags: int | None = None,
    small_sample: bool = True,
) -> EqualAbility:
    """Statistic of equal mean losses (Diebold and Mariano 1995), every column by itself.

        DM = dbar / sqrt(V / n),  V = long-run variance of d,  d = losses - benchmark losses
        times sqrt((n + 1 - 2h + h (h - 1) / n) / n) and Student with n - 1 degrees

    where `small_sample` (Harvey, Leybourne and Newbold 1997); else the normal
    law. The rectangular kernel with h - 1 lags is theirs; its variance may come out negative for
    h > 1, which makes the statistic NaN: take kernel="bartlett" then. Without a variance (equal
    losses, fewer than 2 cases) it is NaN. Models whose forecasts nest each other as the window
    grows have another law; those of rolling windows do not (Giacomini and White 2006).

    **Arguments:** `horizon` h: cases until the outcome is known. `num_lags`: by default h - 1,
    for Bartlett at least `automatic_lags`.

    **Raises:** `ValueError` for a horizon below 1 or not below the number of cases.
    """
    differences = jnp.asarray(losses) - jnp.asarray(benchmark_losses)
    num_rows = differences.shape[0]
    check_horizon(horizon, num_rows)
    if num_lags is None:
        smooth = min(automatic_lags(num_rows), num_rows - 1) if kernel == "bartlett" else 0
        num_lags = max(horizon - 1, smooth)
    weights = lag_weights(num_rows, kernel, num_lags)
    counted = jnp.isfinite(differences)
    count = jnp.sum(counted, axis=0).astype(differences.dtype)
    differences = jnp.where(counted, differences, 0.0)
    mean = jnp.sum(differences, axis=0) / count
    centred = jnp.where(counted, differences - mean, 0.0)
    variance = jnp.sum(centred**2, axis=0)
    for lag, weight in enumerate(weights, start=1):
        variance = variance + 2.0 * weight * jnp.sum(centred[lag:] * centred[:-lag], axis=0)
    # Equal differences leave the rounding of their mean, which is no variance.
    noise = (10.0 * jnp.finfo(mean.dtype).eps * jnp.abs(mean)) ** 2 * count
    positive = variance > noise
    statistic = mean * count / jnp.sqrt(jnp.where(positive, variance, jnp.nan))
    degrees = jnp.full_like(count, jnp.inf)
    if small_sample:
        correction = (count + 1.0 - 2.0 * horizon + horizon * (horizon - 1.0) / count) / count
        statistic, degrees = statistic * jnp.sqrt(correction), count - 1.0
    tails = student_two_sided(statistic, degrees)
    lower = jnp.where(statistic < 0.0, 0.5 * tails, 1.0 - 0.5 * tails)
    return EqualAbility(
        statistic=statistic,
        p_value=tails,
        p_better=lower,
        p_worse=jnp.where(statistic < 0.0, 1.0 - 0.5 * tails, 0.5 * tails),
        mean_difference=mean,
        degrees=degrees,
        num_cases=count,
    )


def giacomini_white(
    losses: Series,
    benchmark_losses: Series,
    instruments: Float[Array, "cases instruments"]
    | Float[np.ndarray, "cases instruments"]
    | None = None,
    *,
    horizon: int = 1,
    kernel: LagKernel = "bartlett",
    num_lags: int | None = None,
    names: tuple[str, ...] | None = None,
) -> ConditionalAbility:
    """Statistic of equal predictive ability given what was known: no instrument explains d.

        S = n Zbar' Omega^{-1} Zbar,  Z_t = h_t d_t,  d = losses - benchmark losses, chi-squared(q)

    with Omega = (1/n) sum Z_t Z_t' for horizon 1, where S is n times the uncentred R^2 of one on
    Z_t, and `long_run_cov` of Z_t with horizon - 1 lags beyond (Giacomini and White 2006).
    Forecasts are those of rolling windows of fixed length.

    **Arguments:** `instruments` (cases, q): row t known when case t was predicted; by default
    (1, d_{t - horizon}), a constant and the last loss difference known then. `names` of the
    instruments. A row with a NaN is not counted. Collinear instruments, or losses that are equal,
    give NaN.

    **Raises:** `ValueError` for a horizon below 1 or not below the number of cases, and for names
    that do not fit.
    """
    differences = jnp.asarray(losses) - jnp.asarray(benchmark_losses)
    check_horizon(horizon, differences.shape[0])
    if instruments is None:
        before = jnp.full(horizon, jnp.nan, dtype=differences.dtype)
        before = jnp.concatenate([before, differences[:-horizon]])
        instruments = jnp.stack([jnp.ones_like(before), before], axis=1)
        names = names or ("constant", f"loss difference {horizon} before")
    rows = jnp.asarray(instruments, dtype=differences.dtype)
    number = rows.shape[1]
    names = names or tuple(f"instrument {i}" for i in range(number))
    if len(names) != number:
        raise ValueError(f"{len(names)} names for {number} instruments; give one for each.")
    counted = jnp.isfinite(differences) & jnp.all(jnp.isfinite(rows), axis=1)
    count = jnp.sum(counted).astype(differences.dtype)
    rows = jnp.where(counted[:, None], rows, 0.0)
    differences = jnp.where(counted, differences, 0.0)
    products = rows * differences[:, None]
    weights = lag_weights(products.shape[0], kernel, horizon - 1 if num_lags is None else num_lags)
    total = jnp.sum(products, axis=0)
    statistic = quadratic_form(weighted_lags(products, weights), total)
    coefficients = least_squares(rows, differences)
    return ConditionalAbility(
        statistic=statistic,
        p_value=chi_squared_tail(statistic, number),
        coefficients=coefficients,
        benchmark_share=share_above(rows @ coefficients, counted),
        num_cases=count,
        degrees=number,
        names=tuple(names),
    )


def lag_weights(num_cases: int, kernel: LagKernel, num_lags: int | None) -> list[float]:
    """w_1..w_L of the kernel."""
    if kernel not in ("bartlett", "rectangular"):
        raise ValueError(f"kernel must be 'bartlett' or 'rectangular', got {kernel!r}.")
    if num_lags is None:
        num_lags = min(automatic_lags(num_cases), num_cases - 1) if kernel == "bartlett" else 0
    if not 0 <= num_lags < num_cases:
        raise ValueError(
            f"num_lags must be between 0 and {num_cases - 1} for {num_cases} cases, got {num_lags}."
        )
    lags = range(1, num_lags + 1)
    return [1.0 - lag / (num_lags + 1) if kernel == "bartlett" else 1.0 for lag in lags]


def weighted_lags(
    rows: Float[Array, "cases columns"], weights: list[float]
) -> Float[Array, "columns columns"]:
    """sum_t z_t z_t' + sum_j w_j sum_t (z_t z_{t-j}' + z_{t-j} z_t')."""
    precision = jax.lax.Precision.HIGHEST
    total = jnp.matmul(rows.T, rows, precision=precision)
    for lag, weight in enumerate(weights, start=1):
        product = jnp.matmul(rows[lag:].T, rows[:-lag], precision=precision)
        total = total + weight * (product + product.T)
    return total


def quadratic_form(matrix: Array, vector: Array) -> Float[Array, ""]:
    """v' M^{-1} v of a positive definite matrix; NaN for one that is not, or only by rounding."""
    lower, scale, definite = scaled_cholesky(matrix)
    half = solve_triangular(lower, vector / scale, lower=True)
    return jnp.where(definite, jnp.sum(half**2), jnp.nan)


def least_squares(rows: Array, target: Array) -> Float[Array, " instruments"]:
    """Coefficients of the target on the columns of the rows; NaN for collinear columns."""
    lower, scale, definite = scaled_cholesky(jnp.matmul(rows.T, rows, precision="highest"))
    half = solve_triangular(lower, rows.T @ target / scale, lower=True)
    solution = solve_triangular(lower.T, half, lower=False) / scale
    return jnp.where(definite, solution, jnp.nan)


def scaled_cholesky(matrix: Array) -> tuple[Array, Array, Bool[Array, ""]]:
    """Factor of the matrix with unit diagonal, the scale, and whether it is definite.

    With a unit diagonal the squared pivots are 1 - R^2 of a column on those before it.
    """
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0.0))
    present = scale > 0.0
    scale = jnp.where(present, scale, 1.0)
    lower = jnp.linalg.cholesky(matrix / scale / scale[:, None])
    floor = 100.0 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps
    # A comparison with the NaN of a failed factorisation is false.
    definite = jnp.all(present) & jnp.all(jnp.diagonal(lower) ** 2 > floor)
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jnp.where(definite, lower, identity), scale, definite


def share_above(fitted: Float[Array, " cases"], counted: Bool[Array, " cases"]) -> Array:
    """Share of counted cases whose fitted value is positive; NaN where none is fitted."""
    share = jnp.sum(counted & (fitted > 0.0)) / jnp.sum(counted)
    return jnp.where(jnp.any(jnp.isnan(fitted)), jnp.nan, share.astype(fitted.dtype))


def check_horizon(horizon: int, num_cases: int) -> None:
    """Refuses a horizon that leaves nothing to compare."""
    if not 1 <= horizon < num_cases:
        raise ValueError(
            f"horizon must be at least 1 and below the number of cases, {num_cases}; got {horizon}."
        )
