"""Intervals and regions of reconciled forecasts from their errors at held-out origins."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.forecast import Levels, SampleForecast
from jaxfc.hierarchy.checks import check_nodes
from jaxfc.hierarchy.labels import marked
from jaxfc.hierarchy.residual_blocks import Errors, check_blocks, errors_array
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float


class Conformal(eqx.Module):
    """A coherent forecast with the signed errors that such forecasts made at held-out origins.

    Valid if the error to come and those at the n origins are exchangeable: an interval that leaves
    out k of the n + 1 places which the new error can take among them has coverage 1 - k / (n + 1),
    whatever the law and however wrong the model. Made by `conformal`.

    Source: Vovk, Gammerman and Shafer (2005); Principato, Stoltz, Amara-Ouali, Goude, Hamrouche
    and Poggi (2024) for hierarchies.
    """

    mean: Float[Array, "horizon nodes"]
    errors: Float[Array, "origins horizon nodes"]
    scale: Float[Array, "horizon nodes"]
    hierarchy: Hierarchy

    def quantile(self, q: Levels) -> Float[Array, "... horizon nodes"]:
        """mean + e_(k), the k-th smallest error of each node: P(y <= it) >= q.

        k = ceil(q (n + 1)) over the origins at which the node has an error; infinite beyond them.
        """
        levels = jnp.asarray(q, dtype=self.mean.dtype)
        places = levels.reshape((*levels.shape, 1, 1)) * (self.counts + 1)
        return self.mean + ranked(self.errors, rounded_up(places))

    def interval(self, level: float | Array) -> tuple[Array, Array]:
        """Bounds of each node and step by itself, (horizon, nodes) each, from signed errors.

        Half of 1 - `level` is left out on either side: the errors with ranks
        floor((n + 1) (1 - level) / 2) and, counted from the top, the same.

        **Raises:** `ValueError`, naming nodes, where there are fewer than 2 / (1 - level) - 1
        origins; under `jit` the bounds are infinite there.
        """
        level = jnp.asarray(level, dtype=self.mean.dtype)
        side = rounded_down(0.5 * (1.0 - level) * (self.counts + 1))
        self.check(side, level, 2.0)
        lower = ranked(self.errors, side)
        return self.mean + lower, self.mean + ranked(self.errors, self.counts + 1 - side)

    def region(self, level: float | Array, *, path: bool = False) -> tuple[Array, Array]:
        """A box around the forecast that has all nodes in it at once, with probability `level`.

            |y_i - mean_i| <= c s_i,   c: the ceil((n + 1) level)-th smallest of max_i |e_i| / s_i

        over the origins with errors of all nodes; of a step by itself, or of all steps at once
        (`path=True`). Standardising by `scale` s gives nodes of all sizes their share.

        **Raises:** `ValueError` where there are fewer than 1 / (1 - level) - 1 complete origins.
        """
        level = jnp.asarray(level, dtype=self.mean.dtype)
        scores = jnp.max(jnp.abs(self.errors) / self.scale, axis=(1, 2) if path else 2)
        scores = scores.reshape(scores.shape[0], -1)
        counts = jnp.sum(jnp.isfinite(scores), axis=0)
        place = rounded_up(level * (counts + 1))
        if not isinstance(place, Tracer) and np.any(np.asarray(place) > np.asarray(counts)):
            raise ValueError(
                f"a region of level {float(level):g} needs {needed(float(level), 1.0)} origins "
                f"with errors of all nodes, got {int(np.min(np.asarray(counts)))}; hold out more, "
                f"or ask for a lower level."
            )
        reach = ranked(scores, place)[:, None] * self.scale
        return self.mean - reach, self.mean + reach

    def forecast(self) -> SampleForecast:
        """Draws mean + e of the complete origins, coherent with the weights of the forecast.

        The bottom errors are added and summed upwards, so that draws add up even if the errors
        were made with other weights.

        **Raises:** `ValueError` for fewer than two complete origins.
        """
        errors = self.errors
        if not isinstance(errors, Tracer):
            errors = errors[jnp.all(jnp.isfinite(errors), axis=(1, 2))]
        split = len(self.hierarchy.aggregates)
        bottom = (self.mean + errors)[..., split:]
        nodes = self.hierarchy.aggregate(jnp.moveaxis(bottom, 1, 0))
        return SampleForecast(jnp.moveaxis(nodes, 0, 1))

    @property
    def counts(self) -> Float[Array, "horizon nodes"]:
        """How many origins have an error of a node."""
        return jnp.sum(jnp.isfinite(self.errors), axis=0).astype(self.mean.dtype)

    def check(self, side: Array, level: Array, sides: float) -> None:
        """Refuses levels that the origins cannot tell."""
        if isinstance(side, Tracer):
            return
        few = np.any(np.asarray(side) < 1, axis=0)
        if np.any(few):
            names = marked(self.hierarchy.names, few)
            least = int(np.min(np.asarray(self.counts)[:, few]))
            raise ValueError(
                f"an interval of level {float(level):g} needs errors at "
                f"{needed(float(level), sides)} origins; {names} have {least}. Hold out more, or "
                f"ask for a lower level."
            )


def conformal(
    mean: Float[Array, "horizon nodes"],
    hierarchy: Hierarchy,
    errors: Errors,
    *,
    scale: Float[Array, "horizon nodes"] | None = None,
) -> Conformal:
    """Conformal intervals and regions around a reconciled forecast.

    **Arguments:** `mean` (horizon, nodes), reconciled. `errors` (origins, horizon, nodes): values
    minus reconciled forecasts at origins that the base models and weights were not fitted to, NaN
    where a value is missing; (origins, nodes) for a horizon of one. `scale` of the scores, of the
    nodes' sizes, known without the errors (predicted standard deviations); by default the root
    mean square of the errors, which is theirs but not that of the error to come, so that regions
    are then slightly too narrow for few origins.

    **Raises:** `ValueError` for errors of other nodes or infinite ones, a scale that is not
    positive, nodes without errors.
    """
    mean = jnp.asarray(mean)
    check_nodes(mean, hierarchy)
    array = errors_array(errors, hierarchy.names, mean.shape[0], "conformal")
    if array.ndim == 2:
        if mean.shape[0] != 1:
            raise ValueError(
                f"errors of {mean.shape[0]} steps must be (origins, {mean.shape[0]}, nodes), got "
                f"{array.shape}."
            )
        array = array[:, None]
    check_blocks(
        jnp.nan_to_num(array, posinf=jnp.inf, neginf=-jnp.inf),
        hierarchy.names,
        1,
        "raise",
        "conformal",
    )
    known = jnp.isfinite(array)
    if scale is None:
        squares = jnp.sum(jnp.where(known, array, 0.0) ** 2, axis=0)
        scale = jnp.sqrt(squares / jnp.sum(known, axis=0))
    scale = jnp.broadcast_to(jnp.asarray(scale, dtype=mean.dtype), mean.shape)
    if not isinstance(scale, Tracer):
        bad = ~np.all(np.asarray(scale) > 0.0, axis=0)
        if np.any(bad):
            names = marked(hierarchy.names, bad)
            raise ValueError(
                f"the scale of {names} is not positive: their errors are missing or zero at all "
                f"origins. Drop these nodes or give a scale."
            )
    return Conformal(mean, array, scale, hierarchy)


def ranked(values: Float[Array, "origins *rest"], places: Array) -> Array:
    """The values of given ranks (from one) over the origins, without missing ones.

    Minus infinity for rank zero, infinity for ranks beyond the known values.
    """
    known = jnp.isfinite(values)
    ordered = jnp.sort(jnp.where(known, values, jnp.inf), axis=0)
    edge = jnp.full((1, *values.shape[1:]), jnp.inf, dtype=values.dtype)
    ordered = jnp.concatenate([-edge, ordered, edge])
    index = jnp.clip(places, 0, values.shape[0] + 1).astype(jnp.int32)
    lead = index.ndim - (values.ndim - 1)
    if lead == 0:
        return jnp.take_along_axis(ordered, index[None], axis=0)[0]
    flat = index.reshape(-1, *values.shape[1:])
    return jnp.take_along_axis(ordered, flat, axis=0).reshape(index.shape)


def rounded_up(places: Array) -> Array:
    """Ceiling, where rounding has not taken a whole number to the next."""
    return jnp.ceil(places * (1.0 - 1e2 * jnp.finfo(places.dtype).eps))


def rounded_down(places: Array) -> Array:
    """Floor, where rounding has not taken a whole number to the last."""
    return jnp.floor(places * (1.0 + 1e2 * jnp.finfo(places.dtype).eps))


def needed(level: float, sides: float) -> int:
    """The least number of origins for a level."""
    return int(np.ceil(sides / (1.0 - level) * (1.0 - 1e-12))) - 1
