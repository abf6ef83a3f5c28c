"""Draw the pictures of the pages: `python docs/draw_figures.py [PAGE.md ...]`, or `make figures`.

A page draws its own pictures. A Python block leaves a matplotlib figure in the name `figure`; the
picture that follows it, `![text](figures/NAME.svg)`, is that figure. This script runs the Python of
a page down to its last picture and writes them.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
PARTS = re.compile(
    r"^```python[^\n]*\n(?P<code>.*?)^```\s*$|^!\[(?P<text>[^\]]*)\]\((?P<path>figures/[^)]+)\)",
    re.MULTILINE | re.DOTALL,
)


class Part(NamedTuple):
    """A block of Python, or a picture with its text and path; what it is not is empty."""

    code: str
    text: str
    path: str


def parts_of(page: str) -> Iterator[Part]:
    """Blocks and pictures of a page, in order."""
    for found in PARTS.finditer(page):
        yield Part(*(found[name] or "" for name in ("code", "text", "path")))


def draw(name: str) -> list[Path]:
    """Run a page and write its pictures."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "jaxfc"  # the same bytes for the same picture
    space: dict[str, object] = {"__name__": name}
    written = []
    parts = list(parts_of((DOCS / name).read_text()))
    last = max((i for i, part in enumerate(parts) if part.path), default=-1)
    for number, part in enumerate(parts[: last + 1], start=1):
        if part.code:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(part.code, f"docs/{name}, part {number}", "exec"), space)
        else:
            figure = space["figure"]
            figure.savefig(DOCS / part.path, metadata={"Date": None})  # pyright: ignore
            written.append(DOCS / part.path)
    return written


def main() -> None:
    os.environ.setdefault("NPROC", "16")  # docs/gpu-and-clusters.md, on few CPU cores
    import jax

    jax.config.update("jax_enable_x64", True)
    pages = sys.argv[1:] or [
        p.name for p in sorted(DOCS.glob("*.md")) if "(figures/" in p.read_text()
    ]
    for page in pages:
        for path in draw(page):
            print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
