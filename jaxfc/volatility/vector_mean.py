"""Means of several series together: each on the past of all, on other variables, on residuals."""

from typing import TYPE_CHECKING, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.lags import lagged, push
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, as_scalar
from jaxfc.volatility.horizon import Varma, product
from jaxfc.volatility.vector_regression import (
    Rows,
    conditional_likelihood,
    hannan_rissanen,
    is_stable,
    known_cells,
    least_squares,
    residuals_of,
    rows_of,
)

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class VectorMeanParameters(eqx.Module):
    """c, A and B (`varma`), C (`exogenous`), and the mean of x, where x stands if not observed."""

    varma: Varma
    exogenous: Float[Array, "series exogenous"]
    exogenous_mean: Float[Array, " exogenous"]

    @property
    def coefficients(self) -> Float[Array, "series regressors"]:
        """One row an equation: c, A_1, ..., A_p, C, B_1, ..., B_q."""
        size, (_, ar, ma) = (
            len(self.exogenous),
            (self.varma.intercept, self.varma.ar, self.varma.ma),
        )
        beside = [jnp.moveaxis(lags, 0, 1).reshape(size, -1) for lags in (ar, ma)]
        constant = self.varma.intercept[:, None]
        return jnp.concatenate([constant, beside[0], self.exogenous, beside[1]], axis=1)

    @property
    def long_run(self) -> Float[Array, " series"]:
        """The unconditional mean of r, with x at its own."""
        identity = jnp.eye(len(self.exogenous), dtype=self.exogenous.dtype)
        level = self.varma.intercept + product("im,m->i", self.exogenous, self.exogenous_mean)
        return jnp.linalg.solve(identity - jnp.sum(self.varma.ar, axis=0), level)


class MeanEstimate(NamedTuple):
    """Parameters in data units, steps of the search (0 for least squares), result code."""

    parameters: VectorMeanParameters
    num_steps: Int[Array, ""]
    result: RESULTS


class VectorMean(eqx.Module):
    """Returns on the past of all of them: a VAR, a VARMA, either with exogenous series.

        r_t = c + sum_{j <= p} A_j r_{t-j} + C x_{t-1} + e_t + sum_{k <= q} B_k e_{t-k}

    with p = `num_ar`, q = `num_ma`, no matrix diagonal. x are the last `num_exogenous` columns of
    the panel (`panel.select` orders them), enter with their value of the row before, and are
    neither modelled nor forecast.

    q = 0: least squares, equation by equation, over the rows in which the value and all regressors
    are observed; consistent whatever the covariances of e (VAR, VARX). q > 0: the likelihood of
    normal e with one covariance, maximised with that covariance concentrated out, e = 0 before row
    p + 1, from the estimate of Hannan and Rissanen (1982) or, if better, from B = 0.

    Holes: e_t of a series is known where its r_t and all regressors are observed; the moving
    average counts an e that is not known as zero, its expectation. Rows that are known in part
    count with that part.

    A VARMA whose A and B have a factor in common (white noise: A_1 = -B_1) has means that are
    determined and coefficients that are not; the search may then end at its bound on steps.

    Roots on or outside the unit circle, of the autoregression or of the moving average, have the
    result code `nonstationary`; collinear regressors `diverged`.

    **Raises:** `ValueError` for negative numbers and `max_steps` below 1.

    Source: Lütkepohl (2005), chapters 3, 10 and 12.
    """

    num_ar: int = eqx.field(static=True, default=1)
    num_ma: int = eqx.field(static=True, default=0)
    num_exogenous: int = eqx.field(static=True, default=0, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6, kw_only=True)
    max_steps: int = eqx.field(static=True, default=300, kw_only=True)

    def __check_init__(self):
        for name in ("num_ar", "num_ma", "num_exogenous"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        check_counts(max_steps=self.max_steps)

    def modelled(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The series of a panel that are returns."""
        return names[: len(names) - self.num_exogenous]

    def regressors(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the regressors of every equation, in the order of `coefficients`."""
        returns = self.modelled(names)
        own = [f"{name}[{lag}]" for lag in range(1, self.num_ar + 1) for name in returns]
        given = [f"{name}[1]" for name in names[len(returns) :]]
        moving = [f"e.{name}[{lag}]" for lag in range(1, self.num_ma + 1) for name in returns]
        return ("constant", *own, *given, *moving)

    def check(self, panel: "Panel") -> None:
        """Raise `ValueError` if the mean cannot be estimated on `panel` (host side)."""
        if self.num_exogenous >= len(panel.names):
            raise ValueError(
                f"num_exogenous={self.num_exogenous} leaves none of the {len(panel.names)} series "
                "of the panel to model; returns come first, exogenous series last."
            )
        refuse_sums(panel.aggregation, "a mean")
        returns = self.modelled(panel.names)
        for place in range(len(returns), len(panel.names)):
            seen = panel.values[panel.observed[:, place], place]
            if seen.size == 0 or np.ptp(seen) <= 1e-12 * np.max(np.abs(seen)):
                raise ValueError(f"exogenous series {panel.names[place]!r} is constant; drop it.")
        number = len(self.regressors(panel.names))
        # A moving average divides by a covariance of residuals, which needs a rank of its own.
        needed = number + (len(returns) if self.num_ma else 1)
        counts = np.asarray(self.known(jnp.asarray(panel.observed))).sum(axis=0)
        for name, count in zip(returns, counts, strict=True):
            if count < needed:
                raise ValueError(
                    f"series {name!r} has {count} rows in which it and all regressors of its mean "
                    f"are observed, for {number} coefficients; at least {needed} are needed. Use a "
                    "longer sample, fewer lags, fewer series, or series without holes."
                )

    def rows(self, values: Float[Array, "time all"], observed: Bool[Array, "time all"]) -> Rows:
        """Values, regressors, and where both are observed."""
        return rows_of(values, observed, self.num_exogenous, self.num_ar)

    def known(self, observed: Bool[Array, "time all"]) -> Bool[Array, "time series"]:
        """Where residuals are known."""
        return known_cells(observed, self.num_exogenous, self.num_ar)

    def estimate(
        self, values: Float[Array, "time all"], observed: Bool[Array, "time all"]
    ) -> MeanEstimate:
        """Least squares or, with a moving average, maximum likelihood; pure."""
        # In units in which all means are zero and all variances one.
        values = jnp.where(observed, values, 0.0)
        centre = jnp.mean(values, axis=0, where=observed)
        scale = jnp.std(values, axis=0, where=observed)
        scale = jnp.where(scale > 0.0, scale, 1.0)
        units = (values - centre) / scale
        rows = self.rows(units, observed)
        found, num_steps, result = least_squares(rows), jnp.asarray(0), SUCCESSFUL
        if self.num_ma:
            found, num_steps, result = self.by_likelihood(units, observed, rows, found)
        parameters = self.restored(found, centre, scale)
        stable = is_stable(parameters.varma.ar) & is_stable(-parameters.varma.ma)
        result = select(stable, result, cast(RESULTS, RESULTS.nonstationary))
        finite = jnp.all(jnp.isfinite(found))
        result = select(finite, result, cast(RESULTS, RESULTS.diverged))
        return MeanEstimate(parameters, num_steps, result)

    def by_likelihood(
        self,
        values: Float[Array, "time all"],
        observed: Bool[Array, "time all"],
        rows: Rows,
        without: Float[Array, "series columns"],
    ) -> tuple[Float[Array, "series regressors"], Int[Array, ""], RESULTS]:
        """Coefficients with a moving average, from those `without` and those of two regressions."""
        size = len(without)
        zeros = jnp.zeros((size, self.num_ma * size), without.dtype)
        simple = jnp.concatenate([without, zeros], axis=1)
        order = self.num_exogenous, self.num_ar, self.num_ma
        starts = jnp.stack([hannan_rissanen(values, observed, *order), simple])
        tolerance = self.tolerance.astype(values.dtype)
        best = conditional_likelihood(rows, starts, tolerance, self.max_steps)
        return best.parameters.reshape(size, -1), best.num_steps, best.result

    def restored(
        self,
        coefficients: Float[Array, "series regressors"],
        centre: Float[Array, " all"],
        scale: Float[Array, " all"],
    ) -> VectorMeanParameters:
        """Parameters for values v of coefficients for (v - centre) / scale."""
        size = len(coefficients)
        own, other = scale[:size], scale[size:]
        columns = [jnp.ones(1, scale.dtype), jnp.tile(own, self.num_ar), other]
        columns.append(jnp.tile(own, self.num_ma))
        scaled = own[:, None] * coefficients / jnp.concatenate(columns)
        lags, exogenous, moving = jnp.split(
            scaled[:, 1:], [self.num_ar * size, self.num_ar * size + len(other)], axis=1
        )
        ar, ma = (
            jnp.moveaxis(beside.reshape(size, number, size), 1, 0)
            for beside, number in ((lags, self.num_ar), (moving, self.num_ma))
        )
        explained = product("jab,b->a", ar, centre[:size])
        explained = explained + product("am,m->a", exogenous, centre[size:])
        intercept = centre[:size] + scaled[:, 0] - explained
        return VectorMeanParameters(Varma(intercept, ar, ma), exogenous, centre[size:])

    def residuals(
        self,
        parameters: VectorMeanParameters,
        values: Float[Array, "time all"],
        observed: Bool[Array, "time all"],
    ) -> Float[Array, "time series"]:
        """e of every row, zero where not known."""
        return residuals_of(parameters.coefficients, self.rows(values, observed))

    def completed(
        self,
        parameters: VectorMeanParameters,
        values: Float[Array, "time all"],
        observed: Bool[Array, "time all"],
        residuals: Float[Array, "time series"],
    ) -> tuple[Float[Array, "time series"], Float[Array, "time exogenous"]]:
        """Returns and x; a return that is not observed stands at its mean given the rows before,
        one before the first row at the long-run mean, an x that is not observed at its mean."""
        size = residuals.shape[1]
        given = jnp.where(observed[:, size:], values[:, size:], parameters.exogenous_mean)
        before = jnp.concatenate([parameters.exogenous_mean[None], given])[:-1]
        returns, seen = jnp.where(observed[:, :size], values[:, :size], 0.0), observed[:, :size]
        varma = parameters.varma
        inputs = varma.intercept + product("tm,im->ti", before, parameters.exogenous)
        for lag in range(1, self.num_ma + 1):
            earlier = lagged(residuals, lag)
            inputs = inputs + product("tb,ab->ta", earlier, varma.ma[lag - 1])
        if self.num_ar == 0:
            return jnp.where(seen, returns, inputs), given

        def step(lags, row):
            expected, value, known = row
            expected = expected + product("jab,jb->a", varma.ar, lags)
            value = jnp.where(known, value, expected)
            return push(lags, value), value

        start = jnp.broadcast_to(parameters.long_run, (self.num_ar, size))
        return jax.lax.scan(step, start, (inputs, returns, seen))[1], given
