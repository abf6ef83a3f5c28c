"""Forecasts of the next period's returns that a Bayesian factor model has to beat.

A forecaster is a function of a panel up to the origin (`Assets.panel`; features are not read here)
and a key. Second moments are about zero: means of returns are hardly forecastable, and ranks punish
a wrong one.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.asset_features import EARNINGS_AHEAD, RECENT_RETURN, RECENT_VOLATILITY
from jaxfc.compose import FactorDCC
from jaxfc.factors import DynamicFactorModel
from jaxfc.forecast import SampleForecast
from jaxfc.model import Model
from jaxfc.panel import Panel
from jaxfc.typing import Array, PRNGKeyArray
from jaxfc.volatility import (
    CompositeLikelihood,
    CorrelationModel,
    Target,
    VarianceModel,
    ZeroMean,
)

FEATURES = (RECENT_RETURN, RECENT_VOLATILITY, EARNINGS_AHEAD)
DETAILS = ("max_rhat", "min_bulk_ess", "num_divergent", "pareto_k")
LEAST_OWN = 0.05  # of a variance: no asset is a combination of factors alone
DECAY, OFF_DIAGONAL = 0.97, 0.7  # RiskMetrics' for months; share kept of the correlations
YOUNG = 30  # returns below which no variance process is estimated


@dataclasses.dataclass(frozen=True)
class Law:
    """Draws (draws, assets) of simple returns; the mean and covariance where the law is normal;
    `details` of how the draws were made, by name (of `DETAILS`)."""

    draws: np.ndarray
    mean: np.ndarray | None = None
    cov: np.ndarray | None = None
    details: dict[str, float] = dataclasses.field(default_factory=dict)

    def noted(self) -> dict[str, float]:
        """All details, NaN for what does not apply."""
        return {name: self.details.get(name, np.nan) for name in DETAILS}


Forecaster = Callable[[Panel, PRNGKeyArray], Law]


def asset_names(panel: Panel) -> list[str]:
    """The series of a panel that are returns."""
    return [name for name in panel.names if not name.endswith(FEATURES)]


def past_returns(panel: Panel, window: int) -> np.ndarray:
    """The last rows of the returns, NaN where not observed."""
    return panel.select(asset_names(panel)).to_frame().to_numpy()[-window:]


def normal_law(cov: np.ndarray, num_draws: int, key: PRNGKeyArray) -> Law:
    """N(0, cov), every draw with its opposite: how often the draws of a common factor are positive
    would otherwise be most of the noise of a rank score."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    half = np.asarray(jax.random.normal(key, ((num_draws + 1) // 2, len(cov)))) @ root.T
    return Law(np.concatenate([half, -half])[:num_draws], np.zeros(len(cov)), cov)


def second_moments(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares over what is observed, and correlations about zero.

    A product that is not observed counts as zero: correlations of late listings are shrunk, and
    the matrix is never indefinite.
    """
    known = np.isfinite(rows)
    values = np.where(known, rows, 0.0)
    scale = np.sqrt(weights @ values**2 / (weights @ known))
    units = values / scale * np.sqrt(weights)[:, None]
    products = units.T @ units
    size = np.sqrt(np.diag(products))
    return scale, products / size / size[:, None]


def independent_cov(rows: np.ndarray) -> np.ndarray:
    """Variances alone."""
    return np.diag(second_moments(rows, np.ones(len(rows)))[0] ** 2)


def ewma_cov(rows: np.ndarray) -> np.ndarray:
    """Exponentially weighted; correlations shrunk by a fixed share, so that it can be inverted."""
    age = np.arange(len(rows))[::-1]
    scale, corr = second_moments(rows, DECAY**age)
    corr = np.where(np.eye(len(corr), dtype=bool), 1.0, OFF_DIAGONAL * corr)
    return scale * corr * scale[:, None]


def pca_cov(rows: np.ndarray, num_factors: int) -> np.ndarray:
    """L L' + diag(own): L from the first eigenvectors of the moments of raw returns by pairs."""
    known = np.isfinite(rows)
    values, counted = np.where(known, rows, 0.0), known.astype(float)
    together = counted.T @ counted
    moments = np.where(together > 0.0, values.T @ values / np.maximum(together, 1.0), 0.0)
    eigenvalues, vectors = np.linalg.eigh(moments)
    loadings = vectors[:, -num_factors:] * np.sqrt(np.maximum(eigenvalues[-num_factors:], 0.0))
    total = np.diag(moments)
    own = np.maximum(total - np.sum(loadings**2, axis=1), LEAST_OWN * total)
    return loadings @ loadings.T + np.diag(own)


def ledoit_wolf_cov(rows: np.ndarray) -> np.ndarray:
    """Correlations shrunk towards zero as Ledoit and Wolf (2004) have it, their target diagonal."""
    scale, corr = second_moments(rows, np.ones(len(rows)))
    units = np.where(np.isfinite(rows), rows, 0.0) / scale
    number, size = units.shape
    distance = np.sum((corr - np.eye(size)) ** 2)
    noise = np.sum((units**2).T @ units**2 / number - corr**2) / number
    kept = 1.0 - np.clip(noise / distance, 0.0, 1.0)
    return scale * (kept * corr + (1.0 - kept) * np.eye(size)) * scale[:, None]


def covariance(make: Callable[[np.ndarray], np.ndarray], window: int, num_draws: int) -> Forecaster:
    """The normal law of a covariance of the last `window` returns."""

    def forecaster(panel: Panel, key: PRNGKeyArray) -> Law:
        return normal_law(make(past_returns(panel, window)), num_draws, key)

    return forecaster


def bootstrap(window: int, num_draws: int) -> Forecaster:
    """Whole past periods, drawn again; a missing return is another one of the asset."""

    def forecaster(panel: Panel, key: PRNGKeyArray) -> Law:
        rows = past_returns(panel, window)
        row_key, own_key = jax.random.split(key)
        draws = rows[np.asarray(jax.random.randint(row_key, (num_draws,), 0, len(rows)))]
        places = np.asarray(jax.random.uniform(own_key, draws.shape))
        for asset in range(draws.shape[1]):
            column, own = draws[:, asset], rows[:, asset]
            own = own[np.isfinite(own)]
            other = own[(places[:, asset] * len(own)).astype(int)]
            draws[:, asset] = np.where(np.isfinite(column), column, other)
        return Law(draws)

    return forecaster


def of_model(model: Model, window: int, num_draws: int, *, by_moments: bool) -> Forecaster:
    """A model of the package on the returns alone: by its moments, as a normal law, or by draws."""

    def forecaster(panel: Panel, key: PRNGKeyArray) -> Law:
        returns = panel.select(asset_names(panel)).window(max(0, panel.num_times - window), None)
        fitted = model.fit(returns, throw=False)
        if not by_moments:
            law = fitted.forecast(1, key=key)
            assert isinstance(law, SampleForecast)
            return Law(np.asarray(law.draws[:, 0]))
        law = fitted.forecast(1)
        mean, cov = np.asarray(law.mean[0]), np.asarray(law.cov[0, :, 0])
        centred = normal_law(cov, num_draws, key)
        return Law(centred.draws + mean, mean, cov)

    return forecaster


class ShrunkMoments(Target):
    """Correlations about zero, a product that is not observed counted as zero, `OFF_DIAGONAL` of
    them kept: never indefinite, where moments by pairs of late listings are."""

    def corr(self, residuals: Array, observed: Array, weights: Array | None = None) -> Array:
        """As `second_moments` and `ewma_cov` have it."""
        known = jnp.where(observed, residuals, 0.0)
        products = known.T @ (known if weights is None else weights[:, None] * known)
        size = jnp.sqrt(jnp.diagonal(products))
        corr = OFF_DIAGONAL * products / size / size[:, None]
        return jnp.where(jnp.eye(len(corr), dtype=bool), 1.0, corr)


def with_young(forecaster: Forecaster, window: int, num_draws: int) -> Forecaster:
    """A normal law that leaves assets with fewer than `YOUNG` returns to their own variance."""

    def forecast(panel: Panel, key: PRNGKeyArray) -> Law:
        names, rows = np.array(asset_names(panel)), past_returns(panel, window)
        old = np.isfinite(rows).sum(axis=0) >= YOUNG
        if old.all():
            return forecaster(panel, key)
        law = forecaster(panel.select(list(names[old])), key)
        assert law.cov is not None and law.mean is not None
        mean, cov = np.zeros(len(names)), independent_cov(rows)
        mean[old], cov[np.ix_(old, old)] = law.mean, law.cov
        centred = normal_law(cov, num_draws, key)
        return Law(centred.draws + mean, mean, cov)

    return forecast


def without_mean() -> VarianceModel:
    """GARCH(1, 1) around zero."""
    return VarianceModel(mean=ZeroMean())


def baselines(num_draws: int, window: int = 60, long_window: int = 120) -> dict[str, Forecaster]:
    """By name, all of them: the cheap ones first."""
    of_rows = {
        "independent": (independent_cov, window),
        "EWMA": (ewma_cov, long_window),
        **{f"PCA-{k}": (functools.partial(pca_cov, num_factors=k), window) for k in (1, 3, 7)},
        "Ledoit-Wolf": (ledoit_wolf_cov, window),
    }
    dcc = CorrelationModel(
        margins=without_mean(), target=ShrunkMoments(), likelihood=CompositeLikelihood()
    )
    models = {
        "ADFM": DynamicFactorModel(num_factors=3, num_lags=1),
        "factor DCC": FactorDCC(
            DynamicFactorModel(num_factors=3, num_lags=0),
            CorrelationModel(margins=without_mean()),
            idiosyncratic=without_mean(),
        ),
        "DCC": dcc,
    }
    found: dict[str, Forecaster] = {
        "bootstrap": bootstrap(long_window, num_draws),
        **{name: covariance(make, rows, num_draws) for name, (make, rows) in of_rows.items()},
    }
    for name, model in models.items():
        made = of_model(model, long_window, num_draws, by_moments=True)
        found[name] = with_young(made, long_window, num_draws) if "DCC" in name else made
    return found


def key_of(seed: int, name: str, origin: int) -> PRNGKeyArray:
    """A key for a forecaster at an origin that does not depend on which others run."""
    own = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()) % 2**31)
    return jax.random.fold_in(own, origin)
