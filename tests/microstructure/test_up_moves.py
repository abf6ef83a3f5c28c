"""The table of Cont, Stoikov and Talreja: printed, by dense solves, and by Fourier inversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from jaxfc.microstructure.simulate_rates import OrderFlow
from jaxfc.microstructure.up_moves import up_move_probabilities

# Rates of Cont, Stoikov and Talreja (2010), section 3, as recalled in the project's notes.
LIMIT = np.array([1.85, 1.51, 1.09, 0.88, 0.77])
CANCEL = np.array([0.71, 0.81, 0.68, 0.56, 0.47])
MARKET = 0.94
FLOW = OrderFlow(jnp.asarray(LIMIT), jnp.asarray(CANCEL), jnp.asarray(MARKET))
# Rows: bid queue 1 .. 5, columns: ask queue.
TABLE = np.array(
    [
        [0.500, 0.335, 0.259, 0.216, 0.188],
        [0.665, 0.500, 0.407, 0.348, 0.307],
        [0.741, 0.593, 0.500, 0.437, 0.391],
        [0.784, 0.652, 0.563, 0.500, 0.452],
        [0.812, 0.693, 0.609, 0.548, 0.500],
    ]
)


@pytest.fixture(scope="module")
def tables():
    return {
        spread: np.asarray(jax.jit(lambda s=spread: up_move_probabilities(FLOW, spread=s))())
        for spread in (1, 3)
    }


def test_printed_table(tables):
    np.testing.assert_allclose(tables[1], TABLE, atol=5.1e-4)


def by_dense_solve(spread, size=24):
    """All pairs of queues as states of one chain."""
    birth, inside = LIMIT[spread - 1], LIMIT[: spread - 1].sum()
    death = MARKET + CANCEL[spread - 1] * np.arange(1, size + 1)
    one = np.diag(death[1:], -1) + np.diag(np.full(size - 1, birth), 1)
    one -= np.diag(death + birth * (np.arange(size) < size - 1))
    eye = np.eye(size)
    system = np.kron(one, eye) + np.kron(eye, one) - 2 * inside * np.eye(size**2)
    gain = np.full((size, size), inside)
    gain[:, 0] += death[0]
    return np.linalg.solve(system, -gain.ravel()).reshape(size, size)[:5, :5]


@pytest.mark.parametrize("spread", [1, 3])
def test_against_a_dense_solve(tables, spread):
    np.testing.assert_allclose(tables[spread], by_dense_solve(spread), atol=1e-7)


def first_passage_transform(start, shift, terms=200):
    """E exp(-s T) of the time at which a queue of `start` orders is empty, as the continued
    fractions of Cont, Stoikov and Talreja (2010), proposition 1, from the far end."""
    birth = LIMIT[0]
    value, found = 0.0, 1.0
    for size in range(terms, 0, -1):
        death = MARKET + CANCEL[0] * size
        value = death / (birth + death + shift - birth * value)
        if size <= start:
            found = found * value
    return found


def test_against_fourier_inversion(tables):
    """P(T_ask < T_bid) = 1/2 - (1/pi) int_0^inf Im phi(w) / w dw (Gil-Pelaez 1951), phi the
    characteristic function of the difference of the two emptying times."""
    for bid, ask in ((1, 2), (2, 5), (4, 1)):

        def imaginary(log_w, bid=bid, ask=ask):
            w = np.exp(log_w)
            ask_side = first_passage_transform(ask, -1j * w)
            return (ask_side * first_passage_transform(bid, 1j * w)).imag

        area = quad(imaginary, -18.0, 16.0, limit=400, epsabs=1e-9)[0]
        assert tables[1][bid - 1, ask - 1] == pytest.approx(0.5 - area / np.pi, abs=1e-6)


def test_symmetry_precision_and_derivative(tables):
    np.testing.assert_allclose(tables[1] + tables[1].T, 1.0, atol=1e-9)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), FLOW)
    found = jax.jit(up_move_probabilities)(single)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, tables[1], atol=2e-4)

    def cell(market):
        flow = OrderFlow(FLOW.limit, FLOW.cancel, market)
        return up_move_probabilities(flow, longest=16)[0, 2]

    step = 1e-5
    markets = MARKET + step * jnp.array([-1.0, 0.0, 1.0])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(cell)))(markets)
    assert slopes[1] == pytest.approx(float((values[2] - values[0]) / (2 * step)), rel=1e-5)


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="distances up to 5"):
        up_move_probabilities(FLOW, spread=6)
    with pytest.raises(ValueError, match="num_queues"):
        up_move_probabilities(FLOW, longest=3)
    with pytest.raises(ValueError, match="same distances"):
        OrderFlow(jnp.ones(0), jnp.ones(0), jnp.asarray(1.0))
    with pytest.raises(ValueError, match="cancel"):
        OrderFlow(jnp.ones(2), -jnp.ones(2), jnp.asarray(1.0))
