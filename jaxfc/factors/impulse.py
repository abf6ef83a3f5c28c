"""Impulse responses of the factor VAR, and of every series through its loadings, with bands."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.factors.bootstrap import BootstrapDraws, aligned
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.model import FittedFactorModel
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    import pandas as pd

SHOCKS = ("cholesky", "generalised")


class ImpulseResponses(eqx.Module):
    """Responses to a shock of one standard deviation in each factor, now and `horizon` rows on.

    `factors` (steps, factors, shocks) in the units of the factors, `series` (steps, series, shocks)
    in data units; step 0 is the row of the shock. `factor_bands`, `series_bands` (2, steps, ...)
    are pointwise quantiles over draws of the parameters, lower and upper, None without draws.
    """

    factors: Float[Array, "steps factors shocks"]
    series: Float[Array, "steps series shocks"]
    factor_bands: Float[Array, "bounds steps factors shocks"] | None = None
    series_bands: Float[Array, "bounds steps series shocks"] | None = None

    def to_frame(self, names: Sequence[str] | None = None) -> "pd.DataFrame":
        """One row for each shock, response and step: response, and lower and upper with draws.

        With `names` of the series the responses of the series, without those of the factors; shocks
        and factors count from 1.

        **Raises:** `ValueError` if the number of names differs from that of the series.
        """
        import pandas as pd

        values, bands = self.factors, self.factor_bands
        labels: list = list(range(1, values.shape[1] + 1))
        if names is not None:
            values, bands, labels = self.series, self.series_bands, list(names)
            if len(labels) != values.shape[1]:
                raise ValueError(f"{len(labels)} names for {values.shape[1]} series.")
        num_steps, _, num_shocks = values.shape
        index = pd.MultiIndex.from_product(
            [range(1, num_shocks + 1), labels, range(num_steps)],
            names=["shock", "factor" if names is None else "series", "step"],
        )

        def column(array: Array) -> np.ndarray:
            return np.asarray(array).transpose(2, 1, 0).reshape(-1)

        columns = {"response": column(values)}
        if bands is not None:
            columns |= {"lower": column(bands[0]), "upper": column(bands[1])}
        return pd.DataFrame(columns, index)


def impulse_responses(
    fitted: FittedFactorModel,
    horizon: int,
    *,
    identification: str = "cholesky",
    draws: BootstrapDraws | None = None,
    level: float = 0.9,
) -> ImpulseResponses:
    """Responses of factors and series to shocks of the factor VAR.

        Psi_0 = I,  Psi_h = sum_{l=1..min(h, p)} A_l Psi_{h-l}
        factors: Psi_h P,   series: scale W Psi_h P

    with P the impact of the shocks: "cholesky", P P' = Q lower triangular, so that shock k moves no
    factor before the k-th at once and the order of the factors matters; "generalised", column j is
    Q e_j / sqrt(Q_jj), the expected innovations given one of size sqrt(Q_jj) in factor j, for which
    no order matters (these shocks are not orthogonal). Both depend on what the factors are: choose
    with `identify` first.

    **Arguments:** `horizon` rows after the shock; `draws` of the parameters from `bootstrap` or
    `hessian_draws` of the same model (also of one that differs by an orthogonal `identify`: they
    are turned to the loadings of `fitted`), failed ones left out with a `UserWarning`; `level` of
    the pointwise bands.

    **Raises:** `ValueError` for a horizon below 1, an unknown identification, a level outside (0,
    1), draws of another model, and fewer than 2 usable draws.

    Source: Sims (1980); Pesaran and Shin (1998) for the generalised ones.
    """
    check_counts(horizon=horizon)
    if identification not in SHOCKS:
        raise ValueError(f"identification must be one of {SHOCKS}, got {identification!r}.")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    scale = fitted.scaling.scale
    factors, series = responses(fitted.parameters, scale, horizon, identification)
    if draws is None:
        return ImpulseResponses(factors, series)
    if draws.parameters.loadings.shape[1:] != fitted.parameters.loadings.shape or (
        draws.parameters.transition.shape[1:] != fitted.parameters.transition.shape
    ):
        raise ValueError(
            f"draws of a model with loadings {draws.parameters.loadings.shape[1:]} and transition "
            f"{draws.parameters.transition.shape[1:]} are not draws of this one, "
            f"{fitted.parameters.loadings.shape} and {fitted.parameters.transition.shape}."
        )
    usable = np.asarray(draws.usable)
    if usable.sum() < 2:
        raise ValueError(
            f"{usable.sum()} of {usable.size} draws are usable, too few for bands; draw more, or "
            "see `draws.result` for why they failed."
        )
    if not usable.all():
        warnings.warn(
            f"{usable.size - usable.sum()} of {usable.size} draws failed and are left out of the "
            "bands.",
            stacklevel=2,
        )
    kept = jax.tree.map(lambda leaf: leaf[usable], draws.parameters)
    bounds = jnp.asarray([0.5 - level / 2, 0.5 + level / 2], scale.dtype)
    bands = jitted_bands(fitted.parameters, kept, scale, horizon, identification, bounds)
    return ImpulseResponses(factors, series, *bands)


def factor_responses(
    transition: Float[Array, "lags factors factors"], horizon: int
) -> Float[Array, "steps factors factors"]:
    """Psi_0, ..., Psi_horizon; sequential, 2 p K^3 flops a step."""
    num_lags, num_factors, _ = transition.shape
    identity = jnp.eye(num_factors, dtype=transition.dtype)
    if num_lags == 0:
        return (
            jnp.zeros((horizon + 1, num_factors, num_factors), transition.dtype).at[0].set(identity)
        )
    past = jnp.zeros((num_lags, num_factors, num_factors), transition.dtype).at[0].set(identity)

    def advance(past: Array, _: None) -> tuple[Array, Array]:
        new = jnp.einsum("lij,ljk->ik", transition, past)  # newest first
        return jnp.concatenate([new[None], past[:-1]]), new

    _, later = jax.lax.scan(advance, past, None, length=horizon)
    return jnp.concatenate([identity[None], later])


def impact(
    innovation_cov: Float[Array, "factors factors"], identification: str
) -> Float[Array, "factors shocks"]:
    """P: what a shock of one standard deviation does to the factors at once."""
    if identification == "cholesky":
        return jnp.linalg.cholesky(innovation_cov)
    return innovation_cov / jnp.sqrt(jnp.diagonal(innovation_cov))


def responses(
    parameters: FactorParameters,
    scale: Float[Array, " series"],
    horizon: int,
    identification: str,
) -> tuple[Float[Array, "steps factors shocks"], Float[Array, "steps series shocks"]]:
    """Responses of factors and series: pure."""
    shocks = impact(parameters.innovation_cov, identification)
    factors = factor_responses(parameters.transition, horizon) @ shocks
    return factors, scale[:, None] * (parameters.loadings @ factors)


def bands_of(
    parameters: FactorParameters,
    draws: FactorParameters,
    scale: Float[Array, " series"],
    horizon: int,
    identification: str,
    bounds: Float[Array, " bounds"],
) -> tuple[Float[Array, "bounds steps factors shocks"], Float[Array, "bounds steps series shocks"]]:
    """Quantiles of the responses over draws (leading axis of each array): pure."""

    def one(draw: FactorParameters) -> tuple[Array, Array]:
        return responses(aligned(draw, parameters.loadings), scale, horizon, identification)

    factors, series = jax.vmap(one)(draws)
    return jnp.quantile(factors, bounds, axis=0), jnp.quantile(series, bounds, axis=0)


jitted_bands = eqx.filter_jit(bands_of)
