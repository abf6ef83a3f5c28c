"""The M6 model as a `Model`: from a panel of asset returns to joint draws of the next ones."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.bayes.asset_panel_rows import (
    AssetColumns,
    NextRow,
    Standardised,
    columns_of,
    standardised,
)
from jaxfc.bayes.asset_paths import AssetPaths, draw_paths, simulate_rows
from jaxfc.bayes.asset_returns import AssetFactorProgram, AssetRows
from jaxfc.bayes.diagnostics import Diagnostics, Limits, diagnose
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.factor_dynamics import FactorDynamics, FirstOrder
from jaxfc.bayes.factor_scales import FactorScale, RecentScale
from jaxfc.bayes.loading_priors import LearnedScale, LoadingPrior
from jaxfc.bayes.m6_checks import check_asset_panel, check_classes
from jaxfc.bayes.past_weights import EqualWeights, PastWeights
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# The log likelihood of a draw, beside what the data identify.
LOGLIK = "loglik"


def long_paths(num_draws: int = 1000) -> PooledHMC:
    """Chains for posteriors of many assets: hardly noisy assets are narrow valleys, in which long
    paths pay (on 100 assets and 234 rows, 56 instead of 40 steps took the tenth smallest effective
    size of 4 x 1000 draws from 480 to 920)."""
    return PooledHMC(num_draws=num_draws, num_warmup=400, num_leapfrogs=64, target_accept=0.65)


class M6Model(Model):
    """Returns of many assets on latent factors, by asset class, with fat tails.

        r_it = a_i + b_i x_it + sum_k w_ik z_kt + sigma_it u_it,        u_it ~ t(nu_i)
        ln sigma_it = theta_i + d_i v_it + g_i I_it
        z_t by `dynamics`, w by `loading_prior`, the size of the shocks of z by `factor_scale`

    The panel has one column for each asset of `classes` (asset -> name of its class) with its
    simple return, and, where they are known, "<asset> recent return", "<asset> recent volatility"
    and "<asset> earnings ahead" (`asset_panel` builds it): row t holds what is known at its end and
    explains row t + 1. `past` weighs the rows; missing returns are left out of the likelihood.
    `inference` draws from the posterior; a forecast has `num_replicates` futures for each draw.
    `columns` is set from a panel (`resolved`).

    Estimation costs one gradient per leapfrog step, O(time x assets x factors).

    **Raises** (from `fit`): `ValueError` for an asset of `classes` without column, one that is
    never observed or whose returns are constant, a column that belongs to nothing, too few rows,
    a missing key.

    Source: Weitzenfeld (2025), International Journal of Forecasting 41(4), 1477-1484; learnt scales
    of the loadings and moving scales of the factors are additions (`FixedScale()`,
    `ConstantScale()` are the published choices), as are priors free of units, log-normal degrees of
    freedom, class means of intercepts and a stationary first row.
    """

    classes: tuple[tuple[str, str], ...] = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    dynamics: FactorDynamics
    loading_prior: LoadingPrior
    factor_scale: FactorScale
    past: PastWeights
    inference: Inference
    limits: Limits
    num_replicates: int = eqx.field(static=True)
    columns: AssetColumns | None

    def __init__(
        self,
        classes: Mapping[str, str] | tuple[tuple[str, str], ...],
        *,
        num_factors: int = 7,
        dynamics: FactorDynamics | None = None,
        loading_prior: LoadingPrior | None = None,
        factor_scale: FactorScale | None = None,
        past: PastWeights | None = None,
        inference: Inference | None = None,
        limits: Limits | None = None,
        num_replicates: int = 1,
        columns: AssetColumns | None = None,
    ):
        classes = dict(classes)
        check_classes(classes, num_factors)
        check_counts(num_replicates=num_replicates)
        self.classes = tuple(classes.items())
        self.num_factors = num_factors
        self.dynamics = FirstOrder() if dynamics is None else dynamics
        self.loading_prior = LearnedScale() if loading_prior is None else loading_prior
        self.factor_scale = RecentScale() if factor_scale is None else factor_scale
        self.past = EqualWeights() if past is None else past
        self.inference = long_paths() if inference is None else inference
        self.limits = Limits() if limits is None else limits
        self.num_replicates = num_replicates
        self.columns = columns

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets, in the order of the forecast."""
        return tuple(asset for asset, _ in self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order in which they are first met."""
        return tuple(dict.fromkeys(name for _, name in self.classes))

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.assets

    def resolved(self, panel: "Panel") -> "M6Model":
        return dataclasses.replace(self, columns=columns_of(panel.names, self.assets))

    def check(self, panel: "Panel") -> None:
        check_asset_panel(self, panel)

    def data(
        self, values: Float[Array, "time columns"], observed: Bool[Array, "time columns"]
    ) -> Standardised:
        """The panel in the units of the model."""
        if self.columns is None:
            raise ValueError(
                "which columns are returns only a panel can tell; use fit, or "
                "model.resolved(panel).estimate(...)."
            )
        return standardised(values, observed, self.columns, self.past)

    def program(self, rows: AssetRows) -> AssetFactorProgram:
        """The posterior of the parameters given the rows, as samplers see it."""
        assert self.columns is not None
        number = {name: i for i, name in enumerate(self.class_names)}
        return AssetFactorProgram(
            rows=rows,
            classes=jnp.asarray([number[name] for _, name in self.classes]),
            dynamics=self.dynamics,
            loading_prior=self.loading_prior,
            factor_scale=self.factor_scale,
            num_classes=len(number),
            num_factors=self.num_factors,
            features=self.columns.names,
        )

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedM6":
        key = required_key(key, "the posterior is drawn")
        refuse_sums(aggregation, "M6Model")
        data = self.data(values, observed)
        draws = self.inference.sample(self.program(data.rows), key=key)
        return self.concluded(data, draws)

    def concluded(self, data: Standardised, draws: PosteriorDraws) -> "FittedM6":
        """The fitted model of these draws, with their diagnostics and its verdict."""
        program = self.program(data.rows)
        measured = draws.map(lambda p: {**program.identified(p), LOGLIK: program.log_likelihood(p)})
        loglik = jnp.mean(measured.pop(LOGLIK))
        diagnostics = diagnose(draws, measured, limits=self.limits)
        result = select(draws.result == SUCCESSFUL, diagnostics.result, draws.result)
        counted = data.rows.weights > 0.0
        units = jnp.sum(data.rows.weights * jnp.where(counted, jnp.log(data.scale), 0.0))
        return FittedM6(
            model=self,
            draws=draws,
            diagnostics=diagnostics,
            ahead=data.ahead,
            scale=data.scale,
            loglik=loglik - units,
            num_steps=draws.num_steps,
            result=result,
        )


class FittedM6(Fitted):
    """Draws of the M6 model's posterior and what its forecasts need.

    `draws` of the parameters in units of `scale`, each asset's robust standard deviation; `ahead`
    what is known of the next row; `loglik` the posterior mean of the (weighted) log likelihood in
    the units of the data. `result` is the verdict of `diagnostics`.
    """

    model: M6Model
    draws: PosteriorDraws
    diagnostics: Diagnostics
    ahead: NextRow
    scale: Float[Array, " series"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> SampleForecast:
        key = required_key(key, "the forecast is drawn")
        return SampleForecast(self.paths(horizon, key=key).returns)

    def paths(self, horizon: int, *, key: PRNGKeyArray) -> AssetPaths:
        """Draws of the next `horizon` rows, with what was expected of them given the factors.

        Features are known for the first row only; in later rows recent returns and volatilities
        count as their mean, and no earnings are due.
        """
        check_counts(horizon=horizon)
        return draw_paths(self, horizon, key=key)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        return simulate_rows(self, num_steps, key=key)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedM6":
        raise ValueError(
            "the factors of each draw belong to the rows that were fitted; fit the new panel, from "
            "inference=warm_start(fitted, ...) if it is the old one moved on."
        )

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.model.assets

    def details(self) -> dict[str, Array]:
        found = self.diagnostics
        return {
            "max_rhat": found.max_rhat,
            "min_bulk_ess": found.min_bulk_ess,
            "num_divergent": found.num_divergent,
            "pareto_k": found.pareto_k,
        }
