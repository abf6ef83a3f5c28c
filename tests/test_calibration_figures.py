"""Figures of calibration show the numbers they were given, and mark what is wrong."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from jaxfc.bayes.calibrate import RankCalibration
from jaxfc.evaluation.predictive_checks import calibration_by_class, reliability
from jaxfc.report.calibration_figures import (
    binomial_interval,
    plot_coverage_by_class,
    plot_ecdf_difference,
    plot_pit_by_class,
    plot_rank_histogram,
    plot_reliability,
)
from jaxfc.report.plots import BLUE, GREY, RED
from jaxfc.results import SUCCESSFUL

CLASSES = ("stock",) * 4 + ("bond",) * 2


def draw(axes):
    """Render, so that layout and text are exercised; returns the axes."""
    axes.get_figure(root=True).savefig(io.BytesIO(), format="png")
    return axes


@pytest.fixture(scope="module")
def calibration():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 64, size=300)
    narrow = np.clip(np.round(31.5 + 1.8 * (rng.integers(0, 64, size=300) - 31.5)), 0, 63)
    ranks = jnp.asarray(np.column_stack([right, narrow]).astype(int))
    ones = jnp.ones(ranks.shape)
    return RankCalibration(("rho", "tau"), 63, ranks, ones, jnp.ones(300, bool), SUCCESSFUL)


def test_rank_histogram_marks_bars_outside_their_interval(calibration):
    ax = draw(plot_rank_histogram(calibration, "tau"))
    heights = [bar.get_height() for bar in ax.patches if 2 < bar.get_width() < 10]
    counts = np.bincount(np.asarray(calibration.ranks[:, 1]) // 8, minlength=8)
    np.testing.assert_array_equal(heights, counts)
    low, high = binomial_interval(300, 1 / 8, 0.95)
    assert (low, high) == stats.binom(300, 1 / 8).interval(0.95)
    colours = [to_hex(bar.get_facecolor()) for bar in ax.patches if 2 < bar.get_width() < 10]
    marked = [colour == RED.lower() for colour in colours]
    assert marked == [bool(c < low or c > high) for c in counts] and any(marked)
    assert "tau: p = " in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="no quantity 'sigma'; known are rho, tau"):
        plot_rank_histogram(calibration, "sigma")


def test_ecdf_difference_names_what_leaves_the_band(calibration):
    ax = draw(plot_ecdf_difference(calibration, key=jax.random.key(0), num_simulations=500))
    assert ax.get_title(loc="left") == "1 of 2 leave the 95% band"
    right, narrow = [line for line in ax.lines if len(line.get_xdata()) == 63]
    expected = np.asarray(calibration.ecdf_difference())
    np.testing.assert_allclose(right.get_ydata(), expected[:, 0])
    np.testing.assert_allclose(narrow.get_ydata(), expected[:, 1])
    assert right.get_color() == GREY and narrow.get_color() != GREY


def test_pit_histograms_are_densities_by_class():
    rng = np.random.default_rng(1)
    u = rng.uniform(size=(40, 6))
    u[:5, 2] = np.nan
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = plot_pit_by_class(u, CLASSES, figure=figure)
    draw(axes[0])
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["stock (155 cases)", "bond (80 cases)", "all (235 cases)"]
    for ax, part in zip(axes, (u[:, :4], u[:, 4:], u), strict=True):
        heights = [bar.get_height() for bar in ax.patches]
        expected, _ = np.histogram(part[~np.isnan(part)], 10, (0, 1), density=True)
        np.testing.assert_allclose(heights, expected)
    assert len(plot_pit_by_class(u)) == 1 and len(plot_pit_by_class(u, ("a",) * 6)) == 1


def test_coverage_by_class_shows_shares_and_targets():
    u = np.random.default_rng(2).uniform(size=(40, 6))
    table = calibration_by_class(u, CLASSES)
    ax = draw(plot_coverage_by_class(table))
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    for line, level in zip(dots, (50, 80, 95), strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * table[f"cover_{level}"])
    targets = {line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"}
    assert targets == {50.0, 80.0, 95.0}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["stock", "bond", "all"]
    with pytest.raises(ValueError, match="no column of coverage"):
        plot_coverage_by_class(table[["mean"]])


def test_reliability_dots_are_the_table():
    rng = np.random.default_rng(3)
    p = rng.uniform(size=(40, 6))
    table = reliability(p, (rng.uniform(size=p.shape) < p) * 1.0, num_bins=5)
    ax = draw(plot_reliability(table))
    dots = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(dots, table[["forecast", "frequency"]])
    assert to_hex(ax.collections[-1].get_facecolor()[0]) == BLUE.lower()
