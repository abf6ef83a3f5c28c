"""Parts of the page on what a program costs: compilation, memory, growth, hot kernels."""

from collections.abc import Mapping

from comparisons import TOPICS
from page_results import sentence
from result_tables import Table, markdown, number, shown, span
from scaling_picture import Curve, picture

Tables = Mapping[str, Table]
PEAKS = ("matmul_gflop_per_s", "copy_gbyte_per_s")
# NVIDIA gives for the H100 SXM: float32 outside the tensor cores, HBM3.
H100_FLOPS, H100_BYTES = 67e12, 3.35e12
H100_SHEET = "https://www.nvidia.com/en-us/data-center/h100/"
# Two passes over 2500 rows in each of 20 EM steps: what `regimes_accelerator` ran in sequence.
ACCELERATOR_STAGES = 20 * 2 * 2500


def compiling(tables: Tables) -> list[str]:
    """Seconds of compilation by comparison."""
    rows = []
    for comparison in (one for topic in TOPICS.values() for one in topic):
        found = comparison.rows(tables)
        if found and comparison.compiling:
            seconds = span(number(row, comparison.compiling) for row in found)
            rows.append([sentence(comparison.title), seconds])
    return [
        "## Compilation",
        "",
        "CPU seconds of tracing and compiling, once for each shape (for reconciliation and "
        "instrumented PCA, of the first call). JAX's compilation cache keeps the result between "
        "processes.",
        "",
        *markdown(["program", "s"], rows),
        "",
    ]


def memory(tables: Tables) -> list[str]:
    """Largest resident sets and temporaries."""
    rows = []
    for row in tables["large"].rows if "large" in tables else []:
        size = row["size"].replace("x", " × ")
        rows.append([f"one fit of {size}", *resident(row, "rss_before_mib", "rss_after_mib")])
    for row in tables["study_memory"].rows if "study_memory" in tables else []:
        what = f"study of {row['paths']} paths, {row['batch']} side by side"
        rows.append([what, *resident(row, "rss_before_mib", "rss_peak_mib")])
    for row in tables["reconcile_memory"].rows if "reconcile_memory" in tables else []:
        what = f"reconciliation of {int(row['series']):,} series, shrunk covariance"
        rows.append([what, *resident(row, "peak_mib_before", "peak_mib")])
    return [
        "## Memory",
        "",
        "Largest resident set of a process, MiB, compiler included, and what it was before the "
        "call.",
        "",
        *markdown(["job", "before", "largest"], rows),
        "",
    ]


def resident(row: Mapping[str, str], before: str, largest: str) -> list[str]:
    """Both sizes, whole MiB."""
    return [f"{number(row, name):,.0f}" for name in (before, largest)]


SWEEPS = {
    "times": "times (T)",
    "series": "series (N)",
    "factors": "factors (K)",
}


def growth_curves(tables: Tables) -> dict[str, Curve]:
    """Sizes and times by what grows."""
    curves: dict[str, Curve] = {}
    for sweep, name in SWEEPS.items() if "scaling" in tables else []:
        rows = tables["scaling"].where(sweep=sweep)
        curves[name] = [(number(row, sweep), number(row, "ms")) for row in rows]
    if "study_growth" in tables:
        rows = tables["study_growth"].where(sweep="paths")
        curves["paths of a study"] = [(number(r, "size"), number(r, "seconds")) for r in rows]
    if "scaling_windows" in tables:
        rows = tables["scaling_windows"].rows
        curves["windows of a backtest"] = [(number(r, "windows"), number(r, "s")) for r in rows]
    return curves


def slopes(tables: Tables) -> dict[str, str]:
    """The slope of log time on log size, by what grows."""
    found = {}
    for sweep, name in SWEEPS.items() if "scaling" in tables else []:
        found[name] = tables["scaling"].where(sweep=sweep)[0]["slope"]
    if "study_growth" in tables:
        found["paths of a study"] = tables["study_growth"].where(sweep="paths")[0]["log_slope"]
    if "scaling_windows" in tables:
        found["windows of a backtest"] = tables["scaling_windows"].rows[0]["slope"]
    return found


def growth(tables: Tables) -> list[str]:
    """The picture of what more data cost, and its slopes."""
    curves, steep = growth_curves(tables), slopes(tables)
    if not curves:
        return []
    rows = [
        [
            name,
            f"{curve[0][0]:,.0f} to {curve[-1][0]:,.0f}",
            f"{shown(curve[0][1])} to {shown(curve[-1][1])} "
            f"{'ms' if name in SWEEPS.values() else 's'}",
            shown(float(steep[name])),
        ]
        for name, curve in curves.items()
    ]
    return [
        "## Growth",
        "",
        "One EM iteration (T, N, K), whole cells of a study, a whole backtest. A slope of 1 (the "
        "dashed line) is linear; a constant part of the cost pulls it below.",
        "",
        *picture(curves, "Time against size."),
        "",
        *markdown(["what grows", "sizes", "time", "slope"], rows),
        "",
    ]


def stage_seconds(tables: Tables) -> float:
    """Seconds of a dependent stage on the accelerator that was measured."""
    (row,) = tables["regimes_accelerator"].where(panels="1", implementation="sequential")
    return number(row, "wall_s") / ACCELERATOR_STAGES


def kernels(tables: Tables) -> list[str]:
    """Hot kernels: work, share of what this machine reaches, an H100 on paper."""
    if "kernels" not in tables:
        return []
    rows = tables["kernels"].rows
    peak, copy = (shown(number(rows[0], name)) for name in PEAKS)
    work = [
        [
            row["kernel"],
            row["size"],
            f"{shown(number(row, 'mflop'))} ({shown(number(row, 'xla_mflop'))})",
            f"{shown(number(row, 'mbyte'))} ({shown(number(row, 'xla_mbyte'))})",
        ]
        for row in rows
    ]
    measured = [
        [
            row["kernel"],
            shown(number(row, "ms")),
            percent(number(row, "share_of_flops")),
            percent(number(row, "share_of_bandwidth")),
            f"{1e6 * number(row, 'ms') / number(row, 'depth'):,.0f}",
        ]
        for row in rows
    ]
    return [
        "## Hot kernels against the machine",
        "",
        f"float64 on one core, which reaches {peak} Gflop/s in a library product of 768 × 768 "
        f"matrices and copies {copy} GB/s. Work is counted by hand: arithmetic, and bytes that "
        "have to move once. In brackets what XLA says of the compiled program: flops with the "
        "bodies of loops multiplied by how often they run, selections and comparisons among them; "
        "bytes that its operations read and write, with the bodies of loops once.",
        "",
        *markdown(["kernel", "size", "Mflop", "MB"], work),
        "",
        "A stage is a step of a loop that waits for the one before. What has no loop is one stage "
        "here, though it is a chain of a few operations.",
        "",
        *markdown(["kernel", "ms", "of the product", "of the copy", "ns a stage"], measured),
        "",
        *on_paper(tables),
    ]


def em_parts(tables: Tables) -> list[str]:
    """Parts of an EM iteration, by size."""
    if "roofline" not in tables:
        return []
    table = tables["roofline"]
    names = list(dict.fromkeys(row["part"] for row in table.rows))
    sizes = list(dict.fromkeys(row["size"] for row in table.rows))
    cells = [
        [name.replace("_", "-"), *(part_cell(table, size, name) for size in sizes)]
        for name in names
    ]
    peak, copy = (shown(number(tables["peaks"].rows[0], name)) for name in PEAKS)
    return [
        "### Parts of an EM iteration",
        "",
        "Compiled apart, ms, and the larger of the shares of product and copy "
        f"({peak} Gflop/s and {copy} GB/s in that run). Parts add up to more than the whole.",
        "",
        *markdown(["part", *(size.replace("x", " × ") for size in sizes)], cells),
        "",
    ]


def part_cell(table: Table, size: str, name: str) -> str:
    """Time of a part and the larger share."""
    (row,) = table.where(size=size, part=name)
    share = max(number(row, "share_of_flops"), number(row, "share_of_bandwidth"))
    time = shown(number(row, "ms"))
    return time if share != share else f"{time} ({percent(share)})"


def on_paper(tables: Tables) -> list[str]:
    """What an H100 could do at best, in float32."""
    if "regimes_accelerator" not in tables:
        return []
    stage = stage_seconds(tables)
    rows = []
    for row in tables["kernels"].rows:
        times = {
            "arithmetic": 1e6 * number(row, "mflop") / H100_FLOPS,
            "memory": 0.5e6 * number(row, "mbyte") / H100_BYTES,
            "stages": stage * number(row, "depth"),
        }
        bound = max(times, key=lambda name: times[name])
        rows.append([row["kernel"], *(shown(1e6 * t) for t in times.values()), bound])
    return [
        f"On paper, an H100 ([NVIDIA]({H100_SHEET}): 67 TFLOP/s in float32, 3.35 TB/s) would "
        "take these microseconds for one problem, in float32; stages at the "
        f"{shown(1e6 * stage)} µs that one took on an H200 (`regimes_accelerator`).",
        "",
        *markdown(["kernel", "arithmetic", "memory", "stages", "bound by"], rows),
        "",
        "One problem leaves such a device idle: what counts there is how many problems run side by "
        "side while the stages pass, or an engine with fewer stages.",
        "",
    ]


def percent(share: float) -> str:
    """A share with two digits."""
    return f"{100 * share:.2g} %"
