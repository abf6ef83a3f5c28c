"""Parts of the page on ours alone: equal answers, engines, batches, accelerators, simulators."""

from collections.abc import Mapping

from result_tables import Table, markdown, number, shown

Tables = Mapping[str, Table]
# What was compared before it was timed, and the columns of the differences.
DIFFERENCES = (
    ("log-likelihood at the peer's parameters, EM", "em_likelihood", "same_point"),
    ("parameters after one EM iteration from there", "em_likelihood", "one_step"),
    ("log-likelihood with AR(1) errors", "ar_likelihood", "difference"),
    ("moments of the factors, dynamax", "smoother", "largest_error"),
    ("impacts and totals of news, statsmodels", "news", "difference"),
    ("log-likelihood of a hidden Markov model, dynamax", "regimes", "loglik_gap"),
    (
        "reconciled means, relative, hierarchicalforecast",
        "reconcile_arrays",
        "largest_relative_gap",
    ),
    ("nowcasts of the tracker, percentage points, nowcastbox", "tracker", "peer_gap"),
    ("portfolio weights, skfolio", "portfolio", "largest_gap"),
    ("loadings of instrumented PCA, ipca", "ipca", "gap"),
)


def answers(tables: Tables) -> list[str]:
    """The largest differences from peers."""
    rows = [
        [what, f"{max(number(row, column) for row in tables[name].rows):.1g}"]
        for what, name, column in DIFFERENCES
        if name in tables
    ]
    return [
        "## Same answers",
        "",
        "The largest difference in any case. WLS and MinT differ from hierarchicalforecast by the "
        "small number that it adds to variances; the tracker's models stop at other points of a "
        "flat likelihood. Volatility fits are compared in the tests, not here.",
        "",
        *markdown(["what", "largest difference"], rows),
        "",
    ]


def engines(tables: Tables) -> list[str]:
    """Engines of the closed form against each other, batches against loops."""
    lines = ["## Engines and batches", ""]
    if "engines" in tables:
        table = tables["engines"]
        names = list(dict.fromkeys(row["engine"] for row in table.rows))
        sizes = list(dict.fromkeys(row["size"] for row in table.rows))
        cells = [
            [
                size.replace("x", " × "),
                *(shown(number(row, "moments_ms")) for row in table.where(size=size)),
            ]
            for size in sizes
        ]
        columns = ["size", *(f"{name.replace('_', ' ')}, ms" for name in names)]
        lines += [
            "Moments of the factors on one core by engine. The parallel engines do more work in "
            "fewer stages, which a core cannot use.",
            "",
            *markdown(columns, cells),
            "",
        ]
    if "study_loop" in tables:
        cells = [
            [
                f"{row['series']} series, {row['batch']} paths",
                shown(number(row, "loop_ms")),
                f"{shown(number(row, 'batch_ms'))} ({shown(number(row, 'loop_over_batch'))}×)",
            ]
            for row in tables["study_loop"].rows
        ]
        lines += [
            "Paths of a study in one batch against a loop over the compiled fit, CPU time a path.",
            "",
            *markdown(["case", "loop, ms", "batch, ms"], cells),
            "",
        ]
    return lines


def accelerators(tables: Tables) -> list[str]:
    """Seconds on the clock on a GPU, ours alone."""
    cells = []
    for row in tables["regimes_accelerator"].rows if "regimes_accelerator" in tables else []:
        what = f"20 EM steps of {row['panels']} regime panels, {row['implementation']}"
        cells.append([what, row["device"], shown(number(row, "wall_s"))])
    for row in tables["reconcile_accelerator"].rows if "reconcile_accelerator" in tables else []:
        what = f"reconciliation, {row['origins']} origins × {row['series']}, {row['method']}"
        cells.append([what, row["device"], shown(number(row, "wall_s"))])
    for row in tables["backtest_accelerator"].rows if "backtest_accelerator" in tables else []:
        what = f"backtest of {row['windows']} windows"
        cells.append([what, row["device"], shown(number(row, "second_wall_s"))])
    return [
        "## On a GPU",
        "",
        "Seconds on the clock of a warmed-up call, ours alone.",
        "",
        *markdown(["what", "device", "s"], cells),
        "",
    ]


def draws_over_pymc(tables: Tables) -> float | None:
    """Effective draws a CPU second of the default over those of PyMC."""
    rows = tables["m6"].rows if "m6" in tables else []
    theirs = [number(row, "ess_per_cpu_s") for row in rows if row["variant"].startswith("PyMC")]
    return number(rows[0], "ess_per_cpu_s") / theirs[0] if theirs else None


def posterior(tables: Tables) -> list[str]:
    """Effective draws of the M6 model's posterior beside PyMC's."""
    if "m6" not in tables:
        return []
    rows = tables["m6"].rows
    cells = [
        [
            row["variant"].replace(" x ", " × "),
            shown(number(row, "cpu_s")),
            shown(number(row, "min_ess")),
            f"{number(row, 'max_rhat'):.3f}",
            shown(number(row, "ess_per_cpu_s")),
        ]
        for row in rows
    ]
    ratio = draws_over_pymc(tables)
    over = "" if ratio is None else f" The first row has {shown(ratio)} times those of PyMC."
    return [
        "## The M6 model",
        "",
        "100 assets, 234 rows, 7 factors: effective draws a CPU second, compilation counted, of "
        f"the quantity with the fewest.{over} Draws of `MeanFieldNormal` are independent, but "
        "of an approximation.",
        "",
        *markdown(["how", "CPU s", "effective", "R-hat", "a CPU s"], cells),
        "",
    ]


def books(tables: Tables) -> list[str]:
    """Events per second of the simulators."""
    if "microstructure" not in tables:
        return []
    table = tables["microstructure"]
    names = list(dict.fromkeys(row["simulator"] for row in table.rows))
    counts = list(dict.fromkeys(row["books"] for row in table.rows))
    cells = [
        [
            name.replace("_", " "),
            *(shown(number(r, "million_events_per_cpu_s")) for r in table.where(simulator=name)),
        ]
        for name in names
    ]
    return [
        "## Order books",
        "",
        "Million events a CPU second by number of books, float32, all events written out.",
        "",
        *markdown(["simulator", *counts], cells),
        "",
    ]


def importing(tables: Tables) -> list[str]:
    """What `import jaxfc` costs."""
    if "import" not in tables:
        return []
    cells = [
        [f"`{row['import']}`", shown(number(row, "median_s")), shown(number(row, "median_ratio"))]
        for row in tables["import"].rows
    ]
    return [
        "## Import",
        "",
        "Median CPU seconds of a process, and its ratio to importing jax, equinox and pandas.",
        "",
        *markdown(["import", "s", "ratio"], cells),
        "",
    ]
