"""What is written to disk comes back to the bit: stores of any configuration and table, models with
any numbers, trees of any shape."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfc.factors import PCA, DynamicFactorModel
from jaxfc.running.store import ResultStore
from jaxfc.serialisation import load, read_arrays, save
from jaxfc.serialisation_tree import decode, encode

texts = st.text(st.characters(codec="utf-8"), max_size=8)
whole = st.integers(-(2**63), 2**63 - 1)
scalars = st.one_of(st.none(), st.booleans(), whole, st.floats(), texts)
configurations = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
COLUMNS = {
    "whole": (whole, np.int64),
    "number": (st.floats(), np.float64),
    "flag": (st.booleans(), bool),
    "text": (texts, object),
}


@st.composite
def tables(draw):
    """A frame of a few columns of any kind and name."""
    num_rows = draw(st.integers(0, 5))
    names = draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    columns = {}
    for name in names:
        cells, dtype = COLUMNS[draw(st.sampled_from(list(COLUMNS)))]
        columns[name] = pd.Series(
            draw(st.lists(cells, min_size=num_rows, max_size=num_rows)), dtype=dtype
        )
    return pd.DataFrame(columns)


@given(config=configurations, table=tables(), notes=configurations)
def test_a_store_gives_back_what_it_was_given(config, table, notes):
    with tempfile.TemporaryDirectory() as folder:
        ResultStore(Path(folder) / "store", config).write(1, 2, table, notes)
        turned = dict(reversed(list(config.items())))
        again = ResultStore(Path(folder) / "store", turned)
        assert json.dumps(again.config, sort_keys=True) == json.dumps(config, sort_keys=True)
        ((cell, chunk, found, said),) = again.parts()
    assert (cell, chunk, json.dumps(said)) == (1, 2, json.dumps(notes))
    assert list(found.columns) == list(table.columns)
    for name in table.columns:
        ours, theirs = table[name].to_numpy(), found[name].to_numpy()
        if ours.dtype == object:
            assert ours.tolist() == theirs.tolist()
        else:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@given(config=configurations, other=configurations)
def test_a_store_is_of_one_configuration(config, other):
    with tempfile.TemporaryDirectory() as folder:
        ResultStore(folder, config)
        if json.dumps(config, sort_keys=True) == json.dumps(other, sort_keys=True):
            ResultStore(folder, other)
        elif config != other:  # 1 and 1.0, or False and 0, may stand for each other
            with pytest.raises(ValueError, match="another configuration"):
                ResultStore(folder, other)


class OnDevice(NamedTuple):
    """An array that JAX shall hold."""

    array: np.ndarray


def on_devices(tree):
    """The tree with arrays where they shall be."""
    if isinstance(tree, OnDevice):
        return jnp.asarray(tree.array)
    if isinstance(tree, list | tuple):
        return type(tree)(on_devices(part) for part in tree)
    if isinstance(tree, dict):
        return {key: on_devices(part) for key, part in tree.items()}
    return tree


DTYPES = ("float64", "float32", "int32", "int64", "uint8", "bool", "complex128")


@st.composite
def arrays(draw):
    """An array of NumPy or JAX, any dtype and small shape, any bits."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape)) * dtype.itemsize
    content = draw(st.binary(min_size=count, max_size=count))
    if dtype.kind == "b":
        content = bytes(byte & 1 for byte in content)
    array = np.frombuffer(content, dtype).reshape(shape)
    return OnDevice(array) if draw(st.booleans()) else array


trees = st.recursive(
    scalars | arrays(),
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(texts | whole, part, max_size=3)
    ),
    max_leaves=8,
)


def bits(tree):
    """A tree with every array and number as type, shape and bytes."""
    if isinstance(tree, list | tuple):
        return type(tree)(bits(part) for part in tree)
    if isinstance(tree, dict):
        return {key: bits(part) for key, part in tree.items()}
    if isinstance(tree, jax.Array | np.ndarray):
        array = np.asarray(tree)
        kind = "jax" if isinstance(tree, jax.Array) else "numpy"
        return kind, str(array.dtype), array.shape, array.tobytes()
    return type(tree), tree.hex() if isinstance(tree, float) else tree


@given(drawn=trees)
def test_trees_come_back_to_the_bit(drawn):
    tree, found = on_devices(drawn), []
    text = json.dumps(encode(tree, found, "tree"), allow_nan=False)
    with tempfile.TemporaryFile() as body:
        eqx.tree_serialise_leaves(body, found)
        body.seek(0)
        content = body.read()
    assert bits(decode(json.loads(text), lambda like: read_arrays(content, like))) == bits(tree)


@pytest.fixture(scope="module")
def fitted():
    values = jax.random.normal(jax.random.key(0), (12, 4))
    model = DynamicFactorModel(1, 1, method=PCA())
    return eqx.filter_jit(model.estimate)(values, jnp.ones(values.shape, bool))


@given(seed=st.integers(0, 2**32 - 1))
def test_models_with_any_bits_come_back(fitted, seed):
    """Every float of a fitted model replaced by random bits: NaN of all kinds, denormals, -0."""
    rng = np.random.default_rng(seed)

    def replaced(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        content = rng.bytes(leaf.size * leaf.dtype.itemsize)
        return jnp.asarray(np.frombuffer(content, leaf.dtype).reshape(leaf.shape))

    odd = jax.tree.map(replaced, fitted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.jaxfc"
        save(odd, path)
        first = path.read_bytes()
        again = load(path)
        save(again, path)
        assert path.read_bytes() == first
        assert [p.name for p in Path(folder).iterdir()] == ["model.jaxfc"]
    assert jax.tree.structure(again) == jax.tree.structure(odd)
    for ours, theirs in zip(jax.tree.leaves(odd), jax.tree.leaves(again), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
