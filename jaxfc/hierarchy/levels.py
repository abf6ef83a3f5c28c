"""One level of a Gaussian hierarchy: what members say of their group's mean, and what it says back.

Members i of group s have coefficients th_i ~ N(D_i g_s, Lam_s). What the data of i say of th_i is
kept as a square root of its information,

    ln p(data_i | th_i) = c_i - |r_i - R_i th_i|^2 / 2,

so that a member without data (R = 0) or with fewer data than coefficients is no special case. With
Lam = L L', every covariance below is a sum or a product of semi-definite matrices:

    (V + Lam)^{-1} = R' (I + R Lam R')^{-1} R,
    (V^{-1} + Lam^{-1})^{-1} = L (I + L'R'R L)^{-1} L',

where R'R = V^{-1}. Neither V nor Lam is inverted, and both may be singular.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.semidefinite import semidefinite_chol
from jaxfc_kernels.small_matrix import MAX_UNROLLED_ONCE, spd_inverse

# All digits of float32 on machines whose products would round their operands.
product = partial(jnp.einsum, precision="highest")


class Evidence(eqx.Module):
    """What the data of each member say of its coefficients.

        ln p(data_i | th_i) = constants_i - |targets_i - roots_i th_i|^2 / 2

    `roots` R_i (members, coefficients, coefficients) with R_i' R_i the information, zero for a
    member without data; `targets` r_i (members, coefficients) with r_i = R_i b_i for an estimate
    b_i; `constants` (members,).
    """

    roots: Float[Array, "members coefficients coefficients"]
    targets: Float[Array, "members coefficients"]
    constants: Float[Array, " members"]

    @property
    def information(self) -> Float[Array, "members coefficients coefficients"]:
        """R_i' R_i, the inverse of the sampling covariance where that exists."""
        return product("iab,iac->ibc", self.roots, self.roots)

    @property
    def informed(self) -> Bool[Array, " members"]:
        """Whether a member has any data."""
        return jnp.any(self.roots != 0.0, axis=(1, 2))


class MemberLaw(NamedTuple):
    """What is known of the members' coefficients: `means`, `covs`, and `gap_moments`, the
    expectations of (th_i - D_i g_s)(th_i - D_i g_s)'."""

    means: Float[Array, "members coefficients"]
    covs: Float[Array, "members coefficients coefficients"]
    gap_moments: Float[Array, "members coefficients coefficients"]


def evidence_of_estimates(
    estimates: Float[Array, "members coefficients"],
    covs: Float[Array, "members coefficients coefficients"],
    observed: Bool[Array, " members"] | None = None,
) -> Evidence:
    """Estimates b_i with sampling covariances V_i: b_i | th_i ~ N(th_i, V_i).

    **Arguments:** `estimates` (members, coefficients), `covs` (members, coefficients,
    coefficients), positive definite; where not `observed`, and where an entry of V_i or b_i is not
    finite, member i says nothing.
    """
    finite = jnp.all(jnp.isfinite(covs), axis=(1, 2)) & jnp.all(jnp.isfinite(estimates), axis=1)
    seen = finite if observed is None else finite & observed
    identity = jnp.eye(estimates.shape[1], dtype=estimates.dtype)
    chols = jnp.linalg.cholesky(jnp.where(seen[:, None, None], covs, identity))
    roots = jax.vmap(lambda chol: solve_triangular(chol, identity, lower=True))(chols)
    roots = jnp.where(seen[:, None, None], roots, 0.0)
    targets = product("iab,ib->ia", roots, jnp.where(seen[:, None], estimates, 0.0))
    half_log_dets = jnp.sum(jnp.log(jnp.diagonal(chols, axis1=1, axis2=2)), axis=1)
    constants = -0.5 * estimates.shape[1] * LOG_2PI - half_log_dets
    return Evidence(roots, targets, jnp.where(seen, constants, 0.0))


def rooted(
    information: Float[Array, "members coefficients coefficients"],
    vectors: Float[Array, "members coefficients"],
) -> tuple[Float[Array, "members coefficients coefficients"], Float[Array, "members coefficients"]]:
    """R and r with R'R = J and R'r = h, for `information` J of any rank and h in its range."""
    chols = jax.vmap(semidefinite_chol)(information)
    filled, is_empty = filled_chol(chols)
    targets = jax.vmap(lambda chol, h: solve_triangular(chol, h, lower=True))(filled, vectors)
    return jnp.swapaxes(chols, 1, 2), jnp.where(is_empty, 0.0, targets)


def filled_chol(
    chols: Float[Array, "members coefficients coefficients"],
) -> tuple[Float[Array, "members coefficients coefficients"], Bool[Array, "members coefficients"]]:
    """Lower factors with a one on the diagonal of empty columns, and which columns are empty."""
    is_empty = jnp.diagonal(chols, axis1=1, axis2=2) == 0.0
    identity = jnp.eye(chols.shape[1], dtype=chols.dtype)
    return chols + jnp.where(is_empty[:, :, None], identity, 0.0), is_empty


def own_estimates(evidence: Evidence) -> Float[Array, "members coefficients"]:
    """b_i with R_i b_i = r_i, of upper triangular R_i; zero in directions without information."""
    filled, _ = filled_chol(jnp.swapaxes(evidence.roots, 1, 2))
    solve = jax.vmap(lambda chol, r: solve_triangular(chol, r, lower=True, trans="T"))
    return solve(filled, evidence.targets)


def inverse_and_log_det(
    matrices: Float[Array, "*members coefficients coefficients"],
) -> tuple[Float[Array, "*members coefficients coefficients"], Float[Array, "*members"]]:
    """Inverses and log-determinants of positive definite matrices."""
    # Larger unrolled code compiles slowly, and several such inverses stand in one step of EM.
    small = matrices.shape[-1] <= MAX_UNROLLED_ONCE
    inverses, pivots = spd_inverse(matrices, "gauss_jordan" if small else "cholesky")
    return inverses, jnp.sum(jnp.log(pivots), axis=-1)


def upward(
    evidence: Evidence,
    groups: Int[Array, " members"],
    num_groups: int,
    spread_chols: Float[Array, "groups coefficients coefficients"],
    design: Float[Array, "members coefficients group_coefficients"],
) -> Evidence:
    """What the members' data say of g_s, th_i integrated out: O(members coefficients^3).

    The information is sum_i D_i' (V_i + Lam_s)^{-1} D_i. `spread_chols` are the L_s.
    """
    roots, targets = evidence.roots, evidence.targets
    spread = product("iab,ibc->iac", roots, spread_chols[groups])
    identity = jnp.eye(roots.shape[1], dtype=roots.dtype)
    inverses, log_dets = inverse_and_log_det(identity + product("iab,icb->iac", spread, spread))
    seen = product("iab,ibp->iap", roots, design)
    weighted = product("iab,ibp->iap", inverses, seen)
    sums = partial(jax.ops.segment_sum, segment_ids=groups, num_segments=num_groups)
    information = sums(product("iap,iaq->ipq", seen, weighted))
    information = 0.5 * (information + jnp.swapaxes(information, 1, 2))
    vectors = sums(product("iap,ia->ip", weighted, targets))
    group_roots, group_targets = rooted(information, vectors)
    found = Evidence(group_roots, group_targets, jnp.zeros_like(group_targets[:, 0]))
    # Distances from the group's own estimate: sums of squares of the data would cancel.
    rest = targets - product("iap,ip->ia", seen, own_estimates(found)[groups])
    losses = product("ia,iab,ib->i", rest, inverses, rest) + log_dets
    constants = sums(evidence.constants - 0.5 * losses)
    return Evidence(group_roots, group_targets, constants)


def downward(
    evidence: Evidence,
    groups: Int[Array, " members"],
    spread_chols: Float[Array, "groups coefficients coefficients"],
    design: Float[Array, "members coefficients group_coefficients"],
    group_means: Float[Array, "groups group_coefficients"],
    group_covs: Float[Array, "groups group_coefficients group_coefficients"],
) -> MemberLaw:
    """The law of th_i given all data, from that of g_s given all data.

    With P_i = (V_i^{-1} + Lam_s^{-1})^{-1} and G_i = P_i V_i^{-1}, th_i = (I - G_i) D_i g_s +
    G_i b_i + N(0, P_i): exact, since the data of the others speak of th_i through g_s only.
    """
    roots, chols = evidence.roots, spread_chols[groups]
    spread = product("iab,ibc->iac", roots, chols)
    identity = jnp.eye(roots.shape[1], dtype=roots.dtype)
    inverses, _ = inverse_and_log_det(identity + product("iba,ibc->iac", spread, spread))
    own_covs = product("iab,ibc,idc->iad", chols, inverses, chols)
    expected = product("iap,ip->ia", design, group_means[groups])
    errors = evidence.targets - product("iab,ib->ia", roots, expected)
    moves = product("iab,icb,ic->ia", own_covs, roots, errors)
    gains = product("iab,ibc->iac", own_covs, evidence.information)
    above = product("iap,ipq,ibq->iab", design, group_covs[groups], design)
    keep = identity - gains
    covs = own_covs + product("iab,ibc,idc->iad", keep, above, keep)
    gaps = own_covs + product("iab,ibc,idc->iad", gains, above, gains)
    return MemberLaw(expected + moves, covs, gaps + product("ia,ib->iab", moves, moves))
