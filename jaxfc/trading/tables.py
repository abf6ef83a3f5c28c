"""Paths of strategies as data frames."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfc.evaluation.performance_table import performance_table
from jaxfc.trading.wealth import WealthPath


def paths_frame(paths: Mapping[str, WealthPath], dates: Any, field: str = "log_returns"):
    """One field of several paths as a data frame, dates x names.

    `dates` are those of the steps; for `wealth` the first entry (before the first step) is left
    out.

    **Raises:** `ValueError` for an unknown field or another number of dates.
    """
    import pandas as pd

    if field not in WealthPath.__dataclass_fields__:
        raise ValueError(f"a path has {sorted(WealthPath.__dataclass_fields__)}, not {field!r}.")
    table = {name: np.asarray(getattr(path, field)) for name, path in paths.items()}
    if field == "wealth":
        table = {name: wealth[1:] for name, wealth in table.items()}
    lengths = {len(column) for column in table.values()}
    if lengths != {len(dates)}:
        raise ValueError(f"{len(dates)} dates for paths of {sorted(lengths)} steps; give one each.")
    return pd.DataFrame(table, index=pd.DatetimeIndex(dates))


def strategy_table(paths: Mapping[str, WealthPath], **options):
    """The performance of every path, with its mean exposure and turnover, one row per strategy.

    `options` are those of `jaxfc.evaluation.performance_table`, such as `periods_per_year` and
    bootstrap `indices`.
    """
    return performance_table(
        {name: path.log_returns for name, path in paths.items()},
        exposures={name: path.exposure for name, path in paths.items()},
        turnovers={name: path.turnover for name, path in paths.items()},
        **options,
    )
