"""A backtest as a TOML file: what `jaxfc backtest run` reads. Every error names file and key."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfc.model import Model
from jaxfc.panel import Panel
from jaxfc.report.backtest_models import DRAWN_BEYOND_ONE_STEP, MODELS, RULES
from jaxfc.report.backtest_options import MODEL, NEEDED, TABLES, TRANSFORMS
from jaxfc.report.file_options import (
    Option,
    choice,
    known_name,
    read_options,
    read_toml,
    shown_name,
    split_file,
)
from jaxfc.report.jobs import read_panel
from jaxfc.report.packaged_data import DATA_SETS
from jaxfc.running import Expanding, Rolling
from jaxfc.running.origins import Origins
from jaxfc.trading import Strategy
from jaxfc.transforms import transform
from jaxfc.typing import PRNGKeyArray

LARGEST_TYPICAL = 0.2  # of a log return a period; more looks like percent
Config = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class BacktestPlan:
    """What a file asks for. `config` has all its keys as JSON values, those left out with their
    defaults; `where` names the file in errors; `folder` is what files of data are relative to."""

    config: Config
    where: str
    folder: Path
    model: Model
    origins: Origins
    strategies: dict[str, Strategy] | None

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return self.config["backtest"]["horizon"]

    @property
    def key(self) -> PRNGKeyArray | None:
        """Of all draws; None for a model that makes none."""
        draws = MODELS[self.config["model"]["name"]].draws(self.config["model"])
        return jax.random.key(self.config["backtest"]["seed"]) if draws else None

    def paths(self) -> list[Path]:
        """The files of the data; none where they are packaged."""
        return [split_file(text, self.folder)[1] for text in self.config["data"]["files"] or []]

    def targets(self, panel: Panel) -> list[str]:
        """The series to score."""
        return self.config["data"]["targets"] or list(self.model.forecast_names(panel.names))

    def panel(self) -> Panel:
        """The data: read, selected, transformed, cut; checked for what can be said before a model
        sees them.

        **Raises:** `FileNotFoundError`, `ModuleNotFoundError`; `ValueError` that names file and
        key.
        """
        data = self.config["data"]
        place = f"{self.where}: [data]"
        named = data["kinds"] or {}, data["delays"] or {}
        if data["dataset"] is not None:
            panel = DATA_SETS[data["dataset"]].load().panel()
        else:
            files = [split_file(text, self.folder) for text in data["files"]]
            panel = read_panel(files, kinds=named[0], delays=named[1], fredmd=data["fredmd"])
        for key in ("series", "targets"):
            for name in data[key] or []:
                known_name(name, panel.names, f"{place} {key}")
        try:
            if data["series"] is not None:
                panel = panel.select(data["series"])
            if data["transform"] != "none":
                changed = transform(panel, TRANSFORMS[data["transform"]])
                assert isinstance(changed, Panel)
                panel = changed.window(int(np.argmax(changed.observed.any(axis=1))))
            panel = panel.window(data["start"], data["end"])
        except ValueError as error:
            raise ValueError(f"{place} {error}") from error
        self.check(panel)
        return panel

    def check(self, panel: Panel) -> None:
        """Raise `ValueError` for targets that no row of the panel realises, and for returns that
        are none where they are traded."""
        place = f"{self.where}: [data] targets"
        targets = self.targets(panel)
        for name in targets:
            known_name(name, panel.names, place)
            i = panel.names.index(name)
            if panel.frequencies[i] != panel.frequency and panel.kinds[i] != "stock":
                raise ValueError(
                    f"{place}: {name!r} is a {panel.kinds[i]} of frequency {panel.frequencies[i]}, "
                    f"which no row of the panel ({panel.frequency}) realises by itself; name the "
                    "series to score."
                )
        if "trading" not in self.config:
            return
        i = panel.names.index(targets[0])
        size = self.config["trading"]["scale"] * np.abs(panel.values[panel.observed[:, i], i])
        if np.median(size) > LARGEST_TYPICAL:
            raise ValueError(
                f"{self.where}: [trading] scale: half of the values of {targets[0]!r} are beyond "
                f"{np.median(size):.3g} in size after it, which log returns a period are not; use "
                "0.01 for percent, or leave the table [trading] out."
            )


def read_backtest_file(path: Path) -> BacktestPlan:
    """The backtest that a file describes; its data are not read yet.

    **Raises:** `FileNotFoundError`; `ValueError` naming file and key for everything that is
    missing, unknown or not allowed.
    """
    content = read_toml(path, "`jaxfc backtest init` writes one")
    return plan_of(content, str(path), path.resolve().parent)


def plan_of(content: Mapping[str, Any], where: str, folder: Path) -> BacktestPlan:
    """The backtest of tables that are read; as `read_backtest_file`."""
    for name in content:
        known_name(name, TABLES, f"{where}: the table [{shown_name(name)}]")
    for name in NEEDED:
        if name not in content:
            raise ValueError(f"{where}: the table [{name}] is missing.")
    found: Config = {}
    for name, options in TABLES.items():
        place = f"{where}: [{name}]"
        if name == "model":
            found[name] = read_model(content[name], place)
        elif name in content or name != "trading":
            found[name] = read_options(content.get(name, {}), options, place)
    check_together(found, where)
    try:
        model, origins = make_model(found), make_origins(found["backtest"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    given = found.get("trading", {}).get("strategies")
    strategies = None if given is None else read_strategies(given, f"{where}: [trading]")
    return BacktestPlan(found, where, folder, model, origins, strategies)


def read_model(table: Any, place: str) -> dict[str, Any]:
    """The table [model]: the name, and the options of the model of that name."""
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or name not in MODELS:
        only = {"name": table["name"]} if isinstance(table, dict) and "name" in table else {}
        return read_options(only if isinstance(table, dict) else table, MODEL, place)
    return read_options(table, {**MODEL, **MODELS[name].options}, place)


def check_together(config: Config, where: str) -> None:
    """Raise `ValueError` for keys that are allowed each by itself and not together."""
    data, model, how = config["data"], config["model"], config["backtest"]
    if (data["dataset"] is None) == (data["files"] is None):
        raise ValueError(f"{where}: [data] needs one of dataset and files, and not both.")
    for key in ("kinds", "delays"):
        if data["dataset"] is not None and data[key] is not None:
            raise ValueError(f"{where}: [data] {key} belongs to files; a dataset has its own.")
    if data["dataset"] is not None and data["fredmd"]:
        raise ValueError(f"{where}: [data] fredmd belongs to files; a dataset has its own codes.")
    wanted = MODELS[model["name"]].num_targets
    if wanted is not None and len(data["targets"] or []) != wanted:
        raise ValueError(
            f"{where}: [data] targets must name {wanted} series, which {model['name']} forecasts."
        )
    if how["start"] is not None and how["num_origins"] is not None:
        raise ValueError(f"{where}: [backtest] takes start or num_origins, not both.")
    if model.get("method") == "two-step" and how["refit"] > 1:
        raise ValueError(
            f'{where}: [backtest] refit must be 1 with [model] method = "two-step", whose '
            "estimates cannot go on with other data."
        )
    drawn = model.get("variance") in DRAWN_BEYOND_ONE_STEP and not model["draws"]
    if drawn and how["horizon"] > 1:
        raise ValueError(
            f'{where}: [model] variance = "{model["variance"]}" beyond one step has no moments '
            "in closed form; set draws = true."
        )
    if "trading" in config and how["step"] != 1:
        raise ValueError(
            f"{where}: [trading] needs a forecast for every period: [backtest] step must be 1."
        )


def make_model(config: Config) -> Model:
    """The model of the table [model]."""
    options = config["model"]
    try:
        return MODELS[options["name"]].build(options, config["data"]["targets"] or [])
    except ValueError as error:
        raise ValueError(f"[model] {error}") from error


def make_origins(how: Mapping[str, Any]) -> Origins:
    """The origins of the table [backtest]."""
    kind = Rolling if how["origins"] == "rolling" else Expanding
    names = ("window", "step", "start", "num_origins", "refit")
    return kind(**{name: how[name] for name in names})


def read_strategies(table: Mapping[str, Any], place: str) -> dict[str, Strategy]:
    """The strategies of [trading.strategies] by name; ValueError for rules and numbers that are
    unknown, missing or not allowed."""
    found = {}
    for name, given in table.items():
        where = f"{place} strategies {shown_name(name)}"
        rule = Option(choice(*RULES), None, "which rule", needed=True)
        if not isinstance(given, dict) or not isinstance(given.get("rule"), str):
            only = {"rule": given["rule"]} if isinstance(given, dict) and "rule" in given else {}
            read_options(only if isinstance(given, dict) else given, {"rule": rule}, where)
        known_name(given["rule"], RULES, f"{where} rule")
        make, numbers, needed = RULES[given["rule"]]
        options = {n: Option(kind, None, "", needed=n in needed) for n, kind in numbers.items()}
        values = read_options(given, {"rule": rule, **options}, where)
        del values["rule"]
        found[name] = make(**{n: value for n, value in values.items() if value is not None})
    return found
