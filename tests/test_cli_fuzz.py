"""Bad files, folders and arguments: one message, no traceback, no output that is half of one.

`JAXFC_FUZZ=10000 pytest -m '' tests/test_cli_fuzz.py` runs so many cases, `JAXFC_FUZZ_SEED` others.
"""

import collections
import faulthandler
import os
import sys

import pytest

from cli_fuzz import CASES, run_case

NUM_QUICK = 200
NUM_LONG = int(os.environ.get("JAXFC_FUZZ", "2000"))
SEED = int(os.environ.get("JAXFC_FUZZ_SEED", "0"))
LONGEST = 60  # seconds of a case, after which the process shows where it hangs and ends

pytestmark = pytest.mark.filterwarnings("default")


def run_cases(seed, num_cases, root, capsys):
    """Faults of that many cases, shared evenly by the kinds, and what the cases answered."""
    faults, codes, slowest = [], collections.Counter(), (0.0, "")
    for number in range(num_cases):
        kind = list(CASES)[number % len(CASES)]
        faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)
        outcome = run_case(kind, seed, number, root)
        faulthandler.cancel_dump_traceback_later()
        codes[kind, outcome.code] += 1
        slowest = max(slowest, (outcome.seconds, f"{kind} {number}"))
        if fault := outcome.fault():
            faults.append(f"{kind} {number}: {fault}: {outcome.words}\n{outcome.err[:500]}")
    with capsys.disabled():
        if num_cases > NUM_QUICK:
            print(
                f"\n{num_cases} cases, seed {seed}: {dict(codes)}; slowest {slowest}",
                file=sys.stderr,
            )
    return faults


@pytest.fixture
def plain_case(monkeypatch):
    """A case that comes as far as reading its file."""

    def words(rng, folder):
        return ["fit", str(folder / "x.csv"), "--factors", "1", "--out", str(folder / "out")]

    monkeypatch.setitem(CASES, "table", words)


@pytest.mark.usefixtures("plain_case")
@pytest.mark.parametrize(
    ("error", "fault"),
    [(KeyError("a"), "exit code 3"), (SystemExit(0), "exit code 0"), (ValueError("\n" * 9), "")],
)
def test_what_goes_wrong_is_seen(tmp_path, monkeypatch, error, fault):
    def broken(*arguments, **options):
        raise error

    monkeypatch.setattr("jaxfc.report.jobs.read_panel", broken)
    assert run_case("table", 0, 0, tmp_path).fault() == fault


@pytest.mark.usefixtures("plain_case")
def test_what_is_left_behind_is_seen(tmp_path, monkeypatch):
    def half(files, **options):
        (files[0][1].parent / "half.csv").write_text("")
        print("half")
        raise ValueError("no")

    monkeypatch.setattr("jaxfc.report.jobs.read_panel", half)
    outcome = run_case("table", 0, 0, tmp_path)
    assert outcome.fault() == "output 'half\\n'"
    assert outcome._replace(out="").fault() == "left ['half.csv']"
    assert outcome._replace(out="", left=[], err="").fault() == "no message"


def test_two_hundred_bad_inputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    faults = run_cases(0, NUM_QUICK, tmp_path, capsys)
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_thousands_of_bad_inputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    faults = run_cases(SEED, NUM_LONG, tmp_path, capsys)
    assert not faults, "\n".join(faults)
