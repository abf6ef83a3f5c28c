"""What a method of reconciliation is: the linear map of one step from what is known about it."""

import abc

import equinox as eqx
import jax.numpy as jnp

from jaxfc.hierarchy.error_cov import ErrorCov
from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float, Int


class Sample(eqx.Module):
    """What is known in sample: residuals and values of the nodes; NaN where not observed."""

    residuals: Float[Array, "time nodes"] | None
    values: Float[Array, "dates nodes"] | None


class Step(eqx.Module):
    """One horizon: its sums and base forecasts, and which nodes are fixed or missing."""

    summing: Summing
    mean: Float[Array, " nodes"]
    cov: ErrorCov | None
    sample: Sample
    immutable: Int[Array, " fixed"] | None
    missing: Int[Array, " missing"] | None
    labels: Labels = eqx.field(static=True)

    def errors(self, method: str) -> Float[Array, "time nodes"]:
        """Residuals in sample, NaN where missing, or an error that says who needs them."""
        if self.sample.residuals is None:
            raise ValueError(
                f"{method} needs the errors of the base forecasts in sample: give residuals= "
                f"(dates x nodes, NaN where missing)."
            )
        return self.sample.residuals

    def residuals(self, method: str) -> tuple[Array, Array]:
        """Residuals in sample and where they are observed."""
        errors = self.errors(method)
        return errors, ~jnp.isnan(errors)

    def values(self, method: str) -> tuple[Array, Array]:
        """Values in sample and where they are observed."""
        if self.sample.values is None:
            raise ValueError(
                f"{method} needs the values of the nodes in sample: give history= (dates x nodes, "
                f"NaN where missing)."
            )
        return self.sample.values, ~jnp.isnan(self.sample.values)


class Method(eqx.Module):
    """A way of making forecasts coherent."""

    @property
    def by_step(self) -> bool:
        """Whether the map depends on the base forecast of the step."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether the map is linear, so that Gaussian laws stay Gaussian."""
        return True

    @property
    def takes_fixed(self) -> bool:
        """Whether nodes can be immutable or missing."""
        return False

    @property
    def needs_forecast_cov(self) -> bool:
        """Whether the covariance of the base forecast enters."""
        return False

    @property
    def leaves_by_step(self) -> tuple[Array, ...]:
        """Arrays of the method that have a leading axis of steps."""
        return ()

    def check(self, summing: Summing, labels: Labels) -> None:
        """Refuses options that the hierarchy contradicts; host side, before anything runs."""
        del summing, labels

    @abc.abstractmethod
    def mapping(self, step: Step) -> Mapping:
        """The map of one step, linear unless `is_linear` says otherwise."""
