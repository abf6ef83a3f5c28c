"""A vector autoregression by its matrices: completed histories, paths, responses, roots."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.levels import product
from jaxfc.hierarchy.var_regressors import dominant_modulus
from jaxfc.lags import push
from jaxfc.typing import Array, Bool, Float


class DenseVAR(eqx.Module):
    """R_t = intercepts + sum_l A_l R_{t-l}, `lags` (lags, series, series) the A_l."""

    intercepts: Float[Array, " series"]
    lags: Float[Array, "lags series series"]

    def explained(self, history: Float[Array, "lags series *rest"]) -> Float[Array, "series *rest"]:
        """What `history` (newest first) adds to the intercepts."""
        return product("lij,lj...->i...", self.lags, history)

    def path(
        self, history: Float[Array, "lags series"], shocks: Float[Array, "time series"]
    ) -> Float[Array, "time series"]:
        """The rows that follow `history` when these shocks arrive."""

        def step(history, shock):
            row = self.intercepts + self.explained(history) + shock
            return push(history, row), row

        return jax.lax.scan(step, history, shocks)[1]

    def responses(self, horizon: int) -> Float[Array, "horizon series series"]:
        """Psi_0 = I, Psi_1, ...: what shocks of one row do to the rows that follow."""
        identity = jnp.eye(len(self.intercepts), dtype=self.lags.dtype)
        start = push(jnp.zeros_like(self.lags), identity)

        def step(history, _):
            row = self.explained(history)
            return push(history, row), row

        _, rows = jax.lax.scan(step, start, None, length=horizon - 1)
        return jnp.concatenate([identity[None], rows])

    def completed(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> Float[Array, "lags series"]:
        """The last rows, newest first: a value that is not observed stands at its expectation given
        the rows before it, one before the first row at its mean."""
        counts = jnp.maximum(jnp.sum(observed, axis=0), 1)
        start = jnp.sum(jnp.where(observed, values, 0.0), axis=0) / counts

        def step(history, row):
            value, seen = row
            value = jnp.where(seen, value, self.intercepts + self.explained(history))
            return push(history, value), None

        history = jnp.broadcast_to(start, self.lags.shape[:2])
        return jax.lax.scan(step, history, (values, observed))[0]

    def spectral_radius(self, num_iterations: int = 1000) -> Float[Array, ""]:
        """The largest modulus of the roots; below one, shocks die out. See `dominant_modulus`."""
        frozen = jax.lax.stop_gradient(self)

        def advance(rows: Array) -> Array:
            return push(rows, frozen.explained(rows))

        num_lags, num_series, _ = self.lags.shape
        return dominant_modulus(advance, num_lags, num_series, self.lags.dtype, num_iterations)
