"""Vector autoregressions whose lags end where the data say so: penalties on nested groups of
lags."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.hierarchy.lag_penalties import (
    STRUCTURES,
    Problem,
    at_minimum,
    largest_penalty,
    penalty_path,
    split_intercept,
)
from jaxfc.hierarchy.levels import product
from jaxfc.hierarchy.panel_checks import check_horizon
from jaxfc.hierarchy.var_dense import DenseVAR
from jaxfc.hierarchy.var_errors import error_law
from jaxfc.hierarchy.var_forecast import ErrorLaw, ResponseForecast
from jaxfc.lags import lagged
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Rows of a simulation that are thrown away.
BURN_IN = 300


class Rows(NamedTuple):
    """Regressors (1, r_{t-1}', ..., r_{t-p}'), values, and where both are observed."""

    columns: Float[Array, "time columns"]
    targets: Float[Array, "time series"]
    known: Bool[Array, "time series"]


class LagLassoVAR(Model):
    """A VAR with a penalty on nested groups of lags.

        min 1 / (2 T) sum_{t, i} (y_ti - nu_i - sum_{l <= p} sum_j Phi_l,ij y_t-l,j)^2 + lam P(Phi)

    in units in which every series has mean zero and variance one; P by `structure`: "component",
    "own_other", "element" (see `proximal`). Intercepts are not penalised. The penalty lam is the
    one of `num_penalties`, falling geometrically from the smallest without any lag to
    `smallest_ratio` times that, with the smallest sum of squared one-step errors over the last
    `validation_share` of rows: these are cut into `num_folds` stretches, each forecast by the
    coefficients of all rows before it. `penalty`: lam itself, not searched for.

    An equation counts in rows in which its value and all regressors are observed. A forecast starts
    from values that stand, where not observed, at their expectation given the rows before.
    `errors`: "diagonal" or "sample" correlations (see `error_law`). Costs O(time series^2 lags) a
    step of the search. Roots on or outside the unit circle have the result code `nonstationary`.

    **Raises** (from `fit`): `ValueError` for series that are constant or have fewer than ten rows
    with all regressors before the first fold, panels with sums over periods.

    Source: Nicholson, Wilms, Bien and Matteson (2020).
    """

    num_lags: int = eqx.field(static=True, default=4)
    structure: str = eqx.field(static=True, default="element")
    num_penalties: int = eqx.field(static=True, default=20, kw_only=True)
    smallest_ratio: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-2, kw_only=True)
    validation_share: float = eqx.field(static=True, default=1 / 3, kw_only=True)
    num_folds: int = eqx.field(static=True, default=4, kw_only=True)
    penalty: Float[Array, ""] | None = eqx.field(default=None, kw_only=True)
    errors: str = eqx.field(static=True, default="sample", kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6, kw_only=True)
    max_steps: int = eqx.field(static=True, default=2000, kw_only=True)

    def __check_init__(self):
        check_counts(
            num_lags=self.num_lags,
            num_penalties=self.num_penalties,
            num_folds=self.num_folds,
            max_steps=self.max_steps,
        )
        if self.structure not in STRUCTURES:
            raise ValueError(f"structure must be one of {STRUCTURES}, got {self.structure!r}.")
        if self.errors not in ("diagonal", "sample"):
            raise ValueError(f"errors must be 'diagonal' or 'sample', got {self.errors!r}.")
        if not 0.0 < self.validation_share < 1.0:
            raise ValueError(f"validation_share must be in (0, 1), got {self.validation_share}.")

    def folds(self, num_rows: int) -> tuple[int, ...]:
        """First rows of the stretches that are forecast, and the row after the last."""
        first = round(num_rows * (1.0 - self.validation_share))
        edges = np.linspace(first, num_rows, self.num_folds + 1).round().astype(int)
        return tuple(int(edge) for edge in edges)

    def check(self, panel: "Panel") -> None:
        refuse_sums(panel.aggregation, "LagLassoVAR")
        first = len(panel.index) if self.penalty is not None else self.folds(len(panel.index))[0]
        known = np.asarray(rows_of(*panel.arrays(), self.num_lags).known)[:first]
        for i, name in enumerate(panel.names):
            seen = panel.values[panel.observed[:, i], i]
            if np.ptp(seen) <= 1e-12 * np.max(np.abs(seen)):
                raise ValueError(f"series {name!r} is constant; drop it.")
            if known[:, i].sum() < 10:
                raise ValueError(
                    f"series {name!r} has {known[:, i].sum()} of the first {first} rows in which "
                    f"it and {self.num_lags} lags of all series are observed; at least 10 are "
                    "needed. Use a longer sample, fewer lags, or series without holes."
                )

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedLagLassoVAR":
        tolerance = self.tolerance.astype(values.dtype)
        units = Units(values, observed)
        rows = units.rows(values, observed, self.num_lags)
        problem = Problem(*rows)
        fixed, fixed_values = jax.lax.stop_gradient((problem, values))
        sizes = self.sizes(fixed)
        scores = jnp.zeros_like(sizes)
        if self.penalty is None:
            scores = self.validate(fixed_values, observed, sizes)
        best = jnp.argmin(jnp.where(jnp.isfinite(scores), scores, jnp.inf))
        path, found = penalty_path(fixed, self.structure, sizes, tolerance, self.max_steps)
        coefficients = at_minimum(problem, self.structure, sizes[best], path[best])
        law = units.restored(coefficients)
        expected = product("ta,ia->ti", rows.columns, coefficients)
        residuals = jnp.where(rows.known, (rows.targets - expected) * units.scale, 0.0)
        counts = jnp.maximum(jnp.sum(rows.known, axis=0), 1)
        variances = jnp.sum(residuals**2, axis=0) / counts
        radius = law.spectral_radius()
        result = select(
            found.converged[best], SUCCESSFUL, cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
        )
        result = select(radius < 1.0, result, cast(RESULTS, RESULTS.nonstationary))
        finite = jnp.all(jnp.isfinite(coefficients))
        result = select(finite, result, cast(RESULTS, RESULTS.diverged))
        density = jnp.log(2.0 * jnp.pi * variances) + 1.0
        return FittedLagLassoVAR(
            model=self,
            law=law,
            errors=error_law(self.errors, residuals, rows.known, variances),
            history=law.completed(jnp.where(observed, values, 0.0), observed),
            penalties=sizes,
            scores=scores,
            penalty=sizes[best],
            spectral_radius=radius,
            loglik=-0.5 * jnp.sum(counts * density),
            num_steps=found.num_steps[best],
            result=result,
        )

    def sizes(self, problem: Problem) -> Float[Array, " penalties"]:
        """The penalties that are tried, decreasing to a given one if there is one."""
        largest = largest_penalty(problem, self.structure)
        if self.penalty is not None:
            return self.penalty.astype(largest.dtype)[None]
        powers = jnp.linspace(0.0, 1.0, self.num_penalties, dtype=largest.dtype)
        return largest * self.smallest_ratio.astype(largest.dtype) ** powers

    def validate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        sizes: Float[Array, " penalties"],
    ) -> Float[Array, " penalties"]:
        """Mean squared one-step errors of each penalty, in units of the series' variances."""
        times, scale = jnp.arange(len(values)), Units(values, observed).scale
        edges = jnp.asarray(self.folds(len(values)))
        given = rows_of(values, observed, self.num_lags)

        def fold(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            first, last = bounds
            before = observed & (times < first)[:, None]
            own = Units(values, before)  # of the rows before, as a forecaster would have them
            rows = own.rows(values, before, self.num_lags)
            ahead = given.known & ((times >= first) & (times < last))[:, None]

            def error(coefficients: Array) -> Array:
                law = own.restored(coefficients)
                flat = jnp.moveaxis(law.lags, 0, 1).reshape(len(law.intercepts), -1)
                mean = law.intercepts + product("ta,ia->ti", given.columns[:, 1:], flat)
                return jnp.sum(jnp.where(ahead, (given.targets - mean) / scale, 0.0) ** 2)

            errors, _ = penalty_path(
                Problem(*rows),
                self.structure,
                sizes,
                self.tolerance.astype(values.dtype),
                self.max_steps,
                error,
            )
            return errors, jnp.sum(ahead)

        errors, counts = jax.lax.map(fold, (edges[:-1], edges[1:]))
        return jnp.sum(errors, axis=0) / jnp.maximum(jnp.sum(counts), 1)


class Units:
    """Means and standard deviations of the observed values, one where a series does not vary."""

    def __init__(self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]):
        values = jnp.where(observed, values, 0.0)
        counts = jnp.maximum(jnp.sum(observed, axis=0), 1)
        self.centre = jnp.sum(values, axis=0) / counts
        gaps = jnp.where(observed, values - self.centre, 0.0)
        squares = jnp.sum(gaps**2, axis=0) / counts
        self.scale = jnp.where(squares > 0.0, jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0)), 1.0)

    def rows(self, values: Array, observed: Array, num_lags: int) -> Rows:
        """Rows of the standardised values."""
        return rows_of(
            (jnp.where(observed, values, 0.0) - self.centre) / self.scale, observed, num_lags
        )

    def restored(self, coefficients: Float[Array, "series columns"]) -> DenseVAR:
        """The VAR of the values from coefficients for standardised ones."""
        intercepts, lags = split_intercept(coefficients)
        lags = jnp.moveaxis(lags, 1, 0) * self.scale[:, None] / self.scale
        explained = product("lij,j->i", lags, self.centre)
        return DenseVAR(self.centre + self.scale * intercepts[:, 0] - explained, lags)


def rows_of(
    values: Float[Array, "time series"], observed: Bool[Array, "time series"], num_lags: int
) -> Rows:
    """Regressors, zero where not observed, and cells whose value and regressors are observed."""
    values = jnp.where(observed, values, 0.0)
    columns = [jnp.ones_like(values[:, :1])]
    columns.extend(lagged(values, lag) for lag in range(1, num_lags + 1))
    known = observed
    for lag in range(1, num_lags + 1):
        known = known & lagged(jnp.all(observed, axis=1), lag)[:, None]
    return Rows(jnp.concatenate(columns, axis=1), values, known)


class FittedLagLassoVAR(Fitted):
    """An estimated VAR with penalised lags, in the units of the data.

    `law` holds intercepts and matrices; `scores` the validation errors of `penalties`, zero if the
    penalty was given. `loglik` takes the errors as uncorrelated.
    """

    model: LagLassoVAR
    law: DenseVAR
    errors: ErrorLaw
    history: Float[Array, "lags series"]
    penalties: Float[Array, " penalties"]
    scores: Float[Array, " penalties"]
    penalty: Float[Array, ""]
    spectral_radius: Float[Array, ""]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def last_lags(self) -> Int[Array, "series series"]:
        """The last lag of series j (column) in equation i (row); 0: none."""
        numbers = jnp.arange(1, self.model.num_lags + 1)[:, None, None]
        return jnp.max(jnp.where(self.law.lags != 0.0, numbers, 0), axis=0)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> ResponseForecast:
        """The next `horizon` rows, given the coefficients.

        **Raises:** `ValueError` for a horizon below 1, or a key: the law has a closed form.
        """
        check_horizon(horizon, key)
        zeros = jnp.zeros((horizon, self.history.shape[1]), self.history.dtype)
        mean = self.law.path(self.history, zeros)
        return ResponseForecast(mean, self.law.responses(horizon), self.errors)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        shocks = self.errors.draw((BURN_IN + num_steps,), key=key)
        return self.law.path(jnp.zeros_like(self.history), shocks)[BURN_IN:]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedLagLassoVAR":
        values = jnp.where(observed, values, 0.0)
        return dataclasses.replace(self, history=self.law.completed(values, observed))

    def details(self) -> dict[str, Array]:
        return {"penalty": self.penalty, "spectral_radius": self.spectral_radius}
