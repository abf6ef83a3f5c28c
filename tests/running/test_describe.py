"""Configurations as JSON values, and where two of them differ."""

import enum
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors import EM, DynamicFactorModel, FactorWorld, TwoStepEM
from jaxfc.running.describe import describe, difference
from toy_study import squared_error


class Colour(enum.Enum):
    RED = "red"


class Plain:
    def __init__(self, size):
        self.size = size


class Closed:
    __slots__ = ("size",)


@pytest.mark.parametrize(
    ("thing", "described"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (np.int64(3), 3),
        (0.25, 0.25),
        (jnp.asarray(0.25), 0.25),
        (math.inf, "inf"),
        (np.arange(3), {"dtype": "int64", "values": [0, 1, 2]}),
        (jax.random.key(5), {"key": [0, 5]}),
        ((1, [2.0, "x"]), [1, [2.0, "x"]]),
        ({"a": (1,)}, {"a": [1]}),
        (squared_error, "toy_study.squared_error"),
        (jax.jit(squared_error), "toy_study.squared_error"),
        (FactorWorld, "jaxfc.factors.worlds.FactorWorld"),
    ],
)
def test_values(thing, described):
    assert describe(thing) == described
    assert json.loads(json.dumps(describe(thing))) == described


def test_objects():
    assert describe(Plain(2)) == {"class": f"{__name__}.Plain", "size": 2}
    assert describe(Colour.RED) == f"{__name__}.Colour.RED"
    world = describe(functools.partial(FactorWorld, num_lags=1))
    assert world["partial"] == describe(FactorWorld) and world["options"] == {"num_lags": 1}
    with pytest.raises(ValueError, match="make Closed a dataclass"):
        describe(Closed())


def test_models_differ_by_every_option():
    models = [
        DynamicFactorModel(1, 1),
        DynamicFactorModel(1, 1, method=EM(rtol=1e-3)),
        DynamicFactorModel(1, 1, method=TwoStepEM()),
        DynamicFactorModel(1, 1, standardise=False),
        DynamicFactorModel(2, 1),
    ]
    texts = [json.dumps(describe(model)) for model in models]
    assert len(set(texts)) == len(models) and json.dumps(describe(models[0])) == texts[0]
    where, left, right = difference(describe(models[0]), describe(models[1]), "model")
    assert where == "model.method.rtol" and right == 1e-3 != left


def test_differences():
    assert difference([1, {"a": [2, 3]}], [1, {"a": [2, 4]}], "x") == ("x[1].a[1]", 3, 4)
    assert difference({"a": 1}, {"b": 1}, "x") == ("x", {"a": 1}, {"b": 1})
    assert difference([1], [1, 2], "x") == ("x", [1], [1, 2])
