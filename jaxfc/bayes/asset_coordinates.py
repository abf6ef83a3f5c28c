"""Which coordinates the parameters of the M6 model are walked in; see `coordinates`."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from jaxfc.bayes.coordinates import (
    BesideFactors,
    InCoordinates,
    Shifted,
    Stretched,
    root_of_path,
)
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Float
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

if TYPE_CHECKING:
    from jaxfc.bayes.asset_returns import AssetFactorProgram


def walked_by_scale(program: "AssetFactorProgram", laws: Priors) -> Priors:
    """Loadings over their scales; factors, with the intercepts they stand for, times the scales."""

    def loadings(parameters: Parameters) -> dist.Distribution:
        scale = parameters["loading_scale"]
        return InCoordinates(
            laws["loadings"](parameters), Stretched(1.0 / scale, jnp.zeros_like(scale))
        )

    def factors(parameters: Parameters) -> dist.Distribution:
        shift = factors_for_intercepts(
            parameters["loadings"], parameters["level"], program.effect("intercept", parameters)
        )
        law = laws["factors"](parameters)
        return InCoordinates(law, Stretched(parameters["loading_scale"], shift))

    return laws | {"loadings": loadings, "factors": factors}


def factors_for_intercepts(
    loadings: Float[Array, "series factors"],
    level: Float[Array, " series"],
    intercepts: Float[Array, " series"],
) -> Float[Array, " factors"]:
    """u = (W'OW + I)^{-1} W'O a, the factors whose common part is nearest to the intercepts."""
    weighted = loadings * jnp.exp(-2.0 * level)[:, None]
    size = loadings.shape[1]
    gram = weighted.T @ loadings + jnp.eye(size, dtype=loadings.dtype)
    # Any u is a valid shift, so rounding does no harm; and no call of a library in every gradient.
    inverse, _ = spd_inverse(gram, fastest_implementation(size))
    return inverse @ (weighted.T @ intercepts)


def walked_by_size(program: "AssetFactorProgram", laws: Priors) -> Priors:
    """Loadings and mean intercepts relative to the size and the mean of the factors."""

    def loadings(parameters: Parameters) -> dist.Distribution:
        root = root_of_path(parameters["factors"])
        return InCoordinates(laws["loadings"](parameters), BesideFactors(root))

    def intercept_mean(parameters: Parameters) -> dist.Distribution:
        common = parameters["loadings"] @ jnp.mean(parameters["factors"], axis=0)
        share = jax.nn.one_hot(program.classes, program.num_classes, axis=0, dtype=common.dtype)
        shift = share @ common / jnp.maximum(jnp.sum(share, axis=1), 1.0)
        return InCoordinates(laws["intercept_mean"](parameters), Shifted(shift))

    rest = dict(laws)
    last = {name: rest.pop(name) for name in ("intercept_mean", "loadings", "factors")}
    order = {"factors": last["factors"], "loadings": loadings, "intercept_mean": intercept_mean}
    return rest | order
