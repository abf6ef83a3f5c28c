"""Running a backtest that a file describes: results, tables and a manifest in one folder.

manifest.json    configuration, hash of the data, seed, versions, platform, precision, hashes
                 of the tables: all that a repetition needs
forecasts.csv    one row per origin, horizon and target: what was forecast and what happened
scores.csv       by target and horizon
strategies.csv, wealth.csv    where something is traded
backtest/        all of it, for `jaxfc.load_backtest`
store/           what a stopped run goes on from
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from jaxfc.panel import Panel
from jaxfc.report.backtest import write_backtest_report
from jaxfc.report.backtest_data import one_step
from jaxfc.report.backtest_file import BacktestPlan, plan_of
from jaxfc.report.backtest_strategies import measures, trade, why_not
from jaxfc.running import Backtest, backtest, load_backtest
from jaxfc.running.backtest import config_of
from jaxfc.running.describe import difference
from jaxfc.running.engines import Engine
from jaxfc.running.store import ResultStore
from jaxfc.serialisation import write_atomically

FORMAT = 1
KIND = "jaxfc backtest"
MANIFEST, FORECASTS, SCORES = "manifest.json", "forecasts.csv", "scores.csv"
STRATEGIES, WEALTH = "strategies.csv", "wealth.csv"
BACKTEST, STORE = "backtest", "store"
PACKAGES = ("jaxfc", "jax", "jaxlib", "equinox", "optimistix", "lineax", "numpy", "scipy", "pandas")


def run_backtest_plan(
    plan: BacktestPlan,
    folder: Path,
    *,
    earlier: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compute what `folder` does not hold yet, write tables and manifest; returns the manifest.

    Nothing is left behind by a run that is refused before its first window is computed. `earlier`:
    the manifest of a run whose data these have to be. `engine`: see `backtest`.

    **Raises:** `ValueError` for a folder of another backtest or of other things, and for whatever
    the data, the model or the origins refuse.
    """
    check_folder(folder)
    panel = plan.panel()
    manifest = begun(plan, panel)
    if earlier is not None:
        check_same_data(earlier["data"], manifest["data"], plan.where)
    check_manifest(folder, manifest)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_json(folder / MANIFEST, manifest)
        result = backtest(
            plan.model,
            panel,
            plan.origins,
            plan.horizon,
            batch_size=plan.config["backtest"]["batch_size"],
            store=folder / STORE,
            engine=engine,
            progress=progress,
            key=plan.key,
        )
    except BaseException as error:
        if is_new and not (folder / STORE).exists():
            (folder / MANIFEST).unlink(missing_ok=True)
            folder.rmdir()
        if type(error) is ValueError:
            raise ValueError(f"{plan.where}: {error}") from error
        raise
    result.save(folder / BACKTEST)
    hashes = {}
    for name, table in tables_of(plan, result).items():
        content = table.to_csv(index=False).encode()
        write_atomically(folder / name, content)
        hashes[name] = sha256(content)
    manifest |= {"num_failed": int((~result.okay).sum()), "results": hashes}
    write_json(folder / MANIFEST, manifest)
    return manifest


def tables_of(plan: BacktestPlan, result: Backtest) -> dict[str, pd.DataFrame]:
    """What is written as CSV, by file name."""
    how = plan.config["scores"]
    targets = plan.config["data"]["targets"] or list(result.names)
    frame = result.to_frame(quantiles=how["quantiles"])
    scores = result.scores(levels=how["levels"]).loc[targets].reset_index()
    chosen = [name for name in scores.columns[2:] if name.split(" ")[0] in how["measures"]]
    tables = {
        FORECASTS: frame[frame["series"].isin(targets)],
        SCORES: scores[["series", "horizon", *chosen]],
    }
    trading = plan.config.get("trading")
    if trading is None:
        return tables
    step = one_step(result, targets[0])
    reason = why_not(step, plan.strategies, trading["scale"])
    if reason:
        raise ValueError(f"{plan.where}: [trading] {reason}")
    rules = {name: trading[name] for name in ("cash_rate", "cost", "scale")}
    paths = trade(result, step, plan.strategies, **rules)
    table = measures(paths, trading["periods_per_year"])
    return tables | {STRATEGIES: table.reset_index(), WEALTH: paths.wealth().reset_index()}


def begun(plan: BacktestPlan, panel: Panel) -> dict[str, Any]:
    """The manifest of a run that has no results yet.

    **Raises:** `ValueError` if the panel is too short.
    """
    try:
        origins = plan.origins.rows(panel.index, plan.horizon)
    except ValueError as error:
        raise ValueError(f"{plan.where}: [backtest] {error}") from error
    described = config_of(plan.model, panel, plan.origins, plan.horizon, plan.key)
    return {
        "kind": KIND,
        "format": FORMAT,
        "configuration": plan.config,
        "folder": str(plan.folder),
        "data": {
            "panel": described["panel"],
            "num_series": panel.num_series,
            "num_times": panel.num_times,
            "first_date": f"{panel.index[0]:%Y-%m-%d}",
            "last_date": f"{panel.index[-1]:%Y-%m-%d}",
            "files": {path.name: sha256(path.read_bytes()) for path in plan.paths()},
        },
        "num_origins": len(origins),
        "seed": plan.config["backtest"]["seed"],
        "key": described["key"],
        "precision": described["dtype"],
        "software": {"python": platform.python_version(), **versions()},
        "platform": machine(),
        "num_failed": None,
        "results": None,
    }


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {name: version(name) for name in PACKAGES}


def machine() -> dict[str, Any]:
    """What bits depend on beside versions."""
    device = jax.devices()[0]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "backend": device.platform,
        "device": device.device_kind,
        "num_devices": jax.local_device_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def check_folder(folder: Path) -> None:
    """Raise `ValueError` for a file, and for a folder of other things."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; give another --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} holds other things and no {MANIFEST}; give another --out.")


def check_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `ValueError`, naming what differs, for the folder of another backtest."""
    if not (folder / MANIFEST).exists():
        return
    there = read_backtest_manifest(folder)
    for name in ("configuration", "data", "precision"):
        if there[name] != manifest[name]:
            place, theirs, ours = difference(there[name], manifest[name], name)
            raise ValueError(
                f"{folder} holds another backtest: {place} is {theirs!r} there and {ours!r} now; "
                "give another --out."
            )


def check_same_data(there: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise `ValueError` for data that are not those of an earlier run."""
    if there.get("panel") == now["panel"]:
        return
    files = there.get("files")
    known = files if isinstance(files, dict) else {}
    changed = [name for name, digest in now["files"].items() if known.get(name) != digest]
    raise ValueError(
        f"{where}: the data are not those of the run it describes"
        + (f" ({', '.join(changed)} changed)" if changed else "")
        + f": panel {str(there.get('panel'))[:12]} there, {now['panel'][:12]} now. Restore them to "
        "repeat it."
    )


def read_backtest_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a folder, or in a file.

    **Raises:** `FileNotFoundError`, `ValueError` for another file.
    """
    file = path / MANIFEST if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}; give the --out of a jaxfc backtest run.")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no manifest: {error}.") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"{file} is no manifest of a jaxfc backtest.")
    if content.get("format") != FORMAT:
        raise ValueError(f"{file} has format {content.get('format')!r}, this reads {FORMAT}.")
    shapes = {"configuration": dict, "data": dict, "folder": str, "num_origins": int}
    shapes |= {"software": dict, "platform": dict, "precision": str}
    for name, kind in shapes.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{file} is damaged: {name} is missing or of another type.")
    if not isinstance(content.get("results"), dict | None):
        raise ValueError(f"{file} is damaged: results is of another type.")
    return content


def repeat_plan(path: Path) -> tuple[BacktestPlan, dict[str, Any]]:
    """The backtest of a manifest, and the manifest.

    **Raises:** as `read_backtest_manifest` and `plan_of`.
    """
    manifest = read_backtest_manifest(path)
    return plan_of(manifest["configuration"], str(path), Path(manifest["folder"])), manifest


def compare(there: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between two runs: in data and results, and in software and platform."""
    found: dict[str, list[str]] = {}
    for name in ("data", "results", "precision", "software", "platform"):
        theirs, ours = there.get(name), now.get(name)
        if not isinstance(theirs, dict) or not isinstance(ours, dict):
            theirs, ours = {"": theirs}, {"": ours}
        found[name] = [
            f"{name} {key}: {theirs.get(key)} there, {ours.get(key)} now"
            for key in sorted({*theirs, *ours})
            if theirs.get(key) != ours.get(key)
        ]
    around = found["precision"] + found["software"] + found["platform"]
    return found["data"] + found["results"], around


def read_backtest_status(folder: Path) -> dict[str, Any]:
    """How far a run is, by its files alone.

    **Raises:** as `read_backtest_manifest`; `ValueError` for a damaged store.
    """
    manifest = read_backtest_manifest(folder)
    total, done = manifest["num_origins"], 0
    if (folder / STORE).is_dir():
        store = ResultStore(folder / STORE)
        size = store.config.get("windows_per_chunk")
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{folder / STORE} is no store of a backtest.")
        for _, chunk in store.done():
            done += max(0, min(size, total - chunk * size))
    return {
        "model": manifest["configuration"].get("model"),
        "num_origins": total,
        "num_origins_done": done,
        "num_failed": manifest.get("num_failed"),
        "is_complete": manifest.get("results") is not None,
        "results": sorted(manifest.get("results") or {}),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """All of the file or nothing."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def saved_backtest(folder: Path) -> Path:
    """Where `Backtest.save` wrote: the folder, or that within the folder of a run."""
    inner = folder / BACKTEST
    return inner if inner.is_dir() and (folder / MANIFEST).is_file() else folder


def write_run_report(folder: Path, out: Path, *, title: str | None, units: str) -> Path:
    """The page of a run that is complete, with the target, costs and strategies of its file.

    **Raises:** as `read_backtest_manifest` and `write_backtest_report`; `ValueError` for a run that
    is not complete.
    """
    plan, manifest = repeat_plan(folder)
    if manifest.get("results") is None:
        raise ValueError(f"{folder} is not complete; run it to its end first.")
    targets = plan.config["data"]["targets"]
    trading = plan.config.get("trading")
    names = ("cash_rate", "cost", "scale", "periods_per_year")
    return write_backtest_report(
        load_backtest(folder / BACKTEST),
        out,
        target=None if targets is None else targets[0],
        strategies={} if trading is None else plan.strategies,
        title=title,
        units=units,
        key=jax.random.key(plan.config["backtest"]["seed"]),
        **({} if trading is None else {name: trading[name] for name in names}),
    )
