"""Saved models come back bit for bit; damaged, foreign and missing files are refused."""

import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc import serialisation
from jaxfc.factors import PPCA, DynamicFactorModel
from jaxfc.model import Fitted
from jaxfc.results import RESULTS
from jaxfc.serialisation import DIGEST_SIZE, LENGTH_SIZE, MAGIC, PREFIX_SIZE, load, save
from jaxfc.serialisation_tree import decode, encode
from jaxfc_kernels.aggregation import identity_rows
from precision import single_precision

MODEL = DynamicFactorModel(num_factors=2, num_lags=1, method=PPCA())


@pytest.fixture(scope="module")
def panels():
    values = jax.random.normal(jax.random.key(0), (2, 20, 5)).cumsum(axis=-1)
    return values, jax.random.uniform(jax.random.key(1), values.shape) > 0.1


@pytest.fixture(scope="module")
def fits(panels):
    """A batch of two fits; one of them alone is `fits` with its first member taken."""
    return eqx.filter_jit(eqx.filter_vmap(MODEL.estimate))(*panels)


@pytest.fixture(scope="module")
def fitted(fits):
    return jax.tree.map(lambda leaf: leaf[0], fits, is_leaf=eqx.is_array)


@pytest.fixture
def path(fitted, tmp_path):
    save(fitted, tmp_path / "model.jaxfc")
    return tmp_path / "model.jaxfc"


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a.dtype == b.dtype and type(a) is type(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def rewritten(path, change):
    """The file with its header changed and a checksum that fits again, as a forger would do."""
    content = path.read_bytes()[PREFIX_SIZE - LENGTH_SIZE :]
    end = LENGTH_SIZE + int.from_bytes(content[:LENGTH_SIZE], "big")
    header = change(json.loads(content[LENGTH_SIZE:end]))
    text = json.dumps(header).encode()
    content = len(text).to_bytes(LENGTH_SIZE, "big") + text + content[end:]
    path.write_bytes(MAGIC + hashlib.sha256(content).digest() + content)
    return path


def test_a_model_comes_back_bit_for_bit(fitted, path):
    loaded = load(path)
    assert_same(loaded, fitted)
    assert loaded.model.method == fitted.model.method
    assert_same(loaded.forecast(3), fitted.forecast(3))
    key = jax.random.key(2)
    assert_same(loaded.simulate(4, key=key), fitted.simulate(4, key=key))


def test_a_batch_comes_back_with_all_its_codes(fits, tmp_path):
    failed = jnp.asarray([True, False])
    codes = jax.vmap(lambda f: RESULTS.where(f, RESULTS.diverged, RESULTS.successful))(failed)
    fits = eqx.tree_at(lambda f: f.result, fits, codes)
    save(fits, tmp_path / "batch")
    loaded = load(str(tmp_path / "batch"))
    assert_same(loaded, fits)
    assert (loaded.result == RESULTS.diverged).tolist() == [True, False]


def test_a_code_is_found_by_its_name_not_by_its_number():
    arrays = []
    tree = encode(RESULTS.diverged, arrays, "result")
    (number,) = tree["names"]
    tree["names"] = {number: "nonstationary"}  # as if the numbers had moved
    assert decode(tree, lambda like: arrays) == RESULTS.nonstationary


def test_containers_and_odd_numbers_come_back():
    value = {
        "rows": identity_rows(3, 2, jnp.dtype("float64")),
        3: (None, True, -0.0, float("inf"), [1, "text", np.arange(4, dtype=np.int16)]),
        "half": jnp.asarray([1.5, jnp.nan], jnp.bfloat16),
    }
    arrays = []
    tree = json.loads(json.dumps(encode(value, arrays, "value"), allow_nan=False))
    back = decode(tree, lambda like: arrays)
    assert_same(
        {k: v for k, v in back.items() if k != 3}, {k: v for k, v in value.items() if k != 3}
    )
    assert back[3][:4] == value[3][:4] and str(back[3][2]) == "-0.0"
    assert back[3][4][:2] == [1, "text"] and type(back[3]) is tuple
    np.testing.assert_array_equal(back[3][4][2], value[3][4][2])


def test_saving_replaces_a_file_and_leaves_nothing_else(fitted, path):
    path.write_bytes(b"old")
    save(fitted, path)
    assert_same(load(path), fitted)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(fitted, path, monkeypatch):
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(serialisation.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(fitted, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x93NUMPY", MAGIC[:5]])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of a fitted model"):
        load(tmp_path / "file")


@pytest.mark.parametrize("length", [8, 20, PREFIX_SIZE, PREFIX_SIZE + 50, -1])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


def test_a_file_that_goes_on_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


@pytest.mark.parametrize("where", [len(MAGIC), len(MAGIC) + DIGEST_SIZE + 2, PREFIX_SIZE + 9, -3])
def test_a_flipped_byte_is_refused(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


def with_class(name):
    def change(header):
        header["tree"]["class"] = name
        return header

    return change


def without_field(header):
    del header["tree"]["fields"]["model"]["fields"]["initial"]
    return header


def another_shape(header):
    header["tree"]["fields"]["factors"]["shape"] = [3, 3]
    return header


def one_array_twice(header):
    header["tree"]["fields"]["factors"]["array"] = 0
    return header


def unknown_code(header):
    header["tree"]["fields"]["result"]["names"] = {"0": "mistaken"}
    return header


def unknown_tag(header):
    header["tree"]["fields"]["model"]["fields"]["initial"] = {"pickle": "gASV"}
    return header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header | {"version": 2}, "format version 2, this jaxfc reads version 1"),
        (lambda header: header | {"format": "other"}, "is no file of a fitted model"),
        (lambda header: [], "is no file of a fitted model"),
        (with_class("subprocess:Popen"), "not of jaxfc"),
        (with_class("jaxfcx.model:Fitted"), "not of jaxfc"),
        (with_class("jaxfc.factors.model:Nothing"), "this jaxfc does not have"),
        (with_class("jaxfc.nothing:Nothing"), "this jaxfc does not have"),
        (with_class("jaxfc.serialisation:Path"), "no class defined there"),
        (with_class("jaxfc.serialisation:save"), "no class defined there"),
        (with_class("jaxfc.panel:Panel"), "which is no module"),
        (with_class("jaxfc.factors.model:DynamicFactorModel"), "written by another version"),
        (with_class(3), "names no class"),
        (without_field, "written by another version"),
        (another_shape, "not those its header describes"),
        (one_array_twice, "not numbered in order"),
        (unknown_code, "'mistaken'"),
        (unknown_tag, "something unknown"),
        (lambda header: header | {"tree": {"list": [header["tree"]]}}, "not a fitted model"),
    ],
)
def test_a_foreign_header_is_refused(path, change, message):
    with pytest.raises(ValueError, match=message):
        load(rewritten(path, change))


def test_numbers_that_jax_would_cut_are_refused(path):
    with single_precision(), pytest.raises(ValueError, match="jax_enable_x64"):
        load(path)


class Odd(Fitted):
    """A fitted model with something that has no safe form on disk."""

    loglik: object
    num_steps: object
    result: object

    def forecast(self, horizon, *, key=None):
        raise NotImplementedError

    def simulate(self, num_steps, *, key):
        raise NotImplementedError

    def given(self, values, observed, *, aggregation=None):
        raise NotImplementedError


@pytest.mark.parametrize("thing", [len, jax.random.key(0), {1, 2}, np.asarray([None])])
def test_what_has_no_safe_form_is_refused_and_named(thing):
    with pytest.raises(TypeError, match=r"fitted\.thing.*no safe form"):
        encode(thing, [], "fitted.thing")


def test_only_concrete_fitted_models_of_jaxfc_are_saved(fitted, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(TypeError, match="DynamicFactorModel"):
        save(MODEL, path)
    with pytest.raises(TypeError, match="outside jaxfc"):
        save(Odd(0, 0, 0), path)
    with pytest.raises(TypeError, match=r"FittedFactorModel\..* is a traced value"):
        eqx.filter_jit(lambda f: save(f, path))(fitted)
    assert not path.exists()


def test_files_are_as_readable_as_others(tmp_path):
    (tmp_path / "other").write_bytes(b"x")
    serialisation.write_atomically(tmp_path / "ours", b"x")
    modes = [(tmp_path / name).stat().st_mode for name in ("ours", "other")]
    assert modes[0] == modes[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ours"]
