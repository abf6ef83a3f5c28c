"""Strategies against a plain loop of the bookkeeping, closed forms, and derivatives of the past."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from numpy.testing import assert_allclose
from scipy import optimize, stats

from jaxfc import trading
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.trading import wealth as wealth_module
from jaxfc.trading.strategies import WealthState, share_above_zero

RNG = np.random.default_rng(5)
STEPS = 30
LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
RETURNS = RNG.normal(0.002, 0.03, STEPS)
RETURNS[11] = np.nan
MEAN = RNG.normal(0.0, 0.02, STEPS)
STD = np.exp(RNG.normal(-3.5, 0.3, STEPS))
MEAN[7] = np.nan  # a step without a forecast
QUANTILES = MEAN[:, None] + STD[:, None] * stats.norm.ppf(LEVELS)
RATES = np.full(STEPS, 0.0004)
STRATEGIES = {
    "mix": trading.ConstantMix(0.6),
    "mix, short": trading.ConstantMix(-0.4),
    "hold": trading.BuyAndHold(0.8),
    "PL 90": trading.PredictionLevel(0.9),
    "PL 50": trading.PredictionLevel(0.5),
    "L&S centred": trading.LeveragedLevel(0.8, 2.0, 1.5, -0.5),
    "L&S shifted": trading.LeveragedLevel(0.8, 2.0, 1.0, -1.0, term="shifted"),
    "L&S linear": trading.LinearLevel(0.8, 2.0, -1.0),
    "CPPI": trading.CPPI(3.0, 0.9),
    "CPPI, growing": trading.CPPI(5.0, 0.97, 2.0, floor_grows=True),
    "target": trading.VolatilityTarget(0.02, 1.5),
    "Kelly": trading.Kelly(0.5, 2.0, -1.0),
}


def views():
    return trading.views_of(
        jnp.asarray(QUANTILES), jnp.asarray(LEVELS), mean=jnp.asarray(MEAN), std=jnp.asarray(STD)
    )


def share(t, level):
    """Equation 24, written with its three cases."""
    lo, hi = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2], MEAN[t], STD[t])
    if np.isnan(lo):
        return np.nan
    return 1.0 if lo >= 0 else 0.0 if hi <= 0 else hi / (hi - lo)


def target_of(name, t, book):
    """The target exposure of a strategy by its definition."""
    i, V, s = RATES[t], book["V"], STD[t]
    if name.startswith("mix"):
        return 0.6 if name == "mix" else -0.4
    if name == "hold":
        return 0.8 if t == 0 else book["e"]
    if name.startswith("PL"):
        return share(t, 0.9 if name == "PL 90" else 0.5)
    if name == "L&S centred":
        return np.clip(0.5 + 2.0 * (share(t, 0.8) - 0.5), -0.5, 1.5)
    if name == "L&S shifted":
        return np.clip(2.0 * share(t, 0.8) - 1.0, -1.0, 1.0)
    if name == "L&S linear":
        return -1.0 + 3.0 * share(t, 0.8)
    if name == "target":
        return min(0.02 / s, 1.5)
    if name == "Kelly":
        return np.clip(0.5 * (MEAN[t] + s**2 / 2 - i) / s**2, -1.0, 2.0)
    m, f, b = (3.0, 0.9, 1.0) if name == "CPPI" else (5.0, 0.97, 2.0)
    floor = f * book["V0"] * (book["cash"] if name != "CPPI" else 1.0)
    book["spent"] = book.get("spent", False) or V <= floor
    return 0.0 if book["spent"] else min(m * (V - floor), b * V) / V


def plain_loop(name, *, cost, interval, limits, V0):
    """The bookkeeping in money: units of the asset and cash, the cost found by bisection."""
    book = {"V": V0, "V0": V0, "e": 0.0, "cash": 1.0}
    asset, cash, rows = 0.0, V0, []
    for t in range(STEPS):
        V = asset + cash
        book |= {"V": V, "e": asset / V}
        traded = paid = 0.0
        if not np.isnan(RETURNS[t]) and t % interval == 0:
            pi = np.clip(target_of(name, t, book), *limits)
            if not np.isnan(pi):
                after = optimize.brentq(
                    lambda v, pi=pi, V=V, a=asset: v - (V - cost * abs(pi * v - a)),
                    0.5 * V,
                    1.5 * V,
                    xtol=1e-15,
                )
                traded = abs(pi * after - asset)
                paid = V - after
                asset, cash = pi * after, (1 - pi) * after
        held = asset / (asset + cash)
        if not np.isnan(RETURNS[t]):
            asset, cash = asset * np.exp(RETURNS[t]), cash * (1 + RATES[t])
            book["cash"] *= 1 + RATES[t]
        gain = np.nan if np.isnan(RETURNS[t]) else np.log((asset + cash) / V)
        rows.append((asset + cash, held, traded / V, paid, gain))
    return np.array(rows).T


@pytest.mark.parametrize(
    "options",
    [
        {"cost": 0.0, "interval": 1, "limits": (-9.0, 9.0), "V0": 1.0},
        {"cost": 0.01, "interval": 1, "limits": (-0.2, 0.9), "V0": 100.0},
        {"cost": 0.002, "interval": 4, "limits": (-9.0, 9.0), "V0": 1.0},
    ],
)
def test_paths_are_those_of_a_plain_loop(options):
    paths = trading.run_strategies(
        STRATEGIES,
        RETURNS,
        views(),
        cash_rate=RATES,
        cost=options["cost"],
        interval=options["interval"],
        limits=options["limits"],
        initial_wealth=options["V0"],
    )
    assert list(paths) == list(STRATEGIES)
    for name, path in paths.items():
        wealth, *rest = plain_loop(name, **options)
        assert path.wealth[0] == options["V0"]
        assert_allclose(path.wealth[1:], wealth, rtol=1e-11, err_msg=name)
        got = (path.exposure, path.turnover, path.costs, path.log_returns)
        for ours, theirs in zip(got, rest, strict=True):
            assert_allclose(ours, theirs, rtol=1e-8, atol=1e-11, err_msg=name)


def test_the_prediction_level_is_its_three_cases():
    lower = jnp.asarray([-0.02, 0.0, 0.01, -0.03, -0.03, 0.0, jnp.nan, -jnp.inf])
    upper = jnp.asarray([0.02, 0.02, 0.03, 0.0, -0.01, 0.0, 0.01, 0.01])
    expected = [0.5, 1.0, 1.0, 0.0, 0.0, 1.0, np.nan, 0.0]
    assert_allclose(share_above_zero(lower, upper), expected)
    half, shift = 0.04, 0.013
    assert float(share_above_zero(*jnp.asarray([shift - half, shift + half]))) == pytest.approx(
        0.5 + shift / (2 * half)
    )


def test_cppi_stays_in_cash_once_the_cushion_is_gone():
    """Interest lifts wealth above the fixed floor again; the strategy must not come back."""
    returns = np.array([0.0, np.log(0.5), 0.1, 0.1, 0.1])
    path = trading.run_strategies({"x": trading.CPPI(4.0, 0.9)}, returns, cash_rate=0.2)["x"]
    assert path.wealth[2] < 0.9 < path.wealth[4]
    assert list(path.exposure[2:]) == [0.0, 0.0, 0.0]


def test_a_ruined_strategy_stays_ruined():
    returns = np.array([0.1, -1.0, 0.3, 0.1])
    options = {"cash_rate": 0.01}
    paths = trading.run_strategies(
        {"leverage": trading.ConstantMix(3.0), "short": trading.ConstantMix(-20.0)},
        returns,
        **options,
    )
    path = paths["leverage"]
    assert path.wealth[1] > 1.0
    assert list(path.wealth[2:]) == [0.0, 0.0, 0.0]
    assert list(path.exposure[2:]) == [0.0, 0.0]
    assert path.log_returns[1] == -np.inf and np.isnan(path.log_returns[2:]).all()
    assert list(paths["short"].wealth[1:]) == [0.0] * 4


class Blend(trading.Strategy):
    """A mixture of strategies that between them read everything there is to read."""

    needs = ("mean", "std", "quantiles")
    parts: tuple

    def start(self):
        return tuple(part.start() for part in self.parts)

    def decide(self, view, state, memory):
        answers = [p.decide(view, state, m) for p, m in zip(self.parts, memory, strict=True)]
        return sum(target for target, _ in answers) / 3.0, tuple(kept for _, kept in answers)


def test_nothing_looks_ahead():
    """Wealth after step t has derivative zero in later returns, forecasts and rates, and the
    exposure of step t in the return of step t too; all earlier ones matter."""
    steps = 6
    strategy = Blend(
        (trading.PredictionLevel(0.8), trading.CPPI(2.0, 0.7), trading.Kelly(0.1, 9.0, -9.0))
    )
    data = {
        "returns": jnp.asarray(RETURNS[12 : 12 + steps]),
        "rates": jnp.asarray(RATES[:steps]),
        "quantiles": jnp.tile(0.03 * jnp.asarray(stats.norm.ppf(LEVELS)) + 0.004, (steps, 1)),
        "mean": jnp.full(steps, 0.001),
        "std": jnp.full(steps, 0.1),
    }

    def run(data):
        view = trading.views_of(
            data["quantiles"], jnp.asarray(LEVELS), mean=data["mean"], std=data["std"]
        )
        path = trading.run_strategy(
            strategy, data["returns"], view, cash_rate=data["rates"], cost=0.001
        )
        return path.wealth[1:], path.exposure

    wealth, exposure = jax.jit(jax.jacrev(run))(data)
    later = np.triu(np.ones((steps, steps), bool), 1)
    for name in data:
        by_step = np.abs(np.asarray(wealth[name]).reshape(steps, steps, -1)).max(axis=-1)
        assert np.all(by_step[later] == 0.0), name
        assert np.all(by_step[~later] > 0.0), name
    held = np.asarray(exposure["returns"])
    assert np.all(held[np.triu(np.ones((steps, steps), bool))] == 0.0)
    assert np.all(held[np.tril(np.ones((steps, steps), bool), -1)] != 0.0)


def test_many_strategies_and_many_paths_in_one_vmap():
    levels = jnp.asarray([0.5, 0.7, 0.9])
    panel = jnp.asarray(np.nan_to_num(RETURNS)) + jnp.asarray(RNG.normal(0, 0.01, (4, STEPS)))
    stack = jax.vmap(trading.PredictionLevel)(levels)

    @jax.jit
    def grid(stack, panel):
        over_paths = jax.vmap(lambda s, r: trading.run_strategy(s, r, views()), (None, 0))
        return jax.vmap(over_paths, (0, None))(stack, panel)

    paths = grid(stack, panel)
    assert paths.wealth.shape == (3, 4, STEPS + 1)
    one = trading.run_strategies({"x": trading.PredictionLevel(0.7)}, panel[2], views())["x"]
    assert_allclose(paths.wealth[1, 2], one.wealth, rtol=1e-13)


def test_another_number_does_not_compile_again():
    returns = np.nan_to_num(RETURNS)
    for exposure, cost, interval in [(0.2, 0.0, 1), (0.7, 0.001, 3), (0.9, 0.1, 2)]:
        before = wealth_module.run_stack._cached._cache_size()
        trading.run_strategies(
            {"a": trading.ConstantMix(exposure), "b": trading.ConstantMix(0.0)},
            returns,
            cost=cost,
            interval=interval,
        )
        added = wealth_module.run_stack._cached._cache_size() - before
        assert added == (1 if exposure == 0.2 else 0)


def test_quantiles_between_the_levels_are_exact_for_a_gaussian_law():
    view = jax.tree.map(lambda leaf: leaf[0], views())
    for level in (0.05, 0.17, 0.5, 0.62, 0.95):
        expected = stats.norm.ppf(level, MEAN[0], STD[0])
        assert_allclose(view.quantile(jnp.asarray(level)), expected, rtol=1e-12)
    assert np.isnan(view.quantile(jnp.asarray(0.01)))
    assert_allclose(view.interval(jnp.asarray(0.9)), QUANTILES[0, [0, -1]], rtol=1e-12)


def test_views_of_forecasts():
    law = GaussianForecast(
        jnp.asarray([[0.1, 0.2], [0.3, 0.4]]),
        jnp.eye(4).reshape(2, 2, 2, 2) * 0.04,
    )
    view = trading.view_of(law, jnp.asarray(LEVELS), row=1, series=0)
    assert_allclose(view.quantiles, stats.norm.ppf(LEVELS, 0.3, 0.2), rtol=1e-12)
    assert (float(view.mean), float(view.std)) == (pytest.approx(0.3), pytest.approx(0.2))
    draws = SampleForecast(jnp.asarray(RNG.normal(size=(50, 3, 2))))
    by_origin = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf]), draws)
    stacked = jax.vmap(lambda f: trading.view_of(f, jnp.asarray(LEVELS), series=1))(by_origin)
    expected = np.quantile(np.asarray(draws.draws)[:, 0, 1], LEVELS)
    assert_allclose(stacked.quantiles, [expected, 2.0 * expected], rtol=1e-12)
    path = trading.run_strategy(trading.PredictionLevel(0.5), jnp.asarray([0.01, 0.02]), stacked)
    assert path.exposure.shape == (2,)
    with pytest.raises(ValueError, match="2 rows and 2 series"):
        trading.view_of(law, jnp.asarray(LEVELS), row=2)


def test_kelly_maximises_expected_log_growth():
    """Against Gauss-Hermite quadrature; the formula is that of continuous time, exact to s^2."""
    mean, std, cash = 0.0006, 0.02, 0.0001
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    gross = np.expm1(mean + std * nodes)

    def growth(pi):
        return -weights @ np.log1p(pi * gross + (1 - pi) * cash)

    best = optimize.minimize_scalar(growth, bounds=(0.0, 5.0), method="bounded").x
    view = trading.View(mean=jnp.asarray(mean), std=jnp.asarray(std))
    number = jnp.asarray(1.0)
    state = WealthState(number, number, number, jnp.asarray(cash), number, jnp.asarray(0))
    target, _ = trading.Kelly(1.0, 9.0, -9.0).decide(view, state, ())
    assert float(target) == pytest.approx(best, rel=5e-3)


def test_float32_runs_in_float32():
    view = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), views())
    returns = jnp.asarray(RETURNS, dtype=jnp.float32)
    path = trading.run_strategy(STRATEGIES["PL 90"], returns, view, cost=0.001)
    assert {leaf.dtype for leaf in jax.tree.leaves(path)} == {np.dtype("float32")}
    exact = trading.run_strategies({"x": STRATEGIES["PL 90"]}, RETURNS, views(), cost=0.001)["x"]
    assert_allclose(path.wealth, exact.wealth, rtol=2e-5)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (trading.PredictionLevel(0.9), {"view": None}, "PredictionLevel reads `quantiles`"),
        (trading.PredictionLevel(0.99), {}, "needs the quantiles at 0.005"),
        (trading.PredictionLevel(1.5), {}, "Levels lie in"),
        (trading.ConstantMix(1.0), {"cost": -0.1}, "cost must not be negative"),
        (trading.ConstantMix(1.0), {"interval": 0}, "interval must be at least 1"),
        (trading.ConstantMix(1.0), {"limits": (1.0, 0.0)}, "limits are"),
        (trading.ConstantMix(1.0), {"initial_wealth": 0.0}, "must be positive"),
    ],
)
def test_bad_input_is_refused(strategy, options, message):
    options = {"view": views()} | options
    view = options.pop("view")
    with pytest.raises(ValueError, match=message):
        trading.run_strategies({"x": strategy}, RETURNS, view, **options)


def test_more_bad_input_is_refused():
    with pytest.raises(ValueError, match="name at least one"):
        trading.run_strategies({}, RETURNS)
    with pytest.raises(ValueError, match="the view has 30 steps"):
        trading.run_strategy(trading.PredictionLevel(0.5), jnp.zeros(4), views())
    with pytest.raises((ValueError, TypeCheckError), match="centred"):
        trading.LeveragedLevel(0.5, 2.0, term="linear")
    with pytest.raises(ValueError, match="give both"):
        trading.View(levels=jnp.asarray(LEVELS))


def test_paths_as_a_frame():
    paths = trading.run_strategies({"a": trading.ConstantMix(1.0)}, RETURNS)
    dates = np.datetime64("2020-01-03") + 7 * np.arange(STEPS)
    table = trading.paths_frame(paths, dates, "wealth")
    assert table.shape == (STEPS, 1)
    assert_allclose(table["a"].iloc[-1], np.exp(np.nansum(RETURNS)), rtol=1e-12)
    with pytest.raises(ValueError, match="not 'money'"):
        trading.paths_frame(paths, dates, "money")
    with pytest.raises(ValueError, match="3 dates"):
        trading.paths_frame(paths, dates[:3])


def test_the_table_is_that_of_the_paths():
    paths = trading.run_strategies(
        {"hold": trading.BuyAndHold(0.5), "mix": trading.ConstantMix(0.5)}, RETURNS, cost=0.01
    )
    table = trading.strategy_table(paths, periods_per_year=52.0)
    counted = ~np.isnan(RETURNS)
    for name, path in paths.items():
        assert_allclose(
            table.loc[name, ["total_log_return", "mean_exposure", "mean_turnover"]].to_numpy(float),
            [
                np.log(path.wealth[-1]),
                path.exposure[counted].mean(),
                path.turnover[counted].mean(),
            ],
            rtol=1e-12,
        )


def test_the_scan_lowers_for_cuda():
    def program(returns, view):
        strategies = list(STRATEGIES.values())
        return [trading.run_strategy(s, returns, view, cost=0.001) for s in strategies[-7:]]

    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(
        jnp.asarray(RETURNS), views()
    )
    assert exported.platforms == ("cuda",)
