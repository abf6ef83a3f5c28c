"""EM of Markov-switching models: golden values, enumeration of paths, slopes at the fixed point."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.regimes import (
    DiagonalCovariance,
    FullCovariance,
    GaussianTails,
    MarketSectorCovariance,
    Prior,
    RegimeModel,
    StudentTails,
    market_covariance,
    no_prior,
)
from jaxfc.regimes.em import Data, RegimeParameters, em_step, expectations, log_prior, maximised
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.factor_structure import FactorScatter
from jaxfc.regimes.masked import as_rows
from jaxfc.regimes.prior import pooled_moments, prior_moments
from regimes.regime_worlds import (
    COVS,
    INITIAL,
    MEANS,
    SECTORS,
    TRANSITION,
    VALUES,
    switching_panel,
)

FULL = Emissions((FullCovariance(),), GaussianTails(), 2)
EVERYTHING = np.ones(VALUES.shape, bool)


def golden_parameters():
    return RegimeParameters(*map(jnp.asarray, (INITIAL, TRANSITION, MEANS)), (jnp.asarray(COVS),))


def data_of(values, observed, prior):
    values, observed = jnp.asarray(values), jnp.asarray(observed)
    moments = prior_moments(prior, *pooled_moments(values, observed), 2)
    return Data(as_rows(values, observed), prior, moments)


@eqx.filter_jit
def stepped(parameters, data):
    """An E-step, the M-step after it, and the log-likelihood then."""
    found = expectations(FULL, parameters, data.rows, "sequential")
    new = maximised(FULL, parameters, found, data)
    return found, new, expectations(FULL, new, data.rows, "sequential").loglik


def test_golden_values():
    found, new, later = stepped(golden_parameters(), data_of(VALUES, EVERYTHING, no_prior()))
    assert float(found.loglik) == pytest.approx(-18.314472801593805, rel=1e-14)
    filtered = [0.12722169, 0.06143539, 0.05059462, 0.93352950]
    filtered += [0.98936989, 0.91715977, 0.58156868, 0.29207258]
    smoothed = [0.19750970, 0.25364658, 0.47132102, 0.99142427]
    smoothed += [0.98563484, 0.78228485, 0.40761265, 0.29207258]
    digits = {"rtol": 0, "atol": 5.1e-9}
    np.testing.assert_allclose(np.exp(found.filtered.log_filtered[:, 1]), filtered, **digits)
    np.testing.assert_allclose(found.smoothed.probabilities[:, 1], smoothed, **digits)
    pairs = [[2.07576162, 0.83480448], [0.74024160, 3.34919230]]
    np.testing.assert_allclose(found.smoothed.pairs.sum(axis=0), pairs, **digits)
    ahead = np.exp(found.filtered.log_filtered[-1]) @ TRANSITION
    np.testing.assert_allclose(ahead, [0.71634193, 0.28365807], **digits)
    transition = [[0.71318140, 0.28681860], [0.18101322, 0.81898678]]
    np.testing.assert_allclose(new.transition, transition, **digits)
    means = [[0.15454260, 0.14670482], [-0.21892273, -0.05268746]]
    np.testing.assert_allclose(new.means, means, **digits)
    covs = [[[0.17855834, 0.12941011], [0.12941011, 0.13330620]]]
    covs += [[[1.61987040, 1.65448869], [1.65448869, 1.73401344]]]
    np.testing.assert_allclose(new.scatters[0], covs, **digits)
    assert float(later) == pytest.approx(-7.969179700109094, rel=1e-13)


def test_golden_values_with_holes():
    observed = EVERYTHING.copy()
    observed[3, 1] = False
    observed[5] = False
    values = np.where(observed, VALUES, np.nan)
    found, _, _ = stepped(golden_parameters(), data_of(values, observed, no_prior()))
    assert float(found.loglik) == pytest.approx(-15.01493224918201, rel=1e-14)
    smoothed = [0.18099892, 0.22971731, 0.42498751, 0.89220514]
    smoothed += [0.91567495, 0.59456571, 0.31217521, 0.22837478]
    np.testing.assert_allclose(found.smoothed.probabilities[:, 1], smoothed, rtol=0, atol=5.1e-9)


def structures():
    full, diagonal = FullCovariance(), DiagonalCovariance()
    sectors, market = MarketSectorCovariance(SECTORS), market_covariance()
    return {
        "full": ((full,), GaussianTails()),
        "full, t": ((full,), StudentTails(5.0)),
        "diagonal": ((diagonal,), GaussianTails()),
        "diagonal, t": ((diagonal,), StudentTails(4.0)),
        "sectors": ((sectors,), GaussianTails()),
        "sectors, then market, t": ((sectors, market), StudentTails(6.0)),
        "sectors, then full": ((sectors, full), GaussianTails()),
    }


def some_parameters(emissions, data):
    """Regimes that differ."""
    scatters = emissions.start(data.moments.scatter)
    factors = jnp.array([0.5, 2.0])
    if emissions.is_shared:
        scale = lambda leaf: leaf * factors.reshape(-1, *([1] * (leaf.ndim - 1)))  # noqa: E731
        scatters = jax.tree.map(scale, scatters)
    else:
        scatters = tuple(
            jax.tree.map(lambda leaf, by=by: leaf * by, one)
            for one, by in zip(scatters, factors, strict=True)
        )
    means = jnp.stack([data.moments.mean + 0.1, data.moments.mean - 0.2])
    return RegimeParameters(jnp.array([0.6, 0.4]), jnp.asarray(TRANSITION), means, scatters)


def density_by_scipy(tails, values, seen, mean, scatter):
    """ln f of the observed entries by another program."""
    if not seen.any():
        return 0.0
    block = scatter[np.ix_(seen, seen)]
    if isinstance(tails, StudentTails):
        law = stats.multivariate_t(mean[seen], block, df=float(tails.degrees))
    else:
        law = stats.multivariate_normal(mean[seen], block)
    return float(law.logpdf(values[seen]))


@pytest.mark.parametrize("name", ["full, t", "sectors", "sectors, then market, t", "diagonal"])
def test_likelihood_against_all_paths(name):
    shapes, tails = structures()[name]
    emissions = Emissions(shapes, tails, 2)
    values, observed, _ = switching_panel(6, missing=0.0, seed=2)
    observed = np.random.default_rng(0).random(observed.shape) > 0.4
    observed[3] = False
    assert observed.sum(axis=0).min() >= 2
    values = np.where(observed, values, np.nan)
    data = data_of(values, observed, Prior())
    given = some_parameters(emissions, data)
    found = eqx.filter_jit(expectations)(emissions, given, data.rows, "sequential")
    scatters = np.asarray(emissions.dense(given.scatters))
    densities = [
        [
            density_by_scipy(tails, values[t], observed[t], np.asarray(given.means[k]), scatters[k])
            for k in range(2)
        ]
        for t in range(6)
    ]
    total = 0.0
    for path in itertools.product(range(2), repeat=6):
        weight = float(given.initial[path[0]])
        weight *= np.prod([TRANSITION[a, b] for a, b in itertools.pairwise(path)])
        total += weight * np.exp(sum(densities[t][k] for t, k in enumerate(path)))
    assert float(found.loglik) == pytest.approx(np.log(total), rel=1e-11)


@pytest.fixture(scope="module", params=structures())
def climbed(request):
    """EM to its end on a panel with holes: emissions, data, end, path of the objective."""
    shapes, tails = structures()[request.param]
    emissions = Emissions(shapes, tails, 2)
    values, observed, _ = switching_panel(60, missing=0.15)
    data = data_of(values, observed, Prior(mean_strength=0.5, stickiness=2.0))

    @jax.jit
    def run(parameters):
        def step(parameters, _):
            return em_step(emissions, parameters, data, "sequential")

        return jax.lax.scan(step, parameters, None, length=1500)

    end, path = run(some_parameters(emissions, data))
    return emissions, data, end, np.asarray(path)


def test_the_objective_never_falls(climbed):
    path = climbed[3]
    assert np.diff(path).min() > -1e-11 * abs(path[-1])
    assert path[-1] > path[0] + 3.0


def test_the_end_is_where_the_objective_is_flat(climbed):
    """Slopes of log-likelihood plus log prior by all parameters, none of which uses an M-step."""
    emissions, data, end, _ = climbed

    def only_free(scatter):
        """Exposures to other sectors are zero by assumption, whatever their slope."""
        if not isinstance(scatter, FactorScatter):
            return scatter
        return dataclasses.replace(
            scatter, loadings=jnp.where(scatter.loadings == 0, 0.0, scatter.loadings)
        )

    def objective(free):
        logits, first, means, scatters = free
        scatters = tuple(only_free(scatter) for scatter in scatters)
        given = RegimeParameters(
            jax.nn.softmax(first), jax.nn.softmax(logits, axis=1), means, scatters
        )
        found = expectations(emissions, given, data.rows, "sequential")
        return found.loglik + log_prior(emissions, given, data)

    free = jnp.log(end.transition), jnp.log(end.initial), end.means, end.scatters
    slopes = jax.jit(jax.grad(objective))(free)
    for slope in jax.tree.leaves(slopes):
        np.testing.assert_allclose(slope, 0.0, atol=2e-5)
    moved = free[0], free[1], free[2] + 0.05, free[3]
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(jax.grad(objective)(moved))) > 0.1


def test_whole_rows_and_rows_with_holes_agree():
    """The formulas for holes on a panel without any; then one row taken away altogether."""
    from jaxfc.regimes.masked import (
        complete_distances,
        complete_scatter,
        masked_distances,
        masked_scatter,
    )

    values, observed, _ = switching_panel(150, missing=0.0)
    observed[7] = False
    data = data_of(values, observed, Prior(mean_strength=1.0))
    mean, cov = data.moments.mean + 0.1, 0.7 * data.moments.scatter
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.random(150)) * data.rows.any_seen
    pulls = jnp.asarray(rng.random(150))
    assert bool(data.rows.are_whole)
    for one, other in (
        (complete_distances(mean, cov, data.rows), masked_distances(mean, cov, data.rows)),
        (
            complete_scatter(mean, cov, data.rows, weights, pulls, data.moments),
            masked_scatter(mean, cov, data.rows, weights, pulls, data.moments),
        ),
    ):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_no_prior_and_strong_priors():
    """Without a prior a regime may collapse on one row, with one it may not."""
    values = np.r_[np.random.default_rng(0).normal(size=30), [50.0]][:, None]
    observed = np.ones(values.shape, bool)
    loose = RegimeModel(2, prior=no_prior(), num_starts=4, max_steps=200)
    held = RegimeModel(2, prior=Prior(cov_strength=8.0), num_starts=4, max_steps=200)
    key = jax.random.key(0)
    ends = [eqx.filter_jit(m.estimate)(values, observed, key=key) for m in (loose, held)]
    assert float(ends[1].covs.min()) > 0.1
    assert np.isfinite(float(ends[1].loglik))
    with pytest.raises(ValueError, match="stickiness counts rows and must not be negative"):
        Prior(stickiness=-1.0)
