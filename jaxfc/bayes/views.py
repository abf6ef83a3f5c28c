"""Subjective views on a forecast, without estimating again.

`with_views` turns a forecast made of draws into one whose draws carry weights, and a Gaussian one
into a Gaussian one. `ViewedProgram` puts views into the likelihood of a Bayesian model instead.
"""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.views_methods import ReturnDensity, ViewedMoments, ViewMethod
from jaxfc.bayes.views_statements import Statements, View, names_of, resolve
from jaxfc.bayes.views_weighted import VIEW_RESULTS, Verdict, WeightedForecast
from jaxfc.forecast import FactorForecast, Forecast, GaussianForecast, SampleForecast
from jaxfc.typing import Array, Float, as_scalar

if TYPE_CHECKING:
    from jaxfc.panel import Panel

ONE_IN_A_HUNDRED = math.log(0.01)
DrawForecast = SampleForecast | WeightedForecast
ClosedForecast = GaussianForecast | FactorForecast


@overload
def with_views(
    forecast: ClosedForecast,
    views: View | Sequence[View],
    *,
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    method: ViewMethod | None = None,
    floor: float = 0.1,
    min_log_odds: float = ONE_IN_A_HUNDRED,
) -> GaussianForecast: ...
@overload
def with_views(
    forecast: DrawForecast,
    views: View | Sequence[View],
    *,
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    method: ViewMethod | None = None,
    floor: float = 0.1,
    min_log_odds: float = ONE_IN_A_HUNDRED,
) -> WeightedForecast: ...
def with_views(
    forecast: Forecast,
    views: View | Sequence[View],
    *,
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    method: ViewMethod | None = None,
    floor: float = 0.1,
    min_log_odds: float = ONE_IN_A_HUNDRED,
) -> Forecast:
    """The forecast given subjective views, by reweighting its draws or conditioning (host side).

    **Arguments:** `names` of the series, from a panel or as given, and the class of each where
    views are about classes; `method`: what a view means, `ReturnDensity()` if not given, or
    `ExpectedReturn(expected)`, `EntropyPooling()`; `floor`: the least effective fraction of draws
    that may be left, (sum w)^2 / (n sum w^2); `min_log_odds`: log-odds of the views against the
    forecast, or among themselves, below which a warning gives the number (ln 0.01).

    **Returns:** a `WeightedForecast` of the same draws, with its `kept` fraction and log-odds; for
    a Gaussian law the conditional law, dense in horizon x series.

    **Raises:** `ValueError` for an unknown asset or class, views that leave less than `floor`, and
    moments that no weights have; `TypeError` for other laws.
    """
    method = ReturnDensity() if method is None else method
    num_draws = forecast.draws.shape[0] if isinstance(forecast, DrawForecast) else None
    statements = resolved_for(forecast, views, names, classes)
    method.check(statements, num_draws)
    among = mutual_log_odds(statements)
    if isinstance(forecast, DrawForecast):
        answer = tilted(forecast, statements, method, as_scalar(floor))
        log_odds = float(answer.verdict.log_odds)
        warn_if_unlikely(log_odds, among, min_log_odds)
        throw_if_few(answer, floor)
        return answer
    dense = GaussianForecast(forecast.mean, forecast.cov)
    warn_if_unlikely(float(ViewedMoments.of(dense, statements).log_odds), among, min_log_odds)
    return method.condition(dense, statements)


def view_log_odds(
    forecast: ClosedForecast | DrawForecast,
    views: View | Sequence[View],
    *,
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    method: ViewMethod | None = None,
) -> float:
    """Log of how much less likely views are under the forecast than views that agree with it.

        -1/2 (m - A mu)' (A V A' + S)^{-1} (m - A mu)

    with the mean mu and covariance V of the forecast (of E[r | draw] for `ExpectedReturn`); for
    `EntropyPooling` minus its minimum. Zero: the forecast says the same. Raises as `with_views`,
    except for how many draws are left.
    """
    method = ReturnDensity() if method is None else method
    num_draws = forecast.draws.shape[0] if isinstance(forecast, DrawForecast) else None
    statements = resolved_for(forecast, views, names, classes)
    method.check(statements, num_draws)
    if isinstance(forecast, DrawForecast):
        return float(tilted(forecast, statements, method, as_scalar(0.0)).verdict.log_odds)
    dense = GaussianForecast(forecast.mean, forecast.cov)
    return float(ViewedMoments.of(dense, statements).log_odds)


@eqx.filter_jit
def tilted(
    forecast: DrawForecast, views: Statements, method: ViewMethod, floor: Float[Array, ""]
) -> WeightedForecast:
    """The draws with the weights that the views give them: pure, with a result code."""
    num_draws = forecast.draws.shape[0]
    if isinstance(forecast, WeightedForecast):
        before = forecast.weights
    else:
        before = jnp.full(num_draws, 1.0 / num_draws, forecast.draws.dtype)
    tilt = method.tilt(forecast.draws, before, views)
    kept = 1.0 / (num_draws * jnp.sum(tilt.weights**2))
    few = VIEW_RESULTS.where(kept >= floor, VIEW_RESULTS.successful, VIEW_RESULTS.few_draws_left)
    result = VIEW_RESULTS.where(tilt.solved, few, VIEW_RESULTS.not_solved)
    return WeightedForecast(forecast.draws, tilt.weights, Verdict(tilt.log_odds, result))


def mutual_log_odds(views: Statements) -> float:
    """Log-odds of views on returns against each other, whatever the forecast says (host side).

        -1/2 min_r sum_k (m_k - a_k'r)^2 / sd_k^2

    Zero unless what some views say follows from the others; minus infinity for exact views that
    exclude each other.
    """
    sds = np.asarray(views.sds, float)
    counted = np.isfinite(sds)
    if not counted.any():
        return 0.0
    rows = np.asarray(views.directions, float).reshape(len(sds), -1)[counted]
    means = np.asarray(views.means, float)[counted]
    # Combinations of views that say 0'r; the long side of the rows is never squared.
    _, triangle = np.linalg.qr(rows.T)
    left, values, _ = np.linalg.svd(triangle.T)
    implied = left[:, np.sum(values > 1e-10 * values[0]) :].T
    contradiction = implied @ means
    rounding = 1e-10 * np.abs(means).max()
    contradiction = np.where(np.abs(contradiction) > rounding, contradiction, 0.0)
    # The smallest errors, in standard deviations, that explain what the combinations say.
    weighed = implied * sds[counted]
    errors = np.linalg.lstsq(weighed, contradiction, rcond=1e-12)[0]
    if np.any(np.abs(weighed @ errors - contradiction) > rounding):
        return -math.inf
    return float(-0.5 * errors @ errors)


def resolved_for(
    forecast: Forecast,
    views: View | Sequence[View],
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None,
) -> Statements:
    """Views as arrays in the shape and precision of a forecast, whose kind is checked."""
    if not isinstance(forecast, DrawForecast | ClosedForecast):
        raise TypeError(
            f"views cannot be put on a {type(forecast).__name__}; pass its draws, "
            "SampleForecast(forecast.sample(num_draws, key=key))."
        )
    horizon, num_series = forecast.mean.shape
    given = names_of(names, num_series)
    statements = resolve(views, given, classes, horizon=horizon)
    return jax.tree.map(lambda x: x.astype(forecast.mean.dtype), statements)


def warn_if_unlikely(log_odds: float, among: float, minimum: float) -> None:
    """A visible warning, with the number, of views that contradict the forecast or each other."""
    if among < minimum:
        warnings.warn(
            f"the views contradict each other: log-odds {among:.1f} whatever the forecast.",
            stacklevel=3,
        )
    if log_odds < minimum:
        warnings.warn(
            f"the views contradict the forecast: log-odds {log_odds:.1f} (1 to "
            f"{math.exp(min(-log_odds, 700.0)):.3g}) against views that agree with it.",
            stacklevel=3,
        )


def throw_if_few(forecast: WeightedForecast, floor: float) -> None:
    """Raise `ValueError` with the kept fraction unless the views left enough draws."""
    verdict = forecast.verdict
    if bool(verdict.result == VIEW_RESULTS.successful):
        return
    raise ValueError(
        f"{VIEW_RESULTS[verdict.result]} Kept: {100 * float(forecast.kept):.2g}% of "
        f"{forecast.draws.shape[0]} draws (floor {100 * floor:.3g}%), log-odds "
        f"{float(verdict.log_odds):.1f}."
    )
