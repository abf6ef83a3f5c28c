"""Simulation-based calibration: whether a sampler draws from the posterior it claims to.

If parameters come from the prior, data from the model given them, and draws from the posterior
given the data, then the true parameters and the draws are exchangeable, and the rank of a true
quantity among L independent draws is uniform on 0..L. Ranks in a cup say that posteriors are too
narrow, in a cap too wide, a slope that they are shifted.

Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018); the log likelihood as a quantity,
which sees posteriors that ignore the data: Modrák et al. (2023).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import map_in_batches, numbered_keys
from jaxfc.bayes.calibrate_bands import (
    band_statistic,
    count_band,
    rank_counts,
    rank_shares,
    simulated_statistics,
    tail_table,
)
from jaxfc.bayes.convergence import bulk_ess
from jaxfc.bayes.draws import Inference
from jaxfc.bayes.program import Parameters, Program
from jaxfc.counts import check_counts
from jaxfc.hypothesis import HypothesisTest, chi_squared_test
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd

Quantities = Callable[[Parameters], Parameters]

# What a model fixes differs between truth and draws by a few roundings: by far fewer than these.
ROUNDINGS = 256.0


class RankCalibration(eqx.Module):
    """Ranks of true quantities among posterior draws, one row a simulated data set.

    `ranks` in 0..num_ranks; `ess` the bulk effective sample size of all draws, of which `num_ranks`
    were ranked: where it is smaller than that, the ranks are those of dependent draws and
    too often extreme. `usable`: data sets whose draws are all finite; the others are counted, not
    ranked. `results` are the samplers' codes.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    num_ranks: int = eqx.field(static=True)
    ranks: Int[Array, "data_sets quantities"]
    ess: Float[Array, "data_sets quantities"]
    usable: Bool[Array, " data_sets"]
    results: RESULTS

    def counted(self) -> Int[Array, "usable quantities"]:
        """The ranks of the usable data sets (host side)."""
        return self.ranks[np.asarray(self.usable)]

    def chi_squared(self, num_bins: int = 8) -> HypothesisTest:
        """Pearson's test of equal frequencies in `num_bins` bins of equally many ranks.

        **Raises:** `ValueError` unless num_ranks + 1 is a multiple of `num_bins` (2 or more).
        """
        if num_bins < 2 or (self.num_ranks + 1) % num_bins:
            raise ValueError(
                f"{self.num_ranks + 1} ranks do not fall into {num_bins} equal bins; use a divisor."
            )
        ranks = self.counted()
        bins = ranks // ((self.num_ranks + 1) // num_bins)
        expected = ranks.shape[0] / num_bins
        found = jnp.sum(bins == jnp.arange(num_bins)[:, None, None], axis=1)
        statistic = jnp.sum((found - expected) ** 2, axis=0) / expected
        return chi_squared_test(statistic, num_bins - 1, jnp.full_like(statistic, ranks.shape[0]))

    def ecdf_difference(self) -> Float[Array, "ranks quantities"]:
        """Share of ranks of at most 0, 1, ..., num_ranks - 1, minus what it should be."""
        ranks = self.counted()
        counts = jax.vmap(lambda r: rank_counts(r, self.num_ranks), 1, 1)(ranks)
        return counts / ranks.shape[0] - rank_shares(self.num_ranks)[:, None]

    def ecdf_band(
        self, level: float = 0.95, *, num_simulations: int = 2000, key: PRNGKeyArray
    ) -> tuple[Float[Array, " ranks"], Float[Array, " ranks"]]:
        """Ends of the band that the differences of one calibrated quantity stay in, at all ranks
        at once, with probability `level`."""
        num_cases = self.counted().shape[0]
        statistics = simulated_statistics(num_cases, self.num_ranks, num_simulations, key)
        lower, upper = count_band(statistics, num_cases, self.num_ranks, level)
        shares = rank_shares(self.num_ranks)
        return lower / num_cases - shares, upper / num_cases - shares

    def ecdf_p_values(
        self, *, num_simulations: int = 2000, key: PRNGKeyArray
    ) -> Float[Array, " quantities"]:
        """Share of simulations of uniform ranks that leave the diagonal as far or farther."""
        ranks = self.counted()
        num_cases = ranks.shape[0]
        statistics = simulated_statistics(num_cases, self.num_ranks, num_simulations, key)
        tails = tail_table(num_cases, self.num_ranks)

        def statistic(ranks: Array) -> Array:
            return band_statistic(rank_counts(ranks, self.num_ranks), tails)

        found = jax.vmap(statistic, 1)(ranks)
        # Plus one: the sample itself is one of them (a p-value is never zero).
        return (jnp.sum(statistics[:, None] <= found, axis=0) + 1) / (num_simulations + 1)

    def table(
        self, level: float = 0.95, *, num_simulations: int | None = None, key: PRNGKeyArray
    ) -> "pd.DataFrame":
        """One row a quantity: p-values, mean and spread of the ranks, least ESS, verdict.

        `mean` of the ranks as shares should be 0.5 and `spread`, 12 times their variance, 1. The
        verdict says what is wrong where the band's p-value is below (1 - level) / quantities, so
        that all of a right sampler's quantities are called calibrated with probability `level`.

        **Raises:** `ValueError` for so few simulations that no p-value can be that small.
        """
        import pandas as pd

        needed = math.ceil(len(self.names) / (1.0 - level))
        if num_simulations is None:
            num_simulations = max(2000, 10 * needed)
        elif num_simulations + 1 <= needed:
            raise ValueError(
                f"{num_simulations} simulations cannot find one of {len(self.names)} quantities "
                f"wrong at level {level}; take {10 * needed}."
            )
        p_values = np.asarray(self.ecdf_p_values(num_simulations=num_simulations, key=key))
        shares = (np.asarray(self.counted()) + 0.5) / (self.num_ranks + 1)
        means, spreads = shares.mean(0), 12 * ((shares - 0.5) ** 2).mean(0)
        divisor = next(b for b in (8, 7, 6, 5, 4, 3, 2, 1) if (self.num_ranks + 1) % b == 0)
        chi = self.chi_squared(divisor).p_value if divisor > 1 else np.full(len(means), np.nan)
        limit = (1.0 - level) / len(self.names)
        verdicts = [
            "calibrated" if p > limit else what_is_wrong(mean, spread, len(shares))
            for p, mean, spread in zip(p_values, means, spreads, strict=True)
        ]
        columns = {
            "ecdf_p": p_values,
            "chi2_p": np.asarray(chi),
            "mean": means,
            "spread": spreads,
            "least_ess": np.asarray(self.ess)[np.asarray(self.usable)].min(0),
            "verdict": verdicts,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="quantity"))


def simulation_based_calibration(
    program: Program,
    inference: Inference,
    *,
    num_data_sets: int,
    num_ranks: int = 63,
    quantities: Quantities | None = None,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> RankCalibration:
    """Ranks of true quantities among the draws of `inference`, on data simulated from `program`.

    **Arguments:** `program` with any data: only what it says of shapes, missing cells and known
    inputs is used; its likelihood must be generative (no weights on the past). `num_ranks` L draws
    are ranked, evenly spaced over all chains: take fewer than their effective sample size, and
    L + 1 with divisors. `quantities` of the parameters, by name, default what the program
    identifies; the log likelihood is always added. `batch_size` data sets side by side (None: all).

    **Raises:** `ValueError` if `num_ranks` exceeds the draws, or for counts below 1.
    """
    check_counts(num_data_sets=num_data_sets, num_ranks=num_ranks)
    keys = numbered_keys(key, num_data_sets)
    names, ranks, ess, usable, results = ranked_data_sets(
        program, inference, quantities, keys, num_ranks, batch_size
    )
    return RankCalibration(names, num_ranks, ranks, ess, usable, results)


@eqx.filter_jit
def ranked_data_sets(
    program: Program,
    inference: Inference,
    quantities: Quantities | None,
    keys: Array,
    num_ranks: int,
    batch_size: int | None,
) -> tuple[tuple[str, ...], Array, Array, Array, RESULTS]:
    """Names of the quantities, and of each data set: ranks, ESS, whether finite, result."""
    names: list[str] = []

    def one(key: PRNGKeyArray) -> tuple[Array, Array, Array, RESULTS]:
        prior_key, data_key, sample_key, tie_key = jax.random.split(key, 4)
        truth = program.sample_prior(key=prior_key)
        simulated = program.simulated(truth, key=data_key)

        def looked_at(parameters: Parameters) -> Parameters:
            of = simulated.identified if quantities is None else quantities
            return {**of(parameters), "log_likelihood": simulated.log_likelihood(parameters)}

        draws = inference.sample(simulated, key=sample_key)
        true, drawn = looked_at(truth), draws.map(looked_at)
        names[:] = labels(true)
        flat = jnp.concatenate([jnp.ravel(true[name]) for name in true])
        cloud = jnp.concatenate(
            [drawn[name].reshape(*draws.log_density.shape, -1) for name in true], axis=2
        )
        ranks = rank_among(flat, thinned(cloud, num_ranks), key=tie_key)
        finite = jnp.all(jnp.isfinite(cloud)) & jnp.all(jnp.isfinite(flat))
        return ranks, bulk_ess(cloud), finite, draws.result

    answers = map_in_batches(one, keys, batch_size)
    return (tuple(names), *answers)


def labels(quantities: Parameters) -> list[str]:
    """A name for every number: `name`, `name[2]`, `name[0, 1]`."""
    found = []
    for name, value in quantities.items():
        shape = jnp.shape(value)
        places = [", ".join(map(str, place)) for place in np.ndindex(*shape)]
        found.extend(f"{name}[{place}]" if shape else name for place in places)
    return found


def thinned(
    draws: Float[Array, "chains draws quantities"], num_ranks: int
) -> Float[Array, "ranks quantities"]:
    """Draws evenly spaced over all chains.

    **Raises:** `ValueError` for more than there are.
    """
    num_draws = draws.shape[0] * draws.shape[1]
    if num_ranks > num_draws:
        raise ValueError(f"num_ranks={num_ranks} of {num_draws} draws; draw more or rank fewer.")
    return draws.reshape(num_draws, -1)[evenly_spaced(num_ranks, num_draws)]


def evenly_spaced(count: int, total: int) -> np.ndarray:
    """`count` places in the middle of equal parts of 0..total - 1."""
    return ((2 * np.arange(count) + 1) * total) // (2 * count)


def rank_among(
    true: Float[Array, " quantities"],
    draws: Float[Array, "ranks quantities"],
    *,
    key: PRNGKeyArray,
) -> Int[Array, " quantities"]:
    """How many draws are smaller; ties are broken at random, those that rounding hides too.

    All numbers are blurred by some roundings of their own size. Truth and draws alike, so that they
    stay exchangeable; a slack within which numbers count as equal would not keep ranks uniform.
    """
    blur_key, tie_key = jax.random.split(key)
    numbers = jnp.concatenate([true[None], draws])
    noise = jax.random.uniform(blur_key, numbers.shape, numbers.dtype, -1.0, 1.0)
    numbers = numbers * (1.0 + ROUNDINGS * jnp.finfo(numbers.dtype).eps * noise)
    smaller = jnp.sum(numbers[1:] < numbers[0], axis=0)
    equal = jnp.sum(numbers[1:] == numbers[0], axis=0)
    return smaller + jax.random.randint(tie_key, true.shape, 0, equal + 1)


def what_is_wrong(mean: float, spread: float, num_cases: int) -> str:
    """Where ranks that are not uniform deviate most: in their mean or in their spread."""
    shift = np.sqrt(12 * num_cases) * (mean - 0.5)
    width = np.sqrt(num_cases / 0.8) * (spread - 1.0)  # the variance of 12 (u - 1/2)^2 is 0.8
    if max(abs(shift), abs(width)) < 2.0:
        return "not uniform"
    if abs(shift) > abs(width):
        return "posterior too high" if shift < 0 else "posterior too low"
    return "posterior too narrow" if width > 0 else "posterior too wide"
