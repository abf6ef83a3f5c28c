"""Bad input: lines of a file with their numbers, and what to do with a line that is wrong."""

import gzip
import math
import pathlib
import reprlib
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

# Raise at the first fault, or keep a list of them and distrust the book until its next snapshot.
Policy = Literal["raise", "quarantine"]
# Ticks and lots are kept in 32 bits; clocks and numbers of messages in 64, with room for their
# differences.
LARGEST = 2**31 - 2
LARGEST_NUMBER = 2**62


class Fault(NamedTuple):
    """A line that was not used: where it stands and why."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: {self.reason}"


class FaultyLine(Exception):
    """The line at hand cannot be used; its text says why and what to do."""


class FaultRecord:
    """Faults of one file: the first raises `ValueError`, or all of them are listed in `found`."""

    def __init__(self, source: str, policy: Policy):
        if policy not in ("raise", "quarantine"):
            raise ValueError(f"faults must be 'raise' or 'quarantine', got {policy!r}.")
        self.source = source
        self.policy = policy
        self.found: list[Fault] = []

    def report(self, line: int, reason: str) -> None:
        fault = Fault(self.source, line, reason)
        if self.policy == "raise":
            raise ValueError(f"{fault} (faults='quarantine' sets such lines aside)")
        self.found.append(fault)


def numbered_lines(path: pathlib.Path) -> Iterator[tuple[int, str | FaultyLine]]:
    """Lines of a text file (`.gz` or not) with their numbers, without line ends; the fault of a
    line in its place if it cannot be read. A broken archive, or no last line end, ends the file.
    """
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            number += 1
            try:
                raw = file.readline()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield number, FaultyLine(f"the archive is cut or damaged ({error}); get it again.")
                return
            if not raw:
                return
            if not raw.endswith(b"\n"):
                reason = "the file ends without a line end, so it may be cut; get it again."
                yield number, FaultyLine(reason)
                return
            try:
                yield number, raw.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield number, FaultyLine(f"the line is no text ({error}).")


def readable(text: str | FaultyLine) -> str:
    """The text of a line; raises its fault if it has none."""
    if isinstance(text, FaultyLine):
        raise text
    return text


def whole_units(text: object, unit: float, what: str) -> int:
    """How many units a number of the file is, which must be a whole number from 0 up.

    **Raises:** `FaultyLine` for no number, NaN, infinity, a negative or a fractional one, or one
    beyond 32 bits.
    """
    try:
        number = float(text)  # pyright: ignore
    except (TypeError, ValueError, OverflowError):
        raise FaultyLine(f"{what} is {shortened(text)}, expected a number.") from None
    if not math.isfinite(number):
        raise FaultyLine(f"{what} is {text!r}, expected a finite number.")
    if number < 0:
        raise FaultyLine(f"{what} is negative: {text}.")
    units = number / unit
    if units > LARGEST:
        raise FaultyLine(f"{what} {text} is {units:.3g} units of {unit}, beyond 32 bits.")
    whole = round(units)
    # Division errs by less than 1e-6 within 32 bits; another unit errs by a tenth or more.
    if abs(units - whole) > 1e-3:
        raise FaultyLine(
            f"{what} {text} is no multiple of {unit}; pass the instrument's own tick_size and "
            "lot_size."
        )
    return whole


def whole_number(text: object, what: str) -> int:
    """An integer of the file, sign and all.

    **Raises:** `FaultyLine` for anything else, or one beyond 62 bits.
    """
    try:
        if isinstance(text, float):
            raise ValueError
        number = int(text)  # pyright: ignore
    except (TypeError, ValueError):
        raise FaultyLine(f"{what} is {shortened(text)}, expected a whole number.") from None
    if abs(number) >= LARGEST_NUMBER:
        raise FaultyLine(f"{what} is {shortened(text)}, beyond 62 bits.")
    return number


def shortened(value: object) -> str:
    """A value of a file as it stands there, long ones cut."""
    return reprlib.repr(value)
