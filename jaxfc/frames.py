"""Reading a table of dates and series from a file, with errors that name the file and the cell."""

import gzip
import io
import pathlib
import zlib

import numpy as np
import pandas as pd

MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", ".", "#n/a")
DATE_NAMES = ("date", "sasdate", "observation_date", "time", "timestamp", "datetime")
DATE_FORMATS = (
    "%Y-%m-%d",
    "%m/%d/%Y",
    "%Y-%m",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%Y%m%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
)
SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "parquet"),
    (b"\x89PNG", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "zip (xlsx, docx, ...)"),
    (b"\xd0\xcf\x11\xe0", "old Excel or Word"),
    (b"RDX", "R data"),
    (b"\x93NUMPY", "NumPy"),
)


def read_table(path: str | pathlib.Path) -> pd.DataFrame:
    """Dates x series from a `.csv` (or `.csv.gz`) or `.parquet` file, NaN where a cell is empty.

    The dates are the column named date (or sasdate, observation_date, time, timestamp, datetime),
    else the first column; a Parquet file may carry them as its index. Dates are ISO, m/d/yyyy,
    d.m.yyyy, yyyymmdd, yyyy-mm or quarters like 2005Q1; slashes are read month first.

    **Raises:** `FileNotFoundError` for a missing file; `ValueError` that names the file, and the
    column and row where there is one, for an empty file, content that is not what the name says,
    no date column, a date or a number that cannot be read.
    """
    path = pathlib.Path(path)
    endings = "".join(path.suffixes[-2:]).lower()
    if endings.endswith((".parquet", ".pq")):
        return read_parquet(path)
    if endings.endswith((".csv", ".csv.gz", ".txt", ".txt.gz")):
        return indexed_by_date(read_cells(path), path, first_row=2)
    raise ValueError(
        f"{path}: cannot read a {path.suffix!r} file; give a .csv, .csv.gz or .parquet."
    )


def read_content(path: pathlib.Path) -> bytes:
    """The bytes of a file that exists and is not empty."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file; check the path.")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty (0 bytes); write or download it again.")
    return content


def kind_of(content: bytes) -> str | None:
    """What a binary file is by its first bytes; `None` if no signature fits."""
    return next((name for start, name in SIGNATURES if content.startswith(start)), None)


def read_cells(path: pathlib.Path) -> pd.DataFrame:
    """A comma-separated text file, gzipped or not, as a frame of text cells."""
    content = read_content(path)
    if kind_of(content) == "gzip":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is a broken gzip file ({error}); get it again.") from error
    found = kind_of(content) or ("binary" if b"\x00" in content[:4096] else None)
    if found:
        raise ValueError(
            f"{path} is not comma-separated text: its content is {found} data; give it its true "
            "ending (.parquet can be read) or export it as .csv."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    if not text.strip():
        raise ValueError(f"{path} is empty: it has only blank lines.")
    header = text.splitlines()[0]
    if "," not in header:
        other = next((sep for sep in (";", "\t", "|") if sep in header), None)
        advice = f"it seems separated by {other!r}" if other else "its first line has one cell"
        raise ValueError(f"{path} is not comma-separated: {advice}; save it with commas.")
    try:
        cells = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, header=None)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is no table: {str(error).strip()}.") from error
    names = [str(name).strip() for name in cells.iloc[0]]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: the columns {repeated} appear twice; rename them.")
    body = cells.iloc[1:].reset_index(drop=True)
    body.columns = names
    if not len(body):
        raise ValueError(f"{path} is empty: it has a header and no row.")
    return body


def read_parquet(path: pathlib.Path) -> pd.DataFrame:
    """A Parquet table whose dates are its index or a column."""
    content = read_content(path)
    if kind_of(content) != "parquet":
        found = kind_of(content) or "other"
        raise ValueError(
            f"{path} is not Parquet: its content is {found} data; give it its true ending."
        )
    import pyarrow

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        # The last three are those of broken metadata.
        raise ValueError(f"{path} is a broken Parquet file ({error}); write it again.") from error
    if not len(frame):
        raise ValueError(f"{path} is empty: it has no row.")
    if isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex):
        index = frame.index
        columns = {name: numbers(column, path, 0) for name, column in frame.items()}
        return pd.DataFrame(columns, index=index)
    return indexed_by_date(frame, path, first_row=0)


def indexed_by_date(frame: pd.DataFrame, path: pathlib.Path, first_row: int) -> pd.DataFrame:
    """The frame with its date column parsed as the index and all others as numbers."""
    named = [name for name in frame.columns if str(name).lower() in DATE_NAMES]
    date_name = named[0] if named else frame.columns[0]
    series = dict(frame.items())
    index = dates(series.pop(date_name), path, first_row, is_named=bool(named))
    if not series:
        raise ValueError(f"{path} has the date column {date_name!r} and no series.")
    columns = {name: numbers(column, path, first_row) for name, column in series.items()}
    result = pd.DataFrame(columns)
    result.index = index
    return result


def dates(
    column: pd.Series, path: pathlib.Path, first_row: int, is_named: bool = True
) -> pd.DatetimeIndex:
    """A column of dates in the one format that reads most of it; every row must be read."""
    if pd.api.types.is_datetime64_any_dtype(column):
        index = pd.DatetimeIndex(column)
        if index.hasnans:
            row = int(np.flatnonzero(index.isna())[0]) + first_row
            raise ValueError(f"{path}: row {row} has no date in column {column.name!r}.")
        return index
    text = column.astype(str).str.strip()
    if text.str.fullmatch(r"\d{4}-?[qQ][1-4]").all():
        quarters = text.str.upper().str.replace("-", "")
        try:
            return pd.PeriodIndex(quarters, freq="Q").to_timestamp(how="end").normalize()
        except ValueError as error:  # a year that no timestamp reaches
            raise ValueError(f"{path}: column {column.name!r}: {error}.") from error
    parsed = [pd.to_datetime(text, format=pattern, errors="coerce") for pattern in DATE_FORMATS]
    best = max(parsed, key=lambda attempt: int(attempt.notna().sum()))
    if not best.notna().any():
        raise ValueError(
            f"{path} has no date column: {'column' if is_named else 'the first column'} "
            f"{column.name!r} begins with {text.iloc[0]!r}; name the column of dates 'date' and "
            "write dates as yyyy-mm-dd."
        )
    bad = np.flatnonzero(best.isna())
    if len(bad):
        raise ValueError(
            f"{path}: row {int(bad[0]) + first_row}, column {column.name!r}: {text.iloc[bad[0]]!r} "
            "is no date in the format of the other rows (slashes are read month first); write "
            "dates as yyyy-mm-dd."
        )
    return pd.DatetimeIndex(best)


def numbers(column: pd.Series, path: pathlib.Path, first_row: int) -> np.ndarray:
    """A column of numbers as float64, NaN where empty or a word for missing."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    text = column.astype(str).str.strip()
    missing = text.str.lower().isin(MISSING_WORDS).to_numpy() | column.isna().to_numpy()
    read = pd.Series(pd.to_numeric(text.mask(missing), errors="coerce"))
    values = read.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(np.isnan(values) & ~missing)
    if len(bad):
        raise ValueError(
            f"{path}: row {int(bad[0]) + first_row}, column {column.name!r}: {text.iloc[bad[0]]!r} "
            "is no number; correct the cell, leave it empty if the value is missing, or drop the "
            "column."
        )
    return values
