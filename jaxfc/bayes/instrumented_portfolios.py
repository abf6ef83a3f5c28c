"""Characteristics as instruments: managed portfolios, ranks, and how much of returns is explained.

Cell (t, i) is usable if the return r_it and all characteristics z_it known before it are there.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float

# Products of float32 in full on machines that would round the operands.
einsum = functools.partial(jnp.einsum, precision="highest")
CENTRES = ("zero", "mean", "row_mean")


class ManagedPortfolios(eqx.Module):
    """W_t = Z_t' Z_t / n_t, x_t = Z_t' r_t / n_t and n_t; zero in rows without a usable cell."""

    gram: Float[Array, "time characteristics characteristics"]
    returns: Float[Array, "time characteristics"]
    counts: Float[Array, " time"]


def managed_portfolios(
    returns: Float[Array, "time series"],
    characteristics: Float[Array, "time series characteristics"],
    usable: Bool[Array, "time series"],
) -> ManagedPortfolios:
    """The moments of the usable cells: those whose return and all characteristics are known.

    `characteristics[t, i]` is what was known of asset i before its return `returns[t, i]`. What
    stands in cells that are not usable is never read. O(T N L^2).
    """
    held = jnp.where(usable[:, :, None], characteristics, 0.0)
    paid = jnp.where(usable, returns, 0.0)
    counts = jnp.sum(usable, axis=1).astype(returns.dtype)
    share = 1.0 / jnp.maximum(counts, 1.0)
    return ManagedPortfolios(
        gram=einsum("tnl,tnm->tlm", held, held) * share[:, None, None],
        returns=einsum("tnl,tn->tl", held, paid) * share[:, None],
        counts=counts,
    )


def ranked_characteristics(
    characteristics: Float[Array, "time series characteristics"],
    observed: Bool[Array, "time series characteristics"],
) -> Float[Array, "time series characteristics"]:
    """Ranks among the assets of the same row, from -1/2 to 1/2; ties share their mean rank.

    Zero where not observed, and where one asset alone is. O(T L N log N).

    Source: Kelly, Pruitt and Su (2019, section 4).
    """

    def ranked(values: Array, seen: Array) -> Array:
        filled = jnp.where(seen, values, jnp.inf)
        ordered, count = jnp.sort(filled), jnp.sum(seen)
        below = jnp.searchsorted(ordered, filled, side="left")
        upto = jnp.searchsorted(ordered, filled, side="right")
        place = 0.5 * (below + upto - 1).astype(values.dtype) / jnp.maximum(count - 1, 1)
        return jnp.where(seen & (count > 1), place - 0.5, 0.0)

    over_assets = jax.vmap(ranked, in_axes=(1, 1), out_axes=1)
    return jax.lax.stop_gradient(jax.vmap(over_assets)(characteristics, observed))


class RSquared(eqx.Module):
    """Shares of squares explained, of assets and of managed portfolios: `total` by the factors of
    the same row, `predictive` by what was expected of them before."""

    total: Float[Array, ""]
    predictive: Float[Array, ""]
    portfolio_total: Float[Array, ""]
    portfolio_predictive: Float[Array, ""]


def r_squared(
    values: Float[Array, "time columns"],
    fitted: Float[Array, "time columns"],
    usable: Bool[Array, "time columns"],
    about: str = "zero",
) -> Float[Array, ""]:
    """1 - sum (y - fit)^2 / sum (y - centre)^2 over the usable cells.

    The centre by `about`: "zero" (Kelly, Pruitt and Su), "mean" of all usable cells, or "row_mean",
    the mean of each row, where the answer is the mean of the rows' own shares (what the package
    ipca reports for portfolios; rows with fewer than two cells are left out).

    **Raises:** `ValueError` for another `about`.
    """
    if about not in CENTRES:
        raise ValueError(f"about must be one of {CENTRES}, got {about!r}.")
    counts = jnp.sum(usable, axis=1)
    held = jnp.where(usable, values, 0.0)
    missed = jnp.where(usable, values - fitted, 0.0) ** 2
    if about == "row_mean":
        centre = jnp.sum(held, axis=1, keepdims=True) / jnp.maximum(counts, 1)[:, None]
        spread = jnp.sum(jnp.where(usable, values - centre, 0.0) ** 2, axis=1)
        counted = counts > 1
        shares = 1.0 - jnp.sum(missed, axis=1) / jnp.where(counted, spread, 1.0)
        return jnp.sum(jnp.where(counted, shares, 0.0)) / jnp.sum(counted)
    centre = jnp.sum(held) / jnp.sum(counts) if about == "mean" else 0.0
    return 1.0 - jnp.sum(missed) / jnp.sum(jnp.where(usable, values - centre, 0.0) ** 2)


def explained(
    returns: Float[Array, "time series"],
    characteristics: Float[Array, "time series characteristics"],
    usable: Bool[Array, "time series"],
    realised: Float[Array, "time characteristics"],
    expected: Float[Array, "time characteristics"],
    about: str = "zero",
) -> RSquared:
    """How much of these returns, and of the portfolios x_t, two paths of c_t explain: the
    `realised` one and the one that was `expected` before.

        r_it = z_it' c_t,    x_t = W_t c_t

    Rows without a usable cell do not count.
    """
    held = jnp.where(usable[:, :, None], characteristics, 0.0)
    portfolios = managed_portfolios(returns, held, usable)
    any_usable = jnp.broadcast_to(portfolios.counts[:, None] > 0, portfolios.returns.shape)

    def shares(earned: Array) -> tuple[Array, Array]:
        of_assets = einsum("tnl,tl->tn", held, earned)
        of_portfolios = einsum("tlm,tm->tl", portfolios.gram, earned)
        return (
            r_squared(returns, of_assets, usable, about),
            r_squared(portfolios.returns, of_portfolios, any_usable, about),
        )

    (total, portfolio_total), (predictive, portfolio_predictive) = map(shares, (realised, expected))
    return RSquared(total, predictive, portfolio_total, portfolio_predictive)
