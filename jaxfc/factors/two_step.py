"""The two-step estimator: reconstruction of the panel and estimation on it, alternating."""

from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import PanelData, completed_data
from jaxfc.factors.iterate import iterate
from jaxfc.factors.methods import EM, Candidate, Estimate, Method, ppca_start
from jaxfc.factors.reconstruct import (
    imputed_share,
    interpolate_constant,
    reconstruct_jointly,
    reconstruct_series,
)
from jaxfc.typing import Array, Float, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.factors.model import DynamicFactorModel


class TwoStepEM(Method):
    """The paper's alternation: estimate on a completed panel, rebuild incomplete series, repeat.

    The inner estimation is a complete-panel EM (`inner`), restarted from principal components each
    time unless `restart=False`; the outer loop stops when its likelihood criterion changes by less
    than `rtol` or after `max_steps`. `cross_section` rebuilds each series from all series' errors
    instead of its own; `conditional_cov` adds the conditional variance of rebuilt cells to the
    idiosyncratic variances, without which they are too small (factors.md section 5). Works for
    stocks, flows and changes in flows on irregular calendars (Defend et al. 2021, section 3). The
    result code is that of the outer loop; inner estimations may end at their `max_steps`. Implicit
    derivatives need a tight `rtol`: they are those of the fixed point.
    """

    rtol: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-3)
    max_steps: int = eqx.field(static=True, default=50)
    inner: EM = eqx.field(default_factory=lambda: EM(rtol=1e-3, max_steps=100))
    cross_section: bool = eqx.field(static=True, default=False)
    conditional_cov: bool = eqx.field(static=True, default=False)
    restart: bool = eqx.field(static=True, default=True)

    reads_flows: ClassVar[bool] = True
    rebuilds_panel: ClassVar[bool] = True

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        if self.cross_section and self.conditional_cov:
            raise ValueError(
                "cross_section=True with conditional_cov=True is not available: the joint "
                "conditional covariance has no closed form for flows. Use EM() with "
                "idiosyncratic='full' for stocks, or one of the two options."
            )

    def run(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        rows: AggregationRows | None,
        start: FactorParameters | None,
        candidate: Candidate,
    ) -> Estimate:
        values, observed = data.values, data.observed
        share = imputed_share(observed) if self.conditional_cov else None

        def completed(panel: Array) -> PanelData:
            return completed_data(panel, observed, share)

        def alternate(state, args):
            panel, parameters = state
            values, observed, rows = args
            current = completed(panel)
            warm = None if self.restart else parameters
            begin = ppca_start(model, centre(current), candidate) if warm is None else warm
            begin = eqx.tree_at(lambda p: p.intercept, begin, column_means(current))
            parameters = self.inner.iterate(model, current, begin, candidate).value
            step = self.inner.step(model, candidate)
            expectation = step.expect(parameters, current)
            factors = expectation.posterior.means[model.presample :]
            common = parameters.intercept + factors @ parameters.loadings.T
            if self.cross_section:
                cov = parameters.idiosyncratic_cov
                cov = jnp.diag(cov) if cov.ndim == 1 else cov
                panel = reconstruct_jointly(rows, values, observed, common, cov)
            else:
                panel = reconstruct_series(rows, values, observed, common)
            return (panel, parameters), expectation.criterion

        panel = interpolate_constant(rows, values, observed)
        if start is None:
            start = ppca_start(model, centre(completed(panel)), candidate)
        first = jax.lax.stop_gradient((panel, start))
        # The likelihood of a panel that is rebuilt each time need not rise.
        outcome = iterate(
            alternate,
            first,
            (values, observed, rows),
            rtol=self.rtol,
            max_steps=self.max_steps,
            ascending=False,
        )
        panel, parameters = outcome.value
        return Estimate(
            parameters, completed(panel), outcome.num_steps, outcome.path, outcome.result
        )


def column_means(data: PanelData) -> Float[Array, " series"]:
    """Means over the rows with data."""
    return jnp.sum(data.values, axis=0) / jnp.sum(data.observed, axis=0)


def centre(data: PanelData) -> PanelData:
    """A complete panel with its column means taken off."""
    centred = data.values - data.observed * column_means(data)
    return eqx.tree_at(lambda d: d.values, data, centred)
