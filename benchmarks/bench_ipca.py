"""Instrumented PCA by alternating least squares against the package ipca.

    OMP_NUM_THREADS=1 python benchmarks/bench_ipca.py --peer VENV/bin/python [--quick] [--save]

`--peer` is the interpreter of an environment with ipca 0.6.7 (it pins packages that do not stand
beside ours); it runs as a child process on the same arrays. Simulated returns on L characteristics
with a tenth of the cells missing, float64, no intercept. CPU seconds of warmed-up calls; the child
counts its own.

Table `ipca`: `fit` is a whole estimation from the panel, ours from `managed_portfolios` on, theirs
from `fit` on its default data_type, both until no entry of Gamma moves by 1e-6 (theirs also looks
at the factors, so it may take more steps); `step` is `fit` over the number of steps. `first_call`
is what compiling took, ours by XLA, theirs by numba. `gap` is the largest difference of Gamma
Gamma'. `windows` compares eight fits of rolling windows, ours in one `vmap`, theirs eight times
one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from timing import compile_seconds, cpu_seconds, report

from jaxfc.bayes.instrumented_als import AlternatingLeastSquares
from jaxfc.bayes.instrumented_portfolios import managed_portfolios

jax.config.update("jax_enable_x64", True)
TOLERANCE = 1e-6
NUM_WINDOWS = 8

PEER = """
import contextlib, io, json, sys, time
import numpy as np
from ipca import InstrumentedPCA
data = np.load(sys.argv[1])
size, tolerance = int(sys.argv[2]), float(sys.argv[3])
times, assets = np.nonzero(data["usable"])
X, y = data["characteristics"][times, assets], data["returns"][times, assets]
indices = np.column_stack([assets, times])
def fit():
    words, begun = io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(io.StringIO()):
        model = InstrumentedPCA(n_factors=size, intercept=False, iter_tol=tolerance)
        model = model.fit(X=X, y=y, indices=indices)
    return model, time.process_time() - begun, words.getvalue().count("Step ")
first = fit()[1]
runs = [fit() for _ in range(3)]
model, _, steps = runs[0]
gamma = np.asarray(model.Gamma)
seconds = float(np.median([run[1] for run in runs]))
product = (gamma @ gamma.T).tolist()
print(json.dumps({"first": first, "fit": seconds, "steps": steps, "product": product}))
"""


def world(num_times: int, num_assets: int, size: int, num_factors: int) -> dict[str, np.ndarray]:
    """Characteristics, returns on factors through them, and which cells are there."""
    rng = np.random.default_rng(0)
    characteristics = rng.normal(size=(num_times, num_assets, size))
    gamma = np.linalg.qr(rng.normal(size=(size, num_factors)))[0]
    scales = np.linspace(1.5, 0.5, num_factors)
    factors = rng.normal(size=(num_times, num_factors)) * scales + 0.3
    returns = np.einsum("tnl,lk,tk->tn", characteristics, gamma, factors)
    returns = returns + 2.0 * rng.normal(size=returns.shape)
    usable = rng.random(returns.shape) > 0.1
    return {"returns": returns, "characteristics": characteristics, "usable": usable}


def their_fit(peer: str, data: dict[str, np.ndarray], num_factors: int) -> dict:
    """The peer's times and Gamma, from a child process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **data)  # pyright: ignore[reportArgumentType]
        command = [peer, "-c", PEER, str(path), str(num_factors), str(TOLERANCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row_of(peer: str, sizes: tuple[int, int, int, int]) -> dict[str, object]:
    """All figures of one size."""
    num_times, num_assets, size, num_factors = sizes
    data = world(*sizes)
    arrays = tuple(jnp.asarray(data[k]) for k in ("returns", "characteristics", "usable"))
    method = AlternatingLeastSquares(num_factors, tolerance=TOLERANCE)

    def fit(returns, characteristics, usable):
        found = method.solve(managed_portfolios(returns, characteristics, usable))
        return found.coefficients.gamma, found.num_steps

    length = num_times // 2
    starts = np.linspace(0, num_times - length, NUM_WINDOWS).astype(int)
    windows = tuple(jnp.stack([leaf[s : s + length] for s in starts]) for leaf in arrays)
    ours, compiling = compile_seconds(fit, *arrays)
    batch, _ = compile_seconds(jax.vmap(fit), *windows)
    taken = cpu_seconds(
        {"ours": lambda: ours(*arrays), "batch": lambda: batch(*windows)}, num_samples=3
    )
    theirs = their_fit(peer, data, num_factors)
    gamma, num_steps = (np.asarray(part) for part in ours(*arrays))
    last = {key: value[starts[-1] :] for key, value in data.items()}
    their_window = their_fit(peer, last, num_factors)["fit"]
    our_step, their_step = taken["ours"] / int(num_steps), theirs["fit"] / theirs["steps"]
    return {
        "rows": num_times,
        "assets": num_assets,
        "characteristics": size,
        "factors": num_factors,
        "jaxfc_fit_ms": 1e3 * taken["ours"],
        "ipca_fit_ms": 1e3 * theirs["fit"],
        "fit_ratio": theirs["fit"] / taken["ours"],
        "jaxfc_steps": int(num_steps),
        "ipca_steps": theirs["steps"],
        "step_ratio": their_step / our_step,
        "windows_ratio": NUM_WINDOWS * their_window / taken["batch"],
        "jaxfc_first_call_s": compiling,
        "ipca_first_call_s": theirs["first"] - theirs["fit"],
        "gap": float(np.abs(gamma @ gamma.T - np.asarray(theirs["product"])).max()),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default=sys.executable, help="interpreter that has ipca")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    begun = time.perf_counter()
    sizes = [(60, 50, 5, 2)]
    if not options.quick:
        sizes += [(120, 200, 8, 3), (180, 300, 12, 4)]
    report("ipca", [row_of(options.peer, each) for each in sizes], save=options.save)
    print(f"wall {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
