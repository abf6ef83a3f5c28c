"""Coverage of 90% intervals for the next row, with the parameters taken as known and as uncertain.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py [--quick] [--save]

Panels of one factor with one lag are drawn from a known law and fitted. The coverage of an interval
is its probability under the true law of the next row given the panel, which is known here, so that
no future has to be drawn: far less noise than counting hits. "plug-in": normal quantiles of
`forecast`; "hessian": quantiles of paths with parameters from the curvature of the likelihood;
"bootstrap": from estimation on simulated panels. Fits that fail are left out and counted.
"""

import argparse
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from jaxfc.batching import map_in_batches
from jaxfc.factors import EM, DynamicFactorModel, FactorParameters
from jaxfc.factors.bootstrap import draw_paths, in_units_of
from jaxfc.factors.condition import condition, fitted_data
from jaxfc.factors.dynamics import simulate_panel
from jaxfc.factors.scaling import Scaling
from jaxfc.results import is_okay

LEVEL = 0.9
NUM_SERIES = 5
MODEL = DynamicFactorModel(1, 1, method=EM(rtol=1e-5, max_steps=200))


def true_parameters() -> FactorParameters:
    """One persistent factor that explains about 60 % of each series' variance."""
    return FactorParameters(
        loadings=jnp.linspace(0.6, 1.4, NUM_SERIES)[:, None],
        intercept=jnp.zeros(NUM_SERIES),
        idiosyncratic_cov=jnp.linspace(0.5, 2.0, NUM_SERIES),
        transition=jnp.full((1, 1, 1), 0.7),
        innovation_cov=jnp.ones((1, 1)),
        initial_mean=jnp.zeros(1),
        initial_cov=jnp.full((1, 1), 1.0 / (1.0 - 0.7**2)),
    )


def quantiles(
    paths: jax.Array, usable: jax.Array, probabilities: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Two quantiles over the usable draws (draws, series)."""
    paths = jnp.where(usable[:, None], paths, jnp.nan)
    low, high = jnp.nanquantile(paths, probabilities, axis=0)
    return low, high


@eqx.filter_jit
def coverages(
    kinds: tuple[str, ...], num_times: int, num_panels: int, num_draws: int, batch: int, *, key
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array]:
    """Coverage and width by kind (panels, series), and which panels were fitted."""
    truth = true_parameters()
    tails = jnp.asarray([0.5 - LEVEL / 2, 0.5 + LEVEL / 2])

    def one(index):
        data_key, draw_key = jax.random.split(jax.random.fold_in(key, index))
        values = simulate_panel(truth, num_times, key=data_key)
        fitted = MODEL.estimate(values, jnp.ones(values.shape, bool))
        units = Scaling(jnp.zeros(NUM_SERIES), jnp.ones(NUM_SERIES))
        known = in_units_of(truth, units, fitted.scaling)
        law = condition(dataclasses.replace(fitted, parameters=known), fitted_data(fitted))
        law = law.forecast(1)
        plug_in = fitted.forecast(1)
        covered, widths = {}, {}
        for kind in kinds:
            if kind == "plug-in":
                reach = norm.ppf(tails)[:, None] * plug_in.std[0]
                low, high = plug_in.mean[0] + reach
            else:
                rows = (0,) if kind == "hessian" else None
                paths, usable = draw_paths(
                    fitted, 1, num_draws, key=draw_key, aggregation=None, start="fitted",
                    batch_size=None, rows=rows,
                )  # fmt: skip
                low, high = quantiles(paths[:, 0], usable, tails)
            mean, std = law.mean[0], law.std[0]
            covered[kind] = norm.cdf((high - mean) / std) - norm.cdf((low - mean) / std)
            widths[kind] = (high - low) / (2.0 * norm.ppf(tails[1]) * std)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(c)) for c in covered.values()]))
        return covered, widths, is_okay(fitted.result) & finite

    return map_in_batches(one, jnp.arange(num_panels), batch)


def table(
    kinds: tuple[str, ...], num_times: int, num_panels: int, num_draws: int, *, key
) -> list[dict]:
    """One row for each kind of interval."""
    covered, widths, fitted = coverages(kinds, num_times, num_panels, num_draws, 20, key=key)
    kept = np.asarray(fitted)
    rows = []
    for kind in kinds:
        by_panel = np.asarray(covered[kind])[kept].mean(axis=1)
        rows.append(
            {
                "rows": num_times,
                "interval": kind,
                "nominal": LEVEL,
                "coverage": float(by_panel.mean()),
                "standard_error": float(by_panel.std() / np.sqrt(kept.sum())),
                "width_over_true": float(np.asarray(widths[kind])[kept].mean()),
                "panels": int(kept.sum()),
                "failed": int((~kept).sum()),
            }
        )
    return rows


def main() -> None:
    from timing import report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few panels and draws")
    parser.add_argument("--save", action="store_true", help="write results/interval_coverage.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    curvature = ("plug-in", "hessian")
    jobs = [(curvature, num_times, 200, 400) for num_times in (20, 40, 80)]
    # Estimating again for each draw is dear: fewer panels and draws.
    jobs += [((*curvature, "bootstrap"), num_times, 60, 100) for num_times in (20, 40)]
    if options.quick:
        jobs = [((*curvature, "bootstrap"), 20, 20, 50)]
    rows = []
    for kinds, num_times, num_panels, num_draws in jobs:
        rows += table(kinds, num_times, num_panels, num_draws, key=jax.random.key(0))
    report("interval_coverage", rows, save=options.save)


if __name__ == "__main__":
    main()
