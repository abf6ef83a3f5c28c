"""Vintages on one calendar with one list of series, so that their arrays stack."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxfc.calendar import calendar_between, day_at
from jaxfc.panel import Panel
from jaxfc.panel_checks import quoted

ON_CHANGE = ("error", "revise")


def aligned(panels: Sequence[Panel], labels: Sequence[str]) -> list[Panel]:
    """The panels on the calendar that spans them all, with the series that any of them has.

    Cells that a panel does not have are not observed in it. Series stand in the order of the last
    panel, those that it lacks after them. `labels` name the panels in errors.

    **Raises:** `ValueError` naming the series and the panels if base calendars, kinds or
    frequencies of a series differ, or only some panels are transformed.
    """
    check_calendars(panels, labels)
    names = list(dict.fromkeys(name for panel in reversed(panels) for name in panel.names))
    source = {name: panel for panel in panels for name in panel.names}
    check_series_agree(panels, labels, source)
    index = spanning_index(panels)
    return [placed(panel, index, names, source) for panel in panels]


def check_calendars(panels: Sequence[Panel], labels: Sequence[str]) -> None:
    """One base frequency, and all or none transformed."""
    for panel, label in zip(panels, labels, strict=True):
        if panel.frequency != panels[-1].frequency:
            raise ValueError(
                f"{label} has a base calendar of frequency {panel.frequency!r}, {labels[-1]} of "
                f"{panels[-1].frequency!r}; vintages share one: pass frequency=... ."
            )
        if (panel.levels is None) != (panels[-1].levels is None):
            raise ValueError(
                f"of {label} and {labels[-1]} one is transformed and one is not; transform all "
                "vintages or none, for example with VintageStore.map."
            )


def check_series_agree(
    panels: Sequence[Panel], labels: Sequence[str], source: Mapping[str, Panel]
) -> None:
    """A series has one kind and one frequency in all vintages."""
    for panel, label in zip(panels, labels, strict=True):
        for name, kind, own in zip(panel.names, panel.kinds, panel.frequencies, strict=True):
            other = source[name]
            place = other.names.index(name)
            if (kind, own) != (other.kinds[place], other.frequencies[place]):
                later = next(lab for p, lab in zip(panels, labels, strict=True) if p is other)
                raise ValueError(
                    f"series {name!r} is a {kind} at {own!r} in {label}, but a "
                    f"{other.kinds[place]} at {other.frequencies[place]!r} in {later}; fix its "
                    "frequency by passing frames by frequency, {'M': ..., 'Q': ...}, and its kind "
                    "by kinds=... ."
                )


def spanning_index(panels: Sequence[Panel]) -> pd.DatetimeIndex:
    """The calendar from the first to the last row of all panels."""
    if panels[0].frequency == "B":  # a trading calendar: the days that any vintage has
        days = np.unique(np.concatenate([panel.index.to_numpy() for panel in panels]))
        return pd.DatetimeIndex(days)
    first = min(day_at(panel.index, 0) for panel in panels)
    last = max(day_at(panel.index, -1) for panel in panels)
    return calendar_between(first, last, panels[0].frequency)


def placed(
    panel: Panel, index: pd.DatetimeIndex, names: list[str], source: Mapping[str, Panel]
) -> Panel:
    """One panel in a larger calendar and a longer list of series."""
    same_rows = len(index) == panel.num_times
    if same_rows and list(panel.names) == names:
        return panel
    rows = index.get_indexer(panel.index)
    columns = np.array([names.index(name) for name in panel.names])
    values = np.zeros((len(index), len(names)))
    observed = np.zeros(values.shape, bool)
    cells = np.ix_(rows, columns)
    values[cells], observed[cells] = panel.values, panel.observed
    where = [(source[name], source[name].names.index(name)) for name in names]
    has_units = any(other.units is not None for other, _ in where)
    units = tuple("" if other.units is None else other.units[i] for other, i in where)
    levels = None
    if panel.levels is not None:
        of_levels = {name: other.levels for name, other in source.items() if other.levels}
        levels = placed(panel.levels, index, names, of_levels)
    return Panel(
        values,
        observed,
        index,
        tuple(names),
        tuple(other.kinds[i] for other, i in where),
        tuple(other.frequencies[i] for other, i in where),
        panel.frequency,
        tuple(other.delays[i] for other, i in where),
        units if has_units else None,
        levels,
        tuple(other.transforms[i] for other, i in where) if panel.transforms else (),
    )


def renamed(panel: Panel, rename: Mapping[str, str], label: str) -> Panel:
    """The panel with some series under their new names."""
    names = tuple(rename.get(name, name) for name in panel.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{label} has series {quoted(twice)} twice after rename={dict(rename)!r}; rename only "
            "a series whose new name does not exist beside it."
        )
    levels = None if panel.levels is None else renamed(panel.levels, rename, label)
    return dataclasses.replace(panel, names=names, levels=levels)


def check_rename(rename: Mapping[str, str], known: Collection[str]) -> None:
    """Only series that some vintage has can be renamed."""
    unknown = [name for name in rename if name not in known]
    if unknown:
        raise ValueError(f"rename names series {quoted(unknown)}, which no vintage has.")


def check_on_change(on_change: str) -> None:
    """A known word."""
    if on_change not in ON_CHANGE:
        raise ValueError(f"on_change must be one of {ON_CHANGE}, got {on_change!r}.")


def check_no_series_lost(
    present: Sequence[Collection[str]], dates: pd.DatetimeIndex, on_change: str
) -> None:
    """No vintage lacks a series of the one before it, unless that is a revision by request."""
    check_on_change(on_change)
    if on_change == "revise":
        return
    for k in range(1, len(present)):
        lost = [name for name in present[k - 1] if name not in present[k]]
        if lost:
            gained = [name for name in present[k] if name not in present[k - 1]]
            hint = f" (it has {quoted(gained)} instead)" if gained else ""
            raise ValueError(
                f"the vintage of {dates[k]:%Y-%m-%d} has no series {quoted(lost)}, which the "
                f"vintage of {dates[k - 1]:%Y-%m-%d} has{hint}. If a series was renamed, pass "
                f"rename={{{lost[0]!r}: ...}}; if it was removed, on_change='revise' makes its "
                "cells unobserved from then on."
            )
