"""A report as one HTML file that needs nothing beside it: text, tables, embedded figures."""

import base64
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 130
LONG_TEXT = 24  # characters beyond which a cell may wrap


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A figure, the name of its PNG file (without ending) and what it shows.

    `alt`: what a reader who cannot see it has to know, default the caption. `narrow`: the same
    figure drawn for a phone, where a wide one would shrink until its text cannot be read.
    """

    name: str
    figure: Figure
    caption: str
    alt: str = ""
    narrow: Figure | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table as it is shown; `file` is the CSV beside the page that holds all its digits.

    `decimals`: of all numbers, or by column (3 for those that are not named). Columns called "p" or
    "p (...)" are p-values: one below 0.0005 is shown as < 0.001, not as zero.
    """

    caption: str
    frame: pd.DataFrame
    file: str = ""
    decimals: int | Mapping[str, int] = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """One chapter of the report."""

    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def png(figure: Figure) -> bytes:
    """The figure as a PNG image, its texts as they are: a dollar in a name begins no formula."""
    # Powers of ten on logarithmic axes are the only formulas.
    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
        if axis.get_scale() == "log"
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in powers:
            text.set_parse_math(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def base64_text(image: bytes) -> str:
    """Bytes as they stand in a data address."""
    return base64.b64encode(image).decode("ascii")


def is_p_value(head: str) -> bool:
    """Whether a column is one of p-values, by its name."""
    return head == "p" or head.startswith("p (")


def cell(value: object, decimals: int) -> str:
    """One cell of a table: a number with its digits, a date by its day, NaN as a dash."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, float | np.floating):
        # Adding zero turns the negative zero of a small negative number into zero.
        return "–" if np.isnan(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}"
    return str(value)


def shown(table: Table) -> dict[str, object]:
    """A table as the template reads it: numbers to the right, all as text."""
    frame, decimals = table.frame, table.decimals
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    digits = [
        decimals if isinstance(decimals, int) else decimals.get(str(column), 3) for column in frame
    ]
    heads = list(map(str, frame.columns))
    rows = [
        [
            "< 0.001" if is_p_value(head) and value < 0.0005 else cell(value, number)
            for head, value, number in zip(heads, row, digits, strict=True)
        ]
        for row in frame.itertuples(index=False, name=None)
    ]
    return {
        "caption": table.caption,
        "file": table.file,
        "head": list(zip(heads, numeric, strict=True)),
        "rows": [
            [
                (text, number, len(text) > LONG_TEXT)
                for text, number in zip(row, numeric, strict=True)
            ]
            for row in rows
        ],
    }


def write_report(
    folder: Path, title: str, subtitle: str, sections: list[Section], sources: list[str]
) -> Path:
    """`report.html` in `folder`, and every picture as a PNG of its own; returns the page's path."""
    chapters = []
    for section in sections:
        pictures = []
        for picture in section.pictures:
            image = png(picture.figure)
            (folder / f"{picture.name}.png").write_bytes(image)
            entry = {"caption": picture.caption, "data": base64_text(image), "name": picture.name}
            entry["alt"] = picture.alt or picture.caption
            entry["narrow"] = base64_text(png(picture.narrow)) if picture.narrow else ""
            pictures.append(entry)
        chapters.append(
            {
                "title": section.title,
                "text": section.text,
                "pictures": pictures,
                "tables": [shown(table) for table in section.tables],
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxfc.report", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title, subtitle=subtitle, chapters=chapters, sources=sources
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
