"""The law of given regressors, for rows in which they are not known."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray


class RegressorLaw(eqx.Module):
    """Regressors x_t = B' z_t + v_t, v ~ N(0, S), with z_t = 1, or (1, x_{t-1}')' with a lag.

    Under the prior p(B, S) of |S|^{-(factors + 1) / 2}, given the rows in which all regressors (and
    their lags) are observed,

        S ~ inverse Wishart(R'R, rows - terms),     B | S ~ N(B_hat, S x (Z'Z)^{-1})

    `coefficients` B_hat (terms, factors), `root` C with C C' = (Z'Z)^{-1}, `residual_root` R' with
    R'R the sum of squared residuals, `free` = rows - terms, `last` the last complete row, `gap` how
    many of the `num_rows` rows of the data come after it: a path goes on from the last of these.
    What is observed of incomplete rows says nothing.

    Source: Zellner (1971), chapter 8.
    """

    coefficients: Float[Array, "terms factors"]
    root: Float[Array, "terms terms"]
    residual_root: Float[Array, "factors factors"]
    free: Float[Array, ""]
    last: Float[Array, " factors"]
    gap: Int[Array, ""]
    num_rows: int = eqx.field(static=True)
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
        """One path of the rows after the data, parameters drawn."""
        draw_key, key, gap_key = jax.random.split(key, 3)
        coefficients, root = self.draw(key=draw_key)
        start = self.waited(coefficients, root, key=gap_key) if self.num_lags else self.last
        return self.roll(coefficients, root, start, horizon, key=key)

    def waited(
        self,
        coefficients: Float[Array, "terms factors"],
        root: Float[Array, "factors factors"],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " factors"]:
        """A draw of the last row of the data at given parameters: `last`, or what it may have
        become by then."""

        def wait(row: Array, number: Array) -> tuple[Array, None]:
            def after(row: Array) -> Array:
                shock = jax.random.normal(jax.random.fold_in(key, number), row.shape, row.dtype)
                return next_row(coefficients, row, root @ shock)

            # A branch, so that a batch of draws pays for the rows of the gap only.
            return jax.lax.cond(number < self.gap, after, lambda row: row, row), None

        return jax.lax.scan(wait, self.last, jnp.arange(self.num_rows))[0]

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
            row = next_row(coefficients, row, shock)
            return row, row

        return jax.lax.scan(step, start, shocks)[1]

    def after(
        self, values: Float[Array, "time factors"], observed: Bool[Array, "time factors"]
    ) -> "RegressorLaw":
        """The same law after other rows."""
        last, gap = last_complete(values, observed)
        return dataclasses.replace(self, last=last, gap=gap, num_rows=len(values))


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
    last, gap = last_complete(values, observed)
    return RegressorLaw(
        coefficients=solve_triangular(of_terms, factor[:num_terms, num_terms:]),
        root=solve_triangular(of_terms, identity),
        residual_root=factor[num_terms:, num_terms:][:size].T,
        free=jnp.sum(known).astype(rows.dtype) - num_terms,
        last=last,
        gap=gap,
        num_rows=len(values),
        num_lags=num_lags,
    )


def last_complete(
    values: Float[Array, "time factors"], observed: Bool[Array, "time factors"]
) -> tuple[Float[Array, " factors"], Int[Array, ""]]:
    """The last row in which all regressors are observed, and how many rows come after it."""
    complete = jnp.all(observed, axis=1)
    gap = jnp.argmax(jnp.flip(complete))
    return jnp.where(observed, values, 0.0)[len(complete) - 1 - gap], gap


def next_row(
    coefficients: Float[Array, "terms factors"],
    row: Float[Array, " factors"],
    shock: Float[Array, " factors"],
) -> Float[Array, " factors"]:
    """The row after `row` with this innovation."""
    return coefficients[0] + row @ coefficients[1:] + shock
