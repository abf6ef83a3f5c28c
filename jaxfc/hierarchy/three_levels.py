"""Coefficients of assets, sectors and the market: one Gaussian law of three levels."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.levels import (
    Evidence,
    MemberLaw,
    downward,
    inverse_and_log_det,
    own_estimates,
    upward,
)
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.semidefinite import semidefinite_chol


class Sectors(eqx.Module):
    """Which sector each asset is in, and what its sector's coefficients mean for it.

    `members` (series,) from 0 to num_sectors - 1. `design` (series, coefficients,
    sector_coefficients) is D_i in E th_i = D_i g_s.
    """

    members: Int[Array, " series"]
    design: Float[Array, "series coefficients sector_coefficients"]
    num_sectors: int = eqx.field(static=True)


class Spreads(NamedTuple):
    """Covariances of assets about their sector, one a sector, and of sectors about the market."""

    within: Float[Array, "sectors coefficients coefficients"]
    between: Float[Array, "sector_coefficients sector_coefficients"]


class Market(NamedTuple):
    """N(`mean`, `cov`): what is known of the market's coefficients beforehand."""

    mean: Float[Array, " sector_coefficients"]
    cov: Float[Array, "sector_coefficients sector_coefficients"]


class ThreeLevelLaw(NamedTuple):
    """The law of all coefficients given all data and the spreads.

    Means and covariances of assets (series, coefficients), of sectors and of the market (`sector_
    coefficients`); covariances include the uncertainty of the levels above. `loglik` is the log
    of the marginal likelihood, coefficients integrated out. `asset_gaps`, `sector_gaps` are the
    second moments of an asset's distance from its sector, and of a sector's from the market.
    """

    means: Float[Array, "series coefficients"]
    covs: Float[Array, "series coefficients coefficients"]
    sector_means: Float[Array, "sectors sector_coefficients"]
    sector_covs: Float[Array, "sectors sector_coefficients sector_coefficients"]
    market_mean: Float[Array, " sector_coefficients"]
    market_cov: Float[Array, "sector_coefficients sector_coefficients"]
    loglik: Float[Array, ""]
    asset_gaps: Float[Array, "series coefficients coefficients"]
    sector_gaps: Float[Array, "sectors sector_coefficients sector_coefficients"]
    sector_informed: Bool[Array, " sectors"]


def sectors_of(
    members: Int[Array, " series"],
    num_sectors: int,
    num_coefficients: int,
    characteristics: Float[Array, "series characteristics"] | None = None,
) -> Sectors:
    """Assets in sectors: E th_i = g_s or, with `characteristics` z_i, E th_i = B_s z_i.

    B_s (coefficients, characteristics) is then g_s read row by row.
    """
    if characteristics is None:
        characteristics = jnp.ones((members.shape[0], 1), jnp.result_type(float))
    identity = jnp.eye(num_coefficients, dtype=characteristics.dtype)
    design = identity[None, :, :, None] * characteristics[:, None, None, :]
    return Sectors(members, design.reshape(members.shape[0], num_coefficients, -1), num_sectors)


def three_levels(
    evidence: Evidence, sectors: Sectors, spreads: Spreads, market: Market | None = None
) -> ThreeLevelLaw:
    """Coefficients of assets, sectors and the market given everybody's data.

        data_i | th_i,     th_i ~ N(D_i g_s, Lam_s),     g_s ~ N(g_0, Om),

    and g_0 ~ `market`, or flat (None): then `loglik` is the restricted likelihood. An asset without
    data has its sector's law, with Lam_s more variance; a sector without data the market's.

    **Arguments:** `evidence` of (series, coefficients); `spreads`: Lam (sectors, coefficients,
    coefficients), Om, both of any rank. Costs O(series coefficients^3). NaN if the market is flat
    and the data do not determine it.

    Source: Lindley and Smith (1972); Swamy (1970) for two levels.
    """
    within = jax.vmap(semidefinite_chol)(spreads.within)
    between = semidefinite_chol(spreads.between)[None]
    of_sectors = upward(evidence, sectors.members, sectors.num_sectors, within, sectors.design)
    everyone = jnp.zeros(sectors.num_sectors, sectors.members.dtype)
    size = between.shape[1]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=between.dtype), (len(everyone), size, size))
    of_market = upward(of_sectors, everyone, 1, between, identity)
    market_law, loglik = top_level(of_market, market)
    sector_law = downward(
        of_sectors, everyone, between, identity, market_law.means, market_law.covs
    )
    law = downward(
        evidence, sectors.members, within, sectors.design, sector_law.means, sector_law.covs
    )
    return ThreeLevelLaw(
        means=law.means,
        covs=law.covs,
        sector_means=sector_law.means,
        sector_covs=sector_law.covs,
        market_mean=market_law.means[0],
        market_cov=market_law.covs[0],
        loglik=loglik,
        asset_gaps=law.gap_moments,
        sector_gaps=sector_law.gap_moments,
        sector_informed=of_sectors.informed,
    )


def top_level(evidence: Evidence, market: Market | None) -> tuple[MemberLaw, Float[Array, ""]]:
    """The law of the market's coefficients and the log of the likelihood without them."""
    size = evidence.targets.shape[1]
    if market is None:
        means = own_estimates(evidence)
        covs, log_dets = inverse_and_log_det(evidence.information)
        determined = jnp.all(jnp.diagonal(evidence.roots[0]) != 0.0)
        loglik = evidence.constants[0] + 0.5 * (size * LOG_2PI - log_dets[0])
        law = MemberLaw(means, covs, covs)
        return jax.tree.map(lambda leaf: jnp.where(determined, leaf, jnp.nan), (law, loglik))
    chol = semidefinite_chol(market.cov)
    seen = evidence.roots[0] @ chol
    identity = jnp.eye(size, dtype=chol.dtype)
    inverse, log_det = inverse_and_log_det((identity + seen @ seen.T)[None])
    error = evidence.targets[0] - evidence.roots[0] @ market.mean
    loglik = evidence.constants[0] - 0.5 * (error @ inverse[0] @ error + log_det[0])
    law = downward(
        evidence,
        jnp.zeros(1, int),
        chol[None],
        identity[None],
        market.mean[None],
        jnp.zeros_like(chol)[None],
    )
    return law, loglik
