"""dynamax, with which smoothers are compared."""

import jax.numpy as jnp
from dynamax.linear_gaussian_ssm import (
    ParamsLGSSM,
    ParamsLGSSMDynamics,
    ParamsLGSSMEmissions,
    ParamsLGSSMInitial,
)

from jaxfc.state_space import StateSpace


def dynamax_params(space: StateSpace) -> ParamsLGSSM:
    """The same state space for dynamax; a vector of variances stays one."""
    no_inputs = jnp.zeros((space.num_states, 0)), jnp.zeros((space.num_series, 0))
    offset, noise = space.observation_offset, space.observation_cov
    return ParamsLGSSM(
        initial=ParamsLGSSMInitial(space.initial_mean, space.initial_cov),
        dynamics=ParamsLGSSMDynamics(
            space.transition, space.offset, no_inputs[0], space.innovation_cov
        ),
        emissions=ParamsLGSSMEmissions(space.design, offset, no_inputs[1], noise),
    )
