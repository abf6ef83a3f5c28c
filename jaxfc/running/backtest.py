"""Backtests: every origin estimated on what had been published, one compiled program, resumable."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.calendar import day_at
from jaxfc.counts import check_counts
from jaxfc.model import Model
from jaxfc.panel import Panel
from jaxfc.panel_checks import DelayLike, check_known, checked_delays
from jaxfc.running.backtest_result import Backtest
from jaxfc.running.describe import describe
from jaxfc.running.engines import Engine, Local
from jaxfc.running.origins import Origins
from jaxfc.running.progress import follow
from jaxfc.running.store import ResultStore
from jaxfc.running.study import check_key, facts
from jaxfc.running.window_chunks import WindowJob, computed
from jaxfc.running.windows import WindowFit, stack_windows
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Int, PRNGKeyArray


def backtest(
    model: Model,
    panel: Panel,
    origins: Origins,
    horizon: int = 1,
    *,
    delays: Mapping[str, DelayLike] | DelayLike | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    store: str | Path | None = None,
    engine: Engine | None = None,
    progress: bool | None = None,
    key: PRNGKeyArray | None = None,
) -> Backtest:
    """Estimate `model` anew at the origins on what a forecaster had there, and forecast from it.

    At an origin only what had been published by the end of its row is observed (`panel.as_of`), so
    a delayed series ends earlier than the others. Aggregates whose periods the window cuts are not
    observed either. All windows have one shape and run side by side in one program, `batch_size`
    of them at a time: origin i gives what `model.fit` on its window alone gives. With a `key`,
    origin i uses `fold_in(key, i)` for estimation and forecast.

    **Arguments:** `origins`: `Rolling(...)` or `Expanding(...)`. `delays` replaces the panel's
    publication delays, of all series or of those named, e.g. `{"GDP": "30D"}`. `batch_size`:
    windows side by side (default: as many as fit into `memory_budget` bytes, see `replicate`).
    `store`: a folder into which every chunk is written when it is done; a rerun goes on from there,
    and other options are refused. Several processes may run the same backtest on the same folder;
    they share the work. `engine`: `Local()` (default), or `Ray()`: tasks of `batch_size` windows
    (default 32), each on one CPU or GPU of a cluster; the bits of `Local()` with that `batch_size`
    on the same kind of device. `progress`: a bar on stderr (default: on a terminal).

    **Raises:** `ValueError` if the panel is too short, or the model refuses a window (for example
    a series without any observation in it), `store` belongs to another backtest, or a batch of
    `batch_size` needs more than `memory_budget`; `RuntimeError` that names the origins of a task
    that failed or was lost on a cluster. Failed estimations do not raise, see `Backtest.okay`.
    """
    check_counts(horizon=horizon, batch_size=1 if batch_size is None else batch_size)
    if key is not None:
        check_key(key)
    if delays is not None:
        panel = with_delays(panel, delays)
    rows = origins.rows(panel.index, horizon)
    given, model = model, in_precision_of_jax(model.resolved(panel))
    windows = stack_windows(model, panel, rows, origins, key)
    impl = None if key is None else str(jax.random.key_impl(key))
    dates = panel.index[rows]
    job = WindowJob(model, windows, horizon, impl, batch_size, memory_budget, dates)
    engine = engine or Local()
    job, answers = job.sized(engine)
    kept = None
    if store is not None:
        # Parts are numbered by chunk, so a store belongs to one size of chunks (batch size times
        # devices).
        described = config_of(given, panel, origins, horizon, key)
        size = {"windows_per_chunk": job.size * origins.refit}
        kept = ResultStore(store, described | size, facts())
    with follow("backtest", len(windows.values), 1, progress) as bar:
        fits = computed(job, answers, engine, kept, bar)
    return labelled(fits, given, panel, rows, horizon)


def with_delays(panel: Panel, delays: Mapping[str, DelayLike] | DelayLike) -> Panel:
    """The panel with other publication delays, of all series or of those that are named."""
    if isinstance(delays, Mapping):
        check_known(delays, panel.names, "delays")
        delays = dict(zip(panel.names, panel.delays, strict=True)) | dict(delays)
    return dataclasses.replace(
        panel, delays=checked_delays(delays, panel.names, day_at(panel.index, 0))
    )


def labelled(
    fits: WindowFit, model: Model, panel: Panel, rows: Int[np.ndarray, " origins"], horizon: int
) -> Backtest:
    """Answers with dates, names, and what happened."""
    targets = rows[:, None] + np.arange(1, horizon + 1)
    alone = np.array(
        [
            frequency == panel.frequency or kind == "stock"
            for frequency, kind in zip(panel.frequencies, panel.kinds, strict=True)
        ]
    )
    realised = np.where(panel.observed[targets] & alone, panel.values[targets], np.nan)
    names = model.forecast_names(panel.names)
    columns = [panel.names.index(name) for name in names]
    forecast, result = jax.tree.map(jnp.asarray, (fits.forecast, fits.result))
    return Backtest(
        forecast=forecast,
        result=result,
        num_steps=np.asarray(fits.num_steps),
        loglik=np.asarray(fits.loglik),
        details={name: np.asarray(values) for name, values in fits.details.items()},
        origins=panel.index[rows],
        dates=panel.index.to_numpy()[targets],
        names=names,
        realised=realised[:, :, columns],
        series=panel.names,
    )


def config_of(
    model: Model,
    panel: Panel,
    origins: Origins,
    horizon: int,
    key: PRNGKeyArray | None,
) -> dict[str, Any]:
    """All that the results depend on, as JSON values; the panel by its checksum."""
    digest = hashlib.sha256()
    for array in (panel.values, panel.observed, panel.index.to_numpy().astype(np.int64)):
        digest.update(np.ascontiguousarray(array).tobytes())
    fields = {name: str(value) for name, value in vars(origins).items()}
    return {
        "model": describe(model),
        "panel": digest.hexdigest(),
        "names": list(panel.names),
        "kinds": list(panel.kinds),
        "frequencies": list(panel.frequencies),
        "delays": [str(delay) for delay in panel.delays],
        "origins": {"kind": type(origins).__name__, **fields},
        "horizon": horizon,
        "dtype": str(jnp.result_type(float)),
        "key": None if key is None else np.asarray(jax.random.key_data(key)).tolist(),
    }
