"""The methods that are compared, ours and hierarchicalforecast's, as maps of the same base law."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hierarchies_base import Base
from experiments.hierarchies_data import World
from jaxfc.hierarchy import (
    ERM,
    OLS,
    WLS,
    BottomUp,
    Hierarchy,
    LevelConditional,
    Method,
    MinT,
    TopDown,
    reconcile_means,
)
from jaxfc.hierarchy.sample_cov import shrunk_cov

OURS, PEER = "jaxfc", "hierarchicalforecast"
# The same mathematics in both packages, by our name.
TWINS = {
    "bottom-up": "BottomUp",
    "top-down, average proportions": "TopDown average_proportions",
    "top-down, proportion of averages": "TopDown proportion_averages",
    "top-down, forecast proportions": "TopDown forecast_proportions",
    "OLS": "MinTrace ols",
    "WLS, structural": "MinTrace wls_struct",
    "WLS, variances": "MinTrace wls_var",
    "MinT, sample": "MinTrace mint_cov",
    "MinT, shrunk (centred)": "MinTrace mint_shrink",
}


@dataclasses.dataclass(frozen=True)
class Law:
    """A normal law of each step: means (horizon, nodes) and factors F of the covariances F F'
    (horizon, nodes, columns); no factors where only means are known, `regular` where the
    bottom series have a density."""

    mean: np.ndarray
    factors: np.ndarray | None
    regular: bool = True

    @property
    def std(self) -> np.ndarray:
        """Standard deviations (horizon, nodes); NaN where only means are known."""
        if self.factors is None:
            return np.full_like(self.mean, np.nan)
        return np.sqrt(np.sum(self.factors**2, axis=2))


def our_methods(world: World) -> dict[str, Method]:
    """By name. Proportions make no sense of returns, whose sums pass through zero."""
    proportions: dict[str, Method] = {
        "top-down, average proportions": TopDown("average_proportions"),
        "top-down, proportion of averages": TopDown("proportion_of_averages"),
        "top-down, forecast proportions": TopDown("forecast_proportions"),
    }
    return {
        "bottom-up": BottomUp(),
        **({} if world.spec.returns else proportions),
        "top-down, signed": TopDown("signed"),
        "OLS": OLS(),
        "WLS, structural": WLS("structural"),
        "WLS, variances": WLS("variance"),
        "MinT, shrunk": MinT("shrink"),
        "MinT, shrunk (centred)": MinT("shrink", centred=True),
        "MinT, oracle": MinT("oracle"),
        "MinT, sample": MinT("sample", centred=True),
        "level-conditional": LevelConditional(),
        "ERM": ERM(),
        "ERM, penalty 0.001": ERM(1e-3),
    }


@jax.jit
def correlation_root(residuals: jax.Array) -> jax.Array:
    """Cholesky factor of the shrunk correlations of residuals."""
    cov = shrunk_cov(residuals, jnp.ones(residuals.shape, bool), centred=True).dense()
    scale = jnp.sqrt(jnp.diagonal(cov))
    return jnp.linalg.cholesky(cov / scale / scale[:, None])


def base_law(base: Base) -> Law:
    """The base forecasts with standard deviations of their own and shrunk correlations."""
    root = np.asarray(correlation_root(jnp.asarray(base.residuals)))
    return Law(base.mean, base.std[:, :, None] * root)


def our_law(name: str, method: Method, base: Base, law: Law, hierarchy: Hierarchy) -> Law:
    """The reconciled law, by the map M that the method makes of unit vectors."""
    sample = {"residuals": jnp.asarray(base.residuals), "history": jnp.asarray(base.history)}
    if name == "top-down, forecast proportions":
        return Law(
            np.asarray(reconcile_means(jnp.asarray(base.mean), hierarchy, method, **sample)), None
        )
    unit = jnp.eye(base.mean.shape[1])
    matrix = np.asarray(reconcile_means(unit, hierarchy, method, **sample)).T
    regular = not name.startswith(("top-down, average", "top-down, proportion", "ERM"))
    assert law.factors is not None
    return Law(base.mean @ matrix.T, matrix @ law.factors, regular)


def our_laws(
    world: World, base: Base, law: Law, hierarchy: Hierarchy
) -> Iterator[tuple[str, Law | ValueError]]:
    """Of every method that can be had with so many dates, or what it refused."""
    few = base.residuals.shape[0] <= base.residuals.shape[1]
    few_aggregates = base.residuals.shape[0] <= len(hierarchy.aggregates)
    for name, method in our_methods(world).items():
        if (name == "ERM" and few) or (name == "MinT, sample" and few_aggregates):
            continue
        try:
            yield name, our_law(name, method, base, law, hierarchy)
        except ValueError as error:
            yield name, error


def peer_methods(world: World) -> dict[str, Any]:
    """hierarchicalforecast's by its own names; none where it is not installed."""
    try:
        from hierarchicalforecast import methods
    except ImportError:
        return {}
    shares = ("average_proportions", "proportion_averages", "forecast_proportions")
    kinds = ("ols", "wls_struct", "wls_var", "mint_cov", "mint_shrink")
    top_down = {} if world.spec.returns else {f"TopDown {s}": methods.TopDown(s) for s in shares}
    return {
        "BottomUp": methods.BottomUp(),
        **top_down,
        **{f"MinTrace {kind}": methods.MinTrace(kind) for kind in kinds},
        "ERM closed": methods.ERM("closed"),
    }


def peer_law(name: str, method: Any, base: Base, sums: np.ndarray, tags: dict) -> Law:
    """The law of one of its methods with its default normal sampler.

    **Raises:** whatever it raises.
    """
    sample = {"y_insample": base.history.T, "y_hat_insample": base.fitted.T}
    if name == "TopDown forecast_proportions":
        found = method.fit_predict(S=sums, y_hat=base.mean.T, tags=tags, **sample)
        return Law(found["mean"].T, None)
    if name == "BottomUp":
        sample = {}
    if name.startswith("TopDown"):
        del sample["y_hat_insample"]
    method.fit(S=sums, y_hat=base.mean.T, sigmah=base.std.T, intervals_method="normality", **sample)
    matrix = sums @ method.P
    weights = np.asarray(method.sampler.W)
    scale = np.sqrt(np.diagonal(weights))
    root = square_root(weights / np.outer(scale, scale))
    regular = not name.startswith(("TopDown", "ERM"))
    return Law(base.mean @ matrix.T, matrix @ (base.std[:, :, None] * root), regular)


def square_root(corr: np.ndarray) -> np.ndarray:
    """R with R R' = a matrix that may be singular."""
    try:
        return np.linalg.cholesky(corr)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(corr)
        return vectors * np.sqrt(np.maximum(values, 0.0))


def peer_laws(
    world: World, base: Base, hierarchy: Hierarchy
) -> Iterator[tuple[str, Law | Exception]]:
    """Of every method of the peer, or what it raised."""
    methods = peer_methods(world)
    if not methods:
        return
    sums = hierarchy.to_frame().to_numpy()
    levels = hierarchy.labels.level_names
    tags = {level: np.array(hierarchy.labels.at_level(level)) for level in levels}
    for name, method in methods.items():
        try:
            yield name, peer_law(name, method, base, sums, tags)
        except Exception as error:  # the peer raises bare exceptions; the table says which
            yield name, error
