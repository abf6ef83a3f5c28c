"""Models of the conditional mean and variance of every series of a panel by itself."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL
from jaxfc.serialisation_tree import names_of
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc.volatility.checks import check_returns
from jaxfc.volatility.forecast import VolatilityForecast
from jaxfc.volatility.horizon import Varma, impulse_responses
from jaxfc.volatility.innovations import Innovations, Normal
from jaxfc.volatility.likelihood import (
    CONVENTIONS,
    Convention,
    Filtered,
    Series,
    Specification,
    maximise,
)
from jaxfc.volatility.mean import ConstantMean, MeanProcess
from jaxfc.volatility.search import judged
from jaxfc.volatility.simulate import check_source, resampled, simulate_ahead, simulate_long
from jaxfc.volatility.variance import GARCH, VarianceProcess
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class VarianceModel(Model):
    """Each series with its own conditional mean and variance, estimated by maximum likelihood.

        x_t = m_t + e_t,     e_t = sqrt(s_t) z_t,     z_t independent, E z = 0, E z^2 = 1

    m_t by `mean`: ZeroMean(), ConstantMean(), AutoregressiveMean(p), jointly estimated; s_t by
    `variance`: GARCH(p, q, num_asymmetric=o), EGARCH(), APARCH(), RiskMetrics(), HAR(); z_t by
    `innovations`: Normal() (quasi-likelihood), StudentT(), SkewedT(), GED(). `start` says what
    precedes the first row ("fcp", "rugarch", "arch", see `Specification`); `targeting` sets omega
    by the mean squared residual. A row that is not observed contributes what was expected of it.

    Series are put on unit variance before the search, so the result does not depend on their
    units; parameters come back in those of the data. Correlations between series are taken as zero.

    **Raises** (from `fit`): `ValueError` for constant series, series with fewer observations than
    ten for each parameter, flows, and targeting of a process that has no target.

    Source: Bollerslev (1986); conventions as in arch 8, rugarch 1.5, tsgarch.
    """

    variance: VarianceProcess = eqx.field(default_factory=GARCH)
    mean: MeanProcess = eqx.field(default_factory=ConstantMean, kw_only=True)
    innovations: Innovations = eqx.field(default_factory=Normal, kw_only=True)
    start: Convention = eqx.field(static=True, default="fcp", kw_only=True)
    targeting: bool = eqx.field(static=True, default=False, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6, kw_only=True)
    max_steps: int = eqx.field(static=True, default=300, kw_only=True)
    initial: Float[Array, "series p"] | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        if self.start not in CONVENTIONS:
            raise ValueError(f"start must be one of {CONVENTIONS}, got {self.start!r}.")
        if self.targeting and not self.variance.can_target:
            raise ValueError(
                f"targeting=True needs a process whose long-run variance is omega / (1 - "
                f"persistence); {type(self.variance).__name__} is none."
            )
        check_counts(max_steps=self.max_steps)

    @property
    def specification(self) -> Specification:
        """What one series needs."""
        return Specification(self.mean, self.variance, self.innovations, self.start, self.targeting)

    def check(self, panel: "Panel") -> None:
        check_returns(panel, len(self.specification.names), self.mean.ar)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedVarianceModel":
        # One after the other on a core, where each series stops when it has converged and its
        # recursion stays in registers; side by side on an accelerator.
        cases = values.T, observed.T, self.initial
        parameters, logliks, num_steps, codes = jax.lax.platform_dependent(
            cases,
            cpu=lambda cases: jax.lax.map(lambda case: self.fit_series(*case), cases),
            default=lambda cases: jax.vmap(self.fit_series)(*cases),
        )
        failed = codes != SUCCESSFUL
        worst = jnp.argmax(failed)
        return FittedVarianceModel(
            model=self,
            parameters=parameters,
            values=jnp.where(observed, values, 0.0),
            observed=observed,
            logliks=logliks,
            loglik=jnp.sum(logliks),
            num_steps=jnp.max(num_steps),
            results=codes,
            result=jax.tree.map(lambda leaf: leaf[worst], codes),
        )

    def fit_series(
        self,
        values: Float[Array, " time"],
        observed: Bool[Array, " time"],
        initial: Float[Array, " p"] | None = None,
    ) -> tuple[Float[Array, " p"], Float[Array, ""], Int[Array, ""], RESULTS]:
        """Parameters, log-likelihood, steps and result code of one series."""
        how = self.specification
        scale = jnp.std(values, where=observed)
        series = how.series(values / scale, observed)
        starts = how.starts(series)
        if initial is not None:
            starts = how.free(how.scaled(initial.astype(values.dtype), 1.0 / scale))[None]
        tolerance = self.tolerance.astype(values.dtype)
        best = maximise(how, series, starts, tolerance, self.max_steps)
        densities = how.log_densities(best.parameters, series)
        loglik = jnp.sum(densities) - jnp.sum(series.known) * jnp.log(scale)
        result = judged(best.result, self.persistence(best.parameters), loglik)
        return how.scaled(best.parameters, scale), loglik, best.num_steps, result

    def starting_from(self, fitted: "FittedVarianceModel") -> "VarianceModel":
        """The model whose searches begin at the parameters of `fitted`, series by series: for
        windows of a backtest, which then take fewer steps."""
        return dataclasses.replace(self, initial=fitted.parameters)

    def persistence(self, parameters: Float[Array, " p"]) -> Float[Array, ""]:
        """That of one series; zero where it is not estimated."""
        _, variance, shapes = self.specification.split(parameters)
        if not self.variance.names:
            return jnp.zeros((), parameters.dtype)
        return self.variance.persistence(variance, self.innovations, shapes)


class FittedVarianceModel(Fitted):
    """Estimated variances, series by series.

    `parameters` (series, parameters) in the order of `names`, in the units of the data; `logliks`
    and `results` by series. `result` is that of the first series that failed.
    """

    model: VarianceModel
    parameters: Float[Array, "series p"]
    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    logliks: Float[Array, " series"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    results: RESULTS
    result: RESULTS  # pyright: ignore

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.model.specification.names

    def each_series(self, function: Callable[..., Any], *rest: Array, out_axes: Any = 1) -> Any:
        """`function` of the parameters and the data of every series (and of the rows of `rest`),
        answers along the second axis."""
        how = self.model.specification

        def one(parameters: Array, values: Array, observed: Array, *more: Array) -> Any:
            return function(parameters, how.series(values, observed), *more)

        axes = (0, 1, 1, *(0 for _ in rest))
        return jax.vmap(one, in_axes=axes, out_axes=out_axes)(
            self.parameters, self.values, self.observed, *rest
        )

    def filtered(self, horizon: int = 1) -> Filtered:
        """Residuals and conditional variances of all rows, and variances of `horizon` more."""
        how = self.model.specification

        def one(parameters: Array, series: Series) -> Filtered:
            return how.filtered(parameters, series, horizon)

        return self.each_series(one)

    @property
    def variances(self) -> Float[Array, "next series"]:
        """Conditional variances of the rows, and of the next one."""
        return self.filtered().variances

    @property
    def units(self) -> Float[Array, "time series"]:
        """Standardised residuals e_t / sqrt(s_t), zero where unknown."""
        return self.filtered().standardised.units

    def log_densities(self) -> Float[Array, "time series"]:
        """ln f(x_t | rows before), zero where unknown."""
        return self.each_series(self.model.specification.log_densities)

    def forecast(
        self,
        horizon: int,
        *,
        key: PRNGKeyArray | None = None,
        num_draws: int = 2000,
        innovations: str = "law",
    ) -> Forecast:
        """The next `horizon` rows: moments without a key, `num_draws` paths with one.

        Paths draw their innovations from the estimated "law", series by series, or ("bootstrap")
        rows of standardised residuals of the sample, which keep the dependence between series and
        the tails they had (filtered historical simulation, Barone-Adesi et al. 1999).

        Means and variances are exact (given the parameters) at every horizon for GARCH, HAR and
        RiskMetrics; those of EGARCH and APARCH exist beyond one step as draws only.

        **Raises:** `ValueError` for a horizon below 1, an unknown source of innovations and for
        moments that do not exist.
        """
        check_counts(horizon=horizon)
        check_source(innovations)
        if key is not None:
            return SampleForecast(self.draw_ahead(horizon, num_draws, innovations, key=key))
        return self.moments_ahead(horizon)

    # Under `jit`, as a loop by itself is compiled anew at every call.
    @eqx.filter_jit
    def moments_ahead(self, horizon: int) -> VolatilityForecast:
        """What `forecast` answers with without a key."""
        if horizon > 1 and not self.model.variance.exact_forecast:
            raise ValueError(
                f"the variance of {type(self.model.variance).__name__} beyond one step has no "
                "closed form; pass key=jax.random.key(...) for draws."
            )
        how = self.model.specification

        def one(parameters: Array, series: Series) -> Array:
            mean, _, _ = how.split(parameters)
            return how.mean.forecast(mean, series.values, series.observed, horizon)

        covs = jax.vmap(jnp.diag)(self.filtered(horizon).ahead)
        return VolatilityForecast(self.each_series(one), covs, self.responses(horizon))

    def responses(self, horizon: int) -> Float[Array, "horizon series"] | None:
        """How a shock moves the values of its row and of those that follow; None: its own alone."""
        how = self.model.specification
        if how.mean.ar == 0:
            return None

        def one(parameters: Array) -> Array:
            intercept, coefficients = how.mean.split(how.split(parameters)[0])
            nothing = jnp.zeros((0, 1, 1), parameters.dtype)
            alone = Varma(intercept[None], coefficients[:, None, None], nothing)
            return impulse_responses(alone, horizon)[:, 0, 0]

        return jax.vmap(one, out_axes=1)(self.parameters)

    @eqx.filter_jit
    def draw_ahead(
        self, horizon: int, num_draws: int, innovations: str = "law", *, key: PRNGKeyArray
    ) -> Float[Array, "draws horizon series"]:
        """Paths of the next rows with drawn innovations, each feeding the variances that follow."""
        how = self.model.specification
        keys = jax.random.split(key, self.parameters.shape[0])
        units = ()
        if innovations == "bootstrap":
            rows = resampled(*self.filtered().standardised, (num_draws, horizon), key=key)
            units = (jnp.moveaxis(rows, 2, 0),)

        def one(parameters: Array, series: Series, key: Array, *units: Array) -> Array:
            return simulate_ahead(how, parameters, series, horizon, num_draws, *units, key=key)

        return self.each_series(one, keys, *units, out_axes=2)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        how = self.model.specification

        def one(parameters: Array, series: Series, key: Array) -> Array:
            return simulate_long(how, parameters, series, num_steps, key=key)

        return self.each_series(one, jax.random.split(key, self.parameters.shape[0]))

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedVarianceModel":
        values = jnp.where(observed, values, 0.0)
        return dataclasses.replace(self, values=values, observed=observed)

    def to_frame(self, names: tuple[str, ...]) -> "pd.DataFrame":
        """Parameters, log-likelihood and result by series (host side)."""
        import pandas as pd

        frame = pd.DataFrame(jnp.asarray(self.parameters), list(names), list(self.names))
        frame["loglik"] = jax.device_get(self.logliks)
        frame["result"] = names_of(self.results)
        return frame
