"""The experiments run end to end on real data in their quick form; they skip without them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from experiments import fredmd_nowcast, nyfed_nowcast
from experiments.shared_data import shared_folder

pytestmark = pytest.mark.slow


def pictures(folder):
    """Names of the pictures, all of which can be read and are no blank pages."""
    names = set()
    for path in folder.glob("*.png"):
        assert imread(path).std() > 0.01, path.name
        names.add(path.stem)
    return names


@pytest.mark.slow
def test_fredmd_nowcast(shared_data, tmp_path):
    config = dataclasses.replace(fredmd_nowcast.QUICK, data=str(shared_data), out=str(tmp_path))
    tables = fredmd_nowcast.run(config)
    nowcasts = tables["nowcasts"]
    assert list(nowcasts.index.strftime("%Y-%m")) == list(config.vintages)
    # Industrial production fell by 12% in April 2020: first published in the vintage of May.
    assert np.isnan(nowcasts["published"].iloc[0])
    np.testing.assert_allclose(nowcasts["published"].iloc[1], -0.119, atol=1e-3)
    np.testing.assert_array_equal(nowcasts["mean"].iloc[1:], nowcasts["published"].iloc[1:])
    assert tables["r_squared"].sum(axis=1)["INDPRO"] > 0.5
    assert pictures(tmp_path) >= {"scree", "criteria", "r_squared", "waterfall", "nowcasts", "fan"}
    assert (tmp_path / "residual_tests.csv").exists()


def test_nyfed_nowcast(shared_data, tmp_path):
    config = dataclasses.replace(nyfed_nowcast.QUICK, data=str(shared_data), out=str(tmp_path))
    tables = nyfed_nowcast.run(config)
    nowcasts = tables["nowcasts"]
    # GDP grew by 1.9% at an annual rate in the last quarter of 2016, first published in January.
    np.testing.assert_allclose(nowcasts["published"], [np.nan, np.nan, 1.87], atol=0.01)
    assert nowcasts["mean"].iloc[:2].between(0.0, 4.0).all()
    np.testing.assert_allclose(*nowcasts.iloc[2], rtol=1e-12)
    moved = nowcasts["mean"].iloc[1] - nowcasts["mean"].iloc[0]
    np.testing.assert_allclose(tables["news"]["total"].sum(), moved, atol=1e-9)
    shown = {"r_squared", "missing", "overlay", "history", "nowcasts", "waterfall"}
    assert pictures(tmp_path) >= shown


def test_transformations_are_those_of_the_specification():
    levels = pd.DataFrame({"x": [100.0, 101.0]})
    grown = {how: rule(levels)["x"].iloc[1] for how, rule in nyfed_nowcast.TRANSFORMATIONS.items()}
    expected = {"lin": 101.0, "chg": 1.0, "pch": 1.0, "pca": 100.0 * (1.01**4 - 1.0)}
    assert grown == pytest.approx(expected)


def test_missing_data_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="pass --data or set JAXFC_SHARED_DATA"):
        shared_folder(str(tmp_path), "fredmd_vintages")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("JAXFC_SHARED_DATA", str(tmp_path))
    assert shared_folder(None, "here") == tmp_path / "here"
