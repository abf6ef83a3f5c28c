"""Calibration passes an exact sampler and finds planted bugs; bands against exact probabilities."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import stats

from jaxfc.bayes.calibrate import (
    RankCalibration,
    labels,
    rank_among,
    simulation_based_calibration,
    thinned,
)
from jaxfc.bayes.calibrate_bands import (
    band_statistic,
    count_band,
    rank_counts,
    simulated_statistics,
    tail_table,
)
from jaxfc.bayes.calibrate_predictive import posterior_predictive_check
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.program import Program
from jaxfc.results import SUCCESSFUL

SHAPE, SCALE, RATIO = 3.0, 2.0, 4.0


class NormalWithVariance(Program):
    """y_t ~ N(mu, v), mu ~ N(0, 4 v), v ~ inverse gamma(3, 2): the posterior is known."""

    y: jax.Array

    def priors(self):
        return {
            "v": lambda _: dist.InverseGamma(SHAPE, SCALE),
            "mu": lambda p: dist.Normal(0.0, jnp.sqrt(RATIO * p["v"])),
        }

    def log_likelihood(self, parameters):
        law = dist.Normal(parameters["mu"], jnp.sqrt(parameters["v"]))
        return jnp.sum(law.log_prob(self.y))

    def start(self):
        return {"v": jnp.var(self.y) + 0.1, "mu": jnp.mean(self.y)}

    def simulated(self, parameters, *, key):
        noise = jax.random.normal(key, self.y.shape)
        return NormalWithVariance(parameters["mu"] + jnp.sqrt(parameters["v"]) * noise)


class Conjugate(Inference):
    """Independent draws of the normal-inverse-gamma posterior, with a bug if asked for."""

    num_draws: int = eqx.field(static=True, default=100)
    more_shape: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)
    width: jax.Array = eqx.field(converter=jnp.asarray, default=1.0)
    shift: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)
    deaf: bool = eqx.field(static=True, default=False)

    def sample(self, program, *, key):
        shape_key, normal_key = jax.random.split(key)
        y = program.y
        precision = 1 / RATIO + y.size
        mean = jnp.sum(y) / precision
        rate = SCALE + 0.5 * (jnp.sum(y**2) - precision * mean**2)
        shape = SHAPE + 0.5 * y.size + self.more_shape
        if self.deaf:
            precision, mean, rate, shape = 1 / RATIO, 0.0, SCALE, SHAPE
        size = (2, self.num_draws // 2)
        v = rate / jax.random.gamma(shape_key, shape, size)
        mu = (
            mean
            + self.shift
            + self.width * jnp.sqrt(v / precision) * jax.random.normal(normal_key, size)
        )
        zeros = jnp.zeros(size)
        return PosteriorDraws(
            parameters={"v": v, "mu": mu},
            log_density=zeros,
            energy=zeros,
            divergent=zeros > 0,
            moved=zeros == 0,
            step_size=zeros[:, 0],
            num_leapfrogs=zeros[:, 0],
            pareto_k=jnp.asarray(jnp.nan),
            num_steps=jnp.asarray(self.num_draws),
            result=SUCCESSFUL,
        )


PROGRAM = NormalWithVariance(jnp.zeros(6))


def with_bug(num_data_sets=200, **bug):
    return simulation_based_calibration(
        PROGRAM, Conjugate(**bug), num_data_sets=num_data_sets, key=jax.random.key(1)
    )


@pytest.fixture(scope="module")
def exact():
    return with_bug()


def verdicts(calibration):
    return calibration.table(key=jax.random.key(7), num_simulations=1000)["verdict"].to_dict()


def test_an_exact_sampler_is_calibrated(exact):
    assert exact.names == ("v", "mu", "log_likelihood")
    assert exact.ranks.shape == (200, 3)
    table = exact.table(key=jax.random.key(7), num_simulations=1000)
    assert set(table["verdict"]) == {"calibrated"}
    assert np.all(table["chi2_p"] > 0.01) and np.all(table["ecdf_p"] > 0.05 / 3)
    assert np.all(np.abs(table["mean"] - 0.5) < 4 / np.sqrt(12 * 200))
    assert np.all(np.abs(table["spread"] - 1) < 4 * np.sqrt(0.8 / 200))
    lower, upper = exact.ecdf_band(key=jax.random.key(7), num_simulations=1000)
    difference = np.asarray(exact.ecdf_difference())
    assert np.all((difference >= lower[:, None]) & (difference <= upper[:, None]))


@pytest.mark.parametrize(
    ("bug", "quantity", "verdict"),
    [
        # The density over ln v without the Jacobian v: one more in the shape.
        ({"more_shape": 1.0}, "v", "posterior too low"),
        ({"width": 0.6}, "mu", "posterior too narrow"),
        ({"width": 1.8}, "mu", "posterior too wide"),
        ({"shift": 0.3}, "mu", "posterior too high"),
        # Draws from the prior have uniform ranks: only the likelihood sees that.
        ({"deaf": True}, "log_likelihood", "posterior too low"),
    ],
)
def test_a_planted_bug_is_found_and_named(bug, quantity, verdict):
    found = verdicts(with_bug(**bug))
    assert found[quantity] == verdict
    if bug.get("deaf"):
        assert found["v"] == found["mu"] == "calibrated"


def test_pooled_hamiltonian_chains_are_calibrated():
    sampler = PooledHMC(num_chains=4, num_draws=60, num_warmup=100, num_leapfrogs=6)
    found = simulation_based_calibration(
        PROGRAM, sampler, num_data_sets=100, num_ranks=31, key=jax.random.key(3)
    )
    assert bool(jnp.all(found.usable))
    assert set(verdicts(found).values()) == {"calibrated"}


def test_ranks_do_not_depend_on_batches_or_on_how_many_data_sets_there_are(exact):
    few = simulation_based_calibration(
        PROGRAM, Conjugate(), num_data_sets=7, batch_size=3, key=jax.random.key(1)
    )
    np.testing.assert_array_equal(few.ranks, exact.ranks[:7])


@pytest.mark.slow
def test_quantities_of_the_users_own(exact):
    def quantities(p):
        return {"signal": p["mu"] / jnp.sqrt(p["v"]), "both": jnp.stack([p["v"], -p["v"]])}

    found = simulation_based_calibration(
        PROGRAM,
        Conjugate(),
        num_data_sets=50,
        num_ranks=19,
        quantities=quantities,
        key=jax.random.key(1),
    )
    assert found.names == ("signal", "both[0]", "both[1]", "log_likelihood")
    np.testing.assert_array_equal(found.ranks[:, 1] + found.ranks[:, 2], 19)
    assert set(verdicts(found).values()) == {"calibrated"}


def test_a_data_set_that_fails_is_counted_and_not_ranked(exact):
    usable = jnp.ones(200, bool).at[jnp.asarray([3, 5])].set(False)
    broken = eqx.tree_at(
        lambda c: (c.usable, c.ranks), exact, (usable, exact.ranks.at[3].set(63).at[5].set(63))
    )
    assert broken.counted().shape == (198, 3)
    whole = np.delete(np.asarray(exact.ranks), [3, 5], axis=0)
    np.testing.assert_array_equal(broken.counted(), whole)


def test_chi_squared_is_pearsons(exact):
    found = exact.chi_squared(8)
    counts = [np.bincount(np.asarray(exact.ranks)[:, q] // 8, minlength=8) for q in range(3)]
    oracle = [stats.chisquare(c) for c in counts]
    np.testing.assert_allclose(found.statistic, [o.statistic for o in oracle])
    np.testing.assert_allclose(found.p_value, [o.pvalue for o in oracle], rtol=1e-9)
    with pytest.raises(ValueError, match="64 ranks do not fall into 7 equal bins"):
        exact.chi_squared(7)


def test_tail_probabilities_are_binomial():
    found = tail_table(11, 9)
    for k in range(9):
        law = stats.binom(11, (k + 1) / 10)
        count = np.arange(12)
        tails = 2 * np.minimum(law.cdf(count), law.sf(count - 1))
        np.testing.assert_allclose(found[:, k], tails, rtol=1e-11)


def stays_inside(lower, upper, num_cases, num_ranks):
    """P(lower <= C_k <= upper for all k) of uniform ranks, exactly: the counts are a Markov chain
    with binomial increments (Säilynoja et al. 2022, section 3.2)."""
    law = np.zeros(num_cases + 1)
    law[0] = 1.0
    for k in range(num_ranks):
        after = np.zeros_like(law)
        share = 1 / (num_ranks + 1 - k)
        for before in np.flatnonzero(law):
            step = stats.binom(num_cases - before, share).pmf(np.arange(num_cases - before + 1))
            after[before:] += law[before] * step
        after[: lower[k]] = 0.0
        after[upper[k] + 1 :] = 0.0
        law = after
    return law.sum()


def test_bands_hold_all_at_once_with_their_probability():
    num_cases, num_ranks = 60, 9
    statistics = simulated_statistics(num_cases, num_ranks, 20_000, jax.random.key(0))
    tails = tail_table(num_cases, num_ranks)
    for level in (0.9, 0.95):
        lower, upper = (np.asarray(x) for x in count_band(statistics, num_cases, num_ranks, level))
        exact = stays_inside(lower, upper, num_cases, num_ranks)
        assert level - 0.006 <= exact <= level + 0.01  # discrete: at least the level, up to noise
        # The band is what the statistic says: outside it exactly if below the critical value.
        critical = np.quantile(statistics, 1 - level)
        ranks = jax.random.randint(jax.random.key(2), (60, num_cases), 0, num_ranks + 1)
        for one in ranks:
            counts = rank_counts(one, num_ranks)
            inside = bool(np.all((counts >= lower) & (counts <= upper)))
            assert inside == bool(band_statistic(counts, tails) >= critical)


@pytest.mark.slow
def test_p_values_of_the_band_are_uniform_under_the_null():
    num_cases, num_ranks = 100, 15
    ranks = jax.random.randint(jax.random.key(5), (num_cases, 300), 0, num_ranks + 1)
    calibration = RankCalibration(
        tuple(f"q{i}" for i in range(300)),
        num_ranks,
        ranks,
        jnp.ones(ranks.shape),
        jnp.ones(num_cases, bool),
        SUCCESSFUL,
    )
    p = np.asarray(calibration.ecdf_p_values(key=jax.random.key(6)))
    assert stats.kstest(p, stats.uniform.cdf).pvalue > 1e-3


def test_ties_are_broken_at_random():
    keys = jax.random.split(jax.random.key(0), 3000)
    draws = jnp.asarray([[1.0], [2.0], [2.0], [3.0]])
    ranks = jax.vmap(lambda k: rank_among(jnp.asarray([2.0]), draws, key=k))(keys)[:, 0]
    counts = np.bincount(np.asarray(ranks), minlength=5)
    assert counts[0] == counts[4] == 0
    assert stats.chisquare(counts[1:4]).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_ties_that_rounding_hides_are_ties(dtype):
    """What a model fixes, computed by two ways for truth and draws, says nothing; neither do zeros.
    What differs by more is ranked as it stands."""
    eps = float(jnp.finfo(dtype).eps)
    true = jnp.asarray([0.7 * (1 + 2 * eps), 0.0, 2.0], dtype)
    draws = jnp.asarray([[0.7, 0.0, 2.0 + (k - 3) * 1e-3] for k in range(7)], dtype)
    draws = draws.at[3, 2].set(1.0)
    keys = jax.random.split(jax.random.key(0), 4000)
    ranks = np.asarray(jax.jit(jax.vmap(lambda k: rank_among(true, draws, key=k)))(keys))
    for fixed in range(2):
        counts = np.bincount(ranks[:, fixed], minlength=8)
        assert stats.chisquare(counts).pvalue > 1e-3
    assert np.all(ranks[:, 2] == 4)


def test_thinning_takes_draws_evenly_from_all_chains():
    draws = jnp.arange(24.0).reshape(2, 12, 1)
    np.testing.assert_array_equal(thinned(draws, 4)[:, 0], [3, 9, 15, 21])
    np.testing.assert_array_equal(thinned(draws, 24)[:, 0], np.arange(24))
    with pytest.raises(ValueError, match="num_ranks=25 of 24 draws"):
        thinned(draws, 25)
    assert labels({"a": jnp.zeros(()), "b": jnp.zeros((1, 2))}) == ["a", "b[0, 0]", "b[0, 1]"]


def test_predictive_checks_see_what_the_model_cannot_make():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    y[7] = 12.0  # an outlier that no normal law produces
    program = NormalWithVariance(jnp.asarray(y))
    draws = Conjugate(num_draws=400).sample(program, key=jax.random.key(2))

    def statistics(p):
        return {"mean": jnp.mean(p.y), "ends": jnp.stack([jnp.min(p.y), jnp.max(p.y)])}

    check = posterior_predictive_check(
        program, draws, statistics, batch_size=64, key=jax.random.key(3)
    )
    assert check.replicated["ends"].shape == (200, 2)
    assert float(check.p_value["ends"][1]) == 0.0
    assert 0.2 < float(check.p_value["mean"]) < 0.8
    table = check.table()
    assert list(table.index) == ["mean", "ends[0]", "ends[1]"]
    np.testing.assert_allclose(table.loc["ends[1]", "observed"], 12.0)
    # The predictive law of a mean of the data: both sources of noise, by the conjugate formulas.
    precision = 1 / RATIO + 200
    centre = y.sum() / precision
    rate = SCALE + 0.5 * (np.sum(y**2) - precision * centre**2)
    v = rate / (SHAPE + 100 - 1)
    spread = np.sqrt(v * (1 / precision + 1 / 200))
    found = np.asarray(check.replicated["mean"])
    assert abs(found.mean() - centre) < 4 * spread / np.sqrt(200)
    assert abs(found.std() / spread - 1) < 4 / np.sqrt(400)
    with pytest.raises(ValueError, match="num_replicates=500 of 400"):
        posterior_predictive_check(
            program, draws, statistics, num_replicates=500, key=jax.random.key(3)
        )


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="num_ranks=101 of 100"):
        simulation_based_calibration(
            PROGRAM, Conjugate(), num_data_sets=2, num_ranks=101, key=jax.random.key(1)
        )
    with pytest.raises(ValueError, match="num_data_sets"):
        simulation_based_calibration(PROGRAM, Conjugate(), num_data_sets=0, key=jax.random.key(1))
