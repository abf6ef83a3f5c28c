"""Seconds of the tests: which are long, and how the table of them is made.

`seconds.csv` says of a test how many CPU seconds it takes alone, its fixtures and the processes
that it starts included, in a first run, which compiles everything. What takes `LONG` of them or
more is marked `long` and left out of the default run. New tests are in no table and run by default;
`make seconds` makes the table anew.

    python tests/seconds.py RAW    makes seconds.csv of what `pytest --seconds=RAW` wrote
"""

import csv
import os
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).with_suffix(".csv")
LONG = 2.5
LEAST = 1.0  # what is kept in the table


def read_table():
    """CPU seconds by test."""
    with TABLE.open() as file:
        return {row["test"]: float(row["seconds"]) for row in csv.DictReader(file)}


def write_table(raw):
    """Sorted, the longest first; of a test that was written twice the larger number."""
    found = {}
    for line in Path(raw).read_text().splitlines():
        seconds, name = line.split(" ", 1)
        found[name] = max(found.get(name, 0.0), float(seconds))
    rows = [(seconds, name) for name, seconds in found.items() if seconds >= LEAST]
    rows.sort(key=lambda row: (-row[0], row[1]))
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seconds", "test"])
        writer.writerows([f"{seconds:.1f}", name] for seconds, name in rows)
    print(f"{len(found)} tests, {sum(s >= LONG for s in found.values())} of them long")


def cpu_seconds():
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


class Marks:
    """Marks long tests before pytest chooses by mark."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        known = read_table()
        for item in items:
            if known.get(item.nodeid, 0.0) >= LONG:
                item.add_marker(pytest.mark.long)


class Clock:
    """Writes the seconds of every test that runs: its call, and its fixtures whenever they were
    made in this process."""

    def __init__(self, path):
        self.path = path
        self.fixtures = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        start = cpu_seconds()
        yield
        key = fixturedef.baseid, fixturedef.argname, getattr(request, "param_index", 0)
        self.fixtures[key] = cpu_seconds() - start

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        start = cpu_seconds()
        yield
        spent = cpu_seconds() - start
        indices = item.callspec.indices if hasattr(item, "callspec") else {}
        for name in item.fixturenames:
            for definition in item._fixtureinfo.name2fixturedefs.get(name, ())[-1:]:
                key = definition.baseid, name, indices.get(name, 0)
                spent += self.fixtures.get(key, 0.0)
        with self.path.open("a") as file:
            file.write(f"{spent:.2f} {item.nodeid}\n")


if __name__ == "__main__":
    write_table(sys.argv[1])
