"""KFAS smoothing tables: noise-free and noisy states, gaps, and the limit of a diffuse start."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from golden import kfas


def table_columns(table, name):
    return table[[column for column in table.columns if column.startswith(name)]].to_numpy()


@pytest.mark.parametrize(
    ("case", "loglik"), [(kfas.var_with_noise, 1695.34872), (kfas.autoregression, -130.0310409)]
)
def test_smoothing_tables(case, loglik):
    model, data, table = case()
    ours = kfas.moments(model, data)
    assert_allclose(ours.loglik, loglik, rtol=0, atol=5e-7)
    assert_allclose(ours.smoothed_means, table_columns(table, "alphahat"), rtol=1e-8, atol=1e-9)
    predicted = np.asarray(ours.predicted_means) @ np.asarray(model.design).T
    names = ["m"] if "m" in table else ["m1", "m2", "m3"]
    assert_allclose(predicted, table[names], rtol=1e-9, atol=1e-13)
    # The state of an autoregression is observed exactly: KFAS leaves rounding there.
    scale = np.abs(table["detV"][1:]).max()
    assert_allclose(np.linalg.det(ours.smoothed_covs)[1:], table["detV"][1:], atol=1e-8 * scale)


@pytest.mark.parametrize("variance", [1e6, 1e8])
def test_a_wide_start_approaches_the_exact_diffuse_one(variance):
    """The rest is of the order of 1 / variance; KFAS errs in the two diffuse rows themselves."""
    model, data, table = kfas.diffuse_factor(variance)
    ours = kfas.moments(model, data)
    theirs = table_columns(table, "alphahat")
    assert_allclose(ours.smoothed_means[2:], theirs[2:], rtol=0, atol=6e2 / variance)
    covs = table_columns(table, "V_").reshape(-1, 2, 2)
    assert_allclose(ours.smoothed_covs[2:], covs[2:], rtol=0, atol=1e2 / variance)
    # The diffuse likelihood drops the two observations that pin the start down.
    diffuse = ours.loglik + np.log(variance) + np.log(2.0 * np.pi)
    assert_allclose(diffuse, table["llf"][0], rtol=0, atol=2.1e3 / variance)
