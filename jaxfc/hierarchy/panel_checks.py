"""What a panel must satisfy before models of sectors are estimated: refusals name the culprit."""

from typing import TYPE_CHECKING

import numpy as np

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.typing import Array, PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def check_horizon(horizon: int, key: PRNGKeyArray | None) -> None:
    """Raise `ValueError` for a horizon below 1 or a key that would not be used."""
    check_counts(horizon=horizon)
    if key is not None:
        raise ValueError(
            "this forecast has a closed form and takes no key; draw from it by .sample(n, key=key)."
        )


def check_sectors(panel: "Panel", sectors: Array, num_sectors: int, num_factors: int = 0) -> None:
    """Raise `ValueError` unless assets have sectors, sectors assets, and factors vary (host side).

    The last `num_factors` series of the panel are factors.
    """
    refuse_sums(panel.aggregation, "this model")
    names = panel.names[: len(panel.names) - num_factors]
    members = np.asarray(sectors)
    if len(members) != len(names):
        raise ValueError(
            f"sectors has {len(members)} entries for {len(names)} assets ({len(panel.names)} "
            f"series less {num_factors} factors); give one sector an asset, in panel order."
        )
    outside = [name for name, s in zip(names, members, strict=True) if not 0 <= s < num_sectors]
    if outside:
        raise ValueError(
            f"the sectors of {outside} are not among 0 to {num_sectors - 1}; number sectors from 0 "
            "or raise num_sectors."
        )
    empty = sorted(set(range(num_sectors)) - set(members.tolist()))
    if empty:
        raise ValueError(f"sectors {empty} have no asset; number only those that have.")
    if not panel.observed[:, : len(names)].any():
        raise ValueError("no return of the panel is observed.")
    factors = panel.values[:, len(names) :]
    complete = panel.observed[:, len(names) :].all(axis=1)
    if complete.sum() < num_factors + 2:
        raise ValueError(
            f"factors {list(panel.names[len(names) :])} have {complete.sum()} rows in common; at "
            f"least {num_factors + 2} are needed. Drop the one that starts last."
        )
    for place, name in enumerate(panel.names[len(names) :]):
        seen = factors[complete, place]
        if np.ptp(seen) <= 1e-12 * np.max(np.abs(seen)):
            raise ValueError(f"factor {name!r} is constant; alphas have their own column, drop it.")
