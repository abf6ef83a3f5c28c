"""Edits change what they name, in every draw, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.bayes.editing import (
    with_added,
    with_capped,
    with_frozen,
    with_path,
    with_scaled,
    with_zero_return,
)
from jaxfc.bayes.views_weighted import WeightedForecast
from jaxfc.forecast import SampleForecast

NAMES = ("DRE", "SPY", "TLT", "VXX")
HORIZON = 3
DRAWS = np.random.default_rng(0).normal(size=(50, HORIZON, 4))
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(50))


@pytest.fixture(params=["equal", "weighted"])
def forecast(request):
    if request.param == "equal":
        return SampleForecast(jnp.asarray(DRAWS))
    return WeightedForecast(jnp.asarray(DRAWS), jnp.asarray(WEIGHTS))


def path(values):
    return np.broadcast_to(np.asarray(values, float)[:, None], (2, 2))


EDITS = {
    "zero": (with_zero_return, {}, lambda part: 0 * part),
    "added": (with_added, {"amount": 0.5}, lambda part: part + 0.5),
    "added each": (
        with_added,
        {"amount": np.array([0.5, -1.0])},
        lambda part: part + np.array([0.5, -1.0]),
    ),
    "scaled": (
        with_scaled,
        {"factor": 2.0, "about": 1.0},
        lambda part: 1 + 2 * (part - 1),
    ),
    "capped": (
        with_capped,
        {"lower": -0.2, "upper": 0.1},
        lambda part: np.minimum(np.maximum(part, -0.2), 0.1),
    ),
    "frozen": (with_frozen, {}, lambda part: part[:, [0, 0]]),
    "path": (
        with_path,
        {"path": np.array([0.3, np.nan])},
        lambda part: np.stack([np.full((50, 2), 0.3), part[:, 1]], axis=1),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_what_it_names_and_nothing_else(forecast, edit):
    function, arguments, oracle = EDITS[edit]
    found = function(forecast, ["VXX", "DRE"], **arguments, names=NAMES, from_step=2)
    expected = DRAWS.copy()
    part = DRAWS[:, 1:][:, :, [3, 0]]
    expected[:, 1:, 3], expected[:, 1:, 0] = np.moveaxis(oracle(part), 2, 0)
    assert type(found) is type(forecast)
    np.testing.assert_allclose(found.draws, expected, atol=1e-15)
    np.testing.assert_array_equal(found.draws[:, :, 1:3], DRAWS[:, :, 1:3])
    rest = jnp.eye(4)[1:3]  # the joint law of the others is what it was
    np.testing.assert_array_equal(found.aggregate(rest).cov, forecast.aggregate(rest).cov)
    if isinstance(forecast, WeightedForecast):
        np.testing.assert_array_equal(found.weights, WEIGHTS)


def test_a_delisted_asset_ranks_where_nothing_ranks(forecast):
    """The quintile probabilities of a delisted asset are those of a zero return among the rest."""
    after = with_zero_return(forecast, "DRE", names=NAMES)
    total = np.asarray(after.draws).sum(1)
    better = (total[:, 1:] < 0).sum(1)
    rank = np.argsort(np.argsort(total, axis=1), axis=1)[:, 0]
    np.testing.assert_array_equal(rank, better)
    assert float(after.std[:, 0].max()) == 0.0


def test_series_are_named_by_panels_tuples_and_positions():
    forecast = SampleForecast(jnp.asarray(DRAWS))
    index = pd.date_range("2022-01-31", periods=4, freq="ME")
    panel = jaxfc.Panel.from_frame(pd.DataFrame(DRAWS[:4, 0], index, NAMES))
    by_panel = with_zero_return(forecast, "TLT", names=panel)
    for same in (
        with_zero_return(forecast, "TLT", names=NAMES),
        with_zero_return(forecast, 2),
        with_zero_return(forecast, [-2]),
    ):
        np.testing.assert_array_equal(same.draws, by_panel.draws)


def test_edits_run_inside_programs_and_have_derivatives():
    forecast = SampleForecast(jnp.asarray(DRAWS))

    @jax.jit
    def spread(factor):
        about = forecast.mean[:, :1]
        edited = with_scaled(forecast, "DRE", factor, about=about, names=NAMES)
        return edited.std[0, 0]

    np.testing.assert_allclose(spread(2.0), 2.0 * DRAWS[:, 0, 0].std(ddof=1))
    np.testing.assert_allclose(jax.grad(spread)(2.0), DRAWS[:, 0, 0].std(ddof=1))


def test_bad_edits_are_refused():
    forecast = SampleForecast(jnp.asarray(DRAWS))
    with pytest.raises(ValueError, match="no series 'DRX'; did you mean 'DRE'"):
        with_zero_return(forecast, "DRX", names=NAMES)
    with pytest.raises(ValueError, match="pass names=panel"):
        with_zero_return(forecast, "DRE")
    with pytest.raises(ValueError, match="position 4 is out of range"):
        with_zero_return(forecast, 4)
    with pytest.raises(ValueError, match=r"from_step must be in 1\.\.3, got 0"):
        with_zero_return(forecast, 0, from_step=0)
    with pytest.raises(ValueError, match="no series was named"):
        with_zero_return(forecast, [])
    with pytest.raises(ValueError, match="3 names for a forecast of 4"):
        with_zero_return(forecast, "DRE", names=NAMES[:3])
    with pytest.raises(ValueError, match="above upper"):
        with_capped(forecast, 0, lower=1.0, upper=0.0)
    for bounds in ({"lower": np.nan}, {"upper": np.array([0.1, np.nan])}):
        with pytest.raises(ValueError, match="is NaN"):
            with_capped(forecast, [0, 1], **bounds)
    for twice, culprit in ((["DRE", "TLT", "DRE"], "'DRE'"), ([1, 2, -3], "1")):
        with pytest.raises(ValueError, match=f"series {culprit} is named twice"):
            with_added(forecast, twice, 1.0, names=NAMES)
    with pytest.raises(ValueError, match="a path from step 2 of 3 has 2 values"):
        with_path(forecast, 0, np.zeros(3), from_step=2)
