"""The rows of a panel as instrumented PCA reads them: a return and what was known before it."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.bayes.instrumented_panel import blocks, num_assets
from jaxfc.bayes.instrumented_portfolios import ranked_characteristics
from jaxfc.typing import Array, Bool, Float


class InstrumentedRows(eqx.Module):
    """Returns of rows 1, 2, ..., the characteristics of the row before each, where these are
    `complete`, where the return is observed too (`usable`), and the given factors of the returns'
    rows; `latest` are the characteristics for the row to come, the last complete ones of each asset
    (NaN if it has none)."""

    returns: Float[Array, "time series"]
    characteristics: Float[Array, "time series characteristics"]
    complete: Bool[Array, "time series"]
    usable: Bool[Array, "time series"]
    given: Float[Array, "time given"]
    given_observed: Bool[Array, "time given"]
    latest: Float[Array, "series characteristics"]


class Instruments(eqx.Module):
    """Which columns of a panel are characteristics and given factors, and what is made of them:
    `ranked` among the assets of a row, with a `constant` beside them."""

    characteristics: tuple[str, ...] = eqx.field(static=True)
    given: tuple[str, ...] = eqx.field(static=True)
    ranked: bool = eqx.field(static=True)
    constant: bool = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The characteristics by the rows of Gamma."""
        return (*self.characteristics, "constant") if self.constant else self.characteristics

    def assets(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The assets of a panel with these columns."""
        return names[: num_assets(len(names), len(self.characteristics), len(self.given))]

    def read(
        self, values: Float[Array, "time columns"], observed: Bool[Array, "time columns"]
    ) -> InstrumentedRows:
        """The rows of these columns (`jaxfc.bayes.instrumented_panel`)."""
        parts = blocks(
            jnp.where(observed, values, 0.0), observed, len(self.characteristics), len(self.given)
        )
        held, seen = parts.characteristics, parts.characteristics_observed
        if self.ranked:
            held = ranked_characteristics(held, seen)
        if self.constant:
            held = jnp.concatenate([held, jnp.ones_like(held[:, :, :1])], axis=2)
        complete = jnp.all(seen, axis=2)
        return InstrumentedRows(
            returns=parts.returns[1:],
            characteristics=held[:-1],
            complete=complete[:-1],
            usable=parts.returns_observed[1:] & complete[:-1],
            given=parts.given[1:],
            given_observed=parts.given_observed[1:],
            latest=last_complete(held, complete),
        )


def last_complete(
    characteristics: Float[Array, "time series characteristics"],
    complete: Bool[Array, "time series"],
) -> Float[Array, "series characteristics"]:
    """Each asset's characteristics of the last row in which all are observed; NaN if there is
    none."""
    rows = jnp.arange(len(complete))[:, None]
    last = jnp.max(jnp.where(complete, rows, -1), axis=0)
    found = jnp.take_along_axis(characteristics, jnp.maximum(last, 0)[None, :, None], axis=0)[0]
    return jnp.where((last >= 0)[:, None], found, jnp.nan)
