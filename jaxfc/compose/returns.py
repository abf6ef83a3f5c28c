"""Returns explained by their own lags and by lags of the factors of a panel: the ARX model."""

import dataclasses
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.compose.arx_checks import check_arx_selection, check_column, check_minima, check_target
from jaxfc.compose.arx_forecast import decomposed_forecast, simulate_returns
from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.compose.lag_selection import choose_lags, expected_moments, expected_variance
from jaxfc.compose.regression import Sizes, active_columns, row_weights
from jaxfc.compose.trajectories import Trajectories
from jaxfc.counts import check_counts
from jaxfc.factors import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.candidate import Candidate
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.methods import PCA
from jaxfc.factors.paths import path_moments
from jaxfc.factors.select import select_sizes
from jaxfc.factors.selection import Padding, SelectionRule
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class SizeSelection(eqx.Module):
    """The sizes of a `FactorARX` are the largest ones, and each estimation chooses its own.

    `factors` chooses the numbers of factors and of their lags (None: as the factor model says);
    then own lags and factor lags by the AIC that is adjusted for the factors' uncertainty, from
    `min_own_lags` and `min_factor_lags` on. `padding`: see `select_model`; "class" pays where many
    windows run on a processor's cores, not on an accelerator.
    """

    factors: SelectionRule | None = eqx.field(default_factory=SelectionRule)
    min_own_lags: int = eqx.field(static=True, default=0, kw_only=True)
    min_factor_lags: int = eqx.field(static=True, default=1, kw_only=True)
    padding: Padding = eqx.field(static=True, default="largest", kw_only=True)


class FactorARX(Model):
    """A return on its own lags and on lags of the factors of the other series.

        r_t = alpha + sum_{i=1..q} beta_i r_{t-i} + sum_{i=1..s} gamma_i' f_{t-i} + e_t

    with q = `num_own_lags`, s = `num_factor_lags` and f the factors of `factors`, a dynamic factor
    model of the panel without `target` (with it, if `target_in_panel`); `factors=None`: an
    autoregression. Forecasts are draws by `intervals` and come in parts (`DecomposedForecast`), of
    the target alone, in its units.

    **Raises** (from `fit`): `ValueError` for an unknown target, one of another frequency, one whose
    last values are missing, too few rows, and whatever the factor model refuses.

    Source: Defend et al. (2021), equations 21 to 23.
    """

    target: str | int = eqx.field(static=True)
    factors: DynamicFactorModel | None
    num_own_lags: int = eqx.field(static=True, default=1)
    num_factor_lags: int = eqx.field(static=True, default=1)
    selection: SizeSelection | None = eqx.field(default=None, kw_only=True)
    intervals: Trajectories = eqx.field(default_factory=Trajectories, kw_only=True)
    target_in_panel: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        if self.num_own_lags < 0 or self.num_factor_lags < 0:
            raise ValueError(
                "num_own_lags and num_factor_lags must be at least 0, got "
                f"{self.num_own_lags} and {self.num_factor_lags}."
            )
        if (self.factors is None) != (self.num_factor_lags == 0):
            raise ValueError(
                "factors=None and num_factor_lags=0 go together: an autoregression has neither."
            )
        if self.selection is not None:
            check_minima(self)
        if self.factors is None:
            return
        if isinstance(self.factors.method, PCA):
            raise ValueError(
                "the factors of PCA() have no law given the panel to draw from; use EM() or PPCA()."
            )
        if self.num_factor_lags > max(self.factors.num_lags, 1):
            raise ValueError(
                f"num_factor_lags={self.num_factor_lags} exceeds the {self.factors.num_lags} lags "
                "of the factors' VAR: more lags of the factors are not identified."
            )

    @property
    def max_factors(self) -> int:
        """The largest number of factors."""
        return 0 if self.factors is None else self.factors.num_factors

    def position(self, names: tuple[str, ...]) -> int:
        """Column of the target."""
        if isinstance(self.target, int):
            check_column(self.target, len(names))
            return self.target
        if self.target not in names:
            raise ValueError(f"there is no series {self.target!r} in the panel to forecast.")
        return names.index(self.target)

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return (names[self.position(names)],)

    def factor_names(self, names: tuple[str, ...]) -> list[str]:
        """The series that the factors are of."""
        place = self.position(names)
        return [n for i, n in enumerate(names) if i != place or self.target_in_panel]

    def resolved(self, panel: "Panel") -> "FactorARX":
        place, factors = self.position(panel.names), self.factors
        if factors is not None:
            factors = factors.resolved(panel.select(self.factor_names(panel.names)))
        return dataclasses.replace(self, target=place, factors=factors)

    def check(self, panel: "Panel") -> None:
        place = self.position(panel.names)
        check_target(self, panel, place)
        if self.factors is not None:
            others = panel.select(self.factor_names(panel.names))
            check_arx_selection(self, others)
            self.factors.check(others)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedFactorARX":
        data = self.split(values, observed, aggregation)
        scale = jnp.sqrt(jnp.sum(data.returns**2) / jnp.sum(data.seen))
        sizes, factors = self.fit_factors(data)
        returns = data.returns / scale
        if factors is None:
            means = jnp.zeros((returns.size, 0), returns.dtype)
            lag_covs = jnp.zeros((1, returns.size, 0, 0), returns.dtype)
        else:
            moments = path_moments(factors, fitted_data(factors))
            means, lag_covs = moments.means, moments.lag_covs
        numbers, found = (self.num_own_lags, self.num_factor_lags), jnp.asarray(True)
        if self.selection is not None:
            least = self.selection.min_own_lags, self.selection.min_factor_lags
            choice = choose_lags(returns, data.seen, means, lag_covs, sizes, *numbers, *least)
            found = jnp.isfinite(jnp.min(choice.aic))
            sizes = eqx.tree_at(
                lambda s: (s.num_own_lags, s.num_factor_lags),
                sizes,
                (choice.num_own_lags, choice.num_factor_lags),
            )
        active, weights = self.used(data, sizes)
        expected = expected_moments(returns, weights, means, lag_covs, *numbers)
        variance = expected_variance(expected, active)
        loglik = -0.5 * expected.count * (jnp.log(2.0 * jnp.pi * variance * scale**2) + 1.0)
        result = SUCCESSFUL if factors is None else factors.result
        # No admissible candidate, or no return to start from, is a failure and no smaller model.
        fine = jnp.isfinite(loglik) & found & ~jnp.any(self.unknown_lags(data, sizes))
        result = select(fine, result, cast(RESULTS, RESULTS.diverged))
        return FittedFactorARX(
            model=self,
            factors=factors,
            data=data,
            now=None,
            sizes=sizes,
            scale=scale,
            loglik=loglik,
            num_steps=jnp.asarray(0) if factors is None else factors.num_steps,
            result=result,
        )

    def used(
        self, data: "ReturnData", sizes: Sizes
    ) -> tuple[Bool[Array, " regressors"], Float[Array, " time"]]:
        """Columns that a model of these sizes has, and the weights of the rows it can use."""
        lags = sizes.num_own_lags, sizes.num_factor_lags
        active = active_columns(sizes, self.max_factors, self.num_own_lags, self.num_factor_lags)
        return active, row_weights(data.seen, *lags, self.num_own_lags, data.returns.dtype)

    def unknown_lags(self, data: "ReturnData", sizes: Sizes) -> Bool[Array, " lags"]:
        """Which of r_T, r_{T-1}, ... a forecast would start from and were not observed."""
        used = jnp.arange(1, self.num_own_lags + 1) <= sizes.num_own_lags
        return used & ~data.seen[::-1][: self.num_own_lags]

    def split(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        aggregation: AggregationRows | None,
    ) -> "ReturnData":
        """The target apart from the series that the factors are of."""
        if not isinstance(self.target, int):
            raise ValueError(
                f"target={self.target!r} is a name, which only a panel can place; use fit, or "
                "model.resolved(panel).estimate(...)."
            )
        check_column(self.target, values.shape[1])
        columns = np.asarray(
            [i for i in range(values.shape[1]) if i != self.target or self.target_in_panel],
            dtype=int,  # there may be none
        )
        if aggregation is not None:
            aggregation = aggregation._replace(group=aggregation.group[columns])
        seen = observed[:, self.target]
        returns = jnp.where(seen, values[:, self.target], 0.0)
        return ReturnData(returns, seen, values[:, columns], observed[:, columns], aggregation)

    def fit_factors(self, data: "ReturnData") -> tuple[Sizes, FittedFactorModel | None]:
        """The factor model of the panel, of the sizes that the selection says."""
        model = self.factors
        numbers = jnp.asarray(self.num_own_lags), jnp.asarray(self.num_factor_lags)
        if model is None:
            return Sizes(jnp.asarray(0), jnp.asarray(0), *numbers), None
        largest = model.num_factors, model.num_lags
        if self.selection is None or self.selection.factors is None:
            fitted = model.estimate(data.values, data.observed, aggregation=data.aggregation)
            return Sizes(jnp.asarray(largest[0]), jnp.asarray(largest[1]), *numbers), fitted
        chosen = select_sizes(
            model,
            data.values,
            data.observed,
            *largest,
            rule=self.selection.factors,
            aggregation=data.aggregation,
            padding=self.selection.padding,
        )
        num_factors, num_lags = chosen.num_factors, chosen.num_lags
        failed = (num_factors < 1) | (num_lags < 0)
        num_factors, num_lags = jnp.maximum(num_factors, 1), jnp.maximum(num_lags, 0)
        candidate = Candidate(
            factors=jnp.arange(largest[0]) < num_factors,
            lags=jnp.arange(largest[1]) < num_lags if largest[1] else None,
        )
        fitted = model.estimate_from(
            data.values, data.observed, aggregation=data.aggregation, candidate=candidate
        )
        result = select(failed, cast(RESULTS, RESULTS.diverged), fitted.result)
        return Sizes(num_factors, num_lags, *numbers), dataclasses.replace(fitted, result=result)


class ReturnData(eqx.Module):
    """Returns (zero where not `seen`), and the panel that the factors are of."""

    returns: Float[Array, " time"]
    seen: Bool[Array, " time"]
    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    aggregation: AggregationRows | None


class FittedFactorARX(Fitted):
    """An estimated ARX model.

    `factors` is the fitted factor model; `data` what was fitted, on which each trajectory estimates
    its coefficients; `now` the data that forecasts start from where they differ (`given`); `scale`
    the root mean square of the returns, in whose units the regression runs. `loglik` is that of the
    regression on the factors' expected moments.
    """

    model: FactorARX
    factors: FittedFactorModel | None
    data: ReturnData
    now: "tuple[ReturnData, FittedFactorModel | None] | None"
    sizes: Sizes
    scale: Float[Array, ""]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> DecomposedForecast:
        if key is None:
            raise ValueError("the forecast of an ARX model is drawn; pass key=jax.random.key(...).")
        check_counts(horizon=horizon)
        return decomposed_forecast(self, horizon, key=key)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time target"]:
        return simulate_returns(self, num_steps, key=key)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedFactorARX":
        now = self.model.split(values, observed, aggregation)
        factors = None
        if self.factors is not None:
            factors = self.factors.given(now.values, now.observed, aggregation=now.aggregation)
        unknown = jnp.any(self.model.unknown_lags(now, self.sizes))
        result = select(unknown, cast(RESULTS, RESULTS.diverged), self.result)
        return dataclasses.replace(self, now=(now, factors), result=result)

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.model.forecast_names(names)

    def details(self) -> dict[str, Array]:
        sizes = self.sizes
        return {name: getattr(sizes, name) for name in Sizes.__dataclass_fields__}
