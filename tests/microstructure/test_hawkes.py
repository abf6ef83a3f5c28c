"""Hawkes processes against textbook double sums, known laws and recovery of parameters."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from jaxfc.microstructure.hawkes_fit import fit_hawkes
from jaxfc.microstructure.hawkes_law import HawkesLaw, hawkes_loglik, hawkes_rows
from jaxfc.microstructure.hawkes_simulate import simulate_hawkes
from jaxfc.results import RESULTS

LAW = HawkesLaw(
    jnp.array([0.6, 0.3]),
    jnp.array([[0.4, 0.1], [0.3, 0.2]]),
    jnp.array([[2.0, 2.0], [2.0, 2.0]]),
)
OWN = HawkesLaw(LAW.baseline, LAW.branching, jnp.array([[2.0, 0.5], [1.0, 4.0]]))


@pytest.fixture(scope="module")
def paths():
    def run(law, keys):
        return jax.vmap(lambda key: simulate_hawkes(law, 3000, key=key))(keys)

    return jax.jit(run)(LAW, jax.random.split(jax.random.key(3), 16))


def intensity(law, times, kinds, at, kind):
    """lambda_kind just before `at`, as the double sum says it."""
    mu, n, beta = (np.asarray(leaf) for leaf in (law.baseline, law.branching, law.decay))
    past = times < at
    j = kinds[past]
    weights = n[kind, j] * beta[kind, j] * np.exp(-beta[kind, j] * (at - times[past]))
    return mu[kind] + weights.sum()


def test_likelihood_and_residuals_against_double_sums_and_quadrature():
    rng = np.random.default_rng(0)
    gap, kind = rng.exponential(0.5, 14), rng.integers(0, 2, 14)
    kind[-1] = -1  # the time watched goes on after the last event
    times = np.cumsum(gap)
    rows = hawkes_rows(OWN, jnp.asarray(gap), jnp.asarray(kind))
    events, types = times[:-1], kind[:-1]
    logs = [np.log(intensity(OWN, events, types, t, m)) for t, m in zip(events, types, strict=True)]
    np.testing.assert_allclose(rows.log_intensity[:-1], logs, rtol=1e-12)

    def area(kind, start, stop):
        cuts = [t for t in events if start < t < stop]
        return quad(
            lambda t: intensity(OWN, events, types, t, kind), start, stop, points=cuts, limit=200
        )[0]

    total = sum(area(m, 0.0, times[-1]) for m in range(2))
    loglik = hawkes_loglik(OWN, jnp.asarray(gap), jnp.asarray(kind))
    assert loglik == pytest.approx(sum(logs) - total, rel=1e-8)
    for m in range(2):
        own = np.flatnonzero(types == m)
        edges = np.concatenate([[0.0], events[own]])
        expected = [area(m, *edges[k : k + 2]) for k in range(len(own))]
        np.testing.assert_allclose(rows.residual[own], expected, rtol=1e-7)
    assert rows.residual[-1] == 0


def test_derivatives_and_split_gaps():
    rng = np.random.default_rng(1)
    gap, kind = jnp.asarray(rng.exponential(0.5, 10)), jnp.asarray(rng.integers(0, 2, 10))
    loss = jax.jit(lambda law, gap: hawkes_loglik(law, gap, kind))
    slopes = jax.grad(loss)(OWN, gap)
    step = 1e-6
    for name in ("baseline", "branching", "decay"):
        values = getattr(OWN, name)
        place = (1,) * values.ndim
        sides = []
        for sign in (1, -1):
            parts = {n: getattr(OWN, n) for n in ("baseline", "branching", "decay")}
            parts[name] = values.at[place].add(sign * step)
            sides.append(float(loss(HawkesLaw(**parts), gap)))
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert getattr(slopes, name)[place] == pytest.approx(numeric, rel=1e-6)
    # A row without an event changes nothing.
    split = jnp.concatenate([gap[:4], 0.3 * gap[4:5], 0.7 * gap[4:5], gap[5:]])
    kinds = jnp.concatenate([kind[:4], jnp.array([-1]), kind[4:]])
    assert hawkes_loglik(OWN, split, kinds) == pytest.approx(float(loss(OWN, gap)), rel=1e-13)


def test_simulated_rates_and_residuals(paths):
    """Long-run intensities, and unit exponentials by the random change of time."""
    np.testing.assert_allclose(
        LAW.mean_intensity,
        np.linalg.solve(np.eye(2) - np.asarray(LAW.branching), np.asarray(LAW.baseline)),
        rtol=1e-12,
    )
    total = np.asarray(paths.gap).sum(axis=1)
    for m in range(2):
        rates = (np.asarray(paths.kind) == m).sum(axis=1) / total
        error = rates.std(ddof=1) / len(rates) ** 0.5
        assert rates.mean() == pytest.approx(float(LAW.mean_intensity[m]), abs=4 * error)
        assert error < 0.02
    rows = jax.vmap(lambda gap, kind: hawkes_rows(LAW, gap, kind))(paths.gap, paths.kind)
    residuals = np.asarray(rows.residual)
    for m in range(2):
        of_type = residuals[np.asarray(paths.kind) == m]
        assert stats.kstest(of_type, "expon").pvalue > 0.01
        lagged = np.corrcoef(residuals[:, 1:].ravel(), residuals[:, :-1].ravel())[0, 1]
        assert abs(lagged) < 4 / residuals.size**0.5
    # The test has power: a law without excitation fails it.
    poisson = HawkesLaw(LAW.mean_intensity, 0.0 * LAW.branching, LAW.decay)
    rows = hawkes_rows(poisson, paths.gap[0], paths.kind[0])
    wrong = np.asarray(rows.residual)[np.asarray(paths.kind[0]) == 0]
    assert stats.kstest(wrong, "expon").pvalue < 1e-3


def test_a_path_goes_on_from_its_excitation():
    law = HawkesLaw(jnp.array([0.0, 0.2]), OWN.branching, OWN.decay)
    keys = jax.random.split(jax.random.key(0), 20_000)
    excited = jnp.array([[1.5, 0.0], [0.5, 0.0]])
    go_on = jax.jit(jax.vmap(lambda key: simulate_hawkes(law, 1, key=key, excitation=excited)))
    found = go_on(keys)
    gap, kind = np.asarray(found.gap)[:, 0], np.asarray(found.kind)[:, 0]
    t = 0.7
    area = 1.5 * (1 - np.exp(-2.0 * t)) / 2 + 0.5 * (1 - np.exp(-t)) + 0.2 * t
    assert np.mean(gap > t) == pytest.approx(np.exp(-area), abs=4 * 0.5 / len(gap) ** 0.5)

    def first_is_zero(s):
        area = 1.5 * (1 - np.exp(-2.0 * s)) / 2 + 0.5 * (1 - np.exp(-s)) + 0.2 * s
        return 1.5 * np.exp(-2.0 * s) * np.exp(-area)

    share = quad(first_is_zero, 0, np.inf)[0]
    assert np.mean(kind == 0) == pytest.approx(share, abs=4 * 0.5 / len(gap) ** 0.5)
    assert jax.export.export(go_on, platforms=["cuda"])(keys).platforms == ("cuda",)


def test_parameters_are_found_again(paths):
    fit = jax.jit(lambda gap, kind: fit_hawkes(gap, kind, num_types=2))
    found = fit(paths.gap[0], paths.kind[0])
    assert bool(found.result == RESULTS.successful)
    assert found.loglik > hawkes_loglik(LAW, paths.gap[0], paths.kind[0])
    slopes = jax.grad(lambda law: hawkes_loglik(law, paths.gap[0], paths.kind[0]))(found.law)
    assert jnp.max(jnp.abs(slopes.baseline)) < 1e-2 * 3000
    for name in ("baseline", "branching", "decay"):
        gap = getattr(found.law, name) - getattr(LAW, name)
        assert np.all(np.abs(gap / getattr(found.errors, name)) < 4.0)
    assert np.all(np.asarray(found.errors.baseline) < 0.1)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (([0.1, -0.2, 0.3], [0, 1, 0]), "row 1: the clock goes backwards"),
        (([0.1, 0.2, 0.3], [0, 1, 2]), "row 2: type 2"),
        (([0.1, 0.2, 0.3], [0, 0, 0]), "type 1 has no event"),
    ],
)
def test_bad_rows_are_refused(rows, match):
    with pytest.raises(ValueError, match=match):
        fit_hawkes(jnp.array(rows[0]), jnp.array(rows[1]), num_types=2)


def test_explosive_branching_is_refused():
    with pytest.raises(ValueError, match="below one"):
        HawkesLaw(jnp.ones(2), jnp.array([[0.5, 0.6], [0.6, 0.5]]), jnp.ones((2, 2)))
