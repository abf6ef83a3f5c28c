"""Commands as functions, figures, tables and the HTML reports.

The names below are loaded with matplotlib when they are first used. Figures return axes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxfc.report.backtest import write_backtest_report
    from jaxfc.report.calibration_figures import (
        plot_coverage_by_class,
        plot_ecdf_difference,
        plot_pit_by_class,
        plot_rank_histogram,
        plot_reliability,
    )
    from jaxfc.report.diagnostic_figures import (
        plot_missing,
        plot_residual_acf,
        plot_residual_histogram,
        plot_residual_panel,
        plot_residual_path,
        plot_residual_qq,
    )
    from jaxfc.report.figures import (
        plot_criteria,
        plot_factor_overlay,
        plot_r_squared,
        plot_r_squared_bars,
        plot_scree,
    )
    from jaxfc.report.nowcast_figures import (
        plot_contribution_history,
        plot_fan_chart,
        plot_news_waterfall,
        plot_nowcast_evolution,
    )
    from jaxfc.report.study import write_study_report
    from jaxfc.report.study_tables import latex_table, pivot_table

__all__ = [
    "latex_table",
    "pivot_table",
    "plot_contribution_history",
    "plot_coverage_by_class",
    "plot_criteria",
    "plot_ecdf_difference",
    "plot_factor_overlay",
    "plot_fan_chart",
    "plot_missing",
    "plot_news_waterfall",
    "plot_nowcast_evolution",
    "plot_pit_by_class",
    "plot_r_squared",
    "plot_r_squared_bars",
    "plot_rank_histogram",
    "plot_reliability",
    "plot_residual_acf",
    "plot_residual_histogram",
    "plot_residual_panel",
    "plot_residual_path",
    "plot_residual_qq",
    "plot_scree",
    "write_backtest_report",
    "write_study_report",
]


def __getattr__(name: str):
    """A name from its file, on first use: `import jaxfc.report` does not load matplotlib."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxfc.report import (
        backtest,
        calibration_figures,
        diagnostic_figures,
        figures,
        nowcast_figures,
        study,
    )
    from jaxfc.report import study_tables as tables

    rooms = (figures, nowcast_figures, diagnostic_figures, study, tables, backtest)
    rooms += (calibration_figures,)
    return next(getattr(room, name) for room in rooms if hasattr(room, name))
