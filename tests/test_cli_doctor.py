"""`jaxfc doctor`: what it says is what is installed; what is missing comes with its remedy."""

import importlib.metadata
import json

import jax
import pytest
from packaging.requirements import Requirement

from cli_runs import run_command
from jaxfc import cli_doctor
from jaxfc.cli_doctor import cache_facts, examine, requirements, small_computation


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    return run_command(capsys, "doctor", *arguments)


def without(monkeypatch, *names):
    """The machine without some packages."""
    found = importlib.metadata.version

    def version(name):
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_all_is_well(capsys):
    code, out, err = run(capsys, "--json")
    said = json.loads(out)
    assert (code, err) == (0, "") and said["is_well"] and said["computation"] == "well"
    assert said["packages"]["jax"]["version"] == jax.__version__
    assert said["precision"].startswith("float64") and "cpu:0" in said["devices"][0]
    code, out, _ = run(capsys)
    assert code == 0 and jax.__version__ in out and "float64" in out and "cpu:0" in out
    assert run(capsys, "--quiet") == (0, "", "")


def test_packages_and_extras_are_those_of_the_project():
    wanted, extras = {}, {}
    for text in importlib.metadata.requires("jaxfc") or []:
        found = Requirement(text)
        extra = str(found.marker).split('"')[1] if found.marker else None
        (wanted if extra is None else extras.setdefault(extra, {}))[found.name] = found.specifier
    ours, our_extras = requirements()
    assert {name: facts["wanted"] for name, facts in ours.items()} == {
        name: str(specifier) for name, specifier in wanted.items()
    }
    assert {extra: set(entry["packages"]) for extra, entry in our_extras.items()} == {
        extra: set(packages) for extra, packages in extras.items()
    }
    assert {"data", "macro", "cluster"} <= set(our_extras) and "jax" in ours


def test_a_missing_extra_comes_with_the_line_that_installs_it(capsys, monkeypatch):
    without(monkeypatch, "ray", "skfolio")
    extras = examine()["extras"]
    assert extras["cluster"] == {
        "packages": {"ray": {"wanted": ">=2.40", "version": None}},
        "missing": ["ray"],
        "install": "pip install 'jaxfc[cluster]'",
    }
    assert extras["data"]["missing"] == ["skfolio"]
    code, out, _ = run(capsys)
    assert code == 0 and "missing: skfolio" in out and "pip install 'jaxfc[data]'" in out


def test_a_missing_package_is_a_fault(capsys, monkeypatch):
    without(monkeypatch, "optax")
    code, out, _ = run(capsys)
    assert code == 1 and "Missing: optax; pip install 'optax>=" in out


def test_a_broken_computation_is_a_fault(capsys, monkeypatch):
    def broken(*arguments):
        raise ImportError("no LAPACK")

    monkeypatch.setattr("jax.numpy.linalg.cholesky", broken)
    assert small_computation() == "failed: ImportError: no LAPACK"
    code, out, _ = run(capsys, "--json")
    assert code == 1 and not json.loads(out)["is_well"]


def test_a_gpu_that_is_not_used(monkeypatch):
    monkeypatch.setattr(cli_doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert any("JAX sees no GPU" in line for line in examine()["advice"])


def test_the_cache_is_counted(tmp_path):
    (tmp_path / "jit_a-cache").write_bytes(b"\0" * 2**20)
    (tmp_path / "jit_a-atime").write_bytes(b"1")
    assert cache_facts(str(tmp_path)) == {"folder": str(tmp_path), "num_programs": 1, "mib": 1.0}
    assert cache_facts(None)["num_programs"] == 0
    assert cache_facts(str(tmp_path / "none"))["num_programs"] == 0
