"""Laws of innovations: unit moments, densities against scipy and arch, draws against densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxfc.volatility.innovations import GED, Normal, SkewedT, StudentT

pytestmark = pytest.mark.slow

CASES = [
    (Normal(), ()),
    (StudentT(), (4.5,)),
    (SkewedT(), (6.0, -0.3)),
    (SkewedT(), (6.0, 0.0)),
    (GED(), (0.8,)),
    (GED(), (1.4,)),
]
LAWS = pytest.mark.parametrize(("law", "shapes"), CASES, ids=lambda value: str(value)[:9])


@LAWS
def test_mean_zero_variance_one(law, shapes):
    density = jax.jit(lambda z: jnp.exp(law.log_density(z, jnp.asarray(shapes, float))))
    grid = np.sinh(np.linspace(-12.0, 12.0, 400_001))  # far tails, fine in the middle
    values = np.asarray(density(jnp.asarray(grid)))
    for power, moment in [(0, 1.0), (1, 0.0), (2, 1.0)]:
        found = integrate.simpson(values * grid**power, x=grid)
        assert found == pytest.approx(moment, abs=2e-5 if power == 2 else 1e-7)


def test_densities_are_those_of_scipy():
    points = np.linspace(-4.0, 4.0, 17)
    nu = 5.0
    scaled = stats.t(nu, scale=np.sqrt((nu - 2) / nu)).logpdf(points)
    ours = StudentT().log_density(jnp.asarray(points), jnp.asarray([nu]))
    np.testing.assert_allclose(ours, scaled, rtol=1e-12)
    np.testing.assert_allclose(
        SkewedT().log_density(jnp.asarray(points), jnp.asarray([nu, 0.0])), scaled, rtol=1e-12
    )
    law = stats.gennorm(1.3)
    ged = stats.gennorm(1.3, scale=1.0 / law.std()).logpdf(points)
    np.testing.assert_allclose(
        GED().log_density(jnp.asarray(points), jnp.asarray([1.3])), ged, rtol=1e-11
    )
    normal = Normal().log_density(jnp.asarray(points), jnp.zeros(0))
    np.testing.assert_allclose(normal, stats.norm.logpdf(points), rtol=1e-13)


def test_the_skewed_t_is_that_of_arch():
    distribution = pytest.importorskip("arch.univariate.distribution")
    points = np.linspace(-4.0, 4.0, 17)
    theirs = distribution.SkewStudent().loglikelihood(
        np.asarray([6.5, -0.25]), points, np.ones(17), individual=True
    )
    ours = SkewedT().log_density(jnp.asarray(points), jnp.asarray([6.5, -0.25]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)


@LAWS
def test_draws_follow_the_density(law, shapes):
    shapes = jnp.asarray(shapes, float)
    draws = np.asarray(law.draw((40_000,), shapes, key=jax.random.key(1)))
    for edge in (-1.0, 0.0, 1.5):
        grid = np.concatenate([-np.sinh(np.linspace(12.0, 0.0, 20_001)), [0.0]])
        grid = np.unique(np.concatenate([grid, np.linspace(-3.0, 3.0, 20_001)]))
        grid = grid[grid <= edge]
        values = np.exp(np.asarray(law.log_density(jnp.asarray(grid), shapes)))
        share = integrate.trapezoid(values, x=grid)
        # Three standard errors of a share of 40,000 draws.
        assert np.mean(draws <= edge) == pytest.approx(share, abs=3 * 0.5 / 200)


@LAWS
def test_shapes_without_bounds_come_back(law, shapes):
    shapes = jnp.asarray(shapes, float)
    np.testing.assert_allclose(law.shapes(law.free(shapes)), shapes, rtol=1e-12, atol=1e-15)
    starts = jnp.asarray(law.starts, float)
    assert starts.size == len(law.names) == len(law.bounds)
    assert bool(jnp.all(jnp.isfinite(law.free(starts))))


def test_the_ged_has_finite_derivatives_at_zero():
    slope = jax.grad(lambda z, nu: GED().log_density(z, nu[None]), argnums=(0, 1))
    assert all(bool(jnp.isfinite(part)) for part in slope(jnp.asarray(0.0), jnp.asarray(0.8)))
