"""`jaxfc backtest`: a file in, the numbers of the library out, the same bits from the manifest."""

import hashlib
import json
import tomllib

import jax
import numpy as np
import pandas as pd
import pytest

from cli_runs import run_command
from jaxfc import cli
from jaxfc.compose import FactorARX, Trajectories
from jaxfc.factors import PPCA, DynamicFactorModel
from jaxfc.frames import read_table
from jaxfc.panel import Panel
from jaxfc.report import backtest_run, html
from jaxfc.report.backtest_file import read_backtest_file
from jaxfc.report.backtest_models import MODELS
from jaxfc.report.backtest_options import template
from jaxfc.report.backtest_run import MANIFEST
from jaxfc.running import Rolling, backtest, load_backtest
from jaxfc.trading import CPPI, PredictionLevel

FILE = """
[data]
files = ["weekly.csv"]
targets = ["a"]

[model]
name = "FactorARX"
method = "ppca"
num_draws = 40

[backtest]
window = 40
num_origins = 6
horizon = 2
seed = 3
batch_size = 2

[scores]
measures = ["rmse", "outside"]
levels = [0.8]
quantiles = [0.1, 0.9]

[trading]
cost = 0.001

[trading.strategies]
"PL 80" = { rule = "PredictionLevel", level = 0.8 }
insured = { rule = "CPPI", multiplier = 2, floor = 0.8 }
"""
SIMPLE = """
[data]
files = ["weekly.csv"]
[model]
name = "FirstOrder"
[backtest]
window = 30
num_origins = 5
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backtest")
    rng = np.random.default_rng(0)
    series = rng.normal(size=(60, 1)) + 0.5 * rng.normal(size=(60, 4))
    dates = pd.date_range("2015-01-02", periods=60, freq="W-FRI", name="date")
    pd.DataFrame(0.02 * series, index=dates, columns=list("abcd")).to_csv(folder / "weekly.csv")
    (folder / "arx.toml").write_text(FILE)
    return folder


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    return run_command(capsys, "backtest", *arguments)


@pytest.fixture(scope="module")
def done(folder):
    """A run by hand, without a captured screen."""
    with pytest.raises(SystemExit) as ended:
        arguments = ["run", folder / "arx.toml", "--out", folder / "done", "--quiet"]
        cli.main(["backtest", *map(str, arguments)])
    assert ended.value.code == 0
    return folder / "done"


def copied(done, target):
    """A copy of a run's folder."""
    for path in [done, *sorted(done.rglob("*"))]:
        other = target / path.relative_to(done)
        other.mkdir(parents=True) if path.is_dir() else other.write_bytes(path.read_bytes())
    return target


def test_the_numbers_are_those_of_the_library(folder, done):
    panel = Panel.from_frame(read_table(folder / "weekly.csv"))
    model = FactorARX(
        "a", DynamicFactorModel(1, 1, method=PPCA()), 1, 1, intervals=Trajectories(40)
    )
    origins = Rolling(40, num_origins=6)
    same = backtest(model, panel, origins, 2, batch_size=2, key=jax.random.key(3))
    table = pd.read_csv(done / "forecasts.csv", keep_default_na=False, na_values=["NaN"])
    wanted = same.to_frame(quantiles=[0.1, 0.9])
    for name in ("mean", "std", "q0.1", "q0.9", "realised"):
        np.testing.assert_array_equal(table[name].astype(float), wanted[name])
    assert list(pd.to_datetime(table["date"])) == list(wanted["date"])
    np.testing.assert_array_equal(load_backtest(done / "backtest").mean, same.mean)
    scores = pd.read_csv(done / "scores.csv")
    assert list(scores.columns) == ["series", "horizon", "rmse", "outside 80%"]
    np.testing.assert_array_equal(scores["rmse"], same.scores()["rmse"])


def test_strategies_are_those_of_the_file(folder, done):
    table = pd.read_csv(done / "strategies.csv").set_index("strategy")
    assert list(table.index) == ["PL 80", "insured", "buy and hold"]
    result = load_backtest(done / "backtest")
    growth = np.exp(result.realised[:, 0, 0]).prod()
    # Bought once, at a cost of 0.1% of what is bought.
    assert table.loc["buy and hold", "final_wealth"] == pytest.approx(growth / 1.001)
    wealth = pd.read_csv(done / "wealth.csv")
    np.testing.assert_allclose(wealth["PL 80"].iloc[-1], table.loc["PL 80", "final_wealth"])
    plan = read_backtest_file(folder / "arx.toml")
    assert plan.strategies is not None
    assert isinstance(plan.strategies["PL 80"], PredictionLevel)
    assert isinstance(plan.strategies["insured"], CPPI)
    assert float(plan.strategies["insured"].multiplier) == 2.0


def test_the_manifest_says_what_a_repetition_needs(folder, done):
    manifest = json.loads((done / MANIFEST).read_text())
    assert manifest["seed"] == 3 and manifest["precision"] == "float64"
    assert manifest["software"]["jax"] == jax.__version__
    assert manifest["platform"]["backend"] == "cpu"
    digest = hashlib.sha256((folder / "weekly.csv").read_bytes()).hexdigest()
    assert manifest["data"]["files"] == {"weekly.csv": digest}
    for name, wanted in manifest["results"].items():
        assert hashlib.sha256((done / name).read_bytes()).hexdigest() == wanted
    assert set(manifest["results"]) == {
        "forecasts.csv",
        "scores.csv",
        "strategies.csv",
        "wealth.csv",
    }
    # Every key has its value, also those that the file leaves to their defaults.
    assert manifest["configuration"]["model"]["num_own_lags"] == 1
    assert manifest["configuration"]["backtest"]["step"] == 1


def test_repeated_from_the_manifest_bit_for_bit(capsys, done, tmp_path):
    again = tmp_path / "again"
    code, out, err = run(capsys, "repeat", done / MANIFEST, "--out", again)
    assert (code, err) == (0, "") and out.startswith("The same bits: forecasts.csv")
    for name in ("forecasts.csv", "scores.csv", "strategies.csv", "wealth.csv", MANIFEST):
        assert (again / name).read_bytes() == (done / name).read_bytes()
    changed = json.loads((again / MANIFEST).read_text())
    changed["configuration"]["backtest"]["seed"] = 4
    (tmp_path / "other.json").write_text(json.dumps(changed))
    code, out, err = run(capsys, "repeat", tmp_path / "other.json", "--out", tmp_path / "b")
    assert (code, out) == (1, "") and "results forecasts.csv:" in err and "differs" in err
    code, out, _ = run(capsys, "repeat", tmp_path / "other.json", "--out", tmp_path / "b", "--json")
    assert code == 1 and not json.loads(out)["is_same"]


def test_other_data_are_not_a_repetition(capsys, folder, done, tmp_path):
    manifest = json.loads((done / MANIFEST).read_text())
    table = pd.read_csv(folder / "weekly.csv")
    table.loc[3, "b"] += 1e-9
    table.to_csv(tmp_path / "weekly.csv", index=False)
    (tmp_path / "m.json").write_text(json.dumps(manifest | {"folder": str(tmp_path)}))
    code, _, err = run(capsys, "repeat", tmp_path / "m.json", "--out", tmp_path / "again")
    assert code == 1 and "(weekly.csv changed)" in err and not (tmp_path / "again").exists()
    (tmp_path / "weekly.csv").unlink()
    code, _, err = run(capsys, "repeat", tmp_path / "m.json", "--out", tmp_path / "again")
    assert code == 1 and "weekly.csv" in err and not (tmp_path / "again").exists()


def test_a_run_that_lost_a_part_goes_on(capsys, folder, done, tmp_path):
    target = copied(done, tmp_path / "part")
    part = next((target / "store").glob("cell00000-chunk000001*"))
    part.unlink()
    (target / "forecasts.csv").unlink()
    code, out, _ = run(capsys, "status", target, "--json")
    said = json.loads(out)
    assert code == 0 and (said["num_origins"], said["num_origins_done"]) == (6, 4)
    code, out, err = run(capsys, "run", folder / "arx.toml", "--out", target)
    assert (code, err) == (0, "") and "6 origins, 0 failed" in out and "float64" in out
    assert (target / "forecasts.csv").read_bytes() == (done / "forecasts.csv").read_bytes()
    code, out, _ = run(capsys, "status", target)
    assert code == 0 and out.startswith("6 of 6 origins, 0 of them") and "scores.csv" in out


def test_a_folder_belongs_to_one_backtest(capsys, folder, done, tmp_path):
    other = folder / "other.toml"
    other.write_text(FILE.replace("seed = 3", "seed = 4"))
    code, _, err = run(capsys, "run", other, "--out", done)
    assert code == 1 and "configuration.backtest.seed is 3 there and 4 now" in err
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run(capsys, "run", other, "--out", tmp_path)
    assert code == 1 and "holds other things" in err
    code, _, err = run(capsys, "run", other, "--out", tmp_path / "notes.txt")
    assert code == 1 and "is a file, not a folder" in err


def test_the_page_is_that_of_the_run(capsys, monkeypatch, done, tmp_path):
    asked = {}

    def write(result, folder, **options):
        asked.update(options, names=result.names)
        return folder / "report.html"

    monkeypatch.setattr(backtest_run, "write_backtest_report", write)
    code, out, err = run(capsys, "report", done, "--out", tmp_path, "--title", "Mine", "--json")
    assert (code, err) == (0, "") and json.loads(out) == {"page": f"{tmp_path}/report.html"}
    assert asked["target"] == "a" and asked["names"] == ("a",) and asked["title"] == "Mine"
    assert list(asked["strategies"]) == ["PL 80", "insured"] and asked["cost"] == 0.001


@pytest.mark.slow
def test_the_page_of_a_run(capsys, monkeypatch, done, tmp_path):
    monkeypatch.setattr(html, "png", lambda figure: b"\x89PNG")
    code, out, err = run(capsys, "report", done, "--out", tmp_path, "--title", "Mine")
    assert (code, err) == (0, "") and out == f"Written to {tmp_path / 'report.html'}.\n"
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Mine</h1>" in page and "PL 80" in page and "insured" in page
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(done), "--out", str(tmp_path / "own"), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "own" / "report.html")


def test_quiet_and_json(capsys, folder, done, tmp_path):
    target = copied(done, tmp_path / "out")
    code, out, err = run(capsys, "run", folder / "arx.toml", "--out", target, "--json")
    said = json.loads(out)
    assert (code, err) == (0, "") and said["num_origins"] == 6 and len(said["scores"]) == 2
    assert said["results"] == json.loads((done / MANIFEST).read_text())["results"]
    assert run(capsys, "run", folder / "arx.toml", "--out", target, "--quiet") == (0, "", "")
    code, out, err = run(capsys, "repeat", done, "--out", target, "--json", "--quiet")
    assert (code, err) == (0, "") and json.loads(out)["is_same"]


def test_only_models_that_draw_have_a_key(folder, tmp_path):
    (tmp_path / "simple.toml").write_text(SIMPLE)
    assert read_backtest_file(tmp_path / "simple.toml").key is None
    text = SIMPLE.replace("FirstOrder", "VarianceModel")
    (tmp_path / "simple.toml").write_text(text.replace('el"', 'el"\ndraws = true', 1))
    assert read_backtest_file(tmp_path / "simple.toml").key is not None
    key = read_backtest_file(folder / "arx.toml").key
    assert key is not None and (key == jax.random.key(3)).all()


def test_a_refused_run_leaves_nothing(capsys, folder, tmp_path):
    # Ten observations for each parameter are wanted, which only the model knows.
    (folder / "short.toml").write_text(SIMPLE.replace("FirstOrder", "VarianceModel"))
    code, out, err = run(capsys, "run", folder / "short.toml", "--out", tmp_path / "out")
    assert (code, out) == (1, "") and "cannot be estimated" in err
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_says_how_to_go_on(capsys, folder, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(backtest_run, "backtest", stop)
    code, out, err = run(capsys, "run", folder / "arx.toml", "--out", tmp_path / "out")
    assert code == 130 and "run the same command to go on" in out and not err


@pytest.mark.parametrize("model", MODELS)
def test_init_writes_a_file_that_is_right(capsys, tmp_path, model):
    path = tmp_path / "new.toml"
    code, out, _ = run(capsys, "init", path, "--model", model)
    assert code == 0 and f"jaxfc backtest run {path}" in out
    plan = read_backtest_file(path)
    assert plan.config["model"]["name"] == model == type(plan.model).__name__
    assert plan.config["backtest"]["window"] == 260 and plan.strategies is None
    code, _, err = run(capsys, "init", path)
    assert code == 1 and "exists already" in err
    code, _, err = run(capsys, "init", tmp_path / "a.toml", "--model", "FactorARXX")
    assert code == 1 and "Did you mean 'FactorARX'?" in err


def test_every_key_of_a_template_can_be_given(tmp_path):
    """What is commented out is right too, where it may stand beside the rest."""
    for model in MODELS:
        lines = template(model, "x.toml").splitlines()
        for i, line in enumerate(lines):
            key = line.removeprefix("# ").split(" = ")[0]
            alone = ("files", "kinds", "delays", "start")  # these exclude another key
            if line.startswith("# ") and " = " in line and key.isidentifier() and key not in alone:
                tomllib.loads(line.removeprefix("# "))
                lines[i] = line.removeprefix("# ")
        path = tmp_path / f"{model}.toml"
        path.write_text("\n".join(lines))
        plan = read_backtest_file(path)
        assert plan.strategies is not None and list(plan.strategies) == ["PL 80%"]
        assert plan.config["data"]["end"] == "2015-12-31"


FAULTS = [
    ("[backtest]", "[backtset]", r"the table \[backtset\]: .* Did you mean 'backtest'\?"),
    ('[model]\nname = "FactorARX"', "[model]", r"\[model\] .* is not known|\[model\] lacks name"),
    ('"FactorARX"', '"FactorAR"', r"\[model\] name: .* 'FactorARX'\? Known are: FactorARX, Dyn"),
    ("num_draws", "num_draw", r"\[model\] num_draw: .* Did you mean 'num_draws'\?"),
    ("num_draws = 40", "num_draws = 1", r"\[model\] num_draws must be a whole number from 2 to"),
    ("num_draws = 40", "num_draws = true", r"num_draws must be a whole number .* got True"),
    ('"ppca"', '"pcpa"', r"\[model\] method: 'pcpa' .*'ppca'\? Known are: em, two-step, ppca"),
    ('"ppca"', '"ppca"\nnum_factor_lags = 3', r"\[model\] num_factor_lags=3 exceeds the 1 lags"),
    ('"ppca"', '"ppca"\nnum_factors = 0', r"\[model\] num_factors = 0, an autoregression, needs"),
    ("window = 40\n", "", r"\[backtest\] lacks window: a whole number from 2"),
    ("window = 40", "window = 1", r"\[backtest\] window must be a whole number from 2 .* got 1"),
    ("window = 40", "window = 59", "hold 0 origins with a window of 59"),
    ("window = 40", "window = 40\nstart = 2015-12-04", "takes start or num_origins, not both"),
    ("num_origins = 6", "start = 2015-13-01", "is no TOML file"),
    ("num_origins = 6", 'start = "soon"', r"start must be a date such as .* got 'soon'"),
    ("seed = 3", "seed = -1", r"\[backtest\] seed must be a whole number from 0 to 4294967295"),
    ("horizon = 2", "horizon = 0.5", r"horizon must be a whole number .* got 0.5"),
    ("horizon = 2", "horizon = 2\nstep = 2", r"\[trading\] needs a forecast for every period"),
    ('files = ["weekly.csv"]\n', "", r"\[data\] needs one of dataset and files"),
    ('"weekly.csv"', '"weakly.csv"', r"weakly.csv does not exist"),
    ('files = ["weekly.csv"]', 'files = "weekly.csv"', r"\[data\] files must be a list of 1 or"),
    ('files = ["weekly.csv"]', 'dataset = "sp5000"', r"dataset: .* Did you mean 'sp500'\?"),
    ('targets = ["a"]', 'targets = ["z"]', r"\[data\] targets: 'z' is not known. .* a, b, c, d"),
    ('targets = ["a"]', 'targets = ["a", "b"]', r"targets must name 1 series, which FactorARX"),
    ('targets = ["a"]', 'targets = ["a"]\nseries = ["b"]', r"\[data\] targets: 'a' is not known"),
    ('["a"]', '["a"]\ntransform = "log return"', r"\[data\] .*logarithm|\[data\] series 'a'"),
    (
        '["a"]',
        '["a"]\nkinds = { a = "flow" }',
        r"\[data\] kinds: 'flow' is not known. Did you mean 'flow_sum'",
    ),
    ('["a"]', '["a"]\nstart = 2030-01-04', r"\[data\] the window 2030-01-04..None has no row"),
    ('"rmse"', '"rsme"', r"\[scores\] measures: 'rsme' .* 'rmse'\? Known are: num_cases, rmse"),
    ("levels = [0.8]", "levels = [80]", r"levels must be a list .* a number between 0 and 1"),
    ("[0.1, 0.9]", "[0.1, 0.1]", r"quantiles must be a list of 1 or more, each another"),
    ("cost = 0.001", "cost = nan", r"\[trading\] cost must be a number of at least 0 .* got nan"),
    ("cost = 0.001", "scale = 100", r"\[trading\] scale: half of the values of 'a' are beyond"),
    ('"CPPI"', '"CPI"', r"\[trading\] strategies insured rule: 'CPI' .* Did you mean 'CPPI'\?"),
    (", floor = 0.8", "", r"\[trading\] strategies insured lacks floor: a number of at least 0"),
    ("multiplier", "multiple", r"strategies insured multiple: .* Did you mean 'multiplier'\?"),
    ("[trading.strategies]", "[trading.strategies]\nx = 3", r"strategies x must be a table, got 3"),
]


@pytest.mark.parametrize(("old", "new", "text"), FAULTS)
def test_faults_of_a_file(capsys, folder, tmp_path, old, new, text):
    assert old in FILE
    path = folder / "fault.toml"
    path.write_text(FILE.replace(old, new, 1))
    code, out, err = run(capsys, "run", path, "--out", tmp_path / "out")
    assert (code, out) == (1, "") and err.startswith("Error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises((ValueError, FileNotFoundError), match=text) as caught:
        plan = read_backtest_file(path)
        panel = plan.panel()
        plan.origins.rows(panel.index, plan.horizon)
    if "origins" not in text and "exist" not in text:
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"FirstOrder"', '"VarianceModel"\nvariance = "EGARCH"', r"set draws = true"),
        ('"FirstOrder"', '"DynamicFactorModel"\nmethod = "two-step"', r"refit must be 1"),
        ('"FirstOrder"', '"RegimeModel"\ndegrees = 1.5', r"degrees must be a number above 2"),
        ('"FirstOrder"', '"CorrelationModel"\ncorrelations = "D"', r"Known are: DCC, asymmetric"),
    ],
)
def test_faults_of_models(tmp_path, old, new, text):
    path = tmp_path / "fault.toml"
    path.write_text(SIMPLE.replace(old, new).replace("window = 30", "window = 30\nhorizon = 2"))
    path.write_text(path.read_text().replace("horizon = 2", "horizon = 2\nrefit = 2"))
    with pytest.raises(ValueError, match=text):
        read_backtest_file(path)


def test_a_sum_over_rows_is_no_target(tmp_path):
    pytest.importorskip("skfolio")
    path = tmp_path / "sums.toml"
    text = SIMPLE.replace('files = ["weekly.csv"]', 'dataset = "index_returns"')
    path.write_text(text)
    with pytest.raises(ValueError, match="'AAA' is a change_in_flow of frequency M, which no row"):
        read_backtest_file(path).panel()


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"kind": "jaxfc backtest", "format": 9}', "\0"]
)
def test_damaged_manifests(capsys, done, tmp_path, damage):
    target = copied(done, tmp_path / "run")
    (target / MANIFEST).write_text(damage)
    for command in ("status", "report", "repeat"):
        extra = () if command == "status" else ("--out", tmp_path / "out")
        code, _, err = run(capsys, command, target, *extra)
        assert code == 1 and str(target / MANIFEST) in err
    code, _, err = run(capsys, "status", tmp_path / "nothing")
    assert code == 1 and "give the --out of a jaxfc backtest run" in err
