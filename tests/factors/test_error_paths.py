"""Errors of which only sums are known, against dense Gaussian conditioning."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.calendar import aggregation_pattern, aggregation_rows
from jaxfc.factors.error_paths import errors_in_sums
from jaxfc_kernels.aggregation import aggregate

CALENDARS = {
    "weeks": ("W-FRI", pd.date_range("2020-01-03", periods=40, freq="W-FRI"), ("M", "Q")),
    "months": ("M", pd.date_range("2020-02-29", periods=31, freq="ME"), ("Q", "A")),
}
KINDS = ("flow_sum", "flow_average", "change_in_flow")


@pytest.mark.parametrize("name", CALENDARS)
def test_sums_equal_dense_conditioning(name):
    base, index, slower = CALENDARS[name]
    frequencies = tuple(f for f in slower for _ in KINDS)
    rows = aggregation_rows(index, base, frequencies, KINDS * 2)
    num_times, num_flows = len(index), len(frequencies)
    rng = np.random.default_rng(0)
    observed = rng.random((num_times, num_flows)) < 0.8
    for i, frequency in enumerate(frequencies):
        pattern = aggregation_pattern(index, base, frequency, (KINDS * 2)[i])
        observed[:, i] &= pattern.answered
    assert observed.sum() > 15
    ar = rng.uniform(-0.6, 0.95, num_flows)
    known = np.where(observed, rng.normal(size=observed.shape), 0.0)
    columns = tuple(range(num_flows))
    mask = jnp.asarray(observed, float)

    @jax.jit
    def ours(known):
        return errors_in_sums(known, mask, jnp.asarray(ar), rows, columns)

    means = np.asarray(ours(jnp.asarray(known)))
    derivative = np.asarray(jax.jacobian(ours)(jnp.asarray(known)))
    whole = np.asarray(
        jax.vmap(lambda e: aggregate(rows, e))(
            jnp.repeat(jnp.eye(num_times)[:, :, None], num_flows, axis=2)
        )
    )
    for i in range(num_flows):
        sums = whole[:, :, i].T[observed[:, i]]
        law = ar[i] ** np.abs(np.subtract.outer(np.arange(num_times), np.arange(num_times)))
        gain = law @ sums.T @ np.linalg.inv(sums @ law @ sums.T)
        np.testing.assert_allclose(means[:, i], gain @ known[observed[:, i], i], atol=1e-11)
        own = derivative[:, i, observed[:, i], i]
        np.testing.assert_allclose(own, gain, atol=1e-11)
        assert np.all(derivative[:, i, ~observed[:, i], i] == 0)
