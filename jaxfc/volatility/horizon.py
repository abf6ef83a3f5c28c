"""A vector ARMA mean over the horizon: its path, and how innovations add up in it and in its sums.

Given innovations that are martingale differences, all covariances ahead follow from the E_t[H] of
each step and from the responses Psi_k of the mean, whatever the law of the innovations.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float

# Products of covariances in full precision: GPUs would round factors to ten bits.
product = functools.partial(jnp.einsum, precision="highest")

Responses = (
    Float[Array, " horizon"]
    | Float[Array, "horizon series"]
    | Float[Array, "horizon series innovations"]
)


class Companion(NamedTuple):
    """`transition` F (states, states) and `impact` G (states, series): x_t = F x_{t-1} + G eps_t.

    The first `series` states are r_t, the last are the running sum.
    """

    transition: Float[Array, "states states"]
    impact: Float[Array, "states series"]


class CumulativeMoments(NamedTuple):
    """Covariances at each step: of the level r, of the running sum, and Cov(level, sum)."""

    level_covs: Float[Array, "horizon series series"]
    sum_covs: Float[Array, "horizon series series"]
    cross_covs: Float[Array, "horizon series series"]


class Varma(eqx.Module):
    """r_t = c + sum_{j <= p} A_j r_{t-j} + eps_t + sum_{k <= q} B_k eps_{t-k}.

    `intercept` c in units of r; `ar` A_1, ..., A_p and `ma` B_1, ..., B_q, newest lag first. p and
    q may be zero and no matrix needs to be diagonal; unit roots (error correction) are allowed.
    """

    intercept: Float[Array, " series"]
    ar: Float[Array, "ar_lags series series"]
    ma: Float[Array, "ma_lags series series"]

    def companion(self) -> Companion:
        """First-order form of (r_t, ..., r_{t-p+1}, eps_t, ..., eps_{t-q+1}, sum of r to t).

            F = [[Phi, 0], [K_1' Phi, I]],     G = [K; K_1' K],     K_1' the rows of r_t

        r_t is in the state also without autoregression, next to a zero A_1: else K_1 would pick
        eps_t, and leave its later effects out of every sum.
        """
        num_ar, size, _ = self.ar.shape
        num_ma = self.ma.shape[0]
        num_levels = max(num_ar, 1)
        missing = jnp.zeros((num_levels - num_ar, size, size), self.ar.dtype)
        lags = jnp.concatenate([self.ar, missing, self.ma])
        next_level = jnp.moveaxis(lags, 0, 1).reshape(size, -1)
        identity = jnp.eye(size, dtype=self.ar.dtype)
        one_later = jnp.eye(next_level.shape[1], k=-size, dtype=self.ar.dtype)
        first_shock = num_levels * size
        states = one_later.at[first_shock : first_shock + size].set(0.0).at[:size].set(next_level)
        impact = jnp.zeros((next_level.shape[1], size), self.ar.dtype).at[:size].set(identity)
        if num_ma:
            impact = impact.at[first_shock : first_shock + size].set(identity)
        transition = jnp.block(
            [[states, jnp.zeros_like(next_level.T)], [next_level, identity]],
        )
        return Companion(transition, jnp.concatenate([impact, identity]))


def recursion(
    varma: Varma,
    inputs: Float[Array, "horizon series *columns"],
    values: Float[Array, "ar_lags series *columns"],
    residuals: Float[Array, "ma_lags series *columns"],
) -> Float[Array, "horizon series *columns"]:
    """x_i = u_i + sum_j A_j x_{i-j} + sum_k B_k e_{i-k}, e = 0 ahead; histories newest first."""

    def step(carry, given):
        values, residuals = carry
        value = given + product("jab,jb...->a...", varma.ar, values)
        value = value + product("kab,kb...->a...", varma.ma, residuals)
        values = jnp.concatenate([value[None], values])[: varma.ar.shape[0]]
        residuals = jnp.concatenate([jnp.zeros_like(value)[None], residuals])
        return (values, residuals[: varma.ma.shape[0]]), value

    return jax.lax.scan(step, (values, residuals), inputs)[1]


def mean_path(
    varma: Varma,
    last_values: Float[Array, "rows series"],
    last_residuals: Float[Array, "residual_rows series"],
    horizon: int,
    *,
    exogenous: Float[Array, "horizon series"] | None = None,
) -> Float[Array, "horizon series"]:
    """Conditional means of r_{t+1}, ..., r_{t+h} given everything up to t.

    `last_values` and `last_residuals` (eps) are rows in time order, the newest last, at least p and
    q of them; earlier rows are not read. `exogenous` is added to the equation of each step, as a
    regression on variables known ahead would: it also moves the means that follow.

    **Raises:** `ValueError` for a horizon below 1 and for fewer rows than lags.
    """
    num_ar, num_ma = varma.ar.shape[0], varma.ma.shape[0]
    check_counts(horizon=horizon)
    for name, rows, num_lags in (
        ("last_values", last_values, num_ar),
        ("last_residuals", last_residuals, num_ma),
    ):
        if rows.shape[0] < num_lags:
            raise ValueError(
                f"{name} has {rows.shape[0]} rows, the mean looks back {num_lags}; pass the last "
                f"{num_lags} or more, the newest last."
            )
    inputs = jnp.broadcast_to(varma.intercept, (horizon, *varma.intercept.shape))
    if exogenous is not None:
        inputs = inputs + exogenous
    return recursion(varma, inputs, last_values[::-1][:num_ar], last_residuals[::-1][:num_ma])


def impulse_responses(varma: Varma, horizon: int) -> Float[Array, "horizon series series"]:
    """Psi_0 = I, Psi_k = B_k + sum_j A_j Psi_{k-j}: what a unit shock does k steps later.

    **Raises:** `ValueError` for a horizon below 1.
    """
    check_counts(horizon=horizon)
    num_ar, size, _ = varma.ar.shape
    now = jnp.eye(size, dtype=varma.ar.dtype)[None]
    before = jnp.zeros((max(num_ar, varma.ma.shape[0]), size, size), varma.ar.dtype)
    history = jnp.concatenate([now, before])
    nothing = jnp.zeros((horizon - 1, size, size), varma.ar.dtype)
    later = recursion(varma, nothing, history[:num_ar], history[: varma.ma.shape[0]])
    return jnp.concatenate([now, later])


def joint_moments(
    varma: Varma, innovation_covs: Float[Array, "horizon series series"]
) -> Float[Array, "horizon series horizon series"]:
    """Cov(r_{t+i}, r_{t+j}) = sum_{s <= min(i, j)} Psi_{i-s} H_s Psi_{j-s}'.

    `innovation_covs` are H_s = E_t[eps_{t+s} eps_{t+s}'] in squared units of r. O(h^3 N^3); the
    answer itself has (h N)^2 entries, see `cumulative_moments` for the sums alone.
    """
    return joint_cov(impulse_responses(varma, innovation_covs.shape[0]), innovation_covs)


def cumulative_moments(
    varma: Varma, innovation_covs: Float[Array, "horizon series series"]
) -> CumulativeMoments:
    """Covariances of r_{t+1} + ... + r_{t+i} for every i, by one scan of the companion form.

        P_s = F P_{s-1} F' + G H_s G',     P_0 = 0

    Sums are exact given exact `innovation_covs` H_s = E_t[eps_{t+s} eps_{t+s}'] (squared units of
    r), whatever the law of the innovations. O(h (N (p + q + 1))^3).

    Source: Hlouskova, Schmidheiny and Wagner (2009), whose double sum this equals.
    """
    transition, impact = varma.companion()
    size = impact.shape[1]

    def step(cov, innovation_cov):
        cov = product("ab,bc,dc->ad", transition, cov, transition)
        cov = cov + product("ab,bc,dc->ad", impact, innovation_cov, impact)
        return cov, (cov[:size, :size], cov[-size:, -size:], cov[:size, -size:])

    start = jnp.zeros_like(transition)
    levels, sums, cross = jax.lax.scan(step, start, innovation_covs)[1]
    return CumulativeMoments(symmetric(levels), symmetric(sums), cross)


def joint_cov(
    responses: Responses, innovation_covs: Float[Array, "horizon innovations innovations"]
) -> Float[Array, "horizon series horizon series"]:
    """sum_s Psi_{i-s} H_s Psi_{j-s}', Psi_k a matrix, a diagonal or a multiple of the identity."""
    lagged = by_period(responses)
    terms = {1: "is,js,sab->iajb", 2: "isa,jsb,sab->iajb", 3: "isac,jsbd,scd->iajb"}
    joint = product(terms[responses.ndim], lagged, lagged, innovation_covs)
    return 0.5 * (joint + joint.transpose(2, 3, 0, 1))


def own_covs(
    responses: Responses, innovation_covs: Float[Array, "horizon innovations innovations"]
) -> Float[Array, "horizon series series"]:
    """sum_s Psi_{i-s} H_s Psi_{i-s}' of every i, without what lies between the steps.

    O(h^2 N^3) for matrices Psi_k, O(h^2 N^2) for the others; memory O(h N^2).
    """
    if responses.ndim == 1:
        return symmetric(product("is,sab->iab", by_period(responses) ** 2, innovation_covs))
    terms = {2: "ia,ab,ib->iab", 3: "iac,cd,ibd->iab"}[responses.ndim]

    def term(lagged: Array, cov: Array) -> Array:
        return product(terms, lagged, cov, lagged)

    return symmetric(summed_over_periods(responses, term, innovation_covs))


def summed_over_periods(
    responses: Responses,
    term: Callable[[Array, Array], Array],
    periods: Float[Array, "horizon ..."],
) -> Array:
    """sum_s term(Psi_{.-s}, periods[s]): row i of the first is Psi_{i-s}, zero before s."""
    horizon = responses.shape[0]
    padded = jnp.concatenate([jnp.zeros_like(responses), responses])

    # A derivative keeps the responses, not h shifted copies of them.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def effect(period: Array, given: Array) -> Array:
        return term(jax.lax.dynamic_slice_in_dim(padded, horizon - period, horizon), given)

    def step(total, inputs):
        return total + effect(*inputs), None

    rest = (jnp.arange(1, horizon), periods[1:])
    return jax.lax.scan(step, term(responses, periods[0]), rest)[0]


def by_period(responses: Responses) -> Float[Array, "horizon horizon *rest"]:
    """Entry (i, s) is Psi_{i-s}, zero for s > i."""
    steps = jnp.arange(responses.shape[0])
    lags = steps[:, None] - steps
    happened = (lags >= 0).reshape(lags.shape + (1,) * (responses.ndim - 1))
    return jnp.where(happened, responses[jnp.maximum(lags, 0)], 0.0)


def symmetric(covs: Float[Array, "*batch size size"]) -> Float[Array, "*batch size size"]:
    """Free of what rounding put between the two halves."""
    return 0.5 * (covs + jnp.swapaxes(covs, -1, -2))
