"""The pages of the site: their Python runs and prints what they show, names on them exist, pictures
follow the block that draws them, and the navigation is complete."""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import page_examples
from test_readme import FENCE, REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
NAME = re.compile(r"\bjaxfc(?:_kernels)?(?:\.[A-Za-z_]\w*)+")
FILES = (".md", ".py", ".toml", ".csv", ".html", ".svg", ".json", ".eqx", ".parquet", ".jaxfc")
PICTURE = re.compile(r"!\[[^\]]*\]\((figures/[^)]+)\)")
RELATIVE, ABSOLUTE = 0.02, 0.02  # other processors round otherwise, and searches end elsewhere


def run_page(page: str) -> dict[str, object]:
    """Run the Python of a page; a text block shows what the Python before it printed."""
    space: dict[str, object] = {"__name__": page}
    printed = ""
    for number, (language, block) in enumerate(FENCE.findall((DOCS / page).read_text()), start=1):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, f"docs/{page}, block {number}", "exec"), space)
            printed = out.getvalue()
        elif language == "text" and printed:
            assert_shown(printed, block)
            printed = ""
    return space


def assert_shown(printed: str, shown: str) -> None:
    """The same words, and nearly the same numbers."""
    page_examples.assert_shown(printed, shown, rtol=RELATIVE, atol=ABSOLUTE, number=NUMBER)


@pytest.mark.parametrize(
    "page",
    [
        "start.md",
        "ideas.md",
        "conventions.md",
        "coming-from.md",
        pytest.param("precision.md", marks=pytest.mark.slow),
        pytest.param("gpu-and-clusters.md", marks=pytest.mark.slow),
        pytest.param("selection.md", marks=pytest.mark.slow),
        pytest.param("demo.md", marks=pytest.mark.slow),
    ],
)
def test_examples_run_and_print_what_is_shown(page):
    space = run_page(page)
    if PICTURE.search((DOCS / page).read_text()):
        assert isinstance(space["figure"], Figure)


def names_on(page: str) -> set[str]:
    """Dotted names of the package on a page, without those of files."""
    return {
        name
        for name in NAME.findall((DOCS / page).read_text())
        if not name.endswith(FILES) and not re.search(r"\.(py|md)\b", name)
    }


def exists(name: str) -> bool:
    """Whether a dotted name leads to a module, or to an attribute or field of what it holds."""
    words = name.split(".")
    for cut in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:cut]))
        except ModuleNotFoundError:
            continue
        for word in words[cut:]:
            if hasattr(found, word):
                found = getattr(found, word)
            elif inspect.isclass(found) and word in fields_of(found):
                return word == words[-1]
            else:
                return False
        return True
    return False


def fields_of(owner: type) -> set[str]:
    """Annotated names of a class and its bases: abstract ones, and those without a default."""
    annotated = {name for base in owner.__mro__ for name in vars(base).get("__annotations__", {})}
    own = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
    return annotated | own


@pytest.mark.parametrize("page", PAGES)
def test_names_on_the_pages_exist(page):
    missing = sorted(name for name in names_on(page) if not exists(name))
    assert missing == []


def test_exists_tells_names_from_what_is_none():
    assert exists("jaxfc.StateSpace.design") and exists("jaxfc.bayes.Diagnostics.table")
    assert exists("jaxfc.Fitted.loglik") and exists("jaxfc.volatility")
    assert not exists("jaxfc.StateSpaces") and not exists("jaxfc.StateSpace.design.what")
    assert not exists("jaxfc.volatility.DCCs")


def rows_of(text: str) -> list[list[str]]:
    """Cells of the rows of all tables."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


# What the left column of a chapter of "Coming from other packages" is found in.
PEERS = {
    "statsmodels": ("statsmodels", ["tsa", "stats/diagnostic.py", "multivariate/pca.py", "api.py"]),
    "dynamax": ("dynamax", ["linear_gaussian_ssm", "hidden_markov_model", "parameters.py"]),
    "arch": ("arch", ["univariate", "bootstrap"]),
    "hierarchicalforecast": ("hierarchicalforecast", ["."]),
}


def chapters() -> dict[str, str]:
    """The chapters of that page by title."""
    parts = re.split(r"^## (.+)$", (DOCS / "coming-from.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("chapter", PEERS)
def test_names_of_other_packages_exist(chapter):
    package, places = PEERS[chapter]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed (extra peers)")
    root = Path(spec.origin).parent
    files = [
        f for p in places for f in ([root / p] if p.endswith(".py") else (root / p).rglob("*.py"))
    ]
    source = "\n".join(f.read_text() for f in files if "tests" not in f.parts)
    words = set(re.findall(r"[A-Za-z_]\w{2,}", source))
    left = " ".join(row[0] for row in rows_of(chapters()[chapter]))
    named = {
        w for code in re.findall(r"`([^`]+)`", left) for w in re.findall(r"[A-Za-z_]\w{2,}", code)
    }
    local = {"res", "ssm", "monthly", "True", "False", "obs_cov", "horizon", "spec", "method"}
    assert sorted(named - words - local) == []


def test_every_row_names_ours_or_says_that_there_is_none():
    for title, text in chapters().items():
        for row in rows_of(text)[1:]:
            if row[1] == "jaxfc" or set(row[0]) <= {"-"}:
                continue
            answer = row[1]
            assert "`" in answer or answer in ("—", "always") or "wide frames" in answer, (
                title,
                row,
            )


@pytest.mark.parametrize("page", [p for p in PAGES if PICTURE.search((DOCS / p).read_text())])
def test_a_picture_follows_the_block_that_draws_it(page):
    text = (DOCS / page).read_text()
    for found in PICTURE.finditer(text):
        assert (DOCS / found[1]).is_file(), f"{found[1]}: run `make figures`"
        before = [
            b.group(2) for b in FENCE.finditer(text[: found.start()]) if b.group(1) == "python"
        ]
        assert re.search(r"^figure(\s*=|, )", before[-1], re.MULTILINE), found[1]


def test_the_navigation_has_every_page_once():
    nav = (REPOSITORY / "mkdocs.yml").read_text().split("nav:")[1].split("\nexclude_docs:")[0]
    listed = re.findall(r"([\w/-]+\.md)", nav)
    assert len(listed) == len(set(listed))
    assert sorted(listed) == PAGES


def test_the_reference_has_every_package():
    shown = {m for p in PAGES for m in re.findall(r"^::: ([\w.]+)", (DOCS / p).read_text(), re.M)}
    packages = {f"jaxfc.{p.parent.name}" for p in (REPOSITORY / "jaxfc").glob("*/__init__.py")}
    assert packages - {"jaxfc.report"} <= shown  # reports by file: they load matplotlib


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
