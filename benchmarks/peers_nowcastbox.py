"""nowcastbox, with which factor estimation is compared, and its parameters in our form."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
from nowcastbox.core.data import MixedFrequencyData
from nowcastbox.models import MixedFreqDFM
from nowcastbox.models import em as nowcastbox_em
from peers import MAX_STEPS, as_parameters

from jaxfc.factors.components import FactorParameters
from jaxfc_kernels.var_precision import stationary_block_cov


class Nowcastbox:
    """MixedFreqDFM and its parameters in our form."""

    def __init__(
        self, table: pd.DataFrame, num_factors: int, num_lags: int, *, ar_errors: bool = False
    ):
        self.num_factors, self.num_lags = num_factors, num_lags
        self.panel = MixedFrequencyData(table, "M")
        errors = "ar1" if ar_errors else "iid"
        self.layout = nowcastbox_em.build_layout(self.panel, num_factors, num_lags, None, errors)
        self.start = nowcastbox_em.pca_initial_parameters(self.panel, self.layout)
        self.values = self.panel.values
        self.method = MixedFreqDFM().filter_method

    def expect(self, params):
        """E-step."""
        space = nowcastbox_em.build_state_space(params, self.layout, self.values.shape[0])
        return nowcastbox_em.e_step(space, self.values, method=self.method)

    def iterate(self, params):
        """One EM iteration."""
        return nowcastbox_em.m_step(self.expect(params), self.layout, self.values, params)

    def fit(self, tolerance: float) -> nowcastbox_em.EMOutcome:
        """Their EM from their start."""
        return nowcastbox_em.run_em(
            self.start,
            self.layout,
            self.values,
            max_iter=MAX_STEPS,
            tol=tolerance,
            method=self.method,
        )

    def parameters(self, params) -> FactorParameters:
        """Their parameters with the stationary initial law."""
        shape = (self.num_factors, self.num_lags, self.num_factors)
        transition = params.transition[0].reshape(shape).swapaxes(0, 1)
        innovation_cov = params.factor_cov[0]
        cov = np.asarray(stationary_block_cov(jnp.asarray(transition), innovation_cov))
        loadings = params.loadings[:, : self.num_factors]
        mean = np.zeros(cov.shape[0])
        return as_parameters(loadings, params.obs_var, transition, innovation_cov, mean, cov)
