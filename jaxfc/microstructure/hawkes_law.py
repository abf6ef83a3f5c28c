"""Hawkes processes with exponential kernels: intensity, exact likelihood, residuals.

Events are rows of a time since the row before (`gap`) and a type (`kind`), as waits keep their
precision in float32 where clock times do not. A kind of -1 is no event: padding, or the end of the
time that was watched.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.arguments import check_not_negative, check_positive
from jaxfc.typing import Array, Float, Int


class HawkesLaw(eqx.Module):
    """Events of several types that excite each other.

        lambda_i(t) = mu_i + sum_j sum_{t_k < t of type j} n_ij beta_ij exp(-beta_ij (t - t_k)).

    **Arguments:** `baseline` mu per unit of time; `branching` n_ij, how many events of type i one
    of type j brings about; `decay` beta_ij per unit of time.

    **Raises:** `ValueError` for values out of range, and for branching whose largest eigenvalue is
    one or more: the intensities then grow without end.

    Source: Hawkes (1971); Ogata (1981).
    """

    baseline: Float[Array, " types"]
    branching: Float[Array, "types types"]
    decay: Float[Array, "types types"]

    def __check_init__(self):
        size = len(self.baseline)
        if self.branching.shape != (size, size) or self.decay.shape != (size, size):
            raise ValueError(
                f"{size} baselines need branching and decay of shape {(size, size)}, got "
                f"{self.branching.shape} and {self.decay.shape}."
            )
        check_not_negative(baseline=self.baseline, branching=self.branching)
        check_positive(decay=self.decay)
        if not isinstance(self.branching, Tracer):
            # (I - n) x = 1 has a positive solution exactly if the spectral radius is below one.
            branching = np.asarray(self.branching, np.float64)
            reach = np.linalg.solve(np.eye(size) - branching, np.ones(size))
            if not np.all(reach > 0):
                raise ValueError(
                    "branching must have its largest eigenvalue below one, or events multiply "
                    f"without end; got {branching}. Scale it down."
                )

    @property
    def mean_intensity(self) -> Float[Array, " types"]:
        """Events per unit of time in the long run, (I - n)^{-1} mu."""
        return jnp.linalg.solve(
            jnp.eye(len(self.baseline), dtype=self.baseline.dtype) - self.branching, self.baseline
        )

    def after_gap(
        self, excitation: Float[Array, "types types"], gap: Float[Array, ""]
    ) -> tuple[Float[Array, "types types"], Float[Array, " types"]]:
        """What is left of the excitation after a time without events, and the integral of the
        intensities over it."""
        # expm1 keeps short gaps exact in float32.
        lost = -jnp.expm1(-self.decay * gap)
        integral = self.baseline * gap + jnp.sum(excitation * lost / self.decay, axis=1)
        return excitation * (1.0 - lost), integral

    def after_event(
        self, excitation: Float[Array, "types types"], kind: Int[Array, ""]
    ) -> Float[Array, "types types"]:
        """The excitation with that of a new event; a kind of -1 adds nothing."""
        is_source = jnp.arange(len(self.baseline)) == kind
        return excitation + self.branching * self.decay * is_source


class HawkesRows(NamedTuple):
    """By event: log-intensity of its type (0 for kind -1), integral of all intensities over its
    gap, and its residual."""

    log_intensity: Float[Array, " events"]
    integral: Float[Array, " events"]
    residual: Float[Array, " events"]


def hawkes_rows(
    law: HawkesLaw, gap: Float[Array, " events"], kind: Int[Array, " events"]
) -> HawkesRows:
    """One pass over the events with a state of one number for each pair of types: O(n).

    Residuals are the integrals of lambda_i between events of type i, exponential with mean one and
    independent if the law is right (random time change); those of rows of kind -1 are zero.

    Source: Ogata (1978) for the recursion, (1988) for the residuals.
    """
    num_types = len(law.baseline)

    def advance(carry: tuple[Array, Array], row: tuple[Array, Array]):
        excitation, since = carry
        excitation, integral = law.after_gap(excitation, row[0])
        is_type = jnp.arange(num_types) == row[1]
        intensity = jnp.sum(jnp.where(is_type, law.baseline + jnp.sum(excitation, axis=1), 0.0))
        since = since + integral
        log_intensity = jnp.log(jnp.where(row[1] >= 0, intensity, 1.0))
        found = log_intensity, jnp.sum(integral), jnp.sum(jnp.where(is_type, since, 0.0))
        return (law.after_event(excitation, row[1]), jnp.where(is_type, 0.0, since)), found

    start = jnp.zeros((num_types, num_types), gap.dtype), jnp.zeros(num_types, gap.dtype)
    return HawkesRows(*jax.lax.scan(advance, start, (gap, kind))[1])


def hawkes_loglik(
    law: HawkesLaw, gap: Float[Array, " events"], kind: Int[Array, " events"]
) -> Float[Array, ""]:
    """Exact log-likelihood of all events, of a process that starts without a past.

        ln L = sum_k ln lambda_{m_k}(t_k) - sum_i int_0^T lambda_i(t) dt.

    The time watched ends with the last row: add a row of kind -1 for what came after the last
    event. Differentiable in the law and in the gaps.
    """
    rows = hawkes_rows(law, gap, kind)
    return jnp.sum(rows.log_intensity - rows.integral)
