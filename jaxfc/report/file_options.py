"""What the keys of a TOML file may be, said once: checked when a file is read, printed in the
commented template. Every error names file, table and key, and what is allowed."""

import dataclasses
import datetime
import math
import reprlib
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxfc.report.study_file import is_whole, known

LARGEST = 10_000_000  # of a count; more is a slip of the keyboard
LONGEST_NAME = 80
WIDTH, LONGEST_LINE = 30, 98  # of the template: a key with its value, and with its comment


@dataclasses.dataclass(frozen=True)
class Kind:
    """Values that a key may have: in words, and as a test; `names` if there are few."""

    words: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    names: tuple[str, ...] = ()

    def checked(self, value: Any, where: str) -> Any:
        """The value as JSON has it; `ValueError` for one that is not allowed."""
        items = value.values() if isinstance(value, dict) else value
        for item in items if isinstance(value, list | dict) else [value]:
            if self.names and isinstance(item, str):
                known_name(item, self.names, where)
        if not self.fits(value):
            raise ValueError(f"{where} must be {self.words}, got {shown(value)}.")
        return self.convert(value)


@dataclasses.dataclass(frozen=True)
class Option:
    """A key of a table: its kind, its default (None: not there), and what it does. An `example`
    stands in the template where there is no default; a `needed` key has to be given."""

    kind: Kind
    default: Any
    words: str
    example: Any = None
    needed: bool = False


def whole(least: int = 1, most: int = LARGEST) -> Kind:
    """A whole number within bounds."""
    words = f"a whole number from {least} to {most}"
    return Kind(words, lambda value: is_whole(value) and least <= value <= most)


def number(least: float = -math.inf, most: float = math.inf, *, above: bool = False) -> Kind:
    """A finite number within bounds; `above`: beyond the least one, not equal to it."""
    words = "a number"
    if math.isfinite(least):
        words += f" {'above' if above else 'of at least'} {least:g}"
    if math.isfinite(most):
        words += f"{' and' if math.isfinite(least) else ''} at most {most:g}"

    def fits(value: Any) -> bool:
        if not (is_whole(value) or isinstance(value, float)) or abs(value) > 1e300:
            return False
        return (
            math.isfinite(value)
            and (value > least if above else value >= least)
            and (value <= most)
        )

    return Kind(words, fits, float)


def share() -> Kind:
    """A number between 0 and 1, neither of them."""
    return Kind(
        "a number between 0 and 1",
        lambda value: isinstance(value, float) and 0.0 < value < 1.0,
    )


def choice(*names: str) -> Kind:
    """One of a few names."""
    listed = ", ".join(f'"{name}"' for name in names)
    return Kind(f"one of {listed}", lambda value: value in names, names=names)


def flag() -> Kind:
    """Yes or no."""
    return Kind("true or false", lambda value: isinstance(value, bool))


def text() -> Kind:
    """A text that is not empty."""
    return Kind("a text", lambda value: isinstance(value, str) and value.strip() != "")


def day() -> Kind:
    """A date, of TOML or as text."""

    def fits(value: Any) -> bool:
        if isinstance(value, str):
            try:
                value = datetime.date.fromisoformat(value)
            except ValueError:
                return False
        # Dates that pandas can count in nanoseconds.
        whole_day = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
        return whole_day and 1700 <= value.year <= 2200

    return Kind("a date such as 2015-01-30", fits, str)


def several(of: Kind, least: int = 1) -> Kind:
    """A list of different values of one kind."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) >= least
            and all(of.fits(item) for item in value)
            and len({repr(item) for item in value}) == len(value)
        )

    kinds = of.words.removeprefix("one of ")
    return Kind(f"a list of {least} or more, each another: {kinds}", fits, list, of.names)


def by_name(of: Kind) -> Kind:
    """A table of values of one kind, by names that are free."""

    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(of.fits(item) for item in value.values())

    return Kind(f"a table NAME = {of.words}", fits, dict, of.names)


def read_options(table: Any, options: Mapping[str, Option], where: str) -> dict[str, Any]:
    """The values of a table with defaults for what it leaves out.

    **Raises:** `ValueError` for a key that is unknown or missing, and for values not allowed.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {shown(table)}.")
    for key in table:
        known_name(key, options, f"{where} {shown_name(key)}")
    found = {}
    for key, option in options.items():
        if key not in table and option.needed:
            raise ValueError(f"{where} lacks {key}: {option.kind.words}.")
        value = table.get(key, option.default)
        found[key] = value
        if value is not None:
            found[key] = option.kind.checked(value, f"{where} {key}")
    return found


def known_name(name: Any, names: Iterable[str], where: str) -> None:
    """`known`, for names of any length."""
    known(
        name if isinstance(name, str) and len(name) <= LONGEST_NAME else shown(name), names, where
    )


def shown(value: Any) -> str:
    """A value of whatever size in a few words."""
    return reprlib.repr(value)


def shown_name(name: str) -> str:
    """A key of whatever length on one line."""
    return name if len(name) <= LONGEST_NAME and name.isprintable() else shown(name)


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """The content of a TOML file.

    **Raises:** `FileNotFoundError` with the `remedy`; `ValueError` for what is no TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {remedy}.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise ValueError(f"{path} is no TOML file: {error}.") from error


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{toml_value(name)} = {toml_value(item)}" for name, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return str(value)


def template_lines(options: Mapping[str, Option], given: Mapping[str, Any]) -> list[str]:
    """One line a key: `given` values or defaults, others commented out, with what they do."""
    lines = []
    for key, option in options.items():
        value = given.get(key, option.default)
        lead = "" if value is not None else "# "
        line = f"{lead}{key} = {toml_value(option.example if value is None else value)}"
        allowed = f": {', '.join(option.kind.names)}" if option.kind.names else ""
        both = f"{line:<{WIDTH}}  # {option.words}{allowed}"
        if len(both) <= LONGEST_LINE:
            lines.append(both)
        else:
            lines += [*comment(f"{option.words}{allowed}"), line]
    return lines


def comment(words: str) -> list[str]:
    """Lines of a comment."""
    return textwrap.wrap(words, LONGEST_LINE, initial_indent="# ", subsequent_indent="# ")


def split_file(text: str, folder: Path | None = None) -> tuple[str | None, Path]:
    """FREQUENCY=FILE or FILE, relative to a folder."""
    from jaxfc.calendar import parse_frequency

    folder = Path() if folder is None else folder
    frequency, mark, path = text.partition("=")
    if not mark or (folder / text).exists():
        return None, folder / text
    return parse_frequency(frequency), folder / path
