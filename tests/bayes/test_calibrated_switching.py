"""Regime-switching hierarchies draw from the posterior that they claim: ranks of the truth.

Regimes are summed out; the row after the data is ranked too, which starts from the filtered regime.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from bayes.calibration_cases import (
    MANY,
    QUICK,
    ThenLatents,
    WithLatents,
    assert_calibrated,
    long_chains,
    ranked,
    short_chains,
)
from jaxfc.bayes.program import Parameters
from jaxfc.bayes.switching_levels import SwitchingData, SwitchingLevels, draw_rows


class Switching(WithLatents):
    """With the row after the data."""

    inner: SwitchingLevels
    latents: Parameters = eqx.field(default_factory=dict)

    def complete(self, parameters, *, key):
        data = self.inner.data
        rows = draw_rows(self.inner.laws(parameters), None, len(data.values) + 1, key=key)
        values = jnp.where(data.observed, rows[:-1], 0.0)
        inner = eqx.tree_at(lambda program: program.data.values, self.inner, values)
        return inner, {"next_row": rows[-1]}

    def recovered(self, parameters, *, key):
        state = jnp.exp(self.inner.filtered(parameters).log_filtered[-1])
        return {"next_row": draw_rows(self.inner.laws(parameters), state, 1, key=key)[0]}


def world(num_rows, num_series, num_regimes=2, **options):
    """Two sectors, holes, one row without any cell."""
    rng = np.random.default_rng(num_rows)
    observed = rng.random((num_rows, num_series)) > 0.15
    observed[2] = False
    values = np.where(observed, rng.normal(size=observed.shape), 0.0)
    members = jnp.arange(num_series) % 2
    data = SwitchingData(jnp.asarray(values), jnp.asarray(observed), members, 2)
    return Switching(SwitchingLevels(data, num_regimes, **options))


def test_two_regimes_are_calibrated():
    assert_calibrated(ranked(world(10, 3), ThenLatents(short_chains(8)), QUICK))


OPTIONS = [
    (2, {}),
    (2, {"heavy_tails": True, "loads_switch": True}),
    (3, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("num_regimes", "options"), OPTIONS)
def test_regimes_are_calibrated_in_more_data(num_regimes, options):
    program = world(40, 4, num_regimes, **options)
    assert_calibrated(ranked(program, ThenLatents(long_chains(16)), MANY))
