"""The recursion of a matrix that dynamic correlations share; missing products carry it on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.correlation_process import (
    CorrelationProcess,
    Targets,
    log_det_and_quadratic,
)
from jaxfc.volatility.entries import WHOLE, Entries
from jaxfc.volatility.variance import (
    check_asymmetric,
    free_shares,
    joined,
    numbered,
    shares_below_one,
)


class Recursion(CorrelationProcess):
    """What DCC, DECO and scalar BEKK share: a matrix ARMA of products,

        Q_t = (1 - sum a - sum b) S - (sum g) N + sum_j b_j Q_{t-j}
              + sum_i (a_i z_{t-i} z_{t-i}' + g_i n_{t-i} n_{t-i}')

    with p = `num_shocks` terms a, q = `num_lags` terms b, the first `num_asymmetric` shocks with a
    term g of the falls n = min(z, 0). Each of a, g, b is positive and `persistence` below one.

    `start`: before the first row stand the targets, or with "ones" a shock of one for every series
    (rmgarch's convention) and S for Q.
    """

    num_shocks: int = eqx.field(static=True, default=1)
    num_lags: int = eqx.field(static=True, default=1)
    num_asymmetric: int = eqx.field(static=True, default=0, kw_only=True)
    start: str = eqx.field(static=True, default="target", kw_only=True)

    def __check_init__(self):
        if self.num_shocks < 1 or self.num_lags < 0:
            raise ValueError(
                f"{type(self).__name__} needs num_shocks >= 1 and num_lags >= 0, got "
                f"{self.num_shocks} and {self.num_lags}."
            )
        check_asymmetric(self.num_asymmetric, self.num_shocks)
        if self.start not in ("target", "ones"):
            raise ValueError(f"start must be 'target' or 'ones', got {self.start!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        return numbered(a=self.num_shocks, g=self.num_asymmetric, b=self.num_lags)

    @property
    def has_falls(self) -> bool:
        return self.num_asymmetric > 0

    def split(self, parameters: Float[Array, " p"]) -> tuple[Array, Array, Array]:
        """a, g, b."""
        first, second = self.num_shocks, self.num_shocks + self.num_asymmetric
        return parameters[:first], parameters[first:second], parameters[second:]

    def begin(self, targets: Targets) -> Any:
        both, falls = targets
        if self.start == "ones":
            both, falls = jnp.ones_like(both), jnp.ones_like(falls)
        return (
            (both,) * self.num_shocks,
            (falls,) * self.num_asymmetric,
            (targets.both,) * self.num_lags,
        )

    def quasi(
        self, parameters: Float[Array, " p"], state: Any, targets: Targets
    ) -> Float[Array, "*entries"]:
        a, g, b = self.split(parameters)
        products, falls, past = state
        level = (1.0 - jnp.sum(a) - jnp.sum(b)) * targets.both
        if self.has_falls:
            level = level - jnp.sum(g) * targets.falls
        for weights, blocks in ((a, products), (g, falls), (b, past)):
            for i, block in enumerate(blocks):
                level = level + weights[i] * block
        return level

    def corr(self, quasi: Float[Array, "*entries"], entries: Entries = WHOLE) -> Array:
        return entries.to_corr(quasi)

    def expected(self, quasi: Float[Array, "*entries"], entries: Entries) -> Array:
        """What stands for products of residuals that are not observed."""
        return entries.to_corr(quasi)

    def log_det_and_square(
        self,
        quasi: Float[Array, "series series"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        # ln det R = ln det Q - sum ln q_ii, z' R^{-1} z = v' Q^{-1} v with v_i = q_ii^{1/2} z_i: R
        # and its derivatives are not needed.
        scales = jnp.where(seen, jnp.diagonal(quasi), 1.0)
        log_det, square = log_det_and_quadratic(quasi, jnp.sqrt(scales) * units, seen)
        return log_det - jnp.sum(jnp.log(scales)), square

    def drive(self, quasi: Float[Array, "*entries"], units: Array, entries: Entries) -> Array:
        """The vector whose products drive Q."""
        return units

    def advance(
        self,
        state: Any,
        quasi: Float[Array, "*entries"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
        targets: Targets,
        entries: Entries = WHOLE,
    ) -> Any:
        products, falls, past = state
        drive = self.drive(quasi, units, entries)
        diagonal = entries.on_diagonal(units.size)

        def whole() -> tuple[Array, ...]:
            down = (jnp.minimum(units, 0.0),) if self.has_falls else ()
            return entries.products(drive), *(entries.products(vector) for vector in down)

        def filled() -> tuple[Array, ...]:
            both, expected = entries.products(seen), self.expected(quasi, entries)
            stand_ins = (expected,)
            if self.has_falls:
                # The law of the target need not be elliptical: its distance from one that is stays.
                gap = targets.falls - mean_falls(entries.to_corr(targets.both), diagonal)
                stand_ins = (expected, mean_falls(expected, diagonal) + gap)
            known = zip(whole(), stand_ins, strict=True)
            return tuple(jnp.where(both, product, other) for product, other in known)

        # Expectations cost more than the products: a row without holes is spared them on a core.
        product, *fall = jax.lax.cond(jnp.all(seen), whole, filled)
        falls = later(falls, fall[0]) if self.has_falls else falls
        return later(products, product), falls, later(past, quasi)

    def persistence(self, parameters: Float[Array, " p"], targets: Targets) -> Float[Array, ""]:
        """sum a + sum b + delta sum g, below one where Q is stationary and positive definite."""
        a, g, b = self.split(parameters)
        return jnp.sum(a) + jnp.sum(b) + self.delta(targets) * jnp.sum(g)

    def delta(self, targets: Targets | None) -> Float[Array, ""] | float:
        """Largest eigenvalue of S^{-1/2} N S^{-1/2}: how much of S the falls can take."""
        if not self.has_falls:
            return 1.0
        assert targets is not None
        chol = jnp.linalg.cholesky(targets.both)
        half = jax.scipy.linalg.solve_triangular(chol, targets.falls, lower=True)
        whole = jax.scipy.linalg.solve_triangular(chol, half.T, lower=True)
        return jnp.linalg.eigvalsh(0.5 * (whole + whole.T))[-1]

    def decay(self, parameters: Float[Array, " p"]) -> Float[Array, ""] | None:
        if self.has_falls or self.num_shocks > 1 or self.num_lags > 1:
            return None
        return jnp.sum(parameters)

    def natural(self, free: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        a, g, b = self.split(shares_below_one(free))
        return joined(a, g / self.delta(targets), b)

    def free(self, parameters: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        a, g, b = self.split(parameters)
        return free_shares(joined(a, g * self.delta(targets), b))

    def starts(self, dtype: Any) -> Float[Array, "starts p"]:
        rows = []
        for total, share in ((0.98, 0.03), (0.95, 0.05), (0.8, 0.1), (0.4, 0.2)):
            news = total * share / self.num_shocks
            g = [0.5 * news] * self.num_asymmetric
            b = [(total - total * share) / max(self.num_lags, 1)] * self.num_lags
            a = [news - (0.5 * news if i < len(g) else 0.0) for i in range(self.num_shocks)]
            rows.append(free_shares(jnp.asarray([*a, *g, *b], dtype)))
        return jnp.stack(rows)


def mean_falls(
    corr: Float[Array, "*entries"], on_diagonal: Bool[Array, "*entries"] | None = None
) -> Float[Array, "*entries"]:
    """E n_i n_j of unit-variance elliptical z with correlations `corr`: the arc-cosine kernel of
    order one (Cho and Saul 2009). `on_diagonal`: where i = j, of a matrix if left out."""
    diagonal = jnp.eye(corr.shape[0], dtype=bool) if on_diagonal is None else on_diagonal
    # The derivative of the arc sine is infinite at one; the diagonal is known.
    inner = jnp.where(diagonal, 0.0, jnp.clip(corr, -1.0, 1.0))
    kernel = jnp.sqrt(1.0 - inner**2) + inner * (0.5 * jnp.pi + jnp.arcsin(inner))
    return jnp.where(diagonal, 0.5, kernel / (2.0 * jnp.pi))


def later(history: tuple[Array, ...], value: Array) -> tuple[Array, ...]:
    """`value` in front, the oldest dropped."""
    return (value, *history)[: len(history)]
