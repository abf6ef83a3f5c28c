"""Federated averaging: central descent, a loop of clients, drift, several devices."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from jaxfc.running.federated import federated_averaging
from processes import run_python, with_devices

RATE, RNG = 0.05, np.random.default_rng(2)
X = RNG.normal(size=(6, 10, 3))
Y = X @ [1.0, -0.5, 0.2] + np.linspace(-1.0, 1.0, 6)[:, None] + 0.1 * RNG.normal(size=(6, 10))
START = {"slope": jnp.zeros(3), "level": jnp.zeros(()), "name": "line"}
EVEN = np.full(6, 10.0)


def loss(parameters, data):
    x, y = data
    return jnp.mean((y - x @ parameters["slope"] - parameters["level"]) ** 2)


def trained(sizes, num_rounds, num_local_steps, data=(X, Y)):
    return federated_averaging(
        loss,
        START,
        data,
        sizes,
        optimiser=optax.sgd(RATE),
        num_rounds=num_rounds,
        num_local_steps=num_local_steps,
    )


def slopes(theta, x, y):
    """Gradient of the mean squared error by hand."""
    design = np.column_stack([x, np.ones(len(x))])
    return -2.0 * design.T @ (y - design @ theta) / len(x)


def as_vector(parameters):
    return np.append(parameters["slope"], parameters["level"])


def test_one_step_of_equal_clients_is_central_descent():
    theta, path = np.zeros(4), []
    x, y = X.reshape(-1, 3), Y.reshape(-1)
    for _ in range(7):
        path.append(np.mean((y - x @ theta[:3] - theta[3]) ** 2))
        theta = theta - RATE * slopes(theta, x, y)
    found = trained(EVEN, 7, 1)
    assert found.parameters["name"] == "line"
    assert_allclose(as_vector(found.parameters), theta, rtol=0, atol=1e-14)
    assert_allclose(found.path, path, rtol=1e-13)


def test_several_steps_are_a_loop_over_clients_weighted_by_size():
    sizes, theta = np.array([1.0, 5.0, 0.0, 2.0, 7.0, 3.0]), np.zeros(4)
    for _ in range(3):
        ends = []
        for x, y in zip(X, Y, strict=True):
            local = theta
            for _ in range(5):
                local = local - RATE * slopes(local, x, y)
            ends.append(local)
        theta = np.average(ends, axis=0, weights=sizes)
    assert_allclose(as_vector(trained(sizes, 3, 5).parameters), theta, rtol=0, atol=1e-14)


def test_several_steps_drift_from_the_minimum_of_all_data():
    design = np.concatenate([X, np.ones((6, 10, 1))], axis=2).reshape(-1, 4)
    best = np.linalg.lstsq(design, Y.reshape(-1), rcond=None)[0]
    one, many = (as_vector(trained(EVEN, 400, steps).parameters) for steps in (1, 5))
    assert np.abs(one - best).max() < 1e-8
    assert np.abs(many - best).max() > 1e-3


def test_a_client_of_size_zero_takes_no_part_whatever_its_loss():
    data = (X.copy(), Y.copy())
    data[1][2] = np.nan
    sizes = np.where(np.arange(6) == 2, 0.0, 10.0)
    found, clean = trained(sizes, 3, 2, data), trained(sizes, 3, 2)
    assert_allclose(as_vector(found.parameters), as_vector(clean.parameters), rtol=0, atol=0)
    assert np.isfinite(found.path).all()


DEVICES = """
import json
import jax, numpy as np, optax
import jax.numpy as jnp
from jaxfc.running.federated import federated_averaging
given = json.loads(sys.argv[1])
data = tuple(np.array(given[name]) for name in ("x", "y"))
loss = lambda p, d: jnp.mean((d[1] - d[0] @ p) ** 2)
fit = federated_averaging(loss, jnp.zeros(3), data, np.array(given["sizes"]),
    optimiser=optax.sgd(0.05), num_rounds=4, num_local_steps=3)
print(json.dumps([jax.local_device_count(), fit.parameters.tolist(), fit.path.tolist()]))
"""


def test_four_devices_give_the_numbers_of_one():
    """Six clients on four devices: two places are filled up with clients that weigh nothing."""
    sizes = np.arange(1.0, 7.0)
    given = json.dumps({"x": X.tolist(), "y": Y.tolist(), "sizes": sizes.tolist()})
    printed = run_python(DEVICES, given, **with_devices(4)).splitlines()[-1]
    count, parameters, path = json.loads(printed)
    plain = federated_averaging(
        lambda p, d: jnp.mean((d[1] - d[0] @ p) ** 2),
        jnp.zeros(3),
        (X, Y),
        sizes,
        optimiser=optax.sgd(RATE),
        num_rounds=4,
        num_local_steps=3,
        devices=jax.local_devices()[:1],
    )
    assert count == 4
    assert_allclose(parameters, plain.parameters, rtol=1e-13)
    assert_allclose(path, plain.path, rtol=1e-13)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        (np.ones(5), {}, "sizes of shape .5,. for 6 clients"),
        (np.zeros(6), {}, "not all zero"),
        (np.array([1.0, -1.0, 1, 1, 1, 1]), {}, "not negative"),
        (EVEN, {"num_rounds": 0}, "num_rounds must be at least 1"),
        (EVEN, {"num_local_steps": 0}, "num_local_steps must be at least 1"),
    ],
)
def test_bad_input_is_refused(sizes, options, message):
    run = functools.partial(federated_averaging, loss, START, (X, Y), optimiser=optax.sgd(RATE))
    with pytest.raises(ValueError, match=message):
        run(sizes, **({"num_rounds": 1} | options))
