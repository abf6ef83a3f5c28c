"""The hierarchical vector autoregression: own, market and sector lags, shrunk from level to
level."""

import dataclasses
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.hierarchy.panel_checks import check_horizon, check_sectors
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.shrunk_regression import (
    ShrunkRegression,
    regressions_of,
    shrunk_regression,
)
from jaxfc.hierarchy.three_levels import sectors_of
from jaxfc.hierarchy.var_errors import ERRORS, error_law
from jaxfc.hierarchy.var_forecast import ErrorLaw, ResponseForecast
from jaxfc.hierarchy.var_regressors import NUM_KINDS, Membership, Recursion, regressors_of
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Rows of a simulation that are thrown away.
BURN_IN = 300


class HierarchicalVAR(Model):
    """Returns on their own past, that of the market and that of their sector.

        R_it = a_i + sum_{l <= p} (phi_il R_i,t-l + g_il M_i,t-l + d_il S_i,t-l) + e_it
        (a_i, phi_i', g_i', d_i')' ~ N(th_s, Lam_s),     th_s ~ N(th_0, Om),     e_it ~ N(0, v_i)

    S_it is the average return of the other assets of i's sector, M_it that of the assets of other
    sectors, both with `weights`, so that no regressor contains another: (1 + 3 p) n coefficients
    instead of p n^2. The only asset of a sector has no S, and with one sector there is no M: that
    regressor is zero then, and its coefficient, which multiplies nothing, that of the level above.

    `weights`: (series,), or (time, series) for weights of each date, row t weighing the returns of
    row t (known at its start: those of the end of t - 1); the panel must then have these rows, so
    a backtest takes them over masks of one panel, not over windows. Forecasts use the last.
    `shrinkage`, `pseudo_rows` as in `Shrinkage` and `shrunk_regression`. `errors`: "diagonal",
    "sectors" or "sample" correlations of e (see `error_law`).

    Holes: averages are over the assets observed on that date, weights renormalised. An equation
    counts in the rows in which its return, its own lags and the averages of its lags are known:
    `counts` says how many, asset by asset. A forecast starts from returns that stand, where not
    observed, at their expectation given the rows before.

    Roots on or outside the unit circle have the result code `nonstationary`; `spectral_radius`
    holds the largest modulus.

    **Raises** (from `fit`): `ValueError` for sectors or weights that do not fit the panel, naming
    the series; panels with sums over periods, with no more rows than lags.

    Source: Pesaran, Schuermann and Weiner (2004) for starred variables; Swamy (1970) for shrinkage.
    """

    sectors: Int[Array, " series"] = eqx.field(converter=jnp.asarray)
    num_sectors: int = eqx.field(static=True)
    weights: Float[Array, " series"] | Float[Array, "time series"] = eqx.field(
        converter=jnp.asarray
    )
    num_lags: int = eqx.field(static=True, default=1)
    shrinkage: Shrinkage = eqx.field(default_factory=Shrinkage, kw_only=True)
    pseudo_rows: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0, kw_only=True)
    errors: str = eqx.field(static=True, default="sectors", kw_only=True)

    def __check_init__(self):
        check_counts(num_sectors=self.num_sectors, num_lags=self.num_lags)
        if self.errors not in ERRORS:
            raise ValueError(f"errors must be one of {ERRORS}, got {self.errors!r}.")

    @property
    def membership(self) -> Membership:
        """The sectors as the recursion takes them."""
        return Membership(self.sectors, self.num_sectors)

    def coefficient_names(self) -> tuple[str, ...]:
        """Names of the coefficients, in their order."""
        lags = range(1, self.num_lags + 1)
        kinds = ("own", "market", "sector")
        return ("constant", *(f"{kind}[{lag}]" for kind in kinds for lag in lags))

    def check(self, panel: "Panel") -> None:
        check_sectors(panel, self.sectors, self.num_sectors)
        check_weights(panel, np.asarray(self.weights), np.asarray(self.sectors))
        if len(panel.index) <= self.num_lags:
            raise ValueError(
                f"the panel has {len(panel.index)} rows for {self.num_lags} lags; use a longer one."
            )

    def weight_rows(self, num_rows: int) -> Float[Array, "time series"]:
        """Weights of every row."""
        return jnp.broadcast_to(self.weights, (num_rows, self.weights.shape[-1]))

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedHierarchicalVAR":
        weights = self.weight_rows(len(values)).astype(values.dtype)
        columns, known = regressors_of(values, observed, weights, self.membership, self.num_lags)
        known = known & observed
        found = shrunk_regression(
            regressions_of(values, known, columns),
            sectors_of(self.sectors, self.num_sectors, columns.shape[2]),
            self.shrinkage,
            self.pseudo_rows,
        )
        expected = jnp.einsum("tia,ia->ti", columns, found.law.means)
        residuals = jnp.where(known, jnp.where(known, values, 0.0) - expected, 0.0)
        recursion = self.recursion(found.law.means)
        radius = recursion.spectral_radius()
        unstable = cast(RESULTS, RESULTS.nonstationary)
        return FittedHierarchicalVAR(
            model=self,
            regression=found,
            errors=error_law(self.errors, residuals, known, found.variances, self.membership),
            history=recursion.completed(values, observed, weights),
            counts=jnp.sum(known, axis=0),
            spectral_radius=radius,
            loglik=found.law.loglik,
            num_steps=found.num_steps,
            result=select(radius < 1.0, found.result, unstable),
        )

    def recursion(self, coefficients: Float[Array, "series coefficients"]) -> Recursion:
        """The recursion of these coefficients with the last weights."""
        lags = coefficients[:, 1:].reshape(len(coefficients), NUM_KINDS, self.num_lags)
        weights = self.weights if self.weights.ndim == 1 else self.weights[-1]
        weights = weights.astype(coefficients.dtype)
        return Recursion(coefficients[:, 0], lags.transpose(2, 1, 0), weights, self.membership)


def check_weights(panel: "Panel", weights: np.ndarray, members: np.ndarray) -> None:
    """Raise `ValueError` unless weights fit the panel, are not negative and weigh every sector."""
    shapes = (len(panel.names),), (len(panel.index), len(panel.names))
    if weights.shape not in shapes:
        raise ValueError(
            f"weights must have shape {shapes[0]} or, one row a date, {shapes[1]}; got "
            f"{weights.shape}."
        )
    fine = np.isfinite(weights) & (weights >= 0.0)
    bad = ~fine.reshape(-1, len(panel.names)).all(axis=0)
    if bad.any():
        names = [panel.names[i] for i in np.flatnonzero(bad)]
        raise ValueError(f"the weights of {names} are negative or not finite.")
    for sector in np.unique(members):
        if not weights[..., members == sector].sum(axis=-1).all():
            names = [panel.names[i] for i in np.flatnonzero(members == sector)]
            raise ValueError(f"all weights of sector {sector} ({names}) are zero; drop it.")


class FittedHierarchicalVAR(Fitted):
    """An estimated hierarchical autoregression.

    `regression.law` holds coefficients of assets, sectors and market in the order of
    `model.coefficient_names()`; `counts` (series,) the rows each equation was estimated from.
    """

    model: HierarchicalVAR
    regression: ShrunkRegression
    errors: ErrorLaw
    history: Float[Array, "lags kinds series"]
    counts: Int[Array, " series"]
    spectral_radius: Float[Array, ""]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def recursion(self) -> Recursion:
        """The recursion of the means of the coefficients."""
        return self.model.recursion(self.regression.law.means)

    @property
    def level_weights(self) -> Float[Array, "levels series"]:
        """Weights of the market and of each sector, adding up to one."""
        weights = self.recursion.weights
        places = jnp.arange(self.model.num_sectors)[:, None] == self.model.sectors
        rows = jnp.concatenate([weights[None], jnp.where(places, weights, 0.0)])
        return rows / jnp.sum(rows, axis=1, keepdims=True)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> ResponseForecast:
        """The next `horizon` rows, given the means of the coefficients: O(horizon series^2).

        Market and sectors are its weighted sums: `.aggregate(fitted.level_weights)`, or
        `forecast_levels`, which costs no series^2. **Raises:** `ValueError` for a horizon below 1,
        or a key: the law has a closed form.
        """
        check_horizon(horizon, key)
        return self.law_ahead(horizon)

    # Under `jit`, as a loop by itself is compiled anew at every call.
    @eqx.filter_jit
    def law_ahead(self, horizon: int) -> ResponseForecast:
        """What `forecast` answers."""
        identity = jnp.eye(self.history.shape[2], dtype=self.history.dtype)
        responses = self.recursion.responses(identity, horizon)
        return ResponseForecast(self.mean_path(horizon), responses, self.errors)

    @eqx.filter_jit
    def forecast_levels(
        self, horizon: int, weights: Float[Array, "out series"] | None = None
    ) -> ResponseForecast:
        """The law of combinations of the assets, left out: market and sectors, in
        O(horizon^2 out series)."""
        check_counts(horizon=horizon)
        weights = self.level_weights if weights is None else weights
        recursion = self.recursion

        def responses(shock: Array) -> Array:
            return recursion.responses(shock[:, None], horizon)[:, :, 0]

        back = jax.linear_transpose(responses, self.history[0, 0])
        steps = jnp.eye(horizon, dtype=weights.dtype)
        sides = steps[:, None, :, None] * weights[:, None, :]
        rows = jax.vmap(jax.vmap(lambda side: back(side)[0]))(sides)
        return ResponseForecast(self.mean_path(horizon) @ weights.T, rows, self.errors)

    def mean_path(self, horizon: int) -> Float[Array, "horizon series"]:
        """Expectations of the next rows."""
        zeros = jnp.zeros((horizon, self.history.shape[2]), self.history.dtype)
        return self.recursion.path(self.history, zeros)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        shocks = self.errors.draw((BURN_IN + num_steps,), key=key)
        return self.recursion.path(jnp.zeros_like(self.history), shocks)[BURN_IN:]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedHierarchicalVAR":
        weights = self.model.weight_rows(len(values)).astype(values.dtype)
        return dataclasses.replace(
            self, history=self.recursion.completed(values, observed, weights)
        )

    def details(self) -> dict[str, Array]:
        return {"spectral_radius": self.spectral_radius}
