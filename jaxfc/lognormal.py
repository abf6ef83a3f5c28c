"""The law of exponentials of Gaussian forecasts: log-normal moments, exactly."""

from typing import final

import jax.numpy as jnp
from jax.scipy.special import ndtri

from jaxfc.forecast import FactorForecast, Forecast, GaussianForecast, Levels, SampleForecast
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


@final
class ExponentialForecast(Forecast):
    """y = shift + scale * exp(x) for the `exponentiated` series, shift + scale * x for the others.

    `log` is the Gaussian law of x ~ N(m, C), jointly over (horizon, series). With a, b entries of
    (horizon, series) and e_a = E exp(x_a) = exp(m_a + C_aa / 2):

        Cov(exp x_a, exp x_b) = e_a e_b (exp(C_ab) - 1),     Cov(exp x_a, x_b) = e_a C_ab

    (Aitchison and Brown 1957; Stein's lemma). Sums of log-normals have no law of this form:
    `cumulative` and `aggregate` refuse; `as_draws` gives a law that has them.
    """

    log: Forecast
    exponentiated: Bool[Array, " series"]
    scale: Float[Array, " series"]
    shift: Float[Array, "horizon series"]

    def __init__(
        self,
        log: Forecast,
        exponentiated: Bool[Array, " series"],
        scale: Float[Array, " series"] | None = None,
        shift: Float[Array, "horizon series"] | None = None,
    ):
        if not isinstance(log, GaussianForecast | FactorForecast):
            raise TypeError(
                f"log-normal moments need a Gaussian law of the logarithm, got "
                f"{type(log).__name__}; exponentiate draws as draws (see exponentiate)."
            )
        mean = log.mean
        if exponentiated.shape != mean.shape[1:]:
            raise ValueError(
                f"exponentiated has shape {exponentiated.shape} for {mean.shape[1]} series."
            )
        self.log = log
        self.exponentiated = exponentiated
        self.scale = jnp.ones(mean.shape[1], mean.dtype) if scale is None else scale
        self.shift = jnp.zeros_like(mean) if shift is None else shift

    @property
    def slope(self) -> Float[Array, "horizon series"]:
        """E dy/dx: scale * E exp(x), or scale; a covariance with x is multiplied by it."""
        expected = jnp.exp(jnp.where(self.exponentiated, self.log.mean + 0.5 * self.log.std**2, 0))
        return self.scale * expected

    @property
    def mean(self) -> Float[Array, "horizon series"]:  # pyright: ignore
        plain = self.scale * self.log.mean
        return self.shift + jnp.where(self.exponentiated, self.slope, plain)

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        cov, slope = self.log.cov, self.slope
        both = self.exponentiated[:, None, None] & self.exponentiated
        core = jnp.where(both, jnp.expm1(jnp.where(both, cov, 0)), cov)
        return slope[:, :, None, None] * core * slope

    @property
    def std(self) -> Float[Array, "horizon series"]:
        std = self.log.std
        own = jnp.sqrt(jnp.expm1(jnp.where(self.exponentiated, std**2, 0)))
        return jnp.abs(self.slope) * jnp.where(self.exponentiated, own, std)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        levels = jnp.asarray(q, dtype=self.log.mean.dtype)
        normal = ndtri(levels).reshape((*levels.shape, 1, 1)) * jnp.sign(self.scale)
        return self.onward(self.log.mean + self.log.std * normal)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        return self.onward(self.log.sample(num_draws, key=key))

    def onward(self, x: Float[Array, "... horizon series"]) -> Float[Array, "... horizon series"]:
        """y of x."""
        grown = jnp.exp(jnp.where(self.exponentiated, x, 0))
        return self.shift + self.scale * jnp.where(self.exponentiated, grown, x)

    def as_draws(self, num_draws: int, *, key: PRNGKeyArray) -> SampleForecast:
        """This law as draws, which can be summed over horizons and series."""
        return SampleForecast(self.sample(num_draws, key=key))  # pyright: ignore[reportCallIssue]

    def cumulative(self) -> Forecast:
        raise ValueError(
            "a running sum of log-normals is not log-normal; take draws first: "
            "forecast.as_draws(num_draws, key=key).cumulative()."
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> Forecast:
        raise ValueError(
            "a linear combination of log-normals is not log-normal; take draws first: "
            "forecast.as_draws(num_draws, key=key).aggregate(weights). One series is "
            "forecast.marginal(index)."
        )

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "ExponentialForecast":
        return ExponentialForecast(
            self.log, self.exponentiated, scale * self.scale, scale * self.shift + shift
        )

    def marginal(self, index: int) -> "ExponentialForecast":
        log = self.log.marginal(index)
        own = jnp.array([index % self.exponentiated.shape[0]])
        return ExponentialForecast(
            log, self.exponentiated[own], self.scale[own], self.shift[:, own]
        )


def exponentiate(forecast: Forecast, exponentiated: Bool[Array, " series"]) -> Forecast:
    """The law of exp(x) for the `exponentiated` series of x: log-normal moments, or draws."""
    if isinstance(forecast, SampleForecast):
        grown = jnp.exp(jnp.where(exponentiated, forecast.draws, 0))
        return SampleForecast(jnp.where(exponentiated, grown, forecast.draws))  # pyright: ignore[reportCallIssue]
    return ExponentialForecast(forecast, exponentiated)
