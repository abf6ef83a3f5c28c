"""News along a sequence of vintages equal those of its pairs, each of which is checked apart."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, AutoregressiveErrors, DynamicFactorModel
from jaxfc.factors.consecutive_news import consecutive_news
from jaxfc.factors.news_arrays import news_batch
from jaxfc.factors.panel_law import covering
from jaxfc.panel import Panel
from jaxfc.vintages import pseudo_vintages

pytestmark = pytest.mark.slow

NUM_TIMES, NUM_VINTAGES = 24, 6
ROWS = jnp.array([20, 20, 23, 23, 23])
TARGET = jnp.eye(5)[4]


def draw_store():
    """Six vintages of four monthly series and a quarterly sum, each with a revision."""
    rng = np.random.default_rng(7)
    factor = np.convolve(rng.normal(size=NUM_TIMES + 11), 0.8 ** np.arange(12), "valid")
    values = factor[:, None] * rng.normal(size=5) + 0.7 * rng.normal(size=(NUM_TIMES, 5))
    index = pd.date_range("2020-01-31", periods=NUM_TIMES, freq="ME")
    frame = pd.DataFrame(10.0 + 3.0 * values, index=index, columns=[*"abcd", "q"])
    frame = frame.where(rng.random(values.shape) > 0.1)
    frame["q"] = frame["q"].where(index.month % 3 == 0)
    panel = Panel.from_frame(frame, kinds={"q": "flow_sum"}, delays="20D", frequency="M")
    dates = pd.date_range("2021-06-25", periods=NUM_VINTAGES, freq="31D")
    values, observed = map(np.array, pseudo_vintages(panel, dates).arrays())
    for v in range(NUM_VINTAGES):
        values[v, 3 + v : 10, v % 4] += observed[v, 3 + v : 10, v % 4] * rng.normal()
    return panel, jnp.asarray(values), jnp.asarray(observed)


@pytest.fixture(scope="module")
def case():
    panel, values, observed = draw_store()
    model = DynamicFactorModel(1, 1, method=EM(max_steps=3), errors=AutoregressiveErrors())
    return covering(model.fit(panel, throw=False), *np.asarray(observed)), panel, values, observed


def of_pairs(fitted, panel, values, observed, removals):
    @eqx.filter_jit
    def run(values, observed):
        pairs = (values[:-1], observed[:-1]), (values[1:], observed[1:])
        return news_batch(fitted, *pairs, ROWS, TARGET, panel.aggregation, removals=removals)

    return run(values, observed)


def in_sequence(fitted, panel, values, observed, **options):
    @eqx.filter_jit
    def run():
        return consecutive_news(
            fitted, values, observed, ROWS, TARGET, panel.aggregation, **options
        )

    return run()


@pytest.fixture(scope="module")
def pairs(case):
    return of_pairs(*case, False)


@pytest.mark.parametrize("removals", [False, True])
def test_it_equals_the_pairs_whatever_the_chunks(case, pairs, removals):
    fitted, panel, values, observed = case
    if removals:
        observed = observed.at[3, 5, 1].set(False).at[4, 7, 2].set(False)
    expected = of_pairs(fitted, panel, values, observed, True) if removals else pairs
    assert (np.count_nonzero(expected.revisions, axis=(1, 2)) > 0).all()
    if removals:
        assert np.count_nonzero(expected.removals) == 2

    for batch_size in (2,) if removals else (2, None):
        result = in_sequence(
            fitted, panel, values, observed, removals=removals, batch_size=batch_size
        )
        for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)
        parts = result.news_impacts + result.revision_impacts + result.removal_impacts
        change = result.new_nowcast - result.old_nowcast
        np.testing.assert_allclose(parts.sum(axis=(1, 2)), change, atol=1e-12)
        np.testing.assert_allclose(result.old_nowcast[1], result.new_nowcast[0], atol=1e-11)


def test_a_summary_is_kept_of_each_pair(case, pairs):
    kept = in_sequence(*case, summary=lambda arrays: arrays.news_impacts.sum(axis=0), batch_size=3)
    np.testing.assert_allclose(kept, pairs.news_impacts.sum(axis=1), atol=1e-11)


def test_refusals(case):
    fitted, _, values, observed = case
    for arrays, rows, batch_size, message in (
        ((values[:1], observed[:1]), ROWS[:0], None, "1 vintages have 0 consecutive pairs"),
        ((values, observed), ROWS[:3], None, "6 vintages have 5 consecutive pairs, got 3 rows"),
        ((values, observed), ROWS, 0, "batch_size must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            consecutive_news(fitted, *arrays, rows, TARGET, batch_size=batch_size)


def test_it_lowers_for_cuda(case):
    fitted, panel, values, observed = case

    def program(values, observed, rows):
        return consecutive_news(fitted, values, observed, rows, TARGET, panel.aggregation)

    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (values, observed, ROWS)
    )
    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(*given)
    assert exported.platforms == ("cuda",)
