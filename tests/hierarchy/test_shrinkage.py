"""Three levels of coefficients: golden values, the dense joint law, EM, invariances, holes."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfc.hierarchy.levels import Evidence, evidence_of_estimates, rooted
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.three_levels import Market, Spreads, sectors_of, three_levels
from jaxfc.results import RESULTS, is_okay

MEMBERS = np.array([0, 2, 0, 1, 2, 2, 0])
NUM_SECTORS = 3
LAW = jax.jit(three_levels)


def scalar_case():
    """The two sectors of the golden example."""
    estimates = jnp.array([1.2, 0.8, 1.5, 0.5, 0.9])[:, None]
    covs = jnp.array([0.04, 0.01, 0.25, 0.09, 0.04])[:, None, None]
    spreads = Spreads(jnp.full((2, 1, 1), 0.04), jnp.full((1, 1), 0.02))
    sectors = sectors_of(jnp.array([0, 0, 0, 1, 1]), 2, 1)
    return evidence_of_estimates(estimates, covs), sectors, spreads


def test_golden_values_with_a_known_market():
    law = LAW(*scalar_case(), Market(jnp.ones(1), jnp.zeros((1, 1))))
    assert_allclose(law.sector_means[:, 0], [1.00260782, 0.92739726], atol=5e-9)
    means = [1.10130391, 0.84052156, 1.07121364, 0.79589041, 0.91369863]
    assert_allclose(law.means[:, 0], means, atol=5e-9)
    variances = [0.02290873, 0.00846540, 0.04312939, 0.03452055, 0.02356164]
    assert_allclose(law.covs[:, 0, 0], variances, atol=5e-9)


def test_golden_values_with_an_unknown_market():
    law = LAW(*scalar_case())
    assert float(law.market_mean[0]) == pytest.approx(0.9008466658881231, abs=1e-15)
    means = [1.07246292, 0.82898517, 1.02148780, 0.74699288, 0.87838374]
    assert_allclose(law.means[:, 0], means, atol=5e-9)


def random_covs(rng, number, size, scale):
    roots = rng.normal(size=(number, size, size))
    return scale * (roots @ np.swapaxes(roots, 1, 2) + 0.3 * np.eye(size))


@pytest.fixture(scope="module")
def case():
    """Two coefficients, seven assets: one without data, one with one observation of two."""
    rng = np.random.default_rng(4)
    number, size = len(MEMBERS), 2
    covs = random_covs(rng, number, size, 0.3)
    estimates = rng.normal(1.0, 0.7, size=(number, size))
    information = np.linalg.inv(covs)
    information[4] = 0.0
    direction = np.array([1.5, -0.7])
    information[5] = np.outer(direction, direction)
    vectors = np.einsum("iab,ib->ia", information, estimates)
    characteristics = np.stack([np.ones(number), rng.normal(size=number)], axis=1)
    within = random_covs(rng, NUM_SECTORS, size, 0.1)
    between = random_covs(rng, 1, 4, 0.2)[0]
    market = rng.normal(size=4), random_covs(rng, 1, 4, 0.5)[0]
    return information, vectors, characteristics, within, between, market


def evidence_of(information, vectors):
    roots, targets = rooted(jnp.asarray(information), jnp.asarray(vectors))
    return Evidence(roots, targets, jnp.zeros(len(vectors)))


def dense_posterior(information, vectors, characteristics, within, between, market):
    """All coefficients stacked (market, sectors, assets): prior precision plus information."""
    number, size = vectors.shape
    width = size * characteristics.shape[1]
    wide = width * (1 + NUM_SECTORS)
    total = wide + number * size
    precision, vector, log_det = np.zeros((total, total)), np.zeros(total), 0.0

    def add(weights, cov, known=0.0):
        """A prior N(known, cov) of weights @ everything."""
        nonlocal log_det
        inverse = np.linalg.inv(cov)
        precision[:] += weights.T @ inverse @ weights
        vector[:] += weights.T @ inverse @ (known + np.zeros(len(cov)))
        log_det += np.linalg.slogdet(cov)[1]

    everything = np.eye(total)
    square = 0.0
    if market is not None:
        add(everything[:width], market[1], market[0])
        square = market[0] @ np.linalg.solve(market[1], market[0])
    sector_rows = [everything[width * (s + 1) : width * (s + 2)] for s in range(NUM_SECTORS)]
    for rows in sector_rows:
        add(rows - everything[:width], between)
    for i, s in enumerate(MEMBERS):
        rows = everything[wide + i * size : wide + (i + 1) * size]
        add(rows - np.kron(np.eye(size), characteristics[i]) @ sector_rows[s], within[s])
        precision += rows.T @ information[i] @ rows
        vector += rows.T @ vectors[i]
    cov = np.linalg.inv(precision)
    mean = cov @ vector
    # ln of the integral of exp(h'x - x'Jx / 2) over the prior; constants of the data are zero
    loglik = 0.5 * (vector @ mean - log_det - np.linalg.slogdet(precision)[1] - square)
    loglik += 0.0 if market is not None else 0.5 * width * np.log(2 * np.pi)
    return mean, cov, loglik, wide, width


@pytest.mark.parametrize("known", [True, False], ids=["market known in part", "market flat"])
def test_the_law_is_that_of_the_dense_joint_gaussian(case, known):
    information, vectors, characteristics, within, between, market = case
    if not known:
        market = None
    mean, cov, loglik, wide, width = dense_posterior(
        information, vectors, characteristics, within, between, market
    )
    evidence = evidence_of(information, vectors)
    # ln p is c + h'th - th'J th / 2: the constant of the square is r'r / 2
    evidence = Evidence(evidence.roots, evidence.targets, 0.5 * jnp.sum(evidence.targets**2, 1))
    sectors = sectors_of(jnp.asarray(MEMBERS), NUM_SECTORS, 2, jnp.asarray(characteristics))
    spreads = Spreads(jnp.asarray(within), jnp.asarray(between))
    prior = None if market is None else Market(*map(jnp.asarray, market))
    law = LAW(evidence, sectors, spreads, prior)
    assert_allclose(law.market_mean, mean[:width], rtol=1e-9)
    assert_allclose(law.market_cov, cov[:width, :width], rtol=1e-9, atol=1e-12)
    assert_allclose(np.ravel(law.sector_means), mean[width:wide], rtol=1e-9)
    assert_allclose(np.ravel(law.means), mean[wide:], rtol=1e-9)
    for s in range(NUM_SECTORS):
        block = slice(width * (s + 1), width * (s + 2))
        assert_allclose(law.sector_covs[s], cov[block, block], rtol=1e-8, atol=1e-11)
        apart = np.eye(len(mean))[block] - np.eye(len(mean))[:width]
        gap = apart @ (cov + np.outer(mean, mean)) @ apart.T
        assert_allclose(law.sector_gaps[s], gap, rtol=1e-8, atol=1e-11)
    for i in range(len(MEMBERS)):
        block = slice(wide + 2 * i, wide + 2 * i + 2)
        assert_allclose(law.covs[i], cov[block, block], rtol=1e-8, atol=1e-11)
    assert float(law.loglik) == pytest.approx(loglik, rel=1e-10)


@pytest.fixture(scope="module")
def many():
    """Forty assets in four sectors with two coefficients: estimates, covariances, sectors."""
    rng = np.random.default_rng(1)
    members = np.arange(40) % 4
    centres = rng.normal(1.0, 0.5, size=(4, 2))
    covs = random_covs(rng, 40, 2, 0.05)
    truth = centres[members] + rng.normal(size=(40, 2)) @ np.array([[0.3, 0.1], [0.0, 0.2]])
    noise = np.einsum("iab,ib->ia", np.linalg.cholesky(covs), rng.normal(size=(40, 2)))
    return jnp.asarray(truth + noise), jnp.asarray(covs), jnp.asarray(members)


@jax.jit
def shrunk(how, estimates, covs, members):
    evidence = evidence_of_estimates(estimates, covs)
    return how.estimate(evidence, sectors_of(members, 4, 2))


HOW = {
    "pooled": Shrinkage(rtol=1e-13, max_steps=5000),
    "sector": Shrinkage("sector", rtol=1e-13, max_steps=5000, market_mean=jnp.ones(2)),
}


@pytest.mark.parametrize("name", HOW)
def test_em_ends_where_the_likelihood_has_no_slope(many, name):
    """The penalties are written here by their definitions."""
    estimates, covs, members = many
    how = HOW[name]
    found = shrunk(how, *many)
    assert bool(is_okay(found.result))
    evidence, sectors = evidence_of_estimates(estimates, covs), sectors_of(members, 4, 2)

    def objective(within, between):
        law = three_levels(evidence, sectors, Spreads(within, between), how.market)
        loglik = law.loglik + 0.5 * jnp.linalg.slogdet(between)[1]
        if name == "pooled":
            return loglik + 0.5 * jnp.mean(jnp.linalg.slogdet(within)[1])
        inverses = jnp.linalg.inv(within)
        common = jnp.linalg.inv(jnp.mean(inverses, axis=0))
        divergences = 0.5 * (
            jnp.trace(inverses @ common, axis1=1, axis2=2)
            - 2.0
            - jnp.linalg.slogdet(inverses @ common)[1]
        )
        loglik = loglik + 0.5 * jnp.sum(jnp.linalg.slogdet(within)[1])
        return loglik - 4.0 * jnp.sum(divergences)

    within, between = found.spreads
    slopes = jax.jit(jax.grad(objective, argnums=(0, 1)))
    by_sector, across = slopes(within, between)
    common = jnp.sum(by_sector, axis=0) if name == "pooled" else by_sector
    for slope, size in ((common, within), (across, between)):
        symmetric = 0.5 * (slope + jnp.swapaxes(slope, -1, -2))
        assert_allclose(symmetric * jnp.max(size), 0.0, atol=2e-4)
    # and the slope is no small number elsewhere
    elsewhere = slopes(within, 2.0 * between)[1]
    assert float(jnp.max(jnp.abs(elsewhere * between))) > 0.05


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_and_mixtures_of_coefficients_change_nothing_else(many, scale):
    estimates, covs, members = many
    turn = scale * jnp.array([[0.6, -1.1], [0.9, 0.4]])
    plain = shrunk(HOW["pooled"], *many)
    moved = shrunk(HOW["pooled"], estimates @ turn.T, turn @ covs @ turn.T, members)
    assert_allclose(moved.law.means, plain.law.means @ turn.T, rtol=1e-10, atol=1e-10 * scale)
    assert_allclose(moved.law.covs, turn @ plain.law.covs @ turn.T, atol=1e-10 * scale**2)
    assert_allclose(moved.spreads.between, turn @ plain.spreads.between @ turn.T, rtol=1e-8)
    assert int(moved.num_steps) == int(plain.num_steps)


def test_order_of_assets_and_of_sectors_does_not_matter(many):
    estimates, covs, members = many
    order = np.random.default_rng(0).permutation(40)
    renamed = jnp.array([2, 0, 3, 1])
    plain = shrunk(HOW["sector"], *many)
    other = shrunk(HOW["sector"], estimates[order], covs[order], renamed[members[order]])
    assert_allclose(other.law.means, plain.law.means[order], rtol=1e-9)
    assert_allclose(other.law.sector_means[renamed], plain.law.sector_means, rtol=1e-9)
    assert_allclose(other.spreads.within[renamed], plain.spreads.within, rtol=1e-7)


def test_an_asset_without_data_has_its_sectors_law(many):
    estimates, covs, members = many
    hidden = estimates.at[5].set(jnp.nan)
    found = shrunk(HOW["pooled"], hidden, covs.at[5].set(jnp.inf), members)
    law, spreads = found.law, found.spreads
    assert_allclose(law.means[5], law.sector_means[members[5]], rtol=1e-12)
    assert_allclose(law.covs[5], law.sector_covs[members[5]] + spreads.within[0], rtol=1e-10)
    keep = np.delete(np.arange(40), 5)
    without = jax.jit(
        lambda how, b, v, s: how.estimate(evidence_of_estimates(b, v), sectors_of(s, 4, 2))
    )(HOW["pooled"], estimates[keep], covs[keep], members[keep])
    assert_allclose(without.law.means, law.means[keep], rtol=1e-10)


def test_limits_are_full_pooling_and_no_pooling(many):
    estimates, covs, _ = many
    nothing, much = jnp.zeros((2, 2)), 1e12 * jnp.eye(2)
    pooled = shrunk(Shrinkage(within_cov=nothing, between_cov=nothing), *many).law
    precisions = np.linalg.inv(covs)
    by_hand = np.linalg.solve(
        precisions.sum(0), np.einsum("iab,ib->a", precisions, np.asarray(estimates))
    )
    assert_allclose(pooled.means, np.broadcast_to(by_hand, (40, 2)), rtol=1e-10)
    alone = shrunk(Shrinkage(within_cov=much, between_cov=much), *many).law
    assert_allclose(alone.means, estimates, rtol=1e-9)
    assert_allclose(alone.covs, covs, rtol=1e-9)


def test_batch_equals_loop_and_a_failing_member_spoils_no_other(many):
    estimates, covs, members = many
    batch = jnp.stack([estimates, 2.0 * estimates, estimates])
    spoilt = jnp.stack([covs, covs, covs.at[:].set(jnp.nan)])
    run = jax.jit(jax.vmap(shrunk.__wrapped__, in_axes=(None, 0, 0, None)))
    found = run(HOW["pooled"], batch, spoilt, members)
    for i in range(2):
        alone = shrunk(HOW["pooled"], batch[i], covs, members)
        assert_allclose(found.law.means[i], alone.law.means, rtol=1e-9)
        assert int(found.num_steps[i]) == int(alone.num_steps)
    codes = np.asarray(is_okay(found.result))
    assert codes.tolist() == [True, True, False]
    last = jax.tree.map(lambda leaf: leaf[2], found.result)
    assert bool(last == RESULTS.diverged)


def test_a_bound_on_steps_is_reported(many):
    found = shrunk(Shrinkage(max_steps=4), *many)
    assert bool(found.result == RESULTS.nonlinear_max_steps_reached)
    assert int(found.num_steps) == 4


def test_gradients_go_through_the_estimated_spreads(many):
    estimates, covs, members = many
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(40, 2)))

    @jax.jit
    def value(estimates, hidden):
        seen = jnp.where(hidden[:, None], jnp.nan, estimates)
        return jnp.sum(weights * shrunk(HOW["pooled"], seen, covs, members).law.means)

    slopes, none = jax.jit(jax.grad(value)), jnp.zeros(40, bool)
    slope = slopes(estimates, none)
    for cell in [(0, 0), (17, 1)]:
        step = jnp.zeros_like(estimates).at[cell].set(1e-4)
        numeric = (value(estimates + step, none) - value(estimates - step, none)) / 2e-4
        assert float(slope[cell]) == pytest.approx(float(numeric), rel=2e-5)
    found = slopes(estimates, none.at[5].set(True))
    assert np.isfinite(found).all() and np.all(np.asarray(found[5]) == 0.0)


def test_lowers_for_cuda(many):
    exported = jax.export.export(shrunk, platforms=["cuda"])(HOW["sector"], *many)
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": "asset"}, "within must be one of"),
        ({"market_cov": jnp.eye(2)}, "market_cov needs market_mean"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Shrinkage(**options)


def test_three_levels_have_less_risk_than_no_pooling_and_full_pooling():
    """Mean squared errors over 200 worlds: sampling errors as large as the spreads."""
    rng = np.random.default_rng(7)
    members = np.arange(40) % 4
    market = rng.normal(size=(200, 1, 2))
    sectors = market + 0.3 * rng.normal(size=(200, 4, 2))
    truth = sectors[:, members] + 0.3 * rng.normal(size=(200, 40, 2))
    sizes = rng.uniform(0.1, 0.6, size=(200, 40, 1, 1))
    estimates = truth + sizes[..., 0] * rng.normal(size=truth.shape)
    covs = sizes**2 * np.eye(2)
    how = Shrinkage(rtol=1e-6, max_steps=200)
    run = jax.jit(jax.vmap(lambda b, v: shrunk(how, b, v, jnp.asarray(members)).law.means))
    found = np.asarray(run(jnp.asarray(estimates), jnp.asarray(covs)))
    precise = 1.0 / sizes[..., 0] ** 2
    pooled = np.sum(precise * estimates, 1, keepdims=True) / np.sum(precise, 1, keepdims=True)
    risks = [np.mean((x - truth) ** 2) for x in (found, estimates, pooled)]
    assert risks[0] < 0.6 * risks[1] and risks[0] < 0.4 * risks[2]
