"""The exact law of rows ahead of a Markov-switching model: mixtures over the regimes to come."""

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.forecast import Forecast, GaussianForecast, Levels
from jaxfc.regimes.occupation import mixture_quantile, occupation
from jaxfc.regimes.tails import Tails
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.semidefinite import semidefinite_chol


class RegimeForecast(Forecast):
    """z = mixing y + shift, with y_h | s_h = k of mean mu_k and covariance V_k, independent given
    the regimes s_1, ..., s_H, which follow a Markov chain.

        P(s_h = k) = a_h,k,   a_h = (P')^h a_0
        E y_h = sum_k a_h,k mu_k =: m_h
        Cov(y_h, y_h) = sum_k a_h,k (V_k + mu_k mu_k') - m_h m_h'
        Cov(y_g, y_h) = sum_ij a_g,i (P^{h-g})_ij mu_i mu_j' - m_g m_h'      for g < h

    `state` a_0 is the law of the regime before the first step; `means` mu (regimes, series) and
    `scatters` (regimes, series, series) those of the regimes, V_k = `tails.cov_factor` scatter_k.
    `mixing` (horizon, periods) is the identity, and lower triangular ones after `cumulative`.

    All moments, draws and quantiles are exact given the parameters. Quantiles of sums of normal
    rows mix over the numbers of visits to each regime (see `occupation`). Running sums, portfolios
    and changes of units stay in the class.

    Source: Hamilton (1994), chapter 22; Timmermann (2000) for moments across steps.
    """

    mean: Float[Array, "horizon series"]
    state: Float[Array, " regimes"]
    transition: Float[Array, "regimes regimes"]
    means: Float[Array, "regimes series"]
    scatters: Float[Array, "regimes series series"]
    mixing: Float[Array, "horizon periods"]
    shift: Float[Array, "horizon series"]
    tails: Tails
    rows: Literal["steps", "sums", "others"] = eqx.field(static=True, default="steps")

    def __init__(
        self,
        *,
        state: Float[Array, " regimes"],
        transition: Float[Array, "regimes regimes"],
        means: Float[Array, "regimes series"],
        scatters: Float[Array, "regimes series series"],
        mixing: Float[Array, "horizon periods"],
        shift: Float[Array, "horizon series"],
        tails: Tails,
        rows: Literal["steps", "sums", "others"] = "steps",
    ):
        self.state, self.transition, self.means, self.scatters = state, transition, means, scatters
        self.mixing, self.shift, self.tails, self.rows = mixing, shift, tails, rows
        ahead = regime_law(state, transition, mixing.shape[1])
        self.mean = mixing @ ahead @ means + shift

    @classmethod
    def ahead(
        cls,
        *,
        state: Float[Array, " regimes"],
        transition: Float[Array, "regimes regimes"],
        means: Float[Array, "regimes series"],
        scatters: Float[Array, "regimes series series"],
        tails: Tails,
        horizon: int,
    ) -> "RegimeForecast":
        """The law of the next `horizon` rows themselves."""
        return cls(
            state=state,
            transition=transition,
            means=means,
            scatters=scatters,
            mixing=jnp.eye(horizon, dtype=means.dtype),
            shift=jnp.zeros((horizon, means.shape[1]), means.dtype),
            tails=tails,
        )

    def changed(self, **fields) -> "RegimeForecast":
        """The same with other fields."""
        names = ("state", "transition", "means", "scatters", "mixing", "shift", "tails", "rows")
        return RegimeForecast(**({name: getattr(self, name) for name in names} | fields))

    @property
    def probabilities(self) -> Float[Array, "periods regimes"]:
        """P(s_h = k) of each period ahead."""
        return regime_law(self.state, self.transition, self.mixing.shape[1])

    @property
    def regime_covs(self) -> Float[Array, "regimes series series"]:
        """Covariances of a row within each regime; `means` are its means."""
        return self.tails.cov_factor.astype(self.scatters.dtype) * self.scatters

    @property
    def regime_cov(self) -> Float[Array, "horizon regimes horizon regimes"]:
        """Cov of the indicators [s_g = i] and [s_h = j], mixed."""
        law, size = self.probabilities, self.state.shape[0]
        num_periods = len(law)
        powers = [jnp.eye(size, dtype=law.dtype)]
        for _ in range(num_periods - 1):
            powers.append(jnp.matmul(powers[-1], self.transition, precision="highest"))
        lags = jnp.arange(num_periods) - jnp.arange(num_periods)[:, None]
        ahead = jnp.stack(powers)[jnp.maximum(lags, 0)]  # (g, h, i, j): P^{h - g}
        joint = law[:, None, :, None] * ahead
        joint = jnp.where((lags >= 0)[:, :, None, None], joint, 0.0)
        joint = joint + jnp.where((lags > 0)[:, :, None, None], joint, 0.0).transpose(1, 0, 3, 2)
        cov = joint.transpose(0, 2, 1, 3) - law[:, :, None, None] * law
        return jnp.einsum("ag,gihj,bh->aibj", self.mixing, cov, self.mixing, precision="highest")

    @property
    def cov(self) -> Float[Array, "horizon series horizon series"]:
        between = jnp.einsum(
            "aibj,im,jn->ambn", self.regime_cov, self.means, self.means, precision="highest"
        )
        weights = jnp.einsum("ag,bg,gk->abk", self.mixing, self.mixing, self.probabilities)
        within = jnp.einsum("abk,kmn->ambn", weights, self.regime_covs, precision="highest")
        cov = between + within
        return 0.5 * (cov + cov.transpose(2, 3, 0, 1))

    @property
    def std(self) -> Float[Array, "horizon series"]:
        own = jnp.einsum("aiaj->aij", self.regime_cov)
        between = jnp.einsum("aij,im,jm->am", own, self.means, self.means, precision="highest")
        variances = jnp.diagonal(self.regime_covs, axis1=1, axis2=2)
        return jnp.sqrt(between + self.mixing**2 @ self.probabilities @ variances)

    def quantile(self, q: Levels) -> Float[Array, "... horizon series"]:
        """Marginal quantiles of the mixture, exact to rounding.

        **Raises:** `ValueError` for sums of rows that are not normal within a regime and for sums
        of sums, whose law is not a mixture of few: take quantiles of draws for these.
        """
        levels = jnp.asarray(q, dtype=self.mean.dtype)
        stds = jnp.sqrt(jnp.diagonal(self.scatters, axis1=1, axis2=2))
        if self.rows == "others" or (self.rows == "sums" and not self.tails.sums_keep_the_law):
            raise ValueError(
                "the law of these sums is no mixture of few known ones; use quantiles of draws: "
                "SampleForecast(forecast.sample(n, key=...)).quantile(q)."
            )
        horizon = self.mean.shape[0]
        if self.rows == "steps":
            weights = self.probabilities
            means = jnp.broadcast_to(self.means, (horizon, *self.means.shape))
            stds = jnp.broadcast_to(stds, means.shape)
        else:
            weights, visits = occupation(self.state, self.transition, horizon)
            means = visits @ self.means
            positive = jnp.where(weights[..., None] > 0, visits @ stds**2, 1.0)
            stds = jnp.sqrt(positive)
        return mixture_quantile(levels, weights, means, stds, self.tails) + self.shift

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon series"]:
        shape = num_draws, self.mixing.shape[1]
        laws = self.state, self.transition, self.means, self.scatters
        rows = draw_rows(*laws, self.tails, shape, key=key)
        return jnp.einsum("ah,dhm->dam", self.mixing, rows, precision="highest") + self.shift

    def cumulative(self) -> "RegimeForecast":
        return self.changed(
            mixing=jnp.cumsum(self.mixing, axis=0),
            shift=jnp.cumsum(self.shift, axis=0),
            rows="sums" if self.rows == "steps" else "others",
        )

    def aggregate(self, weights: Float[Array, "out series"]) -> "RegimeForecast":
        covs = jnp.einsum("ai,kij,bj->kab", weights, self.scatters, weights, precision="highest")
        return self.changed(
            means=self.means @ weights.T, scatters=covs, shift=self.shift @ weights.T
        )

    def affine(
        self, scale: Float[Array, " series"], shift: Float[Array, "horizon series"]
    ) -> "RegimeForecast":
        return self.changed(
            means=scale * self.means,
            scatters=scale[:, None] * self.scatters * scale,
            shift=scale * self.shift + shift,
        )

    def within(self, regime: int) -> GaussianForecast:
        """Mean and covariance of the rows if every step ahead is in `regime` (numbered from 0).

        **Raises:** `ValueError` for a number that is none of a regime.
        """
        if not 0 <= regime < self.state.shape[0]:
            raise ValueError(f"regime {regime} is none of 0..{self.state.shape[0] - 1}.")
        overlap = self.mixing @ self.mixing.T
        mean = jnp.sum(self.mixing, axis=1)[:, None] * self.means[regime] + self.shift
        return GaussianForecast(
            mean, overlap[:, None, :, None] * self.regime_covs[regime][None, :, None, :]
        )


# Under `jit`, as a loop by itself is compiled anew at every call.
@partial(jax.jit, static_argnames="horizon")
def regime_law(
    state: Float[Array, " regimes"], transition: Float[Array, "regimes regimes"], horizon: int
) -> Float[Array, "horizon regimes"]:
    """a_h = (P')^h a_0 for h = 1, ..., `horizon`."""

    def step(law: Array, _: None) -> tuple[Array, Array]:
        law = jnp.matmul(law, transition, precision="highest")
        return law, law

    return jax.lax.scan(step, state, None, length=horizon)[1]


@partial(jax.jit, static_argnames="shape")
def draw_regimes(
    state: Float[Array, " regimes"],
    transition: Float[Array, "regimes regimes"],
    shape: tuple[int, int],
    *,
    key: PRNGKeyArray,
) -> Array:
    """Paths of regimes (draws, horizon), of the first row ahead first."""
    num_draws, horizon = shape
    uniforms = jax.random.uniform(key, (horizon + 1, num_draws), state.dtype)

    def pick(law: Array, uniform: Array) -> Array:
        below = jnp.cumsum(law, axis=-1)[..., :-1] < uniform[:, None]
        return jnp.sum(below, axis=-1)

    def step(regime: Array, uniform: Array) -> tuple[Array, Array]:
        regime = pick(transition[regime], uniform)
        return regime, regime

    first = pick(jnp.broadcast_to(state, (num_draws, state.shape[0])), uniforms[0])
    return jax.lax.scan(step, first, uniforms[1:])[1].T


def draw_rows(
    state: Float[Array, " regimes"],
    transition: Float[Array, "regimes regimes"],
    means: Float[Array, "regimes series"],
    scatters: Float[Array, "regimes series series"],
    tails: Tails,
    shape: tuple[int, int],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon series"]:
    """Paths of rows (draws, horizon) along drawn paths of regimes; `state` as in `draw_regimes`."""
    path_key, scale_key, key = jax.random.split(key, 3)
    paths = draw_regimes(state, transition, shape, key=path_key)
    noise = jax.random.normal(key, (*shape, means.shape[1]), means.dtype)
    scales = tails.draw_scales(shape, key=scale_key).astype(means.dtype)
    # The noise of every regime, of which the path picks one: there are few, and no matrix is
    # gathered for a row.
    each = jnp.einsum("kab,dhb->kdha", jax.vmap(semidefinite_chol)(scatters), noise)
    chosen = jax.nn.one_hot(paths, state.shape[0], axis=0, dtype=means.dtype)
    rows = jnp.einsum("kdh,kdha->dha", chosen, each) * scales[..., None]
    return rows + jnp.einsum("kdh,ka->dha", chosen, means)
