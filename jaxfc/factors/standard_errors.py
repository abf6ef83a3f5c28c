"""Standard errors of an estimated factor model, from the curvature of its likelihood."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.free_parameters import (
    FreeParameters,
    check_inference,
    free_parameters,
    identified,
    triangular_rows,
)
from jaxfc.factors.information import Spectrum, observed_information, score_terms, spectrum
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.scaling import Scaling
from jaxfc.typing import Array, Bool, Float

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel

KINDS = ("hessian", "opg", "sandwich")


class ParameterBlock(NamedTuple):
    """One block in its own shape (zero `std` where an entry is fixed); `cov` of its free entries,
    in the order in which they stand."""

    estimate: Float[Array, "..."]
    std: Float[Array, "..."]
    cov: Float[Array, "entries entries"]


class StandardErrors(eqx.Module):
    """Estimates of the free parameters and the covariance of their estimator.

    `parameters` are the fitted ones under the normalisation (Q = I, triangular loadings), `vector`
    their free entries and `cov` its covariance, all in standardised units; `block` and `to_frame`
    answer in data units unless told otherwise. `score` is the gradient of the log-likelihood, zero
    at its maximum; `distance` says how far that is in units of the estimator's own spread, sqrt(s'
    H^{-1} s): EM stops early, and its M-step with a stationary initial law is an approximation.
    `cov` is NaN unless `positive_definite`; `weak_directions` names what the data do not determine.
    """

    parameters: FactorParameters
    vector: Float[Array, " parameters"]
    cov: Float[Array, "parameters parameters"]
    score: Float[Array, " parameters"]
    spectrum: Spectrum
    scaling: Scaling
    free: FreeParameters
    kind: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def positive_definite(self) -> Bool[Array, ""]:
        """Whether the information matrix can be inverted."""
        return self.spectrum.positive_definite

    @property
    def std(self) -> Float[Array, " parameters"]:
        """Standard errors of `vector`."""
        return jnp.sqrt(jnp.diagonal(self.cov))

    @property
    def distance(self) -> Float[Array, ""]:
        """sqrt(s' M^{-1} s) for the score s and the information M that was inverted."""
        return jnp.linalg.norm(self.score @ self.spectrum.root())

    def in_units(self, units: str = "data") -> tuple[Array, Array]:
        """Vector and covariance in data or standardised units.

        x = centre + scale z makes loadings scale w, intercepts centre + scale mu, variances scale^2
        s; the transition has no unit. A linear map, so the covariance follows exactly. An isotropic
        variance belongs to no series and stays in standardised units.
        """
        if units not in ("data", "standardised"):
            raise ValueError(f"units must be 'data' or 'standardised', got {units!r}.")
        if units == "standardised":
            return self.vector, self.cov
        slopes = self.free.slopes(self.scaling.scale)
        vector = slopes * self.vector
        if self.free.intercept:
            place = self.free.places["intercept"]
            vector = vector.at[place].add(self.scaling.centre)
        return vector, slopes[:, None] * self.cov * slopes

    def block(self, name: str, units: str = "data") -> ParameterBlock:
        """One of the blocks "loadings", "intercept", "variances", "transition", "idiosyncratic_ar".

        **Raises:** `ValueError` for a block that has no free entries in this model.
        """
        if name not in self.free.places:
            raise ValueError(
                f"there is no free block {name!r} in this model; it has "
                f"{', '.join(self.free.places)}."
            )
        vector, cov = self.in_units(units)
        place = self.free.places[name]
        std = jnp.sqrt(jnp.diagonal(cov))
        spread = self.free.spread
        return ParameterBlock(spread(vector, name), spread(std, name), cov[place, place])

    def weak_directions(self) -> list[str]:
        """The directions in which the information is zero or negative, most negative first.

        Each names the parameters whose scaled coefficients are at least 0.3 in size.
        """
        values, vectors = np.asarray(self.spectrum.eigenvalues), np.asarray(self.spectrum.vectors)
        labels = self.free.labels(self.names)
        found = []
        for position in np.flatnonzero(~(values > np.asarray(self.spectrum.tolerance))):
            direction = vectors[:, position]
            large = np.argsort(-np.abs(direction))
            large = [i for i in large if abs(direction[i]) >= min(0.3, np.abs(direction).max())]
            found.append(" ".join(f"{direction[i]:+.2f} {labels[i]}" for i in large))
        return found

    def to_frame(self, *, level: float = 0.95, units: str = "data") -> "pd.DataFrame":
        """One row for each free parameter: estimate, std, z, lower, upper (normal, two-sided).

        **Raises:** `ValueError` for a level outside (0, 1).
        """
        import pandas as pd
        from jax.scipy.stats import norm

        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1, got {level}.")
        vector, cov = (np.asarray(a) for a in self.in_units(units))
        std = np.sqrt(np.diagonal(cov))
        width = float(norm.ppf(0.5 + level / 2)) * std
        columns = {
            "estimate": vector,
            "std": std,
            "z": vector / std,
            "lower": vector - width,
            "upper": vector + width,
        }
        index = pd.Index(self.free.labels(self.names), name="parameter")
        return pd.DataFrame(columns, index)


def standard_errors(
    fitted: FittedFactorModel,
    panel: "Panel",
    *,
    kind: str = "hessian",
    series: Sequence[str] | None = None,
    batch_size: int | None = None,
    throw: bool = True,
) -> StandardErrors:
    """Covariance of the maximum likelihood estimator of a factor model, after EM.

        "hessian":  H^{-1},            H = -d^2 ln p(x) / d theta d theta'
        "opg":      J^{-1},            J = sum_t s_t s_t',  s_t = d ln p(x_t | past) / d theta
        "sandwich": H^{-1} J H^{-1}    (valid when the errors are not Gaussian, too)

    Factors are fixed by Q = I and lower-triangular loadings of K `series` (default: the first K of
    the panel; only the sign for K = 1) with positive diagonal; take series that are moved by
    different factors, because a diagonal entry near zero identifies nothing. H has the cost of as
    many linearised E-steps as there are parameters, `batch_size` of them at a time (None: all).

    The initial law, where it is estimated, is held fixed; so is the intercept where it is the
    sample mean (mean and covariance parameters of a Gaussian are orthogonal in information).
    Centre and scale of the standardisation are units, no parameters.

    **Raises:** `ValueError` for an unknown `kind`, a method that is not `EM()`, correlated errors,
    restrictions, a variance at its floor, a panel that was not fitted, unknown `series`, and scores
    by row with AR(1) errors or flows; `RuntimeError` if the information matrix is not positive
    definite and `throw`, naming the directions.

    Source: Hamilton (1994), section 5.8; White (1982) for the sandwich.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; use one of {KINDS}.")
    check_inference(fitted, panel)
    if kind != "hessian" and fitted.coupling is not None:
        raise ValueError(
            f"kind={kind!r} needs scores row by row, which errors with memory and low-frequency "
            "flows do not have here; use kind='hessian'."
        )
    rows = triangular_rows(panel, fitted.parameters.num_factors, series)
    answer = jitted_errors(fitted, rows, kind, batch_size, panel.names)
    if throw and not bool(answer.positive_definite):
        directions = "; ".join(answer.weak_directions())
        raise RuntimeError(
            f"the {'outer product of scores' if kind == 'opg' else 'observed information'} is not "
            f"positive definite, so there are no standard errors. Not determined: {directions}. "
            "Use fewer factors or lags, other `series` for the triangle, a tighter rtol of EM (a "
            "saddle on the way), or throw=False to look at the result."
        )
    return answer


def errors_of(
    fitted: FittedFactorModel,
    rows: tuple[int, ...],
    kind: str,
    batch_size: int | None,
    names: tuple[str, ...],
) -> StandardErrors:
    """`standard_errors` on arrays: pure."""
    free, data = free_parameters(fitted, rows), fitted_data(fitted)
    parameters = identified(fitted.parameters, rows)
    vector = free.pack(parameters)
    if kind == "opg":
        terms = score_terms(free, vector, parameters, data, batch_size)
        score, inverted = jnp.sum(terms, axis=0), spectrum(terms.T @ terms)
        root = inverted.root()
    else:
        score, information = observed_information(free, vector, parameters, data, batch_size)
        inverted = spectrum(information)
        root = inverted.root()
        if kind == "sandwich":
            terms = score_terms(free, vector, parameters, data, batch_size)
            root = root @ (terms @ root).T
    return StandardErrors(
        parameters=parameters,
        vector=vector,
        cov=root @ root.T,
        score=score,
        spectrum=inverted,
        scaling=fitted.scaling,
        free=free,
        kind=kind,
        names=names,
    )


jitted_errors = eqx.filter_jit(errors_of)
