"""Whether correlations are constant: the regression of Engle and Sheppard."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.hypothesis import HypothesisTest, chi_squared_test
from jaxfc.lags import lagged
from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.targets import SampleTarget, with_eigenvalues


def constant_correlation_test(
    units: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    *,
    num_lags: int = 5,
    corr: Float[Array, "series series"] | None = None,
) -> HypothesisTest:
    """Statistic of a correlation R that does not move, against one that depends on its past.

        w_t = R^{-1/2} z_t,    y_ijt = w_it w_jt (i < j),    x_ijt = (1, y_ij,t-1, ..., y_ij,t-L)
        b' X'X b / s^2,  chi-squared(L + 1)

    with the symmetric root of R, b of one least squares regression of y on x over all n rows of all
    pairs, and s^2 its mean squared error (divisor n). z are standardised residuals, `units` where
    `known`: `constant_correlation_test(*fitted.filtered().standardised)` of a `VarianceModel`, and
    with `fitted.margins` of a `CorrelationModel`.

    `corr` is R; left out, it is the correlation of z (pairwise complete). The constant is then zero
    up to the means of z, so that the law is nearer to chi-squared(L) and the test rejects a little
    too rarely. The identity says that z are whitened already: other roots of R_t give other
    numbers (rmgarch takes that of the covariance D_t R D_t).

    Where a cell is missing the observed series of that row are whitened by their own block of R:
    under the hypothesis their products have expectation zero as ever, which those of imputed values
    would not. A product counts at a row at which both series are observed, as at the L rows before.

    NaN if R is not positive definite, and for L + 1 rows of pairs or fewer. Costs one
    eigendecomposition for each row that has other holes than the last one (for every row under
    `vmap`), and L^2 / 2 sums over rows and pairs; memory for some products of all rows and pairs.

    Source: Engle and Sheppard (2001).

    **Raises:** `ValueError` for fewer than two series, and a number of lags below one or not below
    the number of rows.
    """
    num_rows, num_series = units.shape
    if num_series < 2:
        raise ValueError(f"a correlation needs two series or more, got {num_series}.")
    if not 1 <= num_lags < num_rows:
        raise ValueError(
            f"num_lags must be at least 1 and below the number of rows, {num_rows}; got {num_lags}."
        )
    if corr is None:
        corr = SampleTarget(centred=True).corr(units, known)
    first, second = np.triu_indices(num_series, 1)
    whitened = whitened_rows(units, known, corr)
    products = whitened[:, first] * whitened[:, second]
    seen = known[:, first] & known[:, second]
    counted = seen
    for lag in range(1, num_lags + 1):
        counted = counted & lagged(seen, lag)
    count = jnp.sum(counted).astype(units.dtype)
    moments = lag_moments(products, counted, num_lags)
    # Of (1, y_t, y_{t-1}, ...): rows and columns of the regressors, and what they explain.
    own = np.r_[0, 2 : num_lags + 2]
    gram, cross = moments[np.ix_(own, own)], moments[own, 1]
    enough = count > num_lags + 1
    # A matrix that can be solved keeps derivatives finite where there is nothing to test.
    safe = jnp.where(enough, gram, jnp.eye(num_lags + 1, dtype=units.dtype))
    explained = cross @ jnp.linalg.solve(safe, cross)
    error = (moments[1, 1] - explained) / jnp.where(enough, count, 1.0)
    statistic = jnp.where(enough, explained / error, jnp.nan)
    return chi_squared_test(statistic, num_lags + 1, count)


def whitened_rows(
    units: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    corr: Float[Array, "series series"],
) -> Float[Array, "time series"]:
    """R_oo^{-1/2} z_o of the observed series o of every row, zero for the others."""
    eye = jnp.eye(corr.shape[0], dtype=corr.dtype)

    def root(seen: Array) -> Array:
        block = jnp.where(seen[:, None] & seen, corr, eye)
        return with_eigenvalues(inverse_root, block, jnp.zeros((), corr.dtype))

    def step(state: tuple[Array, Array], row: tuple[Array, Array]):
        (last, before), (unit, seen) = state, row
        now = jax.lax.cond(jnp.all(seen == before), lambda _: last, root, seen)
        known_units = jnp.where(seen, unit, 0.0)
        whitened = jnp.matmul(now, known_units, precision=jax.lax.Precision.HIGHEST)
        return (now, seen), jnp.where(seen, whitened, 0.0)

    every = jnp.ones(corr.shape[0], dtype=bool)
    return jax.lax.scan(step, (root(every), every), (units, known))[1]


def inverse_root(eigenvalues: Float[Array, " series"], floor: Array) -> Array:
    """l^{-1/2}; NaN for eigenvalues that are not positive, or only by rounding."""
    rounding = eigenvalues.size * jnp.finfo(eigenvalues.dtype).eps
    positive = eigenvalues > floor + rounding
    return jnp.where(positive, 1.0 / jnp.sqrt(jnp.where(positive, eigenvalues, 1.0)), jnp.nan)


def lag_moments(
    products: Float[Array, "time pairs"], counted: Bool[Array, "time pairs"], num_lags: int
) -> Float[Array, "columns columns"]:
    """Sums over the counted rows of products of the columns 1, y_t, y_{t-1}, ..., y_{t-L}."""
    lags = jnp.arange(num_lags + 1)

    def column(lag: Array) -> Array:
        # What goes around the end stands in rows that are not counted.
        return jnp.where(counted, jnp.roll(products, lag, axis=0), 0.0)

    def sums(lag: Array) -> Array:
        left = column(lag)
        others = jax.lax.map(lambda other: jnp.sum(left * column(other)), lags)
        return jnp.concatenate([jnp.sum(left)[None], others])

    below = jax.lax.map(sums, lags)
    count = jnp.sum(counted).astype(products.dtype)
    top = jnp.concatenate([count[None], below[:, 0]])
    return jnp.concatenate([top[None], below])
