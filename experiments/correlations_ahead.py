"""Errors of correlations forecast over several steps, against drawn paths.

    python -m experiments.correlations_ahead [--quick | --full] [--paths N] [--out FOLDER]

E_t[R_{T+k}] of DCC, corrected and asymmetric DCC with known parameters, by the three formulas of
`FittedCorrelationModel.forecast`: "iterated" (the default), "ES-R" and "ES-Q" (Engle and Sheppard
2001). Starting states are histories of the process itself: draws ("typical"), and of many draws the
most turbulent, the calmest, the ones with the lowest and highest correlations; and a typical one
that ends with a fall of three standard deviations of every series ("crash").

The reference is the mean over paths of R_{T+k} less a control of mean zero, what a recursion
linearised about the iterated forecast makes of the same innovations; noise is its standard error.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.correlations_ahead_answers import CELL, answers, pooled, root_mean_square
from experiments.monte_carlo import parse
from jaxfc.results import SUCCESSFUL
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc.volatility import (
    DCC,
    GARCH,
    CorrelationModel,
    FittedCorrelationModel,
    FittedVarianceModel,
    Normal,
    StudentT,
    VarianceModel,
    ZeroMean,
)
from jaxfc.volatility.correlation_ahead import (
    METHODS,
    correlations_ahead,
    draw_returns,
    draw_units,
    state_of,
)
from jaxfc.volatility.correlation_process import Targets
from jaxfc.volatility.correlation_recursion import mean_falls

STATES = ("typical", "turbulent", "calm", "low correlation", "high correlation", "crash")
# Rows whose squares say how turbulent a history ends.
LAST_ROWS = 10
FALL = 3.0


class Process(NamedTuple):
    """A recursion with its parameters; `fall` is g of the asymmetric one."""

    kind: str
    shock: float
    decay: float
    fall: float = 0.0

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind} {self.shock:g}/{self.fall:g}/{self.decay:g}".replace("/0/", "/")


@dataclasses.dataclass(frozen=True)
class Config:
    """Processes, numbers of series, degrees of freedom (0: normal), and the size of the run.

    `num_paths` is for three series, 3/N of them for N: pairs average the noise.
    """

    processes: tuple[Process, ...] = (
        Process("DCC", 0.03, 0.95),
        Process("DCC", 0.05, 0.93),
        Process("DCC", 0.1, 0.85),
        Process("cDCC", 0.05, 0.93),
        Process("ADCC", 0.03, 0.92, 0.04),
    )
    num_series: tuple[int, ...] = (3, 10, 30)
    freedom: tuple[float, ...] = (0.0, 6.0)
    horizons: tuple[int, ...] = (2, 6, 21, 63)
    num_typical: int = 4
    num_histories: int = 200
    history: int = 250
    num_paths: int = 12_000
    chunk: int = 100
    seed: int = 6
    out: str = "correlations_ahead"


QUICK = Config(
    processes=(Process("DCC", 0.05, 0.93), Process("ADCC", 0.03, 0.92, 0.04)),
    num_series=(3,),
    freedom=(0.0,),
    horizons=(2, 6),
    num_typical=1,
    num_histories=20,
    history=100,
    num_paths=200,
)
FULL = Config(num_paths=200_000)


class Reference(NamedTuple):
    """E_t[R] of every step and the standard error of every entry."""

    mean: Float[Array, "horizon series series"]
    error: Float[Array, "horizon series series"]


def known_process(process: Process, num_series: int, freedom: float) -> FittedCorrelationModel:
    """The process with its parameters known and variances of one, without data: correlations
    l_i l_j with l from 0.2 to 0.9, falls as a normal has them."""
    how = DCC(num_asymmetric=int(process.kind == "ADCC"), corrected=process.kind == "cDCC")
    law = StudentT() if freedom else Normal()
    loads = jnp.linspace(0.2, 0.9, num_series)
    both = jnp.where(jnp.eye(num_series, dtype=bool), 1.0, jnp.outer(loads, loads))
    falls = mean_falls(both) if how.has_falls else jnp.zeros_like(both)
    numbers = [process.shock, process.fall, process.decay, freedom]
    zero, values = jnp.asarray(0.0), jnp.zeros((1, num_series))
    margins = FittedVarianceModel(
        model=VarianceModel(GARCH(), mean=ZeroMean()),
        parameters=jnp.tile(jnp.asarray([1.0, 0.0, 0.0]), (num_series, 1)),
        values=values,
        observed=jnp.ones_like(values, bool),
        logliks=jnp.zeros(num_series),
        loglik=zero,
        num_steps=jnp.asarray(0),
        results=SUCCESSFUL,
        result=SUCCESSFUL,
    )
    return FittedCorrelationModel(
        model=CorrelationModel(how, margins=margins.model, innovations=law),
        margins=margins,
        parameters=jnp.asarray([number for number in numbers if number]),
        targets=Targets(both, falls),
        loglik=zero,
        num_steps=jnp.asarray(0),
        result=SUCCESSFUL,
    )


def after(fitted: FittedCorrelationModel, units: Float[Array, "time series"]) -> Any:
    """The process after these standardised residuals."""
    return fitted.given(units, jnp.ones(units.shape, bool))


@jax.jit
def next_correlations(
    fitted: FittedCorrelationModel, histories: Float[Array, "histories time series"]
) -> Float[Array, " histories"]:
    """Mean correlation of the next row after every history."""

    def mean_after(units: Array) -> Array:
        corr = correlations_ahead(after(fitted, units), 1, "iterated")[0]
        size = len(corr)
        return (jnp.sum(corr) - size) / (size * (size - 1))

    return jax.lax.map(mean_after, histories, batch_size=20)


def starting_states(
    fitted: FittedCorrelationModel, config: Config, *, key: PRNGKeyArray
) -> tuple[list[str], Float[Array, "states time series"]]:
    """Histories by name; several are "typical"."""
    draws = jax.jit(draw_returns, static_argnums=(1, 2), static_argnames="long_run")
    drawn = draws(fitted, config.history, config.num_histories, key=key, long_run=True)
    squares = jnp.mean(drawn[:, -LAST_ROWS:] ** 2, axis=(1, 2))
    corrs = next_correlations(fitted, drawn)
    chosen = [jnp.argmax(squares), jnp.argmin(squares), jnp.argmin(corrs), jnp.argmax(corrs)]
    crash = drawn[0].at[-1].set(-FALL)
    histories = [*drawn[: config.num_typical], *(drawn[place] for place in chosen), crash]
    return ["typical"] * config.num_typical + list(STATES[1:]), jnp.stack(histories)


def reference(
    fitted: FittedCorrelationModel, horizon: int, num_paths: int, chunk: int, *, key: PRNGKeyArray
) -> Reference:
    """Mean over paths of R_{T+k} less its control, from the state of `fitted`.

    x_{k+1} = Phi(x_k) is the recursion over a row that is not observed and m_k what drawn
    residuals put in place of their expectation, so that E[m_k | before] = 0. The control is

        corr'(x_k) c_k,    c_{k+1} = Phi'(x_k) c_k + m_k,    c_1 = 0

    along the iterated x_k, linear in the m_k and therefore of mean zero.
    """
    how, targets = fitted.model.correlations, fitted.targets
    ours = fitted.model.split(fitted.parameters)[0]
    size = targets.both.shape[0]
    start = state_of(fitted)

    def corr(state: Any) -> Array:
        return how.corr(how.quasi(ours, state, targets))

    def later(state: Any, units: Array, is_seen: bool) -> Any:
        seen = jnp.full(size, is_seen)
        return how.advance(state, how.quasi(ours, state, targets), units, seen, targets)

    def unseen(state: Any) -> Any:
        return later(state, jnp.zeros(size, targets.both.dtype), False)

    def one(state: Any, control: Any, iterated: Any, unit: Array) -> tuple[Any, Any, Array]:
        found = corr(state)
        linear = jax.jvp(corr, (iterated,), (control,))[1]
        new = later(state, jnp.linalg.cholesky(found) @ unit, True)
        surprise = jax.tree.map(jnp.subtract, new, unseen(state))
        moved = jax.jvp(unseen, (iterated,), (control,))[1]
        return new, jax.tree.map(jnp.add, moved, surprise), found - linear

    def step(carry: Any, units: Array) -> tuple[Any, tuple[Array, Array]]:
        states, controls, iterated = carry
        states, controls, values = jax.vmap(one, in_axes=(0, 0, None, 0))(
            states, controls, iterated, units
        )
        values = values - corr(iterated)  # small numbers: their squares keep their digits
        sums = jnp.sum(values, axis=0), jnp.sum(values**2, axis=0)
        return (states, controls, unseen(iterated)), sums

    def some(key: Array) -> tuple[Array, Array]:
        units = draw_units(fitted, (horizon, chunk, size), key=key)
        states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chunk, *leaf.shape)), start)
        controls = jax.tree.map(jnp.zeros_like, states)
        return jax.lax.scan(step, (states, controls, start), units)[1]

    count = -(-num_paths // chunk)
    totals, squares = jax.lax.map(some, jax.random.split(key, count))
    number = count * chunk
    mean = jnp.sum(totals, axis=0) / number
    variance = jnp.maximum(jnp.sum(squares, axis=0) / number - mean**2, 0.0) / (number - 1)
    return Reference(mean + correlations_ahead(fitted, horizon, "iterated"), jnp.sqrt(variance))


def measure(
    process: Process, num_series: int, freedom: float, config: Config, *, key: PRNGKeyArray
) -> pd.DataFrame:
    """Errors of every formula, state and horizon of one process; entries below the diagonal."""
    fitted = known_process(process, num_series, freedom)
    state_key, path_key = jax.random.split(key)
    names, histories = starting_states(fitted, config, key=state_key)
    length, num_paths = max(config.horizons), config.num_paths * 3 // num_series
    ours = fitted.model.split(fitted.parameters)[0]
    methods = METHODS if fitted.model.correlations.decay(ours) is not None else METHODS[:1]

    def case(units: Array) -> tuple[Reference, list[Array]]:
        now = after(fitted, units)
        truth = reference(now, length, num_paths, config.chunk, key=path_key)
        return truth, [correlations_ahead(now, length, method) for method in methods]

    truth, found = jax.jit(lambda histories: jax.lax.map(case, histories))(histories)
    below = np.tril_indices(num_series, -1)
    level = np.asarray(fitted.targets.both)[below]
    mean, noise = (np.asarray(array)[:, :, *below] for array in truth)
    lines = []
    for state in STATES:
        for horizon in config.horizons:
            at = np.asarray(names) == state, horizon - 1
            cell = process.name, law_name(freedom), num_series, state, horizon
            for method, values in zip(methods, found, strict=True):
                error = np.abs(np.asarray(values)[:, :, *below][at] - mean[at])
                worst = np.unravel_index(np.argmax(error), error.shape)
                sizes = (root_mean_square(x) for x in (error, noise[at], mean[at] - level))
                rms, rms_noise, distance = sizes
                both = error[worst], noise[at][worst]
                lines.append((*cell, method, rms, rms_noise, *both, distance))
    columns = [*CELL, "method", "rms", "rms_noise", "max", "max_noise", "distance"]
    return pd.DataFrame(lines, columns=pd.Index(columns))


def law_name(freedom: float) -> str:
    """The law of the innovations in words."""
    return f"t{freedom:g}" if freedom else "normal"


def run(config: Config) -> pd.DataFrame:
    """The table of all cells; written with summaries and answers to `config.out`."""
    parts, keys = [], jax.random.key(config.seed)
    for num_series in config.num_series:
        for place, process in enumerate(config.processes):
            for freedom in config.freedom:
                key = jax.random.fold_in(jax.random.fold_in(keys, num_series), place)
                parts.append(measure(process, num_series, freedom, config, key=key))
                print(f"{num_series} series, {process.name}, {law_name(freedom)}", flush=True)
    table = pd.concat(parts, ignore_index=True)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False, float_format="%.4g")
    summary = pooled(table, ["process", "state", "horizon"])
    summary.to_csv(folder / "summary.csv", index=False, float_format="%.4g")
    text = answers(table, config.num_paths)
    title = "# Correlations ahead: formulas against drawn paths"
    (folder / "answers.md").write_text("\n\n".join([title, *text]) + "\n")
    print(summary.round(4).to_string(index=False), *text, sep="\n\n")
    return table


def main() -> None:
    """Read the command line and run."""
    run(parse(Config, QUICK, FULL, __doc__ or ""))


if __name__ == "__main__":
    main()
