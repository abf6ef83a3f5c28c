"""What a draw of factor stochastic volatility says of the rows to come."""

import jax.numpy as jnp

from jaxfc.bayes.factor_volatility_filter import VolatilityLaw
from jaxfc.bayes.factor_volatility_program import FactorVolatilityProgram
from jaxfc.bayes.program import Parameters
from jaxfc.typing import Array, Float


def volatility_law(form: FactorVolatilityProgram, parameters: Parameters) -> VolatilityLaw:
    """The model at one draw as the filter takes it; errors that are not stochastic by their
    variances."""
    loadings, level = parameters["loadings"], parameters["error_level"]
    zeros = jnp.zeros_like(level)
    phi, sigma = zeros, zeros
    if form.errors == "stochastic":
        phi, sigma = parameters["error_phi"], parameters["error_sigma"]
    if form.errors == "student":
        level = level + jnp.log1p(2.0 / parameters["excess_degrees"])
    return VolatilityLaw(
        intercept=parameters["intercept"],
        loadings=loadings,
        levels=jnp.concatenate([jnp.zeros_like(parameters["factor_phi"]), level]),
        phi=jnp.concatenate([parameters["factor_phi"], phi]),
        sigma=jnp.concatenate([parameters["factor_sigma"], sigma]),
    )


def last_logs(program: FactorVolatilityProgram, parameters: Parameters) -> Float[Array, " states"]:
    """The drawn log variances of the last row, factors first, in the sense of `volatility_law`."""
    law = volatility_law(program, parameters)
    factor_logs = program.factor_logs(parameters)[-1]
    if program.errors != "stochastic":
        return jnp.concatenate([factor_logs, law.levels[program.num_factors :]])
    return jnp.concatenate([factor_logs, program.error_logs(parameters)[-1]])


def static(parameters: Parameters) -> Parameters:
    """Without the paths over time, which are most of the memory."""
    paths = ("factor_path", "error_path", "factors")
    return {name: value for name, value in parameters.items() if name not in paths}
