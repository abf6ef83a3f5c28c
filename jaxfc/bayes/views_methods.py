"""What a view does to a forecast: three conventions, for draws and for Gaussian laws.

Views with a standard deviation say something about A r, one row of A a view. For a Gaussian law
r ~ N(mu, V) and S = diag(sd^2), all three agree on the mean, and the first is exact conditioning:

    mean = mu + V A' (A V A' + S)^{-1} (m - A mu)
    cov  = V - V A' (A V A' + S)^{-1} A V              (`ReturnDensity`; `EntropyPooling`: V)
    log-odds = -1/2 (m - A mu)' (A V A' + S)^{-1} (m - A mu)

The log-odds are the log density that the forecast gives to the views, minus what it gives to views
that say just what the forecast does.
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import gammaln

from jaxfc.bayes.pareto import pareto_smoothed
from jaxfc.bayes.views_pooling import pooled_weights
from jaxfc.bayes.views_statements import Statements
from jaxfc.forecast import GaussianForecast
from jaxfc.typing import Array, Bool, Float, as_scalar
from jaxfc_kernels.constants import LOG_2PI

NO_DRAWS_EXPECT = (
    "a Gaussian forecast does not say what each draw of its parameters expects; use "
    "ReturnDensity(), or a forecast made of draws."
)


class Tilt(NamedTuple):
    """Weights on draws, the log-odds of the views, and whether the weights do what they should."""

    weights: Float[Array, " draws"]
    log_odds: Float[Array, ""]
    solved: Bool[Array, ""]


class ViewMethod(eqx.Module):
    """A convention of what a view means."""

    @abc.abstractmethod
    def tilt(
        self,
        draws: Float[Array, "draws horizon series"],
        weights: Float[Array, " draws"],
        views: Statements,
    ) -> Tilt:
        """Weights of the draws given the views, from their weights without them: pure."""

    @abc.abstractmethod
    def condition(self, forecast: GaussianForecast, views: Statements) -> GaussianForecast:
        """The exact answer for a Gaussian law: pure."""

    @abc.abstractmethod
    def check(self, views: Statements, num_draws: int | None) -> None:
        """Raise `ValueError` for views that this method cannot take (host side)."""


class ReturnDensity(ViewMethod):
    """A view is a second opinion on the return itself: forecast times normal density.

        p(r | views) ~ p(r) prod_k N(m_k; a_k'r, sd_k^2)

    The spread of the return shrinks with the view: with `sd` zero the return would be known.
    `smooth`: the largest weights are those of their Pareto law (`pareto_smoothed`), which trades a
    little bias for fewer draws that carry everything.
    """

    smooth: bool = eqx.field(static=True, default=False)

    def tilt(
        self,
        draws: Float[Array, "draws horizon series"],
        weights: Float[Array, " draws"],
        views: Statements,
    ) -> Tilt:
        said = jnp.einsum("khi,dhi->dk", views.directions, draws)
        log_densities = -0.5 * ((views.means - said) / views.sds) ** 2
        return density_tilt(said, weights, log_densities, views, self.smooth)

    def condition(self, forecast: GaussianForecast, views: Statements) -> GaussianForecast:
        law = ViewedMoments.of(forecast, views)
        mean = forecast.mean + jnp.tensordot(law.gain, law.surprise, 1)
        change = jnp.einsum("hik,kmj->himj", law.gain, law.cross)
        cov = forecast.cov - 0.5 * (change + jnp.transpose(change, (2, 3, 0, 1)))
        return GaussianForecast(mean, cov)

    def check(self, views: Statements, num_draws: int | None) -> None:
        check_densities(type(self).__name__, views)


class ExpectedReturn(ViewMethod):
    """A view is an observation of the expected return, with Student noise.

        p(draw | views) ~ p(draw) prod_k t_nu((m_k - a_k'mu_draw) / sd_k),  mu_draw = E[r | draw]

    the convention of the M6 winner's model: only what the parameters and states of a draw expect is
    judged, so the noise of the return stays, and a tiny `sd` pins an expectation. As in the
    likelihood (`ViewedProgram`), without sampling again.

    **Arguments:** `expected`: E[r | draw] of the draws of the forecast; `degrees` nu: one number,
    or such that it broadcasts to (draws, views); infinite: normal.
    """

    expected: Float[Array, "draws horizon series"]
    degrees: Float[Array, "..."] = eqx.field(converter=jnp.asarray, default=jnp.inf)
    smooth: bool = eqx.field(static=True, default=False)

    def tilt(
        self,
        draws: Float[Array, "draws horizon series"],
        weights: Float[Array, " draws"],
        views: Statements,
    ) -> Tilt:
        said = jnp.einsum("khi,dhi->dk", views.directions, self.expected)
        log_densities = student_log_density((views.means - said) / views.sds, self.degrees)
        log_densities = jnp.where(jnp.isfinite(views.sds), log_densities, 0.0)  # no view
        return density_tilt(said, weights, log_densities, views, self.smooth)

    def condition(self, forecast: GaussianForecast, views: Statements) -> GaussianForecast:
        raise ValueError(NO_DRAWS_EXPECT)

    def check(self, views: Statements, num_draws: int | None) -> None:
        check_densities(type(self).__name__, views)
        if num_draws is None:
            raise ValueError(NO_DRAWS_EXPECT)
        if self.expected.shape[0] != num_draws:
            raise ValueError(
                f"{self.expected.shape[0]} expected returns for {num_draws} draws; give "
                "E[r | draw] of each draw, repeated where a draw has several futures."
            )
        shape = views.directions.shape[1:]
        if self.expected.shape[1:] != shape:
            raise ValueError(
                f"expected returns (draws, horizon, series) end in {self.expected.shape[1:]}, the "
                f"forecast has {shape}."
            )
        check_degrees(self.degrees, (num_draws, len(views.sds)))


class EntropyPooling(ViewMethod):
    """The law nearest to the forecast that has the stated moments (Meucci 2008).

        min_q KL(q | p) + sum_k (E_q a_k'r - m_k)^2 / (2 sd_k^2)

    under the stated probabilities and spreads. A view with `sd` zero is exact. Only moments that
    are spoken of are constrained (a spread without mean speaks of the forecast's mean): a view on a
    mean leaves a Gaussian covariance as it is. The log-odds are minus the minimum, which is the
    formula above for a Gaussian law and views on means. Solved in the dual, with one multiplier a
    view, in `max_steps` Levenberg-Marquardt steps at most.
    """

    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-9)
    max_steps: int = eqx.field(static=True, default=200)

    def tilt(
        self,
        draws: Float[Array, "draws horizon series"],
        weights: Float[Array, " draws"],
        views: Statements,
    ) -> Tilt:
        tilted, minimum, solved = pooled_weights(
            draws, weights, views, tolerance=self.tolerance, max_steps=self.max_steps
        )
        return Tilt(tilted, -minimum, solved)

    def condition(self, forecast: GaussianForecast, views: Statements) -> GaussianForecast:
        law = ViewedMoments.of(forecast, views)
        return GaussianForecast(
            forecast.mean + jnp.tensordot(law.gain, law.surprise, 1), forecast.cov
        )

    def check(self, views: Statements, num_draws: int | None) -> None:
        if num_draws is None:
            if views.num_laws:
                raise ValueError(
                    "views on probabilities, quantiles and spreads need draws; pass "
                    "SampleForecast(forecast.sample(num_draws, key=key))."
                )
            check_densities("a Gaussian forecast", views)


def check_densities(what: str, views: Statements) -> None:
    """Refuse what has no density: probabilities, spreads, and exact statements."""
    if views.num_laws:
        raise ValueError(
            f"{what} takes views on returns; for probabilities, quantiles and spreads use "
            "method=EntropyPooling()."
        )
    if bool(jnp.any(views.sds == 0.0)):
        raise ValueError(
            f"{what} needs views with sd > 0; make it small, or use EntropyPooling() on draws."
        )


def check_degrees(degrees: Float[Array, "..."], shape: tuple[int, ...]) -> None:
    """Refuse degrees of freedom that do not broadcast to `shape`, and known ones that are not
    positive."""
    if not fits(degrees.shape, shape):
        raise ValueError(
            f"degrees have shape {degrees.shape}; give one number, or such that it broadcasts to "
            f"{shape}."
        )
    if not isinstance(degrees, Tracer) and not np.all(np.asarray(degrees) > 0.0):
        raise ValueError(f"degrees must be positive (inf: normal), got {degrees.tolist()}.")


def fits(shape: tuple[int, ...], larger: tuple[int, ...]) -> bool:
    """Whether an array of `shape` broadcasts to `larger` without growing it."""
    try:
        return np.broadcast_shapes(shape, larger) == larger
    except ValueError:
        return False


def student_log_density(
    z: Float[Array, "*draws views"], degrees: Float[Array, "..."]
) -> Float[Array, "*draws views"]:
    """ln t_nu(z); the normal one for infinite degrees. Degrees may differ by draw, so that their
    normaliser counts."""
    finite = jnp.isfinite(degrees)
    nu = jnp.where(finite, degrees, 1.0)
    student = gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu) - 0.5 * jnp.log(nu * jnp.pi)
    student = student - 0.5 * (nu + 1.0) * jnp.log1p(z**2 / nu)
    return jnp.where(finite, student, -0.5 * (z**2 + LOG_2PI))


def density_tilt(
    said: Float[Array, "draws views"],
    weights: Float[Array, " draws"],
    log_densities: Float[Array, "draws views"],
    views: Statements,
    smooth: bool,
) -> Tilt:
    """Weights times the densities of the views; log-odds from the moments of what draws say."""
    log_weights = jnp.log(weights) + jnp.sum(log_densities, axis=1)
    if smooth:
        log_weights, _ = pareto_smoothed(log_weights)
    tilted = jax.nn.softmax(log_weights)
    mean = weights @ said
    centred = said - mean
    cov = (weights[:, None] * centred).T @ centred
    solved = jnp.all(jnp.isfinite(tilted))
    return Tilt(tilted, log_odds_of(views.means - mean, cov, views.sds), solved)


def log_odds_of(
    surprise: Float[Array, " views"], cov: Float[Array, "views views"], sds: Float[Array, " views"]
) -> Float[Array, ""]:
    """-1/2 d' (C + S)^{-1} d, for standard deviations up to infinity."""
    return -0.5 * surprise @ precision(cov, sds) @ surprise


def precision(
    cov: Float[Array, "views views"], sds: Float[Array, " views"]
) -> Float[Array, "views views"]:
    """(C + S)^{-1} = D (I + D C D)^{-1} D with D = S^{-1/2}, zero rows for infinite sds.

    By eigenvalues that are cut at zero: views that repeat each other make C singular."""
    scale = 1.0 / sds
    values, vectors = jnp.linalg.eigh(scale[:, None] * cov * scale)
    half = vectors.T * scale
    return half.T @ (half / (1.0 + jnp.maximum(values, 0.0))[:, None])


class ViewedMoments(NamedTuple):
    """Of a Gaussian law: m - A mu, A V, and the gain V A' (A V A' + S)^{-1}."""

    surprise: Float[Array, " views"]
    cross: Float[Array, "views horizon series"]
    gain: Float[Array, "horizon series views"]
    log_odds: Float[Array, ""]

    @classmethod
    def of(cls, forecast: GaussianForecast, views: Statements) -> "ViewedMoments":
        """Costs views (horizon series)^2."""
        a = views.directions
        surprise = views.means - jnp.einsum("khi,hi->k", a, forecast.mean)
        cross = jnp.einsum("khi,himj->kmj", a, forecast.cov)
        cov = jnp.einsum("khi,lhi->kl", cross, a)
        gain = jnp.einsum("kmj,kl->mjl", cross, precision(cov, views.sds))
        return cls(surprise, cross, gain, log_odds_of(surprise, cov, views.sds))
