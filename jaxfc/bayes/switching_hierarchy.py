"""Regime-switching hierarchies of returns, Bayesian."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.bayes.diagnostics import Limits, judged
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.switching_fitted import FittedSwitchingHierarchy, expected_rows, last_states
from jaxfc.bayes.switching_levels import SwitchingData, SwitchingLevels, SwitchingPrior
from jaxfc.model import Model
from jaxfc.results import RESULTS, select
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Observations that a series needs for each regime, and rows below which a regime says nothing.
ROWS_A_REGIME = 5
FEWEST_ROWS = 2.0


class Members(NamedTuple):
    """The sector of every series of the panel, by place in `names`."""

    places: tuple[int, ...]
    names: tuple[str, ...]


class SwitchingHierarchy(Model):
    """Returns whose means, co-movement and noise switch with the regime of the market, by level.

        r_it | s_t = k ~ mean_ki + load_ki f_t + noise_ki u_it,   f_t ~ N(0, h_k^2),   u ~ N(0, 1)

    with s_t a Markov chain of `num_regimes` states in the order of h, the calmest first. Means in
    each regime are shrunk from asset to sector to market, as are loads (of all regimes; those of
    sectors differ by regime if `loads_switch`). Log noise is shrunk from asset to market and rises
    in a regime by a number of the sector, shrunk to the market's. With `heavy_tails` rows are
    multivariate t. See `SwitchingPrior` for the priors, in units of each series' own scale.

    `sectors` names the sector of every series of the panel. Returns may be missing anywhere. The
    result code is `empty_regime` if a regime is expected to hold fewer than two rows, else the
    verdict of `diagnose` on the draws, by `limits`.

    **Raises** (from `fit`): `ValueError` for names that do not fit the panel, constant or nearly
    unobserved series, sums over periods, and a missing key.

    Source: Hamilton (1989); Frühwirth-Schnatter (2006), chapters 10 and 11.
    """

    num_regimes: int = eqx.field(static=True)
    sectors: tuple[tuple[str, str], ...] = eqx.field(
        static=True, converter=lambda sectors: tuple(dict(sectors).items())
    )
    heavy_tails: bool = eqx.field(static=True, default=False, kw_only=True)
    loads_switch: bool = eqx.field(static=True, default=False, kw_only=True)
    prior: SwitchingPrior = eqx.field(default_factory=SwitchingPrior, kw_only=True)
    inference: Inference = eqx.field(
        default_factory=lambda: PooledHMC(num_leapfrogs=24), kw_only=True
    )
    limits: Limits = eqx.field(default_factory=Limits, kw_only=True)
    members: Members | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        if self.num_regimes < 2:
            raise ValueError(f"num_regimes must be at least 2, got {self.num_regimes}.")

    def resolved(self, panel: "Panel") -> "SwitchingHierarchy":
        sectors = dict(self.sectors)
        without = [name for name in panel.names if name not in sectors]
        if without:
            raise ValueError(f"series {without} have no sector; name it in `sectors`.")
        unknown = [name for name in sectors if name not in panel.names]
        if unknown:
            raise ValueError(f"`sectors` names {unknown}, which are not series of the panel.")
        names = tuple(sorted(set(sectors.values())))
        places = tuple(names.index(sectors[name]) for name in panel.names)
        return dataclasses.replace(self, members=Members(places, names))

    def check(self, panel: "Panel") -> None:
        refuse_sums(panel.aggregation, "SwitchingHierarchy")
        needed = ROWS_A_REGIME * self.num_regimes
        for place, name in enumerate(panel.names):
            values = panel.values[panel.observed[:, place], place]
            if values.size < needed:
                raise ValueError(
                    f"series {name!r} has {values.size} observations, {self.num_regimes} regimes "
                    f"need at least {needed}; drop it, lengthen the sample or ask for fewer."
                )
            if np.ptp(values) <= 1e-12 * np.max(np.abs(values)):
                raise ValueError(f"series {name!r} is constant; drop it.")

    def program(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[SwitchingLevels, Float[Array, " series"]]:
        """The posterior in units of the model, and the scale of every series: its root mean
        square."""
        if self.members is None:
            raise ValueError(
                "the model does not know yet which series its names are; use fit(panel), or "
                "model.resolved(panel) before estimate."
            )
        filled = jnp.where(observed, values, 0.0)
        counts = jnp.maximum(jnp.sum(observed, axis=0), 1)
        squares = jnp.sum(filled**2, axis=0) / counts
        scale = jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0))
        places, names = self.members
        data = SwitchingData(filled / scale, observed, jnp.asarray(places), len(names))
        program = SwitchingLevels(
            data,
            self.num_regimes,
            heavy_tails=self.heavy_tails,
            loads_switch=self.loads_switch,
            prior=self.prior,
        )
        return program, scale

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedSwitchingHierarchy:
        refuse_sums(aggregation, "SwitchingHierarchy")
        key = required_key(key, "the posterior is drawn from")
        program, scale = self.program(values, observed)
        draws = judged(self.inference.sample(program, key=key), program, limits=self.limits)
        laws = jax.vmap(program.laws)(draws.pooled())
        data = program.data
        rows = expected_rows(laws, data.values, data.observed)
        states, logliks = last_states(laws, data.values, data.observed)
        return FittedSwitchingHierarchy(
            model=self,
            draws=draws,
            laws=laws,
            states=states,
            scale=scale,
            expected_rows=rows,
            loglik=jnp.mean(logliks) - jnp.sum(observed * jnp.log(scale)),
            num_steps=draws.num_steps,
            result=verdict(draws, rows),
        )


def verdict(draws: PosteriorDraws, rows: Float[Array, " regimes"]) -> RESULTS:
    """That a regime is empty, unless the draws are worthless, or that of the draws."""
    empty = jnp.min(rows) < FEWEST_ROWS
    fatal = (draws.result == RESULTS.diverged) | (draws.result == RESULTS.frozen_chain)
    return select(empty & ~fatal, cast(RESULTS, RESULTS.empty_regime), draws.result)
