"""The M6 model and its variants as forecasters, by full sampling and by the approximate path."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.m6_baselines import Forecaster, Law, asset_names
from jaxfc.bayes.factor_scales import ConstantScale, StochasticScale
from jaxfc.bayes.loading_priors import FixedScale
from jaxfc.bayes.m6 import M6Model, long_paths
from jaxfc.bayes.past_weights import LinearRamp
from jaxfc.bayes.variational import MeanFieldNormal
from jaxfc.forecast import SampleForecast
from jaxfc.panel import Panel
from jaxfc.typing import PRNGKeyArray

# By name, what differs from the default: learnt scales of the loadings, factor volatility from the
# market's recent one, the past down-weighted linearly beyond five years.
VARIANTS: dict[str, dict[str, object]] = {
    "M6": {},
    "M6 constant volatility": {"factor_scale": ConstantScale()},
    "M6 stochastic volatility": {"factor_scale": StochasticScale()},
    "M6 deck": {"loading_prior": FixedScale(), "factor_scale": ConstantScale()},
    "M6 one factor": {"num_factors": 1},
}
SAMPLED = ("M6", "M6 deck")
RAMP = 65  # periods that count in full, as the deck's weights of 2005 say


def m6_model(classes: Mapping[str, str], name: str, num_draws: int, *, sampled: bool) -> M6Model:
    """A variant for these assets: 4 x 1000 draws, or 2000 of the nearest independent normal law,
    each with as many futures as make `num_draws`."""
    if sampled:
        inference, count = long_paths(), 4000
    else:
        inference, count = MeanFieldNormal(num_draws=2000, max_pareto_k=jnp.inf), 2000
    replicates = max(1, num_draws // count)
    return M6Model(
        classes,
        past=LinearRamp(float(RAMP)),
        inference=inference,
        num_replicates=replicates,
        **VARIANTS[name],  # pyright: ignore[reportArgumentType]
    )


def of_m6(
    classes: Mapping[str, str], name: str, window: int, num_draws: int, *, sampled: bool
) -> Forecaster:
    """The variant on the last `window` rows of a panel, with its features.

    Windows of one length compile once for each set of assets.
    """

    def forecaster(panel: Panel, key: PRNGKeyArray) -> Law:
        names = asset_names(panel)
        own = {asset: classes[asset] for asset in names}
        model = m6_model(own, name, num_draws, sampled=sampled)
        fit_key, draw_key = jax.random.split(key)
        rows = panel.window(max(0, panel.num_times - window), None)
        fitted = model.fit(rows, key=fit_key, throw=False)
        law = fitted.forecast(1, key=draw_key)
        assert isinstance(law, SampleForecast)
        details = {name: float(value) for name, value in fitted.details().items()}
        return Law(np.asarray(law.draws[:, 0]), details=details)

    return forecaster


def m6_forecasters(
    classes: Mapping[str, str], window: int, num_draws: int
) -> dict[str, Forecaster]:
    """All variants by the approximate path, and the sampled ones after them."""
    found: dict[str, Forecaster] = {}
    for name in VARIANTS:
        found[name] = of_m6(classes, name, window, num_draws, sampled=False)
    for name in SAMPLED:
        found[f"{name}, sampled"] = of_m6(classes, name, window, num_draws, sampled=True)
    return found
