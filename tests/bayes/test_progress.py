"""Sampling in blocks with a bar on the terminal: the draws are those of one program."""

import equinox as eqx
import jax
import numpy as np
import pytest

import jaxfc
from bayes.asset_worlds import CLASSES, asset_frame
from bayes.known_posteriors import regression
from jaxfc.bayes import (
    NUTS,
    ConstantScale,
    Laplace,
    M6Model,
    PooledHMC,
)
from jaxfc.bayes.progress import blocks, fit_with_progress, sample_with_progress

KEY = jax.random.key(4)
SHORT = {"num_chains": 2, "num_draws": 41, "num_warmup": 26}  # a prime number of transitions


def same(first, second):
    """Every array, bit for bit."""
    ours, theirs = (jax.tree.leaves(tree) for tree in (first, second))
    assert len(ours) == len(theirs) > 5
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "how",
    [
        PooledHMC(**SHORT, num_leapfrogs=5),
        NUTS(**SHORT, max_tree_depth=4),
        NUTS(**SHORT, max_tree_depth=4, vectorised=False),
    ],
    ids=["pooled", "together", "apart"],
)
def test_draws_are_those_of_one_program(how):
    program = regression()
    whole = eqx.filter_jit(how.sample)(program, key=KEY)
    same(sample_with_progress(program, how, key=KEY, shown=False), whole)


def test_a_warm_start_goes_on_in_blocks():
    program, how = regression(), PooledHMC(**SHORT, num_leapfrogs=5)
    first = sample_with_progress(program, how, key=KEY)
    warm = PooledHMC(**SHORT, num_leapfrogs=5, warm=first.tuned)
    whole = eqx.filter_jit(warm.sample)(program, key=KEY)
    same(sample_with_progress(program, warm, key=KEY), whole)


def test_a_model_is_fitted_as_by_fit():
    how = PooledHMC(num_chains=2, num_draws=20, num_warmup=20, num_leapfrogs=4)
    model = M6Model(CLASSES, num_factors=1, factor_scale=ConstantScale(), inference=how)
    panel = jaxfc.Panel.from_frame(asset_frame())
    found = fit_with_progress(model, panel, key=KEY, throw=False)
    whole = model.fit(panel, key=KEY, throw=False)
    same(found, whole)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    with pytest.raises(RuntimeError, match=r"M6Model\.fit: "):
        fit_with_progress(model, panel, key=KEY)


def test_the_bar_says_what_happened(capsys):
    draws = sample_with_progress(regression(), PooledHMC(**SHORT), key=KEY, shown=True)
    told = capsys.readouterr().err
    assert "PooledHMC draws" in told and "67/67" in told and "0 divergent" in told
    assert not draws.divergent.any()
    sample_with_progress(regression(), PooledHMC(**SHORT), key=KEY)  # no terminal, no bar
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("num_steps", [1, 7, 40, 67, 211, 1500, 3001])
def test_blocks_are_all_transitions_in_order(num_steps):
    cut = blocks(num_steps)
    np.testing.assert_array_equal(np.concatenate(cut), np.arange(num_steps))
    lengths = [len(block) for block in cut]
    assert len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0] and len(cut) <= 100
    if num_steps == 1500:
        assert lengths == [75] * 20


def test_what_has_no_transitions_is_refused():
    with pytest.raises(ValueError, match="Laplace has no transitions to follow"):
        sample_with_progress(regression(), Laplace(), key=KEY)
    panel = jaxfc.Panel.from_frame(asset_frame()[list("ABC")])
    with pytest.raises(ValueError, match="DynamicFactorModel does not draw from a posterior"):
        fit_with_progress(jaxfc.DynamicFactorModel(1, 1), panel, key=KEY)
