"""Rank scores against the organisers' published figures, their rule written as a loop over places,
and what follows from the definitions."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.evaluation.rank_scores import (
    check_weights,
    information_ratio,
    mean_ranked_probability_score,
    quantile_classes,
    rank_probabilities,
    rank_probability_error,
    ranked_probability_score,
)

classes_of = jax.jit(quantile_classes, static_argnums=1)
probabilities_of = jax.jit(rank_probabilities)
errors_of = jax.jit(rank_probability_error, static_argnames="num_blocks")
score_of, mean_score = jax.jit(ranked_probability_score), jax.jit(mean_ranked_probability_score)
ratio_of = jax.jit(information_ratio)
RNG = np.random.default_rng(11)
ROUND_ENDS = pd.DatetimeIndex(
    "2022-02-04 2022-03-04 2022-04-01 2022-04-29 2022-05-27 2022-06-24 2022-07-22 2022-08-19 "
    "2022-09-16 2022-10-14 2022-11-11 2022-12-09 2023-01-06 2023-02-03".split()
)
# Information ratios of the benchmark (0.01 in each of the 100 assets): the organisers' workbook
# for the pilot round and rounds 1 to 12, for the four quarters, and for rounds 1 to 12 in one.
PUBLISHED_ROUNDS = [
    -1.9614021234064,
    3.9903564609733,
    -5.9722173226963,
    1.2145320363376,
    -4.1388868911261,
    0.5773235167058,
    6.0600597491225,
    -5.2729971072543,
    -4.8344538836069,
    7.8388772064327,
    -0.0172969537949,
    0.5700101716407,
    5.1218135718675,
]
PUBLISHED_QUARTERS = [-0.0535575574803, -0.6266772403319, -1.9005861782153, 4.7232275769016]
PUBLISHED_YEAR = 0.4534698057912


@pytest.fixture(scope="module")
def m6_prices(shared_data):
    table = pd.read_csv(shared_data / "m6" / "assets_m6.csv", parse_dates=["date"])
    return table.pivot(index="date", columns="symbol", values="price").ffill()


def window(prices, start, end):
    """Simple daily returns after `start` up to `end`."""
    return prices.loc[start:end].pct_change().iloc[1:].to_numpy()


def classes_by_places(returns, num_classes):
    """The rule word by word: rank "min", list the places of each value, average their classes."""
    number = len(returns)
    found = np.zeros((number, num_classes))
    for i, own in enumerate(returns):
        first = 1 + sum(other < own for other in returns)
        places = [first + j for j in range(sum(other == own for other in returns))]
        for place in places:
            number_of_class = sum(place > number * k // num_classes for k in range(1, num_classes))
            found[i, number_of_class] += 1.0 / len(places)
    return found


@pytest.mark.parametrize("num_series, num_classes", [(100, 5), (23, 5), (7, 3), (5, 5), (12, 4)])
@pytest.mark.parametrize("distinct", [1, 3, 1000])
def test_classes_follow_the_rule_of_places(num_series, num_classes, distinct):
    returns = RNG.integers(0, distinct, num_series) / 7.0
    found = classes_of(returns, num_classes)
    np.testing.assert_allclose(found, classes_by_places(returns, num_classes), atol=1e-15)
    np.testing.assert_allclose(jnp.sum(found, axis=1), 1.0, atol=1e-15)
    sizes = np.diff([num_series * k // num_classes for k in range(num_classes + 1)])
    np.testing.assert_allclose(jnp.sum(found, axis=0), sizes, atol=1e-12)


def test_a_tie_on_places_19_to_22_is_half_in_each_of_two_classes():
    returns = np.arange(100.0)
    returns[18:22] = 20.0
    found = np.asarray(classes_of(returns))
    np.testing.assert_array_equal(found[18:22], [[0.5, 0.5, 0.0, 0.0, 0.0]] * 4)
    np.testing.assert_array_equal(found[17], [1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(found[22], [0.0, 1.0, 0.0, 0.0, 0.0])
    # All tied at the top: the borders stay those of 100 assets.
    returns[60:] = 500.0
    found = np.asarray(classes_of(returns))
    np.testing.assert_array_equal(found[59], [0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(found[60:], [[0.0, 0.0, 0.0, 0.5, 0.5]] * 40)


def test_missing_assets_are_not_counted():
    returns = RNG.normal(size=17)
    returns[[2, 5]] = np.nan
    kept = ~np.isnan(returns)
    found = np.asarray(classes_of(returns))
    np.testing.assert_array_equal(found[kept], classes_of(returns[kept]))
    assert np.all(np.isnan(found[~kept]))
    assert np.all(np.isnan(classes_of(np.full(9, np.nan))))
    returns[0], returns[1] = np.inf, -np.inf
    found = np.asarray(classes_of(returns))
    np.testing.assert_array_equal(found[:2], [[0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0]])


def test_probabilities_are_the_mean_of_the_classes_of_the_draws():
    draws = np.round(RNG.normal(size=(50, 20)), 1)  # with ties
    draws[3, 4] = draws[7, 4] = draws[7, 9] = np.nan
    members = np.asarray(classes_of(draws))
    np.testing.assert_allclose(probabilities_of(draws), np.nanmean(members, axis=0), atol=1e-14)
    weights = RNG.uniform(size=50)
    known = weights[:, None] * ~np.isnan(draws)
    expected = np.nansum(weights[:, None, None] * members, axis=0) / known.sum(axis=0)[:, None]
    found = probabilities_of(draws, weights=weights)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(probabilities_of(draws, weights=3.0 * weights), found, atol=1e-14)


def test_probabilities_sum_to_one_over_classes_and_to_a_fifth_of_the_assets():
    draws = np.round(RNG.normal(size=(40, 25)), 1)
    for options in ({}, {"weights": RNG.uniform(size=40)}, {"smoothing": 7.0}):
        found = probabilities_of(draws, **options)
        np.testing.assert_allclose(jnp.sum(found, axis=1), 1.0, atol=1e-13)
        np.testing.assert_allclose(jnp.sum(found, axis=0), 5.0, atol=1e-12)


def test_smoothing_adds_draws_that_know_nothing():
    draws = RNG.normal(size=(10, 10))
    everything_tied = np.zeros((6, 10))
    expected = probabilities_of(np.concatenate([draws, everything_tied]))
    np.testing.assert_allclose(probabilities_of(draws, smoothing=6.0), expected, atol=1e-14)
    # Draws of weight zero are no draws, whatever the scale of the weights.
    weights = np.repeat([3.0, 0.0], 10)
    kept = probabilities_of(np.concatenate([draws, -draws]), weights=weights, smoothing=6.0)
    np.testing.assert_allclose(kept, expected, atol=1e-14)


def test_probabilities_and_scores_move_with_the_assets():
    draws, outcome = RNG.normal(size=(30, 15)), RNG.normal(size=15)
    order = RNG.permutation(15)
    probabilities, moved = probabilities_of(draws), probabilities_of(draws[:, order])
    np.testing.assert_allclose(moved, probabilities[order], atol=1e-15)
    scores = score_of(probabilities, classes_of(outcome))
    again = score_of(moved, classes_of(outcome[order]))
    np.testing.assert_allclose(again, scores[order], atol=1e-15)


def test_the_standard_error_is_the_spread_over_repetitions():
    shift = np.linspace(-0.3, 0.3, 10)
    draws = np.random.default_rng(5).normal(size=(1000, 200, 10)) + shift
    estimates = jax.lax.map(rank_probabilities, draws, batch_size=100)
    errors = jax.lax.map(rank_probability_error, draws, batch_size=100)
    mean_square = jnp.sqrt(jnp.mean(errors**2, axis=0))
    # The standard deviation of 1000 estimates has itself a relative error of 2.2 per cent.
    np.testing.assert_allclose(mean_square, jnp.std(estimates, axis=0), rtol=0.09)
    single = np.asarray(classes_of(draws[0])).std(axis=0, ddof=1) / np.sqrt(200)
    np.testing.assert_allclose(errors[0], single, atol=1e-14)


def test_blocks_of_draws_see_their_dependence():
    base = RNG.normal(size=(100, 8))
    repeated = np.repeat(base, 5, axis=0)
    plain = errors_of(base)
    np.testing.assert_allclose(errors_of(repeated, num_blocks=100), plain, atol=1e-14)
    naive = errors_of(repeated)
    np.testing.assert_allclose(naive, plain * np.sqrt(99 / 499), atol=1e-14)
    # Halving by weights of zero doubles the variance.
    weights = np.tile([1.0, 0.0], 50)
    kept = errors_of(base, weights=weights)
    half = errors_of(base[::2])
    np.testing.assert_allclose(kept, half * np.sqrt(49 / 50 * 100 / 99), atol=1e-14)


def test_scores_of_known_forecasts():
    example = [[0.0, 0.2, 0.3, 0.4, 0.1]]
    outcome = [[0.0, 0.0, 0.0, 1.0, 0.0]]
    score = score_of(np.array(example), np.array(outcome))
    np.testing.assert_allclose(score, [0.06], rtol=1e-14)  # the example of the guidelines
    members = classes_of(np.arange(10.0))
    np.testing.assert_array_equal(score_of(members, members), 0.0)
    uniform = np.full((10, 5), 0.2)
    expected = np.repeat([0.24, 0.12, 0.08, 0.12, 0.24], 2)
    np.testing.assert_allclose(score_of(uniform, members), expected, rtol=1e-13)
    np.testing.assert_allclose(mean_score(uniform, members), 0.16, rtol=1e-14)


def test_the_mean_score_leaves_out_what_was_not_ranked():
    returns = RNG.normal(size=(3, 12))
    returns[0, 4] = np.nan
    returns[2] = np.nan
    probabilities = np.full((3, 12, 5), 0.2)
    members = classes_of(returns)
    scores = np.asarray(score_of(probabilities, members))
    assert np.isnan(scores[0, 4]) and np.isnan(scores).sum() == 13
    means = mean_score(probabilities, members)
    np.testing.assert_allclose(means[:2], np.nanmean(scores[:2], axis=1), rtol=1e-14)
    assert np.isnan(means[2])


def test_the_benchmark_scores_as_published(m6_prices):
    weights = np.full(100, 0.01)
    uniform = np.full((100, 5), 0.2)
    ends = list(ROUND_ENDS)
    for i, published in enumerate(PUBLISHED_ROUNDS):
        found = ratio_of(window(m6_prices, ends[i], ends[i + 1]), weights)
        np.testing.assert_allclose(found, published, rtol=0, atol=1e-12)
        returns = (m6_prices.loc[ends[i + 1]] / m6_prices.loc[ends[i]] - 1.0).to_numpy()
        score = mean_score(uniform, classes_of(returns))
        np.testing.assert_allclose(score, 0.16, rtol=0, atol=1e-15)
    for quarter, published in enumerate(PUBLISHED_QUARTERS):
        start, end = ends[1 + 3 * quarter], ends[4 + 3 * quarter]
        found = ratio_of(window(m6_prices, start, end), weights)
        np.testing.assert_allclose(found, published, rtol=0, atol=1e-12)
    year = window(m6_prices, ends[1], ends[-1])
    assert len(year) == 238
    np.testing.assert_allclose(ratio_of(year, weights), PUBLISHED_YEAR, rtol=0, atol=1e-12)


def test_the_information_ratio_by_hand():
    returns = np.array([[0.01, -0.02], [0.03, 0.00], [-0.01, 0.02]])
    daily = np.log1p(returns @ [0.5, -0.25])
    expected = daily.sum() / daily.std(ddof=1)
    np.testing.assert_allclose(ratio_of(returns, np.array([0.5, -0.25])), expected)
    by_day = np.array([[0.5, -0.25], [0.5, -0.25], [1.0, 0.0]])
    daily[2] = np.log1p(-0.01)
    expected = daily.sum() / daily.std(ddof=1)
    np.testing.assert_allclose(ratio_of(returns, by_day), expected)
    assert np.isnan(ratio_of(np.full((4, 2), 0.001), np.array([0.5, 0.5])))
    assert np.isnan(ratio_of(np.where(returns == 0, np.nan, returns), np.ones(2)))


def test_weights_of_the_competition():
    check_weights(np.array([0.6, -0.4]))
    check_weights(np.full(100, 0.0025))
    with pytest.raises(ValueError, match=r"sum to 1\.2, outside \[0\.25, 1\]"):
        check_weights(np.array([0.6, -0.6]))
    with pytest.raises(ValueError, match=r"sum to 0\.1"):
        check_weights(np.array([0.1, 0.0]))
    with pytest.raises(ValueError, match="sum to nan"):
        check_weights(np.array([0.5, np.nan]))
    check_weights(np.array([0.9, -0.9]), most=2.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: quantile_classes(np.arange(4.0)), "5 classes of 4 assets"),
        (lambda: rank_probabilities(np.zeros((3, 8)), 1), "1 classes of 8 assets"),
        (lambda: rank_probabilities(np.zeros((3, 8)), weights=np.zeros(3)), "not all zero"),
        (lambda: rank_probabilities(np.zeros((3, 8)), weights=-np.ones(3)), "not negative"),
        (lambda: rank_probabilities(np.zeros((3, 8)), smoothing=-1.0), "smoothing"),
        (lambda: rank_probability_error(np.zeros((9, 8)), num_blocks=2), "9 draws do not make 2"),
        (lambda: rank_probability_error(np.zeros((1, 8))), "1 draws do not make 1"),
        (lambda: ranked_probability_score(np.full((8, 5), 0.1), np.zeros((8, 5))), "sum to 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rank_scores_lower_for_cuda_and_work_in_float32():
    draws = jax.ShapeDtypeStruct((64, 20), jnp.float32)
    members = jax.ShapeDtypeStruct((20, 5), jnp.float32)
    for function, arguments in [
        (rank_probabilities, (draws,)),
        (rank_probability_error, (draws,)),
        (mean_ranked_probability_score, (members, members)),
        (information_ratio, (draws, jax.ShapeDtypeStruct((20,), jnp.float32))),
    ]:
        exported = jax.export.export(jax.jit(function), platforms=["cuda"])(*arguments)
        assert exported.platforms == ("cuda",) and exported.out_avals[0].dtype == jnp.float32
