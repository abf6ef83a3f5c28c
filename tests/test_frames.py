"""Tables from files: what is read, and what is refused with the file, the column and the row."""

import gzip

import numpy as np
import pandas as pd
import pytest

from jaxfc.frames import read_table

DAYS = pd.to_datetime(["2005-01-31", "2005-02-28", "2005-03-31"])
TABLE = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [4.0, 5.0, -6e-3]}, index=DAYS)


def csv_of(dates, name="date"):
    rows = [f"{name},a,b", f"{dates[0]},1,4", f"{dates[1]},,5", f"{dates[2]}, 3.0 ,-6e-3"]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    "dates",
    [
        ["2005-01-31", "2005-02-28", "2005-03-31"],
        ["1/31/2005", "2/28/2005", "3/31/2005"],
        ["31.01.2005", "28.02.2005", "31.03.2005"],
        ["20050131", "20050228", "20050331"],
        ["2005-01-31 00:00:00", "2005-02-28 00:00:00", "2005-03-31 00:00:00"],
    ],
)
@pytest.mark.parametrize("name", ["date", "sasdate", "when"])
def test_csv_with_dates_in_the_first_column(tmp_path, dates, name):
    path = tmp_path / "table.csv"
    path.write_text(csv_of(dates, name))
    frame = read_table(path)
    assert list(frame.index) == list(DAYS) and list(frame.columns) == ["a", "b"]
    np.testing.assert_array_equal(frame.to_numpy(), TABLE.to_numpy())


def test_a_named_date_column_may_stand_anywhere(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a,Date\n1,2005-01\nNA,2005-02\n"))
    frame = read_table(str(path))
    assert list(frame.index) == list(pd.to_datetime(["2005-01-01", "2005-02-01"]))
    np.testing.assert_array_equal(frame["a"].to_numpy(), [1.0, np.nan])


def test_quarters(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("quarter,a\n2005Q1,1\n2005-Q2,2\n")
    assert list(read_table(path).index) == list(pd.to_datetime(["2005-03-31", "2005-06-30"]))


@pytest.mark.parametrize("as_column", [True, False])
def test_parquet(tmp_path, as_column):
    path = tmp_path / "table.parquet"
    (TABLE.rename_axis("date").reset_index() if as_column else TABLE).to_parquet(path)
    frame = read_table(path)
    assert list(frame.index) == list(DAYS)
    np.testing.assert_array_equal(frame.to_numpy(), TABLE.to_numpy())


GOOD_DATES = ["2005-01-31", "2005-02-28", "2005-03-31"]
BAD_CSV = {
    "empty": ("", r"is empty \(0 bytes\)"),
    "blank": ("\n \n", "only blank lines"),
    "header": ("date,a\n", "has a header and no row"),
    "no date": (
        "x,a\nabc,1\ndef,2\n",
        "has no date column: the first column 'x' begins with 'abc'",
    ),
    "numbers": (
        "x,a\n0.5,1\n1.5,2\n",
        "has no date column: the first column 'x' begins with '0.5'",
    ),
    "text": (
        csv_of(GOOD_DATES).replace(",5", ",five"),
        "row 3, column 'b': 'five' is no number; correct the cell",
    ),
    "bad date": (
        csv_of(["2005-01-31", "2005-02-30", "2005-03-31"]),
        "row 3, column 'date': '2005-02-30' is no date",
    ),
    "no series": ("date,\n", "has a header and no row"),
    "semicolons": (csv_of(GOOD_DATES).replace(",", ";"), "it seems separated by ';'"),
    "ragged": ("date,a\n2005-01-31,1\n2005-02-28,1,2\n", "is no table: .*line 3"),
    "repeated": ("date,a,a\n2005-01-31,1,2\n", "columns .'a'. appear twice"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_text_is_refused_with_the_place(tmp_path, case):
    text, message = BAD_CSV[case]
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"table.csv.*{message}"):
        read_table(path)


def test_a_file_that_is_not_what_its_name_says(tmp_path):
    TABLE.to_parquet(tmp_path / "table.parquet")
    (tmp_path / "renamed.csv").write_bytes((tmp_path / "table.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"renamed.csv is not comma-separated text.*parquet data"):
        read_table(tmp_path / "renamed.csv")
    (tmp_path / "text.parquet").write_text(csv_of(GOOD_DATES))
    with pytest.raises(ValueError, match=r"text.parquet is not Parquet: its content is other data"):
        read_table(tmp_path / "text.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "table.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut.parquet is a broken Parquet file"):
        read_table(tmp_path / "cut.parquet")
    (tmp_path / "latin.csv").write_bytes("date,höhe\n2005-01-31,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv is not UTF-8 text"):
        read_table(tmp_path / "latin.csv")
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cannot read a '.xlsx' file"):
        read_table(tmp_path / "book.xlsx")
    with pytest.raises(FileNotFoundError, match=r"absent.csv does not exist"):
        read_table(tmp_path / "absent.csv")


def test_bad_parquet_columns(tmp_path):
    path = tmp_path / "table.parquet"
    TABLE.assign(c=["1", "x", "3"]).to_parquet(path)
    with pytest.raises(ValueError, match=r"row 1, column 'c': 'x' is no number"):
        read_table(path)
    TABLE.reset_index(drop=True).to_parquet(path)
    with pytest.raises(ValueError, match="has no date column: the first column 'a'"):
        read_table(path)
    TABLE.iloc[:0].to_parquet(path)
    with pytest.raises(ValueError, match="is empty: it has no row"):
        read_table(path)
    TABLE.reset_index(names="date")[["date"]].to_parquet(path)
    with pytest.raises(ValueError, match="has the date column 'date' and no series"):
        read_table(path)
