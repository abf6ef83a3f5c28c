"""Scores of one period's forecast of all assets, and their comparison over the origins."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.m6_baselines import Law
from jaxfc.evaluation import (
    crps_draws,
    diebold_mariano,
    energy_score,
    joint_log_score,
    log_score_draws,
)
from jaxfc.evaluation.rank_scores import (
    quantile_classes,
    rank_probabilities,
    ranked_probability_score,
)

LEVELS = (0.5, 0.8, 0.95)
LOSSES = ("RPS", "CRPS", "energy", "log score", "joint log score")
NUM_SHIFTS = 10  # pairs of draws in the energy score, unbiased
COVERAGES = tuple(f"coverage {level:.0%}" for level in LEVELS)


def fair_rps(draws: jax.Array, realised: jax.Array) -> jax.Array:
    """Ranked probability score, mean over the assets, of the law the draws are from.

    The variance F (1 - F) / (draws - 1) of each cumulative probability F is taken off, so that
    laws with few draws compare with those with many. Independent draws are assumed.
    """
    probabilities = rank_probabilities(draws)
    score = ranked_probability_score(probabilities, quantile_classes(realised))
    cumulative = jnp.cumsum(probabilities, axis=1)
    noise = jnp.mean(cumulative * (1.0 - cumulative), axis=1) / (len(draws) - 1)
    return jnp.mean(score - noise)


@jax.jit
def draw_scores(draws: jax.Array, realised: jax.Array, scale: jax.Array) -> dict[str, jax.Array]:
    """What the draws alone tell; see `scores`."""
    own, outcome = draws / scale, realised / scale
    found = {
        "RPS": fair_rps(draws, realised),
        "CRPS": jnp.mean(crps_draws(own, outcome)),
        "energy": energy_score(own[:, None], outcome[None], num_shifts=NUM_SHIFTS)[0],
        "log score": jnp.mean(log_score_draws(own, outcome)),
    }
    for level in LEVELS:
        tails = jnp.quantile(own, jnp.array([0.5 - level / 2, 0.5 + level / 2]), axis=0)
        inside = (tails[0] <= outcome) & (outcome <= tails[1])
        found[f"coverage {level:.0%}"] = jnp.mean(inside)
    return found


def scores(law: Law, realised: np.ndarray, scale: np.ndarray) -> dict[str, float]:
    """All scores of one origin; CRPS and energy in units of `scale`, one for each asset, so that no
    volatile asset decides. Log scores are those of returns in these units, too: nats per asset.

    "log score" is that of each asset's law, from the draws; "joint log score" that of the joint
    normal law, NaN where there is none. Assets without a realised return are left out.
    """
    seen = np.isfinite(realised)
    told = draw_scores(law.draws[:, seen], realised[seen], scale[seen])
    found = {name: float(told[name]) for name in (*LOSSES[:-1], *COVERAGES)}
    found["joint log score"] = np.nan
    if law.cov is not None and law.mean is not None:
        cov = jnp.asarray((law.cov / scale / scale[:, None])[np.ix_(seen, seen)])
        gap = jnp.asarray(((realised - law.mean) / scale)[seen])[None]
        joint = joint_log_score(jnp.zeros_like(gap), cov[None], gap)
        found["joint log score"] = float(joint[0]) / int(seen.sum())
    return {**found, "assets": int(seen.sum())}


def compared(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Mean scores by forecaster over the origins that it shares with the reference, with
    Diebold-Mariano of every loss against the reference; negative: better than it.

    `table` has one row for each origin and forecaster, as the backtest writes it.
    """
    by_name = {str(name): rows.set_index("origin") for name, rows in table.groupby("forecaster")}
    if reference not in by_name:
        raise ValueError(f"no scores of {reference!r}; there are those of {sorted(by_name)}.")
    lines = []
    for name in dict.fromkeys(table["forecaster"]):
        own = by_name[name]
        shared = own.index.intersection(by_name[reference].index).sort_values()
        own, benchmark = own.loc[shared], by_name[reference].loc[shared]
        line: dict[str, object] = {"forecaster": name, "origins": len(shared)}
        numbers = [c for c in own.columns if c not in ("forecaster", "assets")]
        line |= own[numbers].mean().to_dict()
        if name != reference and len(shared) > 2:
            line |= tested(own, benchmark)
        lines.append(line)
    return pd.DataFrame(lines)


def tested(own: pd.DataFrame, benchmark: pd.DataFrame) -> dict[str, float]:
    """Statistics and two-sided p-values by loss: one step ahead, so differences are taken as
    uncorrelated over time; assets of a period are one case."""
    losses = [name for name in LOSSES if own[name].notna().any() and benchmark[name].notna().any()]
    result = diebold_mariano(own[losses].to_numpy(), benchmark[losses].to_numpy())
    found: dict[str, float] = {}
    for place, name in enumerate(losses):
        found[f"DM {name}"] = float(result.statistic[place])
        found[f"p {name}"] = float(result.p_value[place])
    return found
