"""Returns whose mean depends on the past of all of them: the mean first, covariances second."""

import dataclasses
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.lags import lagged
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc.volatility.dcc import CorrelationModel, FittedCorrelationModel
from jaxfc.volatility.forecast import VolatilityForecast, varma_forecast
from jaxfc.volatility.horizon import Varma, mean_path, product, recursion
from jaxfc.volatility.mean import ZeroMean
from jaxfc.volatility.simulate import BURN_IN
from jaxfc.volatility.univariate import FittedVarianceModel, VarianceModel
from jaxfc.volatility.vector_mean import VectorMean, VectorMeanParameters
from jaxfc.volatility.vector_regression import known_blocks, residual_cov, residuals_of
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


def residual_covariances() -> CorrelationModel:
    """DCC with GARCH(1, 1) variances around zero."""
    return CorrelationModel(margins=VarianceModel(mean=ZeroMean()))


class MeanFirst(Model):
    """A vector mean, and covariances of its residuals by a second model, in two steps.

        r_t = c + sum_j A_j r_{t-j} + C x_{t-1} + e_t + sum_k B_k e_{t-k},   Var(e_t | past) = H_t

    `mean` on all data (least squares, or conditional likelihood with a moving average), then
    `covariances`, a `CorrelationModel` or `VarianceModel` around ZeroMean(), on the residuals where
    they are known (see `VectorMean`).

    Two steps, not jointly: jointly are the means of single series on their own past, by
    `VarianceModel(mean=AutoregressiveMean(p))`. The first step is consistent whatever H_t. Where
    the law of e is symmetric, H_t depends on earlier e through even functions (no GJR, EGARCH or
    asymmetric correlations) and the mean does not depend on H_t, the information of mean and
    covariances is block-diagonal (Engle 1982): the second step is as good as with the mean known.
    What is lost: the first step weighs all rows alike, so its standard errors (`mean_cov`, robust)
    are larger than those of a joint estimate, the more so the more H_t moves.

    Forecast covariances beyond one step count what earlier innovations do to later returns. They
    take parameters and x as known, and a missing return of the last rows as being at its mean.

    **Raises:** `ValueError` for a second step with a mean of its own; from `fit` what the parts
    raise, and fewer rows than the coefficients of an equation.
    """

    mean: VectorMean = eqx.field(default_factory=VectorMean)
    covariances: CorrelationModel | VarianceModel = eqx.field(
        default_factory=residual_covariances, kw_only=True
    )

    def __check_init__(self):
        second = self.covariances
        margins = second.margins if isinstance(second, CorrelationModel) else second
        if not isinstance(margins.mean, ZeroMean):
            raise ValueError(
                "the second step models residuals, whose mean is zero, and has mean="
                f"{type(margins.mean).__name__}(); give its VarianceModel mean=ZeroMean()."
            )

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.mean.modelled(names)

    def check(self, panel: "Panel") -> None:
        self.mean.check(panel)
        # What the second step sees: returns in the cells in which their residuals are known.
        returns = panel.select(self.mean.modelled(panel.names))
        known = jax.device_get(self.mean.known(jnp.asarray(panel.observed)))
        self.covariances.check(dataclasses.replace(returns, observed=known))

    def estimate(
        self,
        values: Float[Array, "time all"],
        observed: Bool[Array, "time all"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedMeanFirst":
        parameters, num_steps, result = self.mean.estimate(values, observed)
        residuals = self.mean.residuals(parameters, values, observed)
        covariances = self.covariances.estimate(residuals, self.mean.known(observed))
        return FittedMeanFirst(
            model=self,
            parameters=parameters,
            covariances=covariances,
            values=jnp.where(observed, values, 0.0),
            observed=observed,
            loglik=covariances.loglik,
            num_steps=jnp.maximum(num_steps, covariances.num_steps),
            result=select(result != SUCCESSFUL, result, covariances.result),
        )

    def starting_from(self, fitted: "FittedMeanFirst") -> "MeanFirst":
        """The model whose second step begins at the parameters of `fitted`."""
        second = self.covariances.starting_from(fitted.covariances)  # pyright: ignore
        return dataclasses.replace(self, covariances=second)


class FittedMeanFirst(Fitted):
    """An estimated `MeanFirst`.

    `parameters` of the mean in data units; `covariances` the second step, on the residuals of the
    data that were fitted or `given`. `loglik` is that of the residuals, so of the returns whose
    residuals are known; `num_steps` the most that one of the searches took; `result` that of the
    first step that failed.
    """

    model: MeanFirst
    parameters: VectorMeanParameters
    covariances: FittedCorrelationModel | FittedVarianceModel
    values: Float[Array, "time all"]
    observed: Bool[Array, "time all"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def margins(self) -> FittedVarianceModel:
        """The variances of the residuals, series by series."""
        second = self.covariances
        return second.margins if isinstance(second, FittedCorrelationModel) else second

    @property
    def residuals(self) -> Float[Array, "time series"]:
        """e of every row, zero where not `known`."""
        return self.margins.values

    @property
    def known(self) -> Bool[Array, "time series"]:
        """Where value and regressors are observed."""
        return self.margins.observed

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.model.forecast_names(names)

    def log_densities(self) -> Float[Array, "..."]:
        """Those of the second step."""
        return self.covariances.log_densities()

    def forecast(
        self,
        horizon: int,
        *,
        key: PRNGKeyArray | None = None,
        exogenous: Float[Array, "ahead exogenous"] | None = None,
        **how: Any,
    ) -> Forecast:
        """The next `horizon` rows of the returns: moments without a key, paths with one.

        The first row is explained by x of the last one (its mean, if that is not observed). Later
        rows need x ahead: `exogenous` (horizon - 1 rows), or else x stands at its mean; either way
        the spread of x is not counted. `how` are options of the second step's forecast
        (`num_draws`, `innovations`, `method`). Moments are exact given its covariances and the
        parameters; drawn innovations go through the recursion of the mean.

        **Raises:** `ValueError` for a horizon below 1, exogenous values of another shape, and what
        the second step raises.
        """
        check_counts(horizon=horizon)
        mean = self.model.mean
        returns, given = mean.completed(self.parameters, self.values, self.observed, self.residuals)
        inputs = self.inputs_ahead(given[-1:], horizon, exogenous)
        varma, num_rows = self.parameters.varma, len(returns)
        last = returns[num_rows - mean.num_ar :], self.residuals[num_rows - mean.num_ma :]
        ahead = self.covariances.forecast(horizon, key=key, **how)
        if isinstance(ahead, SampleForecast):
            path = mean_path(varma, *last, horizon, exogenous=inputs)
            return SampleForecast(path + moved(varma, ahead.draws))
        assert isinstance(ahead, VolatilityForecast)
        return varma_forecast(varma, *last, ahead.innovation_covs, exogenous=inputs)

    def inputs_ahead(
        self,
        last: Float[Array, "one exogenous"],
        horizon: int,
        exogenous: Float[Array, "ahead exogenous"] | None,
    ) -> Float[Array, "horizon series"] | None:
        """C x of the rows ahead; None without exogenous series."""
        number = self.model.mean.num_exogenous
        later = jnp.broadcast_to(self.parameters.exogenous_mean, (horizon - 1, number))
        if exogenous is not None:
            if exogenous.shape != later.shape or number == 0:
                raise ValueError(
                    f"exogenous has shape {exogenous.shape}; {number} exogenous series and "
                    f"{horizon} steps, of which the first reads the last row, need {later.shape}."
                )
            later = exogenous
        if number == 0:
            return None
        return product("hm,im->hi", jnp.concatenate([last, later]), self.parameters.exogenous)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        innovations = self.covariances.simulate(BURN_IN + num_steps, key=key)
        path = moved(self.parameters.varma, innovations[None])[0, BURN_IN:]
        return self.parameters.long_run + path

    def given(
        self,
        values: Float[Array, "time all"],
        observed: Bool[Array, "time all"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedMeanFirst":
        mean = self.model.mean
        residuals = mean.residuals(self.parameters, values, observed)
        return dataclasses.replace(
            self,
            covariances=self.covariances.given(residuals, mean.known(observed)),
            values=jnp.where(observed, values, 0.0),
            observed=observed,
        )

    def to_frame(self, names: tuple[str, ...]) -> "pd.DataFrame":
        """Coefficients of the mean, one row an equation (host side); `names` of the panel."""
        import pandas as pd

        how = self.model.mean
        found = jax.device_get(self.parameters.coefficients)
        return pd.DataFrame(found, list(how.modelled(names)), list(how.regressors(names)))


def moved(
    varma: Varma, innovations: Float[Array, "draws horizon series"]
) -> Float[Array, "draws horizon series"]:
    """What innovations make of a path that stood at its mean before the first of them."""
    shocks = jnp.moveaxis(innovations, 0, -1)
    inputs = shocks
    for lag, matrix in enumerate(varma.ma, start=1):
        inputs = inputs + product("ab,tbd->tad", matrix, lagged(shocks, lag))
    size = shocks.shape[1:]
    nothing = (jnp.zeros((len(lags), *size), shocks.dtype) for lags in (varma.ar, varma.ma))
    return jnp.moveaxis(recursion(varma, inputs, *nothing), -1, 0)


def mean_cov(
    fitted: FittedMeanFirst,
) -> Float[Array, "series regressors series regressors"]:
    """Covariance of the coefficients of the mean, of all equations, robust to heteroskedasticity.

        G^{-1} (sum_t s_t s_t') G^{-1},    s_t = J_t' W_t e_t,   G = sum_t d s_t / d theta,
        J_t = d e_t / d theta

    W_t = I for least squares, where a diagonal block is White's (1980) covariance (HC0), and the
    inverse residual covariance of what is known of the row for a likelihood. e are martingale
    differences, so no autocovariances of s are needed. Order and units as in `coefficients`.
    O(T N^3 K^2) for K regressors of N equations.

    Source: White (1980); White (1982).
    """
    how, theta = fitted.model.mean, fitted.parameters.coefficients
    rows = how.rows(fitted.values, fitted.observed)
    size = theta.shape[0]
    weights = jnp.eye(size, dtype=theta.dtype)[None]
    if how.num_ma:
        blocks = known_blocks(residual_cov(fitted.residuals, fitted.known), fitted.known)
        weights = spd_inverse(blocks, fastest_implementation(size))[0]
    weights = jnp.broadcast_to(weights, (len(rows.targets), size, size))

    def losses(vector: Array) -> Array:
        residuals = residuals_of(vector.reshape(theta.shape), rows)
        return 0.5 * product("ti,tij,tj->t", residuals, weights, residuals)

    vector = theta.reshape(-1)
    scores = jax.jacfwd(losses)(vector)
    curvature = jax.jacfwd(jax.grad(lambda vector: jnp.sum(losses(vector))))(vector)
    # Regressors in units of their own: their scales differ by orders of magnitude.
    units = 1.0 / jnp.sqrt(jnp.diagonal(curvature))
    inverse = jnp.linalg.inv(units[:, None] * curvature * units)
    influence = product("pq,tq->tp", inverse, units * scores) * units
    return product("tp,tq->pq", influence, influence).reshape(*theta.shape, *theta.shape)


def mean_standard_errors(fitted: FittedMeanFirst) -> Float[Array, "series regressors"]:
    """Square roots of the diagonal of `mean_cov`: one row an equation."""
    return jnp.sqrt(jnp.einsum("ikik->ik", mean_cov(fitted)))
