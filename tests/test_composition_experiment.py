"""The study of the whole chain: its tables from periods made by hand, and a small run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import composition
from experiments.composition import METHODS, settle
from experiments.composition_answers import answers, compared
from experiments.composition_methods import QUICK, groups_of
from jaxfc.evaluation import sharpe_ratio

PLAIN = ("equal weights", "sample", "shrunk", "EWMA")


def made_up(seed=0, num_months=60):
    """Periods of all methods; the chain foresees variances, the others add noise to them."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2001-01-01", periods=num_months, freq="21B")
    true = np.exp(0.5 * rng.normal(size=num_months)) * 1e-3
    common = rng.normal(size=num_months)
    periods = {}
    for place, name in enumerate(METHODS):
        noise = 0.05 if name == "chain" else 0.8
        own = true * np.exp(noise * rng.normal(size=num_months))
        net = 0.005 + 0.03 * common + 0.01 * rng.normal(size=num_months)
        periods[name] = pd.DataFrame(
            {
                "date": dates,
                "gross": net + 0.001,
                "net": net,
                "turnover": 0.1 * place,
                "variance": own,
                "realised": true,
                "equal_variance": 2 * own,
                "equal_realised": 2 * true,
                "joint": np.log(own) + true / own,
                "okay": np.arange(num_months) != place,
            }
        )
    periods["DCC"] = periods["DCC"].iloc[5:].reset_index(drop=True)
    return periods


def test_tables_and_words_are_those_of_the_periods():
    periods = made_up()
    table = compared(periods, 12.0).set_index("method")
    assert set(table["months"]) == {55}  # those that all have
    net = periods["sample"]["net"].to_numpy()[5:]
    assert table.loc["sample", "mean"] == pytest.approx(1200 * net.mean())
    sharpe = np.sqrt(12.0) * float(sharpe_ratio(jnp.asarray(net))) * np.sqrt(55 / 54)
    assert table.loc["sample", "sharpe"] == pytest.approx(sharpe)
    ratio = (periods["EWMA"]["realised"] / periods["EWMA"]["variance"]).to_numpy()[5:]
    assert table.loc["EWMA", "own"] == pytest.approx(np.mean(ratio - np.log(ratio) - 1))
    # The chain foresees best, so every other one loses more, and each of those significantly.
    assert table["own"].idxmin() == "chain" and (table["p own"].dropna() < 0.05).all()
    assert (table["dm own"].dropna() > 0).all()
    # Method number k fails in month k: those of the first five months are not common.
    assert list(table["failed"]) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    text = answers(table.reset_index(), 0.001)
    assert "lowest for chain, the chain is number 1 of 9" in text
    assert "10 basis points" in text and text.count("\n| ") == 2 * (len(METHODS) + 1)


def test_groups_of_one_stock_are_left_out():
    names = ["AAPL", "AMD", "BAC", "BBY", "CVX", "GE"]
    groups = groups_of(names)
    assert groups.aggregates == ("market", "Technology")
    np.testing.assert_allclose(groups.to_frame().loc["Technology", ["AAPL", "AMD"]], 0.5)


def test_other_settings_are_refused(tmp_path):
    settle(tmp_path / "settings.json", QUICK)
    settle(tmp_path / "settings.json", dataclasses.replace(QUICK, out="elsewhere"))
    with pytest.raises(ValueError, match="other settings"):
        settle(tmp_path / "settings.json", dataclasses.replace(QUICK, cost=0.5))


@pytest.mark.slow
def test_plain_methods_are_computed_and_kept(tmp_path):
    pytest.importorskip("skfolio")
    config = dataclasses.replace(QUICK, out=str(tmp_path))
    assert composition.run(config, PLAIN) is None  # the others are missing
    tables = {n: pd.read_csv(tmp_path / f"periods_{composition.slug(n)}.csv") for n in PLAIN}
    returns = composition.returns_of(config)
    equal = tables["equal weights"]
    row = returns.index.get_loc(equal["date"].iloc[0])
    assert row == config.window - 1
    later = returns.to_numpy()[row + 1 : row + 22]
    gross = np.mean(np.prod(1 + later, axis=0) - 1)
    assert equal["gross"].iloc[0] == pytest.approx(gross, rel=1e-6)
    assert equal["net"].iloc[0] == pytest.approx((1 - 0.001) * (1 + gross) - 1, rel=1e-6)
    realised = np.sum(later.mean(axis=1) ** 2)
    assert tables["sample"]["equal_realised"].iloc[0] == pytest.approx(realised, rel=1e-6)
    cov = 21 * returns.to_numpy()[: row + 1].T @ returns.to_numpy()[: row + 1] / config.window
    assert tables["sample"]["equal_variance"].iloc[0] == pytest.approx(cov.mean(), rel=1e-6)
    assert (tables["sample"]["variance"] <= tables["sample"]["equal_variance"] + 1e-12).all()
    before = (tmp_path / "periods_sample.csv").stat().st_mtime_ns
    composition.run(config, ("sample",))
    assert (tmp_path / "periods_sample.csv").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_quick_run_writes_tables_and_answers(tmp_path):
    pytest.importorskip("skfolio")
    config = dataclasses.replace(QUICK, out=str(tmp_path))
    table = composition.run(config)
    assert table is not None and list(table["method"]) == list(METHODS)
    text = (tmp_path / "answers.md").read_text()
    assert f"{table['months'].iloc[0]} months of 21 days" in text
    chosen = pd.read_csv(tmp_path / "hyperparameters_tuned_chain_crps.csv")
    assert (chosen["half_life"] > 1).all() and chosen["intensity"].between(0, 1).all()
    assert chosen["half_life"].nunique() == len(chosen)
