"""Whether the draws of a posterior can be trusted: chains that do not mix, stand still or diverge,
energy that is not explored, approximations that miss a part."""

import math
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.convergence import convergence, energy_bfmi
from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.program import Parameters, Program
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, as_scalar

if TYPE_CHECKING:
    import pandas as pd


class Limits(eqx.Module):
    """From where on draws are not to be trusted.

    `rhat` above, effective sample sizes of all chains together below `ess`, a share of divergent
    transitions above `divergent`, E-BFMI of a chain below `bfmi`, Pareto k above `pareto_k`. A
    chain is frozen if its step is below `step` times the median step of all, if a share of its
    transitions below `moved` was accepted, or if the sd of its log density is below
    `log_density_sd`: of draws from a law over d numbers it is about sqrt(d/2).
    """

    rhat: Float[Array, ""] = eqx.field(default=1.01, converter=as_scalar)
    ess: Float[Array, ""] = eqx.field(default=400.0, converter=as_scalar)
    divergent: Float[Array, ""] = eqx.field(default=0.001, converter=as_scalar)
    bfmi: Float[Array, ""] = eqx.field(default=0.3, converter=as_scalar)
    pareto_k: Float[Array, ""] = eqx.field(default=0.7, converter=as_scalar)
    step: Float[Array, ""] = eqx.field(default=0.001, converter=as_scalar)
    moved: Float[Array, ""] = eqx.field(default=0.02, converter=as_scalar)
    log_density_sd: Float[Array, ""] = eqx.field(default=0.05, converter=as_scalar)


class Diagnostics(eqx.Module):
    """What can be said of the chains of a posterior.

    `rhat`, `bulk_ess` and `tail_ess` by name of the quantity, each of the shape of the quantity;
    `bfmi`, `frozen` and `divergent` (share of transitions) by chain; `result` is the most serious
    finding. Numbers that are the same in all draws have no R-hat (NaN), which counts for nothing.
    """

    rhat: Parameters
    bulk_ess: Parameters
    tail_ess: Parameters
    bfmi: Float[Array, " chains"]
    frozen: Bool[Array, " chains"]
    divergent: Float[Array, " chains"]
    num_divergent: Int[Array, ""]
    pareto_k: Float[Array, ""]
    result: RESULTS

    @property
    def max_rhat(self) -> Float[Array, ""]:
        """The largest R-hat of all quantities."""
        return jnp.nanmax(joined(self.rhat, 1.0))

    @property
    def min_bulk_ess(self) -> Float[Array, ""]:
        """The smallest bulk effective sample size of all quantities, NaN if one is not finite."""
        return jnp.min(joined(self.bulk_ess, jnp.inf))

    @property
    def min_tail_ess(self) -> Float[Array, ""]:
        """The smallest tail effective sample size of all quantities, NaN if one is not finite."""
        return jnp.min(joined(self.tail_ess, jnp.inf))

    def table(self) -> "pd.DataFrame":
        """One row for each name: how many numbers, and the worst of them with its position."""
        import pandas as pd

        rows = {}
        for name, rhat in self.rhat.items():
            rhat, bulk = np.asarray(rhat), np.asarray(self.bulk_ess[name])
            tail = np.asarray(self.tail_ess[name])
            if rhat.size == 0:
                continue
            worst = np.unravel_index(np.argmin(np.fmin(bulk, tail)), bulk.shape)
            rows[name] = {
                "numbers": rhat.size,
                "max_rhat": np.fmax.reduce(rhat, axis=None),
                "min_bulk_ess": bulk.min(),
                "min_tail_ess": tail.min(),
                "fewest_at": ", ".join(str(int(place)) for place in worst),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def diagnose(
    draws: PosteriorDraws, identified: Parameters, *, limits: Limits | None = None
) -> Diagnostics:
    """Diagnostics of `draws`, of whose parameters the data identify what is in `identified`.

    **Arguments:** `identified` by name, each (chains, draws, ...), e.g.
    `draws.map(program.identified)`; `limits` from where on a finding becomes the `result`. Of
    several findings that is the first of: not finite, a frozen chain, divergent transitions, not
    mixed, few effective draws, energy not explored, a poor approximation.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    limits = Limits() if limits is None else limits
    dtype = draws.log_density.dtype
    # All quantities on one axis: one program to compile, whatever their shapes.
    chains = draws.log_density.shape
    flat = [jnp.zeros((*chains, 0), dtype)]
    flat += [value.astype(dtype).reshape(*chains, -1) for value in identified.values()]
    rhat, bulk, tail = (
        named_parts(numbers, identified) for numbers in convergence(jnp.concatenate(flat, axis=2))
    )
    diagnostics = Diagnostics(
        rhat=rhat,
        bulk_ess=bulk,
        tail_ess=tail,
        bfmi=energy_bfmi(draws.energy),
        frozen=frozen_chains(draws, limits),
        divergent=jnp.mean(draws.divergent.astype(dtype), axis=1),
        num_divergent=jnp.sum(draws.divergent),
        pareto_k=draws.pareto_k,
        result=SUCCESSFUL,
    )
    return eqx.tree_at(lambda d: d.result, diagnostics, verdict(draws, diagnostics, limits))


def named_parts(numbers: Float[Array, " numbers"], like: Parameters) -> Parameters:
    """`numbers` of all quantities in a row, cut into the names and shapes of `like`."""
    found, start = {}, 0
    for name, value in like.items():
        shape = value.shape[2:]
        size = math.prod(shape)
        found[name] = numbers[start : start + size].reshape(shape)
        start += size
    return found


def judged(
    draws: PosteriorDraws, program: Program, *, limits: Limits | None = None
) -> PosteriorDraws:
    """`draws` with the verdict of `diagnose` on what `program` identifies as their result.

    Draws that already have another result than successful keep it.
    """
    found = diagnose(draws, draws.map(program.identified), limits=limits)
    result = select(draws.result == SUCCESSFUL, found.result, draws.result)
    return eqx.tree_at(lambda d: d.result, draws, result)


def verdict(draws: PosteriorDraws, found: Diagnostics, limits: Limits) -> RESULTS:
    """The most serious finding."""
    few = jnp.minimum(found.min_bulk_ess, found.min_tail_ess)
    finite = jnp.all(jnp.isfinite(draws.log_density)) & ~jnp.isnan(few)
    result = SUCCESSFUL
    for holds, code in (
        (found.pareto_k > limits.pareto_k, RESULTS.poor_approximation),
        (jnp.any(found.bfmi < limits.bfmi), RESULTS.energy_not_explored),
        (few < limits.ess, RESULTS.few_effective_draws),
        (found.max_rhat > limits.rhat, RESULTS.not_mixed),
        (jnp.mean(found.divergent) > limits.divergent, RESULTS.divergent_transitions),
        (jnp.any(found.frozen), RESULTS.frozen_chain),
        (~finite, RESULTS.diverged),
    ):
        result = select(holds, code, result)  # pyright: ignore
    return result


def frozen_chains(draws: PosteriorDraws, limits: Limits) -> Bool[Array, " chains"]:
    """Which chains stand still, as `Limits` says."""
    tiny_step = draws.step_size < limits.step * jnp.median(draws.step_size)
    moved = jnp.mean(draws.moved.astype(draws.log_density.dtype), axis=1)
    spread = jnp.std(draws.log_density, axis=1)
    return tiny_step | (moved < limits.moved) | (spread < limits.log_density_sd)


def joined(numbers: Parameters, otherwise: float) -> Float[Array, " numbers"]:
    """All numbers of a dictionary on one axis, after `otherwise`, which stands for none."""
    return jnp.concatenate([jnp.asarray([otherwise]), *(v.ravel() for v in numbers.values())])
