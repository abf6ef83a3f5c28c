"""What every model and every fitted model can do."""

import abc
from typing import TYPE_CHECKING, final

import equinox as eqx

from jaxfc.forecast import Forecast
from jaxfc.results import RESULTS, throw_if_failed
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class Fitted(eqx.Module):
    """An estimated model: its parameters and what its forecast needs, not the panel."""

    loglik: eqx.AbstractVar[Float[Array, ""]]
    num_steps: eqx.AbstractVar[Int[Array, ""]]
    result: eqx.AbstractVar[RESULTS]

    @abc.abstractmethod
    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> Forecast:
        """The joint law of the next `horizon` rows of the panel, in the units of the data.

        `key` is required by models that answer with draws and refused by those that do not, unless
        their estimation drew with one: a caller with one key may hand it to both.
        """

    @abc.abstractmethod
    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of the model of `num_steps` rows from its unconditional law, in data units."""

    @abc.abstractmethod
    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "Fitted":
        """The same parameters on other data: `forecast` then starts from the last row of these.

        What a later origin does until the next estimation. Pure; the derivative of a forecast with
        respect to `values` is that of an unchanged model.

        **Raises:** `ValueError` if the method ties its state to the data that were fitted.
        """

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which series of a panel with these `names` the forecast is of: all, if not overridden."""
        return names

    def details(self) -> dict[str, Array]:
        """Numbers by name that a backtest keeps of every estimation, e.g. chosen sizes."""
        return {}


class Model(eqx.Module):
    """What is estimated and how: a frozen configuration, no data, no random state."""

    @abc.abstractmethod
    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Fitted:
        """Estimate from arrays: pure, with static shapes, for `jit`, `vmap` and `grad`.

        **Arguments:** `values` where `observed` (what stands elsewhere is never read);
        `aggregation` says which entries are sums or averages over low-frequency periods (`None`:
        each entry is the value of its own row); `key` where the method is random.

        **Returns:** the fitted model with its own `result` code; never raises on values.
        """

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which series of a panel with these `names` the forecast is of: all, if not overridden."""
        return names

    def resolved(self, panel: "Panel") -> "Model":
        """The model with what only a panel can tell, e.g. positions for names (host side)."""
        return self

    @abc.abstractmethod
    def check(self, panel: "Panel") -> None:
        """Raise `ValueError` if `panel` cannot be estimated by this model (host side)."""

    @final
    def fit(self, panel: "Panel", *, key: PRNGKeyArray | None = None, throw: bool = True) -> Fitted:
        """Estimate from a panel: checks it, compiles once per shape, and checks the result.

        **Raises:** `ValueError` if the panel is unfit for the model, `TypeError` if it is no
        `Panel`, `RuntimeError` if the estimation failed and `throw`.
        """
        from jaxfc.panel import Panel

        if not isinstance(panel, Panel):
            raise TypeError(
                f"fit takes a jaxfc.Panel, got {type(panel).__name__}; "
                "build one with jaxfc.Panel.from_frame(df)."
            )
        model = in_precision_of_jax(self.resolved(panel))
        model.check(panel)
        fitted = jitted_estimate(model, *panel.arrays(), panel.aggregation, key)
        if throw:
            throw_if_failed(fitted.result, f"{type(self).__name__}.fit")
        return fitted


@eqx.filter_jit
def jitted_estimate(
    model: Model,
    values: Array,
    observed: Array,
    aggregation: AggregationRows | None,
    key: PRNGKeyArray | None,
) -> Fitted:
    """`model.estimate` under one module-level `jit`: one trace per configuration and shape."""
    return model.estimate(values, observed, aggregation=aggregation, key=key)
