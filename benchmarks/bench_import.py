"""CPU seconds of `import jaxfc` against those of the packages that a user has imported anyway.

    python benchmarks/bench_import.py [--quick] [--save]

Table `import`: processes of their own in turn, the least CPU seconds (user and system) of each and
the median; ratios are to `import jax, equinox, pandas`. The interpreter's own start is in all of
them.
"""

import argparse
import resource
import statistics
import subprocess
import sys

from timing import report

STATEMENTS = {
    "python": "pass",
    "jax": "import jax",
    "jax, equinox, pandas": "import jax, equinox, pandas",
    "jaxfc": "import jaxfc",
}
BASE = "jax, equinox, pandas"


def child_seconds(statement: str) -> float:
    """CPU seconds of a process that does this and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def import_seconds(num_rounds: int) -> dict[str, list[float]]:
    """CPU seconds by statement, one round after the other; the first fills the caches of files."""
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(num_rounds + 1):
        for name, statement in STATEMENTS.items():
            spent = child_seconds(statement)
            if number:
                seconds[name].append(spent)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    seconds = import_seconds(3 if options.quick else 15)
    rows = [
        {
            "import": name,
            "least_s": min(found),
            "median_s": statistics.median(found),
            "least_ratio": min(found) / min(seconds[BASE]),
            "median_ratio": statistics.median(found) / statistics.median(seconds[BASE]),
        }
        for name, found in seconds.items()
    ]
    report("import", rows, "jaxfc", "equinox", "pandas", save=options.save)


if __name__ == "__main__":
    main()
