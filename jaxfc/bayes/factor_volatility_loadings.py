"""A prior of loadings that draws single ones to zero, by series or by factor."""

import equinox as eqx
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.loading_priors import LoadingPrior, as_pair
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Float, as_scalar


class NormalGamma(LoadingPrior):
    """w_ik ~ N(0, v_ik), v_ik ~ gamma(shape, rate shape r / 2), r ~ gamma(strength).

    r is one for each series (`rows`: shrinks a series out of the factors) or for each factor. The
    smaller `shape`, the more loadings are nearly zero and the heavier the tails of the others; 1
    is the Bayesian lasso. `strength` holds shape and rate of the law of r.

    Source: Griffin and Brown (2010); Kastner (2019), row- and column-wise.
    """

    rows: bool = eqx.field(static=True, default=True)
    shape: Float[Array, ""] = eqx.field(default=0.5, converter=as_scalar)
    strength: Float[Array, "2"] = eqx.field(default=(1.0, 1.0), converter=as_pair)

    def __check_init__(self):
        check_positive(self, "shape", "strength")

    def groups(self, num_series: int, num_factors: int) -> tuple[int, int]:
        """Shape of r."""
        return (num_series, 1) if self.rows else (1, num_factors)

    def priors(self, num_series: int, num_factors: int) -> Priors:
        strength, rate = self.strength
        rates = dist.Gamma(strength, rate).expand(list(self.groups(num_series, num_factors)))

        def variances(parameters: Parameters) -> dist.Distribution:
            rate = 0.5 * self.shape * parameters["loading_rate"]
            return dist.Gamma(self.shape, rate).expand([num_series, num_factors])

        return {
            "loading_rate": lambda _: rates,
            "loading_variance": variances,
            "loadings": lambda found: dist.Normal(0.0, jnp.sqrt(found["loading_variance"])),
        }

    def start(self, loadings: Float[Array, "series factors"]) -> Parameters:
        shape = loadings.shape
        return {
            "loading_rate": jnp.full(self.groups(shape[0], shape[1]), 2.0, loadings.dtype),
            "loading_variance": jnp.maximum(loadings**2, 0.05),
            "loadings": loadings,
        }
