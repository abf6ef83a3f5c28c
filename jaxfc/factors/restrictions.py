"""Restrictions on loadings and dynamics: zeros, factor blocks, and linear equations.

    W[i, k] = 0 where not allowed,   A_l[j, k] = 0 where not allowed,   Q[j, k] = 0 where not
    allowed, sum_{i,k} C_m[i, k] W[i, k] = c_m,   sum_{l,j,k} D_m[l, j, k] A_l[j, k] = d_m

The M-step stays exact: zeros drop out of the normal equations, linear equations are imposed by the
projection of generalised least squares (Wu, Pai and Hosking 1996; Bork 2009).
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Bool, Float, as_scalar

# Coordinate sweeps of a penalised regression in one M-step; the iteration goes on from there.
NUM_SWEEPS = 10


class LinearEquations(eqx.Module):
    """`coefficients` (equations, ...) . theta = `values` (equations,), theta of any shape."""

    coefficients: Float[Array, "equations ..."]
    values: Float[Array, " equations"]


class Restrictions(eqx.Module):
    """What an estimation may not touch; None: nothing of the kind.

    `loadings`, `transition`, `innovations`: True where an entry is free, False where it is zero
    (for `innovations` the pattern of a partition of the factors into blocks). `on_loadings`,
    `on_transition`: linear equations on standardised loadings and on the VAR coefficients.
    `penalty` times the sum of |W[i, k]| is taken off the log-likelihood (sparse loadings); Q stays
    I then, else loadings could shrink without end; `loglik` of the fit is without it, its
    `loglik_path` with it.
    """

    loadings: Bool[Array, "series factors"] | None = None
    transition: Bool[Array, "lags factors factors"] | None = None
    innovations: Bool[Array, "factors factors"] | None = None
    on_loadings: LinearEquations | None = None
    on_transition: LinearEquations | None = None
    observed_factors: tuple[tuple[int, int], ...] = eqx.field(static=True, default=())
    penalty: Float[Array, ""] | None = eqx.field(
        converter=lambda x: None if x is None else as_scalar(x), default=None
    )

    def with_unit_rows(
        self, coefficients: Float[Array, "series regressors"]
    ) -> Float[Array, "series regressors"]:
        """Coefficients in which the series that are factors load on themselves alone."""
        for row, column in self.observed_factors:
            unit = jnp.zeros_like(coefficients[row]).at[column].set(1.0)
            coefficients = coefficients.at[row].set(unit)
        return coefficients

    def floored(
        self, variances: Float[Array, " series"], floor: Float[Array, ""]
    ) -> Float[Array, " series"]:
        """Variances in which the series that are factors have no error to speak of."""
        for row, _ in self.observed_factors:
            variances = variances.at[row].set(floor.astype(variances.dtype))
        return variances

    @property
    def fixes_scale(self) -> bool:
        """Whether the factors have no free scale: linear equations, or a penalty on loadings."""
        rules = (self.on_loadings, self.on_transition, self.penalty)
        return any(rule is not None for rule in rules)

    def check(self, names: Sequence[str], num_factors: int, num_lags: int) -> None:
        """Raise `ValueError` for shapes that do not fit, a series or factor without any loading, a
        pattern of innovations that is no partition, and equations that cannot hold."""
        shapes = {
            "loadings": (len(names), num_factors),
            "transition": (num_lags, num_factors, num_factors),
            "innovations": (num_factors, num_factors),
        }
        for name, shape in shapes.items():
            given = getattr(self, name)
            if given is not None and given.shape != shape:
                raise ValueError(
                    f"restrictions.{name} has shape {given.shape}, the model needs {shape}."
                )
        if self.loadings is not None:
            check_pattern(np.asarray(self.loadings), names)
        if self.innovations is not None:
            check_partition(np.asarray(self.innovations))
        places = [*zip(*self.observed_factors, strict=True)]
        if any(len(set(of)) < len(of) for of in places):
            raise ValueError(
                f"observed_factors {self.observed_factors} name a series or a factor twice."
            )
        for name in ("loadings", "transition"):
            equations = getattr(self, f"on_{name}")
            if equations is not None:
                check_equations(equations, getattr(self, name), shapes[name], name)


def check_pattern(allowed: np.ndarray, names: Sequence[str]) -> None:
    """Every series needs a factor and every factor a series."""
    without = [name for name, row in zip(names, allowed, strict=True) if not row.any()]
    if without:
        raise ValueError(
            f"series {', '.join(map(repr, without[:5]))} load on no factor; put each into a "
            "block, or leave it out of the panel."
        )
    unused = np.flatnonzero(~allowed.any(axis=0))
    if len(unused):
        raise ValueError(f"no series loads on factor {unused[0]}; lower num_factors.")


def check_partition(allowed: np.ndarray) -> None:
    """Free covariances must form blocks: else the maximum has no closed form."""
    closed = (allowed.astype(int) @ allowed.astype(int)) > 0
    if not (np.diag(allowed).all() and (allowed == allowed.T).all() and (closed == allowed).all()):
        raise ValueError(
            "restrictions.innovations must be the pattern of a partition of the factors into "
            "blocks (symmetric, True on the diagonal, and transitive)."
        )


def check_equations(
    equations: LinearEquations, allowed: Array | None, shape: tuple[int, ...], name: str
) -> None:
    """The equations must be consistent with the zeros and with one another."""
    coefficients = np.asarray(equations.coefficients)
    if coefficients.shape[1:] != shape:
        raise ValueError(
            f"restrictions.on_{name} has coefficients of shape {coefficients.shape[1:]} for "
            f"{name} of shape {shape}."
        )
    free = coefficients if allowed is None else np.where(np.asarray(allowed), coefficients, 0.0)
    matrix, values = free.reshape(len(free), -1), np.asarray(equations.values)
    solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
    worst = int(np.argmax(np.abs(matrix @ solution - values)))
    if abs(matrix[worst] @ solution - values[worst]) > 1e-8 * max(1.0, abs(values[worst])):
        raise ValueError(
            f"restrictions on the {name} cannot hold: equation {worst} (value {values[worst]:g}) "
            "contradicts the zeros or the other equations."
        )
    if np.linalg.matrix_rank(matrix) < len(matrix):
        raise ValueError(
            f"restrictions on the {name}: an equation is a combination of the others; drop it."
        )


def without_fixed(
    moments: Float[Array, "*batch size size"],
    cross: Float[Array, "*batch size"],
    free: Bool[Array, "*batch size"],
) -> tuple[Array, Array]:
    """Normal equations whose fixed coefficients come out as zero."""
    identity = jnp.eye(moments.shape[-1], dtype=moments.dtype)
    both = free[..., :, None] & free[..., None, :]
    return jnp.where(both, moments, identity), jnp.where(free, cross, 0.0)


def impose(
    solution: Float[Array, "..."],
    inverse_times: Callable[[Array], Array],
    coefficients: Float[Array, "equations ..."],
    values: Float[Array, " equations"],
) -> Float[Array, "..."]:
    """theta - H^{-1} C' (C H^{-1} C')^{-1} (C theta - c): the minimum of the quadratic form with
    Hessian H under C theta = c. `inverse_times` maps an array of theta's shape to H^{-1} of it."""
    count = coefficients.shape[0]
    spread = jnp.stack([inverse_times(row) for row in coefficients])
    flat = coefficients.reshape(count, -1)
    gram = flat @ spread.reshape(count, -1).T
    gap = flat @ solution.reshape(-1) - values
    return solution - jnp.tensordot(jnp.linalg.solve(gram, gap), spread, axes=1)


def soft_descent(
    start: Float[Array, "series regressors"],
    moments: Float[Array, "*batch regressors regressors"],
    cross: Float[Array, "series regressors"],
    penalties: Float[Array, "series regressors"],
) -> Float[Array, "series regressors"]:
    """argmin w'Mw / 2 - c'w + sum_k penalty_k |w_k| for every series, by coordinate descent.

    w_k <- soft(c_k - sum_{j != k} M_kj w_j, penalty_k) / M_kk (Friedman, Hastie and Tibshirani
    2010); a fixed number of sweeps, each of which lowers the criterion, from the unpenalised
    solution.
    """
    moments = jnp.broadcast_to(moments, (*cross.shape, cross.shape[1]))

    def sweep(_, weights: Array) -> Array:
        for k in range(cross.shape[1]):
            own = moments[:, k, k]
            rest = cross[:, k] - jnp.sum(moments[:, k] * weights, axis=1) + own * weights[:, k]
            size = jnp.maximum(jnp.abs(rest) - penalties[:, k], 0.0)
            weights = weights.at[:, k].set(jnp.sign(rest) * size / own)
        return weights

    return jax.lax.fori_loop(0, NUM_SWEEPS, sweep, start)
