"""State spaces of the KFAS scripts in the statsmodels wheel, their data, and their tables."""

import jax.numpy as jnp
import numpy as np
import pandas as pd

from golden import panels
from jaxfc.state_space import StateSpace


def space(transition, innovation_cov, design, observation_cov, initial_cov) -> StateSpace:
    """No intercepts, the initial mean zero."""
    arrays = [np.asarray(a, float) for a in (transition, innovation_cov, design, observation_cov)]
    size, num_series = len(arrays[0]), len(arrays[2])
    return StateSpace(
        initial_mean=np.zeros(size),
        initial_cov=initial_cov,
        transition=arrays[0],
        offset=np.zeros(size),
        innovation_cov=arrays[1],
        design=arrays[2],
        observation_offset=np.zeros(num_series),
        observation_cov=arrays[3],
    )


def macro_growth(names):
    """Log differences of US quarterly aggregates."""
    table = pd.read_csv(panels.statsmodels_file("datasets", "macrodata", "macrodata.csv"))
    return np.diff(np.log(table[list(names)].to_numpy()), axis=0)


def var_with_noise():
    """`test_smoothing2.R`: a VAR(1) of three growth rates seen with noise, N(0, 1e6 I) at first."""
    transition = [
        [-0.1119908792, 0.8441841604, 0.0238725303],
        [0.2629347724, 0.4996718412, -0.0173023305],
        [-3.2192369082, 4.1536028244, 0.4514379215],
    ]
    innovation_cov = [
        [0.0000640649, 0.0000388496, 0.0002148769],
        [0.0000388496, 0.0000572802, 0.000001555],
        [0.0002148769, 0.000001555, 0.0017088585],
    ]
    noise = [0.0000640649, 0.0000572802, 0.0017088585]
    data = macro_growth(["realgdp", "realcons", "realinv"])
    table = pd.read_csv(panels.statsmodels_results("results_smoothing2_R.csv"))
    return space(transition, innovation_cov, np.eye(3), noise, 1e6 * np.eye(3)), data, table


def autoregression():
    """An AR(3) of US wholesale price changes, observed without noise, eleven of them missing.

    The table of `test_smoothing3.R`; which cells are missing is said in the Python test beside it.
    """
    transition = [[0.5270715, 0.0952613, 0.2580355], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    first, second, third = 1.58276997, 1.24351589, 1.12706975
    initial_cov = np.array(
        [[first, second, third], [second, first, second], [third, second, first]]
    )
    innovation_cov = np.diag([0.5307459, 0.0, 0.0])
    prices = pd.read_csv(panels.statsmodels_results("results_wpi1_ar3_stata.csv"))["wpi"]
    table = pd.read_csv(panels.statsmodels_results("results_smoothing3_R.csv"))
    model = space(transition, innovation_cov, [[1.0, 0.0, 0.0]], [0.0], initial_cov)
    changes = np.diff(prices.to_numpy())[:, None]
    changes[9:20] = np.nan
    return model, changes, table


def diffuse_factor(variance):
    """The DFM of `test_exact_diffuse_filtering_multivariate.R`, its start N(0, `variance` I)."""
    data = 400.0 * macro_growth(["realgdp", "realcons"])[:20]
    table = pd.read_csv(panels.statsmodels_results("results_exact_initial_dfm_R.csv"))[:20]
    design = [[0.5, 0.0], [1.0, 0.0]]
    model = space(
        [[0.9, 0.1], [1.0, 0.0]], np.diag([1.0, 0.0]), design, [1.5, 2.0], variance * np.eye(2)
    )
    return model, data, table


def moments(model, data):
    """Smoothed moments and the likelihood; zero noise needs the univariate filter."""
    observed = ~np.isnan(data)
    values = jnp.asarray(np.where(observed, data, 1e6))
    return model.smooth(values, jnp.asarray(observed), implementation="univariate")
