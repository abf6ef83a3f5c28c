"""Worlds of Monte Carlo studies: parameters, factors and a panel with gaps, drawn from one key.

The design of Defend et al. (2021, section 4). With V a random orthonormal matrix, all different,

    S   = V diag(s) V',            s   ~ U(idiosyncratic_range)
    Q   = V diag(q) V',            q   ~ U(innovation_range)
    A_l = V diag(a) V' / p,        a   ~ U(transition_range), all drawn again until stationary
    W_ik ~ N(0, 1),   mu_i ~ N(0, intercept_scale^2)

Errors are correlated across series, not over time. The source does not print the ranges, nor the
laws of W and mu: those above are ours.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import Blocks, Pattern, block_pattern, identity_pattern, stack_patterns
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.dynamics import simulate_paths
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows, aggregate
from jaxfc_kernels.var_precision import stationary_block_cov

Range = tuple[float, float]
Kind = Literal["stock", "flow_average", "change_in_flow"]
MAX_REDRAWS = 1000


class SimulatedPanel(eqx.Module):
    """A panel and its truth.

    `values` as the series report them (0 where not `observed`), `complete` the series at the
    panel's own frequency without gaps, `parameters` in the units of both. `is_valid`: the
    transition is stationary and every row has an observation; false where `MAX_REDRAWS` draws did
    not reach that.
    """

    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    complete: Float[Array, "time series"]
    factors: Float[Array, "time factors"]
    parameters: FactorParameters
    is_valid: Bool[Array, ""]


class FactorWorld(eqx.Module):
    """An approximate dynamic factor model with gaps, drawn anew for every key.

    `missing` is the share of the entries of every series that are not observed. Stocks lose
    round(missing T) entries at random, drawn again until every row has an observation. With `flows`
    the second half of the series is low-frequency instead, all on one schedule: a block ends at
    ceil(s / (1 - missing)) for s = 1, 2, ..., so that blocks differ in length, and a value is the
    average of its block ("flow_average") or the change of the average since the block before, the
    series being differences ("change_in_flow"; the first block has none).

    **Raises:** `ValueError` for K >= N, T < p + 2, a share outside [0, 1), flows without gaps,
    ranges that are empty or not positive, and flows of fewer than two series.

    Source: Defend et al. (2021), section 4; where it leaves roundings open they are ours.
    """

    num_times: int = eqx.field(static=True)
    num_series: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    missing: float = eqx.field(static=True, default=0.0)
    flows: Kind = eqx.field(static=True, default="stock")
    transition_range: Range = eqx.field(static=True, default=(0.3, 0.9))
    innovation_range: Range = eqx.field(static=True, default=(0.5, 1.5))
    idiosyncratic_range: Range = eqx.field(static=True, default=(0.25, 0.75))
    intercept_scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if not 1 <= self.num_factors < self.num_series:
            raise ValueError(
                f"num_factors must be from 1 to {self.num_series - 1} for {self.num_series} "
                f"series, got {self.num_factors}."
            )
        if self.num_lags < 0 or self.num_times < self.num_lags + 2:
            raise ValueError(
                f"num_lags = {self.num_lags} and num_times = {self.num_times}: lags must not be "
                "negative, and times at least lags + 2."
            )
        if not 0.0 <= self.missing < 1.0:
            raise ValueError(f"missing must be in [0, 1), got {self.missing}.")
        if self.flows not in ("stock", "flow_average", "change_in_flow"):
            raise ValueError(
                f"flows must be 'stock' (none), 'flow_average' or 'change_in_flow', got "
                f"{self.flows!r}."
            )
        if self.flows != "stock" and (self.missing == 0.0 or self.num_series < 2):
            raise ValueError(f"flows={self.flows!r} need missing > 0 and two series or more.")
        for name in ("transition_range", "innovation_range", "idiosyncratic_range"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high:
                raise ValueError(f"{name} must be 0 < low <= high, got ({low}, {high}).")

    @property
    def num_flows(self) -> int:
        """How many series, the last ones, are low-frequency flows."""
        return 0 if self.flows == "stock" else self.num_series // 2

    @property
    def block_ends(self) -> np.ndarray:
        """Rows in which the blocks of the flows end."""
        count = int(np.floor((1.0 - self.missing) * self.num_times + 1e-9))
        ends = np.ceil(np.arange(1, count + 1) / (1.0 - self.missing) - 1e-9).astype(int) - 1
        return ends[ends < self.num_times]

    @property
    def aggregation(self) -> AggregationRows | None:
        """What the entries of a panel stand for; None for stocks alone. The same for all keys."""
        if not self.num_flows:
            return None
        group = np.zeros(self.num_series, int)
        group[-self.num_flows :] = 1
        return stack_patterns([identity_pattern(self.num_times), self.flow_pattern], group)

    @property
    def flow_pattern(self) -> Pattern:
        """The pattern of the flows' schedule."""
        last = self.block_ends
        first = np.append(0, last[:-1] + 1)
        block = np.repeat(np.arange(last.size), last - first + 1)
        ended = np.ones(last.size, bool)
        rest = self.num_times - block.size
        if rest:  # rows after the last whole block
            first, last = np.append(first, block.size), np.append(last, self.num_times - 1)
            block, ended = np.append(block, np.full(rest, ended.size)), np.append(ended, False)
        blocks = Blocks(block, pd.DatetimeIndex([]), first, last, np.ones(ended.size, bool), ended)
        return block_pattern(blocks, self.flows)

    def draw_parameters(self, *, key: PRNGKeyArray) -> tuple[FactorParameters, Bool[Array, ""]]:
        """Parameters in the units of the panel, and whether their factors are stationary."""
        keys = jax.random.split(key, 5)
        size, count, lags = self.num_factors, self.num_series, self.num_lags
        innovation_cov = symmetric(keys[0], size, self.innovation_range)
        if lags:
            transition, is_stationary = self.draw_transition(keys[1], innovation_cov)
            initial_cov = stationary_block_cov(transition, innovation_cov)
        else:
            innovation_cov = initial_cov = jnp.eye(size)
            transition, is_stationary = jnp.zeros((0, size, size)), jnp.asarray(True)
        parameters = FactorParameters(
            loadings=jax.random.normal(keys[2], (count, size)),
            intercept=self.intercept_scale * jax.random.normal(keys[3], (count,)),
            idiosyncratic_cov=symmetric(keys[4], count, self.idiosyncratic_range),
            transition=transition,
            innovation_cov=innovation_cov,
            initial_mean=jnp.zeros(initial_cov.shape[0]),
            initial_cov=initial_cov,
        )
        return parameters, is_stationary

    def draw_transition(
        self, key: PRNGKeyArray, innovation_cov: Float[Array, "factors factors"]
    ) -> tuple[Float[Array, "lags factors factors"], Bool[Array, ""]]:
        """All lags, drawn again until they are stationary."""

        def draw(attempt: Array) -> tuple[Array, Array]:
            own = jax.random.split(jax.random.fold_in(key, attempt), self.num_lags)
            lags = [symmetric(k, self.num_factors, self.transition_range) for k in own]
            lags = jnp.stack(lags) / self.num_lags
            return lags, jnp.all(jnp.isfinite(stationary_block_cov(lags, innovation_cov)))

        return redraw(draw)

    def draw_mask(self, *, key: PRNGKeyArray) -> tuple[Bool[Array, "time series"], Bool[Array, ""]]:
        """Which entries are observed, and whether every row has one."""
        num_times, num_stocks = self.num_times, self.num_series - self.num_flows
        num_missing = round(self.missing * num_times)
        flows = np.zeros((num_times, self.num_flows), bool)
        if self.num_flows:
            flows[self.flow_pattern.answered] = True

        def draw(attempt: Array) -> tuple[Array, Array]:
            order = jax.random.uniform(jax.random.fold_in(key, attempt), (num_times, num_stocks))
            rank = jnp.argsort(jnp.argsort(order, axis=0), axis=0)
            observed = jnp.concatenate([rank >= num_missing, jnp.asarray(flows)], axis=1)
            return observed, jnp.all(jnp.any(observed, axis=1))

        return redraw(draw)

    def sample(self, *, key: PRNGKeyArray) -> SimulatedPanel:
        """Parameters, path and gaps of one key: pure, for `jit` and `vmap`."""
        parameter_key, path_key, mask_key = jax.random.split(key, 3)
        parameters, is_stationary = self.draw_parameters(key=parameter_key)
        complete, factors = simulate_paths(parameters, self.num_times, key=path_key)
        observed, has_rows = self.draw_mask(key=mask_key)
        rows = self.aggregation
        values = complete if rows is None else aggregate(rows, complete)
        return SimulatedPanel(
            values=jnp.where(observed, values, 0.0),
            observed=observed,
            complete=complete,
            factors=factors,
            parameters=parameters,
            is_valid=is_stationary & has_rows,
        )


def symmetric(key: PRNGKeyArray, size: int, within: Range) -> Float[Array, "size size"]:
    """V diag(u) V', u uniform, V orthonormal by Haar's measure."""
    vector_key, value_key = jax.random.split(key)
    vectors = orthonormal(vector_key, size)
    values = jax.random.uniform(value_key, (size,), minval=within[0], maxval=within[1])
    product = (vectors * values) @ vectors.T
    return 0.5 * (product + product.T)


def orthonormal(key: PRNGKeyArray, size: int) -> Float[Array, "size size"]:
    """A random orthonormal matrix, a product of reflections (Stewart 1980, section 3).

    Reflection k maps a normal vector of size - k entries to a multiple of the first unit vector.
    Not by a QR factorisation: batches of several at once can stop a process with few threads (see
    docs/index.md), and this one is a scan of products.
    """
    normals = jnp.triu(jax.random.normal(key, (size, size)))

    def reflect(product: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        position, vector = row
        head = vector[position]
        sign = jnp.where(head < 0, -1.0, 1.0)
        vector = vector.at[position].add(sign * jnp.linalg.norm(vector))
        scaled = vector * (2.0 / jnp.sum(vector**2))
        product = product - jnp.outer(product @ vector, scaled)
        # The sign makes the law Haar's; columns before the position are finished.
        flipped = jnp.where(jnp.arange(size) == position, -sign, 1.0)
        return product * flipped, None

    product, _ = jax.lax.scan(reflect, jnp.eye(size), (jnp.arange(size), normals))
    return product


def redraw(draw) -> tuple[Array, Bool[Array, ""]]:
    """`draw(attempt)` -> (answer, accepted), until it is accepted or `MAX_REDRAWS` are."""

    def go_on(state: tuple[Array, Array, Array]) -> Array:
        return ~state[2] & (state[0] < MAX_REDRAWS)

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        return (state[0] + 1, *draw(state[0] + 1))

    _, answer, accepted = jax.lax.while_loop(go_on, again, (jnp.asarray(0), *draw(jnp.asarray(0))))
    return answer, accepted
