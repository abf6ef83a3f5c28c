"""Figures show what they were given: heights of bars, ends of waterfalls, names, and where."""

import io
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxfc
from jaxfc import report
from jaxfc.factors.diagnostics import standardised_errors

NAMES = list("abcde")


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(48, 1)) + 0.5 * rng.normal(size=(48, 5))
    values[:10, 4] = np.nan
    values[20, 1] = np.nan
    index = pd.date_range("2016-01-31", periods=48, freq="ME")
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, NAMES))


@pytest.fixture(scope="module")
def fitted(panel):
    return jaxfc.DynamicFactorModel(1, 1, method=jaxfc.EM(max_steps=3)).fit(panel, throw=False)


def draw(axes):
    """Render, so that layout and text are exercised; returns the axes."""
    axes.get_figure(root=True).savefig(io.BytesIO(), format="png")
    return axes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def row_names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.fixture(scope="module")
def shares():
    table = [[0.7, 0.1], [0.02, 0.6], [0.3, 0.3], [0.01, 0.02]]
    return pd.DataFrame(table, list("wxyz"), ["factor 1", "factor 2"])


def test_heat_map_groups_series_by_their_factor(shares):
    axes = draw(report.plot_r_squared(shares))
    assert row_names(axes) == ["w", "y", "x", "z"]
    image = axes.images[0].get_array()
    np.testing.assert_allclose(image, shares.loc[["w", "y", "x", "z"]])
    assert "0.70" in texts(axes) and "0.02" not in texts(axes)
    fewer = draw(report.plot_r_squared(shares, num_series=2))
    assert row_names(fewer) == ["w", "x"]
    assert fewer.get_title(loc="left") == "R² of the 2 best explained of 4 series"


def test_stacked_bars_end_at_the_whole_share(shares):
    axes = draw(report.plot_r_squared_bars(shares))
    assert row_names(axes) == ["z", "y", "x", "w"]
    ends = {}
    for bar in axes.patches:
        place = round(bar.get_y() + bar.get_height() / 2)
        ends[place] = max(ends.get(place, 0.0), bar.get_x() + bar.get_width())
    expected = shares.sum(axis=1).loc[row_names(axes)]
    np.testing.assert_allclose([ends[i] for i in range(4)], expected)


def test_many_factors_share_the_last_colour():
    rng = np.random.default_rng(0)
    names = [f"factor {k + 1}" for k in range(12)]
    many = pd.DataFrame(rng.uniform(0, 0.08, (3, 12)), list("abc"), names)
    axes = draw(report.plot_r_squared_bars(many))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[-1] == "factors 8 to 12" and len(labels) == 8
    right = max(bar.get_x() + bar.get_width() for bar in axes.patches)
    np.testing.assert_allclose(right, many.sum(axis=1).max())


def test_contributions_stack_up_and_down():
    index = pd.date_range("2020-01-31", periods=3, freq="ME")
    parts = pd.DataFrame({"p": [1.0, -2.0, 1.0], "q": [2.0, -1.0, -3.0]}, index)
    axes = draw(report.plot_contribution_history(parts, title="t"))
    tops = np.array([bar.get_y() + bar.get_height() for bar in axes.patches]).reshape(2, 3)
    np.testing.assert_allclose(tops, [[1, -2, 1], [3, -3, -3]])
    (line,) = [line for line in axes.lines if line.get_label() == "total"]
    np.testing.assert_allclose(line.get_ydata(), [3, -3, -2])
    many = pd.DataFrame(np.eye(3, 20) + 0.1, index, [f"s{i}" for i in range(20)])
    pooled = draw(report.plot_contribution_history(many, max_parts=4))
    labels = [text.get_text() for text in pooled.get_legend().get_texts()]
    assert sorted(labels) == ["17 others", "s0", "s1", "s2", "total"]
    with pytest.raises(ValueError, match="at least 2"):
        report.plot_contribution_history(many, max_parts=1)


def test_waterfall_leads_from_old_to_new():
    news = pd.DataFrame({"series": ["x", "y", "x", "z"], "impact": [0.5, -1.0, 0.25, 0.1]})
    axes = draw(report.plot_news_waterfall(news, 2.0, 1.85))
    assert row_names(axes) == ["old nowcast", "y", "x", "z", "new nowcast"]
    starts = [bar.get_x() for bar in axes.patches]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(starts, [2.0, 1.0, 1.75])
    np.testing.assert_allclose(ends, [1.0, 1.75, 1.85])
    assert {"-1", "+0.75", "+0.1", "2", "1.85"} == set(texts(axes))
    low, high = axes.get_xlim()
    assert low < 1.0 and high > 2.0
    many = draw(
        report.plot_news_waterfall({f"s{i}": 0.1 * i for i in range(9)}, 0.0, 3.6, max_bars=3)
    )
    assert row_names(many) == ["old nowcast", "s8", "s7", "6 others", "new nowcast"]


def test_waterfall_without_news_has_no_bar():
    axes = draw(report.plot_news_waterfall({"x": 0.0}, 1.0, 1.0))
    assert row_names(axes) == ["old nowcast", "new nowcast"]
    assert len(axes.patches) == 0


def test_waterfall_refuses_what_does_not_add_up():
    with pytest.raises(ValueError, match=r"sum to 0.5, but .* from 1 to 2.*missing \(0.5\)"):
        report.plot_news_waterfall({"x": 0.5}, 1.0, 2.0)
    with pytest.raises(ValueError, match="need a column 'impact'"):
        report.plot_news_waterfall(pd.DataFrame({"news": [1.0]}), 1.0, 2.0)


def test_scree_shows_shares(shares):
    axes = draw(report.plot_scree([3.0, 0.75, 0.25], num_factors=1))
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [0.75, 0.1875, 0.0625])
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] != colours[1] and colours[1] == colours[2]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.75, 0.9375, 1.0])


def test_criteria_have_their_choice_at_zero(panel):
    criteria = jaxfc.factor_criteria(*panel.arrays(), 3)
    axes = draw(report.plot_criteria(criteria, which=("ic1", "growth_ratio")))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    for label, name in zip(labels, ("ic1", "growth_ratio"), strict=True):
        assert label == f"{name.replace('_', ' ')}: {int(criteria.selected(name))}"
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert np.argmin(lines[labels[0]]) + 1 == int(criteria.selected("ic1"))
    with pytest.raises(ValueError, match="no criterion 'bic'"):
        report.plot_criteria(criteria, which=("bic",))


def test_overlay_turns_the_factor_over(panel):
    series = panel.to_frame()["b"]
    axes = draw(report.plot_factor_overlay((-2.0 * series).fillna(0.0).rename("f"), series))
    assert "correlation -1.00" in axes.get_title(loc="left")
    by_label = {line.get_label(): line.get_ydata() for line in axes.lines}
    observed = series.notna().to_numpy()
    turned = by_label["f (turned over)"][observed]
    np.testing.assert_allclose(turned, by_label["b"], atol=1e-12)
    with pytest.raises(ValueError, match="share 0 dates"):
        report.plot_factor_overlay(series.iloc[:5].rename("f"), series.iloc[6:9])


def test_fan_has_the_quantiles_of_the_forecast(panel, fitted):
    forecast = fitted.forecast(4)
    axes = draw(report.plot_fan_chart(panel, forecast, "c", levels=(50, 90)))
    means = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(means["mean"], forecast.mean[:, 2])
    outer = axes.collections[0].get_paths()[0].vertices[:, 1]
    edge = forecast.quantile(jnp.asarray([0.05, 0.95]))[:, :, 2]
    np.testing.assert_allclose([outer.min(), outer.max()], [edge.min(), edge.max()])
    with pytest.raises(ValueError, match="no series 'x'"):
        report.plot_fan_chart(panel, forecast, "x")


def test_missing_map_tells_gaps_from_ends(panel):
    axes = draw(report.plot_missing(panel))
    state = np.asarray(axes.images[0].get_array())
    assert state.shape == (5, 48)
    assert np.all(state[4, :10] == 2) and state[1, 20] == 1
    assert np.sum(state == 0) == panel.observed.sum()
    assert row_names(axes) == NAMES


def test_missing_map_of_quarters_leaves_months_between_blank():
    months = pd.date_range("2018-01-31", periods=12, freq="ME")
    monthly = pd.DataFrame({"m": np.arange(12.0)}, months)
    quarterly = pd.DataFrame({"q": [1.0, np.nan, 2.0, 3.0]}, months[2::3])
    mixed = jaxfc.Panel.from_frames({"M": monthly, "Q": quarterly}, kinds={"q": "flow_sum"})
    state = np.asarray(draw(report.plot_missing(mixed)).images[0].get_array())
    np.testing.assert_array_equal(state[1], [3, 3, 0, 3, 3, 1, 3, 3, 0, 3, 3, 0])


def test_nowcast_evolution_shows_band_and_outcome():
    dates = pd.date_range("2020-01-05", periods=3, freq="W")
    table = pd.DataFrame({"mean": [1.0, 2, 3], "low": [0.0, 1, 2], "high": [2.0, 3, 4]}, dates)
    axes = draw(report.plot_nowcast_evolution(table.assign(rival=2.5), outcome=2.2))
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["nowcast"], [1, 2, 3])
    np.testing.assert_allclose(lines["outcome"], 2.2)
    np.testing.assert_allclose(lines["rival"], 2.5)
    assert len(axes.collections) == 1
    with pytest.raises(ValueError, match="need a column 'mean'"):
        report.plot_nowcast_evolution(table[["low"]])


def test_residual_panel_has_four_axes(panel, fitted):
    errors = standardised_errors(fitted, panel)
    four = report.plot_residual_panel(errors, panel, "b")
    assert len({id(axes) for axes in four}) == 4
    draw(four[0])
    assert four[0].get_figure() is four[3].get_figure()
    with pytest.raises(ValueError, match="no series 'x'"):
        report.plot_residual_panel(errors, panel, "x")


def test_autocorrelations_are_those_of_statsmodels():
    stattools = pytest.importorskip("statsmodels.tsa.stattools")
    errors = np.random.default_rng(7).normal(size=50)
    axes = draw(report.plot_residual_acf(errors, num_lags=6))
    heights = [segment[1, 1] for segment in axes.collections[1].get_segments()]
    np.testing.assert_allclose(heights, stattools.acf(errors, nlags=6, adjusted=True)[1:])


def test_quantiles_lie_where_they_should_and_outliers_are_dated():
    scipy_stats = pytest.importorskip("scipy.stats")
    index = pd.date_range("2020-01-31", periods=30, freq="ME")
    errors = pd.Series(np.random.default_rng(8).normal(size=30), index)
    errors.iloc[11] = -7.0
    errors.iloc[3] = np.nan
    axes = draw(report.plot_residual_qq(errors))
    points = axes.lines[1]
    np.testing.assert_allclose(points.get_ydata(), np.sort(errors.dropna()))
    expected = scipy_stats.norm.ppf((np.arange(1, 30) - 0.5) / 29)
    np.testing.assert_allclose(points.get_xdata(), expected, atol=1e-10)
    assert texts(draw(report.plot_residual_path(errors))) == ["2020-12"]
    histogram = draw(report.plot_residual_histogram(errors))
    total = sum(bar.get_height() * bar.get_width() for bar in histogram.patches)
    np.testing.assert_allclose(total, 1.0)


def test_every_figure_draws_where_it_is_told(panel, shares):
    axes = Figure().subplots()
    assert isinstance(axes, Axes)
    for function, argument in (
        (report.plot_r_squared, shares),
        (report.plot_scree, [2.0, 1.0]),
        (report.plot_missing, panel),
        (report.plot_residual_acf, np.arange(9.0)),
    ):
        assert function(argument, ax=axes) is axes


def test_figures_load_matplotlib_on_first_use_only():
    code = (
        "import sys, jaxfc.report as r; before = 'matplotlib' in sys.modules; r.plot_scree;"
        "print(before, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        _ = report.plot_nothing
    assert all(callable(getattr(report, name)) for name in report.__all__)
