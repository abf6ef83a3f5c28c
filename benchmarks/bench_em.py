"""EM iterations and whole fits against statsmodels and nowcastbox, at equal likelihood.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_em.py [--quick] [--save]

Needs the extra `peers`. Panels of `panels.py` with 20 % of the cells missing, independent
idiosyncratic errors, float64, one process for all three packages.

Table `em_iteration`: CPU time of one EM iteration (E-step, M-step, log-likelihood), each package in
its own convention of the initial law, from the same principal-component start.

Table `em_likelihood`: that the three compute the same thing. `same_point`: difference of the
log-likelihoods at the peer's parameters; `one_step`: largest difference of the parameters after one
iteration from there (statsmodels: all parameters and the initial law; nowcastbox shortens some
steps of the VAR, so its loadings and variances only); `ours_end`, `peer_end`: log-likelihoods where
each package's own EM stops from its own start at a relative change of 1e-8, or after 500 steps.
statsmodels estimates the law of the first state (`initial="estimated"`, p - 1 periods before the
panel), nowcastbox keeps the stationary one.

Table `em_fit`: CPU time of a whole fit to a relative change of 1e-6 by each package's public entry,
statsmodels and nowcastbox with everything that they compute on the way.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from nowcastbox.core.data import MixedFrequencyData
from nowcastbox.models import MixedFreqDFM
from panels import SIZES, draw_panel, starting_point
from peers import MAX_STEPS, Statsmodels, frame
from peers_nowcastbox import Nowcastbox
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import EM, ClosedForm, DynamicFactorModel
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.iterate import iterate

TABLES = ("em_iteration", "em_likelihood", "em_fit")
MISSING = 0.2
TIGHT = 1e-8
USUAL = 1e-6
NO_FLOOR = 1e-12


def em_step(initial: str, num_lags: int) -> EMStep:
    """Our iteration in the convention of statsmodels ("estimated") or nowcastbox ("stationary")."""
    return EMStep(
        moments=ClosedForm(),
        variance_floor=jnp.asarray(NO_FLOOR),
        initial=initial,
        presample=num_lags - 1 if initial == "estimated" else 0,
        missing_as_latent=initial == "estimated",
    )


def as_function(step: EMStep) -> Callable:
    """The step as a plain function: `jax.jit` asks for something hashable."""
    return lambda parameters, data: step(parameters, data)


def largest_difference(a: FactorParameters, b: FactorParameters, names: tuple[str, ...]) -> float:
    """Largest absolute difference over the named fields."""
    return max(float(jnp.max(jnp.abs(getattr(a, n) - getattr(b, n)))) for n in names)


def our_end(step: EMStep, start: FactorParameters, data: PanelData) -> tuple[float, int]:
    """Log-likelihood and number of steps of our EM to a relative change of `TIGHT`."""

    def run(parameters, data):
        outcome = iterate(step, parameters, data, rtol=jnp.asarray(TIGHT), max_steps=MAX_STEPS)
        return outcome.path[outcome.num_steps - 1], outcome.num_steps

    loglik, num_steps = jax.jit(run)(start, data)
    return float(loglik), int(num_steps)


def against_statsmodels(size: tuple, peer: Statsmodels, step, ours, start, data) -> dict:
    """Row of `em_likelihood` for statsmodels."""
    result = peer.fit(TIGHT, return_params=False)
    params, init = np.asarray(result.params), result.mle_retvals["inits"][-1]
    theirs, next_params = peer.iterate(params, init)
    moved, loglik = ours(peer.parameters(params, init), data)
    states = np.asarray(theirs.smoothed_state)[:, 0], np.asarray(theirs.smoothed_state_cov)[..., 0]
    next_init = type(init)(init.k_states, "known", constant=states[0], stationary_cov=states[1])
    names = tuple(n for n, leaf in vars(moved).items() if leaf is not None and n != "intercept")
    end, num_steps = our_end(step, start, data)
    return {
        "size": "x".join(map(str, size)),
        "peer": "statsmodels",
        "same_point": abs(float(loglik) - float(theirs.llf_obs.sum())),
        "one_step": largest_difference(moved, peer.parameters(next_params, next_init), names),
        "ours_end": end,
        "peer_end": float(theirs.llf_obs.sum()),
        "ours_steps": num_steps,
        "peer_steps": int(result.mle_retvals["iter"]),
    }


def against_nowcastbox(size: tuple, peer: Nowcastbox, step, ours, start, data) -> dict:
    """Row of `em_likelihood` for nowcastbox."""
    outcome = peer.fit(TIGHT)
    moved, loglik = ours(peer.parameters(outcome.params), data)
    there = peer.expect(outcome.params).loglikelihood
    stepped = peer.parameters(peer.iterate(outcome.params))
    end, num_steps = our_end(step, start, data)
    return {
        "size": "x".join(map(str, size)),
        "peer": "nowcastbox",
        "same_point": abs(float(loglik) - there),
        "one_step": largest_difference(moved, stepped, ("loadings", "idiosyncratic_cov")),
        "ours_end": end,
        "peer_end": float(outcome.loglikelihood_path[-1]),
        "ours_steps": num_steps,
        "peer_steps": outcome.n_iter,
    }


def whole_fits(size, table, values, observed, repeats) -> dict:
    """Row of `em_fit`."""
    _, _, num_factors, num_lags = size
    model = DynamicFactorModel(num_factors, num_lags, method=EM(rtol=USUAL))
    values, seen = jnp.asarray(values), jnp.asarray(observed > 0)
    ours, compiling = compile_seconds(lambda v, o: model.estimate(v, o), values, seen)
    target = table.columns[0]
    iterative = {"n_factors": num_factors, "factor_lags": num_lags, "idiosyncratic": "iid"}

    def statsmodels():
        return Statsmodels(table, num_factors, num_lags).fit(USUAL, return_params=False)

    def nowcastbox():
        peer = MixedFreqDFM(**iterative, tol=USUAL, max_iter=MAX_STEPS)
        return peer.fit(MixedFrequencyData(table, "M"), target=target)

    seconds = cpu_seconds(
        {"ours": lambda: ours(values, seen), "sm": statsmodels, "nb": nowcastbox}, **repeats
    )
    return {
        "size": "x".join(map(str, size)),
        "ours_ms": 1e3 * seconds["ours"],
        "ours_compile_s": compiling,
        "ours_steps": int(ours(values, seen).num_steps),
        "statsmodels_ms": 1e3 * seconds["sm"],
        "statsmodels_ratio": seconds["sm"] / seconds["ours"],
        "nowcastbox_ms": 1e3 * seconds["nb"],
        "nowcastbox_ratio": seconds["nb"] / seconds["ours"],
    }


def iterations(size, sm: Statsmodels, nb: Nowcastbox, ours, start, data, repeats) -> dict:
    """Row of `em_iteration`."""
    sm_start = sm.model.start_params
    seconds = cpu_seconds(
        {
            "stationary": lambda: ours["stationary"](start, data),
            "estimated": lambda: ours["estimated"](start, data),
            "sm": lambda: sm.iterate(sm_start),
            "nb": lambda: nb.iterate(nb.start),
        },
        **repeats,
    )
    return {
        "size": "x".join(map(str, size)),
        "ours_stationary_ms": 1e3 * seconds["stationary"],
        "ours_estimated_ms": 1e3 * seconds["estimated"],
        "statsmodels_ms": 1e3 * seconds["sm"],
        "statsmodels_ratio": seconds["sm"] / seconds["estimated"],
        "nowcastbox_ms": 1e3 * seconds["nb"],
        "nowcastbox_ratio": seconds["nb"] / seconds["stationary"],
    }


def bench(
    size: tuple[int, int, int, int], quick: bool, iterations_only: bool
) -> tuple[list[dict], list[dict], list[dict]]:
    """Rows of the three tables for one size."""
    _, _, num_factors, num_lags = size
    values, observed = draw_panel(*size, MISSING)
    table = frame(values, observed)
    start, data = starting_point(values, observed, num_factors, num_lags)
    sm, nb = Statsmodels(table, num_factors, num_lags), Nowcastbox(table, num_factors, num_lags)
    steps, ours, timed, compiling = {}, {}, {}, {}
    for initial in ("stationary", "estimated"):
        steps[initial] = em_step(initial, num_lags)
        # Timed as a fit runs it, factors kept at unit scale; compared without, in raw parameters.
        as_fitted = dataclasses.replace(steps[initial], normalise=True)
        timed[initial], compiling[initial] = compile_seconds(as_function(as_fitted), start, data)
    repeats = {"num_samples": 3, "num_rounds": 1} if quick else {"num_rounds": 7}
    row = iterations(size, sm, nb, timed, start, data, repeats)
    row["ours_compile_s"] = compiling["stationary"]
    if iterations_only:
        return [row], [], []
    for initial, step in steps.items():
        ours[initial], _ = compile_seconds(as_function(step), start, data)
    likelihood = [
        against_statsmodels(size, sm, steps["estimated"], ours["estimated"], start, data),
        against_nowcastbox(size, nb, steps["stationary"], ours["stationary"], start, data),
    ]
    fit_repeats = {"num_samples": 1 if quick else 3, "num_rounds": 1}
    return [row], likelihood, [whole_fits(size, table, values, observed, fit_repeats)]


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.csv")
    parser.add_argument("--iterations-only", action="store_true", help="only em_iteration")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")  # the peers warn about monthly indices and iteration limits
    sizes = SIZES[:1] if options.quick else SIZES
    rows = [bench(size, options.quick, options.iterations_only) for size in sizes]
    for name, tables in zip(TABLES, zip(*rows, strict=True), strict=True):
        if any(tables):
            merged = [row for table in tables for row in table]
            report(name, merged, "statsmodels", "nowcastbox", save=options.save)


if __name__ == "__main__":
    main()
