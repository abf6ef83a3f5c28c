"""`jaxfc study`: files that are right, files that are not, and what the commands say."""

import json
import tomllib

import jax
import pytest

from cli_runs import run_command
from jaxfc.factors import FactorWorld
from jaxfc.report import study_file
from jaxfc.report.study_file import Names, factor_names, read_study_file, template
from jaxfc.running import Study, read_study
from toy_study import PlainMean, Shrinkage, ToyWorld, first_mean, squared_error, toy_study

pytestmark = pytest.mark.slow

NAMES = Names(
    {"toy": ToyWorld, "factor": FactorWorld},
    {"shrunken": Shrinkage(0.5), "slow": Shrinkage(0.05), "mean": PlainMean()},
    {"error": squared_error, "first": first_mean},
)
FILE = """
[study]
name = "toy"
world = "toy"
estimators = ["shrunken", "slow", "mean"]
num_paths = 14
seed = 7
batch_size = 4
paths_per_chunk = 6

[grid]
num_times = [5, 8]
missing = [0.0, 0.3]
"""


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(study_file, "factor_names", lambda: NAMES)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(FILE)
    return path


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    return run_command(capsys, "study", *arguments)


def test_run_and_status(capsys, file, tmp_path):
    store = tmp_path / "store"
    code, out, err = run(capsys, "run", file, "--store", store)
    assert (code, err) == (0, "")
    assert "4 cells, 14 paths in each, 168 fits of which" in out
    grid = [{"num_times": t, "missing": m} for t in (5, 8) for m in (0.0, 0.3)]
    same = toy_study(grid=grid)
    result = same.run(store, key=jax.random.key(7))
    assert result.is_complete and result.estimators == ("shrunken", "slow", "mean")

    assert run(capsys, "run", file, "--store", store, "--quiet") == (0, "", "")
    code, out, _ = run(capsys, "status", store, "--json")
    said = json.loads(out)
    assert code == 0 and said["num_paths_done"] == 56 and said["is_complete"]
    next(store.glob("cell00002-chunk000001*")).unlink()
    code, out, _ = run(capsys, "status", store)
    assert code == 0 and "3 of 4 cells, 50 of 56 paths" in out
    assert "num_times, missing" in out and "8, 0.0" in out and "8/14" in out


def test_report(capsys, file, tmp_path):
    store, out = tmp_path / "store", tmp_path / "report"
    run(capsys, "run", file, "--store", store, "--quiet")
    options = ("--out", out, "--baseline", "mean", "--metric", "error", "--title", "Shrunken")
    code, said, err = run(capsys, "report", store, *options)
    assert (code, err) == (0, "") and said == f"Written to {out / 'report.html'}.\n"
    page = page_of(out)
    assert (
        "<h1>Shrunken</h1>" in page and "error against mean" in page and "first against" not in page
    )
    next(store.glob("cell00002-chunk000001*")).unlink()
    code, said, _ = run(capsys, "report", store, "--out", out)
    assert code == 0 and "not complete" in said and "first against shrunken" in page_of(out)
    code, _, err = run(capsys, "report", store, "--out", out, "--baseline", "median")
    assert code == 1 and "no estimator 'median'; it has shrunken, slow, mean" in err
    code, _, err = run(capsys, "report", tmp_path / "nothing", "--out", out)
    assert code == 1 and "has no manifest.json" in err
    assert run(capsys, "report", store)[0] == 2


def page_of(folder):
    return (folder / "report.html").read_text()


def test_a_stopped_study_says_how_to_go_on(capsys, file, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", stop)
    code, out, err = run(capsys, "run", file, "--store", tmp_path / "store")
    assert code == 130 and "run the same command to go on" in out and not err


def test_faults_are_one_message(capsys, file, tmp_path):
    store = tmp_path / "store"
    assert run(capsys, "run", file, "--store", store, "--quiet")[0] == 0
    file.write_text(FILE.replace("seed = 7", "seed = 8"))
    code, out, err = run(capsys, "run", file, "--store", store)
    assert (code, out) == (1, "") and err.startswith("Error: ") and "another configuration" in err
    code, _, err = run(capsys, "status", tmp_path / "nothing")
    assert code == 1 and "has no manifest.json" in err
    file.write_text(FILE.replace("[5, 8]", "[1, 8]"))
    code, _, err = run(capsys, "run", file, "--store", tmp_path / "other")
    assert code == 1 and "cell 0 (num_times=1, missing=0.0): num_times must be at least 2" in err
    assert not (tmp_path / "other").exists()
    code, _, err = run(capsys, "run", tmp_path / "none.toml", "--store", store)
    assert code == 1 and "jaxfc study init" in err
    assert run(capsys, "run", file)[0] == 2


def test_init_writes_a_file_that_is_right(capsys, tmp_path):
    path = tmp_path / "new.toml"
    code, out, _ = run(capsys, "init", path)
    assert code == 0 and f"jaxfc study run {path}" in out
    study, seed = read_study_file(path, NAMES)
    assert seed == 1 and study.num_paths == 100 and len(study.grid) == 6
    assert study.world is FactorWorld and list(study.metrics) == ["error", "first"]
    assert [FactorWorld(**cell).missing for cell in study.grid] == [0.0, 0.2, 0.4] * 2
    code, _, err = run(capsys, "init", path)
    assert code == 1 and "exists already" in err


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[grid]", "[gird]", r"the table \[gird\]: 'gird' is not known. Did you mean 'grid'\?"),
        ("[study]\n", "", r"\[grid\] is missing|table \[name\]: 'name' is not known"),
        ("num_paths = 14", "num_path = 14", r"\[study\] num_path: .* Did you mean 'num_paths'\?"),
        ("num_paths = 14", "", r"\[study\] lacks num_paths"),
        ("num_paths = 14", "num_paths = 0", "num_paths must be a whole number of 1 or more, got 0"),
        ("num_paths = 14", "num_paths = 1.5", "num_paths must be a whole number"),
        ("num_paths = 14", "num_paths = true", "num_paths must be a whole number"),
        ("seed = 7", 'seed = "a"', "seed must be a whole number from 0"),
        ('name = "toy"', "name = 3", "name must be a text, got 3"),
        ('world = "toy"', 'world = "tyo"', r"world: 'tyo' is not known. Did you mean 'toy'\?"),
        ('"slow"', '"slwo"', r"estimators: 'slwo' is not known. .*'slow'\? Known are: shrunken,"),
        ('"slow"', '"mean"', "estimators has 'mean' twice"),
        ("[grid]", "metrics = []\n[grid]", r"metrics must be a list of one name or more, got \[\]"),
        ("missing =", "mising =", r"\[grid\] mising: 'mising' is not known. .*'missing'\?"),
        ("[0.0, 0.3]", "[]", "missing must be a value or a list of them"),
        ("[0.0, 0.3]", "[0.0, 0.0]", r"study.toml: cell 1 .* is in the grid twice, first at 0"),
        ("[0.0, 0.3]", "[0.0, ", r"is no TOML file: Invalid value"),
    ],
)
def test_faults_of_a_file(file, old, new, text):
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    with pytest.raises(ValueError, match=text) as caught:
        read_study_file(file, NAMES)
    assert str(caught.value).startswith(str(file))


def test_several_grids_and_ranges(file):
    file.write_text(
        FILE.replace('world = "toy"', 'world = "factor"').split("[grid]")[0]
        + """
[[grid]]
num_times = 50
num_series = [5, 6]
num_factors = 1
num_lags = 1

[[grid]]
num_times = 50
num_series = 10
num_factors = 3
num_lags = 1
transition_range = [[0.1, 0.2]]
"""
    )
    cells = read_study_file(file, NAMES).study.grid
    assert [cell["num_series"] for cell in cells] == [5, 6, 10]
    assert FactorWorld(**cells[2]).transition_range == (0.1, 0.2)


def test_the_template_is_a_file():
    assert tomllib.loads(template(NAMES, "x.toml"))["study"]["metrics"] == ["error", "first"]


def test_the_names_of_factor_estimators(tmp_path):
    names = factor_names()
    (tmp_path / "study.toml").write_text(template(names, "study.toml"))
    study, _ = read_study_file(tmp_path / "study.toml", names)
    assert {"PCA", "BM"} <= set(study.estimators) and "trace_r2" in study.metrics


def test_a_store_is_read_by_its_folder(capsys, file, tmp_path):
    run(capsys, "run", file, "--store", tmp_path / "store", "--quiet")
    assert len(read_study(tmp_path / "store").table()) == 12
