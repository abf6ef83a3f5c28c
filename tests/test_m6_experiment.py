"""The M6 studies: what the data say and when, the organisers' numbers, baselines against dense
algebra, a small run of each."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import m6, m6_backtest
from experiments.m6_baselines import (
    FEATURES,
    Law,
    ShrunkMoments,
    asset_names,
    baselines,
    ewma_cov,
    independent_cov,
    key_of,
    ledoit_wolf_cov,
    pca_cov,
    second_moments,
    with_young,
)
from experiments.m6_command import with_earlier
from experiments.m6_data import (
    DELISTED,
    RENAMED,
    ROUND_ENDS,
    m6_assets,
    official_prices,
    recent_returns,
    stock_assets,
    without_level,
)
from experiments.m6_scores import LOSSES, compared, fair_rps, scores

RNG = np.random.default_rng(6)


@pytest.fixture(scope="module")
def assets(shared_data):
    return m6_assets(str(shared_data))


@pytest.fixture(scope="module")
def prices(shared_data, assets):
    return official_prices(str(shared_data))[assets.names]


def test_the_assets_are_those_of_the_competition(assets, prices):
    assert assets.returns.shape == (235, 100)
    counts = pd.Series(assets.classes).value_counts().to_dict()
    assert counts == {"stock": 51, "ETF": 40, "bond ETF": 9}  # VXX with the stocks
    assert set(assets.names) == set(prices.columns)
    assert assets.sectors["META"] == "Communication Services"
    assert list(assets.ends[-13:]) == list(ROUND_ENDS[1:])
    table = assets.panel(assets.names).to_frame()
    reports = table[[f"{name} earnings ahead" for name in assets.names]].sum()
    assert (reports.iloc[:50] > 0).all() and (reports.iloc[50:] == 0).all()  # stocks come first
    reported = assets.reports[assets.reports["ticker"] == "META"]["date"]
    ahead = table["META earnings ahead"]
    for end in ROUND_ENDS:
        due = reported.between(end + pd.Timedelta("1D"), end + pd.Timedelta(weeks=4)).any()
        assert ahead[end] == float(due)


def test_returns_of_both_sources_agree(assets, shared_data):
    path = shared_data / "m6_author" / "periods.csv.gz"
    table = pd.read_csv(path, parse_dates=["period_end"])
    theirs = table.pivot(index="period_end", columns="symbol", values="d20_r")
    theirs = theirs.rename(columns={"FB": "META"})[assets.names].loc[ROUND_ENDS[1:]]
    gap = (theirs - assets.returns.loc[ROUND_ENDS[1:]]).abs().stack()
    assert gap.median() < 1e-4
    assert gap.max() < 0.02 and (gap > 0.002).sum() <= 3  # dividends that came to be known later
    deviations = table.pivot(index="period_end", columns="symbol", values="d5_std")
    deviations = deviations.rename(columns={"FB": "META"})[assets.names]
    ratio = (deviations / assets.recent_volatility - 1.0).loc[ROUND_ENDS[1:]].abs().stack()
    assert ratio.median() < 2e-4  # the same five days, the same divisor


def test_recent_returns_from_mixed_prices_follow_the_exact_ones(assets, shared_data):
    table = pd.read_csv(shared_data / "m6_author" / "periods.csv.gz", parse_dates=["period_end"])
    table["symbol"] = table["symbol"].replace(RENAMED)
    mixed = table.pivot(index="period_end", columns="symbol", values="d5_r")[assets.names]
    assert mixed.loc[:"2021"].stack().mean() < -0.15  # what is wrong with them
    made = recent_returns(mixed)
    both = pd.concat([made.stack(), assets.recent_returns.stack()], axis=1, keys=[0, 1])
    both = both[both.index.get_level_values(0) >= ROUND_ENDS[1]].dropna()
    assert len(both) > 1250
    assert both.corr().loc[0, 1] > 0.9
    assert abs(made.stack().mean()) < 0.01 and made.stack().abs().max() < 0.36


def test_splits_start_the_level_again():
    week = 0.02 * RNG.normal(size=60)
    level = np.repeat([-1.0, -0.3], 30)  # a split two for one
    found = without_level(level + week)
    assert np.isnan(found[:3]).all() and np.isnan(found[30]) and np.isnan(found[31])
    kept = np.isfinite(found)
    assert kept[3:30].all() and kept[33:].all()
    assert np.max(np.abs(found[kept] - week[kept])) < 0.04
    crash = week.copy()
    crash[20] = -0.8  # one week alone is no split
    found = without_level(crash)
    assert np.isnan(found[20]) and np.isfinite(found[21:]).all()


def test_nothing_later_than_the_origin_is_known(assets, shared_data, tmp_path):
    """Files whose later rows are changed give the same panel and the same draws at the origin."""
    origin = ROUND_ENDS[4]
    for name in ("m6", "m6_author"):
        (tmp_path / name).mkdir()
    for name in ("m6/M6_Universe.csv", "m6_author/earnings_dates.csv.gz"):
        (tmp_path / name).write_bytes((shared_data / name).read_bytes())
    periods = pd.read_csv(shared_data / "m6_author" / "periods.csv.gz")
    later = periods["period_end"] > f"{origin:%Y-%m-%d}"
    periods.loc[later, ["d20_r", "d5_r", "d5_std"]] *= 0.5
    periods.to_csv(tmp_path / "m6_author" / "periods.csv.gz", index=False)
    days = pd.read_csv(shared_data / "m6" / "assets_m6.csv")
    days.loc[days["date"] > f"{origin:%Y/%m/%d}", "price"] *= 3.0
    days.to_csv(tmp_path / "m6" / "assets_m6.csv", index=False)
    changed = m6_assets(str(tmp_path))
    panels = [one.known_at(origin).panel(one.names) for one in (assets, changed)]
    assert panels[0].names == panels[1].names and panels[0].index[-1] == origin
    np.testing.assert_array_equal(panels[0].observed, panels[1].observed)
    np.testing.assert_array_equal(panels[0].values, panels[1].values)
    place = assets.ends.get_loc(origin)
    assert not np.allclose(assets.returns.iloc[place + 1], changed.returns.iloc[place + 1])
    for name in ("PCA-1", "bootstrap"):
        made = baselines(100)[name]
        draws = [made(panel, key_of(1, name, 4)).draws for panel in panels]
        np.testing.assert_array_equal(draws[0], draws[1])


def test_information_ratios_of_equal_weights_are_the_published_ones(prices):
    table = m6.equal_weights(prices)
    assert len(table) == 18
    np.testing.assert_allclose(
        table["information ratio"], list(m6.PUBLISHED_IRS.values()), rtol=0, atol=1e-12
    )


def test_one_factor_scores_as_measured_before_and_uniform_scores_016(assets, prices):
    """bayes.md, section 6: 0.15606 for a zero-mean one-factor Gaussian of 60 periods."""
    config = dataclasses.replace(m6.QUICK, num_draws=4000, only=("PCA-1",))
    forecaster = m6.forecasters_of(assets, config)["PCA-1"]
    found, uniform = [], []
    closes = prices.ffill()
    for place in range(1, 13):
        origin, end = ROUND_ENDS[place], ROUND_ENDS[place + 1]
        panel = assets.known_at(origin).panel(assets.names)
        law = forecaster(panel, key_of(config.seed, "PCA-1", place))
        realised = (closes.loc[end] / closes.loc[origin] - 1.0).to_numpy()
        found.append(m6.round_rps(m6.submitted(law, assets.names, origin), realised))
        uniform.append(m6.round_rps(np.zeros((2, 100)), realised))
    np.testing.assert_allclose(uniform, 0.16, rtol=1e-12)
    # That figure is of one set of plain draws, whose common factor alone makes 1e-4 of noise.
    assert np.mean(found) == pytest.approx(0.15606, abs=2e-4)
    assert np.sum(np.array(found) < 0.16) >= 11


def test_an_asset_taken_over_returns_zero(assets):
    law = baselines(50)["independent"](
        assets.known_at(ROUND_ENDS[9]).panel(assets.names), key_of(0, "independent", 9)
    )
    place = assets.names.index("DRE")
    before = m6.submitted(law, assets.names, DELISTED["DRE"] - pd.Timedelta("1D"))
    after = m6.submitted(law, assets.names, ROUND_ENDS[9])
    assert np.all(before == law.draws) and np.all(after[:, place] == 0.0)
    assert np.all(np.delete(after, place, axis=1) == np.delete(law.draws, place, axis=1))


def test_covariances_are_those_of_dense_algebra():
    rows = RNG.normal(size=(30, 5)) @ RNG.normal(size=(5, 5))
    moments = rows.T @ rows / 30
    values, vectors = np.linalg.eigh(moments)
    low = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
    got = pca_cov(rows, 2)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(got[off], low[off], rtol=1e-10)
    own = np.maximum(np.diag(moments - low), 0.05 * np.diag(moments))
    np.testing.assert_allclose(np.diag(got), np.diag(low) + own, rtol=1e-10)
    weights = 0.97 ** np.arange(30)[::-1]
    ewma = np.einsum("t,ti,tj->ij", weights, rows, rows) / weights.sum()
    np.testing.assert_allclose(ewma_cov(rows)[off], 0.7 * ewma[off], rtol=1e-10)
    np.testing.assert_allclose(np.diag(ewma_cov(rows)), np.diag(ewma), rtol=1e-10)
    units = rows / np.sqrt(np.diag(moments))
    corr = units.T @ units / 30
    noise = sum(np.sum((np.outer(u, u) - corr) ** 2) for u in units) / 30**2
    kept = 1 - min(1, noise / np.sum((corr - np.eye(5)) ** 2))
    size = np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    np.testing.assert_allclose(ledoit_wolf_cov(rows)[off], (kept * corr * size)[off], rtol=1e-10)


def test_correlations_with_gaps_are_those_of_products_observed():
    rows = RNG.normal(size=(40, 4))
    rows[:25, 3] = np.nan
    seen = np.isfinite(rows)
    got = np.asarray(ShrunkMoments().corr(np.where(seen, rows, 9.0), seen))
    _, corr = second_moments(rows, np.ones(40))
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(got[off], 0.7 * corr[off], rtol=1e-12)
    assert np.all(np.diag(got) == 1.0) and np.linalg.eigvalsh(got).min() > 0.3 - 1e-12


def test_an_asset_too_young_for_a_process_keeps_its_own_variance():
    stocks = stock_assets()
    names = stocks.names[:4]
    returns = stocks.returns[names].copy()
    returns.iloc[:-20, 2] = np.nan
    panel = dataclasses.replace(stocks, returns=returns).panel(names, 60)
    asked = []

    def of_the_old(old, key):
        asked.append(asset_names(old))
        size = len(asked[-1])
        return Law(np.zeros((10, size)), np.full(size, 0.5), np.full((size, size), 0.2))

    law = with_young(of_the_old, 60, 10)(panel, jax.random.key(0))
    assert asked == [[names[0], names[1], names[3]]] and law.draws.shape == (10, 4)
    own = independent_cov(returns.iloc[-60:].to_numpy())[2, 2]
    np.testing.assert_array_equal(law.mean, [0.5, 0.5, 0.0, 0.5])
    np.testing.assert_array_equal(law.cov[2], [0.0, 0.0, own, 0.0])
    assert np.all(np.delete(np.delete(law.cov, 2, 0), 2, 1) == 0.2)


def test_tables_keep_forecasters_of_an_earlier_run(tmp_path):
    path, columns = tmp_path / "table.csv", ["forecaster", "RPS"]
    fresh = pd.DataFrame([("B", 3.0), ("C", 4.0)], columns=columns)
    assert with_earlier(fresh, path) is fresh
    pd.DataFrame([("A", 1.0), ("B", 2.0)], columns=columns).to_csv(path, index=False)
    assert with_earlier(fresh, path).to_numpy().tolist() == [["A", 1.0], ["B", 3.0], ["C", 4.0]]


def test_scores_of_a_known_law():
    truth = RNG.normal(size=8)
    scale = RNG.uniform(0.5, 2.0, size=8)
    cov = np.diag(scale**2)
    law = m6.Law(scale * RNG.normal(size=(4000, 8)), np.zeros(8), cov)
    realised = np.append(scale[:7] * truth[:7], np.nan)
    got = scores(law, realised, scale)
    normal = 0.5 * np.mean(truth[:7] ** 2) + 0.5 * np.log(2 * np.pi)
    assert got["joint log score"] == pytest.approx(normal, rel=1e-12)
    assert got["log score"] == pytest.approx(normal, abs=0.05)
    inside = np.abs(truth[:7]) < 1.2815515655446004
    assert got["coverage 80%"] == pytest.approx(inside.mean(), abs=1 / 7 + 1e-12)
    assert got["assets"] == 7


@pytest.mark.slow
def test_the_rps_without_noise_does_not_depend_on_the_number_of_draws():
    realised = RNG.normal(size=20)
    many = RNG.normal(size=(4000, 20))
    groups = many.reshape(400, 10, 20)
    few = jax.jit(jax.vmap(fair_rps, in_axes=(0, None)))(groups, realised)
    plain = jax.jit(jax.vmap(m6.rank_score, in_axes=(0, None)))(groups, realised)
    assert np.mean(few) == pytest.approx(float(fair_rps(many, realised)), abs=1e-3)
    assert np.mean(plain) - np.mean(few) == pytest.approx(0.016, abs=1e-3)


def test_comparison_pairs_origins():
    lines = [
        {"origin": o, "forecaster": f, **dict.fromkeys(LOSSES, o + 0.1 * (f == "b"))}
        for f in "ab"
        for o in range(6 if f == "b" else 5)
    ]
    table = pd.DataFrame(lines)
    table.loc[table["forecaster"] == "b", "RPS"] += 0.01 * np.arange(6)
    got = compared(table, "a").set_index("forecaster")
    assert got.loc["b", "origins"] == 5  # the sixth has no pair
    gaps = 0.1 + 0.01 * np.arange(5)
    expected = gaps.mean() / (gaps.std(ddof=1) / np.sqrt(5))
    assert got.loc["b", "DM RPS"] == pytest.approx(expected, rel=1e-10)
    assert np.isnan(got.loc["a", "DM RPS"])
    with pytest.raises(ValueError, match="no scores of 'c'"):
        compared(table, "c")


def test_panels_hold_features_beside_returns():
    stocks = stock_assets()
    names = stocks.names[:3]
    panel = stocks.known_at(stocks.ends[200]).panel(names, 50)
    assert panel.num_times == 50 and asset_names(panel) == names
    assert set(panel.names) == {*names, *(f"{n}{f}" for n in names for f in FEATURES[:2])}
    daily = stocks.returns[names[0]].iloc[151:201]
    np.testing.assert_array_equal(panel.to_frame()[names[0]], daily)


@pytest.mark.slow
def test_a_quick_replay_writes_its_tables(tmp_path, shared_data):
    config = dataclasses.replace(
        m6.QUICK, num_draws=800, num_draws_of_portfolios=800, only=("PCA-1",), rounds=(10, 11)
    )
    config = dataclasses.replace(config, rules=m6.RULES[:2])
    config = dataclasses.replace(config, folder=str(shared_data), out=str(tmp_path))
    rounds = m6.run(config)
    assert list(rounds["round"]) == ["round 10", "round 11"]
    assert rounds["PCA-1"].between(0.15, 0.165).all()
    lines = pd.read_csv(tmp_path / "scores.csv")
    assert m6.run(config).equals(rounds) and len(pd.read_csv(tmp_path / "scores.csv")) == len(lines)
    text = (tmp_path / "answers.md").read_text()
    assert f"{rounds['PCA-1'].mean():.5f}" in text and "0.4534698058" in text
    ratios = pd.read_csv(tmp_path / "portfolios.csv").set_index("portfolio")
    assert set(ratios.index) == set(m6.RULES[:2]) and ratios["all rounds"].notna().all()
    with pytest.raises(ValueError, match="unknown forecasters"):
        m6.run(dataclasses.replace(config, only=("PCA-2",)))


def test_a_quick_backtest_goes_on_where_it_stopped(tmp_path):
    config = dataclasses.replace(m6_backtest.QUICK, data="stocks", num_draws=300)
    config = dataclasses.replace(config, only=("PCA-1", "bootstrap"), out=str(tmp_path / "whole"))
    whole = m6_backtest.run(config)
    assert set(whole["origins"]) == {4} and whole["RPS"].between(0.1, 0.2).all()
    part = tmp_path / "part"
    part.mkdir()
    for name in ("scores.csv", "settings.json"):
        (part / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    kept = pd.read_csv(part / "scores.csv").iloc[:3]
    kept.to_csv(part / "scores.csv", index=False)
    again = m6_backtest.run(dataclasses.replace(config, out=str(part)))
    columns = [c for c in whole.columns if c != "seconds"]
    pd.testing.assert_frame_equal(again[columns], whole[columns], rtol=1e-6)
    assert "Diebold" in (part / "answers.md").read_text()
    with pytest.raises(ValueError, match="other settings"):
        m6_backtest.run(dataclasses.replace(config, out=str(part), num_draws=301))


def test_keys_differ_by_forecaster_and_origin():
    keys = [key_of(1, name, origin) for name in ("PCA-1", "PCA-3") for origin in (3, 4)]
    words = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(words) == 4
