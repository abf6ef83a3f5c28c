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
import numpy as np
import pandas as pd

from jaxfc.calendar import Blocks, Pattern, block_pattern, identity_pattern, stack_patterns
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.sampler import FactorSampler, Range, SimulatedPanel
from jaxfc.typing import Array, Bool, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

Kind = Literal["stock", "flow_average", "change_in_flow"]


class FactorWorld(eqx.Module):
    """An approximate dynamic factor model with gaps, drawn anew for every key.

    `missing` is the share of the entries of every series that are not observed. Stocks lose
    round(missing T) entries at random, drawn again until every row has an observation. With `flows`
    the second half of the series is low-frequency instead, all on one schedule: a block ends at
    ceil(s / (1 - missing)) for s = 1, 2, ..., so that blocks differ in length, and a value is the
    average of its block ("flow_average") or the change of the average since the block before, the
    series being differences ("change_in_flow"; the first block has none).

    **Raises:** `ValueError` for K >= N, T < p + 2 or T - p <= p K, a share outside [0, 1), flows
    without gaps, ranges that are empty or not positive, and flows of fewer than two series.

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
        coefficients = self.num_lags * self.num_factors
        transitions = self.num_times - self.num_lags
        if coefficients >= transitions:
            raise ValueError(
                f"num_lags x num_factors = {coefficients} coefficients of every factor cannot be "
                f"estimated from {transitions} transitions (num_times - num_lags); lower them or "
                "raise num_times."
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

    def sampler(self) -> FactorSampler:
        """What draws the panels; worlds of one size, whatever their gaps, share its programs."""
        flows = np.zeros((self.num_times, self.num_flows), bool)
        if self.num_flows:
            flows[self.flow_pattern.answered] = True
        return FactorSampler(
            num_missing=np.asarray(round(self.missing * self.num_times), np.int32),
            flows_observed=flows,
            aggregation=self.aggregation,
            num_series=self.num_series,
            num_factors=self.num_factors,
            num_lags=self.num_lags,
            transition_range=self.transition_range,
            innovation_range=self.innovation_range,
            idiosyncratic_range=self.idiosyncratic_range,
            intercept_scale=self.intercept_scale,
        )

    def draw_parameters(self, *, key: PRNGKeyArray) -> tuple[FactorParameters, Bool[Array, ""]]:
        """Parameters in the units of the panel, and whether their factors are stationary."""
        return self.sampler().draw_parameters(key=key)

    def sample(self, *, key: PRNGKeyArray) -> SimulatedPanel:
        """Parameters, path and gaps of one key: pure, for `jit` and `vmap`."""
        return self.sampler().sample(key=key)
