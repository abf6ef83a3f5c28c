"""Covariances of base errors over the periods of a cycle, from residuals of every order.

Nodes are pooled by their name without its last word: "week 1", "week 2" are the order "week", and
of a cross-temporal hierarchy "Tech @ week 1", "Tech @ week 2" are the order of one series.
"""

from collections.abc import Mapping as MappingOf
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.hierarchy.error_cov import DenseCov, ErrorCov, StructuredCov
from jaxfc.hierarchy.labels import Labels, shown
from jaxfc.hierarchy.method import Step
from jaxfc.hierarchy.methods import GLS
from jaxfc.hierarchy.sample_cov import residual_moments, sample_cov
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Bool, Float, Int

TemporalKind = Literal[
    "order_variance", "order_blocks", "structural_ar1", "order_ar1", "position_ar1"
]
KINDS = ("order_variance", "order_blocks", "structural_ar1", "order_ar1", "position_ar1")


class TemporalGLS(GLS):
    """W from the errors of each order, over the periods of a cycle.

    - "order_variance" (FoReco wlsv): diag(v_k), the mean square of all errors of order k;
    - "order_blocks" (acov): a block for each order, the sample covariance of its positions;
    - "structural_ar1" (strar1), "order_ar1" (sar1), "position_ar1" (har1): for each order

          W_k = D^1/2 T(rho_k) D^1/2,   T_ij = rho_k^|i-j|

      with D the structural variances diag(S S'), v_k, or the mean squares of each position, and
      rho_k the first autocorrelation of the errors of order k in time.

    The others are methods that exist: identity (ols) is `OLS()`, struct (str) `WLS()`, per position
    (wlsh) `WLS("variance")`, sample and shrunk (sam, shr) `MinT("sample")`, `MinT("shrink")`, all
    with residuals stacked by `stack_orders`.

    Residuals are (cycles, nodes), NaN where missing and where a cycle has no such period. Lags
    count positions of the hierarchy; pairs of neighbours with a missing one are left out, so that

        rho = sum_pairs c_t c_(t+1) / num_pairs * (n - 1) / sum c_t^2,   c = e - mean,

    the usual autocorrelation where nothing is missing, kept within +-`max_correlation`.

    **Arguments:** `series`: instead of stacked residuals, those of each order in time (time,), by
    level, of any length and NaN where missing; for calendars whose periods cannot be stacked.
    Refused where positions are needed ("order_blocks", "position_ar1"). `centred` as in `MinT`.

    Source: Athanasopoulos et al. (2017) for order and position variances; Nystrup, Lindstrom,
    Pinson and Madsen (2020) for blocks and first-order autocorrelations.
    """

    kind: TemporalKind = eqx.field(static=True)
    centred: bool = eqx.field(static=True)
    max_correlation: Float[Array, ""]
    series: dict[str, Float[Array, " time"]] | None

    def __init__(
        self,
        kind: str = "order_variance",
        *,
        centred: bool = False,
        series: MappingOf[str, Array] | None = None,
        max_correlation: float | Array = 0.99,
    ):
        if kind not in KINDS:
            raise ValueError(f"TemporalGLS takes one of {KINDS}, got {kind!r}.")
        if series is not None and kind in ("order_blocks", "position_ar1"):
            raise ValueError(
                f"{kind!r} needs errors by position in the cycle: give residuals= stacked by "
                f"cycles instead of series=."
            )
        self.kind = kind  # pyright: ignore[reportAttributeAccessIssue]
        self.centred = centred
        self.series = None if series is None else {k: jnp.asarray(v) for k, v in series.items()}
        self.max_correlation = jnp.asarray(max_correlation, dtype=jnp.result_type(float))

    def error_cov(self, step: Step) -> ErrorCov:
        pools = pools_of(step.labels)
        if self.kind == "order_blocks":
            residuals, observed = step.residuals("TemporalGLS('order_blocks')")
            whole = sample_cov(residuals, observed, centred=self.centred).dense()
            return DenseCov(jnp.where(pools.of[:, None] == pools.of, whole, 0.0))
        variances, correlations = self.moments(step, pools)
        if self.kind == "order_variance":
            return StructuredCov(variances[pools.of])
        if self.kind == "structural_ar1":
            squares = step.summing.row_squares()
            own = jnp.where(squares > 0, squares, 1.0)
        elif self.kind == "order_ar1":
            own = variances[pools.of]
        else:
            own = residual_moments(*step.residuals("TemporalGLS"), centred=self.centred)[1]
        return toeplitz_cov(own, correlations, pools)

    def check(self, summing: Summing, labels: Labels) -> None:
        if self.kind == "order_variance" or isinstance(summing.weights, Tracer):
            return
        if summing.weights.ndim == 3 and bool(jnp.any(empty_aggregates(summing))):
            raise ValueError(
                f"some cycles lack periods of the hierarchy, whose errors are correlated with "
                f"others in TemporalGLS({self.kind!r}); use its cycles.method(...)."
            )

    def moments(self, step: Step, pools: "Pools") -> tuple[Array, Array]:
        """Variance and first autocorrelation of the errors of every order."""
        if self.series is None:
            residuals, observed = step.residuals(f"TemporalGLS({self.kind!r})")
            found = stacked_moments(residuals, observed, pools, centred=self.centred)
        else:
            absent = [name for name in pools.names if name not in self.series]
            if absent:
                raise ValueError(
                    f"series= has no errors of {shown(absent)}; it has {shown(self.series)}."
                )
            rows = [self.series[name] for name in pools.names]
            pairs = [series_moments(row, centred=self.centred) for row in rows]
            found = tuple(jnp.stack(column) for column in zip(*pairs, strict=True))
        variances, correlations = found
        return variances, jnp.clip(correlations, -self.max_correlation, self.max_correlation)


class OfPresent(GLS):
    """A projection in which the nodes that a cycle does not have play no part.

    Their rows and columns of W are cut off, so that an absent week, which is zero without error,
    says nothing about others. Made by `CalendarCycles.method`.

    **Arguments:** `method`, whose W is cut; `present` (cycles, nodes).
    """

    method: GLS
    present: Bool[Array, "*cycles nodes"]

    @property
    def by_step(self) -> bool:
        return True

    @property
    def leaves_by_step(self) -> tuple[Array, ...]:
        return (self.present, *self.method.leaves_by_step)

    @property
    def needs_forecast_cov(self) -> bool:
        return self.method.needs_forecast_cov

    def error_cov(self, step: Step) -> ErrorCov:
        absent = ~self.present
        cov = self.method.error_cov(step).without(absent)
        # Alone in its row, an absent node may have any variance.
        own = jnp.where(absent, 1.0, 0.0)
        if isinstance(cov, StructuredCov):
            return StructuredCov(cov.variances + own, cov.factors, cov.factor_weight)
        return DenseCov(cov.dense() + jnp.diag(own))


def empty_aggregates(summing: Summing) -> Bool[Array, "steps aggregates"]:
    """Aggregates without any weight, step by step."""

    def one(weights: Array) -> Array:
        return Summing(summing.groups, weights, summing.num_aggregates).scatter(jnp.abs(weights))

    return jax.vmap(one)(summing.weights) == 0.0


class Pools(NamedTuple):
    """Orders: their names, that of each node, its place in it, and the node that follows it in
    time, in the next cycle where `wraps`."""

    names: tuple[str, ...]
    of: Int[np.ndarray, " nodes"]
    place: Int[np.ndarray, " nodes"]
    following: Int[np.ndarray, " nodes"]
    wraps: Bool[np.ndarray, " nodes"]


def pools_of(labels: Labels) -> Pools:
    """Orders of the nodes of a temporal or cross-temporal hierarchy."""
    keys = [name.rpartition(" ")[0] for name in labels.names]
    if "" in keys:
        raise ValueError(
            f"TemporalGLS needs the nodes of a temporal hierarchy, named like 'month 1'; got "
            f"{shown(name for name, key in zip(labels.names, keys, strict=True) if not key)}."
        )
    names = tuple(dict.fromkeys(keys))
    code = {name: i for i, name in enumerate(names)}
    of = np.array([code[key] for key in keys])
    place, following = np.zeros(len(of), dtype=np.int64), np.arange(len(of))
    wraps = np.zeros(len(of), dtype=bool)
    for pool in range(len(names)):
        members = np.flatnonzero(of == pool)
        place[members] = np.arange(len(members))
        following[members] = np.roll(members, -1)
        wraps[members[-1]] = True
    return Pools(names, of, place, following, wraps)


def stacked_moments(
    residuals: Float[Array, "cycles nodes"],
    observed: Bool[Array, "cycles nodes"],
    pools: Pools,
    *,
    centred: bool,
) -> tuple[Float[Array, " orders"], Float[Array, " orders"]]:
    """Variance and first autocorrelation of each order, over all its positions and cycles."""
    size = len(pools.names)

    def pooled(columns: Array) -> Array:
        return jnp.zeros(size, columns.dtype).at[pools.of].add(columns)

    values = jnp.where(observed, residuals, 0.0)
    count = pooled(jnp.sum(observed, axis=0).astype(values.dtype))
    mean = (pooled(jnp.sum(values, axis=0)) / count)[pools.of]
    deviations = jnp.where(observed, values - mean, 0.0)
    later = jnp.concatenate([deviations[1:], jnp.zeros_like(deviations[:1])])
    later = jnp.where(pools.wraps, later[:, pools.following], deviations[:, pools.following])
    known = jnp.concatenate([observed[1:], jnp.zeros_like(observed[:1])])
    known = jnp.where(pools.wraps, known[:, pools.following], observed[:, pools.following])
    num_pairs = pooled(jnp.sum(observed & known, axis=0).astype(values.dtype))
    products = pooled(jnp.sum(deviations * later, axis=0))
    squares = pooled(jnp.sum(deviations**2, axis=0))
    raw = pooled(jnp.sum(values**2, axis=0))
    variances = squares / (count - 1.0) if centred else raw / count
    return variances, autocorrelation(products, num_pairs, squares, count)


def series_moments(series: Float[Array, " time"], *, centred: bool) -> tuple[Array, Array]:
    """Variance and first autocorrelation of one series in time, NaN where missing."""
    observed = ~jnp.isnan(series)
    values = jnp.where(observed, series, 0.0)
    count = jnp.sum(observed).astype(values.dtype)
    deviations = jnp.where(observed, values - jnp.sum(values) / count, 0.0)
    squares = jnp.sum(deviations**2)
    products = jnp.sum(deviations[1:] * deviations[:-1])
    num_pairs = jnp.sum(observed[1:] & observed[:-1]).astype(values.dtype)
    variance = squares / (count - 1.0) if centred else jnp.sum(values**2) / count
    return variance, autocorrelation(products, num_pairs, squares, count)


def autocorrelation(products: Array, num_pairs: Array, squares: Array, count: Array) -> Array:
    """First autocorrelation from sums; zero without pairs or without variance."""
    known = (num_pairs > 0) & (squares > 0)
    scale = jnp.where(known, num_pairs * squares, 1.0)
    return jnp.where(known, products * (count - 1.0) / scale, 0.0)


def toeplitz_cov(
    variances: Float[Array, " nodes"], correlations: Float[Array, " orders"], pools: Pools
) -> DenseCov:
    """W_ij = s_i s_j rho^|i-j| for two positions of one order, zero between orders."""
    same = pools.of[:, None] == pools.of
    lags = np.where(same, np.abs(pools.place[:, None] - pools.place), 0)
    powers = correlations[pools.of][:, None] ** jnp.asarray(lags)
    scale = jnp.sqrt(variances)
    return DenseCov(jnp.where(same, scale[:, None] * powers * scale, 0.0))
