"""Alphas and betas that move over time about levels shrunk to sector and market.

    r_it = x_t' b_it + noise_i u_it,     u ~ N(0, 1)
    "mean reverting":  b_it = b_i + w_it,   w_it = phi w_i,t-1 + eta_it,   w_i0 ~ N(0, d^2)
    "random walk":     b_i0 = b_i,          b_it = b_i,t-1 + eta_it
    b_i ~ N(g_s(i), Lam),     g_s ~ N(m, Om),     ln d_s ~ N(ln d_0, spread^2)

by coefficient; the drift d of a sector is the standard deviation of w in the long run, or of what a
random walk moves in `ROWS_OF_DRIFT` rows. Paths and levels of the assets are integrated out by the
framework's Kalman filter, one small one for each asset; their sectors' and the market's are
parameters.

Source: Durbin and Koopman (2012), chapters 4 and 7.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from jaxfc.bayes.coefficient_algebra import (
    LevelInformation,
    Levels,
    LevelScales,
    level_information,
    regression_evidence,
)
from jaxfc.bayes.coefficient_levels import CoefficientProgram
from jaxfc.bayes.coefficient_prior import CoefficientData, CoefficientPrior, correlations
from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.state_space import StateSpace
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.kalman import kalman_filter
from jaxfc_kernels.kalman_system import TimeVarying
from jaxfc_kernels.semidefinite import semidefinite_chol

DYNAMICS = ("random walk", "mean reverting")
# Rows that a random walk's drift is stated over.
ROWS_OF_DRIFT = 100


class Drift(eqx.Module):
    """Which coefficients move and how far: `dynamics` "random walk" or "mean reverting".

        ln d_0 ~ N(ln `size`, 1),   ln d_s - ln d_0 ~ N(0, spread^2),   spread ~ HN(1/2),
        phi ~ Beta(`memory`, 1)

    in units of the prior spread of slopes. Intercepts move too if `alphas`; returns say little on
    paths of intercepts.

    **Raises:** `ValueError` for unknown dynamics, a `size` or `memory` that is not positive.
    """

    dynamics: str = eqx.field(static=True, default="mean reverting")
    alphas: bool = eqx.field(static=True, default=False, kw_only=True)
    size: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.2, kw_only=True)
    memory: Float[Array, ""] = eqx.field(converter=as_scalar, default=20.0, kw_only=True)

    def __check_init__(self):
        if self.dynamics not in DYNAMICS:
            raise ValueError(f"dynamics must be one of {DYNAMICS}, got {self.dynamics!r}.")
        check_positive(self, "size", "memory")

    @property
    def reverts(self) -> bool:
        return self.dynamics == "mean reverting"

    @property
    def first(self) -> int:
        """The first coefficient that moves."""
        return 0 if self.alphas else 1


class DriftState(NamedTuple):
    """The law of the assets' states (levels of all coefficients, then deviations if they revert) in
    the row after the data, and how they go on: `persistence`, standard deviations `innovations`."""

    mean: Float[Array, "series states"]
    cov: Float[Array, "series states states"]
    persistence: Float[Array, " states"]
    innovations: Float[Array, "series states"]


class DriftingCoefficients(CoefficientProgram):
    """The posterior of moving coefficients. A density costs O(time series coefficients^3), one row
    after the other. See the module and `Drift` for laws, `CoefficientPrior` for the others."""

    data: CoefficientData  # pyright: ignore
    drift: Drift
    prior: CoefficientPrior  # pyright: ignore

    def __init__(
        self,
        data: CoefficientData,
        drift: Drift | None = None,
        prior: CoefficientPrior | None = None,
    ):
        self.data = data
        self.drift = Drift() if drift is None else drift
        self.prior = CoefficientPrior() if prior is None else prior
        if self.num_moving < 1:
            raise ValueError("nothing moves: there are no regressors; use Drift(alphas=True).")

    @property
    def num_moving(self) -> int:
        return self.data.num_coefficients - self.drift.first

    def priors(self) -> Priors:
        size, sectors, moving = self.data.num_coefficients, self.data.num_sectors, self.num_moving
        level = jnp.log(self.drift.size * self.prior.spread_beta)
        priors: Priors = {
            **self.prior.scale_priors(size),
            **self.prior.noise_priors(self.data.num_series),
            "market": lambda _: dist.Normal(jnp.zeros(size), self.prior.market_scale(size)),
            "sector_offset": lambda _: dist.Normal(jnp.zeros((sectors, size)), 1.0),
            "drift_level": lambda _: dist.Normal(jnp.broadcast_to(level, (moving,)), 1.0),
            "drift_spread": lambda _: dist.HalfNormal(0.5),
            "drift_offset": lambda _: dist.Normal(jnp.zeros((sectors, moving)), 1.0),
        }
        if self.drift.reverts:
            memory = self.drift.memory
            priors["persistence"] = lambda _: dist.Beta(memory, 1.0).expand((moving,))
        return priors

    def start(self) -> Parameters:
        data = self.data
        evidence = regression_evidence(data.values, data.observed, data.columns)
        size, sectors, moving = data.num_coefficients, data.num_sectors, self.num_moving
        dtype = data.values.dtype
        found = {
            **self.prior.start(evidence),
            "market": jnp.zeros(size, dtype),
            "sector_offset": jnp.zeros((sectors, size), dtype),
            "drift_level": jnp.full(moving, jnp.log(self.drift.size * self.prior.spread_beta)),
            "drift_spread": jnp.asarray(0.3, dtype),
            "drift_offset": jnp.zeros((sectors, moving), dtype),
        }
        if self.drift.reverts:
            found["persistence"] = jnp.full(moving, 0.95, dtype)
        return found

    def sector_levels(self, parameters: Parameters) -> tuple[Array, LevelScales]:
        """g_s (sectors, coefficients), and the law of the levels."""
        scales = self.prior.scales(parameters, self.data.num_coefficients)
        return parameters["market"] + parameters["sector_offset"] @ scales.between_chol.T, scales

    def drifts(self, parameters: Parameters) -> Float[Array, "sectors moving"]:
        """d of every sector."""
        spread = parameters["drift_spread"] * parameters["drift_offset"]
        return jnp.exp(parameters["drift_level"] + spread)

    def steps(self, parameters: Parameters) -> tuple[Array, Array, Array]:
        """Persistence (states,) and standard deviations (sectors, states) of innovations and of the
        first row's deviations."""
        drifts, first = self.drifts(parameters), self.drift.first
        still = jnp.zeros((self.data.num_sectors, self.data.num_coefficients), drifts.dtype)
        if not self.drift.reverts:
            innovations = still.at[:, first:].set(drifts / ROWS_OF_DRIFT**0.5)
            return jnp.ones_like(still[0]), innovations, still
        phi = parameters["persistence"]
        innovations = jnp.concatenate([still, drifts * jnp.sqrt(1.0 - phi**2)], axis=1)
        persistence = jnp.concatenate([jnp.ones_like(still[0]), phi])
        return persistence, innovations, jnp.concatenate([still, drifts], axis=1)

    def state_columns(self, columns: Float[Array, "rows coefficients"]) -> Array:
        """What multiplies the states (rows, states)."""
        if not self.drift.reverts:
            return columns
        return jnp.concatenate([columns, columns[:, self.drift.first :]], axis=1)

    def spaces(self, parameters: Parameters) -> StateSpace:
        """The state spaces of all assets, along the leading axis of each leaf but the design."""
        centres, scales = self.sector_levels(parameters)
        persistence, innovations, first = self.steps(parameters)
        design = TimeVarying(self.state_columns(self.data.columns)[:, None, :])
        size, states = self.data.num_coefficients, len(persistence)
        within = jnp.zeros((states, states), centres.dtype)
        within = within.at[:size, :size].set(scales.within_chol @ scales.within_chol.T)

        def one(member: Array, noise: Array) -> StateSpace:
            mean = jnp.zeros(states, noise.dtype).at[:size].set(centres[member])
            return StateSpace(
                initial_mean=mean,
                initial_cov=within + jnp.diag(first[member] ** 2),
                transition=jnp.diag(persistence),
                offset=jnp.zeros_like(mean),
                innovation_cov=jnp.diag(innovations[member] ** 2),
                design=design,
                observation_offset=jnp.zeros(1, noise.dtype),
                observation_cov=(noise**2)[None],
            )

        return eqx.filter_vmap(one)(self.data.members, jnp.exp(parameters["log_noise"]))

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        def one(space: StateSpace, values: Array, observed: Array) -> Float[Array, ""]:
            rows = values[:, None], observed[:, None]
            return space.log_prob(*rows, implementation="univariate")

        data = self.data
        return jnp.sum(jax.vmap(one)(self.spaces(parameters), data.values.T, data.observed.T))

    def information(self, parameters: Parameters) -> tuple[LevelInformation, LevelScales]:
        data = self.data
        evidence = regression_evidence(data.values, data.observed, data.columns)
        scales = self.prior.scales(parameters, data.num_coefficients)
        noise = jnp.exp(parameters["log_noise"])
        known = level_information(evidence, noise, data.members, data.num_sectors, scales)
        return known, scales

    def degrees(self, parameters: Parameters) -> Float[Array, " series"]:
        return jnp.full_like(parameters["log_noise"], jnp.inf)

    def paths(self, parameters: Parameters, *, key: PRNGKeyArray) -> Float[Array, "time series q"]:
        """One draw of all coefficients in all rows given the data (simulation smoother)."""

        def one(space: StateSpace, values: Array, observed: Array, key: PRNGKeyArray) -> Array:
            rows = values[:, None], observed[:, None]
            return space.sample_posterior(*rows, 1, key=key, implementation="univariate")[0]

        data = self.data
        keys = jax.random.split(key, data.num_series)
        spaces = self.spaces(parameters)
        states = jax.vmap(one)(spaces, data.values.T, data.observed.T, keys)
        return coefficients_of(jnp.swapaxes(states, 0, 1), data.num_coefficients)

    def ahead(self, parameters: Parameters) -> DriftState:
        """The law of the states in the row after the data, given `parameters`."""

        def one(space: StateSpace, values: Array, observed: Array) -> tuple[Array, Array]:
            rows = values[:, None], observed[:, None]
            found = kalman_filter(space.system, *rows, implementation="univariate")
            return found.next_mean, found.next_cov

        data = self.data
        moments = jax.vmap(one)(self.spaces(parameters), data.values.T, data.observed.T)
        persistence, innovations, _ = self.steps(parameters)
        return DriftState(*moments, persistence, innovations[data.members])

    def levels(self, parameters: Parameters, *, key: PRNGKeyArray) -> Levels:
        """As `CoefficientProgram.levels`; an asset's is its level, or where a random walk is in the
        row after the data."""
        states = draw_states(self.ahead(parameters), key=key)
        assets = states[:, : self.data.num_coefficients]
        return Levels(parameters["market"], self.sector_levels(parameters)[0], assets)

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "DriftingCoefficients":
        data, num_rows = self.data, len(self.data.values)

        def one(space: StateSpace, key: PRNGKeyArray) -> Array:
            return space.simulate(num_rows, key=key)[1][:, 0]

        keys = jax.random.split(key, data.num_series)
        values = jax.vmap(one)(self.spaces(parameters), keys).T
        values = jnp.where(data.observed, values, 0.0)
        moved = eqx.tree_at(lambda d: d.values, data, values)
        return DriftingCoefficients(moved, self.drift, self.prior)

    def identified(self, parameters: Parameters) -> Parameters:
        return {**correlations(parameters), "sectors": self.sector_levels(parameters)[0]}


def draw_states(law: DriftState, *, key: PRNGKeyArray) -> Float[Array, "series states"]:
    """A draw of the states in the row after the data."""
    noise = jax.random.normal(key, law.mean.shape, law.mean.dtype)
    chols = jax.vmap(semidefinite_chol)(law.cov)
    return law.mean + (chols @ noise[..., None])[..., 0]


def coefficients_of(
    states: Float[Array, "*rows states"], num_coefficients: int
) -> Float[Array, "*rows coefficients"]:
    """Coefficients: levels, and deviations added to the last ones."""
    levels, deviations = states[..., :num_coefficients], states[..., num_coefficients:]
    still = num_coefficients - deviations.shape[-1]
    if still == num_coefficients:
        return levels
    return levels.at[..., still:].add(deviations)


def coefficient_path(
    law: DriftState, num_coefficients: int, horizon: int, *, key: PRNGKeyArray
) -> Float[Array, "horizon series coefficients"]:
    """One path of the coefficients in the rows after the data."""
    start_key, key = jax.random.split(key)
    start = draw_states(law, key=start_key)
    shocks = jax.random.normal(key, (horizon, *start.shape), start.dtype) * law.innovations

    def step(state: Array, shock: Array) -> tuple[Array, Array]:
        return law.persistence * state + shock, state

    states = jax.lax.scan(step, start, shocks)[1]
    return coefficients_of(states, num_coefficients)
