"""A hierarchical regression given its data: draws of coefficients and of the future."""

from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.batching import map_in_batches
from jaxfc.bayes.coefficient_algebra import Levels, LevelShares, level_shares
from jaxfc.bayes.coefficient_drift import DriftingCoefficients, DriftState, coefficient_path
from jaxfc.bayes.coefficient_levels import CoefficientProgram
from jaxfc.bayes.coefficient_places import data_in_units
from jaxfc.bayes.coefficient_prior import CoefficientScales
from jaxfc.bayes.coefficient_regressors import RegressorLaw
from jaxfc.bayes.draws import NUM_TOGETHER, PosteriorDraws
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.model import Fitted
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.bayes.coefficient_regression import HierarchicalRegression


class CoefficientPosterior(NamedTuple):
    """Draws of the coefficients in units of the data, all chains on one axis.

    `levels` holds market, sectors and assets; `noise` and `degrees` (draws, series) the errors';
    `shares` the posterior mean of how much of a coefficient comes from the level above (that of
    coefficients that stay where they are, if they move), `drift` where they go from, in units of
    the model, `logliks` (draws,) in units of the data.
    """

    levels: Levels
    noise: Float[Array, "draws series"]
    degrees: Float[Array, "draws series"]
    shares: LevelShares
    drift: DriftState | None
    logliks: Float[Array, " draws"]


def posterior_summary(
    program: CoefficientProgram,
    draws: PosteriorDraws,
    scales: CoefficientScales,
    *,
    key: PRNGKeyArray,
) -> CoefficientPosterior:
    """Coefficients for every draw of the parameters: exact draws where they were integrated out."""

    def one(case: tuple[dict[str, Array], PRNGKeyArray]) -> CoefficientPosterior:
        parameters, key = case
        levels = program.levels(parameters, key=key)
        return CoefficientPosterior(
            levels=jax.tree.map(lambda part: scales.coefficients * part, levels),
            noise=scales.values * jnp.exp(parameters["log_noise"]),
            degrees=program.degrees(parameters),
            shares=level_shares(*program.information(parameters)),
            drift=program.ahead(parameters) if isinstance(program, DriftingCoefficients) else None,
            logliks=program.log_likelihood(parameters),
        )

    keys = jax.random.split(key, draws.num_draws)
    found = map_in_batches(one, (draws.pooled(), keys), NUM_TOGETHER)
    cells = jnp.sum(program.data.observed)
    return found._replace(
        shares=jax.tree.map(lambda part: jnp.mean(part, axis=0), found.shares),
        logliks=found.logliks - cells * jnp.log(scales.values),
    )


@eqx.filter_jit
def regressor_paths(
    law: RegressorLaw, horizon: int, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, "draws horizon factors"]:
    """Paths of the regressors after the data, parameters drawn anew for each."""
    keys = jax.random.split(key, num_draws)
    return jax.vmap(lambda key: law.path(horizon, key=key))(keys)


@eqx.filter_jit
def returns_ahead(
    posterior: CoefficientPosterior,
    scales: CoefficientScales,
    paths: Float[Array, "draws horizon factors"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon series"]:
    """Returns of the assets where regressors follow the paths, one path for every draw."""
    horizon = paths.shape[1]

    def one(case: tuple[Any, ...]) -> Float[Array, "horizon series"]:
        assets, drift, noise, degrees, path, key = case
        drift_key, error_key, scale_key = jax.random.split(key, 3)
        columns = jnp.concatenate([jnp.ones_like(path[:, :1]), path], axis=1)
        if drift is None:
            mean = columns @ assets.T
        else:
            moved = coefficient_path(drift, columns.shape[1], horizon, key=drift_key)
            mean = jnp.einsum("hq,hiq->hi", columns, scales.coefficients * moved)
        errors = jax.random.normal(error_key, mean.shape, mean.dtype)
        errors = errors / jnp.sqrt(draw_precisions(degrees, horizon, key=scale_key))
        return mean + noise * errors

    keys = jax.random.split(key, len(paths))
    assets = posterior.levels.assets, posterior.drift
    cases = (*assets, posterior.noise, posterior.degrees, paths, keys)
    return map_in_batches(one, cases, NUM_TOGETHER)


@eqx.filter_jit
def drift_ahead(program: DriftingCoefficients, draws: PosteriorDraws) -> DriftState:
    """Where moving coefficients are after the program's data, for every draw."""
    return map_in_batches(program.ahead, draws.pooled(), NUM_TOGETHER)


class FittedHierarchicalRegression(Fitted):
    """The posterior of a hierarchical regression.

    `draws` are those of the parameters in units of the model, with what can be said on their
    quality; `posterior` the coefficients in units of the data. `loglik` is the posterior mean of
    the log-likelihood of `draws.parameters` (coefficients integrated out where they are).
    """

    model: "HierarchicalRegression"
    draws: PosteriorDraws
    posterior: CoefficientPosterior
    scales: CoefficientScales
    regressors: RegressorLaw
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def alphas(self) -> Float[Array, "draws assets"]:
        """Draws of the intercepts, in units of the returns per row."""
        return self.posterior.levels.assets[..., 0]

    @property
    def betas(self) -> Float[Array, "draws assets factors"]:
        """Draws of the exposures (of where they are in the row after the data, if they move as
        random walks; of their levels, if they revert)."""
        return self.posterior.levels.assets[..., 1:]

    @property
    def probability_of_positive_alpha(self) -> Float[Array, " assets"]:
        """P(alpha_i > 0 | data)."""
        return jnp.mean(self.alphas > 0.0, axis=0)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> SampleForecast:
        """Joint draws of all series over the next `horizon` rows, one for each posterior draw.

        **Raises:** `ValueError` for a horizon below 1 or a missing key.
        """
        check_counts(horizon=horizon)
        key = required_key(key, "the forecast is drawn")
        path_key, return_key = jax.random.split(key)
        count = len(self.posterior.noise)
        paths = regressor_paths(self.regressors, horizon, count, key=path_key)
        return self.returns_on(paths, key=return_key)

    def forecast_given(
        self, regressors: Float[Array, "horizon factors"], *, key: PRNGKeyArray
    ) -> SampleForecast:
        """The same where the regressors, in the order of `factors`, take the given path: a
        scenario. What the path says on earlier rows is nothing: returns are conditional on it."""
        count = self.betas.shape[2]
        if regressors.shape[1] != count or regressors.shape[0] < 1:
            raise ValueError(
                f"the scenario has shape {regressors.shape}; give one row a step ahead and "
                f"{count} columns, in the order of {self.model.factors}."
            )
        paths = jnp.broadcast_to(regressors, (len(self.posterior.noise), *regressors.shape))
        return self.returns_on(paths.astype(self.betas.dtype), key=key)

    def returns_on(
        self, paths: Float[Array, "draws horizon factors"], *, key: PRNGKeyArray
    ) -> SampleForecast:
        """Draws of all series where regressors follow the paths."""
        returns = returns_ahead(self.posterior, self.scales, paths, key=key)
        return SampleForecast(self.model.known_places.joined(returns, paths))

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of `num_steps` rows at one draw of the posterior, regressors from their law
        (with a lag, or coefficients that move: after the last row of the data)."""
        check_counts(num_steps=num_steps)
        pick_key, path_key, key = jax.random.split(key, 3)
        place = jax.random.randint(pick_key, (), 0, len(self.posterior.noise))
        names = ("levels", "noise", "degrees", "drift")
        drawn = {name: getattr(self.posterior, name) for name in names}
        picked = jax.tree.map(lambda leaf: leaf[place][None], drawn)
        paths = regressor_paths(self.regressors, num_steps, 1, key=path_key)
        rows = returns_ahead(self.posterior._replace(**picked), self.scales, paths, key=key)
        return self.model.known_places.joined(rows, paths)[0]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedHierarchicalRegression":
        """The same draws of the parameters: regressors go on from their last complete row, over
        the rows of these data that come after it; coefficients that move from what these data say
        on them."""
        refuse_sums(aggregation, "HierarchicalRegression")
        places = list(self.model.known_places.factors)
        law = self.regressors.after(values[:, places], observed[:, places])
        moved = eqx.tree_at(lambda fitted: fitted.regressors, self, law)
        if self.posterior.drift is None:
            return moved
        data = data_in_units(values, observed, self.model.known_places, self.scales)
        program = self.model.errors.program(data, self.model.prior)
        assert isinstance(program, DriftingCoefficients)
        drift = drift_ahead(program, self.draws)
        return eqx.tree_at(lambda fitted: fitted.posterior.drift, moved, drift)

    def to_frame(self) -> "pd.DataFrame":
        """By asset: sector, posterior mean and standard deviation of alpha and betas, P(alpha > 0),
        and which share of each coefficient comes from the sector (host side)."""
        import numpy as np
        import pandas as pd

        places = self.model.known_places
        index = pd.Index(places.asset_names, name="asset")
        table = pd.DataFrame({"sector": [places.sector_names[m] for m in places.members]}, index)
        names = ("alpha", *self.model.factors)
        for k, name in enumerate(names):
            drawn = np.asarray(self.posterior.levels.assets[..., k])
            table[name], table[f"{name} std"] = drawn.mean(0), drawn.std(0, ddof=1)
        table["P(alpha > 0)"] = np.asarray(self.probability_of_positive_alpha)
        for k, name in enumerate(names):
            table[f"{name} from sector"] = np.asarray(self.posterior.shares.assets[:, k])
        return table

    def sectors_to_frame(self) -> "pd.DataFrame":
        """By sector, and for the market in the last row: posterior mean and standard deviation of
        the coefficients, and which share of each comes from the market (host side)."""
        import numpy as np
        import pandas as pd

        levels, shares = self.posterior.levels, np.asarray(self.posterior.shares.sectors)
        index = pd.Index([*self.model.known_places.sector_names, "market"], name="sector")
        drawn = np.concatenate([levels.sectors, levels.market[:, None]], axis=1)
        table = pd.DataFrame(index=index)
        for k, name in enumerate(("alpha", *self.model.factors)):
            table[name] = drawn[..., k].mean(0)
            table[f"{name} std"] = drawn[..., k].std(0, ddof=1)
            table[f"{name} from market"] = [*shares[:, k], np.nan]
        return table


def draw_precisions(
    degrees: Float[Array, " series"], horizon: int, *, key: PRNGKeyArray
) -> Float[Array, "horizon series"]:
    """Precisions chi^2_nu / nu that make normal errors t(nu); ones where nu is infinite."""
    finite = jnp.isfinite(degrees)
    half = 0.5 * jnp.where(finite, degrees, 1.0)
    drawn = jax.random.gamma(key, half, (horizon, len(degrees)), degrees.dtype) / half
    return jnp.where(finite, drawn, 1.0)
