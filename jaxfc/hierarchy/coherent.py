"""Maps of all steps of a horizon, and the law that comes out of them."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.forecast import (
    FactorForecast,
    Forecast,
    GaussianForecast,
    Levels,
    SampleForecast,
    gaussian_quantile,
)
from jaxfc.hierarchy.error_cov import DenseCov, ErrorCov, StructuredCov
from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.method import Method, Sample, Step
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float, Int, PRNGKeyArray


class StepMaps(eqx.Module):
    """The maps of the steps, built when they are applied: one for all steps where nothing differs.

    `mean` (horizon, nodes) are the base means; `covs` the base covariances, stacked over steps.
    """

    method: Method
    summing: Summing
    mean: Float[Array, "horizon nodes"]
    covs: ErrorCov | None
    sample: Sample
    immutable: Int[Array, " fixed"] | None
    missing: Int[Array, " missing"] | None
    labels: Labels = eqx.field(static=True)

    @property
    def by_step(self) -> bool:
        """Whether steps have maps of their own."""
        return self.method.by_step or self.summing.weights.ndim == 3

    def mapping(self, weights: Array, mean: Array, cov: ErrorCov | None, method: Method) -> Mapping:
        """The map of one step."""
        summing = Summing(self.summing.groups, weights, self.summing.num_aggregates)
        return method.mapping(
            Step(summing, mean, cov, self.sample, self.immutable, self.missing, self.labels)
        )

    def apply(self, rows: Float[Array, "horizon nodes *rest"]) -> Array:
        """M_h y_h for all steps h."""
        weights = self.summing.weights
        if not self.by_step:
            one = self.mapping(weights, self.mean[0], None, self.method)
            if rows.ndim == 2:
                return one.apply_rows(rows)
            return jnp.moveaxis(one.apply(jnp.moveaxis(rows, 1, 0)), 0, 1)
        horizon = rows.shape[0]
        if weights.ndim == 3 and weights.shape[0] != horizon:
            raise ValueError(
                f"the hierarchy has weights for {weights.shape[0]} steps, the forecast has a "
                f"horizon of {horizon}."
            )
        by_step = self.method.leaves_by_step
        stepwise = jax.tree.map(lambda leaf: any(leaf is one for one in by_step), self.method)
        moving, fixed = eqx.partition(self.method, stepwise)

        def one_step(inputs: tuple) -> Array:
            (weights_h, mean_h, cov_h, moving, row) = inputs
            method = eqx.combine(moving, fixed)
            return self.mapping(weights_h, mean_h, cov_h, method).apply(row)

        axes = (0 if weights.ndim == 3 else None, 0, 0, 0, 0)
        return eqx.filter_vmap(one_step, in_axes=(axes,))(
            (weights, self.mean, self.covs, moving, rows)
        )


class CoherentForecast(Forecast):
    """The law of M y for a base law y: draws are mapped one by one, moments when asked for.

    Keeps the structure of the base law: means, draws and sums of draws never form
    (horizon x nodes)^2; `cov`, `std`, `aggregate` and `cumulative` do.
    """

    base: Forecast
    maps: StepMaps
    mean: Float[Array, "horizon nodes"]

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        return mapped_cov(self.maps, self.base.cov)

    @property
    def std(self) -> Float[Array, "horizon series"]:
        return self.dense.std

    @property
    def dense(self) -> GaussianForecast:
        """The Gaussian law of the same moments, with its covariance formed."""
        return GaussianForecast(self.mean, self.cov)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        return gaussian_quantile(self.mean, self.std, q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        return mapped_draws(self.maps, self.base.sample(num_draws, key=key))

    def cumulative(self) -> Forecast:
        return self.dense.cumulative()

    def aggregate(self, weights: Float[Array, "out series"]) -> Forecast:
        return self.dense.aggregate(weights)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> Forecast:
        return self.dense.affine(scale, shift)


def mapped_cov(maps: StepMaps, cov: Float[Array, "horizon nodes steps nodes"]) -> Array:
    """M_h cov_hk M_k'."""
    half = maps.apply(cov)
    other = maps.apply(jnp.transpose(half, (2, 3, 0, 1)))
    return jnp.transpose(other, (2, 3, 0, 1))


def mapped_draws(maps: StepMaps, draws: Float[Array, "draws horizon nodes"]) -> Array:
    """M_h applied to every draw."""
    if not maps.by_step:
        return maps.apply(draws.reshape(-1, draws.shape[-1])).reshape(draws.shape)
    return jnp.moveaxis(maps.apply(jnp.moveaxis(draws, 0, -1)), -1, 0)


def mapped_forecast(forecast: Forecast, maps: StepMaps) -> Forecast:
    """The law of the reconciled nodes: Gaussian from Gaussian, draws from draws."""
    mean = maps.apply(maps.mean)
    if isinstance(forecast, SampleForecast):
        return SampleForecast(mapped_draws(maps, forecast.draws))
    if not maps.method.is_linear:
        raise ValueError(
            f"{type(maps.method).__name__} is no linear map, so that the law does not keep its "
            f"form; reconcile draws: SampleForecast(forecast.sample(num_draws, key=key)), or "
            f"means alone by reconcile_means."
        )
    if isinstance(forecast, GaussianForecast):
        return GaussianForecast(mean, mapped_cov(maps, forecast.cov))
    return CoherentForecast(base=forecast, maps=maps, mean=mean)


def step_covs(forecast: Forecast) -> ErrorCov:
    """The covariance of each step of a forecast, stacked, in factor form where it has one."""
    if isinstance(forecast, FactorForecast) and forecast.idiosyncratic_cov.ndim == 1:
        steps = jnp.einsum("hahb->hab", forecast.factor_cov)
        values, vectors = jnp.linalg.eigh(steps)
        roots = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None, :]
        own = jnp.sum(forecast.mixing**2, axis=1)[:, None] * forecast.idiosyncratic_cov
        return jax.vmap(StructuredCov)(own, jnp.einsum("ia,hab->hib", forecast.loadings, roots))
    if isinstance(forecast, SampleForecast):
        centred = forecast.draws - forecast.mean
        count = forecast.draws.shape[0] - 1
        return jax.vmap(DenseCov)(jnp.einsum("dhi,dhj->hij", centred, centred) / count)
    return jax.vmap(DenseCov)(jnp.einsum("hihj->hij", forecast.cov))
