"""Files damaged at random: every reader gives a value or an error that names the file, at once, and
leaves nothing behind.

`pytest -m slow -s tests/reliability/test_fuzz_readers.py` reads 10,000 of them and prints counts.
"""

import collections
import gzip
import io
import json
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest

from backtest_pages import gaussian_backtest
from jaxfc.factors import PCA, DynamicFactorModel
from jaxfc.frames import read_table
from jaxfc.fredmd import read_fredmd
from jaxfc.microstructure import (
    EventKind,
    empty_book,
    level_changes,
    read_binance,
    read_binance_quotes,
    read_event_table,
    read_lobster_book,
    read_lobster_messages,
    replay,
    synthetic_orders,
    write_binance,
    write_event_table,
    write_lobster_book,
    write_lobster_messages,
)
from jaxfc.model import Fitted
from jaxfc.panel import Panel
from jaxfc.report.jobs import LABELS_FILE, read_fit
from jaxfc.report.study_file import factor_names, read_study_file, template
from jaxfc.running.backtest_result import DESCRIPTION, ORIGINS, REALISED, load_backtest
from jaxfc.running.store import MANIFEST, ResultStore
from jaxfc.running.study_result import read_study
from jaxfc.running.study_status import read_status
from jaxfc.serialisation import load, save
from jaxfc.vintages import VintageStore
from reliability.damaged_files import damaged
from toy_study import PlainMean, toy_study

SECONDS = 10.0  # CPU time of one file, after which a reader hangs
UNITS = {"tick_size": 0.01, "lot_size": 1.0}
TICKS = {"tick_size": 1e-4, "lot_size": 1.0}
COLUMNS = {name: name for name in ("time", "kind", "side", "price", "size", "sequence")}
CODES = {"kinds": {kind.name: kind for kind in EventKind}}
CODES |= {"sides": {"bid": 1, "ask": -1, "both": 0}}
NAMES = factor_names()
# Readers that set aside what is damaged.
SETTING_ASIDE = ("messages, kept", "stream, kept", "part")


class Case(NamedTuple):
    """A reader, the file that is damaged, and the files beside it."""

    read: Callable[[Path], Any]
    file: str
    content: bytes
    others: dict[str, bytes] = {}  # noqa: RUF012


def as_panel(path: Path) -> pd.DataFrame:
    """A table whose content may be refused once more, by the panel."""
    frame = read_table(path)
    assert all(dtype == np.float64 for dtype in frame.dtypes) and len(frame)
    try:
        Panel.from_frame(frame)
    except ValueError:
        pass
    return frame


def checked_fredmd(path: Path) -> pd.DataFrame:
    frame, codes = read_fredmd(path)
    assert list(codes) == list(frame.columns) and set(codes.values()) <= set(range(1, 8))
    return frame


def checked_log(log) -> Any:
    """A log as the reader promises it: a clock that does not go back, whole units."""
    assert np.all(np.diff(log.time) >= 0) and len(log) == len(log.events.kind)
    assert np.asarray(log.events.size).min() >= 0 and np.asarray(log.events.price).min() >= 0
    return log


def quarantined(path: Path) -> Any:
    return checked_log(read_lobster_messages(path, faults="quarantine"))


def checked_load(path: Path) -> Fitted:
    fitted = load(path)
    assert isinstance(fitted, Fitted)
    return fitted


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table_cases() -> dict[str, Case]:
    """Tables, vintages, a study."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2005-01-31", periods=12, freq="ME")
    frame = pd.DataFrame(rng.normal(size=(12, 3)).round(3), index=days, columns=list("abc"))
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    csv = frame.to_csv(index_label="date").encode()
    parquet, excel = io.BytesIO(), io.BytesIO()
    frame.to_parquet(parquet)
    frame.to_excel(excel)
    rows = "".join(f"{d.month}/1/{d.year},{100 + i},,{i / 7:.2f}\n" for i, d in enumerate(days))
    fredmd = ("sasdate,RPI,UNRATE,CLAIMS\nTransform:,5,2,6\n" + rows + ",,,\n").encode()
    study = template(NAMES, "study.toml").encode()
    vintages = Case(lambda p: VintageStore.from_folder(p.parent), "2016-03-31.csv", csv)
    return {
        "csv": Case(as_panel, "table.csv", csv),
        "csv.gz": Case(as_panel, "table.csv.gz", gzip.compress(csv, mtime=0)),
        "parquet": Case(as_panel, "table.parquet", parquet.getvalue()),
        "FRED-MD": Case(checked_fredmd, "current.csv", fredmd),
        "vintage csv": vintages._replace(others={"2016-02-29.csv": csv}),
        "vintage xlsx": vintages._replace(file="2016-03-31.xlsx", content=excel.getvalue()),
        "study": Case(lambda p: read_study_file(p, NAMES), "study.toml", study),
    }


def book_cases(folder: Path) -> dict[str, Case]:
    """Order books and their messages."""
    orders = synthetic_orders(24, key=jax.random.key(0))
    write_lobster_messages(orders, folder / "messages.csv")
    states = replay(orders, 2, start=empty_book(30, known=True))
    write_lobster_book(states, folder / "book.csv")
    write_binance(level_changes(orders, rows_a_message=3), folder / "stream.jsonl")
    write_event_table(orders, folder / "events.parquet")
    quotes = [{"u": i, "s": "X", "b": "1.00", "B": "2", "a": "1.01", "A": "3"} for i in range(9)]
    lines = "".join(f"{10**18 + q['u']} {json.dumps(q)}\n" for q in quotes).encode()
    content = files_of(folder)

    def table(path: Path) -> Any:
        return checked_log(read_event_table(path, COLUMNS, **CODES, **UNITS))

    def stream(path: Path) -> Any:
        return checked_log(read_binance(path, **UNITS, faults="quarantine"))

    messages, streamed = content["messages.csv"], content["stream.jsonl"]
    zipped = gzip.compress(messages, mtime=0)
    return {
        "messages": Case(lambda p: checked_log(read_lobster_messages(p)), "messages.csv", messages),
        "messages, kept": Case(quarantined, "messages.csv.gz", zipped),
        "book": Case(read_lobster_book, "book.csv", content["book.csv"]),
        "stream": Case(lambda p: checked_log(read_binance(p, **UNITS)), "stream.jsonl", streamed),
        "stream, kept": Case(stream, "stream.jsonl", streamed),
        "quotes": Case(lambda p: read_binance_quotes(p, **UNITS), "quotes.jsonl", lines),
        "events": Case(table, "events.parquet", content["events.parquet"]),
    }


def result_cases(folder: Path) -> dict[str, Case]:
    """What this package writes itself."""
    values = jax.random.normal(jax.random.key(0), (12, 4))
    model = DynamicFactorModel(1, 1, method=PCA())
    fitted = eqx.filter_jit(model.estimate)(values, np.ones(values.shape, bool))
    save(fitted, folder / "model.jaxfc")
    labels = {"names": list("abcd"), "frequency": "M", "last_date": "2005-12-31"}
    fit = {"model.jaxfc": (folder / "model.jaxfc").read_bytes()}
    gaussian_backtest(5).save(folder / "backtest")
    backtest = files_of(folder / "backtest")
    small = {"grid": [{"num_times": 5}], "estimators": {"mean": PlainMean()}, "num_paths": 4}
    toy_study(**small).run(folder / "study", key=jax.random.key(0), progress=False)
    study = files_of(folder / "study")
    part = next(name for name in study if name.endswith(".parquet"))
    cases = {
        "model": Case(checked_load, "model.jaxfc", fit["model.jaxfc"]),
        "labels": Case(
            lambda p: read_fit(p.parent), LABELS_FILE, json.dumps(labels, indent=2).encode(), fit
        ),
        "manifest": Case(lambda p: list(ResultStore(p.parent).parts()), MANIFEST, study[MANIFEST]),
        "study store": Case(lambda p: read_study(p.parent), MANIFEST, study[MANIFEST]),
        "status": Case(lambda p: read_status(p.parent), MANIFEST, study[MANIFEST]),
        "part": Case(lambda p: read_study(p.parent), part, study[part]),
    }
    beside = {MANIFEST: study[MANIFEST]}
    cases["part"] = cases["part"]._replace(others=beside)
    cases["study store"] = cases["study store"]._replace(others={part: study[part]})
    cases["status"] = cases["status"]._replace(others={part: study[part]})
    for name in (DESCRIPTION, ORIGINS, REALISED):
        others = {other: content for other, content in backtest.items() if other != name}
        cases[name] = Case(lambda p: load_backtest(p.parent), name, backtest[name], others)
    return cases


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return {
        **table_cases(),
        **book_cases(tmp_path_factory.mktemp("books")),
        **result_cases(tmp_path_factory.mktemp("results")),
    }


class Hang(Exception):
    """A reader took too long."""


def stop(number, frame):
    raise Hang


def outcome(case: Case, content: bytes, folder: Path) -> tuple[str, str]:
    """ "read", "refused" or what is wrong, and the message."""
    path = folder / case.file
    before = {**case.others, case.file: content}
    for name, other in before.items():
        (folder / name).write_bytes(other)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read(path)
        said = "read", ""
    except (ValueError, FileNotFoundError) as error:
        named = path.name in str(error) or path.stem in str(error) or str(folder) in str(error)
        said = "refused" if named else f"{type(error).__name__}, no file named", str(error)
    except Exception as error:
        said = f"{type(error).__name__}", f"{error}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    after = {path.name.removesuffix(".damaged"): path.read_bytes() for path in folder.iterdir()}
    for path in list(folder.iterdir()):
        path.unlink()
    return ("it changed files", str(sorted(after))) if after != before else said


def fuzz(
    cases: dict[str, Case], num_files: int, seed: int, folder: Path
) -> tuple[collections.Counter, list[str], float]:
    """Counts by reader and outcome, descriptions of all that is wrong, seconds of the slowest."""
    counts, faults, slowest = collections.Counter(), [], 0.0
    names = list(cases)
    signal.signal(signal.SIGVTALRM, stop)
    for number in range(num_files):
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {number}")
        content = damaged(cases[name].content, rng)
        start = time.process_time()
        what, message = outcome(cases[name], content, folder)
        slowest = max(slowest, time.process_time() - start)
        counts[name, what] += 1
        if what not in ("read", "refused"):
            faults.append(f"{name} {number}: {what}: {message[:300]}")
    return counts, faults, slowest


def test_undamaged_files_are_read(cases, tmp_path):
    for name, case in cases.items():
        assert outcome(case, case.content, tmp_path) == ("read", ""), name


def test_a_few_damaged_files(cases, tmp_path):
    counts, faults, slowest = fuzz(cases, 300, 1, tmp_path)
    assert not faults, "\n".join(faults)
    assert slowest < SECONDS and sum(counts.values()) == 300
    for name in cases:
        assert counts[name, "read" if name in SETTING_ASIDE else "refused"] > 0, name


@pytest.mark.slow
def test_ten_thousand_damaged_files(cases, tmp_path):
    counts, faults, slowest = fuzz(cases, 10_000, 2, tmp_path)
    for name in cases:
        print(f"{name}: {counts[name, 'read']} read, {counts[name, 'refused']} refused")
    print(f"slowest file: {slowest:.2f} s of CPU time; faults: {len(faults)}")
    assert not faults, "\n".join(faults)
