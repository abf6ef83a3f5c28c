"""Speeds that were asked for before the work, and whether the tables of `results/` have them."""

from collections.abc import Mapping
from typing import NamedTuple

from result_tables import Table, number


class Asked(NamedTuple):
    """A figure that was asked for: at least `least`, or at most `most`."""

    what: str
    table: str
    only: Mapping[str, str]
    column: str
    least: float | None = None
    most: float | None = None

    def found(self, tables: Mapping[str, Table]) -> list[float]:
        """The figures, one a row that it is asked of."""
        if self.table not in tables:
            return []
        return [number(row, self.column) for row in tables[self.table].where(**self.only)]

    def is_met(self, value: float) -> bool:
        """Whether a figure is what was asked for."""
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


SIZES = ("35x100x2x1", "100x250x3x2", "100x500x5x2")
# Effective draws of the M6 model a CPU second, times PyMC's: a quotient of two rows.
DRAWS_ASKED = 50
HMC = {"variant": "default, PooledHMC"}

ASKED = (
    *(
        Asked("EM iteration over statsmodels", "em_iteration", {"size": s}, "statsmodels_ratio", n)
        for s, n in zip(SIZES, (25, 100, 80), strict=True)
    ),
    *(
        Asked("EM iteration over nowcastbox", "em_iteration", {"size": s}, "nowcastbox_ratio", n)
        for s, n in zip(SIZES, (25, 35, 12), strict=True)
    ),
    Asked("64 small panels in one batch, ms", "batch", {"size": SIZES[0]}, "batch_ms", most=60),
    Asked("moments over dynamax", "smoother", {}, "dynamax_ratio", 3),
    *(
        Asked("AR(1) errors over statsmodels", "ar_iteration", {"size": s}, "statsmodels_ratio", n)
        for s, n in zip(SIZES, (20, 150, 150), strict=True)
    ),
    *(
        Asked("AR(1) errors over nowcastbox", "ar_iteration", {"size": s}, "nowcastbox_ratio", n)
        for s, n in zip(SIZES, (25, 80, 60), strict=True)
    ),
    Asked(
        "news over statsmodels' `apply` and `news`",
        "news",
        {"call": "consecutive_news", "kept": "cells"},
        "vintage_ratio",
        100,
    ),
    Asked("tracker of 120 vintages, s", "tracker", {}, "total_s", most=180),
    Asked("paths of a study over statsmodels", "study_cell", {}, "statsmodels_over_fits", 100),
    Asked("paths of a study over nowcastbox", "study_cell", {}, "nowcastbox_over_fits", 50),
    Asked("paths of a study over our own loop", "study_loop", {}, "loop_over_batch", 3),
    Asked("window of a backtest over statsmodels' fits", "backtest", {}, "fits_over_ours", 30),
    Asked("527 windows of a backtest, s", "backtest", {}, "all_527_s", most=600),
    Asked("one GARCH over arch", "garch", {"series": "1"}, "arch_over_ours", 1),
    Asked("one GARCH over multigarch", "garch", {"series": "1"}, "multigarch_over_ours", 0.33),
    Asked("1000 GARCH over arch", "garch", {"series": "1000"}, "arch_over_ours", 3),
    *(
        Asked("DCC of 20 and 50 over multiarch and pymgarch", "dcc", {"series": n}, column, 1)
        for n in ("20", "50")
        for column in ("multiarch_over_ours", "pymgarch_over_ours")
    ),
    Asked(
        "DCC errors over multiarch, 20 series",
        "dcc",
        {"series": "20"},
        "errors_multiarch_over_ours",
        5,
    ),
    Asked("rolling DCC over multigarch", "rolling", {}, "multigarch_over_ours", 5),
    *(
        Asked(
            f"reconciliation, {method}, {size} series",
            "reconcile_arrays",
            {"series": size, "method": method},
            "ratio",
            least,
        )
        for size, method, least in (
            ("1000", "ols", 20),
            ("1000", "wls_var", 20),
            ("1000", "mint_shrink", 10),
            ("5000", "ols", 40),
            ("5000", "wls_var", 40),
            ("5000", "mint_shrink", 40),
        )
    ),
    Asked("reconciliation at 250 origins", "reconcile_origins", {}, "ratio", 50),
    Asked("100,000 series, MiB at most", "reconcile_memory", {}, "peak_mib", most=4096),
    Asked(
        "step of a hidden Markov model over dynamax, 12 series",
        "regimes",
        {"series": "12"},
        "step_ratio",
        5,
    ),
    Asked("posterior of the M6 model, s on the clock", "m6", HMC, "wall_s", most=180),
    Asked("posterior of the M6 model, effective draws", "m6", HMC, "min_ess", 400),
    Asked("posterior of the M6 model, R-hat", "m6", HMC, "max_rhat", most=1.01),
    Asked(
        "million book events a second, 1024 books",
        "microstructure",
        {"simulator": "zero_intelligence", "books": "1024"},
        "million_events_per_wall_s",
        1,
    ),
    Asked("training step of a recursive network over PyTorch", "recursive", {}, "ratio", 1),
    Asked("forecast of one window, ms", "recursive_inference", {}, "one_ms", most=1),
    Asked("forecasts of 1000 windows over one by one", "recursive_inference", {}, "gain", 20),
    Asked(
        "`import jaxfc` over jax, equinox, pandas",
        "import",
        {"import": "jaxfc"},
        "median_ratio",
        most=1.5,
    ),
)
