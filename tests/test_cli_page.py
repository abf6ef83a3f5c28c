"""The page on the command line: its commands run in order, its file and its message are true."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
import typer

from jaxfc import cli
from jaxfc.report import html
from test_readme import REPOSITORY, blocks, commands

PAGE = (REPOSITORY / "docs" / "command-line.md").read_text()
# Long ones, and what changes the user's shell: their options are checked, they are not run.
LISTED = set(commands(PAGE[: PAGE.index("A walk through")])) - {"jaxfc doctor"}
ONLY_CHECKED = (("study", "run"), ("study", "status"), ("study", "report"), ())


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


def words_of(command):
    """(sub)command and all words."""
    program, *words = shlex.split(command)
    assert program == "jaxfc"
    leading = [word for word in words if not word.startswith("-")][:2]
    groups = ("backtest", "study", "data")
    return tuple(leading[: 2 if leading and leading[0] in groups else 1]), words


def options_of(leading):
    """Options that a command has."""
    found = typer.main.get_command(cli.app)
    for name in leading:
        found = found.commands[name]
    return {option for parameter in found.params for option in parameter.opts} | {"--help"}


def test_every_command_and_option_exists():
    shown = set()
    for command in commands(PAGE):
        leading, words = words_of(command)
        shown.add(leading[0] if leading else "")
        assert {word for word in words if word.startswith("-")} <= options_of(leading), command
    assert shown - {""} == set(typer.main.get_command(cli.app).commands)


def run_all(capsys, wanted):
    """Run the commands of the page for which `wanted(leading words)`, in order; how many."""
    ran = 0
    for command in commands(PAGE):
        leading, words = words_of(command)
        if leading in ONLY_CHECKED or command in LISTED or not wanted(leading):
            continue
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0, f"{command}\n{capsys.readouterr().err}"
        ran += 1
    return ran


@pytest.mark.parametrize("part", ["light", pytest.param("whole", marks=pytest.mark.slow)])
def test_the_commands_run_in_order(tmp_path, monkeypatch, capsys, part):
    pytest.importorskip("skfolio")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(html, "png", lambda figure: b"\x89PNG")
    if part == "light":
        light = ("doctor", "data", "init")
        assert run_all(capsys, lambda leading: set(leading) & set(light)) >= 7
        assert (tmp_path / "data" / "us_macro.parquet").is_file()
        return
    assert run_all(capsys, lambda leading: True) >= 14
    forecasts = pd.read_csv("forecast.csv")
    assert list(forecasts.columns[:4]) == ["date", "series", "mean", "std"]
    # The files that the page names are those that are there.
    section = PAGE[PAGE.index("## jaxfc backtest") :]
    named = set(re.findall(r"`([a-z]+\.(?:csv|json))`", section[: section.index("```toml")]))
    there = {path.name for path in (tmp_path / "results").iterdir()}
    assert len(named) == 5 and named <= there


def test_the_file_of_the_page_is_right(tmp_path, capsys):
    from jaxfc.report.backtest_file import read_backtest_file

    (file,) = blocks(PAGE, ("toml",))
    (tmp_path / "backtest.toml").write_text(file)
    dates = pd.date_range("2010-01-01", periods=130, freq="W-FRI", name="date")
    steps = np.random.default_rng(0).normal(scale=0.02, size=(130, 3))
    closes = pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), dates, list("ABC"))
    closes.to_csv(tmp_path / "closes.csv")
    plan = read_backtest_file(tmp_path / "backtest.toml")
    panel = plan.panel()
    assert panel.num_times == 129 and plan.targets(panel) == ["A", "B"]
    np.testing.assert_allclose(panel.values, steps[1:], rtol=1e-9)
    assert len(plan.origins.rows(panel.index, plan.horizon)) == 12

    (tmp_path / "backtest.toml").write_text(file.replace('"GJR"', '"GRJ"'))
    with pytest.raises(SystemExit):
        cli.main(["backtest", "run", str(tmp_path / "backtest.toml"), "--out", str(tmp_path / "o")])
    said = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    (shown,) = [text for text in blocks(PAGE, ("text",)) if text.startswith("Error")]
    assert said == shown
