"""Alphas and betas of assets shrunk to sector and market: the posterior given returns.

    r_it = x_t' b_i + noise_i u_it,     b_i ~ N(g_s(i), Lam),     g_s ~ N(m, Om),     m ~ N(0, V)

With Gaussian errors all coefficients are integrated out in closed form, and drawn afterwards; with
Student-t errors they are parameters, in coordinates in which they are nearly standard normal.
"""

import abc
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from jaxfc.bayes.coefficient_algebra import (
    Information,
    LevelInformation,
    LevelLaw,
    Levels,
    LevelScales,
    RegressionEvidence,
    child,
    conditional,
    draw_levels,
    level_information,
    level_law,
    regression_evidence,
)
from jaxfc.bayes.coefficient_prior import CoefficientData, CoefficientPrior, correlations
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.typing import Array, Float, PRNGKeyArray

# Degrees of freedom are above this, so that errors have a variance.
LOWEST_DEGREES = 2.0


class CoefficientProgram(Program):
    """A posterior of coefficients that have levels."""

    data: eqx.AbstractVar[CoefficientData]
    prior: eqx.AbstractVar[CoefficientPrior]

    @abc.abstractmethod
    def levels(self, parameters: Parameters, *, key: PRNGKeyArray) -> Levels:
        """Coefficients of all levels given `parameters` and the data: a draw where they were
        integrated out."""

    @abc.abstractmethod
    def degrees(self, parameters: Parameters) -> Float[Array, " series"]:
        """Degrees of freedom of the errors, infinity if they are Gaussian."""

    @abc.abstractmethod
    def information(self, parameters: Parameters) -> tuple[LevelInformation, LevelScales]:
        """What the data say to every level if the errors were Gaussian and no coefficient moved,
        and the law of the levels."""


class GaussianCoefficients(CoefficientProgram):
    """Gaussian errors: parameters are spreads and standard deviations only.

        ln p(r | spreads, noise) = ln of the integral over all b_i, g_s, m

    in closed form from triangular factors of each asset's rows, made once: a density costs
    O(series coefficients^3), whatever the number of rows. See `CoefficientPrior` for the priors.
    """

    data: CoefficientData  # pyright: ignore
    evidence: RegressionEvidence
    prior: CoefficientPrior  # pyright: ignore

    def __init__(self, data: CoefficientData, prior: CoefficientPrior | None = None):
        self.data = data
        self.evidence = regression_evidence(data.values, data.observed, data.columns)
        self.prior = CoefficientPrior() if prior is None else prior

    def priors(self) -> Priors:
        return {
            **self.prior.scale_priors(self.data.num_coefficients),
            **self.prior.noise_priors(self.data.num_series),
        }

    def information(self, parameters: Parameters) -> tuple[LevelInformation, LevelScales]:
        data = self.data
        scales = self.prior.scales(parameters, data.num_coefficients)
        noise = jnp.exp(parameters["log_noise"])
        found = level_information(self.evidence, noise, data.members, data.num_sectors, scales)
        return found, scales

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        return self.information(parameters)[0].loglik

    def start(self) -> Parameters:
        return self.prior.start(self.evidence)

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "GaussianCoefficients":
        level_key, key = jax.random.split(key)
        scales = self.prior.scales(parameters, self.data.num_coefficients)
        levels = prior_levels(self.data, scales, key=level_key)
        noise = jnp.exp(parameters["log_noise"])
        errors = jax.random.normal(key, self.data.values.shape, noise.dtype)
        return GaussianCoefficients(with_rows(self.data, levels, noise * errors), self.prior)

    def identified(self, parameters: Parameters) -> Parameters:
        return correlations(parameters)

    def levels(self, parameters: Parameters, *, key: PRNGKeyArray) -> Levels:
        found, scales = self.information(parameters)
        return draw_levels(found, self.data.members, scales, key=key)

    def law(self, parameters: Parameters) -> LevelLaw:
        """Exact means and covariances of all coefficients given `parameters`."""
        found, scales = self.information(parameters)
        return level_law(found, self.data.members, scales)

    def degrees(self, parameters: Parameters) -> Float[Array, " series"]:
        return jnp.full_like(parameters["log_noise"], jnp.inf)


class StudentCoefficients(CoefficientProgram):
    """Student-t errors, each asset with degrees of freedom of its own; coefficients are sampled.

        u_it ~ t(nu_i),   ln (nu_i - 2) ~ N(level, spread^2),   level ~ N(ln 6, 1/4),
        spread ~ HN(1/2)

    The parameter `market`, `sectors` or `assets` is z in b = p + L U'^{-1} (z + K (h - J p)), with
    p the level above and K, U, h, J of `coefficient_algebra` at the present spreads and the error
    variances noise_i^2 (nu_i + 3) / (nu_i + 1) that carry the t errors' information: with much data
    z is what centring would give, with little what non-centring would, asset by asset. `pilot` is
    the evidence that the coordinates come from; it stays when data are simulated, so that draws
    from the prior and posterior of other data share their meaning. A density costs
    O(time series coefficients).

    Source: information of a t error: Lange, Little and Taylor (1989).
    """

    data: CoefficientData  # pyright: ignore
    pilot: RegressionEvidence
    prior: CoefficientPrior  # pyright: ignore

    def __init__(
        self,
        data: CoefficientData,
        prior: CoefficientPrior | None = None,
        pilot: RegressionEvidence | None = None,
    ):
        own = regression_evidence(data.values, data.observed, data.columns)
        self.data = data
        self.pilot = own if pilot is None else pilot
        self.prior = CoefficientPrior() if prior is None else prior

    def priors(self) -> Priors:
        size, count = self.data.num_coefficients, self.data.num_series

        def market(p: Parameters) -> dist.Distribution:
            known, scales = self.information(p)
            return coordinate_law(known.market, scales.market_mean, scales.market_chol)

        def sectors(p: Parameters) -> dist.Distribution:
            known, scales = self.information(p)
            market = self.market(p, known, scales)
            above = jnp.broadcast_to(market, (self.data.num_sectors, size))
            return coordinate_law(known.sectors, above, scales.between_chol)

        def assets(p: Parameters) -> dist.Distribution:
            known, scales = self.information(p)
            above = self.sectors(p, known, scales)[self.data.members]
            return coordinate_law(known.assets, above, scales.within_chol)

        return {
            **self.prior.scale_priors(size),
            **self.prior.noise_priors(count),
            "degrees_level": lambda _: dist.Normal(jnp.log(6.0), 0.5),
            "degrees_spread": lambda _: dist.HalfNormal(0.5),
            "degrees_offset": lambda _: dist.Normal(jnp.zeros(count), 1.0),
            "market": market,
            "sectors": sectors,
            "assets": assets,
        }

    def information(self, parameters: Parameters) -> tuple[LevelInformation, LevelScales]:
        data = self.data
        scales = self.prior.scales(parameters, data.num_coefficients)
        degrees = self.degrees(parameters)
        noise = jnp.exp(parameters["log_noise"]) * jnp.sqrt((degrees + 3.0) / (degrees + 1.0))
        known = level_information(self.pilot, noise, data.members, data.num_sectors, scales)
        return known, scales

    def degrees(self, parameters: Parameters) -> Float[Array, " series"]:
        spread = parameters["degrees_spread"] * parameters["degrees_offset"]
        return LOWEST_DEGREES + jnp.exp(parameters["degrees_level"] + spread)

    def market(
        self, parameters: Parameters, known: LevelInformation, scales: LevelScales
    ) -> Float[Array, " coefficients"]:
        """The market's coefficients from their coordinates."""
        chol, above = scales.market_chol, scales.market_mean
        return from_coordinates(known.market, above, chol, parameters["market"])

    def sectors(
        self, parameters: Parameters, known: LevelInformation, scales: LevelScales
    ) -> Float[Array, "sectors coefficients"]:
        """The sectors' coefficients from their coordinates."""
        market = self.market(parameters, known, scales)
        above = jnp.broadcast_to(market, (self.data.num_sectors, len(market)))
        return from_coordinates(known.sectors, above, scales.between_chol, parameters["sectors"])

    def levels(self, parameters: Parameters, *, key: PRNGKeyArray | None = None) -> Levels:
        """Coefficients of all levels; nothing is drawn."""
        known, scales = self.information(parameters)
        sectors = self.sectors(parameters, known, scales)
        above, chol = sectors[self.data.members], scales.within_chol
        assets = from_coordinates(known.assets, above, chol, parameters["assets"])
        return Levels(self.market(parameters, known, scales), sectors, assets)

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        data, levels = self.data, self.levels(parameters)
        law = dist.StudentT(
            self.degrees(parameters),
            data.columns @ levels.assets.T,
            jnp.exp(parameters["log_noise"]),
        )
        return jnp.sum(jnp.where(data.observed, law.log_prob(data.values), 0.0))

    def start(self) -> Parameters:
        data = self.data
        dtype = data.values.dtype
        return {
            **self.prior.start(self.pilot),
            "degrees_level": jnp.log(jnp.asarray(6.0, dtype)),
            "degrees_spread": jnp.asarray(0.3, dtype),
            "degrees_offset": jnp.zeros(data.num_series, dtype),
            "market": jnp.zeros(data.num_coefficients, dtype),
            "sectors": jnp.zeros((data.num_sectors, data.num_coefficients), dtype),
            "assets": jnp.zeros((data.num_series, data.num_coefficients), dtype),
        }

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "StudentCoefficients":
        noise, degrees = jnp.exp(parameters["log_noise"]), self.degrees(parameters)
        shape = self.data.values.shape
        errors = noise * jax.random.t(key, degrees, shape, noise.dtype)
        data = with_rows(self.data, self.levels(parameters), errors)
        return StudentCoefficients(data, self.prior, self.pilot)

    def identified(self, parameters: Parameters) -> Parameters:
        found = correlations(parameters)
        return {**found, **self.levels(parameters)._asdict()}


def coordinate_law(
    known: Information,
    parent: Float[Array, "*level coefficients"],
    chol: Float[Array, "coefficients coefficients"],
) -> dist.Distribution:
    """The prior of z: e = U'^{-1} (z + shift) ~ N(0, I), so z ~ N(-shift, U' U)."""
    shift, root = conditional(known, parent, chol)
    return dist.MultivariateNormal(-shift, covariance_matrix=jnp.swapaxes(root, -1, -2) @ root)


def from_coordinates(
    known: Information,
    parent: Float[Array, "*level coefficients"],
    chol: Float[Array, "coefficients coefficients"],
    coordinates: Float[Array, "*level coefficients"],
) -> Float[Array, "*level coefficients"]:
    """Coefficients p + L U'^{-1} (z + shift)."""
    shift, root = conditional(known, parent, chol)
    return child(parent, chol, root, shift + coordinates)


def prior_levels(data: CoefficientData, scales: LevelScales, *, key: PRNGKeyArray) -> Levels:
    """Coefficients of all levels drawn from their law without data."""
    keys = jax.random.split(key, 3)
    size, dtype = data.num_coefficients, scales.market_mean.dtype
    market = scales.market_mean + scales.market_chol @ jax.random.normal(keys[0], (size,), dtype)
    noise = jax.random.normal(keys[1], (data.num_sectors, size), dtype)
    sectors = market + noise @ scales.between_chol.T
    noise = jax.random.normal(keys[2], (data.num_series, size), dtype)
    return Levels(market, sectors, sectors[data.members] + noise @ scales.within_chol.T)


def with_rows(
    data: CoefficientData, levels: Levels, errors: Float[Array, "time series"]
) -> CoefficientData:
    """The data with rows x_t' b_i + errors where they were observed."""
    values = jnp.where(data.observed, data.columns @ levels.assets.T + errors, 0.0)
    return dataclasses.replace(data, values=values)
