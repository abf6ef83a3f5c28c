"""Dynamic conditional correlations: a recursion of a matrix that missing products carry on."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.lags import push
from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.targets import unit_diagonal
from jaxfc.volatility.variance import (
    check_asymmetric,
    free_shares,
    numbered,
    shares_below_one,
)


class Targets(NamedTuple):
    """What the recursion returns to: E zz', and E nn' of the falls n = min(z, 0)."""

    both: Float[Array, "series series"]
    falls: Float[Array, "series series"]


class DCC(eqx.Module):
    """DCC(p, q) of Engle (2002), with `num_asymmetric` terms of Cappiello, Engle and Sheppard
    (2006):

        Q_t = (1 - sum a - sum b) S - (sum g) N + sum_j b_j Q_{t-j}
              + sum_i (a_i z_{t-i} z_{t-i}' + g_i n_{t-i} n_{t-i}')
        R_t = Q_t brought to unit diagonal

    n = min(z, 0). `corrected`: diag(Q)^{1/2} z in place of z (Aielli 2013), which makes S the mean
    of what drives Q. A product that is not observed is replaced by its expectation: the entry of
    R_t (of Q_t if corrected), and for falls K(R_t), K(r) = (sqrt(1 - r^2) + r (pi/2 + arcsin r)) /
    (2 pi), which is E n_i n_j of every elliptical law.

    `start`: before the first row stand the targets, or with "ones" a shock of one for every series
    (rmgarch's convention) and S for Q.
    """

    num_shocks: int = eqx.field(static=True, default=1)
    num_lags: int = eqx.field(static=True, default=1)
    num_asymmetric: int = eqx.field(static=True, default=0, kw_only=True)
    corrected: bool = eqx.field(static=True, default=False, kw_only=True)
    start: str = eqx.field(static=True, default="target", kw_only=True)

    def __check_init__(self):
        if self.num_shocks < 1 or self.num_lags < 0:
            raise ValueError(
                f"a DCC needs num_shocks >= 1 and num_lags >= 0, got {self.num_shocks} and "
                f"{self.num_lags}."
            )
        check_asymmetric(self.num_asymmetric, self.num_shocks)
        if self.corrected and self.num_asymmetric:
            raise ValueError("the corrected recursion is defined without asymmetric terms.")
        if self.start not in ("target", "ones"):
            raise ValueError(f"start must be 'target' or 'ones', got {self.start!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return numbered(a=self.num_shocks, g=self.num_asymmetric, b=self.num_lags)

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Array, Array]:
        """a, g, b."""
        first, second = self.num_shocks, self.num_shocks + self.num_asymmetric
        return parameters[:first], parameters[first:second], parameters[second:]

    def begin(self, targets: Targets) -> Any:
        """Products, falls and Q before the first row, newest first."""
        both, falls = targets
        if self.start == "ones":
            both, falls = jnp.ones_like(both), jnp.ones_like(falls)
        return (
            jnp.stack([both] * self.num_shocks),
            repeated(falls, self.num_asymmetric),
            repeated(targets.both, self.num_lags),
        )

    def quasi(
        self, parameters: Float[Array, " p"], state: Any, targets: Targets
    ) -> Float[Array, "series series"]:
        """Q_t."""
        a, g, b = self.split(parameters)
        products, falls, past = state
        level = (1.0 - jnp.sum(a) - jnp.sum(b)) * targets.both - jnp.sum(g) * targets.falls
        terms = [(a, products), (g, falls), (b, past)]
        return level + sum(jnp.tensordot(weights, blocks, 1) for weights, blocks in terms)

    def advance(self, state: Any, quasi: Array, units: Array, seen: Array, targets: Targets) -> Any:
        """The state after a row with standardised residuals `units`, zero where not `seen`."""
        products, falls, past = state
        both = seen[:, None] & seen
        expected = quasi if self.corrected else unit_diagonal(quasi)
        drive = jnp.sqrt(jnp.diagonal(quasi)) * units if self.corrected else units
        product = jnp.where(both, jnp.outer(drive, drive), expected)
        if self.num_asymmetric:
            down = jnp.minimum(units, 0.0)
            # The law of the target need not be elliptical: its distance from one that is stays.
            gap = targets.falls - mean_falls(unit_diagonal(targets.both))
            fall = jnp.where(both, jnp.outer(down, down), mean_falls(expected) + gap)
            falls = push(falls, fall)
        return push(products, product), falls, push(past, quasi)

    def persistence(self, parameters: Float[Array, " p"], targets: Targets) -> Float[Array, ""]:
        """sum a + sum b + delta sum g, below one where Q is stationary and positive definite."""
        a, g, b = self.split(parameters)
        return jnp.sum(a) + jnp.sum(b) + self.delta(targets) * jnp.sum(g)

    def delta(self, targets: Targets | None) -> Float[Array, ""] | float:
        """Largest eigenvalue of S^{-1/2} N S^{-1/2}: how much of S the falls can take."""
        if self.num_asymmetric == 0:
            return 1.0
        assert targets is not None
        chol = jnp.linalg.cholesky(targets.both)
        half = jax.scipy.linalg.solve_triangular(chol, targets.falls, lower=True)
        whole = jax.scipy.linalg.solve_triangular(chol, half.T, lower=True)
        return jnp.linalg.eigvalsh(0.5 * (whole + whole.T))[-1]

    def natural(self, free: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        """Parameters of coordinates without bounds: each positive, persistence below one."""
        a, g, b = self.split(shares_below_one(free))
        return jnp.concatenate([a, g / self.delta(targets), b])

    def starts(self, dtype: Any) -> Float[Array, "starts p"]:
        """Free coordinates to start from."""
        rows = []
        for total, share in ((0.98, 0.03), (0.95, 0.05), (0.8, 0.1), (0.4, 0.2)):
            news = total * share / self.num_shocks
            g = [0.5 * news] * self.num_asymmetric
            b = [(total - total * share) / max(self.num_lags, 1)] * self.num_lags
            a = [news - (0.5 * news if i < len(g) else 0.0) for i in range(self.num_shocks)]
            rows.append(free_shares(jnp.asarray([*a, *g, *b], dtype)))
        return jnp.stack(rows)

    def driving(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
    ) -> Float[Array, "time series"]:
        """What S is the second moment of if corrected: diag(Q)^{1/2} z, whose diagonal

        q_t = 1 - sum a - sum b + sum_i a_i q_{t-i} z_{t-i}^2 + sum_j b_j q_{t-j} needs no S.
        """
        a, _, b = self.split(parameters)

        def step(state, row):
            products, past = state
            unit, seen = row
            quasi = 1.0 - jnp.sum(a) - jnp.sum(b) + a @ products + b @ past
            product = jnp.where(seen, quasi * unit**2, quasi)
            return (push(products, product), push(past, quasi)), jnp.sqrt(quasi) * unit

        ones = jnp.ones(units.shape[1], units.dtype)
        first = repeated(ones, self.num_shocks), repeated(ones, self.num_lags)
        return jax.lax.scan(step, first, (units, known))[1]

    def filter(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
        targets: Targets,
    ) -> tuple[Any, Float[Array, "time series series"]]:
        """State after the last row, and Q_0..Q_{T-1}. O(time series^2), sequential."""

        def step(state, row):
            (unit, seen), quasi = row, self.quasi(parameters, state, targets)
            return self.advance(state, quasi, unit, seen, targets), quasi

        return jax.lax.scan(step, self.begin(targets), (units, known))


def mean_falls(corr: Float[Array, "series series"]) -> Float[Array, "series series"]:
    """E n_i n_j of unit-variance elliptical z with correlations `corr`: the arc-cosine kernel of
    order one (Cho and Saul 2009)."""
    # The derivative of the arc sine is infinite at one; the diagonal is known.
    diagonal = jnp.eye(corr.shape[0], dtype=bool)
    inner = jnp.where(diagonal, 0.0, jnp.clip(corr, -1.0, 1.0))
    kernel = jnp.sqrt(1.0 - inner**2) + inner * (0.5 * jnp.pi + jnp.arcsin(inner))
    return jnp.where(diagonal, 0.5, kernel / (2.0 * jnp.pi))


def repeated(block: Array, number: int) -> Array:
    """`number` copies along a new first axis."""
    return jnp.broadcast_to(block, (number, *block.shape))


def log_det_and_quadratic(
    corr: Float[Array, "series series"],
    units: Float[Array, " series"],
    seen: Bool[Array, " series"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """ln det R and z' R^{-1} z of the observed block: the others stand apart with unit variance."""
    both = seen[:, None] & seen
    block = jnp.where(both, corr, jnp.eye(seen.size, dtype=corr.dtype))
    chol = jnp.linalg.cholesky(block)
    whitened = jax.scipy.linalg.solve_triangular(chol, jnp.where(seen, units, 0.0), lower=True)
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol))), whitened @ whitened
