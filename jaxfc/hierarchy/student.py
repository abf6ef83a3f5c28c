"""Reconciliation when the covariance of the errors is itself uncertain: Student's law."""

import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, Levels
from jaxfc.hierarchy.student_quantile import student_quantile
from jaxfc.typing import Array, Float, PRNGKeyArray


class StudentForecast(Forecast):
    """y ~ t_df(mean, step_scale (x) node_scale), jointly over horizon and series.

        y = mean + sqrt(df / c) z,   c ~ chi^2_df,   Cov(z_hi, z_kj) = step_scale_hk node_scale_ij

    Steps of which `step_scale` is diagonal are uncorrelated, not independent: the unknown size of
    the covariance, c, is common to them. Sums over steps, portfolios and changes of units stay in
    the class. Means exist for df > 1, covariances for df > 2 (else infinite).
    """

    mean: Float[Array, "horizon series"]
    step_scale: Float[Array, "horizon horizon"]
    node_scale: Float[Array, "series series"]
    df: Float[Array, ""]

    @property
    def spread(self) -> Float[Array, ""]:
        """df / (df - 2), the covariance per unit of scale."""
        exists = self.df > 2.0
        return jnp.where(exists, self.df / jnp.where(exists, self.df - 2.0, 1.0), jnp.inf)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        scale = self.step_scale[:, None, :, None] * self.node_scale[None, :, None, :]
        return self.spread * scale

    @property
    def scale(self) -> Float[Array, "horizon series"]:
        """Scales of the entries: square roots of the diagonal of the scale matrix."""
        steps, nodes = jnp.diagonal(self.step_scale), jnp.diagonal(self.node_scale)
        return jnp.sqrt(steps)[:, None] * jnp.sqrt(jnp.maximum(nodes, 0.0))

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return jnp.sqrt(self.spread) * self.scale

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        levels = jnp.asarray(q, dtype=self.mean.dtype)
        units = student_quantile(self.df, levels)
        return self.mean + self.scale * units.reshape((*levels.shape, 1, 1))

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        noise_key, size_key = jax.random.split(key)
        shape = (num_draws, *self.mean.shape)
        noise = jax.random.normal(noise_key, shape, self.mean.dtype)
        half = 0.5 * self.df
        sizes = jax.random.gamma(size_key, half, (num_draws, 1, 1), self.mean.dtype) / half
        rows, columns = root(self.step_scale), root(self.node_scale)
        return self.mean + jnp.einsum("hk,dkj,ij->dhi", rows, noise, columns) / jnp.sqrt(sizes)

    def cumulative(self) -> "StudentForecast":
        steps = jnp.cumsum(jnp.cumsum(self.step_scale, axis=0), axis=1)
        return StudentForecast(jnp.cumsum(self.mean, axis=0), steps, self.node_scale, self.df)

    def aggregate(self, weights: Float[Array, "out series"]) -> "StudentForecast":
        scale = weights @ self.node_scale @ weights.T
        return StudentForecast(self.mean @ weights.T, self.step_scale, scale, self.df)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "StudentForecast":
        nodes = scale[:, None] * self.node_scale * scale
        return StudentForecast(scale * self.mean + shift, self.step_scale, nodes, self.df)


def root(matrix: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """R with R R' = matrix, which may be singular as that of a coherent law.

    Eigenvalues of the correlations at the level of rounding are zero: their roots are not small,
    and would take draws off the sums.
    """
    sizes = jnp.diagonal(matrix)
    positive = sizes > 0
    scale = jnp.where(positive, jnp.sqrt(jnp.where(positive, sizes, 1.0)), 0.0)
    inverse = jnp.where(positive, 1.0 / jnp.where(positive, scale, 1.0), 0.0)
    values, vectors = jnp.linalg.eigh(inverse[:, None] * matrix * inverse)
    least = 10.0 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * values[-1]
    large = values > least
    return scale[:, None] * vectors * jnp.where(large, jnp.sqrt(jnp.where(large, values, 1.0)), 0.0)
