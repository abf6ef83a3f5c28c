"""How models are calibrated in the tests: chains, verdicts, and what a program integrates out."""

import abc
import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax

from jaxfc.bayes.calibrate import RankCalibration, simulation_based_calibration
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.program import Parameters, Program

# All quantities of a right model and sampler are called calibrated with this probability, by test.
LEVEL = 0.99
NUM_RANKS = 31
QUICK, MANY = 32, 200


def short_chains(num_leapfrogs: int) -> PooledHMC:
    """For tests that take seconds: a draw in five is ranked."""
    return PooledHMC(2, 80, 150, num_leapfrogs)


def long_chains(num_leapfrogs: int, num_draws: int = 200) -> PooledHMC:
    """For slow tests: a draw in 25 is ranked."""
    return PooledHMC(4, num_draws, 300, num_leapfrogs)


def ranked(
    program: Program, inference: Inference, num_data_sets: int, *, seed: int = 0, **options
) -> RankCalibration:
    """Ranks in `num_data_sets` data sets."""
    return simulation_based_calibration(
        program,
        inference,
        num_data_sets=num_data_sets,
        num_ranks=NUM_RANKS,
        key=jax.random.key(seed),
        **options,
    )


def assert_calibrated(found: RankCalibration, least_usable: float = 1.0) -> None:
    """The ranks of all quantities are uniform, in data sets of which this share could be ranked."""
    assert found.counted().shape[0] >= least_usable * found.usable.size
    table = found.table(LEVEL, num_simulations=20_000, key=jax.random.key(1))
    wrong = table[table["verdict"] != "calibrated"]
    assert wrong.empty, f"\n{wrong.to_string()}"


class WithLatents(Program):
    """A program with quantities that are no parameters of it, ranked beside its own.

    `complete` draws them with the data given the parameters: the truth, kept in `latents`;
    `recovered` draws them given parameters and data, as users are given them.
    """

    inner: eqx.AbstractVar[Program]
    latents: eqx.AbstractVar[Parameters]

    @abc.abstractmethod
    def complete(self, parameters: Parameters, *, key) -> tuple[Program, Parameters]:
        """The program of simulated data, and the true latent quantities."""

    @abc.abstractmethod
    def recovered(self, parameters: Parameters, *, key) -> Parameters:
        """The latent quantities given parameters and data."""

    def priors(self):
        return self.inner.priors()

    def log_likelihood(self, parameters):
        return self.inner.log_likelihood(parameters)

    def start(self):
        return self.inner.start()

    def simulated(self, parameters, *, key):
        inner, latents = self.complete(parameters, key=key)
        return dataclasses.replace(self, inner=inner, latents=latents)

    def identified(self, parameters):
        drawn = {name: parameters.get(name, true) for name, true in self.latents.items()}
        return self.inner.identified(parameters) | drawn


class WithNextRow(WithLatents):
    """A program whose parameters hold all that its forecast starts from: the row after the data."""

    inner: Program
    predict: Callable = eqx.field(static=True)
    latents: Parameters = eqx.field(default_factory=dict)

    def complete(self, parameters, *, key):
        data_key, next_key = jax.random.split(key)
        inner = self.inner.simulated(parameters, key=data_key)
        return inner, {"next_row": self.predict(self.inner, parameters, key=next_key)}

    def recovered(self, parameters, *, key):
        return {"next_row": self.predict(self.inner, parameters, key=key)}


class ThenLatents(Inference):
    """Draws of the parameters of a `WithLatents`, and of its latent quantities given each."""

    sampler: Inference

    def sample(self, program: Program, *, key) -> PosteriorDraws:
        assert isinstance(program, WithLatents)
        draw_key, latent_key = jax.random.split(key)
        draws = self.sampler.sample(program.inner, key=draw_key)
        keys = jax.random.split(latent_key, draws.num_draws)

        def one(case):
            return program.recovered(case[0], key=case[1])

        found = jax.lax.map(one, (draws.pooled(), keys), batch_size=min(64, draws.num_draws))
        shape = draws.log_density.shape
        latents = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
        return dataclasses.replace(draws, parameters=draws.parameters | latents)
