"""Bad input for the command line, by seed and number: files, folders, arguments.

Case i of a seed is the same on every machine. Nothing here can be estimated: tables of data have
three rows, or the model asks for more factors than there are series, so that no case costs a fit.
"""

import contextlib
import functools
import gzip
import io
import json
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest_pages import gaussian_backtest
from jaxfc import cli
from jaxfc.report.backtest_models import MODELS
from jaxfc.report.backtest_options import template
from jaxfc.running.store import config_hash

Rng = np.random.Generator
MINIMAL_STUDY = """
[study]
name = "missing values"
world = "factor"
estimators = ["PCA"]
metrics = ["trace_r2"]
num_paths = 2
seed = 1
[grid]
num_times = 30
num_series = 5
num_factors = 1
num_lags = 1
"""
JUNK = (
    "",
    " ",
    "\0",
    "\x1b[31m",
    "..",
    "/",
    "-",
    "--",
    "=",
    "a=b",
    "M=",
    "=x.csv",
    "é\u202e",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "x" * 5000,
    "[bold]",
    "%s%n",
    "{0}",
    "../../etc/passwd",
    "1e999",
    "-1",
    "0",
    "99999999999999999999",
    "nan",
    "null",
    "[link=http://x]y[/link]",
    "[/]",
)
VALUES = (
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "true",
    '""',
    '"\\u0000"',
    "[]",
    "[[]]",
    "{}",
    "[1, 'a']",
    "2015-01-02",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "0001-01-01",
    "9999-12-31",
    "99999999999999999999999999",
    "0x7fffffffffffffff",
    '"' + "x" * 3000 + '"',
    "'''\n'''",
    "[" * 300 + "]" * 300,
    "{ a = { b = { c = 1 } } }",
    '["a", "a"]',
    "1_000_000",
    '"[bold]"',
    "3.0",
    "0.5",
    "1",
    "2",
)
JSON_VALUES = (None, True, -1, 0, 10**30, 1e308, "", "x", "\0", "..", [], {}, [1, "a"], {"a": None})


GOOD = b"date,index,a\n2015-01-02,.1,.2\n2015-01-09,.2,.1\n2015-01-16,.1,.1\n"


class Outcome(NamedTuple):
    """What a case did: its words, exit code, both streams, seconds of CPU, what it left behind."""

    words: list[str]
    code: object
    out: str
    err: str
    seconds: float
    left: list[str]

    def fault(self) -> str:
        """What is wrong with it; "" if nothing is."""
        if self.code == 0 and self.words[1] == "status" and not self.left:
            return ""  # what was spoiled is not what it reads
        if self.code not in (1, 2):
            return f"exit code {self.code}"
        if "Traceback" in self.err + self.out or "fault of jaxfc itself" in self.err:
            return "a traceback"
        if not self.err.strip():
            return "no message"
        if self.out.strip() and self.code == 1:
            return f"output {self.out[:80]!r}"
        if len(self.err) > 20_000:
            return f"a message of {len(self.err)} characters"
        return f"left {self.left}" if self.left else ""


def pick(rng: Rng, things):
    """One of them."""
    return things[int(rng.integers(len(things)))]


def spoiled_bytes(content: bytes, rng: Rng) -> bytes:
    """A file that was cut, overwritten, doubled, or is another altogether."""
    size = max(len(content), 1)
    at, end = sorted(int(x) for x in rng.integers(0, size, 2))
    noise = rng.bytes(int(rng.integers(1, 40)))
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + noise + content[at:],
        lambda: content[:at] + content[end:],
        lambda: (
            content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
            if content
            else b"\0"
        ),
        lambda: b"",
        lambda: noise * 20,
        lambda: b"\xff\xfe" + content.decode("latin-1").encode("utf-16-le"),
        lambda: gzip.compress(content)[: max(at, 3)],
        lambda: b"PAR1" + noise + b"PAR1",
        lambda: b"\n" * 50,
        lambda: content + b"\0",
    ]
    return pick(rng, ways)()


def spoiled_toml(text: str, rng: Rng) -> bytes:
    """A TOML file with a fault or two in its keys, values or bytes."""
    lines = [line for line in text.splitlines() if line.strip()]
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        keyed = [i for i, line in enumerate(lines) if " = " in line]
        if not keyed:
            break
        at = pick(rng, keyed)
        key, _, value = (part.strip() for part in lines[at].strip("# ").partition(" = "))
        way = int(rng.integers(10))
        if way < 5:
            lines[at] = f"{key} = {pick(rng, VALUES)}"
        elif way == 5:
            letters = list(key)
            letters[int(rng.integers(len(letters)))] = pick(rng, "abcxyz_")
            lines[at] = f"{''.join(letters)} = {value}"
        elif way == 6:
            del lines[at]
        elif way == 7:
            lines[at] = f"{key} = {value}"  # one that was commented out
        elif way == 8:
            lines.insert(
                at, f"{pick(rng, ('name', 'window', 'zzz', 'files'))} = {pick(rng, VALUES)}"
            )
        else:
            return spoiled_bytes("\n".join(lines).encode(), rng)
    return "\n".join(lines).encode()


def spoiled_table(rng: Rng, folder: Path) -> Path:
    """A file of data with three rows and a fault."""
    dates = [f"2015-01-{2 + 7 * i:02d}" for i in range(3)]
    cells = [["date", "a", "b"], *([day, f"{i}.5", f"{2 - i}"] for i, day in enumerate(dates))]
    row, column = int(rng.integers(4)), int(rng.integers(3))
    odd = ("", "x", "inf", "-1e400", "NaN", "2015-13-01", "01/02/2015", "1,5", '"', "a", "date")
    cells[row][column] = pick(rng, (*odd, "2015-01-02", "0" * 400, "é"))
    way = int(rng.integers(6))
    if way == 0:
        cells[row].append("1")
    elif way == 1:
        cells[row] = cells[row][:-1]
    elif way == 2:
        cells = cells[:row]
    separator = pick(rng, (*",,,,,,", ";", "\t"))
    content = "\n".join(separator.join(line) for line in cells).encode()
    name = pick(rng, ("t.csv", "t.csv", "t.csv.gz", "t.txt", "t.parquet", "t.xlsx", "t"))
    if rng.random() < 0.3:
        content = spoiled_bytes(content, rng)
    if rng.random() < 0.3:
        content = spoiled_bytes(spoiled_parquet(rng), rng) if rng.random() < 0.7 else content
        name = "t.parquet"
    (folder / name).write_bytes(content)
    return folder / name


def spoiled_parquet(rng: Rng) -> bytes:
    """A small Parquet file of an odd shape."""
    frames = (
        pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}),
        pd.DataFrame({"date": pd.to_datetime(["2015-01-02", None]), "a": [1.0, 2.0]}),
        pd.DataFrame({"date": ["2015-01-02", "2015-01-02"], "a": [1.0, 2.0]}),
        pd.DataFrame({"date": [[1], [2]], "a": [1.0, 2.0]}),
        pd.DataFrame({"date": ["2015-01-02", "2015-01-09"], "a": [{"x": 1}, {"x": 2}]}),
        pd.DataFrame({"date": ["2015-01-02", "2015-01-09"], "a": [True, False]}),
        pd.DataFrame({"date": ["2015-01-02", "2015-01-09"], "a": [np.inf, 1.0]}),
        pd.DataFrame({"a": [1.0]}, index=pd.DatetimeIndex(["2015-01-02"], tz="UTC")),
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
        pd.DataFrame({"date": []}),
    )
    buffer = io.BytesIO()
    pick(rng, frames).to_parquet(buffer)
    return buffer.getvalue()


def junk_word(rng: Rng, folder: Path) -> str:
    """A word that may be a path, an option, a value or nothing at all."""
    options = ("--out", "--factors", "--json", "--quiet", "--horizon", "--store", "--nothing", "-z")
    places = (str(folder / "none"), str(folder), str(folder / "taken"), "data", "fit", "run")
    return pick(rng, pick(rng, (JUNK, options, places)))


def table_case(rng: Rng, folder: Path) -> list[str]:
    """`fit` of a bad table; the model would be too large for a good one."""
    path = spoiled_table(rng, folder)
    words = ["fit", str(path), "--factors", "999", "--out", str(folder / "out")]
    if rng.random() < 0.3:
        words[1:1] = [pick(rng, ("M=", "Q=", "X=", "W-FRI=")) + str(path)]
    if rng.random() < 0.3:
        words += [pick(rng, ("--kinds", "--delays")), junk_word(rng, folder)]
    return [*words, "--fredmd"] if rng.random() < 0.2 else words


def backtest_case(rng: Rng, folder: Path) -> list[str]:
    """`backtest run` of a bad file on three rows of data."""
    (folder / "good.csv").write_bytes(GOOD)
    text = template(pick(rng, list(MODELS)), "x.toml")
    text = text.replace('dataset = "index_returns"', 'files = ["good.csv"]')
    text = text.replace('series = ["SP500", "NASDAQ", "OIL", "EXXON", "JPMORGAN"]', "", 1)
    text = text.replace('targets = ["SP500"]', 'targets = ["a"]').replace("260", "2")
    text = text.replace("num_origins = 52", "num_origins = 1")
    if rng.random() < 0.3:
        text = text.replace("good.csv", spoiled_table(rng, folder).name)
    content = spoiled_toml(text, rng)
    # A packaged data set has rows enough to compute something.
    (folder / "b.toml").write_bytes(content.replace(b"dataset =", b"dataset = 1 #"))
    return ["backtest", "run", str(folder / "b.toml"), "--out", str(folder / "out")]


def study_case(rng: Rng, folder: Path) -> list[str]:
    """`study run` of a bad file; its store is a file, so that nothing can be computed."""
    (folder / "taken").write_text("")
    (folder / "s.toml").write_bytes(spoiled_toml(MINIMAL_STUDY, rng))
    return ["study", "run", str(folder / "s.toml"), "--store", str(folder / "taken")]


def spoiled_json(content, rng: Rng) -> bytes:
    """JSON with a value or two replaced, lost or of another type; sometimes with spoiled bytes."""
    content = json.loads(json.dumps(content))
    for _ in range(int(rng.integers(1, 3))):
        at = content
        while isinstance(at, dict | list) and at:
            key = pick(rng, list(at) if isinstance(at, dict) else range(len(at)))
            if rng.random() < 0.4 or not isinstance(at[key], dict | list) or not at[key]:
                at[key] = pick(rng, JSON_VALUES)
                if rng.random() < 0.2:
                    del at[key]
                break
            at = at[key]
    text = json.dumps(content).encode()
    return spoiled_bytes(text, rng) if rng.random() < 0.2 else text


@functools.cache
def saved_run() -> dict[str, bytes]:
    """The files of a run's folder, by name; it is complete, and its data are three rows."""
    config = tomllib.loads(template("FirstOrder", "x.toml"))
    config["data"] = {"files": ["good.csv"], "targets": ["index"], "delays": {"a": "1D"}}
    config["backtest"] = {"window": 2, "num_origins": 1}
    config["trading"]["strategies"] = {"mix": {"rule": "ConstantMix", "exposure": 0.5}}
    manifest = {
        "kind": "jaxfc backtest",
        "format": 1,
        "configuration": config,
        "data": {"panel": "0" * 64, "files": {"good.csv": "0" * 64}},
        "folder": "in",
        "num_origins": 24,
        "software": {"jax": "0"},
        "platform": {"backend": "cpu"},
        "precision": "float64",
        "num_failed": 0,
        "results": {"forecasts.csv": "0" * 64},
    }
    labels = {"names": ["a"], "frequency": "W-FRI", "last_date": "2015-01-02"}
    described = {"windows_per_chunk": 2, "name": "study", "grid": [], "num_paths": 1}
    digest = config_hash(described)
    store = {"format": 1, "config_hash": digest, "config": described, "facts": {}}
    files = {"manifest.json": manifest, "labels.json": labels, "store/manifest.json": store}
    found = {name: json.dumps(content).encode() for name, content in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        gaussian_backtest().save(folder)
        return found | {
            f"backtest/{path.name}": path.read_bytes() for path in Path(folder).iterdir()
        }


def folder_case(rng: Rng, folder: Path) -> list[str]:
    """Commands on the folder of a run with one file that is spoiled; where a page could be drawn,
    its folder is a file."""
    (folder / "taken").write_text("")
    target = folder / "in"
    files = dict(saved_run()) | {"model.jaxfc": b"JAXFCFIT" + rng.bytes(60)}
    name = pick(rng, ["manifest.json"] * 3 + list(files))
    is_json = name.endswith("json") and rng.random() < 0.8
    content = json.loads(files[name]) if is_json else None
    if name == "store/manifest.json" and content is not None and rng.random() < 0.5:
        content["config"][pick(rng, list(content["config"]))] = pick(rng, JSON_VALUES)
        content["config_hash"] = config_hash(content["config"])
        files[name] = json.dumps(content).encode()
    else:
        files[name] = spoiled_json(content, rng) if is_json else spoiled_bytes(files[name], rng)
    if rng.random() < 0.1:
        del files[name]
    files = {n: c.replace(b'"in"', json.dumps(str(target)).encode()) for n, c in files.items()}
    for name, content in (files | {"good.csv": GOOD}).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    out = ["--out", str(folder / "taken")]
    commands = (
        ["forecast", str(target), "--horizon", "2", "--out", str(folder / "f.csv")],
        ["report", str(target), *out],
        ["report", str(target / "backtest"), *out],
        ["backtest", "report", str(target), *out],
        ["backtest", "repeat", str(target), "--out", str(folder / "out")],
        ["backtest", "status", str(target)],
        ["backtest", "run", str(target / "manifest.json"), "--out", str(folder / "out")],
        ["study", "status", str(target / "store")],
        ["study", "report", str(target / "store"), *out],
    )
    words = list(pick(rng, commands))
    if words[0] == "report" and rng.random() < 0.3:
        (folder / "g.toml").write_bytes(spoiled_toml("Rates = ['a', 'b']\nOil = ['c']", rng))
        words += ["--groups", str(folder / "g.toml")]
    return words


def data_case(rng: Rng, folder: Path) -> list[str]:
    """`data` with names that there are none of, and folders that cannot be."""
    (folder / "taken").write_text("")
    name = pick(rng, (*JUNK, "sp5000", "SP500"))
    if rng.random() < 0.3:
        return ["data", "export", "us_macro", "--out", str(folder / "taken" / "x")]
    return ["data", pick(rng, ("show", "export")), "--", name]


def argument_case(rng: Rng, folder: Path) -> list[str]:
    """Words in any order."""
    (folder / "taken").write_text("")
    heads = (
        ["fit"],
        ["forecast"],
        ["report"],
        ["backtest", "run"],
        ["backtest", "repeat"],
        ["backtest", "report"],
        ["study", "run"],
        ["study", "status"],
        ["data", "show"],
        ["data", "export"],
        ["nothing"],
        ["backtest"],
        [],
    )
    words = [*pick(rng, heads), *(junk_word(rng, folder) for _ in range(int(rng.integers(1, 6))))]
    # What asks for help, or for a list, gets it and is no fault.
    return [*words, "--no-such-option"] if rng.random() < 0.3 else [*words, str(folder / "none")]


CASES = {
    "table": table_case,
    "backtest": backtest_case,
    "study": study_case,
    "folder": folder_case,
    "data": data_case,
    "arguments": argument_case,
}


def run_case(kind: str, seed: int, number: int, root: Path) -> Outcome:
    """One case in a folder of its own, which is removed again."""
    rng = np.random.default_rng([seed, list(CASES).index(kind), number])
    folder = root / f"{kind}{number}"
    folder.mkdir()
    words = CASES[kind](rng, folder)
    before = {path for path in folder.rglob("*") if not path.name.endswith(".damaged")}
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(words)
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:  # what escapes is the finding
            code = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    left = sorted(str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before)
    shutil.rmtree(folder)
    return Outcome(words, code, out.getvalue(), err.getvalue(), seconds, left)
