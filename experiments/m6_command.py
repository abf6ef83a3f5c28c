"""The command line that the studies of M6 share."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import jax

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
