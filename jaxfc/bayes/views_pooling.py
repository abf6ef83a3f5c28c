"""Entropy pooling: the least change of the weights of draws that gives stated moments.

With moments g_j(r) that should have means t_j, exactly (s_j = 0) or give or take s_j,

    min_q KL(q | p) + sum_j (E_q g_j - t_j)^2 / (2 s_j^2)

is solved by weights q_d ~ p_d exp(lambda' (g_d - t)), where lambda makes the gradient of the convex
dual zero: E_q g - t + s^2 lambda = 0. The minimum is -ln sum_d p_d exp(lambda'(g_d - t))
- sum s^2 lambda^2 / 2.

Source: Meucci (2008), Fully flexible views; the penalty as a soft view is the Gaussian posterior
mean where p is Gaussian.
"""

import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from jaxfc.bayes.views_statements import Statements
from jaxfc.typing import Array, Bool, Float


def pooled_weights(
    draws: Float[Array, "draws horizon series"],
    weights: Float[Array, " draws"],
    views: Statements,
    *,
    tolerance: Float[Array, ""],
    max_steps: int,
) -> tuple[Float[Array, " draws"], Float[Array, ""], Bool[Array, ""]]:
    """The weights, the minimum, and whether the stated moments were reached."""
    moments, sds = stated_moments(draws, weights, views)
    centre = weights @ moments
    spread = jnp.sqrt(weights @ (moments - centre) ** 2)
    unit = jnp.where(spread > 0.0, spread, 1.0)  # so that one tolerance fits all moments
    gaps, softness = moments / unit, (sds / unit) ** 2
    # (1 : s^2) as shares, so that neither zero nor infinite sds need a case of their own.
    hard = 1.0 / (1.0 + softness)

    def tilted(multipliers: Array) -> Array:
        return jax.nn.softmax(jnp.log(weights) + gaps @ multipliers)

    def residual(multipliers: Array, _: None) -> Array:
        return hard * (tilted(multipliers) @ gaps) + (1.0 - hard) * multipliers

    # By normal equations: the QR of the default has no stable name on an accelerator.
    solver = optx.LevenbergMarquardt(tolerance, tolerance, linear_solver=lx.Normal(lx.Cholesky()))  # pyright: ignore
    found = optx.root_find(
        residual, solver, jnp.zeros_like(centre), max_steps=max_steps, throw=False
    )
    multipliers = found.value
    soft = jnp.where(jnp.isfinite(softness), softness, 0.0)
    log_total = jax.nn.logsumexp(gaps @ multipliers, b=weights)
    minimum = -log_total - 0.5 * jnp.sum(soft * multipliers**2)
    precision = 10.0 * jnp.sqrt(jnp.finfo(draws.dtype).eps)
    solved = jnp.max(jnp.abs(residual(multipliers, None)), initial=0.0) < precision
    return tilted(multipliers), minimum, solved


def stated_moments(
    draws: Float[Array, "draws horizon series"], weights: Float[Array, " draws"], views: Statements
) -> tuple[Float[Array, "draws moments"], Float[Array, " moments"]]:
    """Moments of each draw minus what they should be on average, and how exactly they should."""
    returns = jnp.einsum("khi,dhi->dk", views.directions, draws) - views.means
    tails = jnp.einsum("khi,dhi->dk", views.tail_directions, draws) > views.thresholds
    spoken_of = jnp.einsum("khi,dhi->dk", views.spread_directions, draws)
    given = jnp.isfinite(views.spread_means)
    means = jnp.where(given, views.spread_means, weights @ spoken_of)
    around = spoken_of - means
    moments = [returns, tails - views.probabilities, around, around**2 - views.spread_sds**2]
    exact = jnp.zeros(sum(m.shape[1] for m in moments[1:]), draws.dtype)
    return jnp.concatenate(moments, axis=1), jnp.concatenate([views.sds, exact])
