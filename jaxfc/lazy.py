"""Public names of a package that are imported when they are first asked for."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that imports its names for type checkers only.

    The imports in the package's source, under `if TYPE_CHECKING`, say where each name is; so they
    stand once. A name that is also that of a module of the package is imported at once, because
    importing that module would put it in the name's place.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    places = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package)
        for alias in node.names
    }
    modules = {path.stem for path in Path(file).parent.iterdir()}

    def found(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = places[name]
        value = getattr(importlib.import_module(module), own)
        setattr(sys.modules[package], name, value)
        return value

    for name in places.keys() & modules:
        found(name)
    return found, lambda: sorted({*vars(sys.modules[package]), *places})
