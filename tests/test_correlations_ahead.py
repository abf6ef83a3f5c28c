"""Correlations ahead: the reference against paths drawn in numpy, a small run, its answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import correlations_ahead
from experiments.correlations_ahead import Process, after, known_process, reference
from experiments.correlations_ahead_answers import CELL, duel
from jaxfc.volatility.correlation_ahead import METHODS
from jaxfc.volatility.correlation_ahead import correlations_ahead as formula

pytestmark = pytest.mark.slow

HORIZON = 6
HISTORY = np.random.default_rng(1).normal(size=(40, 3)) * [1.5, 1.0, 0.5]


def plain_paths(process, freedom, num_paths):
    """R_{T+1..T+k} of paths after `HISTORY`, all drawn in numpy."""
    rng = np.random.default_rng(0)
    loads = np.linspace(0.2, 0.9, 3)
    target = np.where(np.eye(3) > 0, 1.0, np.outer(loads, loads))
    inner = np.where(np.eye(3) > 0, 0.0, target)
    falls = np.sqrt(1 - inner**2) + inner * (np.pi / 2 + np.arcsin(inner))
    falls = np.where(np.eye(3) > 0, 0.5, falls / (2 * np.pi))
    a, b, g = process.shock, process.decay, process.fall

    def later(quasi, units):
        drive = np.sqrt(np.diagonal(quasi, axis1=-2, axis2=-1)) * units
        drive = drive if process.kind == "cDCC" else units
        down = np.minimum(units, 0.0)
        new = (1 - a - b) * target - g * falls + b * quasi
        new = new + a * drive[..., :, None] * drive[..., None, :]
        return new + g * down[..., :, None] * down[..., None, :]

    quasi = target
    for row in HISTORY:
        quasi = later(quasi, row)
    quasi, found = np.broadcast_to(quasi, (num_paths, 3, 3)), []
    for _ in range(HORIZON):
        scale = np.sqrt(np.diagonal(quasi, axis1=1, axis2=2))
        found.append(quasi / (scale[:, :, None] * scale[:, None, :]))
        units = rng.normal(size=(num_paths, 3, 1))
        if freedom:
            units *= np.sqrt((freedom - 2) / rng.chisquare(freedom, size=(num_paths, 1, 1)))
        quasi = later(quasi, (np.linalg.cholesky(found[-1]) @ units)[:, :, 0])
    return np.asarray(found)


@pytest.mark.parametrize(
    ("process", "freedom"),
    [
        (Process("DCC", 0.05, 0.93), 6.0),
        (Process("cDCC", 0.05, 0.93), 0.0),
        (Process("ADCC", 0.03, 0.92, 0.04), 0.0),
    ],
    ids=["DCC, t", "cDCC", "ADCC"],
)
def test_the_reference_is_the_mean_of_plain_paths(process, freedom):
    """15 pairs of step and entry, none beyond 4.5 standard errors. The control takes away half of
    the noise and more, less where tails are fat."""

    @jax.jit
    def both(units):
        now = after(known_process(process, 3, freedom), units)
        found = reference(now, HORIZON, 4000, 200, key=jax.random.key(0))
        return found, formula(now, 1, "iterated")[0]

    found, first = both(jnp.asarray(HISTORY))
    paths = plain_paths(process, freedom, 20_000)
    np.testing.assert_allclose(found.mean[0], paths[0, 0], atol=1e-12)
    np.testing.assert_allclose(first, paths[0, 0], atol=1e-12)
    below = np.tril_indices(3, -1)
    mean, error = (np.asarray(array)[1:, *below] for array in found)
    deviation = paths[1:, :, *below].std(axis=1)
    both_errors = np.sqrt(error**2 + deviation**2 / 20_000)
    assert np.max(np.abs(mean - paths[1:, :, *below].mean(axis=1)) / both_errors) < 4.5
    assert np.all(error < (0.8 if freedom else 0.5) * deviation / np.sqrt(4000))


def test_a_quick_run_writes_tables_and_answers(tmp_path):
    config = dataclasses.replace(correlations_ahead.QUICK, out=str(tmp_path))
    table = correlations_ahead.run(config)
    assert len(table) == 6 * 2 * (3 + 1)  # states, horizons; methods of DCC and of ADCC
    written = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(written["rms"], table["rms"], rtol=1e-3)
    assert (written["rms_noise"] > 0).all() and (written["max"] >= written["rms"]).all()
    # Correlations near their long-run level are not far from any formula.
    assert (written["rms"] < 0.5 * written["distance"].max()).all()
    text = (tmp_path / "answers.md").read_text()
    ours = table[(table["method"] == "iterated") & (table["process"] == "DCC 0.05/0.93")]
    assert f"over all cells iterated {np.sqrt(np.mean(ours['rms'] ** 2)):.4f}" in text
    assert set(pd.read_csv(tmp_path / "summary.csv")["state"]) == set(correlations_ahead.STATES)


def test_a_duel_counts_what_is_beyond_the_noise():
    errors = {"iterated": (0.01, 0.03, 0.02), "ES-Q": (0.02, 0.01, 0.021)}
    lines = [
        ("DCC", "normal", 3, state, 2, method, rms, 0.002)
        for method, values in errors.items()
        for state, rms in enumerate(values)
    ]
    table = pd.DataFrame(lines, columns=pd.Index([*CELL, "method", "rms", "rms_noise"]))
    found = duel(table, METHODS[0], METHODS[2])
    assert (found.first, found.second, found.num_cells) == (1, 1, 3)
    ratio = np.sqrt(0.01**2 + 0.03**2 + 0.02**2) / np.sqrt(0.02**2 + 0.01**2 + 0.021**2)
    assert found.ratio == pytest.approx(ratio)
