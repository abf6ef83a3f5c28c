"""The command line that the studies of M6 share, and the settings that their folders keep."""

import argparse
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import pandas as pd

Settings = TypeVar("Settings")


def chosen(
    doc: str | None, full: Settings, quick: Settings, *, sources: Sequence[str] = ()
) -> Settings:
    """The settings that the command line asks for, in float64: `quick` or `full`, with what is
    given in place of theirs. `sources`: the data sets to choose from, where there are several."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="cheap forecasters, few draws")
    if sources:
        parser.add_argument("--data", choices=sources, help="the 100 assets of M6, or 20 stocks")
    parser.add_argument("--only", nargs="+", help="names of forecasters")
    parser.add_argument("--folder", help="the folder of real data")
    parser.add_argument("--out", help="the folder of the tables")
    parser.add_argument("--batch", action="store_true", default=None, help="for an accelerator")
    options = parser.parse_args()
    given = {k: v for k, v in vars(options).items() if k != "quick" and v is not None}
    if "only" in given:
        given["only"] = tuple(given["only"])
    jax.config.update("jax_enable_x64", True)
    return dataclasses.replace(quick if options.quick else full, **given)  # pyright: ignore


def checked_folder(config: Any, names: Iterable[str]) -> Path:
    """The folder of a run's tables, which holds its settings (`names` of `config`) from now on.

    **Raises:** `ValueError` if it holds those of others.
    """
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    own = json.loads(json.dumps({name: getattr(config, name) for name in names}))
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text()) != own:
        raise ValueError(f"{path} is of other settings than {own}; choose another --out.")
    path.write_text(json.dumps(own, indent=1) + "\n")
    return folder


def with_earlier(fresh: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rows of the table at `path` whose forecaster the fresh one lacks, and then the fresh ones.

    The scores of single origins stay on the machine that made them; results hold tables.
    """
    if not path.exists():
        return fresh
    earlier = pd.read_csv(path)
    kept = earlier[~earlier["forecaster"].isin(fresh["forecaster"])]
    return pd.concat([kept, fresh], ignore_index=True) if len(kept) else fresh
