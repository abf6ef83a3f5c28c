"""Priors of the loadings of latent factors.

The likelihood is the same when a factor is divided and its loadings multiplied by a constant. With
a fixed wide prior on the loadings the posterior then settles where the factors of the sample have
variance 1 - N/T, while a forecast draws new ones with variance one: the common variance of
forecasts is too large by 1 / (1 - N/T), without bound where N >= T. A scale per factor that is
learnt brings its own normaliser and restores the balance.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Float, as_scalar

Loadings = Float[Array, "series factors"]


class LoadingPrior(eqx.Module):
    """The law of the `loadings` (series, factors) and of the scales behind them."""

    @abc.abstractmethod
    def priors(self, num_series: int, num_factors: int) -> Priors:
        """Scales, then "loadings"."""

    @abc.abstractmethod
    def start(self, loadings: Loadings) -> Parameters:
        """Values of all of them that go with `loadings`."""


def as_pair(values: tuple[float, float] | Array) -> Float[Array, "2"]:
    """Two numbers as an array, so that others do not recompile a program."""
    return jnp.asarray(values, dtype=jnp.result_type(float))


def column_scale(loadings: Loadings) -> Float[Array, " factors"]:
    """Root mean squares of the columns, no smaller than 0.02, to start from."""
    return jnp.maximum(jnp.sqrt(jnp.mean(loadings**2, axis=0)), 0.02)


class FixedScale(LoadingPrior):
    """w_ik ~ t_dof(0, scale): the published prior of the M6 model on standardised returns.

    It makes the common variance of forecasts too large; see this file's head.
    """

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_scalar)
    dof: Float[Array, ""] = eqx.field(default=10.0, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale", "dof")

    def priors(self, num_series: int, num_factors: int) -> Priors:
        law = dist.StudentT(self.dof, 0.0, self.scale).expand([num_series, num_factors])
        return {"loadings": lambda _: law}

    def start(self, loadings: Loadings) -> Parameters:
        return {"loadings": loadings}


class LearnedScale(LoadingPrior):
    """w_ik ~ t_dof(0, tau_k), tau_k ~ half-normal(scale): unneeded factors shrink to nothing."""

    scale: Float[Array, ""] = eqx.field(default=1.0, converter=as_scalar)
    dof: Float[Array, ""] = eqx.field(default=10.0, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale", "dof")

    def priors(self, num_series: int, num_factors: int) -> Priors:
        scales = dist.HalfNormal(self.scale).expand([num_factors])

        def loadings(parameters: Parameters) -> dist.Distribution:
            law = dist.StudentT(self.dof, 0.0, parameters["loading_scale"])
            return law.expand([num_series, num_factors])

        return {"loading_scale": lambda _: scales, "loadings": loadings}

    def start(self, loadings: Loadings) -> Parameters:
        return {"loading_scale": column_scale(loadings), "loadings": loadings}


class MultiplicativeGamma(LoadingPrior):
    """w_ik ~ N(0, 1 / prod_{l<=k} delta_l), delta_1 ~ Gamma(a1, 1), delta_l ~ Gamma(a2, 1): later
    factors are shrunk more, which orders them.

    Source: Bhattacharya and Dunson (2011), without their local scales.
    """

    first: Float[Array, ""] = eqx.field(default=2.0, converter=as_scalar)
    later: Float[Array, ""] = eqx.field(default=3.0, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "first", "later")

    def priors(self, num_series: int, num_factors: int) -> Priors:
        shape = jnp.full(num_factors, jnp.asarray(self.later)).at[0].set(self.first)
        steps = dist.Gamma(shape, 1.0)

        def loadings(parameters: Parameters) -> dist.Distribution:
            scale = jnp.exp(-0.5 * jnp.cumsum(jnp.log(parameters["loading_precision_step"])))
            return dist.Normal(0.0, scale).expand([num_series, num_factors])

        return {"loading_precision_step": lambda _: steps, "loadings": loadings}

    def start(self, loadings: Loadings) -> Parameters:
        precision = column_scale(loadings) ** -2.0
        steps = precision / jnp.concatenate([jnp.ones_like(precision[:1]), precision[:-1]])
        return {"loading_precision_step": jnp.maximum(steps, 0.1), "loadings": loadings}


class Horseshoe(LoadingPrior):
    """w_ik ~ N(0, (tau_k l_ik)^2) with l_ik^2 = c^2 h^2 / (c^2 + tau_k^2 h^2), h_ik half-Cauchy:
    single loadings are shrunk to zero, large ones hardly.

    tau_k ~ half-normal(scale), c = `slab`. Source: Piironen and Vehtari (2017), section 2.3.
    """

    scale: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    slab: Float[Array, ""] = eqx.field(default=2.0, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale", "slab")

    def priors(self, num_series: int, num_factors: int) -> Priors:
        shape = [num_series, num_factors]
        columns = dist.HalfNormal(self.scale).expand([num_factors])
        cells = dist.HalfCauchy(1.0).expand(shape)

        def loadings(parameters: Parameters) -> dist.Distribution:
            spread = parameters["loading_scale"] * parameters["loading_spread"]
            scale = spread / jnp.sqrt(1.0 + (spread / self.slab) ** 2)
            return dist.Normal(0.0, scale)

        return {
            "loading_scale": lambda _: columns,
            "loading_spread": lambda _: cells,
            "loadings": loadings,
        }

    def start(self, loadings: Loadings) -> Parameters:
        return {
            "loading_scale": column_scale(loadings),
            "loading_spread": jnp.ones_like(loadings),
            "loadings": loadings,
        }
