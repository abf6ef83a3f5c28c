"""Processes of conditional correlations: dynamic, equal across pairs, of a covariance, constant."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.lags import push
from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.correlation_process import (
    CorrelationProcess,
    Targets,
    log_det_and_quadratic,
)
from jaxfc.volatility.correlation_recursion import Recursion
from jaxfc.volatility.entries import WHOLE, Entries


class DCC(Recursion):
    """DCC(p, q) of Engle (2002), with `num_asymmetric` terms of Cappiello, Engle and Sheppard
    (2006):

        Q_t = (1 - sum a - sum b) S - (sum g) N + sum_j b_j Q_{t-j}
              + sum_i (a_i z_{t-i} z_{t-i}' + g_i n_{t-i} n_{t-i}')
        R_t = Q_t brought to unit diagonal

    n = min(z, 0). `corrected`: diag(Q)^{1/2} z in place of z (Aielli 2013), which makes S the mean
    of what drives Q. A product that is not observed is replaced by its expectation: the entry of
    R_t (of Q_t if corrected), and for falls K(R_t), K(r) = (sqrt(1 - r^2) + r (pi/2 + arcsin r)) /
    (2 pi), which is E n_i n_j of every elliptical law.

    `start`: before the first row stand the targets, or with "ones" a shock of one for every series
    (rmgarch's convention) and S for Q.
    """

    corrected: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        if self.corrected and self.num_asymmetric:
            raise ValueError("the corrected recursion is defined without asymmetric terms.")

    @property
    def moves_target(self) -> bool:
        return self.corrected

    def expected(self, quasi: Float[Array, "*entries"], entries: Entries) -> Array:
        return quasi if self.corrected else entries.to_corr(quasi)

    def drive(self, quasi: Float[Array, "*entries"], units: Array, entries: Entries) -> Array:
        return jnp.sqrt(entries.diagonal(quasi)) * units if self.corrected else units

    def driving(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
    ) -> Float[Array, "time series"]:
        """If corrected diag(Q)^{1/2} z, whose diagonal

        q_t = 1 - sum a - sum b + sum_i a_i q_{t-i} z_{t-i}^2 + sum_j b_j q_{t-j} needs no S.
        """
        if not self.corrected:
            return units
        a, _, b = self.split(parameters)

        def step(state, row):
            products, past = state
            unit, seen = row
            quasi = 1.0 - jnp.sum(a) - jnp.sum(b) + a @ products + b @ past
            product = jnp.where(seen, quasi * unit**2, quasi)
            return (push(products, product), push(past, quasi)), jnp.sqrt(quasi) * unit

        ones = jnp.ones(units.shape[1], units.dtype)
        first = jnp.tile(ones, (self.num_shocks, 1)), jnp.tile(ones, (self.num_lags, 1))
        return jax.lax.scan(step, first, (units, known))[1]


class DECO(Recursion):
    """Dynamic equicorrelation of Engle and Kelly (2012): all pairs share the mean of a DCC's.

        R_t = (1 - r_t) I + r_t 11',    r_t = mean over i != j of corr(Q_t)_ij

    Q_t as in `DCC`. The density of n observed series costs O(n), whatever holes there are:

        ln det R = (n - 1) ln(1 - r) + ln(1 + (n - 1) r)
        z' R^{-1} z = (z'z - r (1'z)^2 / (1 + (n - 1) r)) / (1 - r)
    """

    @property
    def works_on_pairs(self) -> bool:
        return False

    def corr(self, quasi: Float[Array, "*entries"], entries: Entries = WHOLE) -> Array:
        ones = jnp.eye(len(quasi), dtype=bool)
        return jnp.where(ones, 1.0, equicorrelation(quasi))

    def log_det_and_square(
        self,
        quasi: Float[Array, "series series"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        rho, count = equicorrelation(quasi), jnp.sum(seen).astype(units.dtype)
        known = jnp.where(seen, units, 0.0)
        whole = 1.0 + (count - 1.0) * rho
        alone = jnp.maximum(count - 1.0, 0.0) * jnp.log1p(-rho)
        # No series: nothing to weigh.
        log_det = jnp.where(count > 0, alone + jnp.log(jnp.where(count > 0, whole, 1.0)), 0.0)
        return log_det, (known @ known - rho * jnp.sum(known) ** 2 / whole) / (1.0 - rho)


class ScalarBEKK(Recursion):
    """Scalar BEKK(p, q) with covariance targeting (Engle and Kroner 1995; Ding and Engle 2001):

        Q_t = (1 - sum a - sum b) S + sum_i a_i z_{t-i} z_{t-i}' + sum_j b_j Q_{t-j},    R_t = Q_t

    Q is the covariance itself, not brought to unit diagonal: with margins
    `VarianceModel(ConstantVariance())` z are returns in units of their standard deviation and
    H_t = D Q_t D is the scalar BEKK of the returns. What is not observed is replaced by its
    expectation Q_t, so covariances ahead are exact at every horizon.
    """

    def __check_init__(self):
        if self.num_asymmetric:
            raise ValueError("the scalar BEKK has no asymmetric terms here; use DCC.")

    def corr(self, quasi: Float[Array, "*entries"], entries: Entries = WHOLE) -> Array:
        return quasi

    def expected(self, quasi: Float[Array, "*entries"], entries: Entries) -> Array:
        return quasi

    def log_det_and_square(
        self,
        quasi: Float[Array, "series series"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return log_det_and_quadratic(quasi, units, seen)


class ConstantCorrelation(CorrelationProcess):
    """R_t = S (Bollerslev 1990): only the margins move."""

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def starts(self, dtype: Any) -> Float[Array, "starts p"]:
        return jnp.zeros((1, 0), dtype)

    def natural(self, free: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        return free

    def free(self, parameters: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        return parameters

    def persistence(self, parameters: Float[Array, " p"], targets: Targets) -> Float[Array, ""]:
        return jnp.zeros((), targets.both.dtype)

    def decay(self, parameters: Float[Array, " p"]) -> Float[Array, ""] | None:
        return jnp.zeros((), parameters.dtype)

    def begin(self, targets: Targets) -> Any:
        return ()

    def quasi(
        self, parameters: Float[Array, " p"], state: Any, targets: Targets
    ) -> Float[Array, "*entries"]:
        return targets.both

    def corr(self, quasi: Float[Array, "*entries"], entries: Entries = WHOLE) -> Array:
        return entries.to_corr(quasi)

    def advance(
        self,
        state: Any,
        quasi: Float[Array, "*entries"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
        targets: Targets,
        entries: Entries = WHOLE,
    ) -> Any:
        return ()


def equicorrelation(quasi: Float[Array, "series series"]) -> Float[Array, ""]:
    """Mean of the correlations of all pairs."""
    num_series = len(quasi)
    scale = 1.0 / jnp.sqrt(jnp.diagonal(quasi))
    return (scale @ quasi @ scale - num_series) / (num_series * (num_series - 1))
