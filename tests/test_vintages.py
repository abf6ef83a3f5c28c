"""Vintages: one calendar, one list of series, what was known when, and every refusal by name."""

import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.panel import Panel
from jaxfc.vintages import VintageStore, date_in_name, pseudo_vintages


def frame(num_rows, columns=("a", "b"), start="2020-01-31", seed=0):
    rng = np.random.default_rng(seed)
    index = pd.date_range(start, periods=num_rows, freq="ME")
    values = rng.normal(size=(200, len(columns)))[:num_rows]
    return pd.DataFrame(values, index=index, columns=list(columns))


@pytest.fixture(scope="module")
def store():
    """Three vintages, each a month longer; the last one revises a value."""
    late = frame(12)
    late.iloc[3, 0] += 1.0
    return VintageStore.from_frames(
        {"2021-01-15": late, "2020-11-15": frame(10), "2020-12-15": frame(11)}
    )


def test_vintages_stack_in_the_order_of_their_dates(store):
    values, observed = store.arrays()
    assert len(store) == 3 and values.shape == observed.shape == (3, 12, 2)
    assert list(store.dates) == [pd.Timestamp(f"{d}-15") for d in ("2020-11", "2020-12", "2021-01")]
    assert list(np.asarray(observed).sum(axis=(1, 2))) == [20, 22, 24]
    np.testing.assert_array_equal(values[0, :10], frame(10))
    assert np.all(np.asarray(values[0, 10:]) == 0.0)
    difference = np.argwhere(np.asarray(values[2, :11] != values[1, :11]))
    np.testing.assert_array_equal(difference, [[3, 0]])
    assert store.names == ("a", "b") and store.index[-1] == pd.Timestamp("2020-12-31")
    assert "3 vintages 2020-11-15..2021-01-15" in repr(store)


def test_as_of_is_the_last_vintage_of_the_day_or_before(store):
    for date, count in (
        ("2020-11-15", 20),
        ("2020-12-14", 20),
        ("2020-12-15", 22),
        ("2030-01-01", 24),
    ):
        assert store.as_of(date).observed.sum() == count
    with pytest.raises(ValueError, match="the first vintage is of 2020-11-15"):
        store.as_of("2020-11-14")


def test_pairs_windows_and_extensions(store):
    pairs = store.pairs()
    assert [(old.observed.sum(), new.observed.sum()) for old, new in pairs] == [(20, 22), (22, 24)]
    assert len(store.between("2020-12-01")) == 2 and len(store.between(stop="2020-12-15")) == 2
    with pytest.raises(ValueError, match="no vintage lies in"):
        store.between("2020-11-20", "2020-11-30")
    longer = store.extend(2)
    assert longer.index[-1] == pd.Timestamp("2021-02-28") and not longer.arrays()[1][:, 12:].any()


def test_map_transforms_every_vintage_and_keeps_the_levels(store):
    changes = store.map(lambda panel: jaxfc.transform(panel, jaxfc.Difference()))
    assert changes.panels[0].levels is not None
    levels, values = frame(10).to_numpy(), changes.panels[0].values
    np.testing.assert_allclose(values[1:10], np.diff(levels, axis=0))
    assert len({panel.values.shape for panel in changes.panels}) == 1


def test_mixed_frequencies_by_frame():
    quarterly = pd.DataFrame({"q": [1.0, 2.0, 1.5]}, pd.period_range("2020Q1", periods=3, freq="Q"))
    store = VintageStore.from_frames(
        {
            "2020-11-01": {"M": frame(9), "Q": quarterly.iloc[:2]},
            "2020-12-01": {"M": frame(10), "Q": quarterly},
        },
        kinds={"q": "flow_sum"},
    )
    old, new = store.pairs()[0]
    assert old.aggregation is not None and old.kinds == ("stock", "stock", "flow_sum")
    assert (new.observed & ~old.observed).sum() == 3
    assert new.observed[8, 2] and not old.observed[8, 2]


def test_a_vintage_that_starts_earlier_or_has_more_series_widens_all():
    store = VintageStore.from_frames(
        {"2020-11-01": frame(9, start="2020-02-29"), "2020-12-01": frame(10, ("c", "a", "b"))}
    )
    old, new = store.panels
    assert store.names == ("c", "a", "b") and old.index[0] == pd.Timestamp("2020-01-31")
    assert not old.observed[0].any() and not old.observed[:, 0].any() and new.observed.all()


def test_a_series_that_goes_or_changes_its_name_is_refused_unless_asked():
    vintages = {"2020-11-01": frame(9), "2020-12-01": frame(10, ("a", "new"))}
    with pytest.raises(
        ValueError, match=r"2020-12-01 has no series 'b', which.*2020-11-01.*'new' in"
    ):
        VintageStore.from_frames(vintages)
    gone = VintageStore.from_frames(vintages, on_change="revise")
    assert gone.names == ("a", "new", "b")
    assert not gone.panels[1].observed[:, 2].any() and gone.panels[0].observed[:9, 2].all()
    renamed = VintageStore.from_frames(vintages, rename={"b": "new"})
    assert renamed.names == ("a", "new") and renamed.panels[0].observed[:9].all()
    with pytest.raises(ValueError, match="'a' twice after rename"):
        VintageStore.from_frames(vintages, rename={"b": "a"})
    with pytest.raises(ValueError, match="'z', which no vintage has"):
        VintageStore.from_frames(vintages, rename={"z": "a"})
    with pytest.raises(ValueError, match="on_change must be one of"):
        VintageStore.from_frames(vintages, on_change="ignore")


def test_bad_vintages_are_named():
    twice = frame(9)
    twice.index = twice.index[:-1].append(twice.index[-2:-1] - pd.Timedelta(days=3)).sort_values()
    with pytest.raises(ValueError, match="vintage of 2020-12-01: the frame has two observations"):
        VintageStore.from_frames({"2020-12-01": twice}, frequency="M")
    weekly = frame(9)
    weekly.index = pd.date_range("2020-01-03", periods=9, freq="W-FRI")
    with pytest.raises(ValueError, match="'M', the vintage of 2020-12-01 of 'W-FRI'"):
        VintageStore.from_frames({"2020-11-01": frame(9), "2020-12-01": weekly})
    with pytest.raises(ValueError, match="two vintages have the date 2020-11-01"):
        VintageStore.from_frames({"2020-11-01": frame(9), "2020-11-1": frame(10)})
    with pytest.raises(ValueError, match="there is no vintage"):
        VintageStore.from_frames({})
    with pytest.raises(ValueError, match="is a panel, which has its options"):
        VintageStore.from_frames({"2020-11-01": Panel.from_frame(frame(9))}, delays="3D")
    low = frame(9)
    low["b"] = low["b"].where(low.index.month % 3 == 0)
    with pytest.raises(
        ValueError, match=r"'b' is a stock at 'Q' in.*2020-11-01, but a stock at 'M'"
    ):
        VintageStore.from_frames({"2020-11-01": low, "2020-12-01": frame(10)}, kinds={"b": "stock"})


def test_files_carry_their_dates_in_their_names(tmp_path):
    frame(10).to_csv(tmp_path / "2020-11-15.csv", index_label="date")
    frame(11).to_parquet(tmp_path / "data_20201215.parquet")
    (tmp_path / "README.md").write_text("not a table")
    store = VintageStore.from_folder(tmp_path)
    assert list(store.dates) == [pd.Timestamp("2020-11-15"), pd.Timestamp("2020-12-15")]
    np.testing.assert_allclose(store.arrays()[0][0, :10], frame(10), rtol=1e-12)
    frame(11).to_csv(tmp_path / "spec.csv", index_label="date")
    with pytest.raises(ValueError, match=r"spec.csv has no date"):
        VintageStore.from_folder(tmp_path)
    halves = VintageStore.from_folder(
        tmp_path, pattern="20*.csv", read=lambda path: 0.5 * jaxfc.read_table(path)
    )
    np.testing.assert_allclose(halves.arrays()[0][0], 0.5 * frame(10), rtol=1e-12)
    with pytest.raises(FileNotFoundError, match="has no file"):
        VintageStore.from_folder(tmp_path, pattern="*.xls")
    frame(11).to_csv(tmp_path / "2020-12-15.csv", index_label="date")
    with pytest.raises(ValueError, match="are both of 2020-12-15"):
        VintageStore.from_folder(tmp_path, pattern="*20*")


def test_dates_in_names(tmp_path):
    for name, date in (
        ("2015-02.csv", "2015-02-28"),
        ("us_2016-12-23.xls", "2016-12-23"),
        ("20161223.csv.gz", "2016-12-23"),
    ):
        assert date_in_name(tmp_path / name) == pd.Timestamp(date)
    for name in ("data.csv", "2015-13-01.csv", "2015-01-01_2016-01-01.csv"):
        with pytest.raises(ValueError, match="no date"):
            date_in_name(tmp_path / name)


def test_pseudo_vintages_are_panels_as_of():
    panel = Panel.from_frame(frame(12), delays={"a": "10D", "b": "40D"})
    store = pseudo_vintages(panel, ["2020-12-05", "2020-11-15"])
    assert list(store.dates) == [pd.Timestamp("2020-11-15"), pd.Timestamp("2020-12-05")]
    for date, one in zip(store.dates, store.panels, strict=True):
        np.testing.assert_array_equal(one.observed, panel.as_of(date).observed)
    assert [p.observed.sum() for p in store.panels] == [10 + 9, 10 + 9]
    with pytest.raises(ValueError, match="no date of a vintage"):
        pseudo_vintages(panel, [])


@pytest.mark.filterwarnings("ignore:The xlrd engine is deprecated")
def test_the_new_york_feds_folder(shared_data):
    pytest.importorskip("xlrd")
    store = VintageStore.from_folder(
        shared_data / "frbny_nowcast",
        pattern="2016-12-*.xls",
        frequency="M",
        kinds={
            "GDPC1": "flow_average",
            "ULCNFB": "flow_average",
            "A261RX1Q020SBEA": "flow_average",
        },
    )
    old, new = store.pairs()[0]
    assert list(store.dates.strftime("%Y-%m-%d")) == ["2016-12-16", "2016-12-23"]
    assert old.num_series == 29 and not (old.observed & ~new.observed).any()
    assert 0 < (new.observed & ~old.observed).sum() < 30
