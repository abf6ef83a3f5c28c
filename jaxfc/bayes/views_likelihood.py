"""Views in the likelihood of a Bayesian model: for when reweighting leaves too few draws."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.bayes.program import Parameters, Priors, Program
from jaxfc.bayes.views_methods import check_degrees, check_densities, student_log_density
from jaxfc.bayes.views_statements import Statements, View, names_of, resolve
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar

if TYPE_CHECKING:
    from jaxfc.panel import Panel

Expected = Callable[[Program, Parameters], Float[Array, "horizon series"]]


@final
class ViewedProgram(Program):
    """A program that has also observed views on what it expects.

        ln L = ln L_program + sum_k ln t_nu((m_k - a_k' E[r | parameters]) / sd_k) / sd_k

    Sampling from it is the exact counterpart of `with_views(..., method=ExpectedReturn(...))`.
    `expected(program, parameters)` gives E[r | parameters] of the coming rows, (horizon, series):
    a method of the program's class, unbound. It is called with whatever program stands inside, so
    that views stay right on simulated data, which come with simulated views.
    """

    program: Program
    views: Statements
    degrees: Float[Array, "..."]
    expected: Expected = eqx.field(static=True)

    def __init__(
        self,
        program: Program,
        views: Statements,
        expected: Expected,
        *,
        degrees: float | Float[Array, "..."] = jnp.inf,
    ):
        """**Arguments:** `views` by `resolve` or `viewed_program`; `degrees` nu of the noise of the
        views, one or one for each; infinite: normal.

        **Raises:** `ValueError` for degrees of another shape or not positive."""
        self.program = program
        self.views = views
        self.degrees = jnp.asarray(degrees, as_scalar(0.0).dtype)
        self.expected = expected
        check_degrees(self.degrees, views.sds.shape)

    def priors(self) -> Priors:
        return self.program.priors()

    def start(self) -> Parameters:
        return self.program.start()

    def identified(self, parameters: Parameters) -> Parameters:
        return self.program.identified(parameters)

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        z = (self.views.means - self.said(parameters)) / self.views.sds
        density = student_log_density(z, self.degrees) - jnp.log(self.views.sds)
        heard = jnp.isfinite(self.views.sds)  # an infinite sd is no view
        views = jnp.sum(jnp.where(heard, density, 0.0))
        return self.program.log_likelihood(parameters) + views

    def simulated(self, parameters: Parameters, *, key: PRNGKeyArray) -> "ViewedProgram":
        data_key, view_key = jax.random.split(key)
        said = self.said(parameters)
        sds = jnp.where(jnp.isfinite(self.views.sds), self.views.sds, 0.0)
        normal_key, chi_key = jax.random.split(view_key)
        finite = jnp.isfinite(self.degrees)
        nu = jnp.broadcast_to(jnp.where(finite, self.degrees, 1.0), said.shape)
        # Student's t is a normal over the root of a chi-squared over its degrees.
        share = 2.0 * jax.random.gamma(chi_key, 0.5 * nu, said.shape) / nu
        noise = jax.random.normal(normal_key, said.shape, said.dtype)
        means = said + sds * noise / jnp.where(finite, jnp.sqrt(share), 1.0)
        views = eqx.tree_at(lambda v: v.means, self.views, means)
        program = self.program.simulated(parameters, key=data_key)
        return ViewedProgram(program, views, self.expected, degrees=self.degrees)

    def said(self, parameters: Parameters) -> Float[Array, " views"]:
        """a_k' E[r | parameters]."""
        expected = self.expected(self.program, parameters)
        return jnp.einsum("khi,hi->k", self.views.directions, expected)


def viewed_program(
    program: Program,
    views: View | Sequence[View],
    expected: Expected,
    *,
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    degrees: float | Float[Array, "..."] = jnp.inf,
) -> ViewedProgram:
    """`ViewedProgram` of views by the names of the series that `expected` is about (host side).

    **Raises:** `ValueError` as `with_views`: unknown names, and views that have no density.
    """
    shape = jax.eval_shape(expected, program, program.start()).shape
    statements = resolve(views, names_of(names, shape[1]), classes, horizon=shape[0])
    check_densities("ViewedProgram", statements)
    return ViewedProgram(program, statements, expected, degrees=degrees)
