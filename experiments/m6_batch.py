"""The M6 model at many origins as one batch, for an accelerator.

All windows have one shape, with assets that are not yet listed as missing columns, so that one
program estimates, diagnoses and forecasts every origin. The forecasters it makes look up what was
computed for the end of the panel they are given.
"""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.m6_baselines import Forecaster, Law, asset_names
from experiments.m6_models import SAMPLED, VARIANTS, m6_model
from jaxfc.bayes.m6 import M6Model
from jaxfc.panel import Panel
from jaxfc.typing import Array, PRNGKeyArray

TOGETHER = 40  # origins in one program; memory is 4000 draws of 3000 parameters for each


@eqx.filter_jit
def forecasts(
    model: M6Model, values: Array, observed: Array, keys: Array
) -> tuple[Array, dict[str, Array]]:
    """Draws (origins, draws, assets) of the next row and the details of every estimation."""

    def one(values: Array, observed: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        fit_key, draw_key = jax.random.split(key)
        fitted = model.estimate(values, observed, key=fit_key)
        return fitted.forecast(1, key=draw_key).draws[:, 0], fitted.details()

    return jax.vmap(one)(values, observed, keys)


def laws(
    model: M6Model, panels: Sequence[Panel], keys: Sequence[PRNGKeyArray]
) -> dict[pd.Timestamp, Law]:
    """The law of the next row of every panel from its own key, by the end of the panel."""
    model = model.resolved(panels[-1])
    found: dict[pd.Timestamp, Law] = {}
    for start in range(0, len(panels), TOGETHER):
        chunk = list(panels[start : start + TOGETHER])
        padded = chunk + chunk[-1:] * (min(TOGETHER, len(panels)) - len(chunk))
        arrays = [panel.arrays() for panel in padded]
        values, observed = (jnp.stack(parts) for parts in zip(*arrays, strict=True))
        own = list(keys[start : start + TOGETHER])
        own += own[-1:] * (len(padded) - len(own))
        draws, details = forecasts(model, values, observed, jnp.stack(own))
        for place, panel in enumerate(chunk):
            told = {name: float(value[place]) for name, value in details.items()}
            found[panel.index[-1]] = Law(np.asarray(draws[place]), details=told)
    return found


def batch_forecasters(
    classes: Mapping[str, str],
    panels: Sequence[Panel],
    num_draws: int,
    *,
    only: Sequence[str],
    keys: Callable[[str], list[PRNGKeyArray]],
) -> dict[str, Forecaster]:
    """Those of `m6_models` that are asked for, each computed at its first use, for all panels from
    `keys` of its name, one for each panel."""
    names = asset_names(panels[0])
    own = {asset: classes[asset] for asset in names}

    def made(name: str, *, sampled: bool) -> Forecaster:
        kept: dict[pd.Timestamp, Law] = {}

        def forecaster(panel: Panel, key: PRNGKeyArray) -> Law:
            if not kept:
                model = m6_model(own, name, num_draws, sampled=sampled)
                kept.update(laws(model, panels, keys(f"{name}, sampled" if sampled else name)))
            law = kept[panel.index[-1]]
            places = [names.index(asset) for asset in asset_names(panel)]
            return Law(law.draws[:, places], details=law.details)

        return forecaster

    known = {name: made(name, sampled=False) for name in VARIANTS}
    known |= {f"{name}, sampled": made(name, sampled=True) for name in SAMPLED}
    return {name: known[name] for name in known if name in only}
