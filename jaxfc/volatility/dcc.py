"""Covariances of a panel of returns: variances by series, correlations in a second step."""

import dataclasses
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc.volatility.correlation import DCC
from jaxfc.volatility.correlation_ahead import correlations_ahead, draw_returns
from jaxfc.volatility.correlation_process import CorrelationProcess, Targets
from jaxfc.volatility.forecast import VolatilityForecast
from jaxfc.volatility.innovations import Innovations, Normal, StudentT
from jaxfc.volatility.joint_likelihood import FullLikelihood, Likelihood
from jaxfc.volatility.likelihood import Filtered, Standardised
from jaxfc.volatility.search import judged, minimise
from jaxfc.volatility.simulate import check_source
from jaxfc.volatility.targets import (
    SampleTarget,
    Target,
    is_positive_definite,
    unit_diagonal,
)
from jaxfc.volatility.univariate import FittedVarianceModel, VarianceModel
from jaxfc.volatility.variance import joined
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Smaller eigenvalues of a target, whose diagonal is about one, are those of rounding.
MIN_EIGENVALUE = 1e-10


class CorrelationModel(Model):
    """Dynamic conditional correlations with variances of every series by itself, in two steps.

        e_t = D_t z_t,   Var(z_t | past) = R_t,   H_t = D_t R_t D_t

    D_t by `margins`, R_t by `correlations` (DCC(p, q), asymmetric or corrected) around `target`;
    `innovations`: the joint law of z given the past, Normal() or StudentT(), maximised in the
    second step with the standardised residuals of the first held fixed (Engle and Sheppard 2001).

    Missing cells: no date is dropped; the likelihood is that of the observed block, and a product
    that is missing is replaced by its expectation.

    **Raises** (from `fit`): what `margins` raise, `ValueError` for one series and for more series
    than rows.
    """

    correlations: CorrelationProcess = eqx.field(default_factory=DCC)
    margins: VarianceModel = eqx.field(default_factory=VarianceModel, kw_only=True)
    target: Target = eqx.field(default_factory=SampleTarget, kw_only=True)
    innovations: Innovations = eqx.field(default_factory=Normal, kw_only=True)
    likelihood: Likelihood = eqx.field(default_factory=FullLikelihood, kw_only=True)
    initial: Float[Array, " p"] | None = eqx.field(default=None, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6, kw_only=True)
    max_steps: int = eqx.field(static=True, default=300, kw_only=True)

    def __check_init__(self):
        if not isinstance(self.innovations, Normal | StudentT):
            raise ValueError(
                "the joint law is Normal() or StudentT(), got "
                f"{type(self.innovations).__name__}(); other laws are for margins."
            )
        self.likelihood.check(self.correlations)
        check_counts(max_steps=self.max_steps)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the second step's parameters."""
        return self.correlations.names + self.innovations.names

    def check(self, panel: "Panel") -> None:
        if len(panel.names) < 2:
            raise ValueError("correlations need two series or more; use VarianceModel for one.")
        if isinstance(self.target, SampleTarget) and panel.num_times <= len(panel.names):
            raise ValueError(
                f"{len(panel.names)} series with {panel.num_times} rows: the sample target is "
                "singular. Use target=NonlinearShrinkage() or LinearShrinkage(), a longer sample "
                "or fewer series."
            )
        self.margins.check(panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedCorrelationModel":
        margins = self.margins.estimate(values, observed)
        filtered = margins.filtered()
        data = filtered.standardised
        # Targets of what is corrected move with the parameters; all others are made once.
        fixed = None if self.correlations.moves_target else self.targets(None, data)

        starts = self.starts(values.dtype, fixed)
        tolerance = self.tolerance.astype(values.dtype)
        arguments = self, data, fixed
        found = minimise(row_losses, starts, arguments, tolerance, self.max_steps, forward=True)
        parameters = self.natural(found.parameters, fixed)
        targets = self.targets(parameters, data) if fixed is None else fixed
        densities = self.log_densities(parameters, data, targets)
        loglik = jnp.sum(densities - log_scales(filtered))
        persistence = self.correlations.persistence(self.split(parameters)[0], targets)
        result = select(margins.result != SUCCESSFUL, margins.result, found.result)
        definite = is_positive_definite(targets.both, MIN_EIGENVALUE)
        return FittedCorrelationModel(
            model=self,
            margins=margins,
            parameters=parameters,
            targets=targets,
            loglik=loglik,
            num_steps=found.num_steps,
            result=judged(result, persistence, loglik, definite),
        )

    def starts(self, dtype: Any, targets: Targets | None) -> Float[Array, "starts p"]:
        """Free coordinates to start from: `initial`, or those of the process and the law."""
        if self.initial is not None:
            ours, shapes = self.split(self.initial.astype(dtype))
            ours = self.correlations.free(ours, targets)
            return joined(ours, self.innovations.free(shapes))[None]
        shapes = self.innovations.free(jnp.asarray(self.innovations.starts, dtype))
        return jax.vmap(lambda ours: joined(ours, shapes))(self.correlations.starts(dtype))

    def starting_from(self, fitted: "FittedCorrelationModel") -> "CorrelationModel":
        """The model whose searches begin at the parameters of `fitted`, margins and correlations:
        for windows of a backtest, which then take fewer steps and compile to one program."""
        margins = self.margins.starting_from(fitted.margins)
        return dataclasses.replace(self, margins=margins, initial=fitted.parameters)

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Array]:
        """Parameters of the correlations and shapes of the law."""
        number = len(self.correlations.names)
        return parameters[:number], parameters[number:]

    def natural(self, free: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        """Parameters of coordinates without bounds; targets bound asymmetric terms alone."""
        ours, shapes = self.split(free)
        ours = self.correlations.natural(ours, targets)
        return joined(ours, self.innovations.shapes(shapes))

    def targets(
        self,
        parameters: Float[Array, " p"] | None,
        data: Standardised,
        weights: Float[Array, " time"] | None = None,
    ) -> Targets:
        """Unconditional matrices of what drives the correlations, rows counted by `weights`; only
        corrected correlations read the parameters."""
        driving = data.units
        if self.correlations.moves_target:
            assert parameters is not None
            driving = self.correlations.driving(self.split(parameters)[0], *data)
        both = self.target.corr(driving, data.known, weights)
        if self.correlations.moves_target:
            both = unit_diagonal(both)
        if not self.correlations.has_falls:
            return Targets(both, jnp.zeros_like(both))
        plain = SampleTarget(centred=is_centred(self.target), unit_diagonal=False)
        return Targets(both, plain.corr(jnp.minimum(data.units, 0.0), data.known, weights))

    def log_densities(
        self, parameters: Float[Array, " p"], data: Standardised, targets: Targets
    ) -> Float[Array, " time"]:
        """ln f(z_t | past) of the observed block of every row."""
        ours, shapes = self.split(parameters)
        return self.likelihood.log_densities(
            self.correlations, self.innovations, ours, shapes, data, targets
        )


def row_losses(
    free: Float[Array, " p"], arguments: tuple[CorrelationModel, Standardised, Targets | None]
) -> Float[Array, " time"]:
    """Minus the log-densities of the rows in the second step."""
    model, data, fixed = arguments
    parameters = model.natural(free, fixed)
    targets = model.targets(parameters, data) if fixed is None else fixed
    return -model.log_densities(parameters, data, targets)


def log_scales(filtered: Filtered) -> Float[Array, " time"]:
    """ln det D of the observed block of every row: what z leaves of the density of e = D z."""
    return jnp.sum(jnp.where(filtered.known, 0.5 * jnp.log(filtered.past), 0.0), axis=1)


def is_centred(target: Target) -> bool:
    """Whether second moments are about the sample means (rmgarch)."""
    return isinstance(target, SampleTarget) and target.centred


class FittedCorrelationModel(Fitted):
    """Estimated correlations on estimated margins.

    `parameters`: those of the second step, in the order of `model.names`; `targets` the matrices
    that the recursion returns to. `loglik` is that of the returns, both steps together.
    """

    model: CorrelationModel
    margins: FittedVarianceModel
    parameters: Float[Array, " p"]
    targets: Targets
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def log_densities(self) -> Float[Array, " time"]:
        """ln f(x_t | rows before) of the observed block of every row."""
        filtered = self.margins.filtered()
        data = filtered.standardised
        densities = self.model.log_densities(self.parameters, data, self.targets)
        return densities - log_scales(filtered)

    @property
    def corrs(self) -> Float[Array, "next series series"]:
        """Correlations of every row, and of the next one."""
        return jax.vmap(unit_diagonal)(self.matrices(self.margins.filtered().standardised))

    @property
    def covs(self) -> Float[Array, "next series series"]:
        """H of every row, and of the next one."""
        filtered = self.margins.filtered()
        return scaled_up(self.matrices(filtered.standardised), filtered.variances)

    def matrices(self, data: Standardised) -> Float[Array, "next series series"]:
        """R of every row of standardised residuals, and of the next one."""
        how = self.model.correlations
        ours = self.model.split(self.parameters)[0]
        state, quasi = how.filter(ours, *data, self.targets)
        ahead = how.quasi(ours, state, self.targets)
        return jax.vmap(how.corr)(jnp.concatenate([quasi, ahead[None]]))

    def forecast(
        self,
        horizon: int,
        *,
        key: PRNGKeyArray | None = None,
        method: str = "iterated",
        num_draws: int = 2000,
        innovations: str = "law",
    ) -> Forecast:
        """The next `horizon` rows: moments without a key, `num_draws` paths with one, whose
        innovations come from the joint law or ("bootstrap") from rows of whitened residuals.

        Correlations ahead by `method`:

        - "iterated": the recursion with R_{T+k-1} for the product that is to come (Q if corrected,
          for which E Q is exact); only E corr(Q) = corr(E Q) is approximated;
        - "ES-R": R_{T+k} = (1 - l^{k-1}) corr(S) + l^{k-1} R_{T+1}, l = sum a + sum b (Engle and
          Sheppard 2001; rmgarch);
        - "ES-Q": the same of Q, then brought to unit diagonal.

        H_{T+k} = D R D with D by the margins; that D and R are dependent is left out. Draws have
        none of these approximations.

        **Raises:** `ValueError` for a horizon below 1, an unknown method or source of innovations,
        ES where its formula is not defined.
        """
        check_counts(horizon=horizon)
        check_source(innovations)
        if key is not None:
            return SampleForecast(draw_returns(self, horizon, num_draws, innovations, key=key))
        margins = self.margins.moments_ahead(horizon)
        corrs = correlations_ahead(self, horizon, method)
        variances = jnp.diagonal(margins.innovation_covs, axis1=1, axis2=2)
        return VolatilityForecast(margins.mean, scaled_up(corrs, variances), margins.responses)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        return draw_returns(self, num_steps, 1, key=key, long_run=True)[0]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedCorrelationModel":
        return dataclasses.replace(self, margins=self.margins.given(values, observed))


def scaled_up(
    corrs: Float[Array, "rows series series"], variances: Float[Array, "rows series"]
) -> Float[Array, "rows series series"]:
    """D R D of every row."""
    stds = jnp.sqrt(variances)
    return stds[:, :, None] * corrs * stds[:, None, :]
