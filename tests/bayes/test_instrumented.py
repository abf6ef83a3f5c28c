"""Instrumented PCA: published numbers, a textbook loop, limits, gaps, batches, slopes, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from statsmodels.datasets import grunfeld

from jaxfc.bayes.instrumented_als import AlternatingLeastSquares
from jaxfc.bayes.instrumented_portfolios import (
    explained,
    managed_portfolios,
    r_squared,
    ranked_characteristics,
)
from jaxfc.results import RESULTS, is_okay

TIGHT = {"tolerance": 1e-13}


@eqx.filter_jit
def solved(method, data, given=None, given_observed=None):
    return method.solve(managed_portfolios(*data), given, given_observed)


@pytest.fixture(scope="module")
def firms():
    """Investment of 11 firms over 20 years, and their value and capital in the same year."""
    table = grunfeld.load_pandas().data
    # In the order of the peer, whose gaps are counted along firms.
    names = list(dict.fromkeys(table["firm"]))
    wide = [
        table.pivot(index="year", columns="firm", values=c)[names].to_numpy(float)
        for c in ("invest", "value", "capital")
    ]
    returns, characteristics = jnp.asarray(wide[0]), jnp.asarray(np.stack(wide[1:], axis=-1))
    return returns, characteristics, jnp.ones(returns.shape, bool)


@eqx.filter_jit
def explained_by(found, data, about):
    """With the factors of the row, and with their mean."""
    expected = jnp.broadcast_to(found.mean_returns, found.characteristic_returns.shape)
    return explained(*data, found.characteristic_returns, expected, about)


def test_grunfeld_with_one_factor_is_as_measured(firms):
    """shared/reference/bayes.md, section 3: `ipca` 0.6.7 and an independent loop agree on these.

    The predictive share about the mean is first order in Gamma: the note's .7523083864979 is where
    `ipca` stops with iter_tol=1e-10, and .75230838649341 where it stops with 1e-14.
    """
    found = solved(AlternatingLeastSquares(1, **TIGHT), firms)
    assert bool(is_okay(found.result))
    np.testing.assert_allclose(found.coefficients.gamma[:, 0], [0.9916602, 0.12887994], atol=5e-9)
    expected = [0.10319682, 0.08844893, 0.08384965, 0.21110663]
    np.testing.assert_allclose(found.factors[jnp.array([0, 1, 2, -1]), 0], expected, atol=5e-9)
    centred = explained_by(found, firms, "mean")
    assert float(centred.total) == pytest.approx(0.8599454947976, abs=5e-14)
    assert float(centred.predictive) == pytest.approx(0.75230838649341, abs=5e-14)
    early = solved(AlternatingLeastSquares(1, tolerance=1e-10), firms)
    note = explained_by(early, firms, "mean").predictive
    assert float(note) == pytest.approx(0.7523083864979, abs=5e-13)
    plain = explained_by(found, firms, "zero")
    assert float(plain.total) == pytest.approx(0.9001451073496, abs=5e-14)
    assert float(plain.predictive) == pytest.approx(0.8234028998826, abs=5e-14)
    by_row = explained_by(found, firms, "row_mean")
    assert float(by_row.portfolio_total) == pytest.approx(0.9997793331432, abs=5e-14)


def test_grunfeld_with_two_factors_is_as_measured(firms):
    """As above; two factors of two characteristics are also regressions row by row."""
    found = solved(AlternatingLeastSquares(2, **TIGHT), firms)
    gamma = [[0.96902753, -0.2469527], [0.2469527, 0.96902753]]
    np.testing.assert_allclose(found.coefficients.gamma, gamma, atol=5e-9)
    factors = [
        [0.09948131, -0.02528301],
        [0.09248006, 0.00961225],
        [0.12230675, 0.17100349],
        [0.19081448, 0.13569931],
    ]
    np.testing.assert_allclose(found.factors[jnp.array([0, 1, 2, -1])], factors, atol=5e-9)
    centred, plain = explained_by(found, firms, "mean"), explained_by(found, firms, "zero")
    assert float(centred.total) == pytest.approx(0.8652761174095, abs=5e-14)
    assert float(centred.predictive) == pytest.approx(0.7659286476739, abs=5e-14)
    assert float(plain.total) == pytest.approx(0.9039456901862, abs=5e-14)
    assert float(plain.predictive) == pytest.approx(0.8331137600658, abs=5e-14)


def test_as_many_factors_as_characteristics_are_regressions(firms):
    returns, characteristics, _ = firms
    found = solved(AlternatingLeastSquares(2), firms)
    for t in range(len(returns)):
        slopes = np.linalg.lstsq(characteristics[t], returns[t], rcond=None)[0]
        np.testing.assert_allclose(found.characteristic_returns[t], slopes, rtol=1e-8)
    assert int(found.num_steps) <= 3


def test_intercept_given_factor_and_gaps_equal_the_peer(firms):
    """`ipca` 0.6.7 on Grunfeld, iter_tol=1e-13: intercept=True; PSF = 0.1 cos(year - 1935); every
    seventh cell along firms left out (cells 3, 10, ...)."""
    ends = jnp.array([0, 1, -1])
    found = solved(AlternatingLeastSquares(1, intercept=True, **TIGHT), firms)
    np.testing.assert_allclose(
        found.coefficients.gamma[:, 0], [0.999017362385, -0.044320533098], atol=1e-11
    )
    np.testing.assert_allclose(
        found.coefficients.given[:, 0], [0.001234739425, 0.027831933354], atol=1e-11
    )
    assert float(explained_by(found, firms, "mean").total) == pytest.approx(
        0.8599915274666264, abs=1e-13
    )
    given = 0.1 * jnp.cos(jnp.arange(20.0))[:, None]
    found = solved(AlternatingLeastSquares(1, **TIGHT), firms, given)
    np.testing.assert_allclose(
        found.coefficients.given[:, 0], [-0.035191794376, 0.370994390461], atol=1e-11
    )
    np.testing.assert_allclose(
        found.factors[ends, 0], [0.105551840716, 0.089625926486, 0.202704899272], atol=1e-11
    )
    returns, characteristics, usable = firms
    kept = usable & jnp.asarray((np.arange(usable.size) % 7 != 3).reshape(11, 20).T)
    holes = jnp.where(kept, returns, jnp.nan), characteristics, kept
    found = solved(AlternatingLeastSquares(1, **TIGHT), holes)
    np.testing.assert_allclose(
        found.coefficients.gamma[:, 0], [0.999702092428, 0.024407506961], atol=1e-11
    )
    np.testing.assert_allclose(
        found.factors[ends, 0], [0.102333399629, 0.08788512917, 0.246593201413], atol=1e-11
    )
    assert float(explained_by(found, holes, "mean").total) == pytest.approx(
        0.8805334307528938, abs=1e-13
    )


def given_of(world):
    """The given factor, all of it observed."""
    return jnp.asarray(world.given), jnp.ones(world.given.shape, bool)


class World:
    """Returns by planted coefficients with gaps, and what they were made of."""

    def __init__(self, seed, *, num_times=60, num_assets=40, noise=0.3, gaps=0.15, **parts):
        rng = np.random.default_rng(seed)
        self.characteristics = rng.normal(size=(num_times, num_assets, 4))
        gamma = np.linalg.qr(rng.normal(size=(4, 2)))[0]
        if parts.get("irrelevant"):
            gamma[3] = 0.0
        factors = rng.normal(size=(num_times, 2)) * [1.5, 0.8] + [0.6, 0.4]
        self.given = rng.normal(size=(num_times, 1))
        basis = np.eye(4) - gamma @ np.linalg.pinv(gamma)
        self.given_gamma = parts.get("given", 0.0) * (basis @ [1.0, -1.0, 0.5, 0.2])
        self.alpha = parts.get("alpha", 0.0) * (basis @ [0.3, 1.0, 1.0, -0.4])
        self.earned = factors @ gamma.T + self.given * self.given_gamma + self.alpha
        errors = noise * rng.standard_t(5, size=(num_times, num_assets))
        self.returns = np.einsum("tnl,tl->tn", self.characteristics, self.earned) + errors
        self.usable = rng.random(self.returns.shape) > gaps
        self.gamma, self.factors = gamma, factors

    @property
    def data(self):
        return tuple(map(jnp.asarray, (self.returns, self.characteristics, self.usable)))


def textbook(world, given, num_factors, ridge, num_steps):
    """Alternating least squares on the cells themselves, without moments or normalisation: c_t."""
    cells = [
        (world.characteristics[t][world.usable[t]], world.returns[t][world.usable[t]])
        for t in range(len(world.returns))
    ]
    start = np.stack([z.T @ r / len(r) for z, r in cells])
    gamma = np.linalg.svd(start.T)[0][:, :num_factors]
    rest = np.zeros((4, given.shape[1]))
    for _ in range(num_steps):
        gamma = np.linalg.qr(gamma)[0]
        factors = np.stack(
            [
                np.linalg.lstsq(z @ gamma, r - z @ rest @ g, rcond=None)[0]
                for (z, r), g in zip(cells, given, strict=True)
            ]
        )
        phi = np.concatenate([factors, given], axis=1)
        design = np.concatenate([np.kron(z, p) for (z, _), p in zip(cells, phi, strict=True)])
        paid = np.concatenate([r for _, r in cells])
        normal = design.T @ design
        normal = normal + ridge * np.mean(np.diag(normal)) * np.eye(len(normal))
        found = np.linalg.solve(normal, design.T @ paid).reshape(4, -1)
        gamma, rest = found[:, :num_factors], found[:, num_factors:]
        # The same normalisation of the rest, which a ridge would otherwise see.
        basis = np.linalg.qr(gamma)[0]
        rest = rest - basis @ (basis.T @ rest)
    gamma = np.linalg.qr(gamma)[0]
    factors = np.stack(
        [
            np.linalg.lstsq(z @ gamma, r - z @ rest @ g, rcond=None)[0]
            for (z, r), g in zip(cells, given, strict=True)
        ]
    )
    return factors @ gamma.T + given @ rest.T


@pytest.fixture(scope="module")
def world():
    return World(0, given=0.8, alpha=0.3)


def test_equals_a_textbook_loop_on_the_cells(world):
    method = AlternatingLeastSquares(2, intercept=True, **TIGHT)
    portfolios, given = world.data, jnp.asarray(world.given)
    found = solved(method, portfolios, given)
    columns = np.concatenate([world.given, np.ones_like(world.given)], axis=1)
    np.testing.assert_allclose(
        found.characteristic_returns, textbook(world, columns, 2, 0.0, 150), atol=1e-9
    )


def test_ridge_equals_one_step_of_penalised_least_squares(world):
    """At the fixed point another step of the penalised problem on the cells moves no span."""
    ridge = AlternatingLeastSquares(2, intercept=True, ridge=0.2, **TIGHT)
    free = AlternatingLeastSquares(2, intercept=True, **TIGHT)
    found, other = (solved(m, world.data, *given_of(world)) for m in (ridge, free))
    gamma, unpenalised = (np.asarray(f.coefficients.gamma) for f in (found, other))
    phi = np.concatenate([found.factors, found.given], axis=1)
    cells = [world.characteristics[t][world.usable[t]] for t in range(60)]
    design = np.concatenate([np.kron(z, p) for z, p in zip(cells, phi, strict=True)])
    paid = np.concatenate([world.returns[t][world.usable[t]] for t in range(60)])
    normal = design.T @ design
    normal = normal + 0.2 * np.mean(np.diag(normal)) * np.eye(len(normal))
    again = np.linalg.solve(normal, design.T @ paid).reshape(4, 4)[:, :2]
    basis = np.linalg.qr(again)[0]
    np.testing.assert_allclose(basis @ basis.T, gamma @ gamma.T, atol=1e-10)
    assert np.abs(gamma @ gamma.T - unpenalised @ unpenalised.T).max() > 1e-3


def test_planted_coefficients_are_recovered_with_gaps():
    exact = World(1, noise=0.0, gaps=0.3, given=0.8, alpha=0.3)
    method = AlternatingLeastSquares(2, intercept=True, tolerance=1e-12)
    found = solved(method, exact.data, *given_of(exact))
    np.testing.assert_allclose(found.characteristic_returns, exact.earned, atol=1e-8)
    gamma = np.asarray(found.coefficients.gamma)
    np.testing.assert_allclose(gamma @ gamma.T, exact.gamma @ exact.gamma.T, atol=1e-8)
    np.testing.assert_allclose(found.coefficients.given[:, 0], exact.given_gamma, atol=1e-8)
    np.testing.assert_allclose(found.coefficients.given[:, 1], exact.alpha, atol=1e-8)
    noisy = World(1, noise=0.3, gaps=0.3, given=0.8, alpha=0.3)
    found = solved(method, noisy.data, *given_of(noisy))
    gamma = np.asarray(found.coefficients.gamma)
    np.testing.assert_allclose(gamma @ gamma.T, noisy.gamma @ noisy.gamma.T, atol=0.05)


def test_the_answer_is_normalised(world):
    method = AlternatingLeastSquares(2, intercept=True)
    found = solved(method, world.data, *given_of(world))
    gamma, rest = found.coefficients.gamma, found.coefficients.given
    np.testing.assert_allclose(gamma.T @ gamma, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(gamma.T @ rest, 0.0, atol=1e-12)
    second = np.asarray(found.factors.T @ found.factors)
    assert abs(second[0, 1]) < 1e-9 * second[0, 0] and second[0, 0] > second[1, 1]
    assert np.all(np.mean(found.factors, axis=0) > 0)


def test_unusable_cells_and_rows_are_never_read(world):
    returns, characteristics, usable = world.data
    usable = usable.at[5].set(False).at[9].set(jnp.arange(40) < 1)
    nan = (
        jnp.where(usable, returns, jnp.nan),
        jnp.where(usable[..., None], characteristics, jnp.nan),
    )
    given = jnp.asarray(world.given).at[20].set(jnp.nan)
    seen = jnp.ones(given.shape, bool).at[20].set(False)
    method = AlternatingLeastSquares(2, intercept=True)
    found = solved(method, (*nan, usable), given, seen)
    dropped = np.array([5, 9, 20])
    np.testing.assert_array_equal(np.flatnonzero(~found.used), dropped)
    np.testing.assert_array_equal(found.factors[dropped], 0.0)
    assert np.isfinite(found.coefficients.given).all()
    # The same rows without them: in another order, the dropped ones empty and last.
    order = np.concatenate([np.setdiff1d(np.arange(60), dropped), dropped])
    inside = jnp.arange(60) < 57
    other = returns[order], characteristics[order], usable[order] & inside[:, None]
    again = solved(method, other, jnp.asarray(world.given)[order], jnp.ones((60, 1), bool))
    np.testing.assert_allclose(found.factors[order], again.factors, atol=1e-7)


def test_windows_in_one_batch_equal_the_loop(world):
    windows = jax.tree.map(
        lambda leaf: jnp.stack([leaf[start : start + 40] for start in (0, 10, 20)]), world.data
    )

    @jax.jit
    def fit(returns, characteristics, usable):
        found = AlternatingLeastSquares(2).solve(
            managed_portfolios(returns, characteristics, usable)
        )
        return found.characteristic_returns, found.num_steps

    batch, steps = jax.jit(jax.vmap(fit))(*windows)
    for i in range(3):
        alone, count = fit(*(leaf[i] for leaf in windows))
        np.testing.assert_allclose(batch[i], alone, atol=1e-9)
        assert int(steps[i]) == int(count)


def test_slopes_of_an_invariant_equal_finite_differences(world):
    returns, characteristics, usable = world.data
    returns, characteristics, usable = returns[:25], characteristics[:25], usable[:25]
    method = AlternatingLeastSquares(2, **TIGHT)

    @jax.jit
    @jax.value_and_grad
    def invariant(returns):
        found = method.solve(managed_portfolios(returns, characteristics, usable))
        return jnp.sum(found.characteristic_returns[3] * jnp.arange(1.0, 5.0))

    slope = np.asarray(invariant(returns)[1])
    np.testing.assert_array_equal(slope[~np.asarray(usable)], 0.0)
    cells = [tuple(map(int, np.argwhere(usable)[i])) for i in (0, 117, 400)]
    for cell in cells:
        step = 1e-5
        up, down = (invariant(returns.at[cell].add(s))[0] for s in (step, -step))
        assert float(slope[cell]) == pytest.approx(
            float(up - down) / (2 * step), rel=1e-4, abs=1e-8
        )


def test_bad_sizes_are_refused(world):
    portfolios = managed_portfolios(*world.data)
    with pytest.raises(ValueError, match="5 factors cannot be told apart by 4"):
        AlternatingLeastSquares(5).solve(portfolios)
    with pytest.raises(ValueError, match="needs given factors or intercept"):
        AlternatingLeastSquares(0).solve(portfolios)
    with pytest.raises(ValueError, match="num_factors must be 0 or more"):
        AlternatingLeastSquares(-1)
    with pytest.raises(ValueError, match="ridge must be 0 or more"):
        AlternatingLeastSquares(1, ridge=-0.1)
    bounded = solved(AlternatingLeastSquares(2, max_steps=2), world.data)
    assert int(bounded.num_steps) == 2
    assert bool(bounded.result == RESULTS.nonlinear_max_steps_reached)


def test_given_factors_alone_are_one_regression(world):
    found = solved(AlternatingLeastSquares(0), world.data, *given_of(world))
    cells = [world.characteristics[t][world.usable[t]] * world.given[t] for t in range(60)]
    paid = np.concatenate([world.returns[t][world.usable[t]] for t in range(60)])
    slopes = np.linalg.lstsq(np.concatenate(cells), paid, rcond=None)[0]
    np.testing.assert_allclose(found.coefficients.given[:, 0], slopes, rtol=1e-10)
    assert int(found.num_steps) <= 2


def test_ranks_equal_scipy():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 6, size=(5, 12, 2)).astype(float)
    seen = rng.random(values.shape) > 0.3
    seen[2, :, 0] = np.arange(12) == 4  # one asset alone
    ranked = jax.jit(ranked_characteristics)
    found = np.asarray(ranked(jnp.where(seen, values, jnp.nan), jnp.asarray(seen)))
    for t, column in np.ndindex(5, 2):
        known = seen[t, :, column]
        ranks = scipy.stats.rankdata(values[t, known, column])
        expected = (ranks - 1) / max(known.sum() - 1, 1) - (0.5 if known.sum() > 1 else 0.0)
        np.testing.assert_allclose(found[t, known, column], expected, atol=1e-12)
        np.testing.assert_array_equal(found[t, ~known, column], 0.0)


def test_r_squared_about_three_centres():
    rng = np.random.default_rng(4)
    values, usable = rng.normal(1.0, 1.0, (6, 5)), rng.random((6, 5)) > 0.2
    usable[3] = np.arange(5) == 0
    fit = values + 0.4 * rng.normal(size=values.shape)
    missed, kept = (values - fit)[usable], values[usable]
    assert float(r_squared(*map(jnp.asarray, (values, fit, usable)))) == pytest.approx(
        1 - np.sum(missed**2) / np.sum(kept**2)
    )
    assert float(r_squared(*map(jnp.asarray, (values, fit, usable)), "mean")) == pytest.approx(
        1 - np.sum(missed**2) / np.sum((kept - kept.mean()) ** 2)
    )
    rows = [
        1 - np.sum((values - fit)[t, u] ** 2) / np.sum((values[t, u] - values[t, u].mean()) ** 2)
        for t, u in enumerate(usable)
        if u.sum() > 1
    ]
    assert float(r_squared(*map(jnp.asarray, (values, fit, usable)), "row_mean")) == pytest.approx(
        np.mean(rows)
    )
    with pytest.raises(ValueError, match="about must be one of"):
        r_squared(jnp.asarray(values), jnp.asarray(fit), jnp.asarray(usable), "median")
