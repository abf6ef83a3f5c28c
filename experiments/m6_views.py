"""A subjective view on long Treasury bonds in the last round of M6: what it says of other assets.

    python -m experiments.m6_views [--quick] [--folder FOLDER] [--out FOLDER]

The M6 model is sampled once for the four weeks from 2023-01-06, from what was known then, the
coming row among the rows of its factors. Each view on TLT is put on these draws in two ways, as a
second opinion on the return and as an observation of the expected return; and the second also into
the likelihood, sampled anew. Lines of `views.csv` are kept as they are made, so that a killed run
goes on; `answers.md` is written from all. Runs in float64.
"""

import argparse
import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.m6 import submitted
from experiments.m6_baselines import Law, key_of
from experiments.m6_data import ROUND_ENDS, m6_assets, official_prices
from experiments.m6_models import RAMP
from experiments.m6_views_answers import (
    EXPECTED,
    LIKELIHOOD,
    NONE,
    QUINTILES,
    RETURN,
    views_answers,
)
from jaxfc.bayes.asset_returns import AssetFactorProgram
from jaxfc.bayes.diagnostics import Diagnostics, diagnose
from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.m6 import M6Model
from jaxfc.bayes.past_weights import LinearRamp
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.program import Parameters, Program
from jaxfc.bayes.progress import sample_with_progress
from jaxfc.bayes.views import with_views
from jaxfc.bayes.views_likelihood import ViewedProgram
from jaxfc.bayes.views_methods import ExpectedReturn, ReturnDensity
from jaxfc.bayes.views_statements import ReturnView, resolve
from jaxfc.evaluation.rank_scores import (
    mean_ranked_probability_score,
    quantile_classes,
    rank_probabilities,
)
from jaxfc.forecast import SampleForecast
from jaxfc.panel import Panel
from jaxfc.typing import Array, PRNGKeyArray

ROUND = 12
VIEWED = "TLT"
WATCHED = ("TLT", "IEF", "LQD", "XLF")
VIEWS = ((0.02, 0.1), (0.05, 0.02), (0.08, 0.01))  # mean and sd of the return of four weeks
NO_VIEW = (0.0, float("inf"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Chains of the model of `num_factors` factors on the last `window` periods; futures of each
    draw; the views that are also put into the likelihood."""

    window: int = 222
    num_factors: int = 7
    num_chains: int = 4
    num_warmup: int = 300
    num_draws: int = 500
    num_leapfrogs: int = 40
    num_replicates: int = 4
    sampled: tuple[tuple[float, float], ...] = VIEWS[1:]
    only: tuple[str, ...] = ()  # names of assets; none: all
    seed: int = 6
    folder: str | None = None
    out: str = "m6_views"


FEW = ("AMZN", "JPM", "XOM", "KR", "IVV", "XLE", *WATCHED)
QUICK = Config(40, 2, 2, 100, 100, 16, 2, VIEWS[1:2], FEW)


def program_with_next_row(model: M6Model, panel: Panel) -> tuple[AssetFactorProgram, Array]:
    """The posterior of the model where the next row, unobserved, has factors of its own; and the
    scale of each asset."""
    model = model.resolved(panel)
    model.check(panel)
    values, observed = panel.arrays()
    extended = jnp.pad(values, ((0, 1), (0, 0))), jnp.pad(observed, ((0, 1), (0, 0)))
    data = model.data(*extended)
    return model.program(data.rows), data.scale


def expected_next(program: Program, parameters: Parameters) -> Array:
    """What is expected of the last row given its factors, (1, series), in units of the scale."""
    assert isinstance(program, AssetFactorProgram)
    return (program.expected(parameters, program.rows) + program.common(parameters))[-1:]


def viewed(
    program: AssetFactorProgram, scale: Array, names: list[str], view: tuple[float, float]
) -> ViewedProgram:
    """The program with the view; one of infinite sd says nothing, so that one compiled sampler
    serves with a view and without."""
    found = resolve(ReturnView(VIEWED, *view), names, horizon=1)
    in_units = eqx.tree_at(lambda s: s.directions, found, found.directions * scale)
    return ViewedProgram(program, in_units, expected_next)


@eqx.filter_jit
def futures(
    program: AssetFactorProgram,
    scale: Array,
    draws: PosteriorDraws,
    num_replicates: int,
    key: PRNGKeyArray,
) -> tuple[Array, Array]:
    """Expected and simulated returns of the next row, (draws, replicates, assets)."""

    def one(drawn: tuple[Array, Parameters]) -> tuple[Array, Array]:
        place, parameters = drawn
        expected = expected_next(program, parameters)
        shape = num_replicates, expected.shape[1]
        own = jax.random.fold_in(key, place)
        noise = jax.random.t(own, program.dof(parameters), shape, expected.dtype)
        spread = jnp.exp(program.log_scale(parameters, program.rows)[-1])
        return jnp.broadcast_to(scale * expected, shape), scale * (expected + spread * noise)

    numbered = jnp.arange(draws.num_draws), draws.pooled()
    return jax.lax.map(one, numbered, batch_size=min(64, draws.num_draws))


class World(eqx.Module):
    """What all lines share: the posterior without views, its units, names, what came."""

    program: AssetFactorProgram
    scale: Array
    names: list[str]
    realised: np.ndarray
    config: Config

    @classmethod
    def of(cls, config: Config) -> "World":
        """What was known at the start of the round, and the returns that came."""
        assets = m6_assets(config.folder)
        names = list(config.only) or assets.names
        origin, end = ROUND_ENDS[ROUND], ROUND_ENDS[ROUND + 1]
        panel = assets.known_at(origin).panel(names, config.window)
        model = M6Model(
            {name: assets.classes[name] for name in names},
            num_factors=config.num_factors,
            past=LinearRamp(float(RAMP + 1)),  # the next row has age zero
        )
        closes = official_prices(config.folder)[names].ffill()
        realised = (closes.loc[end] / closes.loc[origin] - 1.0).to_numpy()
        return cls(*program_with_next_row(model, panel), names, realised, config)

    def sampled(self, view: tuple[float, float]) -> tuple[PosteriorDraws, Array, Array]:
        """Draws of the posterior with the view in its likelihood; expected and drawn returns."""
        config = self.config
        how = PooledHMC(
            num_chains=config.num_chains,
            num_draws=config.num_draws,
            num_warmup=config.num_warmup,
            num_leapfrogs=config.num_leapfrogs,
        )
        sample_key, draw_key = jax.random.split(key_of(config.seed, "views", ROUND))
        program = viewed(self.program, self.scale, self.names, view)
        draws = sample_with_progress(program, how, key=sample_key)
        return draws, *futures(self.program, self.scale, draws, config.num_replicates, draw_key)

    def told(self, draws: PosteriorDraws) -> dict[str, object]:
        """What can be said of chains."""
        found = diagnosed(self.program, draws)
        worst = {"max R-hat": found.max_rhat, "min ESS": found.min_bulk_ess}
        return {name: float(value) for name, value in worst.items()}

    def lines(self, how: str, view: tuple[float, float], returns: Array, weights: Array):
        """A line for each watched asset: its mean with a standard error (draws of the parameters
        taken as independent), its quintile probabilities."""
        law = Law(np.asarray(returns).reshape(-1, len(self.names)))
        flat = submitted(law, self.names, ROUND_ENDS[ROUND])
        probabilities, score = scored(flat, weights, self.realised)
        cells = np.asarray(weights).reshape(returns.shape[:2])
        found = []
        for name in WATCHED:
            place = self.names.index(name)
            own = flat[:, place].reshape(cells.shape)
            mean = float(np.sum(cells * own))
            error = float(np.sqrt(np.sum(np.sum(cells * (own - mean), axis=1) ** 2)))
            row: dict[str, object] = {"view": said(view), "how": how, "asset": name}
            row |= {"mean": mean, "error": error}
            row |= {q: float(p) for q, p in zip(QUINTILES, probabilities[place], strict=True)}
            found.append(row | {"RPS": float(score)})
        return pd.DataFrame(found)


def said(view: tuple[float, float]) -> str:
    """A view in a table."""
    return "none" if view == NO_VIEW else f"{view[0]:g} +- {view[1]:g}"


@jax.jit
def scored(draws: Array, weights: Array, realised: Array) -> tuple[Array, Array]:
    """Quintile probabilities of all assets, and their score by the organisers."""
    probabilities = rank_probabilities(draws, weights=weights)
    return probabilities, mean_ranked_probability_score(probabilities, quantile_classes(realised))


@eqx.filter_jit
def diagnosed(program: AssetFactorProgram, draws: PosteriorDraws) -> Diagnostics:
    """Diagnostics of what the data identify."""
    return diagnose(draws, draws.map(program.identified))


def reweighted(world: World) -> pd.DataFrame:
    """The lines without views, and of every view on the same draws in both meanings."""
    draws, expected, returns = world.sampled(NO_VIEW)
    flat = returns.reshape(-1, 1, len(world.names))
    law = SampleForecast(flat)
    equal = jnp.full(len(flat), 1.0 / len(flat))
    found = [world.lines(NONE, NO_VIEW, returns, equal).assign(kept=1.0, **world.told(draws))]
    methods = {RETURN: ReturnDensity(), EXPECTED: ExpectedReturn(expected.reshape(flat.shape))}
    for view in VIEWS:
        for how, method in methods.items():
            # Also what `with_views` refuses by default, fewer than a tenth of the draws, is shown.
            after = with_views(
                law, ReturnView(VIEWED, *view), names=world.names, method=method, floor=0.0
            )
            own = world.lines(how, view, returns, after.weights)
            odds = float(after.verdict.log_odds)
            found.append(own.assign(kept=float(after.kept), **{"log-odds": odds}))
    return pd.concat(found)


def in_likelihood(world: World, view: tuple[float, float]) -> pd.DataFrame:
    """The lines of a view that the posterior was sampled with."""
    draws, _, returns = world.sampled(view)
    count = returns.shape[0] * returns.shape[1]
    equal = jnp.full(count, 1.0 / count)
    return world.lines(LIKELIHOOD, view, returns, equal).assign(**world.told(draws))


def run(config: Config) -> pd.DataFrame:
    """All lines; writes them and the answers."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "views.csv"
    world = World.of(config)
    lines = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=pd.Index(["view", "how"]))
    done = set(zip(lines["view"], lines["how"], strict=True))
    if (said(NO_VIEW), NONE) not in done:
        lines = reweighted(world)
        lines.to_csv(path, index=False, float_format="%.6g")
    for view in config.sampled:
        if (said(view), LIKELIHOOD) not in done:
            lines = pd.concat([lines, in_likelihood(world, view)])
            lines.to_csv(path, index=False, float_format="%.6g")
    lines = pd.read_csv(path)
    realised = {name: world.realised[world.names.index(name)] for name in WATCHED}
    (folder / "answers.md").write_text(views_answers(lines, realised))
    return lines


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ten assets, short chains")
    parser.add_argument("--folder", help="the folder of real data")
    parser.add_argument("--out", help="the folder of the tables")
    options = parser.parse_args()
    given = {k: v for k, v in vars(options).items() if k != "quick" and v is not None}
    jax.config.update("jax_enable_x64", True)
    run(dataclasses.replace(QUICK if options.quick else Config(), **given))


if __name__ == "__main__":
    main()
