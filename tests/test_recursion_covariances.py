"""The study of covariances of stocks: its simple laws against loops, what they may see, a run."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import recursion_covariances, recursion_real
from experiments.recursion_covariances import (
    NETWORKS,
    PAIRS,
    constant_corr_losses,
    joint_loss,
    simple_joint_losses,
    weighted_cov_losses,
)
from experiments.recursion_models import HALF_LIVES, Anchor

FIRST, SPLIT = 30, 230


@pytest.fixture(scope="module")
def values():
    return jnp.asarray(recursion_real.folds_of(recursion_real.QUICK)[0].values[:300, :3])


def test_the_loss_is_a_normal_density_per_series():
    rng = np.random.default_rng(0)
    root, errors = rng.normal(size=(3, 3)), rng.normal(size=3)
    cov = root @ root.T + np.eye(3)
    want = -stats.multivariate_normal.logpdf(errors, np.zeros(3), cov) / 3
    assert float(joint_loss(jnp.asarray(errors), jnp.asarray(cov))) == pytest.approx(want)


def test_constant_correlations_are_those_of_a_loop(values):
    rng = np.random.default_rng(1)
    means = rng.normal(size=values.shape)
    stds = rng.uniform(0.5, 2.0, size=values.shape)
    law = Anchor(jnp.asarray(means), jnp.asarray(stds))
    got = jax.jit(partial(constant_corr_losses, first=FIRST, split=SPLIT))(values, law)
    errors = (np.asarray(values) - means) / stds
    corr = np.corrcoef(errors[FIRST:SPLIT], rowvar=False)
    for day in (0, FIRST, 299):
        cov = np.outer(stds[day], stds[day]) * corr
        want = -stats.multivariate_normal.logpdf(values[day], means[day], cov) / 3
        assert float(got[day]) == pytest.approx(want, rel=1e-10)


def test_weighted_covariances_are_those_of_a_loop(values):
    got = np.asarray(jax.jit(partial(weighted_cov_losses, first=FIRST, split=SPLIT))(values))
    rows = np.asarray(values) - np.asarray(values[FIRST:SPLIT]).mean(axis=0)
    losses = {}
    for half_life in HALF_LIVES:
        decay, cov = 0.5 ** (1.0 / half_life), rows[FIRST:SPLIT].T @ rows[FIRST:SPLIT] / 200
        own = []
        for row in rows:
            own.append(-stats.multivariate_normal.logpdf(row, np.zeros(3), cov) / 3)
            cov = decay * cov + (1.0 - decay) * np.outer(row, row)
        losses[half_life] = np.array(own)
    best = min(losses.values(), key=lambda own: own[FIRST:SPLIT].mean())
    np.testing.assert_allclose(got, best, rtol=1e-9)


def test_pairs_name_what_there_is(values):
    simple = partial(simple_joint_losses, first=FIRST, split=SPLIT, test_size=10)
    found, _ = jax.eval_shape(simple, values)
    known = {*NETWORKS, *found}
    assert {name for pair in PAIRS for name in pair} <= known


@pytest.mark.slow
def test_laws_look_back_alone(values):
    """The last day enters no other day's loss, and every law moves with a day before."""
    simple = jax.jit(partial(simple_joint_losses, first=FIRST, split=SPLIT, test_size=70))
    (got, _), (again, _) = simple(values), simple(values.at[260].multiply(3.0))
    for name in got:
        np.testing.assert_array_equal(got[name][:30], again[name][:30])
        assert np.isfinite(got[name]).all()
    for name in ("EWMA covariance", recursion_covariances.REFERENCE):
        assert np.all(got[name][31:] != again[name][31:])


@pytest.mark.slow
def test_a_quick_run_goes_on_where_it_stopped(tmp_path):
    config = dataclasses.replace(recursion_real.QUICK, out=str(tmp_path))
    table = recursion_covariances.run(config).set_index("model")
    assert np.isfinite(table["score"]).all()
    better = table.loc[recursion_covariances.REFERENCE, "score"]
    assert better < table.loc["constant, constant correlations", "score"]
    pd.testing.assert_frame_equal(recursion_covariances.run(config).set_index("model"), table)
