"""The tracker: a real-time exercise in which every vintage is estimated, nowcast and explained."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import Date, day_at, naive, period_end, shift_period
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.errors import AutoregressiveErrors, longest_gap
from jaxfc.factors.methods import EM
from jaxfc.factors.model import DynamicFactorModel
from jaxfc.factors.news import vanished
from jaxfc.factors.scaling import Scaling
from jaxfc.native_rows import reaching, row_of_period
from jaxfc.panel_checks import check_known, quoted
from jaxfc.results import RESULTS, is_okay
from jaxfc.running.tracker_arrays import Plan, Vintages, track_arrays
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Bool, Float, Int
from jaxfc.vintages import VintageStore

jitted_track = eqx.filter_jit(track_arrays)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Track:
    """Nowcasts through the vintages with what moved them; in the target's own units.

    `nowcasts`, `stds` and `periods` are one per vintage: the target's period (its last day), its
    mean given the vintage at the parameters of the vintage, and the standard deviation with these
    parameters taken as known (None for targets of several series or weighted errors). What explains
    vintage v against the one before stands at v - 1 of `previous` (the earlier vintage's nowcast of
    the same period), `revisions`, `removals`, `news` (pairs, series) and `reestimation`:

        nowcasts[v] = previous[v-1] + sum(revisions + removals + news)[v-1] + reestimation[v-1]

    `parameters` and `scaling` lead with the vintages. `okay` says which estimations ended well; the
    others are kept, marked, and not replaced.
    """

    dates: pd.DatetimeIndex
    periods: pd.DatetimeIndex
    target: Mapping[str, float]
    names: tuple[str, ...]
    nowcasts: Float[np.ndarray, " vintages"]
    stds: Float[np.ndarray, " vintages"] | None
    previous: Float[np.ndarray, " pairs"]
    revisions: Float[np.ndarray, "pairs series"]
    removals: Float[np.ndarray, "pairs series"]
    news: Float[np.ndarray, "pairs series"]
    reestimation: Float[np.ndarray, " pairs"]
    parameters: FactorParameters
    scaling: Scaling
    loglik: Float[np.ndarray, " vintages"]
    num_steps: Int[np.ndarray, " vintages"]
    result: RESULTS

    def __repr__(self) -> str:
        target = " + ".join(f"{weight:g} {name}" for name, weight in self.target.items())
        return (
            f"Track({target}; {len(self.dates)} vintages {self.dates[0]:%Y-%m-%d}.."
            f"{self.dates[-1]:%Y-%m-%d}, {self.num_failed} estimations failed)"
        )

    @property
    def okay(self) -> Bool[np.ndarray, " vintages"]:
        """Which estimations ended well."""
        return np.asarray(is_okay(self.result))

    @property
    def num_failed(self) -> int:
        """How many estimations did not end well."""
        return int(np.sum(~self.okay))

    def messages(self) -> list[str]:
        """The message of every vintage's result code, "" where all is well."""
        okay = self.okay
        codes = [jax.tree.map(lambda leaf, i=i: leaf[i], self.result) for i in range(len(okay))]
        return ["" if fine else str(RESULTS[code]) for fine, code in zip(okay, codes, strict=True)]

    def to_frame(self) -> pd.DataFrame:
        """One row per vintage, by date.

        Columns: period, nowcast, std, previous, then the parts of nowcast - previous: revisions,
        removals, news, re-estimation (all NaN in the first row, which has no vintage before it),
        and num_steps and result ("" where the estimation ended well, else its message).
        """
        stds = np.full(len(self.dates), np.nan) if self.stds is None else self.stds
        parts = {
            "previous": self.previous,
            "revisions": self.revisions.sum(axis=1),
            "removals": self.removals.sum(axis=1),
            "news": self.news.sum(axis=1),
            "re-estimation": self.reestimation,
        }
        columns = {"period": self.periods, "nowcast": self.nowcasts, "std": stds}
        columns |= {name: np.concatenate([[np.nan], part]) for name, part in parts.items()}
        columns |= {"num_steps": self.num_steps, "result": self.messages()}
        return pd.DataFrame(columns, index=self.dates.rename("date"))

    def news_by_series(self) -> pd.DataFrame:
        """What the releases of each series added to the nowcast, vintages (from the second) x
        series."""
        return pd.DataFrame(self.news, self.dates[1:].rename("date"), list(self.names))

    def news_by_group(self, groups: Mapping[str, str]) -> pd.DataFrame:
        """The same summed by block or category, `{series: group}`.

        **Raises:** `ValueError` for series of the panel without a group, and unknown series.
        """
        check_known(groups, self.names, "groups")
        lacking = [name for name in self.names if name not in groups]
        if lacking:
            raise ValueError(f"series {quoted(lacking)} have no group; give every series one.")
        labels = list(dict.fromkeys(groups[name] for name in self.names))
        belongs = np.array([[groups[name] == label for label in labels] for name in self.names])
        return pd.DataFrame(self.news @ belongs, self.dates[1:].rename("date"), labels)


def track(
    model: DynamicFactorModel,
    vintages: VintageStore,
    *,
    target: str | Mapping[str, float],
    ahead: int = 0,
    period: Date | None = None,
    warm: bool = True,
    removed: str = "error",
    batch_size: int | None = 1,
) -> Track:
    """Estimate `model` on every vintage, nowcast the target from each, and say what moved it.

        nowcast_v = nowcast_{v-1} + revisions + removals + news + re-estimation

    all for the period of vintage v, the first three at the parameters and in the units of vintage
    v-1. Estimations, nowcasts and news run in one compiled program, traced once for all vintages.

    **Arguments:** `vintages`: a store, real or from `pseudo_vintages`; calendars are extended as
    far as the target needs. `target`: a series, or weights of several in the same row. The period
    is the target's own that contains the date of the vintage, `ahead` periods later (-1: the one
    before), or the one that contains `period` for all vintages. `warm`: each estimation starts
    where the last one ended, which saves most iterations and gives the same answer up to the
    tolerance of EM; `warm=False`: from its own start, as `model.fit` does. `removed`: as in `news`.
    `batch_size`: vintages side by side (None: all), for `warm` only nowcasts and news are; one at a
    time is fastest on a CPU.

    **Returns:** `Track`. Failed estimations do not raise: see `Track.okay` and `Track.num_failed`.

    **Raises:** `ValueError` for fewer than two vintages, an unknown target, a period that is not
    whole in the calendar, `ahead` together with `period`, values that vanish (unless
    `removed="revise"`), a vintage that the model refuses, `warm` with a method that is not EM, and
    models with correlated errors (`idiosyncratic="full"`).

    Source: Banbura and Modugno (2014), section 2.3.
    """
    check_arguments(model, vintages, ahead, period, warm, removed)
    weights = {target: 1.0} if isinstance(target, str) else dict(target)
    check_known(weights, vintages.names, "the target")
    if not weights:
        raise ValueError("target has no series; give a name or weights by series.")
    days = target_days(vintages, list(weights), ahead, period)
    vintages = reaching_all(vintages, list(weights), max(days))
    rows = [row_of_period(vintages.panels[0], list(weights), day) for day in days]
    removals = check_removals(vintages, removed)
    model = in_precision_of_jax(resolved_for_all(model, vintages))
    column = None
    if len(weights) == 1 and model.weighting is None:
        column = vintages.names.index(next(iter(weights)))
    plan = Plan(warm, removals, column, longest_of_all(model, vintages, rows, column), batch_size)
    data = Vintages(*vintages.arrays(), jnp.asarray(rows))
    target_weights = jnp.asarray([float(weights.get(name, 0.0)) for name in vintages.names])
    done = jitted_track(model, data, target_weights, vintages.panels[0].aggregation, plan)
    return Track(
        dates=vintages.dates,
        periods=pd.DatetimeIndex(days),
        target=weights,
        names=vintages.names,
        nowcasts=np.asarray(done.nowcasts),
        stds=None if done.stds is None else np.asarray(done.stds),
        previous=np.asarray(done.previous),
        revisions=np.asarray(done.revisions),
        removals=np.asarray(done.removals),
        news=np.asarray(done.news),
        reestimation=np.asarray(done.reestimation),
        parameters=done.parameters,
        scaling=done.scaling,
        loglik=np.asarray(done.loglik),
        num_steps=np.asarray(done.num_steps),
        result=done.result,
    )


def check_arguments(
    model: DynamicFactorModel,
    vintages: VintageStore,
    ahead: int,
    period: Date | None,
    warm: bool,
    removed: str,
) -> None:
    """What can be said without looking at the data."""
    if len(vintages) < 2:
        raise ValueError("a tracker compares vintages and needs at least two, got 1.")
    if removed not in ("error", "revise"):
        raise ValueError(f"removed must be 'error' or 'revise', got {removed!r}.")
    if ahead and period is not None:
        raise ValueError("give ahead (a period that moves on) or period (a fixed one), not both.")
    if warm and not isinstance(model.method, EM):
        raise ValueError(
            f"{type(model.method).__name__}() cannot start where another estimation ended; pass "
            "warm=False, or use method=EM()."
        )
    if model.idiosyncratic == "full":
        raise ValueError(
            "the model has correlated errors (idiosyncratic='full'), whose conditional means are "
            "iterative solutions, too rough to add up; use idiosyncratic='diagonal'."
        )


def target_days(
    vintages: VintageStore, names: list[str], ahead: int, period: Date | None
) -> list[pd.Timestamp]:
    """Last day of the target's period for every vintage."""
    panel = vintages.panels[0]
    frequency = panel.frequencies[panel.names.index(names[0])]
    if period is not None:
        return [period_end(naive(period), frequency)] * len(vintages)
    return [
        shift_period(period_end(naive(day_at(vintages.dates, v)), frequency), frequency, ahead)
        for v in range(len(vintages))
    ]


def reaching_all(vintages: VintageStore, names: list[str], day: pd.Timestamp) -> VintageStore:
    """All vintages on a calendar in which the periods of `names` that contain `day` are over."""
    first = vintages.panels[0]
    return vintages.extend(reaching(first, names, day).num_times - first.num_times)


def check_removals(vintages: VintageStore, removed: str) -> bool:
    """Whether cells vanish from one vintage to the next; an error unless they may."""
    lost = False
    for date, (old, new) in zip(vintages.dates[1:], vintages.pairs(), strict=True):
        gone = old.observed & ~new.observed
        if gone.any() and removed == "error":
            raise ValueError(f"vintage of {date:%Y-%m-%d}: {vanished(old, gone)}")
        lost = lost or bool(gone.any())
    return lost


def resolved_for_all(model: DynamicFactorModel, vintages: VintageStore) -> DynamicFactorModel:
    """The model placed on the panels, with the longest memory that any vintage needs; every vintage
    is checked."""
    each = [model.resolved(panel) for panel in vintages.panels]
    for date, own, panel in zip(vintages.dates, each, vintages.panels, strict=True):
        try:
            own.check(panel)
        except ValueError as error:
            raise ValueError(f"the vintage of {date:%Y-%m-%d} cannot be estimated: {error}") from (
                error
            )
    return max(each, key=lambda own: getattr(own.errors, "longest_gap", None) or 0)


def longest_of_all(
    model: DynamicFactorModel, vintages: VintageStore, rows: list[int], column: int | None
) -> int | None:
    """The longest gap of any panel that is conditioned on; None for errors without memory."""
    errors = model.errors
    if not isinstance(errors, AutoregressiveErrors) or errors.longest_gap is None:
        return None
    flows = () if model.flows is None else model.flows.columns
    longest = errors.longest_gap
    panels = vintages.panels
    for v, row in enumerate(rows):
        masks = [panels[v].observed]
        if v and (panels[v - 1].observed & ~panels[v].observed).any():
            masks.append(panels[v - 1].observed & panels[v].observed)
        if column is not None and column not in flows:
            more = panels[v].observed.copy()
            more[row, column] = True
            masks.append(more)
        longest = max(longest, *(longest_gap(np.delete(mask, flows, axis=1)) for mask in masks))
    return longest
