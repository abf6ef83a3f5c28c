"""The README runs: its targets and commands exist, its options are real, its Python is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
SHELLS = ("console", "bash", "sh", "shell")


def blocks(text: str, languages: tuple[str, ...]) -> list[str]:
    """The fenced blocks in one of the languages, in order."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(text: str) -> list[str]:
    """The commands of the shell blocks: after `$ ` in a console, else every line.

    Continued lines are joined, comments cut, chains taken apart.
    """
    found = []
    for block in blocks(text, SHELLS):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            bare = re.sub(r"(^|\s)#.*", "", line)
            found.extend(part.strip() for part in re.split(r"&&|;|\|", bare) if part.strip())
    return found


def make_targets(text: str) -> list[str]:
    """Targets of the commands `make X Y VARIABLE=value`."""
    words = [word for c in commands(text) if c.split()[0] == "make" for word in c.split()[1:]]
    return [word for word in words if not word.startswith("-") and "=" not in word]


def jaxfc_calls(text: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(leading words, options) of the commands that start with `jaxfc` in whatever folder."""
    found = []
    for command in commands(text):
        program, *words = command.split()
        if Path(program).name == "jaxfc":
            options = tuple(w.partition("=")[0] for w in words if w.startswith("--"))
            first_option = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
            found.append((tuple(words[:first_option]), options))
    return found


def run_help(*subcommand: str) -> subprocess.CompletedProcess[str]:
    """What the command line prints for `jaxfc SUBCOMMAND --help`."""
    code = "import sys; from jaxfc.cli import main; sys.argv = ['jaxfc', *sys.argv[1:]]; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *subcommand, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},  # no wrapped options
    )


def unknown_make_targets(text: str, makefile: str) -> list[str]:
    known = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))
    return [target for target in make_targets(text) if target not in known]


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert unknown_make_targets(README, makefile) == []


def test_commands_and_their_options_exist():
    helps: dict[tuple[str, ...], str] = {}
    assert jaxfc_calls(README), "the README shows no jaxfc command"
    for words, options in jaxfc_calls(README):
        subcommand = words[:1]
        if subcommand not in helps:
            done = run_help(*subcommand)
            assert done.returncode == 0, f"jaxfc {' '.join(words)}: {done.stderr}"
            helps[subcommand] = done.stdout
        known = set(re.findall(r"--[a-z][\w-]*", helps[subcommand]))
        assert set(options) <= known, f"jaxfc {' '.join(words)}: no {set(options) - known}"


def test_python_blocks_run_in_order():
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks(README, ("python",)), start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    assert all(package in sys.modules for package in imported_packages(README))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("diagnostics.md", marks=pytest.mark.slow),
        "index.md",
        "errors.md",
        "factors.md",
        pytest.param("inference.md", marks=pytest.mark.slow),
        "nowcasting.md",
        "state-space.md",
        "studies.md",
        pytest.param("returns.md", marks=pytest.mark.slow),
        "evaluation.md",
        "trading.md",
        pytest.param("volatility.md", marks=pytest.mark.slow),
        "hierarchy.md",
        pytest.param("temporal.md", marks=pytest.mark.slow),
        pytest.param("regimes.md", marks=pytest.mark.slow),
        pytest.param("exposures.md", marks=pytest.mark.slow),
    ],
)
def test_documentation_examples_run(page):
    text = (REPOSITORY / "docs" / page).read_text()
    examples = blocks(text, ("python",))
    assert examples
    namespace: dict[str, object] = {"__name__": page}
    for number, block in enumerate(examples, start=1):
        exec(compile(block, f"docs/{page}, python block {number}", "exec"), namespace)


def imported_packages(text: str) -> set[str]:
    """The packages that the Python blocks import: proof that they ran."""
    lines = "\n".join(blocks(text, ("python",)))
    return set(re.findall(r"^(?:import|from) (\w+)", lines, re.MULTILINE))


SAMPLE = """# Title
```console
$ make demo PYTHON=python3.12   # a comment
ok
$ make nothing && .venv/bin/jaxfc fit data.csv \\
    --num-factors=3 --out x.html
```
```python
import json
```
```text
make hidden
```
"""


def test_the_readers_of_this_file_see_what_a_readme_says():
    assert make_targets(SAMPLE) == ["demo", "nothing"]
    assert unknown_make_targets(SAMPLE, "demo: x\n\tpython\nnothing := 1\n") == ["nothing"]
    assert jaxfc_calls(SAMPLE) == [(("fit", "data.csv"), ("--num-factors", "--out"))]
    assert blocks(SAMPLE, ("python",)) == ["import json\n"]
    assert imported_packages(SAMPLE) == {"json"}
