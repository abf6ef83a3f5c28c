"""Transforms by hand, inverses by definition, log-normal moments by algebra and by simulation."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.forecast import FactorForecast, GaussianForecast, SampleForecast
from jaxfc.inversion import invert
from jaxfc.lognormal import ExponentialForecast, exponentiate
from jaxfc.panel import Panel
from jaxfc.transform_rules import (
    FREDMD_CODES,
    Difference,
    DifferenceOfGrowth,
    Growth,
    Level,
    Log,
    LogDifference,
    SecondLogDifference,
    Standardise,
)
from jaxfc.transforms import resolved_one, transform

MONTHS = pd.date_range("2005-01-31", periods=24, freq="ME")
HORIZON = 3
RULES = {
    "level": Level(),
    "log": Log(),
    "diff": Difference(),
    "diff2": Difference(2),
    "dlog": LogDifference(),
    "dlog2": SecondLogDifference(scale=100.0),
    "growth": Growth(),
    "dgrowth": DifferenceOfGrowth(scale=1.0),
    "std": Standardise(),
    "stddlog": Standardise(LogDifference(scale=100.0)),
}


def levels(num_series, num_times=24, seed=0):
    steps = np.random.default_rng(seed).normal(0.01, 0.05, size=(num_times, num_series))
    return 10.0 * np.exp(np.cumsum(steps, axis=0))


def named_frame(names, index=MONTHS, seed=0):
    return pd.DataFrame(levels(len(names), len(index), seed), index=index, columns=list(names))


def gaussian(num_series, seed=0, size=0.03):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(HORIZON * num_series, HORIZON * num_series)) * size
    cov = (root @ root.T).reshape(HORIZON, num_series, HORIZON, num_series)
    mean = jnp.asarray(0.02 * rng.normal(size=(HORIZON, num_series)))
    return GaussianForecast(mean, jnp.asarray(cov))


def by_factors(num_series, seed=0):
    rng = np.random.default_rng(seed)
    root = 0.1 * rng.normal(size=(HORIZON * 2, HORIZON * 2))
    return FactorForecast(
        mean=jnp.asarray(0.02 * rng.normal(size=(HORIZON, num_series))),
        loadings=jnp.asarray(rng.normal(size=(num_series, 2))),
        factor_cov=jnp.asarray((root @ root.T).reshape(HORIZON, 2, HORIZON, 2)),
        idiosyncratic_cov=jnp.asarray(rng.uniform(0.001, 0.01, num_series)),
        mixing=jnp.eye(HORIZON),
    )


def by_hand(name, y):
    """The table of transforms, one line each."""
    s = pd.Series(y)
    dlog = np.log(s).diff()
    return {
        "level": s,
        "log": np.log(s),
        "diff": s.diff(),
        "diff2": s.diff().diff(),
        "dlog": dlog,
        "dlog2": 100 * dlog.diff(),
        "growth": 100 * s.pct_change(fill_method=None),
        "dgrowth": s.pct_change(fill_method=None).diff(),
        "std": (s - s.mean()) / s.std(ddof=0),
        "stddlog": (dlog - dlog.mean()) / dlog.std(ddof=0),
    }[name].to_numpy()


def test_every_transform_is_what_it_says_with_gaps():
    df = named_frame(RULES)
    df.iloc[[0, 9], :] = np.nan
    panel = transform(Panel.from_frame(df), RULES)
    plain = transform(df, {name: rule for name, rule in RULES.items()})
    for name in RULES:
        expected = by_hand(name, df[name].to_numpy())
        found = panel.to_frame()[name].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(plain[name].to_numpy(), found)
    assert panel.num_times == 24 and panel.levels.names == panel.names


def test_the_codes_of_fredmd():
    names = [f"c{code}" for code in range(1, 8)]
    panel = Panel.from_frame(named_frame(names))
    found = transform(panel, {f"c{code}": code for code in range(1, 8)}).to_frame()
    rules = ["level", "diff", "diff2", "log", "dlog", "dlog2", "dgrowth"]
    for name, rule in zip(names, rules, strict=True):
        y = panel.to_frame()[name].to_numpy()
        scale = 0.01 if rule == "dlog2" else 1.0
        np.testing.assert_allclose(found[name], scale * by_hand(rule, y), rtol=0, atol=1e-13)
    assert sorted(FREDMD_CODES) == list(range(1, 8))


def mixed_panel(kind, index=None, low="Q"):
    index = MONTHS if index is None else index
    base = pd.DataFrame({"m": levels(1, len(index))[:, 0]}, index=index)
    ends = index[index.to_period("Q") != (index + (index[1] - index[0])).to_period("Q")]
    quarterly = pd.DataFrame({"q": levels(1, len(ends), 1)[:, 0]}, index=ends)
    key = "M" if len(index) == 24 else "W"
    return quarterly, Panel.from_frames({key: base, low: quarterly}, kinds={"q": kind})


@pytest.mark.parametrize(
    ("kind", "after"),
    [("stock", "flow_sum"), ("flow_average", "change_in_flow"), ("flow_sum", "change_in_flow")],
)
def test_a_quarterly_series_is_differenced_quarter_on_quarter(kind, after):
    quarterly, panel = mixed_panel(kind)
    found = transform(panel, {"q": LogDifference()})
    assert found.kinds == ("stock", after)
    seen = found.to_frame()["q"].dropna()
    np.testing.assert_allclose(seen, np.diff(np.log(quarterly["q"])), atol=1e-15)
    assert list(seen.index) == list(quarterly.index[1:])
    assert found.aggregation is not None
    # A quarter whose own block is in the calendar but not the one before has no row.
    assert found.observed[found.index == quarterly.index[0], 1].sum() == 0


def test_kinds_that_do_not_follow_are_refused_and_can_be_given():
    weeks = pd.date_range("2005-01-07", "2006-12-29", freq="W-FRI")
    _, irregular = mixed_panel("flow_sum", weeks)
    with pytest.raises(
        ValueError, match=r"'q' \(Q, flow_sum\): its periods have different.*kinds="
    ):
        transform(irregular, {"q": Difference()})
    _, short = mixed_panel("flow_sum", weeks[:40])  # three quarters of 13 weeks
    with pytest.raises(ValueError, match="its periods have different numbers"):
        transform(short, {"q": Difference()})
    given = transform(irregular, {"q": Difference()}, kinds={"q": "change_in_flow"})
    assert given.kinds[1] == "change_in_flow"
    _, panel = mixed_panel("flow_average")
    with pytest.raises(ValueError, match=r"'q' \(Q, flow_average\): Difference.order=2."):
        transform(panel, {"q": Difference(2)})


def test_a_given_kind_that_needs_earlier_rows_loses_its_first_value_with_a_warning():
    quarterly = pd.DataFrame({"q": levels(1, 8)[:, 0]}, index=MONTHS[2::3])
    base = named_frame("m", MONTHS[2:])
    panel = Panel.from_frames({"M": base, "Q": quarterly}, kinds={"q": "stock"})
    with pytest.warns(UserWarning, match="begins within the periods of 'q' at 2005-06-30: not"):
        found = transform(panel, {"q": 2}, kinds={"q": "change_in_flow"})
    assert found.observed.sum(axis=0).tolist() == [22, 6]
    assert transform(panel, {"q": 2}).observed.sum(axis=0).tolist() == [22, 7]


def test_bad_transforms_are_refused_by_name():
    df = named_frame("ab")
    df.iloc[4, 1] = 0.0
    panel = Panel.from_frame(df)
    with pytest.raises(ValueError, match=r"'b' is not positive at 2005-05-31 .* \(0\)"):
        transform(panel, {"b": Standardise(Log())})
    with pytest.raises(ValueError, match="'b' is zero at 2005-05-31"):
        transform(panel, {"b": Growth()})
    with pytest.raises(ValueError, match="'a' has unknown code 8; the FRED-MD codes are 1 level"):
        transform(panel, {"a": 8})
    with pytest.raises(TypeError, match="transform of series 'a' is 'log'; give a Transform"):
        resolved_one("a", "log")
    with pytest.raises(ValueError, match="codes names series 'c'"):
        transform(panel, {"c": 1})
    with pytest.raises(ValueError, match="transformed already"):
        transform(transform(panel, 1), 1)
    with pytest.raises(ValueError, match="order of a difference is 1 or 2, got 3"):
        Difference(3)
    line = Panel.from_frame(df.assign(a=np.arange(24.0)))
    with pytest.raises(ValueError, match="series 'a' cannot be standardised: it has no variance"):
        transform(line, {"a": Standardise(Difference())})
    with pytest.raises(ValueError, match="series 'a' is constant"):
        transform(line, {"a": Difference()})
    sparse = df.assign(a=np.where(np.arange(24) % 3 == 2, df["a"], np.nan))
    with pytest.raises(ValueError, match=r"'a' has no value after Difference.*make a Panel first"):
        transform(sparse, {"a": 2})


def test_a_vintage_of_differences_is_the_difference_of_the_vintage():
    panel = Panel.from_frame(named_frame("ab"), delays={"a": "40D"})
    one = transform(panel, 2).as_of("2006-05-31")
    two = transform(panel.as_of("2006-05-31"), 2)
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.levels.observed, two.levels.observed)
    window = transform(panel, 2).window("2005-06", "2006-05")
    assert list(window.levels.index) == list(window.index)
    assert transform(panel, {"a": 2, "b": 5}).select(["b"]).transforms == (LogDifference(),)


def linear_map(panel, rules):
    """x -> levels or logs of levels as a dense matrix and vector, by transforming unit paths."""
    num_series = panel.num_series
    size = HORIZON * num_series
    last = panel.levels.values[-2:]
    matrix, vector = np.zeros((size, size)), np.zeros((HORIZON, num_series))
    for i, rule in enumerate(rules):
        steps = rule.steps
        g = np.log(last[:, i]) if steps.first == "log" else last[:, i]
        for h in range(HORIZON):
            for k in range(h + 1):
                weight = {0: float(h == k), 1: 1.0, 2: h - k + 1.0}[steps.order]
                matrix[h * num_series + i, k * num_series + i] = weight / steps.scale
            vector[h, i] = {0: 0.0, 1: g[1], 2: g[1] + (h + 1) * (g[1] - g[0])}[steps.order]
            row = matrix[h * num_series + i]
            vector[h, i] -= row.sum() * steps.shift
    return matrix, vector


AFFINE_SETS = {
    "order 0": ("level", "std", "std"),
    "order 1": ("diff", "stddiff", "diff"),
    "order 2": ("diff2", "diff2", "diff2"),
    "mixed": ("level", "diff", "diff2", "std", "stddiff"),
}
AFFINE_RULES = RULES | {"stddiff": Standardise(Difference())}


@pytest.mark.parametrize("law", [gaussian, by_factors])
@pytest.mark.parametrize("case", AFFINE_SETS)
def test_affine_inverses_are_exact_and_keep_their_structure(case, law):
    rules = [AFFINE_RULES[name] for name in AFFINE_SETS[case]]
    names = [f"s{i}" for i in range(len(rules))]
    panel = transform(Panel.from_frame(named_frame(names)), dict(zip(names, rules, strict=True)))
    forecast = law(len(rules))
    back = invert(forecast, panel)
    matrix, vector = linear_map(panel, panel.transforms)
    mean = (matrix @ np.asarray(forecast.mean).ravel()).reshape(vector.shape) + vector
    size = mean.size
    cov = matrix @ np.asarray(forecast.cov).reshape(size, size) @ matrix.T
    np.testing.assert_allclose(back.mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.cov.reshape(size, size), cov, rtol=0, atol=1e-11)
    expected = GaussianForecast if case == "mixed" else type(forecast)
    assert type(back) is expected


@pytest.mark.parametrize("name", RULES)
def test_inverting_draws_is_extending_the_levels(name):
    """Levels that go on, transformed, and inverted come back: every rule, also by products."""
    y = levels(1, 24 + HORIZON)
    future = pd.DataFrame(
        y, index=pd.date_range("2005-01-31", periods=27, freq="ME"), columns=["y"]
    )
    panel = transform(Panel.from_frame(future.iloc[:24]), {"y": RULES[name]})
    whole = transform(future, {"y": panel.transforms[0]})
    path = jnp.asarray(whole.to_numpy()[24:])
    draws = SampleForecast(jnp.stack([path, path]))
    back = invert(draws, panel)
    assert isinstance(back, SampleForecast)
    np.testing.assert_allclose(back.draws[1], y[24:], rtol=1e-12)


def test_draws_of_mixed_transforms_come_back_together():
    y = levels(len(RULES), 24 + HORIZON)
    index = pd.date_range("2005-01-31", periods=27, freq="ME")
    future = pd.DataFrame(y, index=index, columns=list(RULES))
    panel = transform(Panel.from_frame(future.iloc[:24]), RULES)
    whole = transform(future, dict(zip(RULES, panel.transforms, strict=True)))
    path = jnp.asarray(whole.to_numpy()[24:])
    back = invert(SampleForecast(jnp.stack([path, 2 * path])), panel)
    np.testing.assert_allclose(back.draws[0], y[24:], rtol=1e-12)


def test_logs_invert_to_the_lognormal_law_and_growth_to_draws():
    names = ["dlog", "level", "dlog2", "diff", "log"]
    df = named_frame(names)
    panel = transform(Panel.from_frame(df), {name: RULES[name] for name in names})
    forecast = gaussian(5)
    back = invert(forecast, panel)
    assert isinstance(back, ExponentialForecast)
    assert list(back.exponentiated) == [True, False, True, False, True]
    matrix, vector = linear_map(panel, panel.transforms)
    x = np.asarray(forecast.sample(40_000, key=jax.random.key(0))).reshape(40_000, -1)
    paths = (x @ matrix.T).reshape(-1, *vector.shape) + vector
    y = np.where(np.asarray(back.exponentiated), np.exp(paths), paths)
    error = y.std(axis=0) / np.sqrt(len(y))
    assert np.all(np.abs(np.asarray(back.mean) - y.mean(axis=0)) < 4.5 * error)
    grown = transform(Panel.from_frame(df), {"dlog": Growth(), "log": RULES["log"]})
    with pytest.raises(ValueError, match=r"levels of 'dlog' are products .*num_draws"):
        invert(forecast, grown)
    draws = invert(forecast, grown, key=jax.random.key(1), num_draws=500)
    sampled = np.asarray(forecast.sample(500, key=jax.random.key(1)))
    last = df["dlog"].iloc[-1]
    product = last * np.cumprod(1 + sampled[:, :, 0] / 100, axis=1)
    np.testing.assert_allclose(draws.draws[:, :, 0], product, rtol=1e-12)
    np.testing.assert_allclose(draws.draws[:, :, 4], np.exp(sampled[:, :, 4]), rtol=1e-12)
    with pytest.raises(ValueError, match="exact without drawing"):
        invert(forecast, panel, key=jax.random.key(1), num_draws=500)


def test_log_differences_of_a_factor_law_keep_its_structure():
    panel = transform(Panel.from_frame(named_frame("abc")), 5)
    forecast = by_factors(3)
    back = invert(forecast, panel)
    assert isinstance(back, ExponentialForecast) and isinstance(back.log, FactorForecast)
    dense = invert(GaussianForecast(forecast.mean, forecast.cov), panel)
    np.testing.assert_allclose(back.mean, dense.mean, rtol=1e-13)
    np.testing.assert_allclose(back.cov, dense.cov, rtol=1e-11)
    np.testing.assert_allclose(back.std**2, jnp.einsum("hihi->hi", dense.cov), rtol=1e-11)


def test_what_cannot_be_inverted_is_refused_by_name():
    df = named_frame("ab")
    with pytest.raises(ValueError, match="was not transformed"):
        invert(gaussian(2), Panel.from_frame(df))
    df.iloc[-2:, 1] = np.nan
    ragged = transform(Panel.from_frame(df), {"a": 5, "b": 2})
    with pytest.raises(
        ValueError, match=r"'b' needs its level in the last 1 row.*2006-12-31.*level is 2006-10-31"
    ):
        invert(gaussian(2), ragged)
    shorter = ragged.window(None, "2006-10-31")
    back = invert(gaussian(2), shorter)
    np.testing.assert_allclose(
        back.mean[0, 1], df["b"].iloc[21] + gaussian(2).mean[0, 1], rtol=1e-13
    )
    pointwise = transform(Panel.from_frame(df), {"a": 5, "b": Standardise()})
    assert invert(gaussian(2), pointwise).mean.shape == (HORIZON, 2)
    with pytest.raises(ValueError, match="forecast has 3 series, the panel 2"):
        invert(gaussian(3), shorter)
    _, mixed = mixed_panel("flow_average")
    with pytest.raises(ValueError, match="'q' is a Q change_in_flow on a M calendar"):
        invert(gaussian(2), transform(mixed, {"q": LogDifference()}))
    with pytest.raises(ValueError, match="'q' is a Q flow_average"):
        invert(gaussian(2), transform(mixed, {"q": Log()}))
    standard = transform(mixed, {"q": Standardise()})
    rule = standard.transforms[1]
    np.testing.assert_allclose(
        invert(gaussian(2), standard).mean[:, 1], rule.mean + rule.std * gaussian(2).mean[:, 1]
    )
    with pytest.raises(ValueError, match="'a' needs its level in the last 2 row"):
        invert(gaussian(1), transform(Panel.from_frame(df[["a"]]), 6).extend(1))


def lognormal_case():
    """Two rows, two series, the first exponentiated, with scale and shift."""
    cov = np.array([[0.5, 0.2, 0.1, 0.0], [0.2, 0.4, -0.1, 0.3], [0.1, -0.1, 0.3, 0.1]])
    cov = np.vstack([cov, [0.0, 0.3, 0.1, 0.6]])
    mean = np.array([[0.1, -0.2], [0.3, 0.4]])
    log = GaussianForecast(jnp.asarray(mean), jnp.asarray(cov.reshape(2, 2, 2, 2)))
    return ExponentialForecast(log, jnp.array([True, False]))


def test_lognormal_moments_by_algebra():
    law = lognormal_case()
    first, second = np.exp(0.1 + 0.25), np.exp(0.3 + 0.15)  # E exp(x) of the two rows
    np.testing.assert_allclose(law.mean, [[first, -0.2], [second, 0.4]], rtol=1e-14)
    expected = np.array(
        [
            [first**2 * (np.exp(0.5) - 1), first * 0.2, first * second * (np.exp(0.1) - 1), 0.0],
            [first * 0.2, 0.4, second * -0.1, 0.3],
            [
                first * second * (np.exp(0.1) - 1),
                second * -0.1,
                second**2 * (np.exp(0.3) - 1),
                second * 0.1,
            ],
            [0.0, 0.3, second * 0.1, 0.6],
        ]
    )
    np.testing.assert_allclose(law.cov.reshape(4, 4), expected, rtol=1e-13)
    np.testing.assert_allclose(law.std.ravel() ** 2, np.diag(expected), rtol=1e-13)
    median = law.quantile(0.5)
    np.testing.assert_allclose(median, [[np.exp(0.1), -0.2], [np.exp(0.3), 0.4]], rtol=1e-14)
    bounds = law.quantile(jnp.array([0.1, 0.9]))
    assert bounds.shape == (2, 2, 2)
    np.testing.assert_allclose(
        bounds[1, 0, 0], np.exp(0.1 + np.sqrt(0.5) * 1.2815515655446004), rtol=1e-13
    )


def test_lognormal_affine_and_marginal_laws():
    law = lognormal_case()
    scale, shift = jnp.array([-2.0, 3.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    moved = law.affine(scale, shift)
    np.testing.assert_allclose(moved.mean, scale * law.mean + shift, rtol=1e-14)
    expected = scale[:, None, None] * law.cov * scale
    np.testing.assert_allclose(moved.cov, expected, rtol=1e-13)
    np.testing.assert_allclose(moved.std, jnp.abs(scale) * law.std, rtol=1e-13)
    flipped = scale * jnp.stack([law.quantile(0.9)[:, 0], law.quantile(0.1)[:, 1]], axis=1) + shift
    np.testing.assert_allclose(moved.quantile(0.1), flipped, rtol=1e-13)
    twice = moved.affine(scale, shift)
    np.testing.assert_allclose(twice.mean, scale * moved.mean + shift, rtol=1e-14)
    for index in (0, 1, -1):
        one = moved.marginal(index)
        np.testing.assert_allclose(one.mean, moved.mean[:, [index]], rtol=1e-14)
        np.testing.assert_allclose(one.cov[:, 0, :, 0], moved.cov[:, index, :, index], rtol=1e-13)


def test_lognormal_moments_by_simulation():
    law = lognormal_case()
    draws = np.asarray(law.sample(200_000, key=jax.random.key(3))).reshape(-1, 4)
    centred = draws - np.asarray(law.mean).ravel()
    error = centred.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(centred.mean(axis=0)) < 4 * error)
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(products.mean(axis=0) - np.asarray(law.cov).reshape(4, 4)) < 4 * error)
    below = (draws < np.asarray(law.quantile(0.9)).ravel()).mean(axis=0)
    assert np.all(np.abs(below - 0.9) < 4 * np.sqrt(0.09 / len(draws)))


def test_lognormal_refuses_what_has_no_law():
    law = lognormal_case()
    with pytest.raises(ValueError, match=r"running sum of log-normals.*as_draws"):
        law.cumulative()
    with pytest.raises(ValueError, match=r"linear combination of log-normals.*as_draws"):
        law.aggregate(jnp.ones((1, 2)))
    draws = law.as_draws(50, key=jax.random.key(0))
    assert isinstance(draws.cumulative(), SampleForecast)
    with pytest.raises(TypeError, match=r"needs? a Gaussian law .*SampleForecast"):
        ExponentialForecast(draws, jnp.array([True, False]))
    with pytest.raises(ValueError, match=r"exponentiated has shape \(1,\) for 2 series"):
        ExponentialForecast(law.log, jnp.array([True]))
    again = exponentiate(draws, jnp.array([True, False]))
    np.testing.assert_allclose(again.draws[..., 0], np.exp(draws.draws[..., 0]))
    np.testing.assert_array_equal(again.draws[..., 1], draws.draws[..., 1])


def test_a_large_plain_value_does_not_spoil_gradients():
    """The branch that is not taken must not overflow: values of 1e4 beside a logarithm."""
    mean = jnp.array([[0.1, 1e4]])

    def total(cov):
        law = ExponentialForecast(GaussianForecast(mean, cov), jnp.array([True, False]))
        return law.mean.sum() + law.cov.sum() + law.std.sum()

    cov = jnp.array([[0.2, 1.0], [1.0, 1e4]]).reshape(1, 2, 1, 2)
    assert np.isfinite(total(cov)) and np.all(np.isfinite(jax.grad(total)(cov)))


def test_inversion_is_traceable_keeps_the_dtype_and_lowers_for_cuda():
    panel = transform(Panel.from_frame(named_frame("ab")), {"a": 5, "b": 3})
    forecast = gaussian(2)

    def moments(law):
        back = invert(law, panel)
        return back.mean, back.std, back.quantile(0.3)

    traced = jax.jit(moments)
    for ours, theirs in zip(traced(forecast), moments(forecast), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), forecast)
    assert all(moment.dtype == jnp.float32 for moment in moments(single))
    exported = jax.export.export(traced, platforms=["cuda"])(forecast)
    assert exported.platforms == ("cuda",)


def test_rules_are_frozen_and_comparable():
    assert Standardise(Log()) == Standardise(Log()) and Growth() != Growth(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Growth().scale = 1.0  # pyright: ignore
    with pytest.raises(ValueError, match="no mean and std yet"):
        _ = Standardise().steps
