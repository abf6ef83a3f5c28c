"""Regimes of a market, its sectors and assets: the posterior given returns, regimes summed out.

    r_it | s_t = k ~ mean_ki + load_ki f_t + noise_ki u_it,     f_t ~ N(0, h_k^2),  u_it ~ N(0, 1)
    P(s_{t+1} = j | s_t = i) = P_ij,     h_1 < h_2 < ... (regimes are ordered, the calmest first)

Means, loadings and noise of assets are shrunk to their sector's, those of sectors to the market's;
the likelihood sums over all paths of regimes by the forward filter.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from jaxfc.bayes.prior_checks import check_not_negative, check_positive
from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.bayes.switching_start import start_rows, start_values
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.hidden_markov import Filtered, hidden_markov_filter

# Degrees of freedom are above this, so that rows have a covariance.
LOWEST_DEGREES = 2.0


class SwitchingData(eqx.Module):
    """Rows in units of the model: each series divided by its own scale. `values` are zero where not
    `observed`; `members` (series,) the sector of each, from 0 to `num_sectors` - 1."""

    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    members: Int[Array, " series"]
    num_sectors: int = eqx.field(static=True)


class SwitchingPrior(eqx.Module):
    """What is known beforehand, in units of the series' own scales.

        P_k. ~ Dirichlet(1 + stay e_k),   ln h_1 ~ N(ln 1/2, 1/2),   ln h_k - ln h_{k-1} ~
        LogNormal(ln rise, 1/2),   m_k ~ N(0, mean^2),   spreads of means ~ HN(mean_spread),
        loads: market 1, spreads ~ HN(load_spread),   ln noise: spreads ~ HN(noise_spread),
        rise of ln noise in regime k over the calmest ~ N(0, noise_rise^2), of sectors about it ~
        HN(noise_spread / 2)

    The law of rises keeps two regimes from being the same one; the market's load is one, which sets
    the scale of f and its sign.

    **Raises:** `ValueError` for a negative `stay`, and others that are not positive.
    """

    stay: Float[Array, ""] = eqx.field(converter=as_scalar, default=20.0)
    rise: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.7)
    mean: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.3)
    mean_spread: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.1)
    load_spread: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.3)
    noise_spread: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.3)
    noise_rise: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.5)

    def __check_init__(self):
        check_not_negative(self, "stay")
        check_positive(self, "rise", "mean", "mean_spread", "load_spread")
        check_positive(self, "noise_spread", "noise_rise")


class RegimeLaws(NamedTuple):
    """The laws of a row in every regime, N(mean_k, h_k^2 load_k load_k' + diag(noise_k^2)), or
    t with `degrees` and these as location and scatter; `initial` is the stationary law of P."""

    initial: Float[Array, " regimes"]
    transition: Float[Array, "regimes regimes"]
    means: Float[Array, "regimes series"]
    loads: Float[Array, "regimes series"]
    volatilities: Float[Array, " regimes"]
    noise: Float[Array, "regimes series"]
    degrees: Float[Array, ""]

    @property
    def scatters(self) -> Float[Array, "regimes series series"]:
        """h_k^2 load_k load_k' + diag(noise_k^2)."""
        loaded = self.volatilities[:, None] * self.loads
        return loaded[:, :, None] * loaded[:, None, :] + jax.vmap(jnp.diag)(self.noise**2)


class SwitchingLevels(Program):
    """The posterior of a regime-switching hierarchy.

    `num_regimes` R; `heavy_tails`: rows are multivariate t with a common nu (all series share the
    scale of a row), ln (nu - 2) ~ N(ln 6, 1/2); `loads_switch`: sectors' loads differ by regime.
    Entries may be missing. A density costs O(time series regimes) by a Woodbury identity, and one
    pass of the filter over R x R probabilities.

    Parameters of levels are standard normal offsets (`*_sector`, `*_asset`) times spreads, but for
    `log_noise`, which many rows know.

    **Source:** Hamilton (1989); the forward filter as in `jaxfc_kernels.hidden_markov`.
    """

    data: SwitchingData
    num_regimes: int = eqx.field(static=True)
    heavy_tails: bool = eqx.field(static=True, default=False, kw_only=True)
    loads_switch: bool = eqx.field(static=True, default=False, kw_only=True)
    prior: SwitchingPrior = eqx.field(default_factory=SwitchingPrior, kw_only=True)

    def __check_init__(self):
        if self.num_regimes < 2:
            raise ValueError(f"num_regimes must be at least 2, got {self.num_regimes}.")

    def priors(self) -> Priors:
        regimes, prior = self.num_regimes, self.prior
        sectors, series = self.data.num_sectors, self.data.values.shape[1]
        stay = 1.0 + prior.stay * jnp.eye(regimes)

        def offsets(*shape: int):
            return lambda _: dist.Normal(jnp.zeros(shape), 1.0)

        def spread(scale: Array):
            return lambda _: dist.HalfNormal(scale)

        priors: Priors = {
            "transition": lambda _: dist.Dirichlet(stay),
            "calm": lambda _: dist.Normal(jnp.log(0.5), 0.5),
            "rises": lambda _: dist.LogNormal(jnp.log(prior.rise), 0.5).expand((regimes - 1,)),
            "mean_market": lambda _: dist.Normal(jnp.zeros(regimes), prior.mean),
            "mean_between": spread(prior.mean_spread),
            "mean_within": spread(prior.mean_spread),
            "mean_sector": offsets(regimes, sectors),
            "mean_asset": offsets(regimes, series),
            "load_between": spread(prior.load_spread),
            "load_within": spread(prior.load_spread),
            "load_sector": offsets(regimes if self.loads_switch else 1, sectors),
            "load_asset": offsets(series),
            "noise_level": lambda _: dist.Normal(jnp.log(0.7), 0.5),
            "noise_spread": spread(prior.noise_spread),
            "log_noise": lambda p: dist.Normal(p["noise_level"], p["noise_spread"]).expand(
                (series,)
            ),
            "noise_rise": lambda _: dist.Normal(jnp.zeros(regimes - 1), prior.noise_rise),
            "noise_between": spread(0.5 * prior.noise_spread),
            "noise_sector": offsets(regimes - 1, sectors),
        }
        if self.heavy_tails:
            priors["log_degrees"] = lambda _: dist.Normal(jnp.log(6.0), 0.5)
        return priors

    def laws(self, parameters: Parameters) -> RegimeLaws:
        """The laws of a row in every regime at `parameters`."""
        p, members = parameters, self.data.members
        sector_means = p["mean_market"][:, None] + p["mean_between"] * p["mean_sector"]
        sector_loads = 1.0 + p["load_between"] * p["load_sector"]
        loads = sector_loads[:, members] + p["load_within"] * p["load_asset"]
        rises = p["noise_rise"][:, None] + p["noise_between"] * p["noise_sector"]
        rises = jnp.concatenate([jnp.zeros_like(rises[:1]), rises])
        volatilities = jnp.cumsum(jnp.concatenate([p["calm"][None], p["rises"]]))
        means = sector_means[:, members] + p["mean_within"] * p["mean_asset"]
        degrees = jnp.asarray(jnp.inf, means.dtype)
        if self.heavy_tails:
            degrees = LOWEST_DEGREES + jnp.exp(p["log_degrees"])
        return RegimeLaws(
            initial=stationary(p["transition"]),
            transition=p["transition"],
            means=means,
            loads=jnp.broadcast_to(loads, means.shape),
            volatilities=jnp.exp(volatilities),
            noise=jnp.exp(p["log_noise"] + rises[:, members]),
            degrees=degrees,
        )

    def filtered(self, parameters: Parameters) -> Filtered:
        """Probabilities of the regimes given earlier rows and rows up to each, as logarithms."""
        return filtered_regimes(self.laws(parameters), self.data.values, self.data.observed)

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        return jnp.sum(self.filtered(parameters).loglik_terms)

    def start(self) -> Parameters:
        """Rows ranked by the turbulence around them and cut into the regimes."""
        data = self.data
        regimes = start_rows(data.values, data.observed, self.num_regimes)
        found = start_values(data.values, data.observed, regimes, self.num_regimes)
        sectors, series = data.num_sectors, data.values.shape[1]
        shapes = {
            "mean_sector": (self.num_regimes, sectors),
            "mean_asset": (self.num_regimes, series),
            "load_sector": (self.num_regimes if self.loads_switch else 1, sectors),
            "load_asset": (series,),
            "noise_sector": (self.num_regimes - 1, sectors),
        }
        dtype = data.values.dtype
        found = {**found, **{name: jnp.zeros(shape, dtype) for name, shape in shapes.items()}}
        spreads = {
            "mean_between": self.prior.mean_spread,
            "mean_within": self.prior.mean_spread,
            "load_between": self.prior.load_spread,
            "load_within": self.prior.load_spread,
            "noise_spread": self.prior.noise_spread,
            "noise_between": 0.5 * self.prior.noise_spread,
        }
        found = {**found, **{name: 0.5 * scale for name, scale in spreads.items()}}
        if self.heavy_tails:
            found["log_degrees"] = jnp.log(jnp.asarray(6.0, dtype))
        return found

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "SwitchingLevels":
        values = draw_rows(self.laws(parameters), None, len(self.data.values), key=key)
        values = jnp.where(self.data.observed, values, 0.0)
        return eqx.tree_at(lambda program: program.data.values, self, values)

    def identified(self, parameters: Parameters) -> Parameters:
        laws = self.laws(parameters)
        stays = jnp.diagonal(laws.transition, axis1=-2, axis2=-1)
        return {
            "stays": stays,
            "volatilities": laws.volatilities,
            "means": laws.means,
            "loadings": laws.loads * laws.volatilities[:, None],
            "noise": laws.noise,
        }


def stationary(transition: Float[Array, "regimes regimes"]) -> Float[Array, " regimes"]:
    """a = P' a, sum a = 1."""
    size = len(transition)
    matrix = jnp.eye(size, dtype=transition.dtype) - transition.T + 1.0
    law = jnp.linalg.solve(matrix, jnp.ones(size, transition.dtype))
    return jnp.maximum(law, 0.0) / jnp.sum(jnp.maximum(law, 0.0))


def filtered_regimes(
    laws: RegimeLaws, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> Filtered:
    """The forward filter under given laws."""
    densities = log_densities(laws, values, observed)
    return hidden_markov_filter(laws.initial, laws.transition, densities)


def log_densities(
    laws: RegimeLaws, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> Float[Array, "time regimes"]:
    """ln f(observed cells of a row | regime), the 2 pi constant included.

    With a = h^2 sum load^2 / noise^2, c = sum load e / noise^2, q = sum e^2 / noise^2 over the
    observed cells: ln det = ln(1 + a) + sum ln noise^2, distance = q - h^2 c^2 / (1 + a).
    """
    seen = observed.astype(values.dtype)
    values = jnp.where(observed, values, 0.0)
    weights = (1.0 / laws.noise**2).T
    pulls = weights * laws.loads.T
    squares = laws.volatilities**2
    inflation = 1.0 + squares * (seen @ (pulls * laws.loads.T))
    cross = values @ pulls - seen @ (pulls * laws.means.T)
    own = values**2 @ weights - 2.0 * values @ (weights * laws.means.T)
    own = own + seen @ (weights * laws.means.T**2)
    distance = jnp.maximum(own - squares * cross**2 / inflation, 0.0)
    log_dets = jnp.log(inflation) + 2.0 * (seen @ jnp.log(laws.noise).T)
    counts = jnp.sum(seen, axis=1, keepdims=True)
    gaussian = -0.5 * (counts * LOG_2PI + log_dets + distance)
    # nu may be infinite: what then is computed beside must not spoil derivatives.
    finite = jnp.isfinite(laws.degrees)
    nu = jnp.where(finite, laws.degrees, 1.0)
    student = (
        gammaln(0.5 * (nu + counts))
        - gammaln(0.5 * nu)
        - 0.5 * (counts * jnp.log(nu * jnp.pi) + log_dets)
        - 0.5 * (nu + counts) * jnp.log1p(distance / nu)
    )
    return jnp.where(finite, student, gaussian)


def draw_rows(
    laws: RegimeLaws,
    state: Float[Array, " regimes"] | None,
    num_rows: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "time series"]:
    """One path of rows whose first regime follows `state` P, or the stationary law (None)."""
    keys = jax.random.split(key, 4)
    law = laws.initial if state is None else state @ laws.transition
    uniforms = jax.random.uniform(keys[0], (num_rows,), laws.means.dtype)

    def step(law: Array, uniform: Array) -> tuple[Array, Array]:
        regime = jnp.sum(jnp.cumsum(law)[:-1] < uniform)
        return laws.transition[regime], regime

    path = jax.lax.scan(step, law, uniforms)[1]
    common = jax.random.normal(keys[1], (num_rows, 1), laws.means.dtype)
    own = jax.random.normal(keys[2], (num_rows, laws.means.shape[1]), laws.means.dtype)
    errors = laws.volatilities[path][:, None] * laws.loads[path] * common + laws.noise[path] * own
    finite = jnp.isfinite(laws.degrees)
    half = 0.5 * jnp.where(finite, laws.degrees, 1.0)
    scales = jnp.sqrt(half / jax.random.gamma(keys[3], half, (num_rows, 1), errors.dtype))
    return laws.means[path] + errors * jnp.where(finite, scales, 1.0)
