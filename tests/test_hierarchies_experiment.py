"""The study of hierarchies: its base forecasts against loops, its laws against dense algebra, a
small run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import linalg

from experiments import hierarchies
from experiments.hierarchies import PROBABILITIES, level_losses, rolling_origins
from experiments.hierarchies_base import Base, autoregression, saved
from experiments.hierarchies_data import SPECS, World
from experiments.hierarchies_methods import OURS, PEER, TWINS, base_law, our_laws, peer_laws
from experiments.hierarchies_tables import answers
from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import Hierarchy, reconcile
from jaxfc.hierarchy.methods import OLS, MinT

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(12)
TREE = Hierarchy.from_levels(
    pd.DataFrame({"all": ["T"] * 4, "part": ["A", "A", "B", "B"], "unit": ["a", "b", "c", "d"]})
)
BOTTOM = 20.0 + RNG.normal(size=(60, 4)).cumsum(axis=0)
VALUES = np.asarray(TREE.aggregate(jnp.asarray(BOTTOM)))
SPEC = dataclasses.replace(SPECS["tourismsmall"], window=40, horizon=3)
WORLD = World("tourismsmall", SPEC, TREE, VALUES, pd.RangeIndex(60))


@pytest.mark.parametrize(("order", "differences"), [(1, 0), (4, 1)])
def test_autoregressions_are_those_of_a_loop_over_series(order, differences):
    """Means of the season, SciPy's Toeplitz solver, forecasts iterated, simulated responses."""
    period, horizon = 4, 5
    got = autoregression(VALUES, horizon, order, period, differences)
    for node in range(VALUES.shape[1]):
        level = VALUES[:, node]
        moved = pd.Series(np.diff(level, n=differences))
        season = moved.groupby(moved.index % period).mean()
        path = (moved - season[moved.index % period].to_numpy()).to_numpy()
        size = len(path)
        covs = [np.dot(path[k:], path[: size - k]) / size for k in range(order + 1)]
        phi = linalg.solve_toeplitz(covs[:-1], covs[1:])
        fitted = [np.dot(phi, path[t - order : t][::-1]) for t in range(order, size)]
        residuals = path[order:] - fitted
        np.testing.assert_allclose(got.residuals[:, node], residuals[1:], atol=1e-9)

        def ahead(shocks, path=path, phi=phi, season=season, level=level):
            path, last, out = list(path), level[-1], []
            for shock in shocks:
                path.append(np.dot(phi, path[: -order - 1 : -1]) + shock)
                now = path[-1] + season[(len(path) - 1) % period]
                last = last + now if differences else now
                out.append(last)
            return np.array(out)

        quiet = ahead(np.zeros(horizon))
        np.testing.assert_allclose(got.mean[:, node], quiet, rtol=1e-9)
        response = ahead(np.eye(horizon)[0]) - quiet
        variance = np.sum(residuals**2) / (len(residuals) - period - order)
        np.testing.assert_allclose(
            got.std[:, node], np.sqrt(variance * np.cumsum(response**2)), rtol=1e-8
        )
        np.testing.assert_allclose(got.history[:, node], level[differences + order + 1 :])


def test_a_last_spike_does_not_explode():
    spiky = 300.0 + RNG.normal(size=(100, 1))
    spiky[-1] = 5e5
    got = autoregression(spiky, 7, 7, 7, 0)
    assert np.all(np.abs(got.mean) < 5e5)


@pytest.fixture(scope="module")
def base():
    return autoregression(VALUES[:50], 3, 1, 4, 0)


def test_laws_are_those_of_reconcile(base):
    law = base_law(base)
    cov = law.factors @ np.swapaxes(law.factors, 1, 2)
    np.testing.assert_allclose(np.sqrt(np.einsum("hii->hi", cov)), base.std, rtol=1e-10)
    joint = np.einsum("hk,hij->hikj", np.eye(3), cov)
    forecast = GaussianForecast(jnp.asarray(base.mean), jnp.asarray(joint))
    found = dict(our_laws(WORLD, base, law, TREE))
    for name, method in (("OLS", OLS()), ("MinT, shrunk", MinT("shrink"))):
        expected = reconcile(forecast, TREE, method, residuals=jnp.asarray(base.residuals))
        np.testing.assert_allclose(found[name].mean, expected.mean, rtol=1e-10)
        np.testing.assert_allclose(found[name].std, expected.std, rtol=1e-8)
    for name, one in found.items():
        gap = TREE.incoherence(jnp.asarray(one.mean))
        np.testing.assert_allclose(gap, 0.0, atol=1e-9, err_msg=name)


def test_the_peer_gives_the_same_means(base):
    pytest.importorskip("hierarchicalforecast")
    ours = dict(our_laws(WORLD, base, base_law(base), TREE))
    theirs = dict(peer_laws(WORLD, base, TREE))
    assert len(theirs) == 10
    for name, twin in TWINS.items():
        law = theirs[twin]
        assert not isinstance(law, Exception), law
        np.testing.assert_allclose(ours[name].mean, law.mean, rtol=1e-6, err_msg=name)
    # With all errors correlated as MinT has them the laws are the same, too.
    shrunk = theirs["MinTrace mint_shrink"]
    np.testing.assert_allclose(ours["MinT, shrunk (centred)"].std, shrunk.std, rtol=1e-5)


def test_losses_are_means_over_levels():
    mean, outcome = RNG.normal(size=(2, 5, 3, 7))
    scales = RNG.uniform(1, 2, size=(5, 7))
    levels = {"top": np.array([0]), "bottom": np.array([3, 4, 5, 6])}
    got = level_losses(mean, outcome, scales, levels)
    errors = (mean - outcome) ** 2 / scales[:, None]
    np.testing.assert_allclose(got["top"], errors[:, :, 0].mean(axis=1))
    np.testing.assert_allclose(got["bottom"], errors[:, :, 3:].mean(axis=(1, 2)))
    np.testing.assert_allclose(got["all"], 0.5 * (got["top"] + got["bottom"]))


def test_probabilities_and_origins():
    assert len(PROBABILITIES) == 100 and np.all(np.diff(PROBABILITIES) > -1e-15)
    np.testing.assert_allclose(PROBABILITIES[[0, 49, 50, 99]], [0.01, 0.5, 0.5, 0.99])
    config = dataclasses.replace(hierarchies.QUICK, max_origins=5)
    assert rolling_origins(WORLD, config) == [45, 48, 51, 54, 57]
    many = dataclasses.replace(config, max_origins=99)
    assert rolling_origins(WORLD, many) == list(range(40, 58))


def test_saved_forecasts_are_put_in_order(tmp_path):
    fitted = VALUES[:50] + 1.0
    fitted[0] = np.nan
    np.savez(tmp_path / "x.npz", mean=VALUES[50:53], std=VALUES[50:53], fitted=fitted)
    order = np.array([6, 5, 4, 3, 2, 1, 0])
    got = saved(tmp_path / "x.npz", VALUES[:50][:, order], order)
    assert isinstance(got, Base) and got.residuals.shape == (49, 7)
    np.testing.assert_allclose(got.residuals, -1.0)
    np.testing.assert_allclose(got.mean, VALUES[50:53][:, order])


def test_a_quick_run_writes_table_and_answers(tmp_path, shared_data):
    config = dataclasses.replace(hierarchies.QUICK, out=str(tmp_path), data=str(shared_data))
    table = hierarchies.run(config)
    assert set(table["part"]) == {"split", "rolling"}
    good = table[table["failed"] == 0]
    ours = good[good["package"] == OURS]
    assert (ours.groupby("data").size() >= 11).all()
    assert good["RMSSE all"].notna().all() and (ours["RMSSE all"] < 5).all()
    tested = ours[(ours["data"] == "stocks") & (ours["method"] != "base")]
    assert tested["DM all"].notna().all() and tested["p all"].between(0, 1).all()
    assert good[good["package"] == PEER]["DM all"].notna().any() or PEER not in set(
        table["package"]
    )
    text = (tmp_path / "answers.md").read_text()
    assert "## Published figures" in text and "Better than base at 5 %" in text
    assert answers(table)[0].startswith("# Hierarchies")
    ratio = ours.set_index(["data", "method"])["RMSSE all"]["stocks"]
    assert f"| OLS | {ratio['OLS'] / ratio['base']:.3f}" in text
    written = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(written["RMSSE all"], table["RMSSE all"], rtol=1e-4)
