"""From returns of many assets to portfolios in one differentiable program: factors with dynamic
covariances, sums over the month, reconciliation, weights, and what they earn."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.compose.factor_dcc import FactorDCC, FittedFactorDCC
from jaxfc.compose.factor_forecast import FactorVolatilityForecast
from jaxfc.compose.held_portfolio import HeldPortfolio, hold
from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, GaussianForecast
from jaxfc.hierarchy import Hierarchy, Method, MinT, reconcile
from jaxfc.results import RESULTS, is_okay
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc.volatility import Target


@runtime_checkable
class MomentRule(Protocol):
    """What the chain asks of a portfolio rule, e.g. `jaxfc.trading.MinimumVariance()`."""

    def from_moments(self, mean: Array, cov: Array) -> Any:
        """An answer with `weights` and a `result` code."""
        ...


class ChainStep(NamedTuple):
    """The chain at one origin: `weights` (NaN where the rule found none), mean and covariance of
    the assets over the holding period, and what became of the estimation."""

    weights: Float[Array, " series"]
    mean: Float[Array, " series"]
    cov: Float[Array, "series assets"]
    result: RESULTS


class ChainPath(NamedTuple):
    """The chain over all origins: what the portfolio earned; at each origin its predicted
    `variance` over the holding period, the row of the origin, and the result of the estimation."""

    portfolio: HeldPortfolio
    variance: Float[Array, " periods"]
    origins: Int[Array, " periods"]
    result: RESULTS


class PortfolioChain(eqx.Module):
    """Portfolio weights from a covariance of many assets that was put together from parts.

        x_t = (A r_t, r_t)              nodes: groups and assets, A the sums of the `hierarchy`
        x_t = mu + L f_t + e_t          `model`: factors, DCC of their innovations, GARCH of e
        s   = x_{T+1} + ... + x_{T+h}   Var s = L F L' + D C D,    h = `horizon`
        s~  = M s                       M the projection by `method`, MinT: in the metric of Var s
        w   = rule(E r~, Var r~)        r~ the assets in s~

    F is the covariance of the summed factors, D^2 the variances of the summed errors. C is the
    correlation of the standardised errors by `errors`, e.g. LinearShrinkage(intensity); None: I,
    as `FactorDCC` has it. An intensity of one is I too. The own error of a group is close to the
    sum of those of its assets: taken as independent (C = I) it counts as news beside them, and the
    reconciled variance of the group comes out too small, by up to half of its own part. With an
    intensity below one the correlations of the sample say how much of it is news.

    Everything is a pure function of arrays: `jit`, `vmap` over windows, derivatives by data and by
    every number in the parts, through the estimation. Rows are simple returns of a day or a week;
    their sum stands for the return over the holding period. A group is observed where all its
    assets are.

    **Arguments:** `rule`: a rule of `jaxfc.trading` that reads moments. A group of one asset would
    be that asset twice: leave it out of the hierarchy.

    **Raises:** `ValueError` for a hierarchy with weights that differ from step to step, and a
    horizon below 1.

    Source: the parts, put together; MinT: Wickramasuriya, Athanasopoulos and Hyndman (2019).
    """

    model: FactorDCC
    hierarchy: Hierarchy
    rule: MomentRule
    errors: Target | None = None
    method: Method = eqx.field(default_factory=lambda: MinT("forecast"), kw_only=True)
    horizon: int = eqx.field(static=True, default=21, kw_only=True)

    def __check_init__(self):
        check_counts(horizon=self.horizon)
        if self.hierarchy.num_steps is not None:
            raise ValueError(
                "the hierarchy has weights for each step; the chain sums over the steps, so give "
                "it one set of weights (hierarchy.step(index))."
            )

    def nodes(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[Float[Array, "time nodes"], Bool[Array, "time nodes"]]:
        """Groups and assets, and where they are observed."""
        members = self.hierarchy.summing.matrix() != 0.0
        absent = (~observed).astype(values.dtype) @ members.T.astype(values.dtype)
        seen = jnp.concatenate([absent == 0.0, observed], axis=1)
        return self.hierarchy.aggregate(jnp.where(observed, values, 0.0)), seen

    def base_law(self, fitted: FittedFactorDCC) -> GaussianForecast:
        """Mean and covariance of the summed rows of all nodes, one step of a `Forecast`."""
        path = fitted.forecast(self.horizon)
        assert isinstance(path, FactorVolatilityForecast)
        total = path.cumulative()
        if self.errors is None:
            cov = total.horizon_cov[-1]
        else:
            std = total.own.std[-1]
            units, known = fitted.own.filtered().standardised
            own = std[:, None] * self.errors.corr(units, known) * std
            cov = total.loadings @ total.factors.horizon_cov[-1] @ total.loadings.T + own
        return GaussianForecast(total.mean[-1:], 0.5 * (cov + cov.T)[None, :, None])

    def law(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[Forecast, RESULTS]:
        """The reconciled law of all nodes over the holding period, and the estimation's result."""
        fitted = self.model.estimate(*self.nodes(values, observed))
        coherent = reconcile(self.base_law(fitted), self.hierarchy, self.method, missing=())
        return coherent, fitted.result

    def step(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> ChainStep:
        """Weights at the end of these rows."""
        law, result = self.law(values, observed)
        first = len(self.hierarchy.aggregates)
        mean, cov = law.mean[0, first:], law.cov[0, first:, 0, first:]
        found = self.rule.from_moments(mean, cov)
        weights = jnp.where(is_okay(found.result), found.weights, jnp.nan)
        return ChainStep(weights, mean, cov, result)

    def run(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        window: int,
        *,
        cost: float | Float[Array, ""] = 0.0,
        batch_size: int | None = None,
    ) -> ChainPath:
        """Weights and returns over rolling origins, every window of `window` rows estimated anew.

        Origins are the rows window - 1, window - 1 + h, ...; the portfolio of an origin is held for
        the h rows that follow. Weights never see these rows. A return that is not observed counts
        as zero. `cost` as in `hold`; `batch_size`: windows side by side, None for all. An
        estimation that did not converge is in `result` and its portfolio is held all the same.

        **Raises:** `ValueError` for rows that leave no origin.
        """
        origins = origins_of(values.shape[0], window, self.horizon)

        def at(origin: Array) -> tuple[ChainStep, Array]:
            past = rows_of((values, observed), origin - window + 1, window)
            return self.step(*past), period_returns(values, observed, origin, self.horizon)

        def kept(origin: Array) -> tuple[Array, Array, Array, RESULTS]:
            step, returns = at(origin)
            variance = jnp.einsum("i,ij,j->", step.weights, step.cov, step.weights)
            return step.weights, returns, variance, step.result

        weights, returns, variance, result = map_in_batches(kept, origins, batch_size)
        return ChainPath(hold(weights, returns, cost), variance, origins, result)


def origins_of(num_times: int, window: int, horizon: int) -> Int[Array, " periods"]:
    """Rows window - 1, window - 1 + horizon, ... that have `horizon` rows after them.

    **Raises:** `ValueError` if there are none, and for counts below 1.
    """
    check_counts(window=window, horizon=horizon)
    if num_times < window + horizon:
        raise ValueError(
            f"{num_times} rows leave no origin: a window of {window} rows and {horizon} rows to "
            f"hold need {window + horizon}; shorten the window."
        )
    return jnp.arange(window - 1, num_times - horizon, horizon)


def rows_of(arrays: tuple[Array, ...], start: Array, number: int) -> tuple[Array, ...]:
    """`number` rows of each array from row `start` on."""
    return tuple(jax.lax.dynamic_slice_in_dim(array, start, number) for array in arrays)


def period_returns(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    origin: Int[Array, ""],
    horizon: int,
) -> Float[Array, " series"]:
    """Simple returns of holding each series over the `horizon` rows after `origin`."""
    later, seen = rows_of((values, observed), origin + 1, horizon)
    return jnp.expm1(jnp.sum(jnp.log1p(jnp.where(seen, later, 0.0)), axis=0))
