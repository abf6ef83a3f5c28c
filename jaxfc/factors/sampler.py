"""Draws of a simulated world: parameters, factors, and a panel with gaps, from one key."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.dynamics import simulate_paths
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows, aggregate
from jaxfc_kernels.var_precision import stationary_block_cov

Range = tuple[float, float]
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


class FactorSampler(eqx.Module):
    """Draws the panels of a `FactorWorld`, see there.

    Its gaps are arrays: worlds that differ in their share of missing values, or in the kind of
    their flows, have samplers of one structure, which share a compiled program. `num_missing` of
    every stock; `flows_observed`: where the flows, the last series, have values; `aggregation`:
    what their values stand for, None for stocks alone.
    """

    num_missing: Int[Array, ""] | Int[np.ndarray, ""]
    flows_observed: Bool[Array, "time flows"] | Bool[np.ndarray, "time flows"]
    aggregation: AggregationRows | None
    num_series: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    transition_range: Range = eqx.field(static=True)
    innovation_range: Range = eqx.field(static=True)
    idiosyncratic_range: Range = eqx.field(static=True)
    intercept_scale: float = eqx.field(static=True)

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
        num_times, num_flows = self.flows_observed.shape
        num_stocks = self.num_series - num_flows

        def draw(attempt: Array) -> tuple[Array, Array]:
            order = jax.random.uniform(jax.random.fold_in(key, attempt), (num_times, num_stocks))
            # The smallest are lost: one sort and a threshold, a third of the time of ranks.
            smallest = jnp.sort(order, axis=0)
            kept = smallest.at[self.num_missing].get(mode="fill", fill_value=jnp.inf)
            observed = [order >= kept, jnp.asarray(self.flows_observed)]
            observed = jnp.concatenate(observed, axis=1)
            return observed, jnp.all(jnp.any(observed, axis=1))

        return redraw(draw)

    def sample(self, *, key: PRNGKeyArray) -> SimulatedPanel:
        """Parameters, path and gaps of one key: pure, for `jit` and `vmap`."""
        parameter_key, path_key, mask_key = jax.random.split(key, 3)
        parameters, is_stationary = self.draw_parameters(key=parameter_key)
        num_times = self.flows_observed.shape[0]
        complete, factors = simulate_paths(parameters, num_times, key=path_key)
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
