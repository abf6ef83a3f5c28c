"""House rules that a machine can read: sizes, names, no global settings, enforced annotations."""

import ast
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest

from jaxfc.forecast import SampleForecast

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_FILE = 330
LONGEST_BODY = 70
PACKAGES = ("jaxfc", "kernels")
SOURCES = {
    str(path.relative_to(REPOSITORY)): path
    for package in PACKAGES
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}
# The command line is a program, not a library: it chooses float64 for the process it owns.
MAY_SET_GLOBALS = {"jaxfc/cli.py"}


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from the first statement after its docstring to its end."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if not body:
        return 0
    last = function.end_lineno
    assert last is not None
    return last - body[0].lineno + 1


def long_bodies(source: str) -> list[str]:
    """Functions, methods and nested functions that are too long."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        f"{node.name}: {body_length(node)} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, functions) and body_length(node) > LONGEST_BODY
    ]


def is_setting(expression: str) -> bool:
    """Whether an expression names JAX's configuration or the environment."""
    return expression in ("jax.config", "config", "os.environ", "environ")


def global_settings(source: str) -> list[str]:
    """Statements that change JAX's configuration or the environment of the process."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
            single = isinstance(node, ast.AugAssign | ast.AnnAssign)
            for target in [node.target] if single else node.targets:
                inside = isinstance(target, ast.Subscript | ast.Attribute)
                if inside and is_setting(ast.unparse(target.value)):
                    found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, verb = ast.unparse(node.func.value), node.func.attr
            changes = verb in ("update", "setdefault", "pop", "clear", "popitem")
            if (is_setting(owner) and changes) or (
                owner == "os" and verb in ("putenv", "unsetenv")
            ):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("enable_x64", "putenv"):
            found.append(ast.unparse(node))
    return found


def postponed_annotations(source: str) -> bool:
    """Whether a source has `from __future__ import annotations`, which disables the type checks."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in ast.walk(ast.parse(source))
    )


@pytest.mark.parametrize("name", SOURCES)
def test_source_keeps_the_rules(name):
    source = SOURCES[name].read_text()
    num_lines = source.count("\n")
    assert num_lines <= LONGEST_FILE
    assert long_bodies(source) == []
    assert not postponed_annotations(source)
    if name not in MAY_SET_GLOBALS:
        assert global_settings(source) == []


def test_a_long_body_is_found_and_its_docstring_is_not_counted():
    body = "\n".join(["    x = 1"] * LONGEST_BODY)
    text = "\n".join(["    line"] * LONGEST_BODY)
    assert long_bodies(f'def f():\n    """One.\n\n{text}\n    """\n{body}\n') == []
    assert long_bodies(f"def f():\n{body}\n    return x\n") == ["f: 71 lines"]
    assert len(long_bodies(f"class A:\n  def f(self):\n{body}\n    return x\n")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "jax.config.update('jax_enable_x64', True)",
        "jax.config.jax_enable_x64 = True",
        "from jax import config\nconfig.update('jax_platforms', 'cpu')",
        "os.environ['XLA_FLAGS'] = ''",
        "os.environ.setdefault('JAX_PLATFORMS', 'cpu')",
        "del os.environ['XLA_FLAGS']",
        "os.putenv('A', 'b')",
    ],
)
def test_a_global_setting_is_found(source):
    assert len(global_settings(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["os.environ.get('A')", "options.update(a=1)", "x = os.environ['A']", "self.config = config"],
)
def test_reading_a_setting_is_allowed(source):
    assert global_settings(source) == []


def test_postponed_annotations_are_found():
    assert postponed_annotations("from __future__ import annotations")
    assert not postponed_annotations("from __future__ import division")


def names_without_import(source: str, module: str) -> bool:
    """Whether a source uses a submodule that it does not import."""
    tree = ast.parse(source)
    imported = any(
        isinstance(node, ast.Import) and any(alias.name == module for alias in node.names)
        for node in ast.walk(tree)
    )
    used = any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == module for node in ast.walk(tree)
    )
    return used and not imported


def test_submodules_of_jax_that_are_used_are_imported():
    """The oldest JAX that is supported does not import `jax.export` by itself."""
    assert names_without_import("import jax\njax.export.export(f)", "jax.export")
    assert not names_without_import("import jax\nimport jax.export\njax.export", "jax.export")
    folders = ("jaxfc", "kernels", "tests", "experiments", "benchmarks")
    sources = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    guilty = [str(p) for p in sources if names_without_import(p.read_text(), "jax.export")]
    assert len(sources) > 300 and guilty == []


def test_only_tests_are_called_test():
    hidden = {"tests", "shared", "build", "dist", "site"}
    folders = [p for p in REPOSITORY.iterdir() if p.name not in hidden and p.name[0] != "."]
    inside = [p for folder in folders if folder.is_dir() for p in folder.rglob("*")]
    names = [p for p in [*folders, *inside] if p.name.lower().startswith("test")]
    assert [str(p.relative_to(REPOSITORY)) for p in names] == []


def test_annotations_are_enforced_in_this_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        SampleForecast(jnp.zeros((4, 3)))
