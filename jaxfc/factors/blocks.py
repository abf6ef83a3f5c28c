"""Restrictions said by the names of series: factor blocks, and factors that are observed series."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxfc.factors.restrictions import Restrictions


class NamedRestrictions(abc.ABC):
    """Restrictions that need a panel's names to become positions."""

    @abc.abstractmethod
    def restrictions(self, names: Sequence[str], num_lags: int, num_factors: int) -> Restrictions:
        """The same by position, for a panel of series `names`."""


@dataclasses.dataclass(frozen=True)
class ObservedFactors(NamedRestrictions):
    """A factor-augmented VAR: the last factors of the model are the series `names` themselves.

    E.g. `ObservedFactors(("FEDFUNDS",))` with num_factors=4: three latent factors and the interest
    rate, one VAR for all of them, every other series loading on all (Bernanke, Boivin and Eliasz
    2005). Latent factors are determined up to an invertible transformation and up to multiples of
    the observed ones.
    """

    names: tuple[str, ...]

    def restrictions(self, names: Sequence[str], num_lags: int, num_factors: int) -> Restrictions:
        """Which series are which factors. **Raises:** `ValueError` for unknown or repeated series,
        or more of them than factors."""
        unknown = [name for name in self.names if name not in names]
        if unknown or len(set(self.names)) < len(self.names) or not self.names:
            raise ValueError(
                f"observed factors must be distinct series of the panel, got {self.names}"
                + (f"; it has no {', '.join(map(repr, unknown))}." if unknown else ".")
            )
        if len(self.names) > num_factors:
            raise ValueError(
                f"{len(self.names)} observed factors need num_factors of at least as many, got "
                f"{num_factors}."
            )
        first = num_factors - len(self.names)
        return Restrictions(
            observed_factors=tuple(
                (list(names).index(name), first + place) for place, name in enumerate(self.names)
            )
        )


@dataclasses.dataclass(frozen=True)
class Blocks(NamedRestrictions):
    """Factor blocks: which series load on which factors, each block with a VAR of its own.

    `members`: block -> names of its series (None: all series), e.g. `{"global": None, "real":
    [...], "labour": [...]}`; `num_factors`: factors of each block, one number for all or by block.
    The factors stand in the order of the blocks. With `separate` (the default, as in the Staff
    Nowcast of the New York Fed) transition and innovation covariance are block diagonal.
    """

    members: tuple[tuple[str, tuple[str, ...] | None], ...]
    num_factors: tuple[int, ...]
    separate: bool = True

    def __init__(
        self,
        members: Mapping[str, Sequence[str] | None],
        num_factors: int | Mapping[str, int] = 1,
        separate: bool = True,
    ):
        if isinstance(num_factors, Mapping):
            if set(num_factors) != set(members):
                odd = sorted(set(num_factors) ^ set(members))
                raise ValueError(f"num_factors and members name different blocks: {odd}.")
            counts = tuple(num_factors[block] for block in members)
        else:
            counts = (num_factors,) * len(members)
        if not members or min(counts) < 1:
            raise ValueError(f"each block needs one factor or more, got {counts}.")
        fixed = tuple((b, None if of is None else tuple(of)) for b, of in members.items())
        object.__setattr__(self, "members", fixed)
        object.__setattr__(self, "num_factors", counts)
        object.__setattr__(self, "separate", separate)

    @property
    def total(self) -> int:
        """Number of factors of all blocks."""
        return sum(self.num_factors)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """A name for each factor: the block, numbered where it has several."""
        return tuple(
            block if count == 1 else f"{block} {i + 1}"
            for (block, _), count in zip(self.members, self.num_factors, strict=True)
            for i in range(count)
        )

    def restrictions(self, names: Sequence[str], num_lags: int, num_factors: int) -> Restrictions:
        """The zeros these blocks mean for a panel of series `names`.

        **Raises:** `ValueError` for a block with an unknown series, and (from `Restrictions.check`)
        if a series is in no block.
        """
        if self.total != num_factors:
            raise ValueError(
                f"the blocks have {self.total} factors, num_factors = {num_factors}; make them "
                "agree."
            )
        columns, owner = [], []
        for place, ((block, series), count) in enumerate(
            zip(self.members, self.num_factors, strict=True)
        ):
            unknown = [] if series is None else [name for name in series if name not in names]
            if unknown:
                raise ValueError(
                    f"block {block!r} names {', '.join(map(repr, unknown[:5]))}, which the panel "
                    "does not have; take them out of the block or select other series."
                )
            column = [series is None or name in series for name in names]
            columns += [column] * count
            owner += [place] * count
        same = np.equal.outer(owner, owner) if self.separate else np.ones((len(owner),) * 2, bool)
        return Restrictions(
            loadings=jnp.asarray(np.array(columns).T),
            transition=jnp.asarray(np.broadcast_to(same, (num_lags, *same.shape))),
            innovations=jnp.asarray(same),
        )
