"""News of 1,000 vintages against the one before in one batched call; statsmodels one by one.

    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/bench_news.py [--quick] [--save]

Needs the extra `peers`. A monthly panel of the shape of the New York Fed's (205 months, 22 series,
of which 4 start two years late, 4 factors in one block, 1 lag, float64), simulated, at the same
parameters for both; `errors` are independent, or AR(1) as in the published model. Each vintage
brings the next two cells in order of time; in the rows with `revised` = 60 it also changes the last
six complete months of ten series. The target is one series two months ahead.

`ours_ms`: CPU time for a pair within one call for all pairs, 16 at a time, from data to weights,
news and revisions of all cells (`kept` = cells), or to impacts by series (series); `call` is
`news_batch`, which takes any pairs, or `consecutive_news`, which conditions on each vintage once.
`news_ms`: `DynamicFactorMQ.news` between two smoothed result objects. `vintage_ms`: the same with
the `apply` that smooths the new vintage, without which there is no news. statsmodels' times are
medians over the last `peer_pairs` pairs, nothing of theirs is run 1,000 times: ratios are per pair.
`difference`: the largest absolute difference of impacts and totals. Compilation is reported apart.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from panels import draw_panel
from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.consecutive_news import consecutive_news
from jaxfc.factors.errors import AutoregressiveErrors, IndependentErrors, longest_gap
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.news_arrays import NewsArrays, news_batch
from jaxfc.factors.scaling import Scaling

NUM_TIMES, NUM_SERIES, NUM_FACTORS, NUM_LAGS = 205, 22, 4, 1
NUM_RELEASES, NUM_REVISED_SERIES, NUM_REVISED_ROWS = 2, 10, 6
NUM_LATE_SERIES, NUM_LATE_ROWS = 4, 24
TARGET = 3
HORIZON = 2
NUM_PAIRS = 1000
NUM_PEER_PAIRS = 7
BATCH_SIZE = 16

Vintages = tuple[np.ndarray, np.ndarray]


def draw_vintages(num_pairs: int, revised: bool) -> Vintages:
    """Values and masks (vintages, time, series), the horizon included."""
    values, complete = draw_panel(NUM_SERIES, NUM_TIMES, NUM_FACTORS, NUM_LAGS, missing=0.0)
    complete[:NUM_LATE_ROWS, -NUM_LATE_SERIES:] = 0.0
    cells = np.flatnonzero(complete)
    num_cells = cells.size - NUM_RELEASES * np.arange(num_pairs, -1, -1)
    place = np.full(complete.size, cells.size)
    place[cells] = np.arange(cells.size)
    observed = (place < num_cells[:, None]).reshape(-1, NUM_TIMES, NUM_SERIES)
    changes = np.zeros(observed.shape)
    if revised:
        rng = np.random.default_rng(1)
        ends = cells[num_cells - 1] // NUM_SERIES
        for v in range(1, num_pairs + 1):
            recent = changes[v, ends[v] - NUM_REVISED_ROWS : ends[v], :NUM_REVISED_SERIES]
            recent[:] = 0.1 * rng.normal(size=recent.shape)
    vintages = (values + np.cumsum(changes, axis=0)) * observed
    pad = ((0, 0), (0, HORIZON), (0, 0))
    return np.pad(vintages, pad), np.pad(observed, pad)


def fit_ours(vintages: Vintages, memory: bool) -> FittedFactorModel:
    """A few EM steps on the last vintage; the panel is standardised already."""
    errors = IndependentErrors()
    if memory:
        longest = max(longest_gap(mask) for mask in vintages[1])
        errors = AutoregressiveErrors(longest_gap=longest)
    model = DynamicFactorModel(NUM_FACTORS, NUM_LAGS, method=EM(max_steps=10), errors=errors)
    values, observed = (jnp.asarray(array[-1, :NUM_TIMES]) for array in vintages)
    fitted = jax.jit(lambda *data: model.estimate(*data))(values, observed)
    unit = Scaling(jnp.zeros(NUM_SERIES), jnp.ones(NUM_SERIES))
    no_intercept = dataclasses.replace(fitted.parameters, intercept=jnp.zeros(NUM_SERIES))
    return dataclasses.replace(fitted, scaling=unit, parameters=no_intercept)


def frame(vintages: Vintages, number: int) -> pd.DataFrame:
    """One vintage as statsmodels takes it."""
    values, observed = (array[number, :NUM_TIMES] for array in vintages)
    index = pd.period_range("2000-01", periods=NUM_TIMES, freq="M")
    columns = [f"x{i}" for i in range(NUM_SERIES)]
    return pd.DataFrame(np.where(observed, values, np.nan), index=index, columns=columns)


class Statsmodels:
    """Their smoothed results of old vintages at our parameters."""

    def __init__(self, parameters: FactorParameters, table: pd.DataFrame):
        model = DynamicFactorMQ(
            table,
            factors=1,
            factor_multiplicities=NUM_FACTORS,  # one block: a joint VAR, not one per factor
            factor_orders=NUM_LAGS,
            idiosyncratic_ar1=parameters.idiosyncratic_ar is not None,
            standardize=False,
        )
        chol = np.linalg.cholesky(np.asarray(parameters.innovation_cov))
        numbers = [
            np.asarray(parameters.loadings).ravel(),
            np.asarray(parameters.transition).swapaxes(0, 1).ravel(),
            chol[np.tril_indices(NUM_FACTORS)],
        ]
        variances = np.asarray(parameters.idiosyncratic_cov)
        if parameters.idiosyncratic_ar is not None:
            ar = np.asarray(parameters.idiosyncratic_ar)
            numbers.append(ar)
            variances = (1.0 - ar**2) * variances  # theirs are those of the innovations
        numbers.append(variances)
        self.results = model.smooth(np.concatenate(numbers))

    def vintage(self, table: pd.DataFrame):
        """Smoothed results of another vintage."""
        return self.results.apply(table, retain_standardization=True)

    def news(self, old, new):
        """Their decomposition, detailed for all revisions as ours is."""
        return new.news(
            old,
            impact_date=f"{old.model._index[-1] + HORIZON}",
            impacted_variable=f"x{TARGET}",
            comparison_type="previous",
            revisions_details_start=True,
        )


def median_seconds(run, num_calls: int) -> float:
    """Median CPU seconds of `run(i)` for i = 0, 1, ..."""
    samples = []
    for i in range(num_calls):
        start = time.process_time()
        run(i)
        samples.append(time.process_time() - start)
    return statistics.median(samples)


def difference(theirs, ours: NewsArrays, pair: int) -> float:
    """Largest absolute difference of impacts by release, of the news and of the total."""
    pick = jax.tree.map(lambda array: np.asarray(array[pair]), ours)
    details = theirs.details_by_impact["impact"].to_numpy()
    released = np.asarray(pick.news_impacts)[np.asarray(pick.news) != 0]
    total = float(theirs.total_impacts.iloc[0, TARGET])
    revisions = float(theirs.revision_impacts.iloc[0, TARGET])
    gaps = [
        np.max(np.abs(np.sort(details) - np.sort(released))),
        abs(total - float(pick.new_nowcast - pick.old_nowcast)),
        abs(revisions - float(np.sum(pick.revision_impacts))),
    ]
    return float(max(gaps))


def by_series(arrays: NewsArrays) -> tuple[jax.Array, ...]:
    """Impacts summed over time, and both nowcasts."""
    sums = arrays.news_impacts.sum(axis=0), arrays.revision_impacts.sum(axis=0)
    return (*sums, arrays.old_nowcast, arrays.new_nowcast)


def in_pairs(fitted, values, observed, *options, **keywords):
    """`news_batch` of every vintage and the one before."""
    pairs = (values[:-1], observed[:-1]), (values[1:], observed[1:])
    return news_batch(fitted, *pairs, *options, **keywords)


CALLS = {"news_batch": in_pairs, "consecutive_news": consecutive_news}


def measure(num_pairs: int, num_peer_pairs: int, memory: bool, revised: bool) -> list[dict]:
    """The rows of the table for one law of the errors, without or with revisions."""
    vintages = draw_vintages(num_pairs, revised)
    fitted = fit_ours(vintages, memory)
    rows = jnp.full(num_pairs, NUM_TIMES + HORIZON - 1)
    weights = jnp.zeros(NUM_SERIES).at[TARGET].set(1.0)
    last = range(num_pairs - num_peer_pairs, num_pairs + 1)
    tables = [frame(vintages, v) for v in last]
    peer = Statsmodels(fitted.parameters, tables[0])
    theirs = [peer.vintage(table) for table in tables]
    alone = median_seconds(lambda i: peer.news(theirs[i], theirs[i + 1]), num_peer_pairs)
    whole = median_seconds(
        lambda i: peer.news(theirs[i], peer.vintage(tables[i + 1])), num_peer_pairs
    )
    arrays = tuple(map(jnp.asarray, vintages))
    table, gap = [], 0.0
    for call, kept in itertools.product(CALLS, ("cells", "series")):
        summary = by_series if kept == "series" else None

        def run(values, observed, call=call, summary=summary):
            return CALLS[call](
                fitted, values, observed, rows, weights, summary=summary, batch_size=BATCH_SIZE
            )

        compiled, seconds = compile_seconds(run, *arrays)
        times = cpu_seconds({"ours": lambda f=compiled: f(*arrays)}, num_samples=3, num_rounds=2)
        ours = times["ours"] / num_pairs
        if summary is None:
            answers = compiled(*arrays)
            pairs = [(i, last[i]) for i in range(2)]
            gap = max(
                difference(peer.news(theirs[i], theirs[i + 1]), answers, pair) for i, pair in pairs
            )
        table.append(
            {
                "errors": "AR(1)" if memory else "independent",
                "revised": 60 if revised else 0,
                "call": call,
                "kept": kept,
                "pairs": num_pairs,
                "compile_s": seconds,
                "ours_ms": 1e3 * ours,
                "peer_pairs": num_peer_pairs,
                "news_ms": 1e3 * alone,
                "vintage_ms": 1e3 * whole,
                "news_ratio": alone / ours,
                "vintage_ratio": whole / ours,
                "difference": gap,
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="News, ours against statsmodels")
    parser.add_argument("--quick", action="store_true", help="few pairs")
    parser.add_argument("--save", action="store_true", help="write results/news.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")  # statsmodels on its own index handling
    num_pairs, num_peers = (20, 2) if options.quick else (NUM_PAIRS, NUM_PEER_PAIRS)
    rows = [
        row
        for memory in (False, True)
        for revised in (False, True)
        for row in measure(num_pairs, num_peers, memory, revised)
    ]
    report("news", rows, "statsmodels", save=options.save)


if __name__ == "__main__":
    main()
