"""Scores of forecasts of a hierarchy: scaled errors, tables by level, joint density, calibration.

Nodes are the last axis, in the order of `hierarchy.names` (aggregates, then bottom series); cases
(dates, origins, steps) lead. What was not realised (NaN) is not counted. Errors of different
levels have different sizes: scale them, or look level by level. Of scores, lower is better.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.evaluation.calibration import pit_kolmogorov
from jaxfc.evaluation.multivariate import Covs, joint_log_score
from jaxfc.evaluation.scores import known, mean_over_cases
from jaxfc.evaluation.tail_risk import quantile_score
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float

Nodes = Float[Array, "cases nodes"] | Float[np.ndarray, "cases nodes"]
History = Float[Array, "time nodes"] | Float[np.ndarray, "time nodes"]
Scale = Float[Array, "*cases nodes"] | Float[np.ndarray, "*cases nodes"]
Numbers = Float[Array, " nodes"] | Float[np.ndarray, " nodes"]
Quantiles = Float[Array, "levels cases nodes"] | Float[np.ndarray, "levels cases nodes"]
Levels = Float[Array, " levels"] | Float[np.ndarray, " levels"]
Benchmark = Literal["naive", "zero", "mean"]
Pooling = Literal["pooled", "series"]
ALL = "all"


def squared_scale(
    history: History, benchmark: Benchmark = "naive", *, period: int = 1
) -> Float[Array, " nodes"]:
    """Mean squared error in sample of a forecast without skill, node by node.

    - "naive": mean (y_t - y_{t-m})^2 with m = `period`: the last value, or that of last season;
    - "zero": mean y_t^2: what returns are measured by, whose last value is no forecast at all;
    - "mean": mean (y_t - mean y)^2, the variance.

    Over the dates at which the values were observed; a node without any, or one that never moved,
    has no scale: NaN. Errors of returns scaled by "naive" are about 1 / sqrt(2)
    for a perfect forecast of the mean of white noise: "zero" or "mean" give 1.

    Source: Hyndman and Koehler (2006).

    **Raises:** `ValueError` for an unknown benchmark or a period not below the dates.
    """
    history = jnp.asarray(history)
    if benchmark not in ("naive", "zero", "mean"):
        raise ValueError(f"benchmark must be naive, zero or mean, got {benchmark!r}.")
    if not 1 <= period < history.shape[0]:
        raise ValueError(
            f"period must be in 1..{history.shape[0] - 1} for so many dates, got {period}."
        )
    values, seen = known(history), jnp.isfinite(history)
    if benchmark == "naive":
        seen = seen[period:] & seen[:-period]
        errors = values[period:] - values[:-period]
    else:
        count = jnp.sum(seen, axis=0)
        centre = jnp.sum(values, axis=0) / count if benchmark == "mean" else 0.0
        errors = values - centre
    scale = jnp.sum(jnp.where(seen, errors**2, 0.0), axis=0) / jnp.sum(seen, axis=0)
    return jnp.where(scale > 0.0, scale, jnp.nan)


def rmsse(mean: Nodes, realised: Nodes, scale: Scale) -> Float[Array, " nodes"]:
    """Root mean squared scaled error, node by node; 1: as large as the benchmark's in sample.

        sqrt( mean_cases e^2 / s ),   s = `squared_scale` of the history

    **Arguments:** `scale` s of each node, or of each case and node where every origin has a history
    of its own.

    Source: Makridakis, Spiliotis and Assimakopoulos (2022), for period 1.
    """
    errors = (known(realised) - mean) ** 2 / scale
    return jnp.sqrt(mean_over_cases(errors, realised))


def scaled_crps(
    quantiles: Quantiles, probabilities: Levels, realised: Nodes, *, pooling: Pooling = "pooled"
) -> Float[Array, ""]:
    """Scaled CRPS from quantiles: a mean tick loss per absolute value realised.

        2 sum_{cases, nodes} (1/Q) sum_q QL_q(y, q^) / sum_{cases, nodes} |y|           "pooled"

    or the mean over nodes of the same of each node ("series"). Published figures of
    hierarchicalforecast's baselines and of Rangapuram et al. (2021) pool the nodes of a level (or
    of all levels, "Overall"), so that nodes of large values count most; utilsforecast's function,
    which hierarchicalforecast calls now, is "series". Nothing scales returns near zero well: for
    them take CRPS and `squared_scale`.

    **Arguments:** quantiles (levels, cases, nodes), as `Forecast.quantile` gives them.

    **Raises:** `ValueError` for an unknown pooling, and for probabilities outside (0, 1).
    """
    loss, size = tick_losses(quantiles, probabilities, realised)
    if pooling == "pooled":
        return 2.0 * jnp.sum(loss) / jnp.sum(size)
    if pooling == "series":
        moved = size > 0.0
        ratio = jnp.where(moved, loss / jnp.where(moved, size, 1.0), jnp.nan)
        return 2.0 * jnp.nanmean(ratio)
    raise ValueError(f"pooling must be pooled or series, got {pooling!r}.")


def scaled_crps_by_level(
    quantiles: Quantiles,
    probabilities: Levels,
    realised: Nodes,
    hierarchy: Hierarchy,
    *,
    pooling: Pooling = "pooled",
) -> pd.Series:
    """`scaled_crps` of the nodes of each level, and of "all" nodes; host side."""
    check_width(quantiles.shape[-1], hierarchy)
    found = {}
    for level, nodes in level_nodes(hierarchy).items():
        own = quantiles[..., nodes], probabilities, realised[:, nodes]
        found[level] = float(scaled_crps(*own, pooling=pooling))
    return pd.Series(found)


def level_table(
    scores: Mapping[str, Numbers], hierarchy: Hierarchy, *, weights: Numbers | None = None
) -> pd.DataFrame:
    """Mean scores of the nodes of each level (rows) by model (columns); the last row is "all".

    "all" is the mean over levels, so that the many series of the bottom do not outvote the rest; a
    node that is NaN is left out. `weights` of nodes (shares of revenue, capital) make the means
    weighted ones within each level, as M5's WRMSSE (Makridakis et al. 2022). Host side.

    **Raises:** `ValueError` for scores or weights of other nodes, and a negative weight.
    """
    given = np.ones(len(hierarchy.names)) if weights is None else np.asarray(weights)
    check_width(given.shape[0], hierarchy)
    if np.any(given < 0.0):
        bad = [n for n, w in zip(hierarchy.names, given, strict=True) if w < 0.0]
        raise ValueError(f"weights of {bad[:6]} are negative.")
    levels = {name: nodes for name, nodes in level_nodes(hierarchy).items() if name != ALL}
    columns = {}
    for model, values in scores.items():
        numbers = np.asarray(values)
        check_width(numbers.shape[0], hierarchy)
        means = {name: weighted_mean(numbers[own], given[own]) for name, own in levels.items()}
        columns[model] = {**means, ALL: weighted_mean(np.array(list(means.values())), np.ones(1))}
    return pd.DataFrame(columns)


def basis_log_score(
    mean: Nodes,
    cov: Covs,
    realised: Nodes,
    hierarchy: Hierarchy,
    *,
    basis: Sequence[str] | None = None,
) -> Float[Array, " cases"]:
    """`joint_log_score` of a normal law of all nodes on a basis: by default the bottom series.

    A coherent law lives on the subspace y = S b: on all nodes it has no density. On any basis it
    has one, and bases differ by log |det| of the change between them, the same for all
    coherent laws, so that differences of models do not depend on the basis. An
    incoherent base law has a density on all nodes, which must not be compared with that (it would
    win or lose by infinity); on a basis it is judged as if other nodes were not forecast.

    **Arguments:** mean, realised (cases, nodes); cov (cases, nodes, nodes); `basis` names nodes,
    none of which follows from the others. Those that were not realised are left out.

    **Raises:** `ValueError` for a basis with more nodes than there are bottom series or whose nodes
    determine one another, which is so for all nodes of a hierarchy.
    """
    check_width(mean.shape[1], hierarchy)
    names = hierarchy.bottom if basis is None else tuple(basis)
    chosen = np.array([hierarchy.labels.index(name) for name in names])
    if basis is not None:
        check_basis(hierarchy, chosen)
    block = cov[:, chosen[:, None], chosen[None, :]]
    return joint_log_score(mean[:, chosen], block, realised[:, chosen])


def pit_by_level(transforms: Nodes, hierarchy: Hierarchy, *, size: float = 0.05) -> pd.DataFrame:
    """Calibration of the margins by level: what `pit_gaussian` or `pit_draws` gave, node by node.

    Columns: nodes; share of nodes whose test of uniformity (`pit_kolmogorov`) rejects at `size`;
    Bonferroni's p-value of all nodes of the level, min_i p_i times their number, valid however
    nodes depend on each other (pooling their transforms would not be); mean of the transforms (0.5:
    no bias) and their standard deviation (0.289: width right, larger: laws too narrow). Host side.
    """
    check_width(transforms.shape[1], hierarchy)
    values = np.asarray(transforms)
    p_values = np.asarray(pit_kolmogorov(jnp.asarray(values)).p_value)
    rows = {}
    for level, nodes in level_nodes(hierarchy).items():
        p = p_values[nodes][np.isfinite(p_values[nodes])]
        pooled = values[:, nodes][np.isfinite(values[:, nodes])]
        rows[level] = {
            "nodes": len(nodes),
            "rejected": np.mean(p < size) if p.size else np.nan,
            "p_value": min(1.0, p.min() * p.size) if p.size else np.nan,
            "mean": pooled.mean() if pooled.size else np.nan,
            "std": pooled.std() if pooled.size else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tick_losses(
    quantiles: Quantiles, probabilities: Levels, realised: Nodes
) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Sums over the cases of the mean tick loss and of |y|, node by node."""
    bounds = jnp.moveaxis(jnp.asarray(quantiles), 0, -1)
    loss = jnp.mean(quantile_score(bounds, jnp.asarray(realised), probabilities), axis=-1)
    seen = jnp.isfinite(realised)
    size = jnp.sum(jnp.abs(known(realised)), axis=0)
    return jnp.sum(jnp.where(seen, loss, 0.0), axis=0), size


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the values that are numbers; NaN without any."""
    counted = np.where(np.isfinite(values), weights, 0.0)
    total = counted.sum()
    return float((np.nan_to_num(values) * counted).sum() / total) if total > 0.0 else np.nan


def level_nodes(hierarchy: Hierarchy) -> dict[str, np.ndarray]:
    """Positions of the nodes of each level from the top down, then of all."""
    found = {
        name: np.array(hierarchy.labels.at_level(name)) for name in hierarchy.labels.level_names
    }
    return {**found, ALL: np.arange(len(hierarchy.names))}


def check_width(num_nodes: int, hierarchy: Hierarchy) -> None:
    """Refuses scores of other nodes."""
    if num_nodes != len(hierarchy.names):
        raise ValueError(
            f"{num_nodes} nodes were scored, the hierarchy has {len(hierarchy.names)}: aggregates, "
            "then bottom series."
        )


def check_basis(hierarchy: Hierarchy, chosen: np.ndarray) -> None:
    """Refuses nodes on which a coherent law is degenerate."""
    rows = hierarchy.to_frame().to_numpy()[chosen]
    rank = np.linalg.matrix_rank(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    if rank < len(chosen):
        sums = [hierarchy.names[i] for i in chosen if i < len(hierarchy.aggregates)]
        raise ValueError(
            f"the {len(chosen)} nodes of the basis follow from {rank} of them, so that a coherent "
            f"law has no density on them; leave out aggregates such as {sums[:3]}, or take the "
            "bottom series alone (basis=None)."
        )
