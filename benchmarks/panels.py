"""Simulated panels and models of the benchmarks, and the sizes at which packages are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import FactorParameters, ppca_loadings, static_factors, with_dynamics
from jaxfc.factors.em import PanelData
from jaxfc.state_space import StateSpace, stationary_law

SIZES = ((35, 100, 2, 1), (100, 250, 3, 2), (100, 500, 5, 2))  # series, time, factors, lags
BURN_IN = 50


def draw_panel(
    num_series: int, num_times: int, num_factors: int, num_lags: int, missing: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A standardised panel (time, series), zero where missing, and its mask of ones and zeros.

    VAR(p) factors whose coefficient matrices are orthogonally similar to diagonal ones with entries
    between 0.25 / p and 0.75 / p; Gaussian loadings; idiosyncratic variance equal to that of the
    common component (R^2 of one half); cells missing uniformly at random.
    """
    rng = np.random.default_rng(seed)
    coefficients = []
    for _ in range(num_lags):
        basis, _ = np.linalg.qr(rng.normal(size=(num_factors, num_factors)))
        roots = rng.uniform(0.25, 0.75, num_factors) / num_lags
        coefficients.append(basis @ np.diag(roots) @ basis.T)
    factors = rng.normal(size=(num_times + BURN_IN, num_factors))
    for t in range(num_lags, num_times + BURN_IN):
        factors[t] += sum(a @ factors[t - 1 - lag] for lag, a in enumerate(coefficients))
    common = factors[BURN_IN:] @ rng.normal(size=(num_series, num_factors)).T
    values = common + common.std(axis=0) * rng.normal(size=common.shape)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    observed = (rng.random(values.shape) >= missing).astype(float)
    return values * observed, observed


def starting_point(
    values: np.ndarray, observed: np.ndarray, num_factors: int, num_lags: int
) -> tuple[FactorParameters, PanelData]:
    """Principal-component parameters, and the panel as the E-step reads it."""
    data = PanelData(jnp.asarray(values), jnp.asarray(observed))
    loadings, noise = ppca_loadings(data.values, data.observed, num_factors)
    variances = jnp.full(loadings.shape[0], noise)
    factors = static_factors(data.values, data.observed, loadings, variances)
    return with_dynamics(loadings, variances, factors, num_lags), data


def draw_space(num_series: int, num_states: int, *, key: jax.Array) -> StateSpace:
    """Orthogonal-similar dynamics with roots 0.25 to 0.75, half of each variance common."""
    root_key, design_key = jax.random.split(key)
    rotation, _ = jnp.linalg.qr(jax.random.normal(root_key, (num_states, num_states)))
    transition = rotation @ (jnp.linspace(0.25, 0.75, num_states)[:, None] * rotation.T)
    offset, innovation_cov = jnp.zeros(num_states), jnp.eye(num_states)
    mean, cov = stationary_law(transition, offset, innovation_cov)
    design = jax.random.normal(design_key, (num_series, num_states))
    return StateSpace(
        initial_mean=mean,
        initial_cov=cov,
        transition=transition,
        offset=offset,
        innovation_cov=innovation_cov,
        design=design,
        observation_offset=jnp.zeros(num_series),
        observation_cov=jnp.einsum("ia,ab,ib->i", design, cov, design),
    )
