"""The factor model's parameters as one vector of free numbers, under a fixed normalisation.

Parameters are unique only up to F -> R F, so neither a Hessian nor a standard error means anything
before R is fixed. Here Q = I and the loadings of K chosen series are lower triangular with positive
diagonal (Stata's `dfactor` has Q = I; the triangle is what K > 1 needs besides). A static model has
N(0, I) factors already.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.checks import has_priors
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import check_fitted_panel
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.identify import (
    check_rows,
    rotate_parameters,
    transform,
    triangular_rotation,
)
from jaxfc.factors.likelihood import with_initial_law
from jaxfc.factors.methods import EM
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
    from jaxfc.panel import Panel


def identification_matrix(
    parameters: FactorParameters, rows: tuple[int, ...]
) -> Float[Array, "factors factors"]:
    """R such that R F has innovations of covariance I and triangular loadings of the `rows`."""
    scale = jnp.linalg.cholesky(parameters.innovation_cov)
    block = parameters.loadings[jnp.asarray(rows)] @ scale
    return transform(scale, triangular_rotation(block))


def identified(parameters: FactorParameters, rows: tuple[int, ...]) -> FactorParameters:
    """The parameters with Q = I and lower-triangular loadings of the `rows`: the same law."""
    rotated = rotate_parameters(parameters, identification_matrix(parameters, rows))
    size = parameters.num_factors
    triangle = jnp.tril(rotated.loadings[jnp.asarray(rows)])  # exact zeros above the diagonal
    return dataclasses.replace(
        rotated,
        loadings=rotated.loadings.at[jnp.asarray(rows)].set(triangle),
        innovation_cov=jnp.eye(size, dtype=triangle.dtype),
    )


class FreeParameters(eqx.Module):
    """Which entries of identified parameters are free, and their order in the vector.

    Loadings by series (without the zeros above the triangle of the `rows`), the intercept if
    `intercept`, the variances (one if `isotropic`), the transition by lag, row and column, and
    AR(1) coefficients of the errors of the series `with_memory`. `unconstrained` puts logarithms
    of the variances and inverse hyperbolic tangents of the AR(1) coefficients into the vector.
    """

    num_series: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    rows: tuple[int, ...] = eqx.field(static=True)
    intercept: bool = eqx.field(static=True, default=False)
    isotropic: bool = eqx.field(static=True, default=False)
    with_memory: tuple[int, ...] = eqx.field(static=True, default=())
    unconstrained: bool = eqx.field(static=True, default=False)
    initial: str = eqx.field(static=True, default="stationary")

    @property
    def free_loadings(self) -> np.ndarray:
        """Which loadings are not zero by normalisation, (series, factors)."""
        free = np.ones((self.num_series, self.num_factors), bool)
        free[list(self.rows)] = np.tri(self.num_factors, dtype=bool)
        return free

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block that has free entries, in order."""
        factors, series = self.num_factors, self.num_series
        shapes: dict[str, tuple[int, ...]] = {"loadings": (series, factors)}
        if self.intercept:
            shapes["intercept"] = (series,)
        shapes["variances"] = (1,) if self.isotropic else (series,)
        if self.num_lags:
            shapes["transition"] = (self.num_lags, factors, factors)
        if self.with_memory:
            shapes["idiosyncratic_ar"] = (series,)
        return shapes

    @property
    def free(self) -> dict[str, np.ndarray]:
        """Which entries of each block are free."""
        everything = {name: np.ones(shape, bool) for name, shape in self.shapes.items()}
        if self.with_memory:
            everything["idiosyncratic_ar"] = np.isin(np.arange(self.num_series), self.with_memory)
        return {**everything, "loadings": self.free_loadings}

    @property
    def places(self) -> dict[str, slice]:
        """Where each block stands in the vector."""
        stops = np.cumsum([mask.sum() for mask in self.free.values()]).tolist()
        return {
            name: slice(start, stop)
            for name, start, stop in zip(self.free, [0, *stops], stops, strict=False)
        }

    def pack(self, parameters: FactorParameters) -> Float[Array, " parameters"]:
        """The vector of identified parameters."""
        variances = parameters.idiosyncratic_cov
        variances = variances[:1] if self.isotropic else variances
        blocks = {
            "loadings": parameters.loadings,
            "intercept": parameters.intercept,
            "variances": jnp.log(variances) if self.unconstrained else variances,
            "transition": parameters.transition,
        }
        if self.with_memory:
            ar = parameters.idiosyncratic_ar
            assert ar is not None
            blocks["idiosyncratic_ar"] = jnp.arctanh(ar) if self.unconstrained else ar
        return jnp.concatenate([blocks[name][free] for name, free in self.free.items()])

    def spread(self, vector: Float[Array, " parameters"], name: str) -> Array:
        """One block of a vector in its own shape, zero where nothing is free."""
        free = self.free[name]
        empty = jnp.zeros(free.shape, vector.dtype)
        return empty.at[np.nonzero(free)].set(vector[self.places[name]])

    def unpack(
        self, vector: Float[Array, " parameters"], template: FactorParameters
    ) -> FactorParameters:
        """Parameters of a vector; what is not free is that of the `template`, the stationary
        initial law that of the vector."""
        variances = self.spread(vector, "variances")
        variances = jnp.exp(variances) if self.unconstrained else variances
        changes = {
            "loadings": self.spread(vector, "loadings"),
            "idiosyncratic_cov": jnp.broadcast_to(variances, (self.num_series,)),
        }
        if self.intercept:
            changes["intercept"] = self.spread(vector, "intercept")
        if self.num_lags:
            changes["transition"] = self.spread(vector, "transition")
        if self.with_memory:
            ar = self.spread(vector, "idiosyncratic_ar")
            changes["idiosyncratic_ar"] = jnp.tanh(ar) if self.unconstrained else ar
        return with_initial_law(dataclasses.replace(template, **changes), self.initial)

    def slopes(self, scale: Float[Array, " series"]) -> Float[Array, " parameters"]:
        """d (number in data units) / d (number in standardised units), series scaled by `scale`.

        One isotropic variance has no unit of its own and stays as it is.
        """
        one = jnp.ones((), scale.dtype)
        blocks = {
            "loadings": jnp.broadcast_to(scale[:, None], self.shapes["loadings"]),
            "intercept": scale,
            "variances": one[None] if self.isotropic else scale**2,
            "transition": jnp.broadcast_to(one, self.shapes.get("transition", ())),
            "idiosyncratic_ar": jnp.ones_like(scale),
        }
        return jnp.concatenate([blocks[name][free] for name, free in self.free.items()])

    def labels(self, names: Sequence[str]) -> list[str]:
        """A name for each entry of the vector; factors and lags count from 1."""
        factors = range(1, self.num_factors + 1)
        lags = range(1, self.num_lags + 1)
        blocks = {
            "loadings": [[f"loadings[{name}, {k}]" for k in factors] for name in names],
            "intercept": [f"intercept[{name}]" for name in names],
            "variances": ["variance"] if self.isotropic else [f"variance[{n}]" for n in names],
            "transition": [
                [[f"transition[lag {lag}, {j}, {k}]" for k in factors] for j in factors]
                for lag in lags
            ],
            "idiosyncratic_ar": [f"idiosyncratic_ar[{name}]" for name in names],
        }
        found: list[str] = []
        for name, free in self.free.items():
            found.extend(np.array(blocks[name], dtype=object)[free].tolist())
        return found


def free_parameters(
    fitted: "FittedFactorModel",
    rows: tuple[int, ...],
    *,
    intercept: bool | None = None,
    unconstrained: bool = False,
) -> FreeParameters:
    """The free parameters of a fitted model; the intercept is one of them if it was estimated."""
    model, parameters = fitted.model, fitted.parameters
    num_series, num_factors = parameters.loadings.shape
    return FreeParameters(
        num_series=num_series,
        num_factors=num_factors,
        num_lags=parameters.num_lags,
        rows=rows,
        intercept=model.intercept == "estimated" if intercept is None else intercept,
        isotropic=model.idiosyncratic == "isotropic",
        with_memory=series_with_memory(fitted.model, fitted.parameters.loadings.shape[0]),
        unconstrained=unconstrained,
        initial=model.initial,
    )


def series_with_memory(model: "DynamicFactorModel", num_series: int) -> tuple[int, ...]:
    """Series whose errors have a coefficient of their own."""
    if not isinstance(model.errors, AutoregressiveErrors):
        return ()
    without = () if model.errors.of_flows or model.flows is None else model.flows.columns
    return tuple(i for i in range(num_series) if i not in without)


def check_inference(fitted: "FittedFactorModel", panel: "Panel") -> None:
    """Raise `ValueError` unless the likelihood of this panel is what the parameters maximise."""
    if not isinstance(fitted.model.method, EM):
        raise ValueError(
            f"standard errors need the maximum of the panel's likelihood, which "
            f"{type(fitted.model.method).__name__}() does not look for; use method=EM(), or "
            "`bootstrap`, which repeats any method on simulated panels."
        )
    if fitted.parameters.idiosyncratic_cov.ndim != 1:
        raise ValueError(
            "idiosyncratic='full' has no score here; use 'diagonal' or 'isotropic', or `bootstrap`."
        )
    if fitted.model.weighting is not None:
        raise ValueError(
            "a model with `weighting` maximises a bound with weights of its own, no likelihood in "
            "the parameters alone; use `bootstrap`."
        )
    if has_priors(fitted.model):
        raise ValueError(
            "shrunk variances and random intercepts are no maximum of the likelihood; use "
            "idiosyncratic='diagonal' and intercept='estimated', or `bootstrap`."
        )
    if fitted.model.restrictions is not None:
        raise ValueError(
            "restrictions fix the factors in their own way, which the normalisation of standard "
            "errors (Q = I, triangular loadings) would break; use `bootstrap`."
        )
    check_fitted_panel(fitted, panel)
    floor = np.asarray(fitted.model.variance_floor) * (1.0 + 1e-6)
    at_floor = np.flatnonzero(np.asarray(fitted.parameters.variances) <= floor)
    if at_floor.size:
        raise ValueError(
            f"the error variance of series {panel.names[at_floor[0]]!r} is at the model's "
            "variance_floor, the edge of the parameter space, where standard errors do not exist; "
            "use fewer factors or drop the series."
        )


def triangular_rows(
    panel: "Panel", num_factors: int, series: Sequence[str] | None
) -> tuple[int, ...]:
    """Positions of the series whose loadings are made triangular (default: the first K)."""
    if series is None:
        return tuple(range(num_factors))
    unknown = [name for name in series if name not in panel.names]
    if unknown:
        raise ValueError(f"there is no series {unknown[0]!r} in the panel.")
    rows = tuple(panel.names.index(name) for name in series)
    check_rows(rows, len(panel.names), num_factors)
    return rows


def separate_rows(loadings: Float[np.ndarray, "series factors"]) -> tuple[int, ...]:
    """K series whose loadings are far from collinear: Gram-Schmidt, the longest remainder first."""
    rows, remainder = [], np.array(loadings)
    for _ in range(loadings.shape[1]):
        lengths = np.linalg.norm(remainder, axis=1)
        lengths[rows] = -1.0
        rows.append(int(np.argmax(lengths)))
        direction = remainder[rows[-1]] / max(lengths[rows[-1]], np.finfo(float).tiny)
        remainder = remainder - np.outer(remainder @ direction, direction)
    return tuple(rows)
