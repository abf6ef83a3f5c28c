"""Regressions of many assets whose coefficients are shrunk to their sector's and the market's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.hierarchy.accelerated_em import accelerated, iterate
from jaxfc.hierarchy.levels import Evidence, own_estimates, product, rooted
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.spread_coordinates import from_free, to_free
from jaxfc.hierarchy.three_levels import Sectors, Spreads, ThreeLevelLaw, three_levels
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PyTree
from jaxfc_kernels.constants import LOG_2PI


class Regressions(NamedTuple):
    """What the rows of each asset say, its error's variance apart.

    `roots` R_i and `targets` r_i with R'R = X'X and R'r = X'y over the known rows; `squares` is
    y'y - r'r, the squared errors that no coefficients can explain; `counts` the known rows.
    """

    roots: Float[Array, "series coefficients coefficients"]
    targets: Float[Array, "series coefficients"]
    squares: Float[Array, " series"]
    counts: Float[Array, " series"]

    def evidence(self, variances: Float[Array, " series"]) -> Evidence:
        """What they say of the coefficients if errors have these variances."""
        stds = jnp.sqrt(variances)
        constants = -0.5 * self.counts * (LOG_2PI + jnp.log(variances))
        return Evidence(
            self.roots / stds[:, None, None],
            self.targets / stds[:, None],
            constants - 0.5 * self.squares / variances,
        )

    def expected_squares(self, law: ThreeLevelLaw) -> Float[Array, " series"]:
        """E sum_t e_it^2 over the law of the coefficients."""
        errors = self.targets - product("iab,ib->ia", self.roots, law.means)
        spread = product("iab,ibc,iac->i", self.roots, law.covs, self.roots)
        return self.squares + jnp.sum(errors**2, axis=1) + spread


class ShrunkRegression(NamedTuple):
    """Coefficients of assets, sectors and market (`law`), their `spreads`, the variances of the
    errors, in squared units of the values, steps of EM and result code."""

    law: ThreeLevelLaw
    spreads: Spreads
    variances: Float[Array, " series"]
    num_steps: Int[Array, ""]
    result: RESULTS


def regressions_of(
    values: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    columns: Float[Array, "time coefficients"] | Float[Array, "time series coefficients"],
) -> Regressions:
    """Sums over the rows that are `known`; what stands in other cells of `values` is never read.

    `columns` are shared by all assets or each asset's own; they must be finite everywhere. Costs
    O(time series coefficients^2).
    """
    weights = known.astype(columns.dtype)
    values = jnp.where(known, values, 0.0)
    own = "ti" if columns.ndim == 3 else "t"
    grams = product(f"ti,{own}a,{own}b->iab", weights, columns, columns)
    crosses = product(f"ti,{own}a->ia", values, columns)
    roots, targets = rooted(grams, crosses)
    # Squares of what the best coefficients leave: y'y - r'r would cancel.
    counts = jnp.sum(weights, axis=0)
    best = own_estimates(Evidence(roots, targets, counts))
    rest = values - jnp.where(known, product(f"{own}a,ia->ti", columns, best), 0.0)
    return Regressions(roots, targets, jnp.sum(rest**2, axis=0), counts)


def sector_variances(
    variances: Float[Array, " series"], seen: Bool[Array, " series"], sectors: Sectors
) -> Float[Array, " series"]:
    """For each asset the harmonic mean over those of its sector that are seen, or over all."""
    inverses = jnp.where(seen, 1.0 / variances, 0.0)
    counts = seen.astype(variances.dtype)
    sums, numbers = (
        jax.ops.segment_sum(each, sectors.members, sectors.num_sectors)
        for each in (inverses, counts)
    )
    overall = jnp.sum(counts) / jnp.sum(inverses)
    means = jnp.where(numbers > 0.0, numbers / jnp.where(numbers > 0.0, sums, 1.0), overall)
    return means[sectors.members]


def shrunk_regression(
    regressions: Regressions,
    sectors: Sectors,
    shrinkage: Shrinkage,
    pseudo_rows: Float[Array, ""],
) -> ShrunkRegression:
    """Coefficients, spreads and error variances at the maximum of the marginal likelihood, by EM.

        y_it = x_it' th_i + e_it,     e_it ~ N(0, v_i),     th_i ~ N(D_i g_s, Lam_s), ...

    Variances of a sector's assets are drawn to each other: the likelihood is that of `pseudo_rows`
    nu more rows of each asset, of its sector's variance (the harmonic mean of the v_i), that is
    less nu sum_i KL(N(0, v_s) || N(0, v_i)). Without, an asset with as few rows as coefficients has
    no estimate of v_i.

    Source: Swamy (1970); Laird and Ware (1982), with the third level.
    """
    seen = regressions.counts > 0
    raw = regressions.squares + jnp.sum(regressions.targets**2, axis=1)
    raw = raw / jnp.maximum(regressions.counts, 1.0)
    usable = seen & (raw > 0.0)
    raw = jnp.where(usable, raw, 1.0)
    start = jnp.where(usable, raw, sector_variances(raw, usable, sectors))
    free = {**shrinkage.start(regressions.evidence(start), sectors), "variances": start}

    def at(free: PyTree, arguments: PyTree) -> tuple[ThreeLevelLaw, Evidence]:
        how, _, regressions, sectors = arguments
        evidence = regressions.evidence(free["variances"])
        spreads = how.spreads(free, sectors.num_sectors)
        return three_levels(evidence, sectors, spreads, how.market), evidence

    def step(free: PyTree, arguments: PyTree) -> tuple[PyTree, Array]:
        how, strength, regressions, sectors = arguments
        law, evidence = at(free, arguments)
        seen = regressions.counts > 0
        common = sector_variances(free["variances"], seen, sectors)
        sums = regressions.expected_squares(law) + strength * common
        variances = jnp.where(
            seen, sums / jnp.where(seen, regressions.counts + strength, 1.0), common
        )
        penalty = jnp.sum(jnp.where(seen, jnp.log(free["variances"] / common), 0.0))
        following, objective = how.updated(law, free, evidence.informed, sectors)
        objective = objective - 0.5 * strength * penalty
        return {**following, "variances": variances}, objective

    strength = pseudo_rows.astype(raw.dtype)
    arguments = (shrinkage, strength, regressions, sectors)
    tolerance = (shrinkage.rtol * jnp.maximum(jnp.sum(seen), 1)).astype(raw.dtype)
    leap = accelerated(step, to_free, from_free, jax.tree.leaves)
    found = iterate(leap, free, arguments, tolerance, shrinkage.max_steps, plain=step)
    law, _ = at(found.parameters, arguments)
    return ShrunkRegression(
        law=law,
        spreads=shrinkage.spreads(found.parameters, sectors.num_sectors),
        variances=found.parameters["variances"],
        num_steps=found.num_steps,
        result=found.result,
    )
