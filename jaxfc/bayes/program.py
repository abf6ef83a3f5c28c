"""A Bayesian model given its data: a density over a dictionary of named arrays.

A `Program` says the law of each parameter given those before it, and the likelihood. From these two
follow the density that samplers see (over unconstrained numbers, with the Jacobian of what maps
them to the parameters), draws from the prior, and a NumPyro program. Everything is a pure function
of arrays, for `jit`, `vmap` and `grad`; the NumPyro program wraps the density, not the reverse.
"""

import abc
from collections.abc import Callable
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro.distributions import Distribution, ImproperUniform, biject_to

from jaxfc.typing import Array, Float, PRNGKeyArray

Parameters = dict[str, Array]
"""Values of the parameters, by name, in the units of the model."""
Position = dict[str, Array]
"""The same as unconstrained numbers: log scales, Fisher-z correlations, ..."""
Priors = dict[str, Callable[[Parameters], Distribution]]
"""The law of each parameter given those that stand before it."""


class Program(eqx.Module):
    """A Bayesian model given its data.

    log p(parameters | data) = sum_name ln prior_name(. | those before it) + ln likelihood
    """

    @abc.abstractmethod
    def priors(self) -> Priors:
        """By name, in the order of drawing, the law of a parameter given those before it.

        Batch and event shapes of the law are the shape of the parameter.
        """

    @abc.abstractmethod
    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        """ln p(data | parameters), observed cells only; a power of it where rows are weighted."""

    @abc.abstractmethod
    def start(self) -> Parameters:
        """Values near the posterior to start chains from, computed from the data."""

    @abc.abstractmethod
    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "Program":
        """The same program on data drawn given `parameters`; what is missing stays missing."""

    def identified(self, parameters: Parameters) -> Parameters:
        """Quantities that the data identify, which diagnostics are about: all, if not overridden.

        A model with a rotation gives what no rotation changes.
        """
        return parameters

    @final
    def log_prior(self, parameters: Parameters) -> Float[Array, ""]:
        """The sum of the log densities of the priors at `parameters`."""
        return sum(
            (jnp.sum(law(parameters).log_prob(parameters[n])) for n, law in self.priors().items()),
            start=jnp.asarray(0.0),
        )

    @final
    def constrain(self, position: Position) -> Parameters:
        """The parameters at unconstrained `position`."""
        return self.walk(position)[0]

    @final
    def unconstrain(self, parameters: Parameters) -> Position:
        """The unconstrained numbers of `parameters`."""
        return {
            name: biject_to(law(parameters).support).inv(parameters[name])
            for name, law in self.priors().items()
        }

    @final
    def log_density(self, position: Position) -> Float[Array, ""]:
        """The log posterior over unconstrained numbers, up to a constant: prior, Jacobian,
        likelihood."""
        parameters, log_prior = self.walk(position)
        return log_prior + self.log_likelihood(parameters)

    @final
    def walk(self, position: Position) -> tuple[Parameters, Float[Array, ""]]:
        """The parameters at `position`, and their log prior with the Jacobian of the mapping."""
        parameters: Parameters = {}
        total = jnp.asarray(0.0)
        for name, prior in self.priors().items():
            law = prior(parameters)
            mapping = biject_to(law.support)
            value = mapping(position[name])
            jacobian = mapping.log_abs_det_jacobian(position[name], value)
            total = total + jnp.sum(law.log_prob(value)) + jnp.sum(jacobian)
            parameters[name] = value
        return parameters, total

    @final
    def sample_prior(self, *, key: PRNGKeyArray) -> Parameters:
        """One draw of the parameters from their prior."""
        parameters: Parameters = {}
        for place, (name, prior) in enumerate(self.priors().items()):
            drawn = prior(parameters).sample(jax.random.fold_in(key, place))
            parameters[name] = jnp.asarray(drawn)
        return parameters

    @final
    def flat(self) -> tuple[Float[Array, " size"], Callable[[Float[Array, " size"]], Position]]:
        """`start` as one unconstrained vector, and the function that names a vector's parts."""
        return ravel_pytree(self.unconstrain(self.start()))

    @final
    def numpyro_program(self) -> Callable[[], None]:
        """The model as a NumPyro program with one site per parameter."""
        shapes = self.start()

        def program() -> None:
            parameters: Parameters = {}
            for name, prior in self.priors().items():
                law = prior(parameters)
                shape = jnp.shape(shapes[name])
                flat = ImproperUniform(law.support, (), shape)
                parameters[name] = numpyro.sample(name, flat)  # pyright: ignore
            # A deterministic site makes NumPyro run the program again for every draw it returns:
            # what maps a parameter depends on those before it.
            loglik = numpyro.deterministic("log_likelihood", self.log_likelihood(parameters))
            numpyro.factor("log_density", self.log_prior(parameters) + loglik)

        return program
