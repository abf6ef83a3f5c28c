"""Names of a package that are imported on first use: a package made for the test."""

import importlib
import sys

import pytest

SOURCE = """
from typing import TYPE_CHECKING
from jaxfc.lazy import lazy_names

if TYPE_CHECKING:
    from made_package.heavy import Thing, thing as other
    from made_package.impact import impact
else:
    __getattr__, __dir__ = lazy_names(__name__, __file__)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "made_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "heavy.py").write_text("class Thing: pass\nthing = 3\n")
    (folder / "impact.py").write_text("def impact(): return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("made_package")
    for name in [name for name in sys.modules if name.startswith("made_package")]:
        del sys.modules[name]


def test_names_are_imported_when_they_are_asked_for(package):
    assert "made_package.heavy" not in sys.modules
    assert {"Thing", "other", "impact"} <= set(dir(package))
    assert package.other == 3 and "made_package.heavy" in sys.modules
    from made_package import Thing  # pyright: ignore

    assert Thing is package.Thing is vars(package)["Thing"]
    with pytest.raises(AttributeError, match="'made_package' has no attribute 'Nothing'"):
        _ = package.Nothing


def test_a_name_that_is_also_a_module_stays_a_name(package):
    importlib.import_module("made_package.impact")
    assert package.impact() == 7
