"""Does recursion help on real data? Covariances of 20 stocks, one day ahead.

    python -m experiments.recursion_covariances [--quick] [--seeds N] [--steps N] [--out FOLDER]

The folds, days and training of `recursion_real`, and scores of the joint normal law of all stocks,
in nats per asset and day. A network refines the standard deviations of its anchor and has loadings
of three factors as its correlations, every day anew (`LowRankHead`). Beside them: the same standard
deviations with the correlations of the training days, an exponentially weighted covariance whose
half-life has the smallest loss on the training days, and a DCC on GARCH variances.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.scipy.stats import multivariate_normal

from experiments.recursion_models import HALF_LIVES, Anchor, Contender, DecayingOnceNet
from experiments.recursion_real import (
    QUICK,
    RECURSION,
    Config,
    Losses,
    folds_of,
    networks_found,
    settings,
    simple_laws,
    stacked,
    variance_model,
)
from experiments.recursion_real_answers import write_real_tables
from jaxfc.recursive import DecayingNet, LowRankHead
from jaxfc.typing import Array, Float
from jaxfc.volatility import GARCH, CorrelationModel

HEAD = LowRankHead(3)
# Widths give about 14,300 numbers each with five outputs a stock.
RECURRENCE, ONCE = DecayingNet(53), DecayingOnceNet(24)
NETWORKS = {
    "GARCH anchor, recursion": Contender(RECURSION, "GARCH", HEAD),
    "GARCH anchor, net once": Contender(ONCE, "GARCH", HEAD),
    "GARCH anchor, recurrence": Contender(RECURRENCE, "GARCH", HEAD),
    "EWMA anchor, recursion": Contender(RECURSION, "EWMA", HEAD),
    "EWMA anchor, net once": Contender(ONCE, "EWMA", HEAD),
    "EWMA anchor, recurrence": Contender(RECURRENCE, "EWMA", HEAD),
    "recurrence, recursion": Contender(RECURSION, "constant", HEAD),
    "recurrence": Contender(RECURRENCE, "constant", HEAD),
}
REFERENCE = "GARCH, DCC"
PAIRS = (
    *(
        (f"{anchor} anchor, recursion", f"{anchor} anchor, {rival}")
        for rival in ("net once", "recurrence")
        for anchor in ("GARCH", "EWMA")
    ),
    ("recurrence, recursion", "recurrence"),
    *(
        (f"GARCH anchor, {kind}", rival)
        for kind in ("recursion", "recurrence")
        for rival in ("GARCH, constant correlations", REFERENCE, "EWMA covariance")
    ),
    (REFERENCE, "EWMA covariance"),
    (REFERENCE, "GARCH, constant correlations"),
)


def joint_loss(errors: Float[Array, " series"], cov: Float[Array, "series series"]) -> Array:
    """-ln N(errors; 0, cov) per series."""
    return -multivariate_normal.logpdf(errors, jnp.zeros_like(errors), cov) / len(errors)


def constant_corr_losses(
    values: Float[Array, "time series"], law: Anchor, first: int, split: int
) -> Float[Array, " time"]:
    """The anchor's moments with the correlations of its standardised errors on the days from
    `first` to `split`."""
    errors = (values - law.means) / law.stds
    corr = jnp.corrcoef(errors[first:split].T)
    losses = jax.vmap(joint_loss, in_axes=(0, None))(errors, corr)
    return losses + jnp.mean(jnp.log(law.stds), axis=1)


def weighted_cov_losses(
    values: Float[Array, "time series"], first: int, split: int
) -> Float[Array, " time"]:
    """Exponentially weighted covariances (RiskMetrics, J.P. Morgan 1996), which start from that of
    the training days."""
    errors = values - jnp.mean(values[first:split], axis=0)
    start = errors[first:split].T @ errors[first:split] / (split - first)

    def losses(half_life: Array) -> Array:
        decay = 0.5 ** (1.0 / half_life)

        def one_day(cov: Array, error: Array) -> tuple[Array, Array]:
            return decay * cov + (1.0 - decay) * jnp.outer(error, error), joint_loss(error, cov)

        return jax.lax.scan(one_day, start, errors)[1]

    found = jax.lax.map(losses, jnp.asarray(HALF_LIVES, values.dtype))
    # Short half-lives leave matrices that no day can be scored with.
    score = jnp.mean(found[:, first:split], axis=1)
    return found[jnp.argmin(jnp.where(jnp.isfinite(score), score, jnp.inf))]


def dcc_losses(
    values: Float[Array, "time series"], first: int, split: int
) -> Float[Array, " time"]:
    """DCC(1, 1) on GARCH(1, 1), both estimated on the training days."""
    errors = values - jnp.mean(values[first:split], axis=0)
    seen = jnp.ones(errors.shape, bool)
    model = CorrelationModel(margins=variance_model(GARCH()))
    fitted = model.estimate(errors[first:split], seen[first:split]).given(errors, seen)
    return jax.vmap(joint_loss)(errors, fitted.covs[:-1])


def simple_joint_losses(
    values: Float[Array, "time series"], first: int, split: int, test_size: int
) -> tuple[dict[str, Array], dict[str, Anchor]]:
    """Losses of the test days of what has no network, and the anchors of the networks."""
    laws = simple_laws(values, first, split)
    found = {
        f"{name}, constant correlations": constant_corr_losses(values, laws[name], first, split)
        for name in ("constant", "EWMA", "GARCH", "asymmetric GARCH")
    }
    found["EWMA covariance"] = weighted_cov_losses(values, first, split)
    found[REFERENCE] = dcc_losses(values, first, split)
    return {name: losses[-test_size:] for name, losses in found.items()}, laws


def run(config: Config) -> pd.DataFrame:
    """Losses of all models in `daily/`; `table.csv`, `pairs.csv` and `answers.md` from them."""
    folder, folds = Path(config.out), folds_of(config)
    values, dates = stacked(folds)
    simple = jax.jit(
        partial(
            simple_joint_losses, first=config.past, split=config.split, test_size=config.test_size
        )
    )
    losses, laws = jax.tree.map(lambda *parts: jnp.stack(parts), *(simple(rows) for rows in values))
    found = {name: Losses(np.asarray(own).reshape(1, -1), 0) for name, own in losses.items()}
    found |= networks_found(NETWORKS, values, laws, config, folder)
    return write_real_tables(
        folder,
        found,
        dates,
        len(folds),
        title="Covariances of stocks, one day ahead",
        reference=REFERENCE,
        tested=PAIRS,
    )


FULL = Config(models=tuple(NETWORKS), out="recursion_covariances")


def main() -> None:
    """Read the command line and run."""
    run(settings(__doc__, FULL, dataclasses.replace(QUICK, out=FULL.out)))


if __name__ == "__main__":
    main()
