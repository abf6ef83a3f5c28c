"""FRED-MD and FRED-QD files: small ones written here, and the published vintages where present."""

import gzip

import numpy as np
import pandas as pd
import pytest

from jaxfc.fredmd import read_fredmd
from jaxfc.panel import Panel
from jaxfc.transforms import transform

MONTHLY = """sasdate,RPI,UNRATE,CLAIMSx
Transform:,5,2,6
1/1/2005,100.5,5.0,
2/1/2005,101.25,5.1,300
3/1/2005,102,,301.5
12/1/2005,103,5.3,302
,,,
,,,
"""
QUARTERLY = """sasdate,GDPC1,UNRATE
factors,1,0
transform,5,2
3/1/2005,100,5
6/1/2005,101,6
9/1/2005,,7
"""


def write(folder, text, name="current.csv"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["current.csv", "2016-02.csv.gz"])
def test_a_monthly_file(tmp_path, name):
    frame, codes = read_fredmd(write(tmp_path, MONTHLY, name))
    assert codes == {"RPI": 5, "UNRATE": 2, "CLAIMSx": 6}
    days = ["2005-01-01", "2005-02-01", "2005-03-01", "2005-12-01"]
    assert list(frame.index) == list(pd.to_datetime(days))
    expected = [[100.5, 5.0, np.nan], [101.25, 5.1, 300], [102, np.nan, 301.5], [103, 5.3, 302]]
    np.testing.assert_array_equal(frame.to_numpy(), expected)


def test_a_quarterly_file(tmp_path):
    frame, codes = read_fredmd(write(tmp_path, QUARTERLY))
    assert codes == {"GDPC1": 5, "UNRATE": 2}
    panel = Panel.from_frame(frame)
    assert panel.frequency == "Q" and panel.index[0] == pd.Timestamp("2005-03-31")
    assert panel.observed.sum() == 5


BAD = {
    "empty": ("", "is empty"),
    "header only": ("sasdate,RPI\n", "has a header and no row"),
    "no codes": ("sasdate,RPI\n1/1/2005,3\n", "is no FRED-MD file.*'1/1/2005'.*read_table"),
    "other header": ("id,RPI\nTransform:,5\n1/1/2005,3\n", "is no FRED-MD file.*begins with 'id'"),
    "code": (MONTHLY.replace(",6", ",9"), "transformation code of 'CLAIMSx' is '9'"),
    "text": (MONTHLY.replace("101.25", "n.b."), "row 4, column 'RPI': 'n.b.' is no number"),
    "date": (
        MONTHLY.replace("3/1/2005", "3/1/05x"),
        "row 5, column 'sasdate': '3/1/05x' is no date",
    ),
    "no periods": ("sasdate,RPI\nTransform:,5\n,\n", "has 1 series and 0 periods"),
    "twice": (MONTHLY.replace("UNRATE", "RPI"), "columns .'RPI'. appear twice"),
    "prose": ("The quick brown fox\njumps\n", "not comma-separated: its first line has one cell"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_refused_by_name(tmp_path, case):
    text, message = BAD[case]
    with pytest.raises(ValueError, match=f"current.csv.*{message}"):
        read_fredmd(write(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"\x89PNG\r\n\x1a\n0000", "PNG image"), (b"PAR1....", "parquet"), (b"a,b\x00\x00", "binary")],
)
def test_a_renamed_binary_file_is_refused(tmp_path, content, what):
    path = tmp_path / "fred.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"fred.csv is not comma-separated text.*{what} data"):
        read_fredmd(path)


def test_a_missing_and_a_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.csv does not exist"):
        read_fredmd(tmp_path / "absent.csv")
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(MONTHLY.encode())[:40])
    with pytest.raises(ValueError, match=r"cut.csv.gz is a broken gzip file"):
        read_fredmd(path)


@pytest.mark.parametrize(("vintage", "shape"), [("2016-02", (685, 135)), ("2018-12", (719, 128))])
def test_published_vintages(shared_data, vintage, shape):
    path = shared_data / "fredmd_vintages" / f"{vintage}.csv.gz"
    frame, codes = read_fredmd(path)
    assert frame.shape == shape
    assert frame["RPI"].iloc[0] == {"2016-02": 2289.8, "2018-12": 2437.296}[vintage]
    assert set(codes.values()) <= set(range(1, 8)) and codes["RPI"] == 5 and codes["CUMFNS"] == 2
    panel = Panel.from_frame(frame)
    assert panel.frequency == "M" and panel.num_times == shape[0]
    raw = pd.read_csv(path, skiprows=[1]).dropna(subset=["sasdate"])
    assert panel.observed.sum() == raw.drop(columns="sasdate").notna().to_numpy().sum()
    stationary = transform(panel, codes).to_frame()
    y = raw["CPIAUCSL"].to_numpy()
    assert codes["CPIAUCSL"] == 6
    np.testing.assert_allclose(
        stationary["CPIAUCSL"].to_numpy()[2:], np.diff(np.log(y), 2), rtol=0, atol=1e-12
    )
