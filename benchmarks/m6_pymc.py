"""The M6 author's model in PyMC with its default sampler: the peer of `bench_m6.py`.

    OMP_NUM_THREADS=1 VENV/bin/python benchmarks/m6_pymc.py PROBLEM.npz OUT.npz
        [--tune 1000] [--draws 1000] [--chains 4] [--seed 0]

Runs in an environment of its own with PyMC 5.28.5, and imports nothing of the package. Model, with
assets i, periods t, factors k and returns r in decimals:

    r_it = a_i + b_i x_it + sum_k w_ik z_kt + exp(theta_i + d_i v_it + g_i I_it) u_it,  u ~ t(nu_i)
    z_kt = rho z_k,t-1 + e_kt,  e ~ N(0, 1);        sum_it omega_t ln p(r_it | .) over known cells

with the published priors: raw units, loadings t10(0, 1), coefficients non-centred around the means
of the asset classes, nu ~ Gamma of mean 7. Unlike the published code, the loadings are
unconstrained (there the first factor loads positively on IVV and the loadings above the diagonal
are zero), and z_k1 has the stationary law instead of a flat one.

PROBLEM: `returns` (time, assets) with NaN where missing, `recent_return` and `recent_volatility`
(z-scores) and `earnings` (0 or 1) of the same shape, `classes` (assets,) from zero, `weights`
(time,).

OUT: draws (chains, draws, ...) of what the data identify, under the names of
`AssetFactorProgram.identified`; `stat_*` (chains, tune + draws), what NUTS says of each iteration;
`seconds_*`, CPU of the process and its children (the C compiler): `import`, `compile` (building
and compiling the model, and the start), `warmup`, `sampling`, `rest` (collecting the draws);
`versions`, `mode` of PyTensor. Chains run one after the other. Compiled code is kept in a folder of
its own, so that no earlier run's is found. PYTENSOR_FLAGS=mode=NUMBA chooses another compiler than
C, which without a BLAS library (PyTensor from pip finds none) is the slower of the two.

Source: Weitzenfeld (2025), International Journal of Forecasting 41(4), 1477-1484; the priors from
its public code.
"""

import argparse
import atexit
import os
import resource
import shutil
import tempfile

FOLDER = tempfile.mkdtemp(prefix="m6_pymc_")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ["PYTENSOR_FLAGS"] = (
    f"{os.environ.get('PYTENSOR_FLAGS', '')},base_compiledir={FOLDER}".strip(",")
)

import numpy as np  # noqa: E402
import pymc as pm  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402

NUM_FACTORS = 7
NORMAL_MEDIAN = 1.4826  # the median of |x| is one over this of the sd of a normal x
START_RHO = -0.05
# Effects by class: prior mean and sd of the class mean, prior sd of the spread.
LEVEL = (-2.0, 5.0, 0.3)
RETURN_EFFECT = (0.0, 0.2, 0.3)
VOLATILITY_EFFECT = (0.05, 0.2, 0.3)
EARNINGS_EFFECT = (0.0, 1.0, 0.2)
# What is kept of the sampler's statistics, and the names it has for them.
STATS = {
    "tree_depth": "depth",
    "num_leapfrogs": "tree_size",
    "step_size": "step_size",
    "acceptance": "mean_tree_accept",
    "divergent": "diverging",
    "cpu_seconds": "process_time_diff",
}


def cpu() -> float:
    """CPU seconds of this process and the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def by_class(name: str, law: tuple[float, float, float], classes: np.ndarray, dof: object):
    """Coefficients of all assets: class mean plus class spread times the asset's own, t(dof)
    or, without `dof`, normal."""
    mean, sd, spread = law
    num_classes = int(classes.max()) + 1
    centre = pm.Normal(f"{name}_mean", mean, sd, shape=num_classes)
    scale = pm.HalfNormal(f"{name}_scale", spread, shape=num_classes)
    if dof is None:
        own = pm.Normal(f"{name}_raw", 0.0, 1.0, shape=classes.size)
    else:
        own = pm.StudentT(f"{name}_raw", nu=dof, mu=0.0, sigma=1.0, shape=classes.size)
    return pm.Deterministic(name, centre[classes] + scale[classes] * own)


def published_model(problem: dict[str, np.ndarray]) -> pm.Model:
    """The M6 model of these data."""
    returns, classes = problem["returns"], problem["classes"]
    num_rows, num_series = returns.shape
    seen = np.isfinite(returns)
    weights = problem["weights"][:, None] * seen
    with pm.Model() as model:
        rho = pm.Normal("rho", 0.0, 0.2, initval=START_RHO)
        first = pm.Normal.dist(0.0, 1.0 / pt.sqrt(1.0 - rho**2))
        factors = pm.AR(
            "factors", rho[None], sigma=1.0, init_dist=first, shape=(NUM_FACTORS, num_rows)
        )
        loadings = pm.StudentT(
            "loadings", nu=10.0, mu=0.0, sigma=1.0, shape=(num_series, NUM_FACTORS)
        )
        intercept_scale = pm.HalfNormal("intercept_scale", 0.005)
        own = pm.StudentT("intercept_raw", nu=10.0, mu=0.0, sigma=1.0, shape=num_series)
        intercept = pm.Deterministic("intercept", intercept_scale * own)
        level_dof = pm.Gamma("level_dof", mu=10.0, sigma=5.0)
        level = by_class("level", LEVEL, classes, level_dof)
        reversal = by_class("return_effect", RETURN_EFFECT, classes, 10.0)
        volatility = by_class("volatility_effect", VOLATILITY_EFFECT, classes, 10.0)
        report = by_class("earnings_effect", EARNINGS_EFFECT, np.zeros_like(classes), None)
        dof = pm.Gamma("dof", mu=7.0, sigma=pm.HalfNormal("dof_scale", 4.0), shape=num_series)
        mean = intercept + reversal * problem["recent_return"] + (loadings @ factors).T
        log_scale = level + volatility * problem["recent_volatility"] + report * problem["earnings"]
        law = pm.StudentT.dist(nu=dof, mu=mean, sigma=pt.exp(log_scale))
        cells = pm.logp(law, np.where(seen, returns, 0.0))
        pm.Potential("log_likelihood", pt.sum(weights * cells))
    return model


class Record:
    """What the sampler says of each iteration, and when it came."""

    def __init__(self, num_iterations: int):
        self.num_iterations = num_iterations
        self.stats: list[dict] = []
        self.clock: list[float] = []

    def __call__(self, trace: object, draw) -> None:
        self.clock.append(cpu())
        self.stats.append({name: draw.stats[0][own] for name, own in STATS.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics, (chains, iterations)."""
        found = {name: np.array([one[name] for one in self.stats]) for name in STATS}
        shape = (-1, self.num_iterations)
        return {f"stat_{name}": value.reshape(shape) for name, value in found.items()}

    def seconds(self, start: float, num_tune: int) -> dict[str, float]:
        """CPU seconds of the phases since `start`; what lies between two chains is warm-up."""
        clock = np.array(self.clock).reshape(-1, self.num_iterations)
        begun = clock[0, 0] - self.stats[0]["cpu_seconds"]
        ended = np.concatenate([[begun], clock[:-1, -1]])
        tuned = clock[:, num_tune - 1]
        return {
            "seconds_compile": begun - start,
            "seconds_warmup": float(np.sum(tuned - ended)),
            "seconds_sampling": float(np.sum(clock[:, -1] - tuned)),
        }


def identified(draws: dict[str, np.ndarray], returns: np.ndarray) -> dict[str, np.ndarray]:
    """What neither rotations nor signs of the factors change.

    `common_variance`, `market_sd`, `last_common`, `level`, `intercept` and `return_effect` are in
    units of each asset's robust scale; means and spreads of classes stay as the model has them.
    """
    scale = NORMAL_MEDIAN * np.nanmedian(np.abs(returns), axis=0)
    kept = ["rho", "level_dof", "dof", "dof_scale", "intercept_scale"]
    kept += ["volatility_effect", "earnings_effect"]
    effects = ("level", "return_effect", "volatility_effect", "earnings_effect")
    kept += [f"{name}_{part}" for name in effects for part in ("mean", "scale")]
    found = {name: draws[name] for name in kept}
    loadings = draws["loadings"] / scale[:, None]
    variance = 1.0 / (1.0 - draws["rho"] ** 2)  # of each factor
    market = loadings.mean(axis=-2)
    last = np.einsum("cdik,cdk->cdi", loadings, draws["factors"][..., -1])
    return found | {
        "level": draws["level"] - np.log(scale),
        "intercept": draws["intercept"] / scale,
        "return_effect": draws["return_effect"] / scale,
        "common_variance": np.sum(loadings**2, axis=-1) * variance[..., None],
        "market_sd": np.sqrt(np.sum(market**2, axis=-1) * variance),
        "last_common": last,
    }


def sampled(
    problem: dict[str, np.ndarray], *, num_tune: int, num_draws: int, num_chains: int, seed: int
) -> dict[str, np.ndarray]:
    """Everything that OUT holds."""
    imported = cpu()
    record = Record(num_tune + num_draws)
    with published_model(problem):
        trace = pm.sample(
            draws=num_draws,
            tune=num_tune,
            chains=num_chains,
            cores=1,
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
            callback=record,
        )
    seconds = record.seconds(imported, num_tune) | {"seconds_import": imported}
    seconds["seconds_rest"] = (
        cpu()
        - imported
        - sum(seconds[f"seconds_{phase}"] for phase in ("compile", "warmup", "sampling"))
    )
    posterior = {str(name): value.to_numpy() for name, value in trace.posterior.items()}
    found = identified(posterior, problem["returns"]) | record.arrays()
    found |= {name: np.asarray(value) for name, value in seconds.items()}
    versions = f"PyMC {pm.__version__}, PyTensor {pytensor.__version__}"
    linker = type(pytensor.compile.mode.get_default_mode().linker).__name__
    mode = f"{pytensor.config.mode}, {linker}, BLAS {pytensor.config.blas__ldflags or 'none'}"
    return found | {"versions": np.asarray(versions), "mode": np.asarray(mode)}


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("problem")
    parser.add_argument("out")
    parser.add_argument("--tune", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if min(options.tune, options.draws, options.chains) < 1:
        parser.error("--tune, --draws and --chains must be at least 1.")
    with np.load(options.problem) as file:
        problem = dict(file)
    counts = {"num_tune": options.tune, "num_draws": options.draws, "num_chains": options.chains}
    found = sampled(problem, **counts, seed=options.seed)
    np.savez(options.out, **found)
    for name, value in found.items():
        if name.startswith("seconds_"):
            print(f"{name} {float(value):.1f}")
    depth, steps = found["stat_tree_depth"], found["stat_num_leapfrogs"]
    print(f"{found['versions']}; {found['mode']}")
    for part, name in ((slice(options.tune), "warm-up"), (slice(options.tune, None), "draws")):
        print(
            f"{name}: tree depth {depth[:, part].mean():.1f}, leapfrogs {steps[:, part].mean():.0f}"
            f", step {found['stat_step_size'][:, part].mean():.2g}, "
            f"divergent {found['stat_divergent'][:, part].sum()}"
        )


if __name__ == "__main__":
    main()
