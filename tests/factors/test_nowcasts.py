"""Nowcasts against the dense joint Gaussian law of a small panel, and against their constraints."""

import equinox as eqx
import jax
import jax.export
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, DynamicFactorModel, TwoStepEM
from jaxfc.factors.nowcasts import nowcast, nowcast_arrays
from jaxfc.panel import Panel

NUM_TIMES, NUM_SERIES, NUM_DRAWS = 24, 4, 4000


@pytest.fixture(scope="module")
def gappy():
    """Stocks with holes and a ragged edge."""
    rng = np.random.default_rng(2)
    factor = np.convolve(rng.normal(size=NUM_TIMES + 1), [1.0, 0.7], mode="valid")
    values = factor[:, None] * [1.0, 0.8, -0.9, 0.5] + 0.5 * rng.normal(
        size=(NUM_TIMES, NUM_SERIES)
    )
    values[rng.random(values.shape) < 0.2] = np.nan
    values[-2:, 1:3] = np.nan
    index = pd.date_range("2020-01-03", periods=NUM_TIMES, freq="W-FRI")
    return Panel.from_frame(pd.DataFrame(5.0 + 3.0 * values, index=index, columns=list("abcd")))


def dense_conditional(fitted, panel):
    """Mean and standard deviation of every cell given the observed ones, by one big matrix."""
    parameters = jax.tree.map(np.asarray, fitted.parameters)
    loadings, cov = parameters.loadings, parameters.idiosyncratic_cov
    spread = np.diag(cov) if cov.ndim == 1 else cov
    slope, now = parameters.transition[0], np.asarray(fitted.parameters.factor_cov)
    num_times, num_series = panel.observed.shape
    joint = np.zeros((num_times, num_series, num_times, num_series))
    for t in range(num_times):
        for s in range(t + 1):
            lagged = np.linalg.matrix_power(slope, t - s) @ now
            block = loadings @ lagged @ loadings.T + (spread if s == t else 0.0)
            joint[t, :, s, :], joint[s, :, t, :] = block, block.T
    scale, centre = np.asarray(fitted.scaling.scale), np.asarray(fitted.scaling.centre)
    standard = ((panel.values - centre) / scale - parameters.intercept).reshape(-1)
    big = joint.reshape(num_times * num_series, -1)
    seen = panel.observed.reshape(-1)
    gain = big[:, seen] @ np.linalg.inv(big[np.ix_(seen, seen)])
    mean = (gain @ standard[seen]).reshape(num_times, num_series)
    variance = np.diag(big - gain @ big[seen]).clip(0.0).reshape(num_times, num_series)
    return centre + scale * (mean + parameters.intercept), scale * np.sqrt(variance)


@pytest.mark.parametrize("idiosyncratic", ["diagonal", "full"])
def test_one_step_nowcast_is_the_conditional_law(gappy, idiosyncratic):
    model = DynamicFactorModel(
        1, 1, method=EM(max_steps=5), idiosyncratic=idiosyncratic, variance_floor=1e-2
    )
    fitted = model.fit(gappy, throw=False)
    result = nowcast(fitted, gappy, NUM_DRAWS, key=jax.random.key(0))
    mean, std = dense_conditional(fitted, gappy)
    missing = ~gappy.observed
    # Full S: conjugate gradients stop at 1e-3 of the square root of the precision.
    np.testing.assert_allclose(result.mean, mean, atol=1e-9 if idiosyncratic == "full" else 1e-11)
    assert np.all(np.asarray(result.mean)[~missing] == gappy.values[~missing])
    assert np.all(np.asarray(result.std)[~missing] == 0.0)
    relative = np.asarray(result.std)[missing] / std[missing] - 1.0
    assert np.abs(relative).max() < 5.0 / np.sqrt(2 * NUM_DRAWS)


def test_two_step_nowcast_adds_up_to_the_data():
    rng = np.random.default_rng(4)
    index = pd.date_range("2020-01-03", periods=60, freq="W-FRI")
    factor = rng.normal(size=60)
    weekly = pd.DataFrame(
        factor[:, None] + rng.normal(size=(60, 3)), index=index, columns=list("abc")
    )
    weekly.iloc[10:14, 1] = np.nan
    latent = pd.Series(10.0 + factor + rng.normal(size=60), index=index)
    monthly = pd.DataFrame(
        {"sum": latent.resample("ME").sum(), "end": latent.resample("ME").last()}
    )
    panel = Panel.from_frames(
        {"W": weekly, "M": monthly}, kinds={"sum": "flow_sum", "end": "stock"}
    )
    method = TwoStepEM(conditional_cov=True, restart=False, max_steps=10, inner=EM(max_steps=3))
    fitted = DynamicFactorModel(1, 1, method=method).fit(panel, throw=False)
    result = nowcast(fitted, panel, 50, key=jax.random.key(1))
    reported = panel.native(result.mean).to_numpy()
    np.testing.assert_allclose(
        reported[panel.observed], panel.values[panel.observed], rtol=1e-10, atol=1e-10
    )
    rebuilt = np.asarray(fitted.scaling.restore(fitted.completed))
    np.testing.assert_allclose(result.mean, rebuilt, rtol=1e-12, atol=1e-12)
    std, sums = np.asarray(result.std), panel.names.index("sum")
    stocks = [i for i in range(5) if i != sums]
    assert np.all(std[:, stocks][panel.observed[:, stocks]] == 0.0)
    assert np.all(std[:, stocks][~panel.observed[:, stocks]] > 0.0)
    assert np.all(std[:, sums] > 0.0)
    values, observed = panel.arrays()
    dynamic, static = eqx.partition(fitted, eqx.is_array)

    def program(arrays, values, observed, key):
        whole = eqx.combine(arrays, static)
        return nowcast_arrays(whole, values, observed, panel.aggregation, 5, key=key)

    given = (dynamic, values, observed, jax.random.key(0))
    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(
        *jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), given)
    )
    assert exported.platforms == ("cuda",)


def test_refusals(gappy):
    fitted = DynamicFactorModel(1, 1, method=EM(max_steps=5), variance_floor=1e-2).fit(
        gappy, throw=False
    )
    with pytest.raises(ValueError, match="num_draws must be at least 2"):
        nowcast(fitted, gappy, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="not the one that was fitted"):
        nowcast(fitted, gappy.as_of("2020-03-01"), 10, key=jax.random.key(0))
