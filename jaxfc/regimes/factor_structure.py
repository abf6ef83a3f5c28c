"""Scatter matrices with a market factor and, where asked for, one factor for each sector.

    y_t = mu + L f_t + e_t,    f_t ~ N(0, I),    e_t ~ N(0, diag(d)),    S = L L' + diag(d)

Column 0 of L is the exposure to the market (s b in s^2 b b' + sum_s g_s c_s c_s' + D), column s + 1
that to sector s, zero outside it (sqrt(g_s) c_s). With O_t the observed entries of row t,
A_t = I + L' O_t diag(d)^{-1} L and h_t = L' O_t diag(d)^{-1} (y_t - mu):

    (y - mu)' S_oo^{-1} (y - mu) = sum_o r_i^2 / d_i - h' A^{-1} h
    ln |S_oo| = sum_o ln d_i + ln |A|
    f_t | y_t ~ N(A_t^{-1} h_t, A_t^{-1} / u_t)

A row costs O(N q^2), q factors; no N x N matrix is formed but by `dense`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.regimes.masked import Rows
from jaxfc.regimes.prior import PriorMoments
from jaxfc.regimes.structure import Structure, variance_strength
from jaxfc.typing import Array, Float, PyTree
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

# Share of each variance that a start gives to the market, and to the sector.
START_SHARES = (0.4, 0.1)


class FactorScatter(eqx.Module):
    """`loadings` L in units of the data, `variances` d in their square."""

    loadings: Float[Array, "*regimes series factors"]
    variances: Float[Array, "*regimes series"]


class MarketSectorCovariance(Structure):
    """S = L L' + diag(d): a market factor and one for each sector.

    `sectors`: the number of the sector of each series, 0, 1, ...; empty: the market alone, as in a
    crisis. M-steps are those of factor EM: expected moments of the factors given the row and the
    regime, then a regression of each series on the factors that it has, with normal-inverse-gamma
    priors: that of d_i as in `Prior`, exposures pulled to zero with `mean_strength`.

    **Raises:** `ValueError` for numbers that leave a sector out, and for another number of series.

    Source: Rubin and Thayer (1982) for factor EM.
    """

    sectors: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        found = sorted(set(self.sectors))
        if found != list(range(len(found))):
            raise ValueError(f"sectors must be numbered 0, 1, ... without a gap, got {found}.")

    def check(self, num_series: int) -> None:
        if self.sectors and len(self.sectors) != num_series:
            raise ValueError(
                f"sectors name {len(self.sectors)} series, the panel has {num_series}; give the "
                "sector of each, in the order of the panel."
            )

    def support(self, num_series: int, dtype) -> Float[Array, "series factors"]:
        """1.0 where a series has a factor."""
        market = jnp.ones((num_series, 1), dtype)
        if not self.sectors:
            return market
        return jnp.concatenate(
            [market, jax.nn.one_hot(jnp.array(self.sectors), self.size, dtype=dtype)], 1
        )

    @property
    def size(self) -> int:
        """Number of sectors."""
        return len(set(self.sectors))

    def num_parameters(self, num_series: int) -> int:
        return 3 * num_series + len(self.sectors)

    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        variances = jnp.diagonal(scatter)
        support = self.support(variances.size, scatter.dtype)
        # Signs by the first principal component of the correlations: all one for most markets.
        stds = jnp.sqrt(variances)
        first = jnp.linalg.eigh(scatter / (stds[:, None] * stds))[1][:, -1]
        signs = jnp.where(first * jnp.sum(first) < 0, -1.0, 1.0)
        market, sector = START_SHARES
        shares = jnp.sqrt(jnp.where(jnp.arange(support.shape[1]) == 0, market, sector))
        loadings = (signs * stds)[:, None] * shares.astype(stds.dtype) * support
        return FactorScatter(loadings, variances - jnp.sum(loadings**2, axis=1))

    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        return scatter.loadings @ scatter.loadings.T + jnp.diag(scatter.variances)

    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        residuals = rows.seen * (rows.values - mean)
        factors, _, pivots, linear = factor_law(scatter, rows, residuals)
        own = residuals**2 @ (1.0 / scatter.variances)
        log_dets = rows.seen @ jnp.log(scatter.variances) + jnp.sum(jnp.log(pivots), axis=1)
        return own - jnp.sum(linear * factors, axis=1), log_dets

    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        pulls = weights * precisions
        residuals = rows.seen * (rows.values - mean)
        factors, covs, _, _ = factor_law(scatter, rows, residuals)
        regressors = jnp.concatenate([jnp.ones_like(factors[:, :1]), factors], axis=1)
        squares = pulls[:, None, None] * regressors[:, :, None] * regressors[:, None, :]
        squares = squares.at[:, 1:, 1:].add(weights[:, None, None] * covs)
        size = regressors.shape[1]
        moments = (rows.seen.T @ squares.reshape(len(weights), -1)).reshape(-1, size, size)
        cross = residuals.T @ (pulls[:, None] * regressors)
        total = pulls @ residuals**2

        # The prior as rows seen before: of the mean at m_0, of exposures at zero.
        strength = jnp.broadcast_to(prior.mean_strength, (size,))
        aim = prior.mean - mean
        moments = moments + jnp.diag(strength)
        cross = cross.at[:, 0].add(prior.mean_strength * aim)
        total = total + prior.mean_strength * aim**2
        own = jnp.pad(self.support(mean.size, mean.dtype), ((0, 0), (1, 0)), constant_values=1.0)
        both = own[:, :, None] * own[:, None, :]
        moments = both * moments + (1.0 - both) * jnp.eye(size, dtype=mean.dtype)
        inverses, _ = spd_inverse(moments, fastest_implementation(size))
        solved = jnp.einsum("iab,ib->ia", inverses, own * cross, precision="highest")

        unexplained = total - jnp.sum(solved * own * cross, axis=1)
        own_strength = variance_strength(prior)
        variances = unexplained + own_strength * jnp.diagonal(prior.scatter)
        variances = variances / (own_strength + weights @ rows.seen)
        return mean + solved[:, 0], FactorScatter(solved[:, 1:], variances)

    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        variances = scatter.variances
        spread = jnp.log(variances) + jnp.diagonal(prior.scatter) / variances
        pull = (mean - prior.mean) ** 2 + jnp.sum(scatter.loadings**2, axis=1)
        strength = variance_strength(prior)
        return -0.5 * jnp.sum(strength * spread + prior.mean_strength * pull / variances)


def market_covariance() -> MarketSectorCovariance:
    """S = s^2 b b' + D: the market alone."""
    return MarketSectorCovariance()


def factor_law(
    scatter: FactorScatter, rows: Rows, residuals: Float[Array, "time series"]
) -> tuple[
    Float[Array, "time factors"],
    Float[Array, "time factors factors"],
    Float[Array, "time factors"],
    Float[Array, "time factors"],
]:
    """Means A^{-1} h and covariances A^{-1} of the factors given the row, pivots of A, and h."""
    loadings, size = scatter.loadings, scatter.loadings.shape[1]
    scaled = loadings / scatter.variances[:, None]
    outer = (scaled[:, :, None] * loadings[:, None, :]).reshape(loadings.shape[0], -1)
    precision = jnp.eye(size, dtype=loadings.dtype) + (rows.seen @ outer).reshape(-1, size, size)
    covs, pivots = spd_inverse(precision, fastest_implementation(size))
    linear = residuals @ scaled
    factors = jnp.einsum("tab,tb->ta", covs, linear, precision="highest")
    return factors, covs, pivots, linear
