"""Reading the FRED-MD and FRED-QD files of the Federal Reserve Bank of St. Louis."""

import pathlib

import pandas as pd

from jaxfc.frames import dates, numbers, read_cells

HEADER_ROWS = ("factors", "transform")


def read_fredmd(path: str | pathlib.Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Levels and transformation codes of a FRED-MD or FRED-QD file (`.csv`, gzipped or not).

    The file has a header that begins with `sasdate`, a row `Transform:` of codes 1-7 (FRED-QD:
    also a row `factors`, which is skipped), one row a period with dates m/d/yyyy, and perhaps
    empty rows at its end. Dates stay as written (first day of the month; of the quarter's last
    month in FRED-QD); `Panel.from_frame` turns them into period ends.

    **Returns:** a frame, dates x series with NaN where empty, and the code of every series:
    `transform(Panel.from_frame(frame), codes)`.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file and what is wrong with it.

    Source: McCracken and Ng (2016), FRED-MD: A Monthly Database for Macroeconomic Research.
    """
    path = pathlib.Path(path)
    cells = read_cells(path)
    date_name = cells.columns[0]
    first = cells[date_name].str.strip().str.rstrip(":").str.lower()
    heads = [row for row in range(min(2, len(first))) if first.iloc[row] in HEADER_ROWS]
    codes_row = next((row for row in heads if first.iloc[row] == "transform"), None)
    if date_name.lower() not in ("sasdate", "date") or codes_row is None:
        raise ValueError(
            f"{path} is no FRED-MD file: its header begins with {date_name!r} and its second row "
            f"with {cells.iloc[0, 0]!r}, expected 'sasdate' and 'Transform:'; download it from the "
            "FRED-MD page, or read another layout with read_table."
        )
    body = cells.iloc[len(heads) :]
    empty = (body.map(str.strip) == "").all(axis=1).to_numpy()
    while len(empty) and empty[-1]:
        body, empty = body.iloc[:-1], empty[:-1]
    names = [str(name) for name in cells.columns[1:]]
    if not names or not len(body):
        raise ValueError(f"{path} has {len(names)} series and {len(body)} periods; get it again.")
    first_row = 2 + len(heads)
    columns = {name: numbers(body[name], path, first_row) for name in names}
    frame = pd.DataFrame(columns, index=dates(body[date_name], path, first_row))
    frame.index.name = None
    return frame, {name: code(cells[name].iloc[codes_row], name, path) for name in names}


def code(cell: str, name: str, path: pathlib.Path) -> int:
    """One transformation code."""
    number = cell.strip().removesuffix(".0")
    if number not in tuple("1234567"):
        raise ValueError(
            f"{path}: the transformation code of {name!r} is {cell!r}; expected one of 1 to 7."
        )
    return int(number)
