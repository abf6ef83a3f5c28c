"""The likelihood of standardised residuals given their correlations: of all series, or of pairs."""

import abc
from typing import final

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import gammaln

from jaxfc.typing import Array, Float
from jaxfc.volatility.correlation_process import CorrelationProcess, Targets
from jaxfc.volatility.entries import Pairs
from jaxfc.volatility.innovations import Innovations, Normal
from jaxfc.volatility.likelihood import Standardised
from jaxfc_kernels.constants import LOG_2PI

CHOICES = ("contiguous", "all")


def elliptical_log_density(
    law: Innovations, shapes: Float[Array, " shapes"], count: Array, log_det: Array, square: Array
) -> Float[Array, "..."]:
    """ln f of `count` values with covariance R, given ln det R and z' R^{-1} z: the normal law, or
    Student's with covariance R,

        ln f = ln G((nu + n) / 2) - ln G(nu / 2) - n / 2 ln(pi (nu - 2)) - ln det R / 2
               - (nu + n) / 2 ln(1 + z' R^{-1} z / (nu - 2))
    """
    if isinstance(law, Normal):
        return -0.5 * (count * LOG_2PI + log_det + square)
    nu = shapes[0]
    constant = gammaln(0.5 * (nu + count)) - gammaln(0.5 * nu)
    constant = constant - 0.5 * count * jnp.log(jnp.pi * (nu - 2.0))
    return constant - 0.5 * log_det - 0.5 * (nu + count) * jnp.log1p(square / (nu - 2.0))


class Likelihood(eqx.Module):
    """What the second step maximises."""

    @abc.abstractmethod
    def log_densities(
        self,
        process: CorrelationProcess,
        law: Innovations,
        parameters: Float[Array, " p"],
        shapes: Float[Array, " shapes"],
        data: Standardised,
        targets: Targets,
    ) -> Float[Array, " time"]:
        """ln f(z_t | past) of the observed series of every row."""

    def check(self, process: CorrelationProcess) -> None:
        """Raise `ValueError` for a process that this likelihood does not suit."""


@final
class FullLikelihood(Likelihood):
    """The joint density of all series. Costs a factorisation a row, O(series^3)."""

    def log_densities(
        self,
        process: CorrelationProcess,
        law: Innovations,
        parameters: Float[Array, " p"],
        shapes: Float[Array, " shapes"],
        data: Standardised,
        targets: Targets,
    ) -> Float[Array, " time"]:
        read = process.log_det_and_square
        _, (log_dets, squares) = process.run(parameters, *data, targets, read)
        counts = jnp.sum(data.known, axis=1)
        return elliptical_log_density(law, shapes, counts, log_dets, squares)


@final
class CompositeLikelihood(Likelihood):
    """Densities of pairs, scaled so that they count as much as the joint density does:

        sum_i ln f(z_i) + (N - 1) / P sum_{(i, j)} [ln f(z_i, z_j) - ln f(z_i) - ln f(z_j)]

    over P pairs: "contiguous" (every series with the next, N - 1 of them) or "all" (N (N - 1) / 2).
    For contiguous pairs this is the density of a Markov chain along the series, for all pairs its
    mean over their orders; for two series it is the full likelihood. Under a normal law it has the
    maximum of the sum over pairs of Engle, Shephard and Sheppard (2008; Pakel et al. 2021). No
    matrix is factorised and only entries of the pairs are carried: O(P) a row, for hundreds of
    series, whose full likelihood is biased where the target is poorly estimated. A pair counts in
    the rows in which both are observed.
    """

    pairs: str = eqx.field(static=True, default="contiguous")

    def __check_init__(self):
        if self.pairs not in CHOICES:
            raise ValueError(f"pairs must be one of {CHOICES}, got {self.pairs!r}.")

    def check(self, process: CorrelationProcess) -> None:
        if not process.works_on_pairs:
            raise ValueError(
                f"{type(process).__name__} needs the correlations of all pairs at once; use "
                "FullLikelihood(), whose cost it keeps linear."
            )

    def entries(self, num_series: int) -> Pairs:
        """The entries that are carried."""
        make = Pairs.contiguous if self.pairs == "contiguous" else Pairs.all
        return make(num_series)

    def log_densities(
        self,
        process: CorrelationProcess,
        law: Innovations,
        parameters: Float[Array, " p"],
        shapes: Float[Array, " shapes"],
        data: Standardised,
        targets: Targets,
    ) -> Float[Array, " time"]:
        num_series = data.units.shape[1]
        entries = self.entries(num_series)
        share = (num_series - 1) / entries.num_pairs

        def read(quasi: Array, units: Array, seen: Array) -> Array:
            corr = process.corr(quasi, entries)
            own, cross = entries.diagonal(corr), entries.cross(corr)
            (one, two), (left, right) = entries.both_sides(own), entries.both_sides(units)
            det = one * two - cross**2
            square = (two * left**2 - 2.0 * cross * left * right + one * right**2) / det
            joint = elliptical_log_density(law, shapes, jnp.asarray(2), jnp.log(det), square)
            alone = elliptical_log_density(
                law, shapes, jnp.asarray(1), jnp.log(own), units**2 / own
            )
            first, second = entries.both_sides(alone)
            first_seen, second_seen = entries.both_sides(seen)
            gains = jnp.where(first_seen & second_seen, joint - first - second, 0.0)
            return jnp.sum(jnp.where(seen, alone, 0.0)) + share * jnp.sum(gains)

        return process.run(parameters, *data, targets.of(entries), read, entries)[1]
