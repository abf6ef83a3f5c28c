"""News between two vintages with names and dates: what was released and what it moved."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import Date
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.news_arrays import NewsArrays, native_expectation, news_arrays
from jaxfc.factors.panel_law import covering
from jaxfc.native_rows import own_periods, reaching, row_of_period
from jaxfc.panel_checks import check_known, quoted
from jaxfc.vintage_alignment import aligned

if TYPE_CHECKING:
    from jaxfc.panel import Panel
    from jaxfc.release_calendar import ReleaseCalendar

KINDS = ("news", "revision", "removal")
COLUMNS = ("kind", "period", "series", "observed", "forecast", "news", "weight", "impact")
jitted_news = eqx.filter_jit(news_arrays)
jitted_expectation = eqx.filter_jit(native_expectation)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class News:
    """Why a nowcast moved: releases, revisions and re-estimation, adding up to the difference.

    `arrays` are those of `news_arrays`, on the calendar of `new`; `target` the
    weights of the series in `row`. `new_nowcast` is that of the re-estimated model if there is one,
    and `reestimation_impact` what the new parameters change on the new vintage (0 without).
    """

    arrays: NewsArrays
    old: "Panel"
    new: "Panel"
    target: Mapping[str, float]
    row: int
    old_nowcast: float
    new_nowcast: float
    reestimation_impact: float

    def impacts(self) -> dict[str, np.ndarray]:
        """By kind ("news", "revision", "removal"): impact of every cell, (time, series)."""
        arrays = self.arrays
        every = (arrays.news_impacts, arrays.revision_impacts, arrays.removal_impacts)
        return {kind: np.asarray(array) for kind, array in zip(KINDS, every, strict=True)}

    def totals(self) -> dict[str, float]:
        """Sums of impacts by kind, re-estimation among them: what `summary` shows."""
        sums = {kind: float(array.sum()) for kind, array in self.impacts().items()}
        return {**sums, "re-estimation": self.reestimation_impact}

    def summary(self) -> pd.Series:
        """The old nowcast, the sum of every kind of impact, and the new nowcast."""
        new = {"new nowcast": self.new_nowcast}
        return pd.Series({"old nowcast": self.old_nowcast, **self.totals(), **new})

    def __repr__(self) -> str:
        target = " + ".join(f"{weight:g} {name}" for name, weight in self.target.items())
        kinds = ", ".join(f"{kind} {total:+.4g}" for kind, total in self.totals().items())
        return (
            f"News({target}, {self.new.index[self.row]:%Y-%m-%d}: {self.old_nowcast:.4g} -> "
            f"{self.new_nowcast:.4g}; {kinds})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row for each cell that took part; the column `impact` sums to the whole change.

        Columns: kind; period (last day, at the series' own frequency); series; observed (the value
        in the new vintage; of a removal the one that was lost); forecast (given the old vintage
        with its revisions; of a revision the old value); news (observed - forecast, of a removal
        the reverse); weight; impact. With a re-estimated model a last row without series holds its
        impact.
        """
        arrays, names, new = self.arrays, self.new.names, self.new
        both = self.old.observed & new.observed
        gone = self.old.observed & ~new.observed
        released = new.observed & ~self.old.observed
        revised = both & (np.asarray(arrays.revisions) != 0.0)
        masks = dict(zip(KINDS, (released, revised, gone), strict=True))
        surprises = (arrays.news, arrays.revisions, arrays.removals)
        weights = (arrays.weights, arrays.old_weights, arrays.old_weights)
        ends = period_table(new)
        parts = []
        for kind, surprise, weight in zip(KINDS, surprises, weights, strict=True):
            rows, columns = np.nonzero(masks[kind])
            if not len(rows):
                continue
            shift, weight = np.asarray(surprise)[rows, columns], np.asarray(weight)[rows, columns]
            value = (self.old if kind == "removal" else new).values[rows, columns]
            parts.append(
                pd.DataFrame(
                    {
                        "kind": kind,
                        "period": ends[rows, columns],
                        "series": [names[i] for i in columns],
                        "observed": value,
                        "forecast": value + shift if kind == "removal" else value - shift,
                        "news": shift,
                        "weight": weight,
                        "impact": weight * shift,
                    }
                )
            )
        if self.reestimation_impact:
            last = {"kind": ["re-estimation"], "period": [pd.NaT], "series": [""]}
            parts.append(pd.DataFrame({**last, "impact": [self.reestimation_impact]}))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)

    def by_series(self) -> pd.DataFrame:
        """Impacts summed by series, all series of the panel: columns news, revision, removal and
        their total."""
        sums = {kind: array.sum(axis=0) for kind, array in self.impacts().items()}
        table = pd.DataFrame(sums, index=pd.Index(self.new.names, name="series"))
        return table.assign(total=table.sum(axis=1))

    def by_group(self, groups: Mapping[str, str]) -> pd.DataFrame:
        """Impacts summed by block or category, `{series: group}`; columns as `by_series`.

        **Raises:** `ValueError` for series of the panel without a group, and unknown series.
        """
        check_known(groups, self.new.names, "groups")
        lacking = [name for name in self.new.names if name not in groups]
        if lacking:
            raise ValueError(f"series {quoted(lacking)} have no group; give every series one.")
        labels = list(dict.fromkeys(groups[name] for name in self.new.names))
        belongs = np.array([[groups[name] == label for name in self.new.names] for label in labels])
        by_series = self.by_series()
        sums = belongs.astype(float) @ by_series.to_numpy()
        return pd.DataFrame(sums, pd.Index(labels, name="group"), by_series.columns)

    def by_release_date(self, calendar: "ReleaseCalendar") -> pd.DataFrame:
        """News by the day on which the calendar says they came: how many, and their impact.

        Revisions, removals and re-estimation have no date in a release calendar and are left to
        `summary`. **Raises:** `ValueError` for a release that the calendar does not have.
        """
        rows, columns = np.nonzero(self.new.observed & ~self.old.observed)
        ends = pd.DatetimeIndex(period_table(self.new)[rows, columns])
        dates = calendar.dates_of([self.new.names[i] for i in columns], ends)
        days, place = np.unique(dates.to_numpy(), return_inverse=True)
        impacts = np.asarray(self.arrays.news_impacts)[rows, columns]
        return pd.DataFrame(
            {
                "num_releases": np.bincount(place, minlength=len(days)),
                "impact": np.bincount(place, weights=impacts, minlength=len(days)),
            },
            index=pd.DatetimeIndex(days, name="date"),
        )


def news(
    fitted: FittedFactorModel,
    old: "Panel",
    new: "Panel",
    *,
    target: str | Mapping[str, float],
    period: Date,
    removed: str = "error",
    refitted: FittedFactorModel | None = None,
) -> News:
    """Why the nowcast of `target` in `period` differs between two vintages.

        E[y | new] - E[y | old] = sum_j b_j (x_j - E[x_j | old]) + revisions + re-estimation

    Exact, and adds up to rounding. Values are in data units, sums and averages as their series
    report them: the news of a quarterly figure is the figure minus the forecast of the quarter. For
    many vintages at once see `consecutive_news`.

    **Arguments:** the vintages need not be equally long; they are put on one calendar. `target`: a
    series, or weights of several in the same row; `period`: any day of the target's own period,
    which may lie ahead. `removed="revise"`: values that the new vintage has no more are replaced by
    their forecasts, as impacts of their own. `refitted`: the model estimated on the new vintage.

    **Raises:** `ValueError` for vintages of other series than the model's, cells that vanish
    (unless `removed="revise"`), an unknown target, a period outside the calendar or not whole, and
    models with correlated errors (`idiosyncratic="full"`).

    Source: Banbura and Modugno (2014), section 2.3.
    """
    if removed not in ("error", "revise"):
        raise ValueError(f"removed must be 'error' or 'revise', got {removed!r}.")
    weights = {target: 1.0} if isinstance(target, str) else dict(target)
    if not weights:
        raise ValueError("target has no series; give a name or weights by series.")
    old, new = aligned([old, new], ["the old vintage", "the new vintage"])
    new = reaching(new, list(weights), period)
    old = old.extend(new.num_times - old.num_times)
    row = row_of_period(new, list(weights), period)
    gone = old.observed & ~new.observed
    if gone.any() and removed == "error":
        raise ValueError(vanished(old, gone))
    for model in (fitted,) if refitted is None else (fitted, refitted):
        check_panel_law(model, new)
        check_linear(model)
    masks = old.observed, new.observed, old.observed & new.observed
    fitted = covering(fitted, *masks)
    target_weights = jnp.asarray([float(weights.get(name, 0.0)) for name in new.names])
    arrays = jitted_news(
        fitted,
        *old.arrays(),
        *new.arrays(),
        jnp.asarray(row),
        target_weights,
        new.aggregation,
        removals=bool(gone.any()),
    )
    new_nowcast, reestimation = float(arrays.new_nowcast), 0.0
    if refitted is not None:
        refitted = covering(refitted, *masks)
        expected = jitted_expectation(refitted, *new.arrays(), new.aggregation)
        reestimation = float(expected[row] @ target_weights) - new_nowcast
        new_nowcast = float(expected[row] @ target_weights)
    return News(
        arrays=arrays,
        old=old,
        new=new,
        target=weights,
        row=row,
        old_nowcast=float(arrays.old_nowcast),
        new_nowcast=new_nowcast,
        reestimation_impact=reestimation,
    )


def check_panel_law(fitted: FittedFactorModel, panel: "Panel") -> None:
    """The panel has as many series as the model."""
    num_series = fitted.scaling.centre.shape[0]
    if panel.num_series != num_series:
        raise ValueError(
            f"the panel has {panel.num_series} series ({quoted(panel.names[:4])}, ...), the model "
            f"was fitted to {num_series}; give the same series in the same order: panel.select."
        )


def check_linear(fitted: FittedFactorModel) -> None:
    """Means are exactly linear in the data: no iterative solution on the way."""
    if fitted.model.idiosyncratic == "full":
        raise ValueError(
            "the model has correlated errors (idiosyncratic='full'), whose conditional means are "
            "iterative solutions, too rough to add up; fit with idiosyncratic='diagonal'."
        )


def vanished(old: "Panel", gone: np.ndarray) -> str:
    """An error text that names the cells that the new vintage has no more."""
    rows, columns = np.nonzero(gone)
    cells = [
        f"{old.names[i]!r} {old.index[row]:%Y-%m-%d}"
        for row, i in zip(rows[:4], columns[:4], strict=True)
    ]
    return (
        f"{len(rows)} values of the old vintage are not in the new one ({', '.join(cells)}"
        f"{', ...' if len(rows) > 4 else ''}); restore them, or pass removed='revise' to have the "
        "effect of losing them as a part of its own."
    )


def period_table(panel: "Panel") -> np.ndarray:
    """Last day of each series' own period at every row, (time, series)."""
    ends = own_periods(panel)
    return np.stack([ends[own].to_numpy() for own in panel.frequencies], axis=1)
