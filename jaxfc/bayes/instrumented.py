"""Instrumented PCA as a model: loadings that follow characteristics, and forecasts from them."""

from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.arguments import refuse_sums
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares
from jaxfc.bayes.instrumented_dynamics import FactorExpectation, MeanFactors
from jaxfc.bayes.instrumented_fitted import (
    FittedInstrumentedPCA,
    errors_of_rows,
    explained_by,
    factor_path,
    gaussian_loglik,
)
from jaxfc.bayes.instrumented_panel import check_cells, check_names
from jaxfc.bayes.instrumented_portfolios import managed_portfolios
from jaxfc.bayes.instrumented_rows import Instruments
from jaxfc.model import Model
from jaxfc.results import RESULTS, is_okay, select
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class InstrumentedPCA(Model):
    """Latent factors whose loadings are linear in characteristics known before the return.

        r_{i,t} = z_{i,t-1}' (Gamma_a + Gamma f_t + Gamma_g g_t) + e_{i,t}

    The columns of the panel are the N returns, then a block of N columns "<asset> <characteristic>"
    for each of `characteristics`, then the factors `given` by name
    (`jaxfc.bayes.instrumented_panel` lays them out). A row holds what is known at its end: the
    characteristics of row t - 1 load the return of row t. A cell counts if its return and all
    characteristics before it are observed, a row if it has as many such cells as factors.

    **Options:** `num_factors` latent factors; `intercept` adds Gamma_a; `constant` adds a
    characteristic that is one; `ranked` replaces characteristics by their ranks in the row, -1/2 to
    1/2; `expectation` is what is expected of the factors (`MeanFactors()`,
    `AutoregressiveFactors()`, `VectorAutoregressiveFactors()`); `ridge`, `tolerance` and
    `max_steps` as in `AlternatingLeastSquares`. Error variances are v_i = (sum e_it^2 + m v) /
    (n_i + m), v over all assets, m = `prior_rows`.

    **Raises:** `ValueError` for more factors than characteristics, counts out of range or repeated
    names; from `fit` for columns out of place, an unknown characteristic, an asset without a usable
    cell, and characteristics that are collinear.

    Source: Kelly, Pruitt and Su (2017, 2019).
    """

    characteristics: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    num_factors: int = eqx.field(static=True)
    given: tuple[str, ...] = eqx.field(static=True, converter=tuple, default=(), kw_only=True)
    intercept: bool = eqx.field(static=True, default=False, kw_only=True)
    constant: bool = eqx.field(static=True, default=False, kw_only=True)
    ranked: bool = eqx.field(static=True, default=False, kw_only=True)
    expectation: FactorExpectation = eqx.field(default_factory=MeanFactors, kw_only=True)
    ridge: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-8, kw_only=True)
    max_steps: int = eqx.field(static=True, default=5000, kw_only=True)
    prior_rows: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0, kw_only=True)

    def __check_init__(self):
        names = self.instruments.names
        if not self.characteristics or len(set(names)) < len(names):
            raise ValueError(f"characteristics must be distinct names, got {self.characteristics}.")
        if self.num_factors > len(names):
            raise ValueError(
                f"{self.num_factors} factors cannot be told apart by {len(names)} characteristics "
                f"{names}; ask for fewer factors or add characteristics."
            )
        if self.num_factors == 0 and not self.given and not self.intercept:
            raise ValueError("num_factors=0 needs factors given=(...) or intercept=True.")
        if not isinstance(self.prior_rows, Tracer) and not float(self.prior_rows) >= 0.0:
            raise ValueError(f"prior_rows must be 0 or more, got {float(self.prior_rows)}.")
        _ = self.method

    @property
    def instruments(self) -> Instruments:
        """How the columns are read."""
        return Instruments(self.characteristics, self.given, self.ranked, self.constant)

    @property
    def method(self) -> AlternatingLeastSquares:
        """How Gamma and the factors are found."""
        return AlternatingLeastSquares(
            self.num_factors,
            intercept=self.intercept,
            ridge=self.ridge,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.instruments.assets(names)

    def check(self, panel: "Panel") -> None:
        refuse_sums(panel.aggregation, "InstrumentedPCA")
        assets = check_names(panel.names, self.characteristics, self.given)
        rows = self.instruments.read(*panel.arrays())
        check_cells(
            np.asarray(rows.characteristics),
            np.asarray(rows.usable),
            assets,
            self.instruments.names,
        )
        width = self.num_factors + len(self.given) + self.intercept
        self.check_size(np.asarray(rows.usable), width)
        for place, name in enumerate(self.given):
            values = panel.values[:, panel.num_series - len(self.given) + place]
            if self.intercept and np.ptp(values[panel.observed[:, panel.names.index(name)]]) == 0:
                raise ValueError(
                    f"the given factor {name!r} is constant, which is collinear with the "
                    "intercept; drop it or pass intercept=False."
                )

    def check_size(self, usable: np.ndarray, width: int) -> None:
        """Raise `ValueError` for fewer cells than coefficients."""
        size = len(self.instruments.names) * width
        telling = usable[usable.sum(axis=1) >= max(self.num_factors, 1)]
        if telling.sum() <= size + len(telling) * self.num_factors:
            raise ValueError(
                f"{int(telling.sum())} usable cells in {len(telling)} rows cannot tell {size} "
                f"coefficients and {len(telling)} x {self.num_factors} factors; add assets or ask "
                "for fewer factors or characteristics."
            )

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedInstrumentedPCA:
        refuse_sums(aggregation, "InstrumentedPCA")
        instruments, method = self.instruments, self.method
        rows = instruments.read(values, observed)
        portfolios = managed_portfolios(rows.returns, rows.characteristics, rows.usable)
        found = method.solve(portfolios, rows.given, rows.given_observed)
        coefficients = found.coefficients
        path, known = factor_path(method, coefficients, rows)
        law = self.expectation.estimate(path, known)
        _, state_mean, state_cov = law.filtered(path, known)
        errors, cells = errors_of_rows(method, coefficients, rows)
        variances = self.variances(errors, cells)
        unstable = is_okay(found.result) & ~law.is_stable
        return FittedInstrumentedPCA(
            instruments=instruments,
            method=method,
            coefficients=coefficients,
            law=law,
            state_mean=state_mean,
            state_cov=state_cov,
            latest=rows.latest,
            idiosyncratic_cov=variances,
            explained=explained_by(method, coefficients, law, rows, "zero"),
            path=found.path,
            loglik=gaussian_loglik(errors, cells, variances),
            num_steps=found.num_steps,
            result=select(unstable, cast(RESULTS, RESULTS.nonstationary), found.result),
        )

    def variances(
        self, errors: Float[Array, "time series"], cells: Bool[Array, "time series"]
    ) -> Float[Array, " series"]:
        """v_i, drawn to the variance of all cells by `prior_rows`."""
        rows = self.prior_rows.astype(errors.dtype)
        common = jnp.sum(errors**2) / jnp.sum(cells)
        counts = jnp.sum(cells, axis=0)
        own = jnp.sum(errors**2, axis=0) + rows * common
        # Without prior rows an asset without a cell would have no variance at all.
        held = counts + rows > 0
        return jnp.where(held, own / jnp.where(held, counts + rows, 1.0), common)
