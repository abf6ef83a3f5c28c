"""A forecast whose joint draws carry weights: what views leave of a forecast made of draws."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, Levels, SampleForecast
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar


class VIEW_RESULTS(eqx.Enumeration):
    """What became of views: the members are the messages."""

    successful = ""
    few_draws_left = (
        "The views leave too few of the draws to stand for a law. Refit with the views in the "
        "likelihood (ViewedProgram), make their standard deviations wider, or draw more."
    )
    not_solved = (
        "No weights on the draws have the stated moments: the views cannot hold together, or they "
        "lie outside all draws. Widen them, or refit with them in the likelihood (ViewedProgram)."
    )


class Verdict(eqx.Module):
    """What views said about the forecast they changed: see `with_views`."""

    log_odds: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    result: VIEW_RESULTS = eqx.field(default_factory=lambda: VIEW_RESULTS.successful)


class WeightedForecast(Forecast):
    """The law that gives draw d the probability `weights[d]`; the weights sum to one.

    Covariances divide by 1 - sum w^2, which is (n - 1) / n for equal weights: they are then those
    of `SampleForecast`. Quantiles are the smallest draws whose cumulated weight reaches the level
    (no interpolation, so that draws of no weight have no say).
    """

    draws: Float[Array, "draws horizon series"]
    weights: Float[Array, " draws"]
    verdict: Verdict

    def __init__(
        self,
        draws: Float[Array, "draws horizon series"],
        weights: Float[Array, " draws"],
        verdict: Verdict | None = None,
    ):
        self.draws = draws
        self.weights = weights
        self.verdict = Verdict() if verdict is None else verdict

    def __check_init__(self):
        if self.draws.shape[0] < 2:
            raise ValueError(f"a forecast needs at least 2 draws, got {self.draws.shape[0]}.")

    @property
    def kept(self) -> Float[Array, ""]:
        """The effective fraction of the draws, (sum w)^2 / (n sum w^2) (Kish 1965)."""
        return 1.0 / (self.draws.shape[0] * jnp.sum(self.weights**2))

    @property
    def mean(self) -> Float[Array, "horizon series"]:  # pyright: ignore
        return jnp.einsum("d,dhi->hi", self.weights, self.draws)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        centred = self.draws - self.mean
        products = jnp.einsum("d,dhi,dkj->hikj", self.weights, centred, centred)
        return products / (1.0 - jnp.sum(self.weights**2))

    @property
    def std(self) -> Float[Array, "horizon series"]:
        squares = jnp.einsum("d,dhi->hi", self.weights, (self.draws - self.mean) ** 2)
        return jnp.sqrt(squares / (1.0 - jnp.sum(self.weights**2)))

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        levels = jnp.asarray(q, dtype=self.draws.dtype)
        order = jnp.argsort(self.draws, axis=0)
        ordered = jnp.take_along_axis(self.draws, order, axis=0)
        cumulated = jnp.cumsum(self.weights[order], axis=0)
        cumulated = cumulated / cumulated[-1]

        def at(values: Array, reached: Array) -> Array:
            places = jnp.searchsorted(reached, levels.reshape(-1))
            return values[jnp.minimum(places, values.shape[0] - 1)]

        over_series = jax.vmap(jax.vmap(at, (1, 1), 1), (1, 1), 1)
        found = over_series(ordered, cumulated)
        return found.reshape(*levels.shape, *found.shape[1:])

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        """Independent draws (multinomial)."""
        return self.draws[jax.random.choice(key, self.weights.size, (num_draws,), p=self.weights)]

    def resampled(self, num_draws: int | None = None, *, key: PRNGKeyArray) -> SampleForecast:
        """As equally weighted draws, for all that takes a `SampleForecast`.

        Systematic resampling: draw d appears n w_d times, rounded up or down, so that means are
        less noisy than of independent draws (Kitagawa 1996). `num_draws`: as many as there are.
        """
        count = self.weights.size if num_draws is None else num_draws
        places = (jnp.arange(count) + jax.random.uniform(key, dtype=self.weights.dtype)) / count
        reached = jnp.cumsum(self.weights)
        picked = jnp.searchsorted(reached / reached[-1], places, side="right")
        return SampleForecast(self.draws[jnp.minimum(picked, self.weights.size - 1)])

    def cumulative(self) -> "WeightedForecast":
        return self.of(jnp.cumsum(self.draws, axis=1))

    def aggregate(self, weights: Float[Array, "out series"]) -> "WeightedForecast":
        return self.of(self.draws @ weights.T)

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "WeightedForecast":
        return self.of(scale * self.draws + shift)

    def of(self, draws: Float[Array, "draws horizon out"]) -> "WeightedForecast":
        """The same weights on other draws: a function of each draw."""
        return WeightedForecast(draws, self.weights, self.verdict)
