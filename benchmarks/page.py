"""Writes `docs/benchmarks.md` from the tables in `results/`, the only source of its figures.

    python benchmarks/page.py [--check]

`--check` writes nothing and fails if the page is not what the tables say.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from page_costs import compiling, em_parts, growth, kernels, memory
from page_ours import accelerators, answers, books, engines, importing, posterior
from page_results import faster, missed, slower, topics
from result_tables import Table, markdown, read_tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
Tables = Mapping[str, Table]
# Tables that a script writes and that are not in `results/` yet, with the command.
EXPECTED = {
    "state_space": "bench_state_space.py",
    "kernels": "bench_kernels.py",
    "scaling_windows": "bench_scaling.py --windows-only",
    "portfolio": "bench_portfolio.py",
    "portfolio_windows": "bench_portfolio.py",
    "ipca": "bench_ipca.py",
    "microstructure": "bench_microstructure.py",
    "m6": "bench_m6.py --peer DRAWS.npz",
}
HEADER = """\
# Benchmarks

<!-- Written by benchmarks/page.py from benchmarks/results; change those, not this page. -->

Ours against other packages in one process, calls in turn (A B A B), one thread. Times are CPU time
of warmed-up calls, the smallest of several medians; compilation stands apart. What differs is said
above a table. Jobs beside it on the machine moved ratios by up to a fifth. Sizes are series × times
× factors × lags. Why something is slow, and what was tried: `benchmarks/README.md`. To run it all
again: `make bench`.
"""


def machines(tables: Tables) -> list[str]:
    """Where and when each table was made, and with what."""
    rows = {}
    for table in tables.values():
        rows.setdefault(table.machine, []).append(table.name)
    cells = [
        [", ".join(names), machine.replace("; ", ", ")] for machine, names in sorted(rows.items())
    ]
    absent = [name for name in EXPECTED if name not in tables]
    lines = ["## Machines and versions", "", *markdown(["tables", "made on"], cells), ""]
    if absent:
        wanting = ", ".join(f"`{name}` (`{EXPECTED[name]}`)" for name in absent)
        lines += [f"Not measured yet: {wanting}.", ""]
    return lines


def page(tables: Tables) -> str:
    """The text of the page."""
    parts = (
        slower,
        missed,
        faster,
        answers,
        topics,
        posterior,
        engines,
        books,
        accelerators,
        compiling,
        importing,
        memory,
        growth,
        kernels,
        em_parts,
        machines,
    )
    lines = [HEADER, *(line for part in parts for line in part(tables))]
    return "\n".join(lines)


def main() -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    text = page(read_tables())
    if not parser.parse_args().check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is not what the tables say; run python benchmarks/page.py")


if __name__ == "__main__":
    main()
