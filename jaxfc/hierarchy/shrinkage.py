"""Coefficients of assets shrunk to their sector's, those of sectors to the market's."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.hierarchy.accelerated_em import accelerated, iterate
from jaxfc.hierarchy.levels import Evidence, inverse_and_log_det, product
from jaxfc.hierarchy.spread_coordinates import from_free, to_free
from jaxfc.hierarchy.three_levels import Market, Sectors, Spreads, ThreeLevelLaw, three_levels
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, as_scalar

WITHIN = ("pooled", "sector")


class Shrunk(NamedTuple):
    """`law` at the `spreads`, which took `num_steps` of EM, and their result code."""

    law: ThreeLevelLaw
    spreads: Spreads
    num_steps: Int[Array, ""]
    result: RESULTS


class Shrinkage(eqx.Module):
    """How coefficients are shrunk: which spreads are known, which are estimated, and how.

        th_i ~ N(D_i g_s, Lam_s),     g_s ~ N(g_0, Om)

    `within`: "pooled", one Lam for all sectors, or "sector", a Lam_s each. The latter maximises

        ln L - nu sum_s KL(N(0, Lam) || N(0, Lam_s)),     nu = `pseudo_series`,

    as if each sector had nu further assets of a common Lam (the harmonic mean of the Lam_s), so
    that a sector with one asset has a spread too. `within_cov`, `between_cov`: known spreads, not
    estimated. `market_mean`, `market_cov` (zero if left out): what is known of g_0; flat if left
    out, and the likelihood is then the restricted one.

    Few sectors often have their largest likelihood at a singular Om, which no data can then move
    the market's law along, and which EM approaches without end. `log_det_weight` c adds
    c / 2 (ln det Lam + ln det Om) (of each Lam_s): with the default of 1, the weakest prior that
    keeps the estimate inside, while moments are divided by their number less one; 0 is maximum
    likelihood. c is at most half the number of sectors (assets) with data.

    Estimated by EM with leaps along two steps; it ends when the objective gains less than `rtol`
    per informed asset in each of two leaps. With one sector and a flat market, Om is not determined
    and stays at its start.

    **Raises:** `ValueError` for an unknown `within`, `market_cov` without `market_mean`, negative
    `pseudo_series`, `max_steps` below 1.

    Source: Dempster, Laird and Rubin (1977); Laird and Ware (1982); Chung, Gelman, Rabe-Hesketh,
    Liu and Dorie (2015) for the penalty.
    """

    within: str = eqx.field(static=True, default="pooled")
    pseudo_series: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0, kw_only=True)
    log_det_weight: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0, kw_only=True)
    within_cov: Float[Array, "q q"] | Float[Array, "sectors q q"] | None = eqx.field(
        default=None, kw_only=True
    )
    between_cov: Float[Array, "p p"] | None = eqx.field(default=None, kw_only=True)
    market_mean: Float[Array, " p"] | None = eqx.field(default=None, kw_only=True)
    market_cov: Float[Array, "p p"] | None = eqx.field(default=None, kw_only=True)
    rtol: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-8, kw_only=True)
    max_steps: int = eqx.field(static=True, default=1000, kw_only=True)

    def __check_init__(self):
        if self.within not in WITHIN:
            raise ValueError(f"within must be one of {WITHIN}, got {self.within!r}.")
        if self.market_cov is not None and self.market_mean is None:
            raise ValueError("market_cov needs market_mean; leave both out for a flat market.")
        check_counts(max_steps=self.max_steps)

    @property
    def market(self) -> Market | None:
        """What is known of the market beforehand."""
        if self.market_mean is None:
            return None
        size = len(self.market_mean)
        nothing = jnp.zeros((size, size), self.market_mean.dtype)
        return Market(self.market_mean, nothing if self.market_cov is None else self.market_cov)

    def estimate(self, evidence: Evidence, sectors: Sectors) -> Shrunk:
        """Spreads by EM, and the law of all coefficients at them: pure, for `jit`, `vmap`, `grad`.

        Derivatives are those of the converged estimate, by the implicit function theorem.
        """
        start = self.start(evidence, sectors)

        def step(free, arguments):
            how, evidence, sectors = arguments
            law = three_levels(
                evidence, sectors, how.spreads(free, sectors.num_sectors), how.market
            )
            return how.updated(law, free, evidence.informed, sectors)

        informed = jnp.maximum(jnp.sum(evidence.informed), 1)
        tolerance = (self.rtol * informed).astype(evidence.targets.dtype)
        leap = accelerated(step, to_free, from_free, jax.tree.leaves)
        arguments = self, evidence, sectors
        found = iterate(leap, start, arguments, tolerance, self.max_steps, plain=step)
        spreads = self.spreads(found.parameters, sectors.num_sectors)
        law = three_levels(evidence, sectors, spreads, self.market)
        return Shrunk(law, spreads, found.num_steps, found.result)

    def start(self, evidence: Evidence, sectors: Sectors) -> dict[str, Array]:
        """Spreads as large as the sampling errors of an asset of average information."""
        count = jnp.maximum(jnp.sum(evidence.informed), 1)
        average = jnp.sum(evidence.information, axis=0) / count
        free = {}
        if self.within_cov is None:
            cov = inverse_and_log_det(average)[0]
            every = (sectors.num_sectors, *cov.shape)
            free["within"] = cov if self.within == "pooled" else jnp.broadcast_to(cov, every)
        if self.between_cov is None:
            design, information = sectors.design, evidence.information
            seen = product("iap,iab,ibq->pq", design, information, design) / count
            free["between"] = inverse_and_log_det(seen)[0]
        return free

    def spreads(self, free: dict[str, Array], num_sectors: int) -> Spreads:
        """The known and the estimated ones."""
        within = free["within"] if self.within_cov is None else self.within_cov
        between = free["between"] if self.between_cov is None else self.between_cov
        return Spreads(jnp.broadcast_to(within, (num_sectors, *within.shape[-2:])), between)

    def updated(
        self,
        law: ThreeLevelLaw,
        free: dict[str, Array],
        informed: Bool[Array, " series"],
        sectors: Sectors,
    ) -> tuple[dict[str, Array], Float[Array, ""]]:
        """The M-step, averages of second moments over what has data, and the objective before."""
        found, objective = {}, law.loglik
        if "within" in free:
            found["within"], penalty = self.updated_within(law, free["within"], informed, sectors)
            objective = objective + penalty
        if "between" in free:
            seen = law.sector_informed
            number = jnp.sum(seen).astype(objective.dtype)
            weight = jnp.minimum(self.log_det_weight, 0.5 * number)
            total = jnp.sum(jnp.where(seen[:, None, None], law.sector_gaps, 0.0), axis=0)
            found["between"] = total / jnp.where(number > 0, number - weight, 1.0)
            if self.market is None:
                found["between"] = jnp.where(number > 1, found["between"], free["between"])
                weight = jnp.where(number > 1, weight, 0.0)
            objective = objective + 0.5 * weight * log_det(free["between"])
        return {name: symmetric(cov) for name, cov in found.items()}, objective

    def updated_within(
        self,
        law: ThreeLevelLaw,
        within: Float[Array, "*sectors q q"],
        informed: Bool[Array, " series"],
        sectors: Sectors,
    ) -> tuple[Float[Array, "*sectors q q"], Float[Array, ""]]:
        """The next Lam or Lam_s, and what the objective adds to the likelihood at the present."""
        gaps = jnp.where(informed[:, None, None], law.asset_gaps, 0.0)
        number = jnp.sum(informed).astype(gaps.dtype)
        weight = jnp.minimum(self.log_det_weight, 0.5 * number)
        if self.within == "pooled":
            return jnp.sum(gaps, axis=0) / (number - weight), 0.5 * weight * log_det(within)
        sums, numbers = (
            jax.ops.segment_sum(each, sectors.members, sectors.num_sectors)
            for each in (gaps, informed.astype(gaps.dtype))
        )
        common, strength = harmonic_mean(within), self.pseudo_series
        weights = jnp.minimum(weight, 0.5 * (numbers + strength))
        sums = sums + strength * common
        log_dets = log_det(within)
        penalty = 0.5 * jnp.sum(weights * log_dets - strength * (log_dets - log_det(common)))
        return sums / (numbers + strength - weights)[:, None, None], penalty


def symmetric(cov: Float[Array, "*batch q q"]) -> Float[Array, "*batch q q"]:
    """(A + A') / 2."""
    return 0.5 * (cov + jnp.swapaxes(cov, -1, -2))


def log_det(cov: Float[Array, "*batch q q"]) -> Float[Array, "*batch"]:
    """Log-determinants of positive definite matrices."""
    return inverse_and_log_det(cov)[1]


def harmonic_mean(covs: Float[Array, "sectors q q"]) -> Float[Array, "q q"]:
    """The inverse of the mean of the inverses."""
    inverses, _ = inverse_and_log_det(covs)
    return inverse_and_log_det(jnp.mean(inverses, axis=0))[0]
