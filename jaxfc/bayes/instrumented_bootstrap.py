"""Bootstrap tests of instrumented PCA: no alphas, a characteristic without role, no further factor.

The statistic is the squared length of the part of the coefficients that the hypothesis says is
zero. Its law under the hypothesis comes from portfolios rebuilt with that part set to zero,

    x_t^b = W_t (Gamma f_t + ...)_0 + q_t d_{s_t} sqrt(n_{s_t} / n_t),    d_t = x_t - W_t c_t,

with q_t Student t of unit variance and s_t a random row, and re-estimated without restriction. The
root brings the errors of a row with few cells and of one with many to one scale.
"""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfc.batching import map_in_batches, numbered_keys
from jaxfc.bayes.instrumented import InstrumentedPCA
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares, Coefficients
from jaxfc.bayes.instrumented_portfolios import ManagedPortfolios, einsum, managed_portfolios
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, is_okay, throw_if_failed
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Student's law of the multipliers (Kelly, Pruitt and Su 2020), scaled to unit variance.
MULTIPLIER_DEGREES = 5.0


class Hypothesis(eqx.Module):
    """Which part of the coefficients is zero."""

    @abc.abstractmethod
    def imposed(self, coefficients: Coefficients) -> Coefficients:
        """The coefficients with that part set to zero."""

    @abc.abstractmethod
    def statistic(self, coefficients: Coefficients) -> Float[Array, ""]:
        """The squared length of that part; no rotation of the factors changes it."""


class NoGivenFactor(Hypothesis):
    """Gamma_g of given factor `column` is zero: it adds nothing to the other factors."""

    column: Int[Array, ""] = eqx.field(converter=jnp.asarray)

    def imposed(self, coefficients: Coefficients) -> Coefficients:
        zero = coefficients.given.at[:, self.column].set(0.0)
        return Coefficients(coefficients.gamma, zero)

    def statistic(self, coefficients: Coefficients) -> Float[Array, ""]:
        column = coefficients.given.at[:, self.column].get(mode="fill", fill_value=jnp.nan)
        return jnp.sum(column**2)


class NoIntercept(Hypothesis):
    """Gamma_a = 0: characteristics say nothing about returns beyond loadings (an estimation with
    `intercept=True`)."""

    def imposed(self, coefficients: Coefficients) -> Coefficients:
        return NoGivenFactor(-1).imposed(coefficients)

    def statistic(self, coefficients: Coefficients) -> Float[Array, ""]:
        return NoGivenFactor(-1).statistic(coefficients)


class NoCharacteristic(Hypothesis):
    """Row `row` of Gamma is zero: the characteristic has no part in loadings on latent factors."""

    row: Int[Array, ""] = eqx.field(converter=jnp.asarray)

    def imposed(self, coefficients: Coefficients) -> Coefficients:
        return Coefficients(coefficients.gamma.at[self.row].set(0.0), coefficients.given)

    def statistic(self, coefficients: Coefficients) -> Float[Array, ""]:
        row = coefficients.gamma.at[self.row].get(mode="fill", fill_value=jnp.nan)
        return jnp.sum(row**2)


class BootstrapTest(eqx.Module):
    """The statistic, its draws under the hypothesis, and p = (1 + draws at or above it) / (1 +
    draws). Draws whose estimation diverged are left out of p and counted in `num_failed`;
    `num_unfinished` met the bound on steps and do count. `result` is that of the estimation on the
    data; p is NaN if that diverged."""

    statistic: Float[Array, ""]
    p_value: Float[Array, ""]
    draws: Float[Array, " draws"]
    num_failed: Int[Array, ""]
    num_unfinished: Int[Array, ""]
    result: RESULTS


def wild_bootstrap(
    method: AlternatingLeastSquares,
    portfolios: ManagedPortfolios,
    hypothesis: Hypothesis,
    given: Float[Array, "time given"] | None = None,
    given_observed: Bool[Array, "time given"] | None = None,
    *,
    num_draws: int = 199,
    resampled: bool | Bool[Array, ""] = True,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> BootstrapTest:
    """The test of `hypothesis` by `num_draws` re-estimations, `batch_size` of them side by side:
    pure, for `jit`.

    `resampled` takes the errors of a random row, the residual wild bootstrap of the source; without
    it each row keeps its own, which also holds for errors whose size moves over time.

    **Raises:** `ValueError` for no draw, for `NoIntercept()` without `intercept=True`, and for a
    given factor or characteristic that the estimation does not have.

    Source: Kelly, Pruitt and Su (2020).
    """
    check_counts(num_draws=num_draws)
    if isinstance(hypothesis, NoIntercept) and not method.intercept:
        raise ValueError("NoIntercept() tests an estimation with intercept=True.")
    check_place(method, portfolios, hypothesis, given)
    found = method.solve(portfolios, given, given_observed)
    rows = method.rows(portfolios, given, given_observed)
    held, used = rows.portfolios, rows.used
    errors = held.returns - einsum("tlm,tm->tl", held.gram, found.characteristic_returns)
    restricted = hypothesis.imposed(found.coefficients)
    base = einsum("tlm,tm->tl", held.gram, restricted.of_rows(found.factors, found.given))
    roots = jnp.sqrt(jnp.maximum(held.counts, 1.0))
    scaled = errors * roots[:, None]
    spread = (MULTIPLIER_DEGREES / (MULTIPLIER_DEGREES - 2.0)) ** 0.5
    places = jnp.arange(len(used))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        row_key, multiplier_key = jax.random.split(key)
        chance = jnp.where(used, 0.0, -jnp.inf)
        picked = jax.random.categorical(row_key, chance, shape=used.shape)
        picked = jnp.where(resampled, picked, places)
        law = MULTIPLIER_DEGREES, used.shape, base.dtype
        multipliers = jax.random.t(multiplier_key, *law) / spread
        noise = (multipliers / roots)[:, None] * scaled[picked]
        again = ManagedPortfolios(portfolios.gram, base + noise, portfolios.counts)
        estimate = method.solve(again, given, given_observed, start=restricted)
        lost = estimate.result == RESULTS.diverged
        return hypothesis.statistic(estimate.coefficients), lost, is_okay(estimate.result)

    keys = numbered_keys(key, num_draws)
    draws, lost, finished = map_in_batches(draw, keys, batch_size)
    statistic = hypothesis.statistic(found.coefficients)
    usable = jnp.isfinite(draws) & ~lost
    above = jnp.sum(usable & (draws >= statistic))
    sound = jnp.isfinite(statistic) & ~(found.result == RESULTS.diverged)
    return BootstrapTest(
        statistic=statistic,
        p_value=jnp.where(sound, (1.0 + above) / (1.0 + jnp.sum(usable)), jnp.nan),
        draws=draws,
        num_failed=jnp.sum(~usable),
        num_unfinished=jnp.sum(usable & ~finished),
        result=found.result,
    )


def check_place(
    method: AlternatingLeastSquares,
    portfolios: ManagedPortfolios,
    hypothesis: Hypothesis,
    given: Float[Array, "time given"] | None,
) -> None:
    """Refuses a hypothesis about a column or a row that there is not."""
    num_given = method.intercept + (0 if given is None else given.shape[1])
    num_rows = portfolios.returns.shape[1] if method.num_factors else 0
    for place, size, what in (
        (getattr(hypothesis, "column", None), num_given, "given factors"),
        (getattr(hypothesis, "row", None), num_rows, "characteristics in the loadings"),
    ):
        if place is None or isinstance(place, Tracer) or -size <= int(place) < size:
            continue
        raise ValueError(f"the hypothesis is about number {int(place)} of {size} {what}.")


def instrumented_test(
    model: InstrumentedPCA,
    panel: "Panel",
    hypothesis: str,
    *,
    num_draws: int = 199,
    resampled: bool | Bool[Array, ""] = True,
    key: PRNGKeyArray,
    throw: bool = True,
) -> BootstrapTest:
    """`wild_bootstrap` of a model on its panel (host side). `hypothesis` names what has no role:
    "intercept", one of the given factors, or one of the characteristics.

    **Raises:** `ValueError` for another name, and as `InstrumentedPCA.fit`; `RuntimeError` if the
    estimation on the data failed and `throw`.
    """
    model.check(panel)
    tested = named_hypothesis(model, hypothesis)
    rows = model.instruments.read(*panel.arrays())
    portfolios = managed_portfolios(rows.returns, rows.characteristics, rows.usable)
    run = eqx.filter_jit(wild_bootstrap)
    data = model.method, portfolios, tested, rows.given, rows.given_observed
    found = run(*data, num_draws=num_draws, resampled=resampled, key=key)
    if throw:
        throw_if_failed(found.result, "instrumented_test")
    return found


def named_hypothesis(model: InstrumentedPCA, name: str) -> Hypothesis:
    """The hypothesis that what is called `name` has no role."""
    if name == "intercept" and model.intercept:
        return NoIntercept()
    if name in model.given:
        return NoGivenFactor(model.given.index(name))
    if name in model.instruments.names and model.num_factors:
        return NoCharacteristic(model.instruments.names.index(name))
    known = [*(["intercept"] if model.intercept else []), *model.given, *model.instruments.names]
    raise ValueError(f"hypothesis must be one of {known}, got {name!r}.")
