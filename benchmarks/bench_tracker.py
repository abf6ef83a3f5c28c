"""A real-time exercise with FRED-MD and GDP, every vintage re-estimated, against nowcastbox.

    python benchmarks/bench_tracker.py [--quick] [--save]

Needs the extra `peers`. Pseudo real-time vintages of FRED-MD (117 monthly series and quarterly
GDP, from 1985 on, float64) at the ends of the last 120 months, by typical publication delays. At
each one the model (4 factors, 2 lags; errors independent or AR(1)) is estimated by EM to a relative
tolerance of 1e-6 of the log-likelihood (at most 500 steps), the growth of GDP in the current
quarter is nowcast with its standard deviation, and the change since the vintage before is split
into news by series and re-estimation. `start`: every estimation from principal components (cold),
or from where the one before ended (warm).

Times are wall-clock seconds on all cores of the process: `total_s` of the first call of `track`
with tracing and compilation, `run_s` of a second call. `steps`: EM steps over all vintages;
`failed`: estimations that did not end well. nowcastbox: `nowcast_tracker(refit=True)` through
`peer_vintages` vintages of one quarter, same panel, sizes and tolerance, from principal components,
after a warm-up; `peer_steps` its EM steps there. `peer_s` is *extrapolated*: its time per vintage
times the number of vintages; `ratio` = peer_s / total_s. `peer_gap`: largest difference of both
nowcasts at those vintages, in percentage points of growth. `cold_gap` and `cold_loglik`: largest
difference of the nowcasts to those of the cold start, and the mean log-likelihood less that of the
cold start. `load`: mean number of running processes over the minute before, other jobs included.
"""

import argparse
import os
import time
import warnings

import jax
import numpy as np
import pandas as pd
from nowcastbox.models import MixedFreqDFM
from nowcastbox.news import nowcast_tracker
from timing import report

from jaxfc.datasets import fred_md_gdp
from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.factors.errors import AutoregressiveErrors, IndependentErrors
from jaxfc.panel import Panel
from jaxfc.running.tracker import Track, track
from jaxfc.vintages import VintageStore, pseudo_vintages

TARGET = "GDPC1"
NUM_LAGS = 2
TOLERANCE = 1e-6
MAX_STEPS = 500
ERRORS = {"independent": IndependentErrors(), "AR(1)": AutoregressiveErrors()}
PEER_ERRORS = {"independent": "iid", "AR(1)": "ar1"}
PEER_DATES = pd.to_datetime(["2026-04-30", "2026-05-31", "2026-06-30"])
PEER_PERIOD = "2026Q2"


def peer_tracker(panel: Panel, num_factors: int, errors: str, dates: pd.DatetimeIndex):
    """Their nowcasts at a few vintages of one quarter, wall seconds per vintage, and EM steps."""
    frame = panel.to_frame()
    frame.index = pd.PeriodIndex(frame.index, freq="M")
    model = MixedFreqDFM(
        n_factors=num_factors,
        factor_lags=NUM_LAGS,
        idiosyncratic=PEER_ERRORS[errors],
        max_iter=MAX_STEPS,
        tol=TOLERANCE,
    )
    delays = {
        name: pd.Timedelta(delay).days
        for name, delay in zip(panel.names, panel.delays, strict=True)
    }
    steps: list[int] = []
    counted = counting(model, steps)
    start = time.perf_counter()
    done = nowcast_tracker(
        counted, frame, delays, PEER_PERIOD, dates=list(dates), target=TARGET, refit=True
    )
    seconds = (time.perf_counter() - start) / len(dates)
    return done.nowcasts.to_numpy(), seconds, steps


def counting(model: MixedFreqDFM, steps: list[int]) -> MixedFreqDFM:
    """The estimator, which notes the EM steps of every fit of it and of its clones."""
    fit, clone = model.fit, model.clone

    def noted(*args, **options):
        fitted = fit(*args, **options)
        steps.append(int(fitted.n_iter))
        return fitted

    model.fit = noted  # pyright: ignore[reportAttributeAccessIssue]
    model.clone = lambda: counting(clone(), steps)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def ours(store: VintageStore, num_factors: int, errors: str, warm: bool):
    """The track, and wall seconds of the first and of a second call."""
    method = EM(rtol=TOLERANCE, max_steps=MAX_STEPS)
    model = DynamicFactorModel(num_factors, NUM_LAGS, method=method, errors=ERRORS[errors])
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        done = track(model, store, target=TARGET, warm=warm)
        seconds.append(time.perf_counter() - start)
    return done, *seconds


def rows_of(
    errors: str, store: VintageStore, panel: Panel, num_factors: int, dates: pd.DatetimeIndex
) -> list[dict]:
    """Cold and warm, and the peer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, per_vintage, steps = peer_tracker(panel, num_factors, errors, dates)
    tracks: dict[str, Track] = {}
    table = []
    for start in ("cold", "warm"):
        load = os.getloadavg()[0]
        done, total, run = ours(store, num_factors, errors, start == "warm")
        tracks[start] = done
        at_peer = done.to_frame()["nowcast"].loc[dates].to_numpy()
        both = done.okay & tracks["cold"].okay
        table.append(
            {
                "errors": errors,
                "start": start,
                "vintages": len(store),
                "total_s": total,
                "run_s": run,
                "steps": int(done.num_steps.sum()),
                "failed": done.num_failed,
                "peer_vintages": len(dates),
                "peer_steps": "+".join(map(str, steps)),
                "peer_s": per_vintage * len(store),
                "ratio": per_vintage * len(store) / total,
                "peer_gap": 100.0 * float(np.max(np.abs(at_peer - theirs))),
                "cold_gap": 100.0
                * float(np.max(np.abs(done.nowcasts - tracks["cold"].nowcasts)[both])),
                "cold_loglik": float(np.mean((done.loglik - tracks["cold"].loglik)[both])),
                "load": load,
            }
        )
    return table


def main() -> None:
    """All measurements."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few series and vintages")
    parser.add_argument("--save", action="store_true", help="write results/tracker.csv")
    options = parser.parse_args()
    panel, num_factors, num_vintages = fred_md_gdp().panel("1985-01-31"), 4, 120
    if options.quick:
        panel = panel.select([*panel.names[:12], TARGET]).window("2010-01-31")
        num_factors, num_vintages = 1, 6
    dates = pd.date_range(end="2026-07-31", periods=num_vintages, freq="ME")
    store = pseudo_vintages(panel, dates)
    # Their compiled loops are loaded before anything is timed.
    small = panel.select([*panel.names[:6], TARGET]).window("2010-01-31")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for errors in ERRORS:
            peer_tracker(small, 1, errors, PEER_DATES[-2:])
    table = [
        row for errors in ERRORS for row in rows_of(errors, store, panel, num_factors, PEER_DATES)
    ]
    report("tracker", table, "nowcastbox", save=options.save)


if __name__ == "__main__":
    main()
