"""statsmodels, with which factor estimation is compared, and its parameters in our form."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

from jaxfc.factors.components import FactorParameters
from jaxfc_kernels.var_precision import stationary_block_cov

MAX_STEPS = 500


def frame(values: np.ndarray, observed: np.ndarray) -> pd.DataFrame:
    """The panel as the peers take it: monthly, NaN where missing."""
    index = pd.period_range("1980-01", periods=values.shape[0], freq="M")
    columns = [f"x{i}" for i in range(values.shape[1])]
    return pd.DataFrame(np.where(observed > 0, values, np.nan), index=index, columns=columns)


class Statsmodels:
    """DynamicFactorMQ and its parameters in our form."""

    def __init__(
        self, table: pd.DataFrame, num_factors: int, num_lags: int, *, ar_errors: bool = False
    ):
        self.num_factors, self.num_lags = num_factors, num_lags
        self.model = DynamicFactorMQ(
            table,
            factors=1,
            factor_multiplicities=num_factors,  # one block: a joint VAR, not one per factor
            factor_orders=num_lags,
            idiosyncratic_ar1=ar_errors,
            standardize=False,
        )

    def iterate(self, params: np.ndarray, init=None):
        """One EM iteration."""
        return self.model._em_iteration(params, init=init, mstep_method="missing")

    def fit(self, tolerance: float, return_params: bool):
        """Their EM from their start."""
        return self.model.fit_em(
            maxiter=MAX_STEPS, tolerance=tolerance, disp=False, return_params=return_params
        )

    def parameters(self, params: np.ndarray, init=None) -> FactorParameters:
        """Their parameters; `init` is their law of the state (f_1, f_0, ...), newest first."""
        self.model.update(params)
        space = self.model.ssm
        num_factors, num_lags = self.num_factors, self.num_lags
        states = num_factors * num_lags
        transition = np.asarray(space["transition"])[:num_factors, :states]
        transition = transition.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)
        innovation_cov = np.asarray(space["state_cov"])[:num_factors, :num_factors]
        if init is None:
            mean = np.zeros(states)
            cov = np.asarray(stationary_block_cov(jnp.asarray(transition), innovation_cov))
        else:
            ascending = np.arange(states).reshape(num_lags, num_factors)[::-1].ravel()
            mean = np.asarray(init.constant)[ascending]
            cov = np.asarray(init.stationary_cov)[np.ix_(ascending, ascending)]
        loadings = np.asarray(space["design"])[:, :num_factors]
        variances = np.diag(np.asarray(space["obs_cov"]))
        return as_parameters(loadings, variances, transition, innovation_cov, mean, cov)


def as_parameters(loadings, variances, transition, innovation_cov, mean, cov) -> FactorParameters:
    """Arrays as `FactorParameters`."""
    return FactorParameters(
        loadings=jnp.asarray(loadings),
        intercept=jnp.zeros(loadings.shape[0]),
        idiosyncratic_cov=jnp.asarray(variances),
        transition=jnp.asarray(transition),
        innovation_cov=jnp.asarray(innovation_cov),
        initial_mean=jnp.asarray(mean),
        initial_cov=jnp.asarray(cov),
    )
