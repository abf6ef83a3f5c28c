"""What made the past: the estimated history split by shocks, and the factors by their data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.condition import check_fitted_panel, condition, fitted_data
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.moments import path_innovations
from jaxfc.factors.panel_law import expected_panel
from jaxfc.factors.two_step import TwoStepEM
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class HistoricalDecomposition(eqx.Module):
    """series[t] = mean + initial[t] + sum_k shocks[t, k] + idiosyncratic[t], in data units.

    `mean` is the unconditional mean of the series, `initial` what the first p factors have left,
    `shocks` what each factor's innovations up to t have added. `series` is the observed value, or
    its expectation given the panel where there is none.
    """

    mean: Float[Array, " time"]
    initial: Float[Array, " time"]
    shocks: Float[Array, "time factors"]
    idiosyncratic: Float[Array, " time"]
    series: Float[Array, " time"]

    @property
    def common(self) -> Float[Array, " time"]:
        """The smoothed common component, the mean included."""
        return self.mean + self.initial + jnp.sum(self.shocks, axis=1)

    def to_frame(self, index: "pd.DatetimeIndex") -> "pd.DataFrame":
        """One row a date: mean, initial, shock 1.., idiosyncratic, series."""
        import pandas as pd

        shocks = {f"shock {k + 1}": self.shocks[:, k] for k in range(self.shocks.shape[1])}
        columns = {"mean": self.mean, "initial": self.initial, **shocks}
        columns |= {"idiosyncratic": self.idiosyncratic, "series": self.series}
        return pd.DataFrame({name: np.asarray(x) for name, x in columns.items()}, index=index)


def historical_decomposition(
    fitted: FittedFactorModel, panel: "Panel", *, target: str, shocks: str = "cholesky"
) -> HistoricalDecomposition:
    """A series split into mean, initial conditions, each factor's shocks and its own error.

        f_t = Psi_t(f_1..f_p) + sum_{s <= t} Phi_{t-s} B e_s,    u_s = B e_s,
        x_t = mu + w' f_t + e_t

    exact: the parts add up at every date. `factors` are the smoothed ones, so that the shocks are
    estimates given the whole panel. B is the Cholesky factor of Q ("cholesky": shock k moves the
    factors from the k-th on at once, and shocks are uncorrelated under the model), or the identity
    ("plain": each factor's own innovation, correlated as Q says). The split over shocks, not its
    sum, depends on the rotation and the order of the factors: `identify` them first.

    **Arguments:** `panel`: the one that was fitted; `target`: a series of it.

    **Raises:** `ValueError` for another panel, an unknown target or an unknown kind of shocks.

    Source: Burbidge and Harrison (1985); Kilian and Luetkepohl (2017), section 4.4.
    """
    check_fitted_panel(fitted, panel)
    if target not in panel.names:
        raise ValueError(f"there is no series {target!r} in the panel.")
    if shocks not in ("cholesky", "plain"):
        raise ValueError(f"shocks are 'cholesky' or 'plain', got {shocks!r}.")
    values, observed = panel.arrays()
    if isinstance(fitted.model.method, TwoStepEM):
        series = fitted.scaling.restore(fitted.completed)
    else:
        series = jitted_expectation(fitted, values, observed, panel.aggregation)
    return jitted_split(fitted, series, panel.names.index(target), shocks)


jitted_expectation = eqx.filter_jit(expected_panel)


def shock_paths(
    transition: Float[Array, "lags factors factors"],
    impact: Float[Array, "factors factors"],
    factors: Float[Array, "time factors"],
) -> tuple[Float[Array, "time factors"], Float[Array, "time factors factors"]]:
    """Factors from their first p values alone, and [t, i, k] from shock k alone; they sum to them.

    `impact` is B of u = B e. Costs time p factors^3 flops, sequential in time.
    """
    num_lags = transition.shape[0]
    innovations = path_innovations(transition, factors)
    shocks = jnp.linalg.solve(impact, innovations.T).T
    driven = impact * shocks[:, None, :]  # (time - p, factors, shocks)
    silent = jnp.zeros((*innovations.shape, 1), factors.dtype)
    driven = jnp.concatenate([silent, driven], axis=2)
    first = jnp.pad(factors[:num_lags, :, None], ((0, 0), (0, 0), (0, factors.shape[1])))
    if num_lags == 0:
        return driven[:, :, 0], driven[:, :, 1:]

    def advance(history, new):
        # history (lags, factors, 1 + shocks), newest last
        now = new + jnp.einsum("lij,ljk->ik", transition, history[::-1])
        return jnp.concatenate([history[1:], now[None]]), now

    _, later = jax.lax.scan(advance, first, driven)
    paths = jnp.concatenate([first, later])
    return paths[:, :, 0], paths[:, :, 1:]


@eqx.filter_jit
def jitted_split(
    fitted: FittedFactorModel, series: Float[Array, "time series"], column: int, shocks: str
) -> HistoricalDecomposition:
    """`historical_decomposition` on arrays: pure."""
    parameters, scale = fitted.parameters, fitted.scaling.scale[column]
    cov = parameters.innovation_cov
    identity = jnp.eye(parameters.num_factors, dtype=cov.dtype)
    impact = jnp.linalg.cholesky(cov) if shocks == "cholesky" else identity
    initial, by_shock = shock_paths(parameters.transition, impact, fitted.factors)
    loading = scale * parameters.loadings[column]
    mean = fitted.scaling.centre[column] + scale * parameters.intercept[column]
    return HistoricalDecomposition(
        mean=jnp.full(series.shape[0], mean),
        initial=initial @ loading,
        shocks=jnp.einsum("i,tik->tk", loading, by_shock),
        idiosyncratic=series[:, column] - fitted.common[:, column],
        series=series[:, column],
    )


class FactorContributions(eqx.Module):
    """total[t, j] = base[t, j] + sum_g parts[t, j, g]: smoothed factors by groups of series.

    j runs over the factors (standardised units), or is the one common component of a target (data
    units). `base` is the estimate if every cell had shown its mean.
    """

    base: Float[Array, "time outputs"]
    parts: Float[Array, "time outputs groups"]
    total: Float[Array, "time outputs"]
    groups: tuple[str, ...] = eqx.field(static=True)

    def to_frame(self, index: "pd.DatetimeIndex", output: int = 0) -> "pd.DataFrame":
        """One row a date for one output: base, every group, total."""
        import pandas as pd

        frame = pd.DataFrame(np.asarray(self.parts[:, output]), index, list(self.groups))
        frame.insert(0, "base", np.asarray(self.base[:, output]))
        frame["total"] = np.asarray(self.total[:, output])
        return frame


def factor_contributions(
    fitted: FittedFactorModel,
    panel: "Panel",
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    target: str | None = None,
) -> FactorContributions:
    """What each group of series adds to the smoothed factors, or to a target's common component.

        E[f_t | x] = base_t + sum_g sum_{i in g, s} (d E[f_t] / d x_si) (x_si - mean_i)

    exact, as the smoother is affine in the data given the parameters. One forward derivative for
    each group, of the cost of a smoother.

    **Arguments:** `panel`: the one that was fitted; `groups`: names to series, holding every series
    exactly once (default: every series by itself); `target`: a series whose common component is
    split instead of the factors.

    **Raises:** `ValueError` for another panel, groups that leave out or repeat series, an unknown
    target, and for principal components, whose factors are not moments of the model.

    Source: Koopman and Harvey (2003), weights of the smoother; by differentiation.
    """
    check_fitted_panel(fitted, panel)
    groups = {name: [name] for name in panel.names} if groups is None else groups
    members = [name for group in groups.values() for name in group]
    if sorted(members) != sorted(panel.names):
        counts = {name: members.count(name) for name in {*members, *panel.names}}
        odd = sorted(n for n, count in counts.items() if count != panel.names.count(n))
        raise ValueError(f"the groups must hold every series exactly once; check {', '.join(odd)}.")
    if target is not None and target not in panel.names:
        raise ValueError(f"there is no series {target!r} in the panel.")
    column = None if target is None else panel.names.index(target)
    chosen = np.array([[name in group for name in panel.names] for group in groups.values()])
    base, parts, total = jitted_factor_parts(fitted, jnp.asarray(chosen), column)
    return FactorContributions(base, parts, total, tuple(groups))


@eqx.filter_jit
def jitted_factor_parts(
    fitted: FittedFactorModel, chosen: Array, column: int | None
) -> tuple[Array, Array, Array]:
    """Base, parts and total of the smoothed factors or of one common component; pure."""
    parameters, data = fitted.parameters, fitted_data(fitted)

    def outputs(values: Array) -> Array:
        factors = condition(fitted, dataclasses.replace(data, values=values)).factors
        if column is None:
            return factors
        common = factors @ parameters.loadings[column] + parameters.intercept[column]
        scaling = fitted.scaling
        return (scaling.centre[column] + scaling.scale[column] * common)[:, None]

    deviations = centred_values(data.values, data.observed, parameters.intercept, data.coupling)
    base, slope = jax.linearize(outputs, data.values - deviations)
    parts = jax.vmap(slope)(chosen[:, None, :] * deviations)
    return base, jnp.moveaxis(parts, 0, -1), outputs(data.values)
