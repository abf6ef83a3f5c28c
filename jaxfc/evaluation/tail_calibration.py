"""Whether values at risk and expected shortfalls of one-step forecasts are right.

Convention and signs as in `tail_risk`: values at risk v and shortfalls e are quantiles and means of
returns, e <= v. Cases are the leading axis, in the order of time; further axes are tested by
themselves. A case that misses the outcome or a forecast is not counted. Violations are those of
`tail_violations`; more tests of them are in `calibration` and `durations`.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jaxfc.evaluation.calibration import Cases, Probability
from jaxfc.evaluation.intervals import Bounds, Draws, Level, Outcomes, beside, level_beside
from jaxfc.evaluation.tail_risk import normal_tail
from jaxfc.hypothesis import HypothesisTest, chi_squared_tail, student_two_sided
from jaxfc.lags import lagged
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


def acerbi_szekely(
    value_at_risk: Bounds,
    expected_shortfall: Bounds,
    realised: Outcomes,
    probability: Level,
    *,
    kind: str = "unconditional",
    draws: Draws | None = None,
    key: PRNGKeyArray | None = None,
    num_draws: int = 1000,
) -> HypothesisTest:
    """Whether losses beyond the value at risk are as large and as many as forecast, on average.

        "unconditional": Z2 = 1 - sum_t y_t 1{y_t < v_t} / e_t / (n p)
        "conditional":   Z1 = 1 - sum_t y_t 1{y_t < v_t} / e_t / sum_t 1{y_t < v_t}

    Both have expectation zero if forecasts are right, and are negative if the risk was understated;
    Z2 sees too many violations as well. The p-value is one-sided, against understated risk:

        p = (1 + #{Z* <= Z}) / (1 + M)

    over the M statistics Z* of outcomes simulated under the forecasts, `draws` (draws, cases, ...).
    With a `key` instead, outcomes are drawn (`fold_in(key, i)`) from the normal law that has v and
    e, independent over cases: right for normal forecasts only. A Z1* without violation is left out.
    NaN where a shortfall is not negative.

    Source: Acerbi and Szekely (2014).

    **Arguments:** as in `joint_tail_score`.

    **Raises:** `ValueError` for another kind, and unless either draws or a key are given.
    """
    if kind not in ("unconditional", "conditional"):
        raise ValueError(f"kind must be 'unconditional' or 'conditional', got {kind!r}.")
    if (draws is None) == (key is None):
        raise ValueError("give either draws of the outcomes under the forecasts, or a key.")
    quantile, shortfall = jnp.asarray(value_at_risk), jnp.asarray(expected_shortfall)
    outcome = beside(realised, quantile)
    p = level_beside(probability, quantile)
    counted = jnp.isfinite(outcome) & jnp.isfinite(quantile) & jnp.isfinite(shortfall)
    count = jnp.sum(counted, axis=0).astype(quantile.dtype)
    safe = jnp.where(counted, shortfall, -1.0)

    def statistic(outcome: Array) -> Array:
        hits = counted & (outcome < quantile)
        total = jnp.sum(jnp.where(hits, outcome / safe, 0.0), axis=0)
        return 1.0 - total / (count * p if kind == "unconditional" else jnp.sum(hits, axis=0))

    if draws is None:
        assert key is not None
        spread = (quantile - shortfall) / (ndtri(p) + normal_tail(p))
        centre, shape = quantile - spread * ndtri(p), jnp.shape(realised)

        def simulate(index: Array) -> Array:
            noise = jax.random.normal(jax.random.fold_in(key, index), shape, quantile.dtype)
            return statistic(centre + spread * beside(noise, quantile))

        simulated = jax.lax.map(simulate, jnp.arange(num_draws))
    else:
        simulated = jax.lax.map(lambda one: statistic(beside(one, quantile)), jnp.asarray(draws))
    proper = (count > 0) & jnp.all(~counted | (shortfall < 0.0), axis=0)
    observed = jnp.where(proper, statistic(outcome), jnp.nan)
    return HypothesisTest(
        statistic=observed,
        p_value=lower_share(simulated, observed),
        degrees=jnp.full_like(observed, jnp.nan),
        num_cases=count,
    )


def mcneil_frey(
    value_at_risk: Bounds,
    expected_shortfall: Bounds,
    realised: Outcomes,
    *,
    scale: Bounds | None = None,
    key: PRNGKeyArray | None = None,
    num_draws: int = 1000,
) -> HypothesisTest:
    """Whether losses beyond the value at risk are larger than the shortfall: a test of their mean.

        r_t = (y_t - e_t) / s_t  where y_t < v_t,    t = sqrt(n) mean(r) / std(r)

    of the n violations, with mean zero if the forecasts are right; the p-value is one-sided,
    against losses that are larger. `scale` s (None: one) should be the forecast standard deviation:
    residuals are taken as alike. With a `key` it is that of the bootstrap: (1 + #{t* <= t}) / (1 +
    `num_draws`) over draws with replacement of the centred residuals (Efron and Tibshirani 1993,
    chapter 16). Without one Student's law with n - 1 degrees, which rejects too rarely while n is
    small, since tails are skewed: 2.5 % for 5 % with 20 violations of a normal law. `num_cases` is
    n; fewer than two give NaN.

    Source: McNeil and Frey (2000).

    **Arguments:** as in `joint_tail_score`.
    """
    quantile, shortfall = jnp.asarray(value_at_risk), jnp.asarray(expected_shortfall)
    outcome = beside(realised, quantile)
    width = jnp.ones_like(quantile) if scale is None else jnp.asarray(scale)
    counted = (outcome < quantile) & jnp.isfinite(outcome)  # False where a forecast is missing
    counted = counted & jnp.isfinite(shortfall) & jnp.isfinite(width)
    residuals = jnp.where(counted, outcome - shortfall, 0.0) / jnp.where(counted, width, 1.0)
    count = jnp.sum(counted, axis=0).astype(quantile.dtype)
    statistic = mean_statistic(residuals, counted)
    if key is None:
        degrees = jnp.where(count > 1, count - 1, jnp.nan)
        two_sided = student_two_sided(statistic, jnp.where(count > 1, degrees, 1.0))
        p_value = jnp.where(statistic < 0.0, 0.5 * two_sided, 1.0 - 0.5 * two_sided)
        return HypothesisTest(statistic, p_value, degrees, count)
    # Residuals first, what is not one behind.
    order = jnp.argsort(~counted, axis=0)
    centre = jnp.sum(residuals, axis=0) / jnp.maximum(count, 1.0)
    pool = jnp.take_along_axis(residuals - centre, order, axis=0)
    drawn = jnp.take_along_axis(counted, order, axis=0)

    def redraw(index: Array) -> Array:
        uniform = jax.random.uniform(jax.random.fold_in(key, index), pool.shape, pool.dtype)
        picked = jnp.minimum(jnp.floor(uniform * count), count - 1.0).astype(int)
        return mean_statistic(jnp.take_along_axis(pool, picked, axis=0), drawn)

    simulated = jax.lax.map(redraw, jnp.arange(num_draws))
    return HypothesisTest(
        statistic=statistic,
        p_value=lower_share(simulated, statistic),
        degrees=jnp.full_like(statistic, jnp.nan),
        num_cases=count,
    )


def engle_manganelli(
    violations: Cases,
    probability: Probability,
    value_at_risk: Cases | None = None,
    *,
    num_lags: int = 4,
) -> HypothesisTest:
    """Dynamic quantile test: nothing known before explains whether the value at risk is violated.

        h_t = 1{violation} - p,    x_t = (1, h_{t-1}, ..., h_{t-L}, v_t)
        DQ = h'X (X'X)^{-1} X'h / (p (1 - p)),  chi-squared(rank X)

    over the cases at which all of this is known; without `value_at_risk`, x_t has no v_t. Columns
    that others explain count once: a constant v_t, or lags without a violation. Violations are
    rare: for p = 0.01 the chi-squared law is rough below some thousand cases.

    Source: Engle and Manganelli (2004).

    **Raises:** `ValueError` for a number of lags below zero (one without values at risk) or not
    below the number of cases.
    """
    violations = jnp.asarray(violations)
    num_cases, rest = violations.shape[0], violations.shape[1:]
    fewest = 1 if value_at_risk is None else 0
    if not fewest <= num_lags < num_cases:
        raise ValueError(
            f"num_lags must be between {fewest} and {num_cases - 1}: there are {num_cases} cases; "
            f"got {num_lags}."
        )
    p = jnp.broadcast_to(jnp.asarray(probability, violations.dtype), rest)
    hits = jnp.where(jnp.isnan(violations), 0.0, violations - p)
    known = ~jnp.isnan(violations)
    counted, columns = known, []
    for lag in range(1, num_lags + 1):
        counted = counted & lagged(known, lag)
        columns.append(lagged(hits, lag))
    if value_at_risk is not None:
        counted = counted & jnp.isfinite(value_at_risk)
        columns.append(jnp.where(jnp.isfinite(value_at_risk), jnp.asarray(value_at_risk), 0.0))
    count = jnp.sum(counted, axis=0).astype(hits.dtype)
    stacked = jnp.stack([hits, *columns])
    flat = stacked.reshape(*stacked.shape[:2], -1), counted.reshape(num_cases, -1)
    explained, rank = jax.vmap(projection, in_axes=(2, 1))(*flat)
    statistic = explained.reshape(rest) / (p * (1.0 - p))
    statistic = jnp.where(count > 0, statistic, jnp.nan)
    degrees = rank.reshape(rest)
    return HypothesisTest(statistic, chi_squared_tail(statistic, degrees), degrees, count)


def lower_share(simulated: Float[Array, "draws *rest"], statistic: Array) -> Array:
    """(1 + #{simulated <= statistic}) / (1 + M), of the M simulated ones that are numbers."""
    below = jnp.sum(simulated <= statistic, axis=0)
    valid = jnp.sum(~jnp.isnan(simulated), axis=0)
    share = (1.0 + below.astype(statistic.dtype)) / (1.0 + valid.astype(statistic.dtype))
    return jnp.where(jnp.isnan(statistic), jnp.nan, share)


def mean_statistic(
    values: Float[Array, "cases *rest"], counted: Bool[Array, "cases *rest"]
) -> Float[Array, "*rest"]:
    """sqrt(n) mean / std of the counted values; NaN for fewer than two, or equal ones."""
    count = jnp.sum(counted, axis=0).astype(values.dtype)
    mean = jnp.sum(jnp.where(counted, values, 0.0), axis=0) / jnp.maximum(count, 1.0)
    squares = jnp.sum(jnp.where(counted, (values - mean) ** 2, 0.0), axis=0)
    defined = (count > 1) & (squares > 0.0)
    variance = jnp.where(defined, squares, 1.0) / jnp.maximum(count - 1.0, 1.0)
    return jnp.where(defined, jnp.sqrt(count / variance) * mean, jnp.nan)


def projection(
    columns: Float[Array, "columns cases"], counted: Bool[Array, " cases"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Squared length of the first column's projection on a constant and the others, and its rank.

    Around their means, in units of their length, so that level and units do not hide a column.
    """
    count = jnp.maximum(jnp.sum(counted), 1).astype(columns.dtype)
    rows = jnp.where(counted, columns, 0.0)
    means = jnp.sum(rows, axis=1, keepdims=True) / count
    centred = jnp.where(counted, columns - means, 0.0)
    squares = jnp.sum(centred**2, axis=1)
    eps = jnp.finfo(columns.dtype).eps
    moves = squares > eps * jnp.sum(rows**2, axis=1)
    unit = jnp.where(moves, 1.0 / jnp.sqrt(jnp.where(moves, squares, 1.0)), 0.0)
    scaled = centred[1:] * unit[1:, None]
    precision = jax.lax.Precision.HIGHEST
    values, vectors = jnp.linalg.eigh(jnp.matmul(scaled, scaled.T, precision=precision))
    kept = values > 100.0 * len(values) * eps
    turned = vectors.T @ jnp.matmul(scaled, centred[0], precision=precision)
    explained = jnp.sum(jnp.where(kept, turned**2 / jnp.where(kept, values, 1.0), 0.0))
    rank = 1.0 + jnp.sum(kept).astype(columns.dtype)
    return explained + count * means[0, 0] ** 2, rank
