"""Views against exact conditioning, Meucci's moments, a conjugate posterior, and bad input."""

import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist
from scipy import optimize, stats

import jaxfc
from jaxfc.bayes.pareto import pareto_smoothed
from jaxfc.bayes.program import Program
from jaxfc.bayes.views import mutual_log_odds, tilted, view_log_odds, with_views
from jaxfc.bayes.views_likelihood import ViewedProgram, viewed_program
from jaxfc.bayes.views_methods import EntropyPooling, ExpectedReturn, ReturnDensity
from jaxfc.bayes.views_statements import (
    BeatsView,
    ProbabilityView,
    QuantileView,
    ReturnView,
    SpreadView,
    resolve,
)
from jaxfc.bayes.views_weighted import VIEW_RESULTS, WeightedForecast
from jaxfc.forecast import FactorForecast, GaussianForecast, SampleForecast
from jaxfc.regimes import GaussianTails, RegimeForecast

NAMES = ("TLT", "IEF", "XLF")
CLASSES = ("bond", "bond", "stock")
HORIZON = 2
SIZE = HORIZON * len(NAMES)


@pytest.fixture(scope="module")
def law():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(SIZE, SIZE)) * 0.02 + 0.02 * np.eye(SIZE)
    mean = 0.01 * rng.normal(size=(HORIZON, 3))
    return GaussianForecast(
        jnp.asarray(mean), jnp.asarray((root @ root.T).reshape(HORIZON, 3, HORIZON, 3))
    )


@pytest.fixture(scope="module")
def draws(law):
    """Draws whose sample moments are those of the law exactly, so that only tails are noisy."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(20_000, SIZE))
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / len(z))).T
    root = np.linalg.cholesky(np.asarray(law.cov).reshape(SIZE, SIZE))
    return SampleForecast(jnp.asarray((z @ root.T).reshape(-1, HORIZON, 3)) + law.mean)


VIEWS = [
    ReturnView("TLT", 0.03, 0.04),
    BeatsView("XLF", "bond", 0.02, 0.05, step=2, cumulative=True),
    ReturnView({"IEF": 0.5, "stock": 0.5}, -0.01, 0.03, step=2),
]
# The same by hand: rows over (step 1: TLT IEF XLF, step 2: TLT IEF XLF).
ROWS = np.array([[1, 0, 0, 0, 0, 0], [-0.5, -0.5, 1, -0.5, -0.5, 1], [0, 0, 0, 0, 0.5, 0.5]], float)
MEANS, SDS = np.array([0.03, 0.02, -0.01]), np.array([0.04, 0.05, 0.03])


def conditioned(law, rows=ROWS, means=MEANS, sds=SDS):
    """The posterior in information form: an oracle that shares no formula with the package."""
    mean, cov = np.asarray(law.mean).reshape(-1), np.asarray(law.cov).reshape(SIZE, SIZE)
    information = np.linalg.inv(cov) + rows.T @ np.diag(sds**-2) @ rows
    after = np.linalg.inv(information)
    right = np.linalg.solve(cov, mean) + rows.T @ (means / sds**2)
    return (after @ right).reshape(HORIZON, 3), after.reshape(HORIZON, 3, HORIZON, 3)


def odds(law, rows=ROWS, means=MEANS, sds=SDS):
    """ln N(m; A mu, A V A' + S) - ln N(A mu; A mu, ...) by scipy's density."""
    mean, cov = np.asarray(law.mean).reshape(-1), np.asarray(law.cov).reshape(SIZE, SIZE)
    density = stats.multivariate_normal(rows @ mean, rows @ cov @ rows.T + np.diag(sds**2))
    return density.logpdf(means) - density.logpdf(rows @ mean)


def test_names_become_rows():
    found = resolve(VIEWS, NAMES, CLASSES, horizon=HORIZON)
    np.testing.assert_allclose(found.directions.reshape(3, -1), ROWS)
    np.testing.assert_allclose(found.means, MEANS)
    np.testing.assert_allclose(found.sds, SDS)
    tails = resolve(
        [QuantileView("TLT", 0.05, -0.02), ProbabilityView("IEF", 0.01, 0.3)], NAMES, horizon=1
    )
    np.testing.assert_allclose(tails.probabilities, [0.95, 0.3])
    np.testing.assert_allclose(tails.thresholds, [-0.02, 0.01])
    frame = pd.DataFrame(np.ones((3, 3)) * [[1], [2], [3]], columns=list(NAMES))
    frame.index = pd.date_range("2020-01-31", periods=3, freq="ME")
    panel = jaxfc.Panel.from_frame(frame)
    same = resolve(VIEWS, panel, CLASSES, horizon=HORIZON)
    np.testing.assert_array_equal(same.directions, found.directions)


def test_a_gaussian_forecast_is_conditioned_exactly(law):
    after = with_views(law, VIEWS, names=NAMES, classes=CLASSES)
    mean, cov = conditioned(law)
    assert isinstance(after, GaussianForecast)
    np.testing.assert_allclose(after.mean, mean, atol=1e-13)
    np.testing.assert_allclose(after.cov, cov, atol=1e-14)
    found = view_log_odds(law, VIEWS, names=NAMES, classes=CLASSES)
    np.testing.assert_allclose(found, odds(law), rtol=1e-10)


def test_a_factor_forecast_is_conditioned_as_its_dense_law():
    rng = np.random.default_rng(5)
    factor = FactorForecast(
        mean=jnp.asarray(rng.normal(size=(HORIZON, 3))) * 0.01,
        loadings=jnp.asarray(rng.normal(size=(3, 1))),
        factor_cov=jnp.asarray([[[[2e-4]], [[1e-4]]], [[[1e-4]], [[3e-4]]]]).reshape(2, 1, 2, 1),
        idiosyncratic_cov=jnp.asarray([1e-4, 2e-4, 3e-4]),
        mixing=jnp.eye(HORIZON),
    )
    after = with_views(factor, VIEWS, names=NAMES, classes=CLASSES)
    mean, cov = conditioned(factor)
    np.testing.assert_allclose(after.mean, mean, atol=1e-13)
    np.testing.assert_allclose(after.cov, cov, atol=1e-15)


def test_tilted_draws_are_the_conditional_law(law, draws):
    after = with_views(draws, VIEWS, names=NAMES, classes=CLASSES)
    assert isinstance(after, WeightedForecast)
    mean, cov = conditioned(law)
    # Standard errors of self-normalised importance sampling, 4 of them.
    error = np.asarray(after.std) / np.sqrt(20_000 * float(after.kept))
    assert np.all(np.abs(after.mean - mean) < 4 * error)
    np.testing.assert_allclose(after.std, np.sqrt(np.einsum("hihi->hi", cov)), rtol=0.03)
    np.testing.assert_allclose(after.verdict.log_odds, odds(law), rtol=1e-3)
    # E[w^2] / E[w]^2 of a Gaussian tilt in closed form, by its normalisers.
    a_mu, spread = (
        ROWS @ np.asarray(law.mean).reshape(-1),
        ROWS @ np.asarray(law.cov).reshape(SIZE, SIZE) @ ROWS.T,
    )

    def log_mean_power(power):
        noise = np.diag(SDS**2 / power)
        density = stats.multivariate_normal(a_mu, spread + noise).logpdf(MEANS)
        return density + 0.5 * np.linalg.slogdet(2 * np.pi * noise)[1]

    kept = np.exp(2 * log_mean_power(1.0) - log_mean_power(2.0))
    np.testing.assert_allclose(after.kept, kept, rtol=0.03)
    np.testing.assert_array_equal(after.draws, draws.draws)


def test_views_one_after_the_other_are_views_together(draws):
    together = with_views(draws, VIEWS, names=NAMES, classes=CLASSES)
    first = with_views(draws, VIEWS[:1], names=NAMES, classes=CLASSES)
    both = with_views(first, VIEWS[1:], names=NAMES, classes=CLASSES)
    np.testing.assert_allclose(both.weights, together.weights, rtol=1e-10)


@pytest.mark.parametrize("method", [ReturnDensity(), EntropyPooling()])
def test_an_infinite_sd_is_no_view(law, draws, method):
    view = ReturnView("TLT", 5.0, np.inf)
    same = with_views(draws, view, names=NAMES, method=method)
    np.testing.assert_allclose(same.weights, 1 / 20_000, rtol=1e-12)
    np.testing.assert_allclose(same.verdict.log_odds, 0.0, atol=1e-12)
    closed = with_views(law, view, names=NAMES, method=method)
    np.testing.assert_array_equal(closed.mean, law.mean)
    np.testing.assert_array_equal(closed.cov, law.cov)


def test_a_tiny_sd_pins_the_asset(law):
    pinned = with_views(law, ReturnView("TLT", 0.02, 1e-9), names=NAMES)
    np.testing.assert_allclose(pinned.mean[0, 0], 0.02, atol=1e-12)
    assert float(pinned.std[0, 0]) < 1e-7
    given = np.asarray(law.cov).reshape(SIZE, SIZE)
    slope = given[1:, 0] / given[0, 0]  # regression on the pinned return
    moved = np.asarray(law.mean).reshape(-1)[1:] + slope * (0.02 - float(law.mean[0, 0]))
    np.testing.assert_allclose(pinned.mean.reshape(-1)[1:], moved, atol=1e-11)


def test_entropy_pooling_moves_means_as_conditioning_does_and_keeps_the_spread(law, draws):
    pooled = with_views(draws, VIEWS, names=NAMES, classes=CLASSES, method=EntropyPooling())
    mean, _ = conditioned(law)
    np.testing.assert_allclose(pooled.mean, mean, atol=6e-4)  # of standard deviations .03 to .06
    np.testing.assert_allclose(pooled.std, law.std, rtol=0.03)
    np.testing.assert_allclose(pooled.verdict.log_odds, odds(law), rtol=0.03)
    exact = with_views(law, VIEWS, names=NAMES, classes=CLASSES, method=EntropyPooling())
    np.testing.assert_allclose(exact.mean, mean, atol=1e-13)
    np.testing.assert_array_equal(exact.cov, law.cov)


def test_entropy_pooling_solves_its_primal_problem():
    """Against a direct minimisation over the weights of 30 draws by scipy."""
    rng = np.random.default_rng(8)
    r = rng.normal(size=(30, 1, 2))
    views = [ReturnView("A", 0.3, 0.2), BeatsView("B", "A", 0.2, 0.0), SpreadView("B", 0.8)]
    found = with_views(
        SampleForecast(jnp.asarray(r)), views, names=("A", "B"), method=EntropyPooling()
    )
    a, b = r[:, 0, 0], r[:, 0, 1]
    mean_b = b.mean()

    def loss(w):
        return np.sum(w * np.log(30 * w)) + (w @ a - 0.3) ** 2 / (2 * 0.2**2)

    def slope(w):
        return np.log(30 * w) + 1 + (w @ a - 0.3) * a / 0.2**2

    exact = [np.ones(30), b - a, b, (b - mean_b) ** 2]
    values = [1.0, 0.2, mean_b, 0.64]
    limits = optimize.LinearConstraint(np.array(exact), values, values)
    best = optimize.minimize(
        loss,
        np.full(30, 1 / 30),
        jac=slope,
        method="SLSQP",
        constraints=limits,
        bounds=[(1e-9, 1)] * 30,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found.weights, best.x, atol=2e-6)
    np.testing.assert_allclose(found.verdict.log_odds, -best.fun, rtol=1e-6)


def test_views_on_probabilities_quantiles_and_spreads_hold(draws):
    views = [
        ProbabilityView("TLT", 0.0, 0.75),
        QuantileView({"XLF": 1.0}, 0.1, -0.04, step=2),
        SpreadView("IEF", 0.05, mean=0.01),
    ]
    after = with_views(draws, views, names=NAMES, method=EntropyPooling())
    weights, r = np.asarray(after.weights), np.asarray(after.draws)
    np.testing.assert_allclose(weights @ (r[:, 0, 0] > 0.0), 0.75, atol=1e-6)
    np.testing.assert_allclose(weights @ (r[:, 1, 2] > -0.04), 0.9, atol=1e-6)
    np.testing.assert_allclose(after.quantile(0.1)[1, 2], -0.04, atol=1e-4)
    np.testing.assert_allclose(weights @ r[:, 0, 1], 0.01, atol=1e-8)
    np.testing.assert_allclose(np.sqrt(weights @ (r[:, 0, 1] - 0.01) ** 2), 0.05, atol=1e-8)


def test_a_probability_view_has_two_weights_only(draws):
    """Closed form: p / P(above) above, (1 - p) / P(below) below."""
    after = with_views(
        draws, ProbabilityView("TLT", 0.0, 0.7), names=NAMES, method=EntropyPooling()
    )
    above = np.asarray(draws.draws[:, 0, 0] > 0.0)
    weights = np.where(above, 0.7 / above.sum(), 0.3 / (~above).sum())
    np.testing.assert_allclose(after.weights, weights, rtol=1e-6)
    share = above.mean()
    entropy = 0.7 * np.log(0.7 / share) + 0.3 * np.log(0.3 / (1 - share))
    np.testing.assert_allclose(after.verdict.log_odds, -entropy, rtol=1e-7)


def test_views_on_the_expected_return_weigh_draws_by_student_densities(draws):
    expected = 0.3 * draws.draws
    degrees = jnp.asarray([4.0, 7.0, jnp.inf])
    method = ExpectedReturn(expected, degrees)
    after = with_views(draws, VIEWS, names=NAMES, classes=CLASSES, method=method)
    said = np.asarray(expected).reshape(-1, SIZE) @ ROWS.T
    z = (MEANS - said) / SDS
    log_density = (
        stats.t(4).logpdf(z[:, 0]) + stats.t(7).logpdf(z[:, 1]) + stats.norm.logpdf(z[:, 2])
    )
    weights = np.exp(log_density - log_density.max())
    np.testing.assert_allclose(after.weights, weights / weights.sum(), rtol=1e-9)


def test_smoothed_weights_keep_more_and_move_less(law, draws):
    """Of a narrow view on 1,000 draws: the largest weights are fitted, the others scale alike."""
    few = SampleForecast(draws.draws[:1000])
    view = ReturnView("TLT", 0.06, 0.01)
    plain = with_views(few, view, names=NAMES, floor=0.0)
    smooth = with_views(few, view, names=NAMES, floor=0.0, method=ReturnDensity(smooth=True))
    log_weights = -0.5 * ((0.06 - few.draws[:, 0, 0]) / 0.01) ** 2
    oracle = jax.nn.softmax(pareto_smoothed(log_weights - jnp.log(1000.0))[0])
    np.testing.assert_allclose(smooth.weights, oracle, rtol=1e-9)
    assert np.abs(smooth.weights - plain.weights).max() > 1e-6
    ratio = np.sort(np.asarray(smooth.weights / plain.weights))
    np.testing.assert_allclose(ratio[200:700], np.median(ratio), rtol=1e-9)


def test_contradicting_views_warn_with_the_log_odds(law, draws):
    views = [BeatsView("TLT", "XLF", 0.01, 0.004), BeatsView("XLF", "TLT", 0.01, 0.004)]
    among = -0.5 * 0.02**2 / (2 * 0.004**2)  # one implies the other up to the sign
    found = mutual_log_odds(resolve(views, NAMES, horizon=1))
    np.testing.assert_allclose(found, among, rtol=1e-10)
    with pytest.warns(UserWarning, match=r"contradict each other: log-odds -6\.[23]"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the views contradict the forecast")
            with_views(law, views, names=NAMES)
    far = ReturnView("TLT", float(law.mean[0, 0] + 5 * law.std[0, 0]), float(law.std[0, 0]))
    with pytest.warns(UserWarning, match=r"contradict the forecast: log-odds -6\.[23]"):
        with_views(law, far, names=NAMES)  # -25 / (2 (1 + 1))
    with pytest.warns(UserWarning, match=r"log-odds -6\.[23]"):
        with_views(draws, far, names=NAMES, floor=0.0)
    exact = [ReturnView("TLT", 0.01, 0.0), ReturnView("TLT", 0.02, 0.0)]
    assert mutual_log_odds(resolve(exact, NAMES, horizon=1)) == -np.inf
    agreeing = [ReturnView("TLT", 0.01, 0.0), ReturnView("TLT", 0.01, 0.0)]
    assert mutual_log_odds(resolve(agreeing, NAMES, horizon=1)) == 0.0


SAME = ReturnView("TLT", 0.01, 0.0)
SOFT = [ReturnView("IEF", 0.01, 0.01), ReturnView("IEF", 0.05, 0.01)]
BOTH = [ReturnView("TLT", 0.02, 0.03), ReturnView("IEF", 0.01, 0.02), BeatsView("TLT", "IEF", 0, 0)]


@pytest.mark.parametrize(
    ("views", "log_odds"),
    [
        ([SAME, SAME, *SOFT], -4.0),  # each 2 sd from their mean
        ([SAME, ReturnView("TLT", 0.03, 0.01)], -2.0),  # 2 sd from what is certain
        (BOTH, -0.5 * 0.01**2 / (0.03**2 + 0.02**2)),  # both are one number, known twice
        ([SAME, ReturnView("TLT", 0.02, 0.0), *SOFT], -np.inf),
        ([SAME, BeatsView("IEF", "TLT", 0.01, 0.0), ReturnView("IEF", 0.03, 0.0)], -np.inf),
        ([SAME, BeatsView("IEF", "TLT", 0.02, 0.0), ReturnView("IEF", 0.03, 0.0)], 0.0),
        ([SAME, ReturnView("TLT", 0.03, np.inf), ReturnView("XLF", 0.1, 0.001)], 0.0),
    ],
)
def test_exact_and_soft_views_among_each_other(views, log_odds):
    found = mutual_log_odds(resolve(views, NAMES, horizon=1))
    np.testing.assert_allclose(found, log_odds, rtol=1e-9, atol=1e-12)


def test_views_among_each_other_are_weighted_least_squares():
    """Random views that repeat each other in part, on more cells than are spoken of."""
    rng = np.random.default_rng(12)
    weights = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 3))  # they span two returns only
    views = [
        ReturnView(dict(zip(NAMES, row, strict=True)), *rng.uniform(0.01, 0.05, 2))
        for row in weights
    ]
    sds = np.array([view.sd for view in views])
    means = np.array([view.mean for view in views]) / sds
    residuals = means - (rows := weights / sds[:, None]) @ np.linalg.lstsq(rows, means, None)[0]
    found = mutual_log_odds(resolve(views, NAMES, horizon=40))
    np.testing.assert_allclose(found, -0.5 * residuals @ residuals, rtol=1e-9)


def test_a_spread_without_mean_is_refused_beside_a_view_that_moves_it(draws):
    """It would hold the mean of the forecast exactly, and undo the view."""
    spread, pooling = SpreadView("TLT", 0.05), EntropyPooling()
    for same in (ReturnView("TLT", 0.03, 0.1), ReturnView({"TLT": 2.0}, 0.06, 0.1)):
        with pytest.raises(ValueError, match=r"give SpreadView\(\.\.\., mean=\.\.\.\)"):
            with_views(draws, [spread, same], names=NAMES, method=pooling)
    alone = ReturnView("TLT", 0.03, 0.1)
    free = with_views(draws, alone, names=NAMES, method=pooling)
    mean = float(free.mean[0, 0])
    given = SpreadView("TLT", 0.05, mean=mean)
    both = with_views(draws, [alone, given], names=NAMES, method=pooling)
    np.testing.assert_allclose(both.mean[0, 0], mean, atol=1e-8)
    np.testing.assert_allclose(both.std[0, 0], 0.05, rtol=1e-4)
    other = ReturnView("TLT", 0.03, 0.1, step=2)
    held = with_views(draws, [spread, other], names=NAMES, method=pooling)
    np.testing.assert_allclose(held.mean[0, 0], draws.mean[0, 0], atol=1e-8)


def test_too_few_draws_are_refused_on_the_host_and_coded_in_a_program(draws):
    narrow = ReturnView("TLT", 0.03, 1e-4)
    with pytest.raises(ValueError, match=r"Refit .*Kept: 0\.\d+% of 20000 draws \(floor 10%\)"):
        with_views(draws, narrow, names=NAMES)
    statements = resolve(narrow, NAMES, horizon=HORIZON)
    inside = tilted(draws, statements, ReturnDensity(), jnp.asarray(0.1))
    assert bool(inside.verdict.result == VIEW_RESULTS.few_draws_left)
    assert with_views(draws, narrow, names=NAMES, floor=0.0).kept < 0.1
    outside = ReturnView("TLT", 10.0, 0.0)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="outside all draws"):
        warnings.simplefilter("ignore")
        with_views(draws, outside, names=NAMES, method=EntropyPooling())


def test_views_are_batched_and_differentiable(draws):
    few = SampleForecast(draws.draws[:500])

    def first_mean(mean, method):
        views = resolve(ReturnView("TLT", 0.0, 0.05), NAMES, horizon=HORIZON)
        views = type(views)(**{**vars(views), "means": mean[None]})
        return tilted(few, views, method, jnp.asarray(0.1)).mean[0, 1]

    for method in (ReturnDensity(), EntropyPooling()):
        at = jnp.asarray([0.01, 0.02])
        slopes = jax.vmap(jax.grad(first_mean), (0, None))(at, method)
        step = 1e-5
        differences = [
            (first_mean(x + step, method) - first_mean(x - step, method)) / (2 * step) for x in at
        ]
        np.testing.assert_allclose(slopes, differences, rtol=1e-5)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (ReturnView("TLTT", 0.0, 1.0), "no asset or class 'TLTT'; did you mean 'TLT'"),
        (ReturnView("bonds", 0.0, 1.0), "'bonds'; did you mean 'bond'"),
        (ReturnView({"XLE": 1.0}, 0.0, 1.0), "'XLE'; did you mean 'XLF'"),
        (BeatsView("TLT", "gold", 0.0, 1.0), "no asset or class 'gold'"),
        (BeatsView("TLT", "TLT", 0.0, 1.0), "compares it with itself"),
        (ReturnView("TLT", 0.0, -1.0), "sd must be 0 or more"),
        (ReturnView("TLT", np.nan, 1.0), "mean must be finite"),
        (ReturnView("TLT", 0.0, 0.0), "needs views with sd > 0"),
        (ReturnView("TLT", 0.0, 1.0, step=3), r"about step 3; the forecast has 1\.\.2"),
        (ProbabilityView("TLT", 0.0, 1.0), r"probability must be in \(0, 1\)"),
        (ProbabilityView("TLT", 0.0, 0.5), r"use\s+method=EntropyPooling"),
        (QuantileView("TLT", 0.0, 0.5), r"level must be in \(0, 1\)"),
        (SpreadView("TLT", 0.0), "a spread is positive"),
        (SpreadView("TLT", 0.1, mean=np.inf), "mean must be finite"),
        (ReturnView({"TLT": np.nan}, 0.0, 1.0), "are no portfolio"),
        (ReturnView({"TLT": 0.0}, 0.0, 1.0), "are no portfolio"),
        (ReturnView({"bond": 2.0, "TLT": -1.0, "IEF": -1.0}, 0.0, 1.0), "are no portfolio"),
        ([], "no view was given"),
    ],
)
def test_bad_views_are_refused(draws, view, message):
    with pytest.raises(ValueError, match=message):
        with_views(draws, view, names=NAMES, classes=CLASSES)


def test_steps_between_two_are_refused(draws):
    """They would be about no row at all (nothing checks annotations outside the tests)."""
    view = ReturnView("TLT", 5.0, 1.0)
    object.__setattr__(view, "step", 1.5)
    with pytest.raises(ValueError, match=r"about step 1\.5; steps are whole numbers"):
        with_views(draws, view, names=NAMES)


def test_bad_surroundings_are_refused(law, draws):
    view = ReturnView("TLT", 0.0, 1.0)
    with pytest.raises(ValueError, match="2 names for a forecast of 3"):
        with_views(draws, view, names=NAMES[:2])
    with pytest.raises(ValueError, match="'A' stands for several"):
        with_views(draws, view, names=("A", "A", "B"))
    with pytest.raises(ValueError, match="2 classes for 3 series"):
        with_views(draws, view, names=NAMES, classes=CLASSES[:2])
    with pytest.raises(ValueError, match="'TLT' is the name of a series and of a class"):
        with_views(draws, view, names=NAMES, classes=("TLT", "a", "b"))
    with pytest.raises(ValueError, match="need draws"):
        quantile = QuantileView("TLT", 0.5, 0.0)
        with_views(law, quantile, names=NAMES, method=EntropyPooling())
    with pytest.raises(ValueError, match="made of draws"):
        with_views(law, view, names=NAMES, method=ExpectedReturn(draws.draws))
    with pytest.raises(ValueError, match="10 expected returns for 20000 draws"):
        with_views(draws, view, names=NAMES, method=ExpectedReturn(draws.draws[:10]))
    with pytest.raises(ValueError, match="made of draws"):
        view_log_odds(law, view, names=NAMES, method=ExpectedReturn(draws.draws))
    with pytest.raises(ValueError, match=r"end in \(1, 3\), the forecast has \(2, 3\)"):
        with_views(draws, view, names=NAMES, method=ExpectedReturn(draws.draws[:, :1]))
    for degrees, message in (
        (jnp.ones(20_000), r"degrees have shape \(20000,\).* broadcasts to \(20000, 1\)"),
        (jnp.ones((1, 1, 1)), r"degrees have shape \(1, 1, 1\)"),
        (jnp.asarray([-4.0]), r"degrees must be positive \(inf: normal\), got \[-4.0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            with_views(draws, view, names=NAMES, method=ExpectedReturn(draws.draws, degrees))
    with pytest.raises(TypeError, match="pass its draws"):
        mixture = RegimeForecast.ahead(
            state=jnp.ones(1),
            transition=jnp.ones((1, 1)),
            means=jnp.zeros((1, 3)),
            scatters=jnp.eye(3)[None],
            tails=GaussianTails(),
            horizon=1,
        )
        with_views(mixture, view, names=NAMES)  # pyright: ignore


# The weighted law.


@pytest.fixture(scope="module")
def weighted():
    rng = np.random.default_rng(11)
    weights = rng.exponential(size=40) * (rng.uniform(size=40) < 0.7)
    return WeightedForecast(
        jnp.asarray(rng.normal(size=(40, HORIZON, 3))), jnp.asarray(weights / weights.sum())
    )


def test_weighted_moments_and_quantiles(weighted):
    draws, w = np.asarray(weighted.draws), np.asarray(weighted.weights)
    flat = draws.reshape(40, SIZE)
    np.testing.assert_allclose(weighted.mean.reshape(-1), np.average(flat, 0, w), atol=1e-14)
    np.testing.assert_allclose(
        weighted.cov.reshape(SIZE, SIZE), np.cov(flat.T, aweights=w), atol=1e-13
    )
    np.testing.assert_allclose(weighted.std**2, jnp.einsum("hihi->hi", weighted.cov), atol=1e-13)
    levels = np.array([[0.03, 0.5], [0.77, 0.99]])
    expected = np.quantile(draws, levels, axis=0, weights=w, method="inverted_cdf")
    np.testing.assert_array_equal(weighted.quantile(levels), expected)
    np.testing.assert_allclose(weighted.kept, w.sum() ** 2 / (40 * np.sum(w**2)))


def test_equal_weights_are_a_sample(draws):
    plain = SampleForecast(draws.draws[:101])
    equal = WeightedForecast(plain.draws, jnp.full(101, 1 / 101))
    np.testing.assert_allclose(equal.mean, plain.mean, atol=1e-14)
    np.testing.assert_allclose(equal.cov, plain.cov, atol=1e-15)
    np.testing.assert_allclose(equal.std, plain.std, atol=1e-14)
    np.testing.assert_allclose(equal.quantile(0.5), plain.quantile(0.5), atol=1e-14)
    np.testing.assert_allclose(equal.kept, 1.0)


def test_weighted_sums_portfolios_and_units(weighted):
    w = np.asarray(weighted.weights)
    sums = weighted.cumulative()
    np.testing.assert_allclose(sums.mean, np.cumsum(weighted.mean, 0), atol=1e-14)
    book = weighted.aggregate(jnp.asarray([[0.2, 0.3, 0.5]]))
    by_hand = np.asarray(weighted.draws) @ [0.2, 0.3, 0.5]
    np.testing.assert_allclose(book.std[1, 0], np.sqrt(np.cov(by_hand[:, 1], aweights=w)))
    units = weighted.affine(jnp.asarray([1.0, 2.0, 3.0]), jnp.ones((2, 3)))
    np.testing.assert_allclose(units.mean, 1 + np.array([1.0, 2.0, 3.0]) * weighted.mean)
    np.testing.assert_allclose(weighted.marginal(1).mean[:, 0], weighted.mean[:, 1])
    for law in (sums, book, units):
        np.testing.assert_array_equal(law.weights, weighted.weights)


def test_draws_from_a_weighted_law(weighted):
    w, positive = np.asarray(weighted.weights), np.asarray(weighted.weights) > 0
    single = weighted.sample(4000, key=jax.random.key(1))[:, 0, 0]
    counts = np.array([np.sum(np.asarray(single) == x) for x in weighted.draws[:, 0, 0]])
    assert counts[~positive].sum() == 0 and counts.sum() == 4000
    chi2 = np.sum((counts - 4000 * w)[positive] ** 2 / (4000 * w)[positive])
    assert stats.chi2.sf(chi2, positive.sum() - 1) > 1e-3
    again = weighted.resampled(200, key=jax.random.key(2))
    counts = np.array(
        [np.sum(np.asarray(again.draws[:, 0, 0]) == x) for x in weighted.draws[:, 0, 0]]
    )
    assert np.all(counts >= np.floor(200 * w)) and np.all(counts <= np.ceil(200 * w))


# Views in the likelihood.


class Conjugate(Program):
    """y_t ~ N(mu, 1), mu ~ N(0, 2^2) for three assets: everything is known in closed form."""

    y: jax.Array

    def priors(self):
        return {"mu": lambda _: dist.Normal(jnp.zeros(3), 2.0)}

    def log_likelihood(self, parameters):
        return jnp.sum(dist.Normal(parameters["mu"], 1.0).log_prob(self.y))

    def start(self):
        return {"mu": jnp.mean(self.y, axis=0)}

    def simulated(self, parameters, *, key):
        return Conjugate(parameters["mu"] + jax.random.normal(key, self.y.shape))

    def expected(self, parameters):
        return jnp.broadcast_to(parameters["mu"], (HORIZON, 3))


def test_views_in_the_likelihood_are_the_conjugate_posterior():
    y = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)))
    program = viewed_program(Conjugate(y), VIEWS, Conjugate.expected, names=NAMES, classes=CLASSES)
    rows = ROWS[:, :3] + ROWS[:, 3:]  # both steps expect mu
    information = np.eye(3) * (1 / 4 + 5) + rows.T @ np.diag(SDS**-2) @ rows
    mean = np.linalg.solve(information, np.asarray(y).sum(0) + rows.T @ (MEANS / SDS**2))
    position = {"mu": jnp.asarray(mean)}
    slope = jax.grad(program.log_density)(position)["mu"]
    curvature = -jax.hessian(lambda x: program.log_density({"mu": x}))(position["mu"])
    np.testing.assert_allclose(slope, 0.0, atol=1e-9)
    np.testing.assert_allclose(curvature, information, rtol=1e-10)


def test_weights_of_draws_are_the_ratio_of_the_likelihoods():
    """Reweighting by `ExpectedReturn` is sampling the viewed program, draw by draw."""
    y = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)))
    plain = Conjugate(y)
    degrees = jnp.asarray([5.0, jnp.inf, 3.0])
    program = viewed_program(
        plain, VIEWS, Conjugate.expected, names=NAMES, classes=CLASSES, degrees=degrees
    )
    mu = 0.1 * jax.random.normal(jax.random.key(0), (200, 3))
    expected = jax.vmap(lambda x: plain.expected({"mu": x}))(mu)
    forecast = with_views(
        SampleForecast(expected),
        VIEWS,
        names=NAMES,
        classes=CLASSES,
        method=ExpectedReturn(expected, degrees),
        floor=0.0,
    )
    difference = jax.vmap(lambda x: program.log_density({"mu": x}) - plain.log_density({"mu": x}))(
        mu
    )
    np.testing.assert_allclose(forecast.weights, jax.nn.softmax(difference), rtol=1e-9)
    z = (MEANS - np.asarray(expected[0]).reshape(-1) @ ROWS.T) / SDS
    density = [stats.t(5).logpdf(z[0]), stats.norm.logpdf(z[1]), stats.t(3).logpdf(z[2])]
    np.testing.assert_allclose(difference[0], np.sum(density - np.log(SDS)), rtol=1e-10)


def test_a_viewed_program_simulates_its_views():
    plain = Conjugate(jnp.zeros((5, 3)))
    views = [ReturnView("TLT", 0.0, 0.5), ReturnView("IEF", 0.0, 2.0), ReturnView("XLF", 0, np.inf)]
    degrees = jnp.asarray([6.0, jnp.inf, 6.0])
    program = viewed_program(plain, views, Conjugate.expected, names=NAMES, degrees=degrees)
    parameters = {"mu": jnp.asarray([1.0, -1.0, 3.0])}
    keys = jax.random.split(jax.random.key(4), 2000)
    simulated = jax.jit(jax.vmap(lambda k: program.simulated(parameters, key=k)))(keys)
    assert isinstance(simulated, ViewedProgram)
    means = np.asarray(simulated.views.means)
    assert stats.kstest((means[:, 0] - 1.0) / 0.5, stats.t(6).cdf).pvalue > 1e-3
    assert stats.kstest((means[:, 1] + 1.0) / 2.0, stats.norm.cdf).pvalue > 1e-3
    y = np.asarray(simulated.program.y)  # pyright: ignore
    assert stats.kstest(y[:, 0, 0] - 1.0, stats.norm.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(means[:, 0], y[:, 0, 0])[0, 1]) < 0.08
    same = program.identified(parameters)["mu"]
    np.testing.assert_array_equal(same, parameters["mu"])


def test_an_infinite_sd_is_no_view_in_the_likelihood_and_no_density_is_refused():
    plain = Conjugate(jnp.zeros((5, 3)))
    program = viewed_program(plain, ReturnView("TLT", 9.0, np.inf), Conjugate.expected, names=NAMES)
    at = {"mu": jnp.asarray([0.1, 0.2, 0.3])}
    assert float(program.log_density(at)) == float(plain.log_density(at))
    with pytest.raises(ValueError, match="EntropyPooling"):
        viewed_program(plain, ProbabilityView("TLT", 0.0, 0.5), Conjugate.expected, names=NAMES)
    with pytest.raises(ValueError, match="did you mean 'TLT'"):
        viewed_program(plain, ReturnView("TLTX", 0, 1), Conjugate.expected, names=NAMES)
    view = ReturnView("TLT", 0, 1)
    for degrees, message in ((jnp.ones(2), r"broadcasts to \(1,\)"), (0.0, "must be positive")):
        with pytest.raises(ValueError, match=message):
            viewed_program(plain, view, Conjugate.expected, names=NAMES, degrees=degrees)


def test_views_lower_for_cuda(draws):
    views = resolve(VIEWS, NAMES, CLASSES, horizon=HORIZON)
    few = SampleForecast(draws.draws[:50])
    for method in (ReturnDensity(), EntropyPooling()):
        leaves, tree = jax.tree.flatten((few, views))

        def weights(*leaves, tree=tree, method=method):
            return tilted(*jax.tree.unflatten(tree, leaves), method, jnp.asarray(0.1)).weights

        exported = jax.export.export(jax.jit(weights), platforms=["cuda"])(*leaves)
        assert exported.platforms == ("cuda",)
