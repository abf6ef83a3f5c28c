"""From one window of a backtest to the next: a sampler that starts where the last one ended."""

import dataclasses

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxfc.bayes.draws import Inference, Tuned
from jaxfc.bayes.m6 import FittedM6
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.typing import Array, Float

# What has one row for each row of the panel, time first.
PATHS = ("factors", "log_volatility")


def warm_start(fitted: FittedM6, *, num_new_rows: int, num_dropped_rows: int = 0) -> Inference:
    """The inference of `fitted`, started where its chains ended, for a panel that has moved on.

    `num_new_rows` rows were appended, `num_dropped_rows` taken away at the beginning. Factors of
    the new rows start at zero in the sampler's coordinates with the variance of the last row; the
    masses are kept and the step is tuned from where it was. A shorter warm-up
    (`dataclasses.replace(inference, num_warmup=...)`) is then enough.

    **Raises:** `ValueError` if the posterior was not drawn by `PooledHMC`, or the rows do not fit.
    """
    tuned, inference = fitted.draws.tuned, fitted.model.inference
    if tuned is None or not isinstance(inference, PooledHMC):
        raise ValueError(f"{type(inference).__name__} keeps nothing to start from; use PooledHMC.")
    last = {name: value[0, -1] for name, value in fitted.draws.parameters.items()}
    lengths = [last[name].shape[0] for name in PATHS if name in last]
    too_many = bool(lengths) and num_dropped_rows >= lengths[0]
    if num_new_rows < 0 or num_dropped_rows < 0 or too_many:
        raise ValueError(
            f"cannot append {num_new_rows} rows and drop {num_dropped_rows} of a panel of "
            f"{lengths[0] if lengths else 'its'} rows."
        )
    _, named = ravel_pytree(last)

    def moved(vector: Float[Array, " size"], *, fill_last: bool) -> Array:
        parts = named(vector)
        for name in PATHS:
            if name in parts:
                kept = parts[name][num_dropped_rows:]
                repeated = fill_last or name == "log_volatility"  # which is persistent
                row = kept[-1:] if repeated else jnp.zeros_like(kept[-1:])
                parts[name] = jnp.concatenate([kept, *([row] * num_new_rows)])
        return ravel_pytree(parts)[0]

    position = jnp.stack([moved(chain, fill_last=False) for chain in tuned.position])
    variance = moved(tuned.variance, fill_last=True)
    return dataclasses.replace(inference, warm=Tuned(position, variance, tuned.step_size))
