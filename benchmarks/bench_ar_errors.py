"""EM iterations with AR(1) errors against statsmodels and nowcastbox, all computing one thing.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_ar_errors.py [--quick] [--save]

Needs the extra `peers`. The panels of `panels.py` with 20 % of the cells missing, one process.

Table `ar_iteration`: CPU time of one EM iteration (E-step, M-step, log-likelihood). The peers carry
every error as a state; ours integrates them out, `longest_gap` periods being the longest gap of the
panel, so nothing is cut off. Their M-step treats the errors as latent, so one of their iterations
also moves the likelihood less than one of ours: `after` are the log-likelihoods after 20 iterations
of each package from its own start, in the same units.

Table `ar_likelihood`: difference of our log-likelihood from the peer's at the peer's own starting
parameters, stationary initial law (statsmodels' measurement noise is zero, nowcastbox' is not).
"""

import argparse
import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from panels import SIZES, draw_panel, starting_point
from peers import Statsmodels, frame
from peers_nowcastbox import Nowcastbox
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import ClosedForm
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import make_coupling
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.errors import AutoregressiveErrors, longest_gap

MISSING = 0.2
NUM_ITERATIONS = 20


def our_step(observed: np.ndarray) -> tuple[EMStep, AutoregressiveErrors]:
    """Our iteration, remembering across the longest gap of the panel."""
    errors = AutoregressiveErrors(longest_gap(observed))
    return EMStep(ClosedForm(), jnp.asarray(1e-12), errors=errors, normalise=True), errors


def ar_of_statsmodels(peer: Statsmodels, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and stationary variances of the errors in a parameter vector."""
    names = peer.model.param_names
    pick = [np.array([n.startswith(head) for n in names]) for head in ("L1.eps", "sigma2")]
    ar, innovation_var = (np.asarray(params)[which] for which in pick)
    return ar, innovation_var / (1.0 - ar**2)


def same_point(size: tuple, peer: Statsmodels, step: EMStep, data: PanelData) -> dict:
    """Our likelihood and theirs at their starting parameters."""
    params = peer.model.start_params
    ar, variances = ar_of_statsmodels(peer, params)
    theirs = peer.model.smooth(params)
    ours = dataclasses.replace(
        peer.parameters(params),
        idiosyncratic_cov=jnp.asarray(variances),
        idiosyncratic_ar=jnp.asarray(ar),
    )
    loglik = jax.jit(lambda p, d: step.expect(p, d).loglik)(ours, data)
    return {
        "size": "x".join(map(str, size)),
        "statsmodels": float(theirs.llf),
        "difference": float(loglik) - float(theirs.llf),
    }


def our_path(step: EMStep, start: FactorParameters, data: PanelData) -> float:
    """Log-likelihood after the iterations."""

    def run(start: FactorParameters, data: PanelData) -> jax.Array:
        end, _ = jax.lax.scan(lambda p, _: step(p, data), start, None, length=NUM_ITERATIONS)
        return step.expect(end, data).loglik

    return float(jax.jit(run)(start, data))


def bench(size: tuple[int, int, int, int], quick: bool) -> tuple[dict, dict]:
    """Rows of the two tables for one size."""
    _, _, num_factors, num_lags = size
    values, observed = draw_panel(*size, MISSING)
    table = frame(values, observed)
    start, data = starting_point(values, observed, num_factors, num_lags)
    step, errors = our_step(observed)
    coupling = make_coupling(errors, None, data.observed, None)
    data = dataclasses.replace(data, coupling=coupling)
    start = dataclasses.replace(start, idiosyncratic_ar=jnp.full(size[0], 0.1))
    sm = Statsmodels(table, num_factors, num_lags, ar_errors=True)
    nb = Nowcastbox(table, num_factors, num_lags, ar_errors=True)
    ours, compiling = compile_seconds(lambda p, d: step(p, d), start, data)
    sm_start = sm.model.start_params
    slow = {"num_samples": 1 if quick else 3, "num_rounds": 1}
    seconds = cpu_seconds({"ours": lambda: ours(start, data)}, num_rounds=3)
    seconds |= cpu_seconds(
        {"sm": lambda: sm.iterate(sm_start), "nb": lambda: nb.iterate(nb.start)}, **slow
    )
    row = {
        "size": "x".join(map(str, size)),
        "longest_gap": errors.longest_gap,
        "ours_ms": 1e3 * seconds["ours"],
        "ours_compile_s": compiling,
        "statsmodels_ms": 1e3 * seconds["sm"],
        "statsmodels_ratio": seconds["sm"] / seconds["ours"],
        "nowcastbox_ms": 1e3 * seconds["nb"],
        "nowcastbox_ratio": seconds["nb"] / seconds["ours"],
        "ours_after": our_path(step, start, data),
    }
    return row, same_point(size, sm, step, data)


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")  # the peers warn about monthly indices and iteration limits
    rows = [bench(size, options.quick) for size in (SIZES[:1] if options.quick else SIZES)]
    for name, table in zip(("ar_iteration", "ar_likelihood"), zip(*rows, strict=True), strict=True):
        report(name, table, "statsmodels", "nowcastbox", save=options.save)


if __name__ == "__main__":
    main()
