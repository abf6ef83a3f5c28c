"""Parameters of other programs in our shapes, and the panels they belong to."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from golden.dfms_pipeline import VARIANCE_FLOOR, Parameters
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.moments import ClosedForm
from jaxfc.state_space import StateSpace


def as_arrays(data):
    """Values and mask for our functions; an unobserved cell holds a number nobody may read."""
    observed = ~np.isnan(data)
    return jnp.asarray(np.where(observed, data, 1e6)), jnp.asarray(observed)


def panel_data(data):
    """A panel as the factor model reads it."""
    observed = ~np.isnan(data)
    return PanelData(jnp.asarray(np.where(observed, data, 0.0)), jnp.asarray(observed, float))


def space_of(params, shift: np.ndarray | float = 0.0):
    """The state space of companion-form parameters whose initial law is one step before row 0."""
    transition, start_cov = params.transition, params.initial_cov
    num_series, num_factors = params.loadings.shape
    design = np.zeros((num_series, len(transition)))
    design[:, :num_factors] = params.loadings
    return StateSpace(
        initial_mean=transition @ params.initial_mean,
        initial_cov=transition @ start_cov @ transition.T + params.innovation_cov,
        transition=transition,
        offset=np.zeros(len(transition)),
        innovation_cov=params.innovation_cov,
        design=design,
        observation_offset=np.full(num_series, 0.0) + shift,
        observation_cov=params.idiosyncratic_var,
    )


def ascending(num_states, num_factors):
    """Positions that turn (f_t, f_{t-1}, ...) into (..., f_{t-1}, f_t), and back."""
    return np.arange(num_states).reshape(-1, num_factors)[::-1].ravel()


def factor_parameters(params, shift: np.ndarray | float = 0.0):
    """Companion-form parameters as ours: the initial law becomes that of p periods, ascending.

    A law one step before row 0 then belongs to p periods before the panel (`presample`); the
    stationary law, the same at every time, also to its first p rows.
    """
    num_series, num_factors = params.loadings.shape
    order = ascending(len(params.transition), num_factors)
    lags = params.transition[:num_factors].reshape(num_factors, -1, num_factors)
    return FactorParameters(
        loadings=jnp.asarray(params.loadings),
        intercept=jnp.zeros(num_series) + shift,
        idiosyncratic_cov=jnp.asarray(params.idiosyncratic_var),
        transition=jnp.asarray(lags.swapaxes(0, 1)),
        innovation_cov=jnp.asarray(params.innovation_cov[:num_factors, :num_factors]),
        initial_mean=jnp.asarray(params.initial_mean[order]),
        initial_cov=jnp.asarray(params.initial_cov[np.ix_(order, order)]),
    )


def em_step(num_presample, initial: str = "estimated"):
    """Our EM step in the convention of Banbura and Modugno for variances, no intercepts."""
    return EMStep(
        ClosedForm(),
        variance_floor=jnp.asarray(VARIANCE_FLOOR),
        initial=initial,
        presample=num_presample,
        missing_as_latent=True,
    )


def stationary(loadings, idiosyncratic_var, coefficients, innovation_cov):
    """Companion-form parameters from the stationary law; `coefficients` (factors, states)."""
    num_factors, num_states = coefficients.shape
    transition = np.eye(num_states, k=-num_factors)
    transition[:num_factors] = coefficients
    full_cov = np.zeros((num_states, num_states))
    full_cov[:num_factors, :num_factors] = innovation_cov
    kron = np.kron(transition, transition)
    start_cov = np.linalg.solve(np.eye(num_states**2) - kron, full_cov.ravel())
    return Parameters(
        loadings=loadings,
        idiosyncratic_var=idiosyncratic_var,
        transition=transition,
        innovation_cov=full_cov,
        initial_mean=np.zeros(num_states),
        initial_cov=start_cov.reshape(num_states, num_states),
    )


def stata_case(name):
    """Stationary parameters, intercepts and log-likelihood of a Stata `dfactor` fit."""
    pytest.importorskip("statsmodels", reason="needs statsmodels (extra 'data')")
    from statsmodels.tsa.statespace.tests.results import results_dynamic_factor

    theirs = getattr(results_dynamic_factor, f"lutkepohl_{name}")
    numbers = np.array(theirs["params"])
    num_factors = 2 if name == "dfm2" else 1
    loadings, numbers = np.split(numbers, [3 * num_factors])
    shift, numbers = (
        (numbers[:3], numbers[3:]) if name in ("dfm_exog1", "dfm_scalar") else (0.0, numbers)
    )
    variances, coefficients = np.split(numbers, [1 if name == "dfm_scalar" else 3])
    params = stationary(
        loadings.reshape(3, num_factors),
        np.full(3, 0.0) + variances,
        coefficients.reshape(num_factors, -1),
        np.eye(num_factors),
    )
    return params, shift, theirs["loglike"]


def simulated_panel(num_lags, with_gaps):
    """Eight series, forty months, two factors; gaps: 20 % of cells, an empty row, an early end."""
    rng = np.random.default_rng(3)
    coefficients = np.array([[[0.5, 0.2], [-0.1, 0.4]], [[0.2, 0.0], [0.1, 0.2]]])[:num_lags]
    factors = np.zeros((100, 2))
    for t in range(num_lags, 100):
        lagged = factors[t - num_lags : t][::-1]
        factors[t] = np.einsum("lab,lb->a", coefficients, lagged) + rng.standard_normal(2)
    noise = 1.3 * rng.standard_normal((40, 8))
    data = factors[60:] @ rng.standard_normal((2, 8)) + noise + np.arange(8)
    if with_gaps:
        data[rng.random(data.shape) < 0.2] = np.nan
        data[7] = np.nan
        data[30:, 3] = np.nan
    index = pd.period_range("2000-01", periods=40, freq="M")
    return pd.DataFrame(data, index=index, columns=list("abcdefgh"))


def statsmodels_case(num_lags, with_gaps):
    """A `DynamicFactorMQ` without AR(1) errors and a way to read its parameter vectors."""
    pytest.importorskip("statsmodels", reason="needs statsmodels (extra 'data')")
    from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

    model = DynamicFactorMQ(
        simulated_panel(num_lags, with_gaps),
        factors=1,
        factor_multiplicities=2,
        factor_orders=num_lags,
        idiosyncratic_ar1=False,
        standardize=True,
    )

    def read(numbers):
        counts = np.cumsum([16, 4 * num_lags, 3])
        loadings, coefficients, chol, variances = np.split(np.asarray(numbers), counts)
        innovation_chol = np.zeros((2, 2))
        innovation_chol[np.tril_indices(2)] = chol
        return stationary(
            loadings.reshape(8, 2),
            variances,
            coefficients.reshape(2, -1),
            innovation_chol @ innovation_chol.T,
        )

    return model, read


def assert_same_parameters(ours, theirs, rtol):
    """Each array to `rtol` of its largest entry."""
    for name in theirs.__dataclass_fields__:
        if getattr(theirs, name) is None:
            assert getattr(ours, name) is None, name
            continue
        expected = np.asarray(getattr(theirs, name))
        actual = getattr(ours, name)
        assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max(), err_msg=name)
