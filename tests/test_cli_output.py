"""What all commands share: the same two options, JSON that is JSON, exit codes, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

from cli_runs import run_command as run
from jaxfc import cli
from jaxfc.cli_backtest import complete_model
from jaxfc.cli_data import complete_name
from jaxfc.cli_output import Output, plain
from jaxfc.report import jobs

REPOSITORY = Path(__file__).resolve().parents[1]


def every_command(command, path=()):
    """All commands that are no group, with their words."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*path, name))
    if path and not hasattr(command, "commands"):
        yield path, command


def test_every_command_can_be_quiet_and_speak_json():
    commands = dict(every_command(typer.main.get_command(cli.app)))
    assert len(commands) == 17
    for path, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--quiet", "-q", "--json"} <= options, path
        assert "**Example" in (command.help or ""), path


def test_values_as_json_has_them():
    given = {"a": np.float64("nan"), "b": [np.int64(3), (1.5, None)], "c": Path("x"), 4: np.inf}
    assert plain(given) == {"a": None, "b": [3, [1.5, None]], "c": "x", "4": None}
    assert json.loads(json.dumps(plain({"a": np.bool_(True)}), allow_nan=False)) == {"a": True}


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        (Output(), "words\n"),
        (Output(quiet=True), ""),
        (Output(as_json=True), '{"a": 1}\n'),
        (Output(quiet=True, as_json=True), '{"a": 1}\n'),
    ],
)
def test_what_is_printed(capsys, output, printed):
    with output.waiting("for nothing"):
        output.say("words")
        output.answer({"a": 1})
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (printed, "")
    assert output.progress is (False if output.quiet else None)


def test_a_terminal_sees_that_something_goes_on(capsys, monkeypatch):
    monkeypatch.setattr("jaxfc.cli_output.Output.is_live", True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Output().waiting("estimating"):
        pass
    captured = capsys.readouterr()
    assert captured.out == "" and "estimating" in captured.err


def test_fit_and_forecast_speak_json(capsys, monkeypatch, tmp_path):
    (tmp_path / "a.csv").write_text("date,a,b\n2015-01-02,1,2\n2015-01-09,2,1\n")
    said = {"method": "EM", "num_factors": 1, "num_lags": 1, "status": "converged"}
    said |= {"num_steps": 3, "loglik": float("nan")}
    monkeypatch.setattr(jobs, "fit_panel", lambda panel, options: None)
    monkeypatch.setattr(jobs, "write_fit", lambda *arguments: said)
    command = ("fit", tmp_path / "a.csv", "--factors", "1", "--out", tmp_path / "out")
    code, out, err = run(capsys, *command, "--json")
    wanted = said | {"loglik": None, "out": str(tmp_path / "out")}
    assert (code, err) == (0, "") and json.loads(out) == wanted
    assert run(capsys, *command, "--quiet") == (0, "", "")

    rows = pd.DataFrame({"date": pd.to_datetime(["2015-01-16"]), "series": ["a"], "mean": [0.5]})
    monkeypatch.setattr(jobs, "forecast_fit", lambda folder, horizon: rows.copy())
    code, out, _ = run(capsys, "forecast", tmp_path, "--horizon", "1", "--json")
    assert code == 0 and json.loads(out) == [{"date": "2015-01-16", "series": "a", "mean": 0.5}]
    code, out, _ = run(capsys, "forecast", tmp_path, "--horizon", "1")
    assert (code, out) == (0, "date,series,mean\n2015-01-16,a,0.5\n")
    file = tmp_path / "f.csv"
    command = ("forecast", tmp_path, "--horizon", "1", "--out", file)
    assert run(capsys, *command) == (0, f"Written to {file}.\n", "")
    assert file.read_text() == "date,series,mean\n2015-01-16,a,0.5\n"


def test_exit_codes(capsys, monkeypatch, tmp_path):
    def broken(error):
        def read(*arguments, **options):
            raise error

        monkeypatch.setattr(jobs, "read_panel", read)
        return run(capsys, "fit", "a.csv", "--factors", "1", "--out", tmp_path / "out")

    assert broken(ValueError("a is wrong.")) == (1, "", "Error: a is wrong.\n")
    assert broken(MemoryError()) == (1, "", "Error: MemoryError\n")
    code, out, err = broken(KeyError("a"))
    assert (code, out) == (3, "") and "a fault of jaxfc itself: KeyError: 'a'" in err
    assert run(capsys, "fit")[0] == 2
    assert run(capsys, "--version")[0] == 0
    with pytest.raises(KeyError):
        cli.main(["--debug", "fit", "a.csv", "--factors", "1", "--out", str(tmp_path / "out")])


def test_names_are_completed():
    assert complete_model("Fac") == ["FactorARX", "FactorDCC"]
    assert complete_name("us_") == ["us_stocks", "us_macro"]
    assert complete_name("z") == []


@pytest.mark.slow
def test_the_shell_completes_commands_and_data_sets():
    words = {"jaxfc back": "backtest", "jaxfc data show us_": "us_macro"}
    for line, wanted in words.items():
        asked = {
            "_JAXFC_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        code = "import sys; from jaxfc.cli import main; sys.argv = ['jaxfc']; main()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=200,
            cwd=REPOSITORY,
            env={**os.environ, **asked},
        )
        assert wanted in done.stdout.split()
