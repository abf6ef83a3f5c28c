"""The page of benchmarks says what the tables in `benchmarks/results` say, and all of it."""

import ast
import importlib
import math
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
KERNELS = REPOSITORY / "kernels"
MODULES = ("page", "page_results", "page_costs", "result_tables", "comparisons", "targets")


@pytest.fixture(scope="module")
def modules():
    """The modules that write the page, imported as their scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        yield {name: importlib.import_module(name) for name in MODULES}


@pytest.fixture(scope="module")
def tables(modules):
    return modules["result_tables"].read_tables()


def test_the_committed_page_is_what_the_tables_say(modules, tables):
    text = modules["page"].page(tables)
    assert (REPOSITORY / "docs" / "benchmarks.md").read_text() == text
    assert modules["page"].page(tables) == text


def test_ratios_are_those_of_the_times_beside_them(modules, tables):
    number = modules["result_tables"].number
    checked = 0
    for comparison in (one for topic in modules["comparisons"].TOPICS.values() for one in topic):
        for row in comparison.rows(tables):
            ours = number(row, comparison.ours)
            for peer in comparison.peers:
                if peer.ratio is None or peer.time is None or "forming" in peer.ratio:
                    continue
                ratio = number(row, peer.ratio)
                assert math.isnan(ratio) or ratio == pytest.approx(
                    number(row, peer.time) / ours, rel=2e-3
                )
                checked += 1
    assert checked > 50


def test_every_ratio_below_one_stands_among_the_losses(modules, tables):
    lost = [one for one in modules["page_results"].ratios(tables) if one.value < 1.0]
    lines = [
        line
        for line in modules["page_results"].slower(tables)
        if line.startswith("| ") and "**" in line
    ]
    assert len(lines) == len(lost) > 0
    speeds = [float(speed) for line in lines for speed in re.findall(r"\*\*([\d.]+)\*\*", line)]
    assert len(speeds) == len(lines)
    assert speeds == sorted(speeds)
    assert max(speeds) <= 1.0


def test_targets_name_rows_that_exist(modules, tables):
    for asked in modules["targets"].ASKED:
        if asked.table in tables:
            assert asked.found(tables), asked


def test_targets_are_met_at_their_bound(modules):
    asked = modules["targets"].Asked
    least, most = asked("", "", {}, "", least=3.0), asked("", "", {}, "", most=3.0)
    assert [least.is_met(x) for x in (2.9, 3.0, 3.1)] == [False, True, True]
    assert [most.is_met(x) for x in (2.9, 3.0, 3.1)] == [True, True, False]


def test_every_script_and_table_is_in_the_readme(tables):
    text = (BENCHMARKS / "README.md").read_text()
    scripts = [path.name for path in BENCHMARKS.glob("bench_*.py")]
    assert [name for name in scripts if f"`{name}`" not in text] == []
    listed = set(re.findall(r"\b[a-z0-9_]+\b", text)) | {
        name for name in tables if name.startswith("reconcile_")
    }
    assert sorted(set(tables) - listed) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.07433, "0.0743"),
        (5.476, "5.48"),
        (99.96, "100"),
        (1089.7294, "1,090"),
        (88106.4612, "88,100"),
        (0.0004709, "0.00047"),
        (1e-13, "1e-13"),
        (0.0, "0"),
        (math.nan, "–"),
    ],
)
def test_numbers_are_shown_with_three_digits(modules, value, text):
    assert modules["result_tables"].shown(value) == text


def test_no_times_are_copied_by_hand():
    """They would stay when the tables are measured again."""
    time = re.compile(r"\d ?(ms|µs|ns|s)\b|[GM]flop/s|\d GB/s")
    for page in ("kernels/README.md", "docs/state-space.md"):
        found = [line for line in (REPOSITORY / page).read_text().splitlines() if time.search(line)]
        assert found == [], page
    assert time.search("in 1.1 s against") and time.search("reaches 55 Gflop/s")


def test_a_table_without_its_machine_is_refused(modules, tmp_path):
    (tmp_path / "bad.csv").write_text("size,ms\n1,2\n")
    with pytest.raises(ValueError, match=r"bad\.csv needs a line '# machine'"):
        modules["result_tables"].read_tables(tmp_path)


def test_linear_growth_lies_on_the_dashed_line(modules):
    lines = modules["page_costs"].picture({"linear": [(10, 3.0), (20, 6.0), (80, 24.0)]}, "x")
    points = re.findall(r'points="([^"]+)"', "\n".join(lines))[0].split()
    dashed = next(line for line in lines if "dasharray" in line)
    ends = [float(x) for x in re.findall(r'[xy][12]="([\d.]+)"', dashed)]
    first, last = (tuple(map(float, point.split(","))) for point in (points[0], points[-1]))
    assert (*first, *last) == pytest.approx(ends, abs=0.1)
    x, y = map(float, points[1].split(","))
    share = (x - first[0]) / (last[0] - first[0])
    assert share == pytest.approx(1 / 3, abs=0.01)
    assert (y - first[1]) / (last[1] - first[1]) == pytest.approx(share, abs=0.01)


def imported_names(path: Path) -> list[tuple[str, str]]:
    """What a script imports from the package by name: (module, name)."""
    statements = ast.walk(ast.parse(path.read_text()))
    found = [node for node in statements if isinstance(node, ast.ImportFrom) and node.module]
    return [
        (str(node.module), alias.name)
        for node in found
        if str(node.module).split(".")[0] in ("jaxfc", "jaxfc_kernels")
        for alias in node.names
    ]


def offered_names(module: str) -> set[str]:
    """What a module of the package defines, imports or lists as its own, and its submodules."""
    folder = REPOSITORY if module.startswith("jaxfc.") or module == "jaxfc" else KERNELS
    path = folder.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = {other.stem for other in path.iterdir()} if path.is_dir() else set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_names_that_a_script_takes_from_the_package_are_there(path):
    # Scripts need peers that the tests lack: a name that moved would show only when they run.
    wanted = imported_names(path)
    assert [
        f"{module}.{name}" for module, name in wanted if name not in offered_names(module)
    ] == []


def test_a_name_that_moved_is_missed():
    assert "block_diagonals" in offered_names("jaxfc.factors.path_blocks")
    assert "block_diagonals" not in offered_names("jaxfc.factors.moments")
    assert "factorise" in offered_names("jaxfc_kernels.block_tridiagonal")
