"""Regression coefficients of assets about their sector's, sectors about the market: exact algebra.

    theta_i ~ N(g_s(i), L_w L_w'),     g_s ~ N(m, L_b L_b'),     m ~ N(m_0, L_0 L_0')

What is below a level is known to it as c + h' x - x' J x / 2, the log of a Gaussian density in the
level's coefficients x (for an asset, the rows y_it = x_t' theta_i + e_it). With x = p + L e,
e ~ N(0, I) and I + L' J L = U U',

    ln of the integral over e = c' + h'' p - p' J' p / 2,     J' = J - (K J)' K J,   K = U^{-1} L'
    e | p, data = U'^{-1} (z + K (h - J p)),     z ~ N(0, I)

so that no level's covariance is inverted: any of them may be singular or zero.

Source: Lindley and Smith (1972).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.constants import LOG_2PI


class RegressionEvidence(NamedTuple):
    """What the rows of every asset say on its coefficients, whatever the number of rows.

        sum_t (y_it - x_t' theta)^2 = |targets_i - roots_i theta|^2 + squares_i,

    `rows` counts them. An asset without rows has zeros.
    """

    roots: Float[Array, "series coefficients coefficients"]
    targets: Float[Array, "series coefficients"]
    squares: Float[Array, " series"]
    rows: Float[Array, " series"]


class LevelScales(NamedTuple):
    """The law of the levels: m_0, L_0 of the market, L_b of sectors about it, L_w of assets about
    their sector, (coefficients, coefficients) each."""

    market_mean: Float[Array, " coefficients"]
    market_chol: Float[Array, "coefficients coefficients"]
    between_chol: Float[Array, "coefficients coefficients"]
    within_chol: Float[Array, "coefficients coefficients"]


class Information(NamedTuple):
    """ln density = c + h' x - x' J x / 2 of what is below in the coefficients x of a level."""

    precision: Float[Array, "*level coefficients coefficients"]
    linear: Float[Array, "*level coefficients"]


class LevelInformation(NamedTuple):
    """What is known to each level from below, and the log of the marginal likelihood."""

    assets: Information
    sectors: Information
    market: Information
    loglik: Float[Array, ""]


class LevelLaw(NamedTuple):
    """Means and covariances of the coefficients of all levels given all data and the scales; those
    of a level include the uncertainty of the levels above."""

    market_mean: Float[Array, " coefficients"]
    market_cov: Float[Array, "coefficients coefficients"]
    sector_means: Float[Array, "sectors coefficients"]
    sector_covs: Float[Array, "sectors coefficients coefficients"]
    means: Float[Array, "series coefficients"]
    covs: Float[Array, "series coefficients coefficients"]


class LevelShares(NamedTuple):
    """Which share of an asset's coefficient comes from its sector's, of a sector's from the
    market's: the diagonal of d E[x | parent, data] / d parent. Zero: all from own data; one: all
    from the level above."""

    assets: Float[Array, "series coefficients"]
    sectors: Float[Array, "sectors coefficients"]


class Levels(NamedTuple):
    """Coefficients of all levels."""

    market: Float[Array, " coefficients"]
    sectors: Float[Array, "sectors coefficients"]
    assets: Float[Array, "series coefficients"]


def regression_evidence(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    columns: Float[Array, "time coefficients"],
) -> RegressionEvidence:
    """The triangular factors of the observed rows of (x_t', y_it): O(time series coefficients^2),
    once; no product X'X is formed, so short and collinear histories keep their digits."""
    size = columns.shape[1]
    seen = observed.astype(columns.dtype).T

    def one(value: Array, mask: Array) -> tuple[Array, Array, Array]:
        # Of the columns alone: the returns stay linear, so that their derivatives exist also where
        # an asset has fewer rows than coefficients.
        rows = mask[:, None] * columns
        basis, root = jnp.linalg.qr(jnp.concatenate([rows, jnp.zeros((size, size), rows.dtype)]))
        padded = jnp.concatenate([mask * value, jnp.zeros(size, rows.dtype)])
        target = basis.T @ padded
        return root, target, jnp.sum((padded - basis @ target) ** 2)

    roots, targets, squares = jax.vmap(one)(jnp.where(observed, values, 0.0).T, seen)
    return RegressionEvidence(roots, targets, squares, rows=jnp.sum(seen, axis=1))


def level_information(
    evidence: RegressionEvidence,
    noise: Float[Array, " series"],
    members: Int[Array, " series"],
    num_sectors: int,
    scales: LevelScales,
) -> LevelInformation:
    """Coefficients integrated out level by level, errors N(0, noise_i^2).

    `members` (series,) is the sector of each asset, from 0. Costs O(series coefficients^3).
    """
    roots = evidence.roots / noise[:, None, None]
    targets = evidence.targets / noise[:, None]
    spread = roots @ scales.within_chol
    size = targets.shape[1]
    # With the data's own factor R: (I + R L L' R')^{-1} loses no digits where J' is a difference.
    chols = jnp.linalg.cholesky(jnp.eye(size, dtype=roots.dtype) + spread @ transposed(spread))
    roots_above, targets_above = solve_lower(chols, roots), solve_lower(chols, targets[..., None])
    constants = -(
        0.5 * jnp.sum(targets_above**2, axis=(1, 2))
        + log_det(chols)
        + 0.5 * evidence.squares / noise**2
        + evidence.rows * (jnp.log(noise) + 0.5 * LOG_2PI)
    )
    above = Information(
        transposed(roots_above) @ roots_above, (transposed(roots_above) @ targets_above)[..., 0]
    )
    sectors = Information(*(jax.ops.segment_sum(part, members, num_sectors) for part in above))
    market, gains = integrated(sectors, scales.between_chol)
    market = Information(*(jnp.sum(part, axis=0) for part in market))
    mean = scales.market_mean
    shift, chol = conditional(market, mean, scales.market_chol)
    at_mean = market.linear @ mean - 0.5 * mean @ market.precision @ mean
    loglik = jnp.sum(constants) + jnp.sum(gains) + at_mean
    return LevelInformation(
        assets=Information(
            transposed(roots) @ roots, (transposed(roots) @ targets[..., None])[..., 0]
        ),
        sectors=sectors,
        market=market,
        loglik=loglik + 0.5 * jnp.sum(shift**2) - log_det(chol),
    )


def integrated(
    below: Information, chol: Float[Array, "coefficients coefficients"]
) -> tuple[Information, Float[Array, "*level"]]:
    """What the level above knows, and the constant that integration adds."""
    root = information_root(below, chol)
    seen = solve_lower(root, chol.T @ below.precision)
    heard = solve_lower(root, (chol.T @ below.linear[..., None]))
    above = Information(
        below.precision - transposed(seen) @ seen,
        below.linear - (transposed(seen) @ heard)[..., 0],
    )
    return above, 0.5 * jnp.sum(heard**2, axis=(-2, -1)) - log_det(root)


def conditional(
    below: Information,
    parent: Float[Array, "*level coefficients"],
    chol: Float[Array, "coefficients coefficients"],
) -> tuple[Float[Array, "*level coefficients"], Float[Array, "*level coefficients coefficients"]]:
    """K (h - J p) and U: given the level above, e = U'^{-1} (z + K (h - J p)), z ~ N(0, I)."""
    root = information_root(below, chol)
    error = below.linear - (below.precision @ parent[..., None])[..., 0]
    return solve_lower(root, chol.T @ error[..., None])[..., 0], root


def child(
    parent: Float[Array, "*level coefficients"],
    chol: Float[Array, "coefficients coefficients"],
    root: Float[Array, "*level coefficients coefficients"],
    standard: Float[Array, "*level coefficients"],
) -> Float[Array, "*level coefficients"]:
    """p + L U'^{-1} `standard`."""
    unit = solve_triangular(root, standard[..., None], lower=True, trans="T")
    return parent + (chol @ unit)[..., 0]


def draw_levels(
    information: LevelInformation,
    members: Int[Array, " series"],
    scales: LevelScales,
    *,
    key: PRNGKeyArray,
) -> Levels:
    """One joint draw of the coefficients of all levels given the data."""
    keys = jax.random.split(key, 3)

    def draw(below: Information, parent: Array, chol: Array, key: PRNGKeyArray) -> Array:
        shift, root = conditional(below, parent, chol)
        return child(parent, chol, root, shift + jax.random.normal(key, shift.shape, shift.dtype))

    market = draw(information.market, scales.market_mean, scales.market_chol, keys[0])
    above = jnp.broadcast_to(market, information.sectors.linear.shape)
    sectors = draw(information.sectors, above, scales.between_chol, keys[1])
    assets = draw(information.assets, sectors[members], scales.within_chol, keys[2])
    return Levels(market, sectors, assets)


def level_law(
    information: LevelInformation, members: Int[Array, " series"], scales: LevelScales
) -> LevelLaw:
    """The exact law of the coefficients of all levels given the data and the scales."""

    def below(known: Information, mean: Array, cov: Array, chol: Array) -> tuple[Array, Array]:
        shift, root = conditional(known, mean, chol)
        weight = solve_lower(root, chol.T)
        own = transposed(weight) @ weight
        passed = jnp.eye(len(chol), dtype=chol.dtype) - own @ known.precision
        return child(mean, chol, root, shift), passed @ cov @ transposed(passed) + own

    nothing = jnp.zeros_like(scales.market_chol)
    market_mean, market_cov = below(
        information.market, scales.market_mean, nothing, scales.market_chol
    )
    mean = jnp.broadcast_to(market_mean, information.sectors.linear.shape)
    cov = jnp.broadcast_to(market_cov, information.sectors.precision.shape)
    sector_means, sector_covs = below(information.sectors, mean, cov, scales.between_chol)
    means, covs = below(
        information.assets, sector_means[members], sector_covs[members], scales.within_chol
    )
    return LevelLaw(market_mean, market_cov, sector_means, sector_covs, means, covs)


def level_shares(information: LevelInformation, scales: LevelScales) -> LevelShares:
    """What each level takes from the level above, coefficient by coefficient."""

    def share(below: Information, chol: Array) -> Array:
        weight = solve_lower(information_root(below, chol), chol.T)
        own = transposed(weight) @ weight @ below.precision
        return 1.0 - jnp.diagonal(own, axis1=-2, axis2=-1)

    return LevelShares(
        share(information.assets, scales.within_chol),
        share(information.sectors, scales.between_chol),
    )


def information_root(below: Information, chol: Float[Array, "coefficients coefficients"]) -> Array:
    """U with I + L' J L = U U'."""
    identity = jnp.eye(len(chol), dtype=chol.dtype)
    return jnp.linalg.cholesky(identity + chol.T @ below.precision @ chol)


def transposed(
    matrices: Float[Array, "*batch rows columns"],
) -> Float[Array, "*batch columns rows"]:
    """Matrices transposed."""
    return jnp.swapaxes(matrices, -1, -2)


def solve_lower(
    chol: Float[Array, "*batch rows rows"], right: Float[Array, "*#batch rows columns"]
) -> Float[Array, "*batch rows columns"]:
    """L^{-1} B, batch axes broadcast."""
    batch = jnp.broadcast_shapes(chol.shape[:-2], right.shape[:-2])
    chol = jnp.broadcast_to(chol, (*batch, *chol.shape[-2:]))
    return solve_triangular(chol, jnp.broadcast_to(right, (*batch, *right.shape[-2:])), lower=True)


def log_det(chol: Float[Array, "*batch rows rows"]) -> Float[Array, "*batch"]:
    """ln det L, half the log-determinant of L L'."""
    return jnp.sum(jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)), axis=-1)
