"""Hawkes processes of trades and of moves of the mid, fitted to recordings and looked through."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from experiments.order_books_data import NANOSECONDS, Recording
from jaxfc.microstructure import (
    FittedHawkes,
    HawkesLaw,
    fit_hawkes,
    hawkes_rows,
    simulate_hawkes,
)
from jaxfc.typing import Array, PRNGKeyArray

# Two processes of two types each.
PROCESSES = {"market orders": ("buy", "sell"), "mid moves": ("up", "down")}
# Events of one type that were received within so many seconds are one.
SAME_EVENT = 1e-3
# Share of the time whose events are fitted; the others judge the fit.
FITTED = 0.7
LAW_NAMES = {False: "Hawkes, one decay", True: "Hawkes, decays by pair"}
NUM_PATHS = 16
PADDING = 1024


def event_times(one: Recording, process: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the first known quote, and types, of market orders or moves of the mid."""
    valid = np.asarray(one.best.valid)
    start = int(one.quotes.time[int(np.argmax(valid))])
    if process == "market orders":
        clock, signs = one.log.time, np.sign(one.columns[0]["trade"])
    else:
        clock, signs = one.quotes.time, np.sign(np.nan_to_num(one.columns[1]["move"]))
    times, kinds = [], []
    for place, sign in enumerate((1, -1)):
        when = clock[(signs == sign) & (clock >= start)]
        first = np.diff(when, prepend=start - 2 * NANOSECONDS) > SAME_EVENT * NANOSECONDS
        times.append(when[first])
        kinds.append(np.full(int(first.sum()), place))
    time, kind = np.concatenate(times), np.concatenate(kinds)
    order = np.argsort(time, kind="stable")
    return (time[order] - start) / NANOSECONDS, kind[order]


jitted_rows = jax.jit(hawkes_rows)


@functools.partial(jax.jit, static_argnums=2)
def fitted_law(gap: Array, kind: Array, own_decays: bool) -> FittedHawkes:
    """The fit as one program; rows of kind -1 at the end are no events."""
    return fit_hawkes(gap, kind, num_types=2, own_decays=own_decays)


def hawkes_table(
    one: Recording, own_decays: tuple[bool, ...], *, key: PRNGKeyArray
) -> pd.DataFrame:
    """Both processes."""
    tables = [
        process_table(*event_times(one, process), own_decays, key=key).assign(process=process)
        for process in PROCESSES
    ]
    return pd.concat(tables)


def process_table(
    times: np.ndarray, kinds: np.ndarray, own_decays: tuple[bool, ...], *, key: PRNGKeyArray
) -> pd.DataFrame:
    """Laws by type: events a second, Kolmogorov-Smirnov of the residuals of the rows fitted and of
    those after them, variance over mean of counts a second; and the log-likelihood an event.

    Without rate and dispersion where a law's events multiply without end.
    """
    gap, kind = jnp.asarray(np.diff(times, prepend=0.0)), jnp.asarray(kinds.astype(np.int32))
    fitted = times <= FITTED * times[-1]
    num = int(fitted.sum())
    counts = jnp.asarray(np.bincount(kinds[fitted], minlength=2) / times[num - 1])
    laws = {"Poisson": HawkesLaw(counts, jnp.zeros((2, 2)), jnp.ones((2, 2)))}
    every, shown = filled(gap, kind), filled(gap[:num], kind[:num])
    for own in own_decays:
        laws[LAW_NAMES[own]] = fitted_law(*shown, own).law
    lines = recorded_lines(times, kinds)
    for name, law in laws.items():
        rows = jax.tree.map(lambda part: np.asarray(part)[: len(kinds)], jitted_rows(law, *every))
        residual = rows.residual
        each = rows.log_intensity - rows.integral
        reach = float(np.max(np.abs(np.linalg.eigvals(np.asarray(law.branching)))))
        line = {
            "law": name,
            "loglik": each[:num].mean(),
            "loglik after": each[num:].mean(),
            "largest branching": reach,
            "fastest decay": float(jnp.max(law.decay)) if reach else np.nan,
        }
        simulated = simulated_counts(law, times[-1], key=key) if reach < 1.0 else None
        for place in range(2):
            own = kinds == place
            tests = [stats.kstest(residual[own & part], "expon") for part in (fitted, ~fitted)]
            found = {} if simulated is None else counts_of(simulated[place])
            found |= {"ks": tests[0].statistic, "p": tests[0].pvalue}
            found |= {"ks after": tests[1].statistic, "p after": tests[1].pvalue}
            lines.append({**line, "type": place, **found})
    return pd.DataFrame(lines)


def filled(gap: Array, kind: Array) -> tuple[Array, Array]:
    """Rows that are no events at the end, so that recordings share a program."""
    missing = -len(gap) % PADDING
    return jnp.pad(gap, (0, missing)), jnp.pad(kind, (0, missing), constant_values=-1)


def counts_of(counts: np.ndarray) -> dict[str, float]:
    """Events a second, and the variance over the mean of their counts."""
    return {"rate": counts.mean(), "dispersion": counts.var() / counts.mean()}


def recorded_lines(times: np.ndarray, kinds: np.ndarray) -> list[dict]:
    """Rates and dispersion of what was recorded."""
    lines = []
    for place in range(2):
        counts = np.bincount(times[kinds == place].astype(int), minlength=int(times[-1]) + 1)[:-1]
        lines.append({"law": "recorded", "type": place, **counts_of(counts)})
    return lines


@functools.partial(jax.jit, static_argnums=1)
def simulated_paths(law: HawkesLaw, num_events: int, keys: Array):
    """Paths of one law."""
    return jax.vmap(lambda key: simulate_hawkes(law, num_events, key=key))(keys)


def simulated_counts(law: HawkesLaw, seconds: float, *, key: PRNGKeyArray) -> np.ndarray:
    """Events by type and second of several paths, after some time for the start to be forgotten."""
    total = float(jnp.sum(law.mean_intensity))
    # A power of two: one compiled program for laws of about one rate.
    num_events = 2 ** int(np.clip(np.ceil(np.log2(total * seconds)), 6, 12))
    paths = simulated_paths(law, num_events, jax.random.split(key, NUM_PATHS))
    times, kinds = np.cumsum(np.asarray(paths.gap), axis=1), np.asarray(paths.kind)
    columns = []
    for time, kind in zip(times, kinds, strict=True):
        last, first = int(time[-1]), int(time[-1]) // 4
        columns.append(
            np.stack(
                [
                    np.bincount(time[kind == place].astype(int), minlength=last + 1)[first:last]
                    for place in range(2)
                ]
            )
        )
    return np.concatenate(columns, axis=1)
