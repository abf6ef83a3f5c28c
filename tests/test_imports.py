"""Imports only point down the house: every import statement is read, none is run.

Rooms from the ground up: kernels, jaxfc/*.py, the families, compose, evaluation, trading, running,
report, cli. A room imports what stands below it and itself; no family imports another. The facade
`jaxfc/__init__.py` shows what the rooms offer, so it may import all of them, and none imports it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FAMILIES = (
    "factors",
    "volatility",
    "hierarchy",
    "regimes",
    "bayes",
    "recursive",
    "microstructure",
)
COMMANDS = ("backtest", "data", "demo", "doctor", "fit", "report", "study")
FLOORS = {
    "kernels": 0,
    "base": 1,
    **{family: 2 for family in FAMILIES},
    "compose": 3,
    "evaluation": 4,
    "trading": 5,
    "running": 6,
    "facade": 7,
    "report": 8,
    "cli_output": 9,
    **{f"cli_{verb}": 10 for verb in COMMANDS},
    "cli": 11,
    "outside": 12,
}
OUTSIDE = ("experiments", "benchmarks", "tests", "conftest", "oracles")
KERNEL_PACKAGES = {"jax", "numpy", "jaxfc_kernels"} | sys.stdlib_module_names
# (importing module, imported module): why an import inside a function may point up.
EXCEPTIONS: dict[tuple[str, str], str] = {}
# Loaded on first use, never by `import jaxfc`.
HEAVY = (
    "numpyro",
    "matplotlib",
    "ray",
    "plotly",
    "typer",
    "pyarrow.dataset",
    "jinja2",
    "scipy.stats",
)


def room(module: str) -> str | None:
    """The room that a module stands in; `None` for a third party."""
    head, *rest = module.split(".")
    if head in OUTSIDE:
        return "outside"
    if head == "jaxfc_kernels":
        return "kernels"
    if head != "jaxfc":
        return None
    if not rest:
        return "facade"
    return rest[0] if rest[0] in FLOORS else "base"


def modules() -> dict[str, Path]:
    """Every module of both packages with its file."""
    found = {}
    for root in (REPOSITORY / "jaxfc", REPOSITORY / "kernels" / "jaxfc_kernels"):
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imported_modules(source: str, module: str, is_package: bool, known: set[str]) -> list[str]:
    """The modules that a source imports when it runs, at any depth of nesting.

    `from a import b` counts as `a.b` where that is a module of ours, else as `a`.
    """
    found = []
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append(inner if inner in known else base)
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            target = node.args[0]
            if name in ("import_module", "__import__") and isinstance(target, ast.Constant):
                found.append(str(target.value))
    return found


def violations(source: str, module: str, *, is_package: bool = False, known=frozenset()):
    """What is wrong with the imports of one module, as sentences."""
    here = room(module)
    assert here is not None
    found = []
    for target in imported_modules(source, module, is_package, set(known)):
        there = room(target)
        if here == "kernels" and target.split(".")[0] not in KERNEL_PACKAGES:
            found.append(f"{module} imports {target}: kernels take jax and numpy only")
        elif there is None or there == here or (module, target) in EXCEPTIONS:
            continue
        elif FLOORS[there] > FLOORS[here]:
            found.append(f"{module} ({here}) imports {target} ({there}): that points up")
        elif FLOORS[there] == FLOORS[here]:
            found.append(f"{module} ({here}) imports {target} ({there}): that points sideways")
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module):
    known = modules()
    path = known[module]
    found = violations(
        path.read_text(), module, is_package=path.name == "__init__.py", known=known.keys()
    )
    assert not found, "\n".join(found)


def test_every_folder_has_a_floor():
    folders = {path.parent.name for path in (REPOSITORY / "jaxfc").glob("*/__init__.py")}
    assert folders <= set(FLOORS), "give the new folder a floor in FLOORS"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxfc_kernels.kalman", "from jaxfc.typing import Array"),
        ("jaxfc_kernels.kalman", "import pandas as pd"),
        ("jaxfc_kernels.kalman", "def f():\n    import equinox"),
        ("jaxfc.panel", "from jaxfc.factors import DynamicFactorModel"),
        ("jaxfc.panel", "from jaxfc import Panel"),
        ("jaxfc.panel", "import jaxfc"),
        ("jaxfc.panel", "from . import factors"),
        ("jaxfc.panel", "import importlib\nimportlib.import_module('jaxfc.factors')"),
        ("jaxfc.factors.model", "from jaxfc.volatility.garch import garch"),
        ("jaxfc.factors.model", "from ..volatility import garch"),
        ("jaxfc.factors.model", "def f():\n    from jaxfc.running import replicate"),
        ("jaxfc.factors.model", "try:\n    import jaxfc.compose\nexcept ImportError:\n    pass"),
        ("jaxfc.compose.hybrid", "from jaxfc.evaluation.scores import crps"),
        ("jaxfc.evaluation.scores", "from jaxfc.trading import strategies"),
        ("jaxfc.running.study", "from jaxfc.report import html"),
        ("jaxfc.report.html", "from jaxfc.cli import main"),
        ("jaxfc.cli", "from experiments import gaps"),
        ("jaxfc.cli", "from oracles import dense_filter"),
    ],
)
def test_a_planted_violation_is_found(module, source):
    assert len(violations(source, module, known={"jaxfc.factors"})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxfc_kernels.kalman", "import math\nimport jax.numpy as jnp\nimport jaxfc_kernels.x"),
        ("jaxfc.model", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jaxfc"),
        ("jaxfc.panel", "from . import calendar\nfrom .calendar import KINDS"),
        ("jaxfc.factors.model", "import pandas\nfrom jaxfc.panel import Panel\nfrom . import em"),
        ("jaxfc.compose.hybrid", "from jaxfc.factors import em\nfrom jaxfc.volatility import dcc"),
        ("jaxfc.trading.strategies", "from jaxfc.evaluation import performance"),
        ("jaxfc.cli", "import jaxfc\nfrom jaxfc.report import html"),
    ],
)
def test_an_allowed_import_passes(module, source):
    known = {"jaxfc.calendar", "jaxfc.factors.em"}
    assert violations(source, module, known=known) == []


def test_import_of_jaxfc_stays_light():
    code = f"import sys, jaxfc; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
