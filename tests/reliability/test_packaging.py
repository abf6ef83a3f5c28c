"""What is shipped: the files of the wheel and the source archive, and that they work elsewhere."""

import email.parser
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from test_readme import README, blocks

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SOURCES = {"jaxfc": REPOSITORY / "jaxfc", "jaxfc_kernels": REPOSITORY / "kernels/jaxfc_kernels"}
NOT_SHIPPED = ("__pycache__", "README.md")


def built(builder, folder: Path, root: Path = REPOSITORY) -> Path:
    """The one archive that a builder makes."""
    (path,) = builder(str(root)).build(directory=str(folder), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(WheelBuilder, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return built(SdistBuilder, tmp_path_factory.mktemp("sdist"))


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


def test_the_wheel_has_the_packages_and_nothing_else(wheel):
    own = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*")
        if path.is_file() and not set(path.parts) & set(NOT_SHIPPED)
    }
    about = f"jaxfc-{PROJECT['version']}.dist-info"
    found = {name for name in names_of(wheel) if not name.endswith("README.md")}
    assert {name for name in found if not name.startswith(about)} == own
    assert {"jaxfc/py.typed", "jaxfc_kernels/py.typed", "jaxfc/report/report.html.j2"} <= own
    assert not [name for name in found if "test" in Path(name).parts[0].lower()]
    assert {
        f"{about}/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")
    } <= found


def test_the_wheel_says_what_it_needs(wheel):
    about = f"jaxfc-{PROJECT['version']}.dist-info"
    with zipfile.ZipFile(wheel) as packed:
        said = email.parser.Parser().parsestr(packed.read(f"{about}/METADATA").decode())
        entry = packed.read(f"{about}/entry_points.txt").decode()
    assert (said["Name"], said["Version"]) == ("jaxfc", PROJECT["version"])
    assert said["Requires-Python"] == PROJECT["requires-python"]
    needed = [need for need in said.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert len(needed) == len(PROJECT["dependencies"])
    assert set(said.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert "jaxfc = jaxfc.cli:main" in entry
    assert said.get_payload().startswith("# jaxfc")


def test_the_source_archive_makes_the_same_wheel(wheel, archive, tmp_path):
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    kept = {path.name for path in root.iterdir()}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "tests"} <= kept
    assert not [path for path in root.rglob("*") if path.name in (".git", ".venv", ".jax_cache")]
    again = built(WheelBuilder, tmp_path / "again", root)
    assert names_of(again) == names_of(wheel)


def test_every_source_is_typed_for_users():
    """A marker of each package, which type checkers look for."""
    assert all((folder / "py.typed").is_file() for folder in SOURCES.values())


def test_the_citation_is_of_this_version():
    text = (REPOSITORY / "CITATION.cff").read_text()
    said = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    assert said["cff-version"] == "1.2.0" and said["type"] == "software"
    assert said["version"].strip('"') == PROJECT["version"]
    assert said["license"] == PROJECT["license"]
    assert said["title"].strip('"').startswith("jaxfc") and "authors" in said
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    if "date-released" in said:
        assert said["date-released"].strip('"') in changelog


AS_TYPED = """
import jaxfc, jaxfc_kernels, pathlib, sys
assert "site-packages" in jaxfc.__file__ and "site-packages" in jaxfc_kernels.__file__
assert (pathlib.Path(jaxfc.__file__).parent / "py.typed").exists()
for name in ("numpyro", "ray", "matplotlib", "plotly", "typer"):
    assert name not in sys.modules, name
"""


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """Installed with what it needs from the index, it runs the README's example and its command."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    run(str(python), "-m", "pip", "install", "--quiet", str(wheel))
    run(str(python), "-c", AS_TYPED)
    example = "\n".join(blocks(README, ("python",)))
    assert "series" not in run(str(python), "-c", example).stderr
    assert "fit" in run(str(python.parent / "jaxfc"), "--help").stdout
