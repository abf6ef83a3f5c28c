"""Projections and regressions that make forecasts coherent, as small frozen modules."""

import abc
from typing import Literal

import equinox as eqx
import jax.numpy as jnp

from jaxfc.hierarchy.error_cov import DenseCov, ErrorCov, StructuredCov
from jaxfc.hierarchy.mapping import BottomUpMap, Mapping, RegressionMap, projection
from jaxfc.hierarchy.method import Method, Step
from jaxfc.hierarchy.sample_cov import mean_squares, sample_cov, shrunk_cov
from jaxfc.typing import Array, Float


class BottomUp(Method):
    """Bottom forecasts, summed: y~ = S b^. Forecasts of aggregates are ignored."""

    def mapping(self, step: Step) -> Mapping:
        return BottomUpMap(step.summing)


class GLS(Method):
    """Projections in the metric of an error covariance W; abstract."""

    @property
    def takes_fixed(self) -> bool:
        return True

    @abc.abstractmethod
    def error_cov(self, step: Step) -> ErrorCov:
        """The covariance W of the base errors."""

    def mapping(self, step: Step) -> Mapping:
        cov = self.error_cov(step)
        return projection(step.summing, cov, immutable=step.immutable, missing=step.missing)


class OLS(GLS):
    """W = I: the nearest coherent point (Hyndman, Ahmed, Athanasopoulos and Shang 2011)."""

    def error_cov(self, step: Step) -> ErrorCov:
        return StructuredCov(jnp.ones(step.summing.num_nodes, step.mean.dtype))


class WLS(GLS):
    """W diagonal.

    - "structural": diag(S S'), the variances if bottom errors are independent and alike; with
      weights of one the number of series below a node (Athanasopoulos et al. 2017);
    - "variance": mean squared residuals of each node over its own dates (Hyndman, Lee, Wang 2016);
    - or variances given as an array (nodes,).
    """

    kind: Literal["structural", "variance", "given"] = eqx.field(static=True)
    variances: Float[Array, " nodes"] | None

    def __init__(self, variances: str | Array = "structural"):
        if isinstance(variances, str):
            if variances not in ("structural", "variance"):
                raise ValueError(
                    f"WLS takes 'structural', 'variance' or an array of variances, got "
                    f"{variances!r}."
                )
            self.kind, self.variances = variances, None
        else:
            self.kind, self.variances = "given", jnp.asarray(variances)

    def error_cov(self, step: Step) -> ErrorCov:
        if self.kind == "structural":
            squares = step.summing.row_squares()
            # An aggregate without any weight at this step is zero, whatever its variance.
            return StructuredCov(jnp.where(squares > 0, squares, 1.0))
        if self.variances is not None:
            return StructuredCov(self.variances)
        return StructuredCov(mean_squares(step.errors("WLS('variance')")))


class MinT(GLS):
    """Minimum trace: W is the covariance of the errors (Wickramasuriya et al. 2019).

    - "shrink": sample covariance of the residuals, shrunk to its diagonal by the intensity of
      Schafer and Strimmer (2005), or by `intensity` in [0, 1];
    - "oracle": the same with the oracle approximating intensity of Ando and Narita (2022);
    - "sample": the sample covariance; needs more dates than aggregates;
    - "forecast": the covariance of the base forecast itself, step by step, so that a DCC's, a
      factor model's or a regime model's predictive covariance gives the weights;
    - or a covariance given as an array (nodes, nodes) or (horizon, nodes, nodes).

    `centred=False` takes mean squares with T (hts, FoReco, bayesRecon), `centred=True` centres
    and divides by T - 1 (hierarchicalforecast).
    """

    kind: Literal["sample", "shrink", "oracle", "forecast", "given"] = eqx.field(static=True)
    centred: bool = eqx.field(static=True)
    intensity: Float[Array, ""] | None
    cov: Float[Array, "nodes nodes"] | Float[Array, "horizon nodes nodes"] | None

    def __init__(
        self,
        cov: str | Array = "shrink",
        *,
        centred: bool = False,
        intensity: float | Array | None = None,
    ):
        known = ("sample", "shrink", "oracle", "forecast")
        if isinstance(cov, str) and cov not in known:
            raise ValueError(f"MinT takes one of {known} or a covariance, got {cov!r}.")
        if intensity is not None and not (isinstance(cov, str) and cov == "shrink"):
            raise ValueError("an intensity belongs to MinT('shrink').")
        self.kind = cov if isinstance(cov, str) else "given"  # pyright: ignore
        self.cov = None if isinstance(cov, str) else jnp.asarray(cov)
        self.centred = centred
        self.intensity = None if intensity is None else jnp.asarray(intensity)

    @property
    def by_step(self) -> bool:
        return self.kind == "forecast" or (self.cov is not None and self.cov.ndim == 3)

    @property
    def leaves_by_step(self) -> tuple[Array, ...]:
        return () if self.cov is None or self.cov.ndim == 2 else (self.cov,)

    @property
    def needs_forecast_cov(self) -> bool:
        return self.kind == "forecast"

    def error_cov(self, step: Step) -> ErrorCov:
        if step.cov is not None:
            return step.cov
        if self.cov is not None:
            return DenseCov(self.cov)
        errors = step.errors(f"MinT({self.kind!r})")
        if self.kind == "sample":
            return sample_cov(errors, None, centred=self.centred)
        return shrunk_cov(
            errors,
            None,
            centred=self.centred,
            shrinkage="oracle" if self.kind == "oracle" else "schafer_strimmer",
            intensity=self.intensity,
        )


class ERM(Method):
    """Empirical risk minimisation: the G that did best in sample (Ben Taieb and Koo 2019).

        G = B Y^' (Y^ Y^' + r I)^-1

    with values B of the bottom series made coherent by OLS, and base forecasts Y^ in sample
    (values minus residuals), over the dates at which all nodes were observed. `penalty` r is
    relative to the mean of the diagonal of Y^ Y^'; without it there must be more dates than nodes.
    """

    penalty: Float[Array, ""]

    def __init__(self, penalty: float | Array = 0.0):
        self.penalty = jnp.asarray(penalty, dtype=jnp.result_type(float))

    def mapping(self, step: Step) -> Mapping:
        residuals, known_errors = step.residuals("ERM")
        values, known_values = step.values("ERM")
        dates = jnp.all(known_errors & known_values, axis=1)[:, None]
        values = jnp.where(dates, values, 0.0).T
        fitted = values - jnp.where(dates, residuals, 0.0).T
        ols = projection(step.summing, StructuredCov(jnp.ones(step.summing.num_nodes)))
        bottom = ols.apply(values)[step.summing.num_aggregates :]
        gram = fitted @ fitted.T
        ridge = self.penalty * jnp.mean(jnp.diagonal(gram))
        gram = gram + ridge * jnp.eye(gram.shape[0])
        coefficients = jnp.linalg.solve(gram, fitted @ bottom.T).T
        return RegressionMap(step.summing, coefficients)
