"""Parts of the page that set us beside peers: losses first, then what was asked for, then all."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from comparison import Comparison, Peer
from comparisons import TOPICS
from page_ours import draws_over_pymc
from result_tables import Row, Table, markdown, number, shown, span
from targets import ASKED, DRAWS_ASKED, Asked

Tables = Mapping[str, Table]


class Ratio(NamedTuple):
    """One peer's time over ours in one case."""

    value: float
    comparison: Comparison
    case: str
    peer: str


def ratios(tables: Tables) -> Iterator[Ratio]:
    """All of them; where a peer was not run there is none."""
    for comparison in (one for topic in TOPICS.values() for one in topic):
        for row in comparison.rows(tables):
            for peer in comparison.peers:
                value = peer.ratio_in(row, number(row, comparison.ours))
                if value == value:
                    yield Ratio(value, comparison, comparison.named(row), peer.name)


def slower(tables: Tables) -> list[str]:
    """Every case in which a peer is faster, the worst first."""
    lost = sorted((one for one in ratios(tables) if one.value < 1.0), key=lambda one: one.value)
    rows = [
        [f"{one.comparison.title}: {one.case}", one.peer, f"**{shown(one.value)}**"] for one in lost
    ]
    every = sum(1 for _ in ratios(tables))
    lines = [
        "## Where we are slower",
        "",
        f"{len(lost)} of {every} cases. A speed of 0.5 means that the peer takes half our time.",
        "",
        *markdown(["what", "peer", "our speed"], rows),
        "",
    ]
    return [*lines, *own_losses(tables)]


def own_losses(tables: Tables) -> list[str]:
    """Where a batch of ours is slower than our own loop."""
    if "batch" not in tables:
        return []
    rows = [
        [
            row["size"].replace("x", " × "),
            shown(number(row, "batch_ms")),
            shown(number(row, "loop_ms")),
            shown(number(row, "loop_over_batch")),
        ]
        for row in tables["batch"].rows
    ]
    return [
        "Against ourselves: 64 panels fitted in one `vmap`, and in a loop over the compiled fit.",
        "",
        *markdown(["size", "batch, ms", "loop, ms", "batch's speed"], rows),
        "",
    ]


def missed(tables: Tables) -> list[str]:
    """Figures that were asked for and not reached."""
    rows, met, every = [], 0, 0
    for asked in ASKED:
        found = asked.found(tables)
        short = [value for value in found if not asked.is_met(value)]
        met, every = met + len(found) - len(short), every + len(found)
        if short:
            rows.append([described(asked), bound(asked), span(short)])
    draws = draws_over_pymc(tables)
    if draws is not None:
        every, met = every + 1, met + (draws >= DRAWS_ASKED)
        if draws < DRAWS_ASKED:
            what = "effective draws of the M6 model a CPU second over PyMC"
            rows.append([what, f"at least {DRAWS_ASKED}", shown(draws)])
    return [
        "## Asked for and missed",
        "",
        f"Speeds were asked for before the work began. {met} of {every} figures reach them; "
        "these do not:",
        "",
        *markdown(["what", "asked", "found"], rows),
        "",
    ]


def described(asked: Asked) -> str:
    """What was asked for, with its size."""
    size = asked.only.get("size")
    return asked.what if size is None else f"{asked.what}, {size.replace('x', ' × ')}"


def bound(asked: Asked) -> str:
    """At least, or at most."""
    if asked.least is not None:
        return f"at least {asked.least:g}"
    return f"at most {asked.most:g}"


def faster(tables: Tables) -> list[str]:
    """Ratios by peer."""
    by_peer = defaultdict(list)
    for one in ratios(tables):
        by_peer[package(one.peer)].append(one.value)
    rows = [
        [f"{name} ({len(v)})", *(shown(f(v)) for f in (min, statistics.median, max))]
        for name, v in sorted(by_peer.items())
    ]
    return [
        "## All cases by peer",
        "",
        "How many times as fast as the peer, in so many cases; compilation is not counted.",
        "",
        *markdown(["peer (cases)", "lowest", "median", "highest"], rows),
        "",
    ]


# Names of columns that leave the package out because the column before them has it.
SAME = {
    "`news` alone": "statsmodels",
    "fits and draws": "statsmodels",
    "its `fit_em` as called": "dynamax",
}


def package(peer: str) -> str:
    """The package of a peer's column."""
    return SAME.get(peer) or peer.split(",")[0].split(" ")[0]


def topics(tables: Tables) -> list[str]:
    """A table for each comparison that has been run."""
    lines: list[str] = []
    for name, comparisons in TOPICS.items():
        run = [one for one in comparisons if one.rows(tables)]
        if run:
            lines += [f"## {name}", ""]
        for comparison in run:
            lines += [f"### {sentence(comparison.title)}", "", *compared(comparison, tables), ""]
    return lines


def sentence(title: str) -> str:
    """With a capital, unless it begins with code."""
    return title[0].upper() + title[1:]


def compared(comparison: Comparison, tables: Tables) -> list[str]:
    """Our times, those of the peers, and in brackets how many times ours."""
    columns = [
        "case",
        f"jaxfc, {comparison.unit}",
        *(f"{peer.name}, {comparison.unit}" for peer in comparison.peers),
    ]
    rows = comparison.rows(tables)
    note = [comparison.noted(rows[0]), ""] if comparison.note else []
    return [*note, *markdown(columns, case_rows(comparison, rows))]


def case_rows(comparison: Comparison, rows: Iterable[Row]) -> Iterator[list[str]]:
    """One row of cells for each case."""
    for row in rows:
        ours = number(row, comparison.ours)
        yield [
            comparison.named(row),
            shown(ours),
            *(peer_cell(peer, row, ours) for peer in comparison.peers),
        ]


def peer_cell(peer: Peer, row: Row, ours: float) -> str:
    """A peer's time and the ratio; bold where it is faster."""
    ratio = peer.ratio_in(row, ours)
    if ratio != ratio:
        return "not run"
    times = f"{shown(ratio)}×"
    return f"{shown(peer.time_in(row, ours))} ({times if ratio >= 1.0 else f'**{times}**'})"
