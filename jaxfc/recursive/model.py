"""A network as a model of a panel: fit, forecast, backtest and score as any other."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.batching import numbered_keys
from jaxfc.counts import check_counts
from jaxfc.model import Fitted, Model
from jaxfc.recursive.baselines import Architecture, RecursiveNet, WeightedVarianceNet
from jaxfc.recursive.checks import check_network_panel, check_rows
from jaxfc.recursive.draw_heads import CategoricalHead
from jaxfc.recursive.fitted import FittedNetwork, resting_moments
from jaxfc.recursive.heads import GaussianHead, Head, Moments
from jaxfc.recursive.nets import Ensemble, Network, Sizes
from jaxfc.recursive.train import evaluate, thinking_curve, train
from jaxfc.recursive.training import Training, TrainingState, result_of, start_training
from jaxfc.recursive.windows import (
    PanelTask,
    Scaling,
    anchored_moments,
    features_of,
    scaling_of,
    turbulence_ranks,
)
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class Prepared(NamedTuple):
    """Arrays made ready for training: examples, those held back, and what forecasts need."""

    task: PanelTask
    validation: PanelTask | None
    scaling: Scaling
    anchor: Fitted | None
    sizes: Sizes
    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]


class NetworkModel(Model):
    """A network that forecasts the next `horizon` rows from the last `window` rows.

        law(y_{t+1}, ..., y_{t+horizon}) = head(network(rows t-window+1 ... t), anchor_t)

    `architecture` is the network: `RecursiveNet()` or one of its rivals. `head` is the law, whose
    mean and standard deviation start at those of `anchor`, any model of the panel, forecasting from
    the last `anchor_window` rows (None: `window`) with parameters estimated from the training rows.
    Without an anchor they start at the moments of the training rows. `targets` names the series to
    be forecast (None: all); the others are features alone. `log_squares` adds the logarithms of
    squared standardised values to the features, from which scales are read.

    The last rows (`training.validation`) are held back for early stopping: no training example ends
    in them, and neither the scaling nor the anchor has seen them.

    **Raises:** `ValueError` for options out of range, no `key`, and from `fit` for flows, series
    constant or hardly observed in the training rows, unknown targets, too few rows, and whatever
    the anchor refuses.

    Source: Jolicoeur-Martineau (2025) for the recursion; residuals on a model's moments: Smyl
    (2020).
    """

    architecture: Architecture = eqx.field(default_factory=RecursiveNet)
    horizon: int = eqx.field(static=True, default=1)
    window: int = eqx.field(static=True, default=32)
    head: Head = eqx.field(default_factory=GaussianHead, kw_only=True)
    anchor: Model | None = eqx.field(default=None, kw_only=True)
    anchor_window: int | None = eqx.field(static=True, default=None, kw_only=True)
    training: Training = eqx.field(default_factory=Training, kw_only=True)
    targets: tuple[str, ...] | None = eqx.field(static=True, default=None, kw_only=True)
    log_squares: bool = eqx.field(static=True, default=True, kw_only=True)
    places: tuple[int, ...] | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        check_counts(horizon=self.horizon, window=self.window)
        if self.anchor_window is not None:
            check_counts(anchor_window=self.anchor_window)
            if self.anchor is None:
                raise ValueError("anchor_window is given without an anchor; omit it.")
        rival = isinstance(self.architecture, WeightedVarianceNet)
        if self.anchor is not None and (rival or isinstance(self.head, CategoricalHead)):
            what = self.architecture if rival else self.head
            raise ValueError(f"{type(what).__name__} takes no anchor; omit `anchor`.")

    @property
    def look_back(self) -> int:
        """Rows that a forecast starts from."""
        return max(self.window, self.anchor_window or 0)

    def num_training(self, num_rows: int) -> int:
        """Rows that are trained on; the others are held back."""
        return num_rows - round(self.training.validation * num_rows)

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names if self.targets is None else self.targets

    def resolved(self, panel: "Panel") -> "NetworkModel":
        anchor = None if self.anchor is None else self.anchor.resolved(panel)
        places = None
        if self.targets is not None:
            unknown = [name for name in self.targets if name not in panel.names]
            if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
                raise ValueError(
                    f"targets must be different series of the panel {panel.names}, got "
                    f"{self.targets}."
                )
            places = tuple(panel.names.index(name) for name in self.targets)
        return dataclasses.replace(self, anchor=anchor, places=places)

    def check(self, panel: "Panel") -> None:
        model = self.resolved(panel)
        num_rows, num_series = panel.values.shape
        num_training = self.num_training(num_rows)
        check_rows(num_rows, self.look_back, self.horizon, num_training)
        check_network_panel(panel, model.places_of(num_series), self.head, num_training)
        if model.anchor is not None:
            model.anchor.check(panel)

    def places_of(self, num_series: int) -> tuple[int, ...]:
        """Positions of the targets."""
        if self.targets is not None and self.places is None:
            raise ValueError(
                "the positions of `targets` are not known yet; call fit(panel), or "
                "model.resolved(panel).estimate(...)."
            )
        return tuple(range(num_series)) if self.places is None else self.places

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedNetwork:
        refuse_sums(aggregation, "NetworkModel")
        key = required_key(key, "networks start from random weights")
        prepared = self.prepare(values, observed)

        def one(key: PRNGKeyArray) -> TrainingState:
            build_key, key = jax.random.split(key)
            network = self.build(prepared, key=build_key)
            return train(network, prepared.task, prepared.validation, self.training, key=key)

        keys = numbered_keys(key, self.training.num_seeds)
        # One program for all seeds either way: side by side, or in turn.
        together = self.training.side_by_side
        states = jax.vmap(one)(keys) if together else jax.lax.map(one, keys)
        return self.finish(prepared, states)

    def untrained(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        key: PRNGKeyArray,
    ) -> FittedNetwork:
        """The model before its first step: it forecasts what the anchor does."""
        prepared = self.prepare(values, observed)
        network = self.build(prepared, key=key)
        state = start_training(network, prepared.task, self.training)
        return self.finish(prepared, jax.tree.map(lambda leaf: leaf[None], state))

    def build(self, prepared: Prepared, *, key: PRNGKeyArray) -> Network:
        """A network for these data."""
        return self.architecture.build(prepared.sizes, self.head, key=key)

    def prepare(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> Prepared:
        """Scaling, features, the anchor and its moments, examples to train on and to hold back."""
        num_rows, num_series = values.shape
        num_training = self.num_training(num_rows)
        check_rows(num_rows, self.look_back, self.horizon, num_training)
        places = self.places_of(num_series)
        values = jnp.where(observed, values, 0.0)
        scaling = scaling_of(values[:num_training], observed[:num_training])
        features = features_of(values, observed, scaling, self.log_squares)
        anchor = None
        if self.anchor is not None:
            anchor = self.anchor.estimate(values[:num_training], observed[:num_training])
            anchor = jax.lax.stop_gradient(anchor)

        def examples(first: int, last: int) -> PanelTask:
            origins = jnp.arange(first, last + 1)
            picked = jnp.asarray(places)
            ranks = None
            if self.training.curriculum.turbulence is not None:
                ranks = turbulence_ranks(features, origins, self.window)
            return PanelTask(
                features=features,
                values=values[:, picked],
                observed=observed[:, picked],
                origins=origins,
                moments=self.moments(anchor, scaling, values, observed, origins, places),
                ranks=ranks,
                head=self.head,
                curriculum=self.training.curriculum,
                window=self.window,
                horizon=self.horizon,
            )

        task = examples(self.look_back - 1, num_training - 1 - self.horizon)
        held_back = None
        if num_training < num_rows:
            held_back = examples(num_training - 1, num_rows - 1 - self.horizon)
        channels = features.shape[2]
        sizes = Sizes(
            self.window, num_series, channels, self.horizon, places, self.head.num_outputs
        )
        return Prepared(task, held_back, scaling, anchor, sizes, values, observed)

    def moments(
        self,
        anchor: Fitted | None,
        scaling: Scaling,
        values: Array,
        observed: Array,
        origins: Int[Array, " origins"],
        places: tuple[int, ...],
    ) -> Moments:
        """What the head refines, for each origin."""
        if anchor is None:
            resting = resting_moments(scaling, self.horizon, places)
            size = origins.shape[0]
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), resting)
        found = anchored_moments(anchor, values, observed, origins, self.look_back, self.horizon)
        if found.location.shape[2] != values.shape[1]:
            raise ValueError(
                f"the anchor {type(self.anchor).__name__} forecasts {found.location.shape[2]} of "
                f"{values.shape[1]} series; an anchor must forecast all series of the panel."
            )
        return jax.tree.map(lambda leaf: leaf[:, :, jnp.asarray(places)], found)

    def finish(self, prepared: Prepared, states: TrainingState) -> FittedNetwork:
        """The fitted model of trained networks, seeds along the leading axis."""
        members = states.best
        network = Ensemble(members)
        loss, _ = evaluate(network, prepared.task)
        held_back = prepared.validation
        thinking = jnp.full(network.num_supervision, jnp.nan, loss.dtype)
        if held_back is not None:
            thinking = thinking_curve(network, held_back)
        return FittedNetwork(
            network=network,
            head=self.head,
            scaling=prepared.scaling,
            anchor=prepared.anchor,
            values=prepared.values[-self.look_back :],
            observed=prepared.observed[-self.look_back :],
            trace=states.trace,
            thinking=thinking,
            loglik=-loss * num_scored(prepared.task),
            num_steps=jnp.max(states.step),
            result=result_of(jnp.any(states.diverged)),
            horizon=self.horizon,
            window=self.window,
            places=prepared.sizes.targets,
            targets=self.targets,
            log_squares=self.log_squares,
        )


def num_scored(task: PanelTask) -> Float[Array, ""]:
    """Observed entries over all examples."""
    counts = jax.vmap(lambda index: jnp.sum(task.example(index)[1].observed))(
        jnp.arange(task.num_examples)
    )
    return jnp.sum(counts).astype(task.values.dtype)
