"""The law of given regressors, for rows in which they are not known."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


class RegressorLaw(eqx.Module):
    """Regressors x_t = B' z_t + v_t, v ~ N(0, S), with z_t = 1, or (1, x_{t-1}')' with a lag.

    Under the prior p(B, S) of |S|^{-(factors + 1) / 2}, given the rows in which all regressors (and
    their lags) are observed,

        S ~ inverse Wishart(R'R, rows - terms),     B | S ~ N(B_hat, S x (Z'Z)^{-1})

    `coefficients` B_hat (terms, factors), `root` C with C C' = (Z'Z)^{-1}, `residual_root` R' with
    R'R the sum of squared residuals, `free` = rows - terms, `last` the last complete row.

    Source: Zellner (1971), chapter 8.
    """

    coefficients: Float[Array, "terms factors"]
    root: Float[Array, "terms terms"]
    residual_root: Float[Array, "factors factors"]
    free: Float[Array, ""]
    last: Float[Array, " factors"]
    num_lags: int = eqx.field(static=True)

    def draw(self, *, key: PRNGKeyArray) -> tuple[Array, Array]:
        """B (terms, factors) and a root of S (factors, factors), drawn from their posterior."""
        num_terms, size = self.coefficients.shape
        keys = jax.random.split(key, 3)
        dtype = self.coefficients.dtype
        degrees = self.free - jnp.arange(size, dtype=dtype)
        diagonal = jnp.sqrt(2.0 * jax.random.gamma(keys[0], 0.5 * degrees, dtype=dtype))
        bartlett = jnp.tril(jax.random.normal(keys[1], (size, size), dtype), -1)
        bartlett = bartlett + jnp.diag(diagonal)
        # S^{-1} = C^{-T} A A' C^{-1} with C C' = R'R, A of Bartlett (1933): C A^{-T} is a root.
        root = solve_triangular(bartlett, self.residual_root.T, lower=True).T
        noise = jax.random.normal(keys[2], (num_terms, size), dtype)
        return self.coefficients + self.root @ noise @ root.T, root

    def path(self, horizon: int, *, key: PRNGKeyArray) -> Float[Array, "horizon factors"]:
        """One path of the rows after `last`, parameters drawn."""
        draw_key, key = jax.random.split(key)
        coefficients, root = self.draw(key=draw_key)
        return self.roll(coefficients, root, self.last, horizon, key=key)

    def roll(
        self,
        coefficients: Float[Array, "terms factors"],
        root: Float[Array, "factors factors"],
        start: Float[Array, " factors"],
        horizon: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "horizon factors"]:
        """One path after `start` at given parameters."""
        shocks = jax.random.normal(key, (horizon, len(start)), start.dtype) @ root.T
        if self.num_lags == 0:
            return coefficients[0] + shocks

        def step(row: Array, shock: Array) -> tuple[Array, Array]:
            row = coefficients[0] + row @ coefficients[1:] + shock
            return row, row

        return jax.lax.scan(step, start, shocks)[1]

    def after(
        self, values: Float[Array, "time factors"], observed: Bool[Array, "time factors"]
    ) -> "RegressorLaw":
        """The same law after other rows."""
        return dataclasses.replace(self, last=last_complete(values, observed))


def regressor_law(
    values: Float[Array, "time factors"], observed: Bool[Array, "time factors"], num_lags: int
) -> RegressorLaw:
    """The law of regressors by least squares on complete rows, with `num_lags` 0 or 1."""
    complete = jnp.all(observed, axis=1)
    filled = jnp.where(observed, values, 0.0)
    terms = [jnp.ones_like(filled[:, :1])]
    known = complete
    if num_lags == 1:
        terms.append(jnp.concatenate([jnp.zeros_like(filled[:1]), filled[:-1]]))
        known = complete & jnp.concatenate([jnp.zeros(1, bool), complete[:-1]])
    columns = jnp.concatenate(terms, axis=1)
    num_terms, size = columns.shape[1], filled.shape[1]
    rows = known[:, None] * jnp.concatenate([columns, filled], axis=1)
    padded = jnp.concatenate([rows, jnp.zeros((rows.shape[1],) * 2, rows.dtype)])
    factor = jnp.linalg.qr(padded, mode="r")
    of_terms = factor[:num_terms, :num_terms]
    identity = jnp.eye(num_terms, dtype=rows.dtype)
    return RegressorLaw(
        coefficients=solve_triangular(of_terms, factor[:num_terms, num_terms:]),
        root=solve_triangular(of_terms, identity),
        residual_root=factor[num_terms:, num_terms:][:size].T,
        free=jnp.sum(known).astype(rows.dtype) - num_terms,
        last=last_complete(values, observed),
        num_lags=num_lags,
    )


def last_complete(
    values: Float[Array, "time factors"], observed: Bool[Array, "time factors"]
) -> Float[Array, " factors"]:
    """The last row in which all regressors are observed."""
    complete = jnp.all(observed, axis=1)
    place = len(complete) - 1 - jnp.argmax(jnp.flip(complete))
    return jnp.where(observed, values, 0.0)[place]
