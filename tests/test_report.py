"""Figures, tables and the page on a small synthetic panel; no browser."""

import base64
import io
import itertools
import re

import jax
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, DynamicFactorModel, TwoStepEM
from jaxfc.factors.nowcasts import nowcast
from jaxfc.panel import Panel
from jaxfc.report import plots, tables
from jaxfc.report.evaluate import MODEL, evaluate, one_step, score_rows, usable_series, verdicts
from jaxfc.report.html import Picture, Section, Table, png, write_report
from jaxfc.running.origins import Rolling

NUM_WEEKS = 60
METHOD = TwoStepEM(restart=False, conditional_cov=True, max_steps=6, inner=EM(max_steps=3))


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(8)
    series = rng.normal(size=(NUM_WEEKS, 1)) + 0.6 * rng.normal(size=(NUM_WEEKS, 5))
    dates = pd.date_range("2015-01-02", periods=NUM_WEEKS, freq="W-FRI")
    weekly = pd.DataFrame(series[:, :4], index=dates, columns=["A", "B", "C", "old"])
    weekly.loc[weekly.index[20:], "old"] = np.nan
    monthly = pd.DataFrame({"M": pd.Series(series[:, 4], index=dates).resample("ME").sum()})
    return Panel.from_frames(
        {"W": weekly, "M": monthly.iloc[:-1]}, kinds={"M": "flow_sum"}, delays={"M": "20D"}
    )


@pytest.fixture(scope="module")
def fitted(panel):
    return DynamicFactorModel(1, 1, method=METHOD).fit(panel, throw=False)


@pytest.fixture(scope="module")
def evaluation(panel):
    model = DynamicFactorModel(1, 1, method=METHOD)
    return evaluate(model, panel, Rolling(window=35, num_origins=6), ["A", "B"])


def image_of(figure):
    """The pixels of a figure as a reader sees them."""
    return matplotlib.image.imread(io.BytesIO(png(figure)), format="png")


def test_scores_are_those_of_the_forecasts(evaluation):
    assert evaluation.left_out == ("old",)
    table = evaluation.scores
    names = ["factor model", "zero", "random walk", "historical mean", "AR(1)"]
    assert list(table[table.series == "A"].model) == names
    walk = table[(table.series == "A") & (table.model == "random walk")].iloc[0]
    run = evaluation.backtests["random walk"]
    forecasts = evaluation.forecasts()
    rows = forecasts[(forecasts.model == "random walk") & (forecasts.series == "A")]
    scored = evaluation.backtests[MODEL].okay
    errors = (rows["realised"] - rows["mean"]).to_numpy()[scored]
    assert walk.rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert walk.mae == pytest.approx(np.mean(np.abs(errors)), rel=1e-12)
    assert walk.weeks == scored.sum() and walk.failed == 0
    inside = (rows["q0.05"] <= rows["realised"]) & (rows["realised"] <= rows["q0.95"])
    assert walk.coverage_90 == pytest.approx(inside.to_numpy()[scored].mean())
    assert len(run.origins) == 6 and len(forecasts) == 6 * (4 + 4 * 2)


def test_failed_weeks_are_left_out_for_every_model(evaluation):
    zero = evaluation.backtests["zero"]
    mean, std, realised = one_step(zero, "A")
    assert np.all(mean == 0.0) and np.all(std > 0.0) and np.isfinite(realised).all()
    assert score_rows({"zero": zero}, "A").weeks.item() == 6


@pytest.mark.parametrize(
    ("ratio", "t", "covered", "said"),
    [
        (0.9, -3.0, 0.9, ["19.0% less", "in favour of the model", "consistent with 90%"]),
        (1.1, 0.4, 0.9, ["21.0% more", "within what chance alone", "is not below it"]),
        (1.1, 4.0, 0.6, ["21.0% more", "against the model", "not calibrated"]),
    ],
)
def test_verdicts_say_what_the_numbers_say(ratio, t, covered, said):
    names = [MODEL, "zero", "AR(1)"]
    rmse = [2.0 * ratio, 2.0, 2.1]
    table = pd.DataFrame(
        {
            "series": "A",
            "model": names,
            "rmse": rmse,
            "coverage_90": covered,
            "rmse_ratio_to_zero": [r / 2.0 for r in rmse],
            "t": [t, np.nan, 1.0],
            "weeks": 100,
            "failed": [2, 0, 0],
        }
    )
    text = " ".join(verdicts(table, "A"))
    assert all(part in text for part in [*said, "2 estimations failed"])


def test_usable_series_are_seen_in_the_first_and_last_window(panel):
    assert usable_series(panel, Rolling(window=35, num_origins=6)) == ["A", "B", "C", "M"]
    assert "old" in usable_series(panel, Rolling(window=55, num_origins=2))


def test_reported_figures_are_per_week(panel):
    figures = tables.reported_figures(panel, "M")
    march = figures[figures["last"] == pd.Timestamp("2015-03-27")].iloc[0]
    value = panel.to_frame().loc["2015-03-27", "M"]
    assert march["first"] == pd.Timestamp("2015-03-06")
    assert march["value"] == pytest.approx(value / 4.0)


def test_tables_carry_names_dates_and_numbers(panel, fitted):
    factors = tables.factors_table(fitted, panel)
    np.testing.assert_array_equal(factors["factor_1"], np.asarray(fitted.factors)[:, 0])
    assert (
        list(factors.columns) == ["factor_1", "factor_1_std"]
        and factors["factor_1_std"].gt(0).all()
    )
    loadings = tables.loadings_table(fitted, panel)
    expected = fitted.parameters.loadings[:, 0] * np.sqrt(fitted.parameters.factor_cov[0, 0])
    np.testing.assert_allclose(loadings["factor_1"], expected)
    cells = nowcast(fitted, panel, 20, key=jax.random.key(0))
    long = tables.nowcast_table(cells, panel)
    row = long[(long.date == panel.index[7]) & (long.series == "B")].iloc[0]
    assert row["mean"] == row["observed"] == panel.to_frame()["B"].iloc[7] and row["std"] == 0.0
    covered = tables.coverage_table(panel).set_index("series")
    assert covered.loc["old", "observations"] == 20 and covered.loc["M", "delay"] == "20 days"
    assert tables.convergence(fitted)["num_steps"] == len(tables.likelihood_path(fitted))


@pytest.fixture(scope="module")
def figures(panel, fitted):
    cells = nowcast(fitted, panel, 20, key=jax.random.key(0))
    shape = {"index": panel.index, "columns": list(panel.names)}
    mean = pd.DataFrame(np.asarray(cells.mean), **shape)[["M"]]
    std = pd.DataFrame(np.asarray(cells.std), **shape)[["M"]]
    reported = {"M": tables.reported_figures(panel, "M")}
    law = fitted.forecast(4)
    low, high = np.asarray(law.quantile(0.05))[:, 0], np.asarray(law.quantile(0.95))[:, 0]
    days = pd.date_range(panel.index[-1], periods=5, freq="W-FRI")[1:]
    history = panel.to_frame()["A"].iloc[-10:]
    y = history.to_numpy()[-4:]
    gap = np.array([0.0, np.nan, 0.0, 0.0])
    return {
        "factors": plots.plot_factors(panel.index, fitted.factors, tables.factor_stds(fitted)),
        "loadings": plots.plot_loadings(panel.names, tables.factor_effects(fitted)),
        "nowcasts": plots.plot_nowcasts(panel.index, mean, std, reported, {"M": "percent"}),
        "fan": plots.plot_fan(history, days, law.mean[:, 0], {90: np.stack([low, high])}),
        "bars": plots.plot_contributions(["A", "B"], np.array([0.2, -0.1]), "parts", "percent"),
        "evaluation": plots.plot_evaluation(days, y, gap, np.ones(4), "A"),
        "convergence": plots.plot_convergence(np.array([-3.0, -2.0, -1.9])),
    }


NAMES = ("factors", "loadings", "nowcasts", "fan", "bars", "evaluation", "convergence")


@pytest.mark.parametrize("name", NAMES)
def test_figures_show_something_with_labelled_axes(figures, name):
    figure = figures[name]
    pixels = image_of(figure)
    assert pixels.shape[0] > 150 and pixels.shape[1] > 150
    assert np.ptp(pixels[..., :3]) > 0.5 and len(np.unique(pixels[..., :3].round(1))) > 5
    for axes in figure.axes:
        labelled = axes.get_ylabel() or axes.get_xlabel() or len(axes.get_yticklabels())
        assert labelled
        labels = [text for text in axes.get_xticklabels() if text.get_text()]
        boxes = [text.get_window_extent() for text in labels]
        assert all(a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes))


def test_page_stands_alone(tmp_path, figures):
    frame = pd.DataFrame(
        {
            "name": ["a<b", "c"],
            "value": [0.12345, np.nan],
            "small": [-0.0001, 0.0],
            "p (a test)": [0.00012, np.nan],
            "day": pd.to_datetime(["2020-01-03"] * 2),
        }
    )
    sections = [
        Section("First & last", ("It was 5 < 6.",), (Picture("fan", figures["fan"], "A fan"),)),
        Section("Numbers", tables=(Table("Some", frame, "some.csv", decimals=2),)),
    ]
    path = write_report(tmp_path, "Title", "Subtitle", sections, ["A source."])
    page = path.read_text(encoding="utf-8")
    for part in ("First &amp; last", "It was 5 &lt; 6.", "A fan", "Numbers", "A source.", "a&lt;b"):
        assert part in page
    assert "-0.00" not in page.split("<main")[1] and "&lt; 0.001" in page
    assert ">0.12<" in page and ">–<" in page and ">2020-01-03<" in page
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 1
    assert base64.b64decode(images[0]) == (tmp_path / "fan.png").read_bytes()
    assert not re.search(r'(src|href)="https?://', page)
