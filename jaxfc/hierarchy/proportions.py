"""Top-down and middle-out: forecasts of some nodes, spread over the series below them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.mapping import Mapping, ShareMap
from jaxfc.hierarchy.method import Method, Step
from jaxfc.hierarchy.sample_cov import mean_squares
from jaxfc.hierarchy.tree import SignedMap, forecast_shares, tree_of

PROPORTIONS = ("average_proportions", "proportion_of_averages", "forecast_proportions", "signed")


class TopDown(Method):
    """The forecast of the top, spread over the series by proportions p with a_top' p = 1.

    - "average_proportions": p_j = mean over dates of b_jt / y_top,t;
    - "proportion_of_averages": p_j = mean b_j / mean y_top (dates with both observed);
    - "forecast_proportions": products of y^_c / sum_s w_s y^_s from the top down, from base means;
    - "signed": gaps spread by error variances, finite for data of any sign (see `SignedMap`).

    Proportions of averages and average proportions are divided by a_top' p, which is one only
    where weights never changed. The first three make no sense where the top passes through
    zero, as returns do: use "signed". (Gross and Sohl 1990; Athanasopoulos, Ahmed and Hyndman
    2009.)
    """

    proportions: str = eqx.field(static=True, default="average_proportions")

    def __check_init__(self):
        check_proportions(self.proportions)

    @property
    def by_step(self) -> bool:
        return self.proportions == "forecast_proportions"

    def mapping(self, step: Step) -> Mapping:
        return downwards(step, np.array([step.labels.top]), self.proportions, "TopDown")


class MiddleOut(Method):
    """The forecasts of a level: summed above it, spread below it as in `TopDown`.

    Series that hang above the level (unequal depth) keep their own forecasts.
    """

    level: str = eqx.field(static=True)
    proportions: str = eqx.field(static=True, default="average_proportions")

    def __check_init__(self):
        check_proportions(self.proportions)

    @property
    def by_step(self) -> bool:
        return self.proportions == "forecast_proportions"

    def mapping(self, step: Step) -> Mapping:
        kept = np.array(step.labels.at_level(self.level))
        return downwards(step, kept, self.proportions, "MiddleOut")


def check_proportions(proportions: str) -> None:
    """Refuses an unknown way of spreading."""
    if proportions not in PROPORTIONS:
        raise ValueError(f"proportions are one of {PROPORTIONS}, got {proportions!r}.")


def downwards(step: Step, kept: np.ndarray, proportions: str, name: str) -> Mapping:
    """The map that keeps some nodes and spreads their forecasts over their series."""
    summing, labels = step.summing, step.labels
    split = summing.num_aggregates
    below = np.isin(labels.groups, kept)
    own = np.arange(split, split + summing.num_bottom)
    if np.any(np.sum(below, axis=0) > 1):
        raise ValueError(f"{name}: nodes of the level overlap, so that they cannot all be kept.")
    chosen = np.where(below, labels.groups, -1).max(axis=0)
    covered = chosen >= 0
    sources = np.where(covered, chosen, own)
    all_kept = jnp.asarray(np.concatenate([kept, own[~covered]]))
    if proportions == "signed":
        variances = mean_squares(step.errors(f"{name}('signed')"))
        return SignedMap(summing, tree_of(summing, labels), variances, all_kept)
    if proportions == "forecast_proportions":
        tree = tree_of(summing, labels)
        shares = forecast_shares(tree, step.mean, all_kept)[split:]
        return ShareMap(summing, jnp.asarray(sources), shares)
    values, observed = step.values(f"{name}({proportions!r})")
    both = observed[:, split:] & observed[:, sources]
    bottom = jnp.where(both, values[:, split:], 0.0)
    upper = jnp.where(both, values[:, sources], 1.0)
    count = jnp.sum(both, axis=0)
    if proportions == "average_proportions":
        shares = jnp.sum(bottom / upper, axis=0) / count
    else:
        shares = jnp.sum(bottom, axis=0) / jnp.sum(jnp.where(both, upper, 0.0), axis=0)
    held = jnp.sum(jnp.where(jnp.asarray(below), summing.weights, 0.0), axis=0)
    totals = jnp.zeros(summing.num_nodes).at[sources].add(held * shares)
    shares = jnp.where(jnp.asarray(covered), shares / totals[sources], 1.0)
    return ShareMap(summing, jnp.asarray(sources), shares)
