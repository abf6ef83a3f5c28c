"""Files and names that come from elsewhere: no pickle, no code, nothing but text on a page, no file
outside the folder."""

import ast
import html.parser
import io
import pickle
import re
import zipfile
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from backtest_pages import example
from jaxfc.report import html as pages
from jaxfc.report import write_backtest_report
from jaxfc.report.html import Picture, Section, Table, write_report
from jaxfc.report.study import write_study_report
from jaxfc.serialisation import DIGEST_SIZE, MAGIC, load, read_arrays
from study_results import made_result

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = ("jaxfc", "kernels")
SCRIPTS = ("experiments", "benchmarks")
# Modules that run what a file says, or rebuild whatever it names.
FORBIDDEN = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml")
CALLS = ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle")
# Readers of NumPy's format, which may hold pickles if told so.
NUMPY = ("np.load", "jnp.load", "numpy.load")


def faults_of(source: str) -> list[str]:
    """Imports and calls in a source that could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or name.endswith((".to_pickle", ".read_pickle")):
                found.append(name)
            if options.get("allow_pickle", "False") != "False":
                found.append(f"{name}(allow_pickle={options['allow_pickle']})")
            if options.get("shell", "False") != "False":
                found.append(f"{name}(shell={options['shell']})")
    return found


def test_no_source_loads_pickles_or_runs_text():
    sources = [
        path for folder in (*SHIPPED, *SCRIPTS) for path in (REPOSITORY / folder).rglob("*.py")
    ]
    assert len(sources) > 300
    found = {str(path): faults for path in sources if (faults := faults_of(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "frame.to_pickle(path)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_reader_of_sources_sees(source):
    assert faults_of(source)


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_numpy_files_with_objects_are_refused(tmp_path):
    """The arrays of a saved model are in NumPy's format, which may hold a pickle."""
    body = io.BytesIO()
    np.save(body, np.array([Boom(tmp_path / "boom")], dtype=object), allow_pickle=True)
    for like in (np.zeros(1), np.zeros(1, object), 1.0):
        with pytest.raises(ValueError):
            read_arrays(body.getvalue(), [like])
    assert not (tmp_path / "boom").exists()


def test_a_pickle_under_the_name_of_a_model_is_refused(tmp_path):
    content = pickle.dumps(Boom(tmp_path / "boom"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("data.pkl", content)
    for raw in (content, MAGIC + bytes(DIGEST_SIZE) + content, archive.getvalue()):
        (tmp_path / "model.jaxfc").write_bytes(raw)
        with pytest.raises(ValueError, match=r"model\.jaxfc"):
            load(tmp_path / "model.jaxfc")
    assert not (tmp_path / "boom").exists()


def test_settings_are_read_as_toml_and_json_only():
    """No source reads another format of settings, such as YAML or Python."""
    formats = re.compile(r"\b(tomllib|json|configparser|runpy|yaml|plistlib|xml)\.\w*load")
    found = {
        match.group(1)
        for folder in SHIPPED
        for path in (REPOSITORY / folder).rglob("*.py")
        for match in formats.finditer(path.read_text())
    }
    assert found <= {"tomllib", "json"} and "tomllib" in found


NASTY = (
    '<script>alert("1")</script>',
    "<img src=x onerror=alert(2)>",
    '"><b onmouseover="alert(3)">',
    "'; alert(4) //",
    "{{ 7 * 191 }}{% for x in y %}",
    "../../outside",
    r"US$ and $\frac{",
)


class Tags(html.parser.HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def assert_only_text(page: str, names) -> None:
    """A page has no tag, handler or address but the template's own, and shows the names whole."""
    seen = Tags(page)
    assert not seen.tags & {"script", "b", "iframe", "object", "embed", "form"}
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert "onerror" not in seen.attributes and "1337" not in seen.text
    assert not re.search(r'(src|href)="(?!data:image/png;base64,|#|[\w.-]+")', page)
    for name in names:
        assert name in seen.text


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures are made but not drawn."""
    monkeypatch.setattr(pages, "png", lambda figure: b"\x89PNG")


def test_a_page_shows_any_text_as_text(tmp_path, no_pictures):
    frame = pd.DataFrame({name: [name, name] for name in NASTY})
    figure = matplotlib.figure.Figure()
    sections = [
        Section(
            name,
            (name,),
            (Picture("picture", figure, name, alt=name, narrow=figure),),
            (Table(name, frame),),
        )
        for name in NASTY
    ]
    for name in NASTY:
        page = write_report(tmp_path, name, name, sections, list(NASTY)).read_text()
        assert_only_text(page, NASTY)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "picture.png"}


def test_names_of_a_study_are_text_and_stay_in_its_folder(tmp_path, no_pictures):
    grid = [{"num_times": 50, NASTY[0]: NASTY[1]}, {"num_times": 80, NASTY[0]: NASTY[2]}]
    result = made_result(grid, estimators=NASTY[:3], metrics=(NASTY[5], NASTY[3]))
    result.config["name"] = NASTY[1]
    page = write_study_report(result, tmp_path / "in" / "page").read_text()
    assert_only_text(page, (*NASTY[:4], NASTY[5]))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["page"]


def test_names_of_series_are_text_on_the_page_of_a_backtest(tmp_path, no_pictures):
    done = example(12)
    name = NASTY[0] + NASTY[6]
    object.__setattr__(done, "names", (name,))
    object.__setattr__(done, "series", (*done.series[:3], name))
    page = write_backtest_report(done, tmp_path / "page", units=NASTY[1], title=NASTY[2])
    assert_only_text(page.read_text(), (name, NASTY[1], NASTY[2]))
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_dollars_in_names_are_no_formulas():
    """Two dollars in a name would be read as mathematics, and fail if it is none."""
    figure = matplotlib.figure.Figure()
    linear, logarithmic = figure.subplots(1, 2)
    for axes in (linear, logarithmic):
        axes.plot([1, 100], [0, 1], label=r"$\nothing{$")
        axes.set_title(r"A$ in US$ of $\frac{$")
        axes.set_yticks([0, 1], [r"$\x$", "$$"])
        axes.legend()
    logarithmic.set_xscale("log")
    pages.png(figure)
    labels = [label for label in logarithmic.get_xticklabels() if label.get_text()]
    assert labels and all(label.get_parse_math() for label in labels)
    assert not linear.title.get_parse_math()
