"""What every command can be told about its output: `--quiet` and `--json`."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no words.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout and nothing else there.")
]


class Output(NamedTuple):
    """Where words and results go: words to stdout unless `quiet` or `as_json`, results to stdout as
    one JSON object if `as_json`, progress to stderr unless `quiet`."""

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool | None:
        """For engines: no bar, or one where stderr is a terminal."""
        return False if self.quiet else None

    @property
    def is_live(self) -> bool:
        """Whether progress is shown."""
        return not self.quiet and sys.stderr.isatty()

    @property
    def words(self) -> bool:
        """Whether words are printed."""
        return not (self.quiet or self.as_json)

    def say(self, *things: Any) -> None:
        """Print texts and tables for people."""
        if self.words:
            from rich.console import Console

            for thing in things:
                Console().print(thing, highlight=False, soft_wrap=isinstance(thing, str))

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A sign of life on stderr, where that is a terminal, while something is computed."""
        if not self.is_live:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield

    def answer(self, content: Mapping[str, Any] | list[Any]) -> None:
        """Print a result for programs."""
        if self.as_json:
            print(json.dumps(plain(content), allow_nan=False))


def plain(value: Any) -> Any:
    """Numbers, texts and paths as JSON has them; what is no finite number is null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def refuse_existing(file: Path) -> None:
    """A file to be written must not be there, and its folder must."""
    if file.exists():
        raise ValueError(f"{file} exists already; give another name, or remove it first.")
    if not file.parent.is_dir():
        raise ValueError(f"{file.parent} is no folder; make it first.")


def refuse_file(folder: Path) -> None:
    """A folder to write to must not be a file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; give another --out.")
