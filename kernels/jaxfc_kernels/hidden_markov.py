"""Filter, smoother and most likely path of a hidden Markov chain, from log densities.

Chain s_t in 1..K, P[i, j] = P(s_{t+1} = j | s_t = i), densities f_t(j) = f(y_t | s_t = j). Filter:

    a_{t|t}(j) = a_{t|t-1}(j) f_t(j) / l_t,   l_t = sum_j a_{t|t-1}(j) f_t(j)
    a_{t+1|t} = P' a_{t|t}

Probabilities are carried as logarithms: a state that row t makes e^{-100000} times less likely may
still be the only one that later rows allow. P itself enters as it is, so a transition of
probability zero is exact and has a derivative.

Smoother: with the reversed transitions B_t[i, j] = P(s_t = i | s_{t+1} = j, y_1..y_t)

    B_t[i, j] = a_{t|t}(i) P[i, j] / a_{t+1|t}(j),   a_{t|T} = B_t a_{t+1|T},
    P(s_t = i, s_{t+1} = j | y_1..y_T) = B_t[i, j] a_{t+1|T}(j)

Columns of B_t sum to one, so products of many are as safe as one, and nothing is divided by a
probability that may have vanished. Densities are not needed.

Implementations. "sequential": T steps of K^2 operations; without logarithms where P and the
densities keep every probability from underflow, which changes rounding only. "parallel":
associative scans; the filter over K x K matrices of logarithms (each scaled by its largest entry),
the smoother over the B_t; K^3 operations a product, 2 log2(T) stages. "blocked": the same products
within sqrt(T) blocks of rows side by side, then from block to block; T K^3 operations, 2 sqrt(T)
steps (see kernels/README.md).

Sources: Hamilton (1989); Kim (1994); Viterbi (1967); parallel form: Hassan, Särkkä and
García-Fernández (2021).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.hidden_markov_products import (
    LARGEST_EXPONENT,
    blocked_joint,
    blocked_smoother,
    finite_max,
    safe_log,
    scaled_product,
    weighted_log_sum,
)

IMPLEMENTATIONS = ("sequential", "parallel", "blocked")
# Rows of a scan that run as one program: the loop's own cost is that of several such steps.
UNROLL = 4
# Where P has no smaller entry and no density of a row is further below its largest, no product of
# two of them and a sum of such underflows: e^-600 1e-30 > 1e-300; in float32 e^-40 1e-12 > 1e-38.
SMALLEST_TRANSITION = {"float64": 1e-30, "float32": 1e-12}
LOWEST_DENSITY = {"float64": -600.0, "float32": -40.0}


class Filtered(NamedTuple):
    """Logarithms of P(s_t | rows before) and P(s_t | rows to t), both (time, states), and ln l_t
    (time,), whose sum is the log-likelihood."""

    log_predicted: Array
    log_filtered: Array
    loglik_terms: Array


class Smoothed(NamedTuple):
    """P(s_t | all rows) (time, states), P(s_t, s_{t+1} | all rows) (time - 1, states, states)."""

    probabilities: Array
    pairs: Array


def hidden_markov_filter(
    initial: Array, transition: Array, log_densities: Array, *, implementation: str = "sequential"
) -> Filtered:
    """Predicted and filtered probabilities, as logarithms, and the terms of the log-likelihood.

    `initial` (K,) is the law of the first state, `transition` (K, K) with rows that sum to one, or
    (T - 1, K, K), entry t leading from row t to t + 1; `log_densities` (T, K), zero in a row
    without observation. Data that no path allows give a term of -inf and NaN afterwards.
    """
    check_implementation(implementation)
    log_initial = safe_log(initial)
    shift = jax.lax.stop_gradient(jnp.max(log_densities, axis=1))
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0)
    lowered = log_densities - shift[:, None]
    if implementation == "sequential":
        filtered = sequential_filter(initial, log_initial, transition, lowered)
    else:
        filtered = filter_by_products(
            log_initial, per_step(transition, len(lowered)), lowered, implementation
        )
    return filtered._replace(loglik_terms=filtered.loglik_terms + shift)


def sequential_filter(
    initial: Array, log_initial: Array, transition: Array, log_densities: Array
) -> Filtered:
    """One row after the other, without logarithms where nothing can underflow."""
    name = str(log_densities.dtype)
    limit = SMALLEST_TRANSITION[name]
    safe = jnp.minimum(jnp.min(transition, initial=1.0), jnp.min(initial)) > limit
    safe = safe & (jnp.min(log_densities) > LOWEST_DENSITY[name])
    # Under `vmap` both are computed: the one not wanted must not spoil derivatives.
    even = 1.0 / initial.shape[0]
    tame = [
        jnp.where(safe, given, other)
        for given, other in ((initial, even), (transition, even), (log_densities, 0.0))
    ]
    return jax.lax.cond(
        safe,
        lambda: plain_filter(*tame),
        lambda: logarithmic_filter(log_initial, transition, log_densities),
    )


def plain_filter(initial: Array, transition: Array, log_densities: Array) -> Filtered:
    """The recursion of the module's docstring as it stands."""
    varies = transition.ndim == 3
    steps = transition
    if varies:
        steps = jnp.concatenate([transition, jnp.ones_like(transition[:1])])[: len(log_densities)]

    def step(predicted: Array, given: tuple[Array, Array | None]):
        row, matrix = given
        joint = predicted * row
        term = jnp.sum(joint)
        filtered = joint / term
        weights = steps if matrix is None else matrix
        ahead = jnp.sum(filtered[:, None] * weights, axis=0)
        return ahead, (predicted, filtered, term)

    inputs = jnp.exp(log_densities), steps if varies else None
    found = jax.lax.scan(step, initial, inputs, unroll=UNROLL)[1]
    return Filtered(*(jnp.log(part) for part in found))


def logarithmic_filter(log_initial: Array, transition: Array, log_densities: Array) -> Filtered:
    """The same in logarithms, whatever the densities."""
    varies = transition.ndim == 3
    steps = transition
    if varies:  # nothing follows the last row: any step will do
        steps = jnp.concatenate([transition, jnp.ones_like(transition[:1])])[: len(log_densities)]

    def step(predicted: Array, given: tuple[Array, Array | None]):
        row, matrix = given
        joint = predicted + row
        top = finite_max(joint, 0)
        term = top + safe_log(jnp.sum(jnp.exp(joint - top)))
        filtered = joint - term
        ahead = weighted_log_sum(filtered, steps if matrix is None else matrix)
        return ahead, (predicted, filtered, term)

    inputs = log_densities, steps if varies else None
    return Filtered(*jax.lax.scan(step, log_initial, inputs, unroll=UNROLL)[1])


def filter_by_products(
    log_initial: Array, transitions: Array, log_densities: Array, implementation: str
) -> Filtered:
    """From ln of P(s_t = j, y_1..y_t) up to a number of each row: the prefix products of the
    matrices ln(P[i, j] f_t(j)) on the initial law."""
    matrices = safe_log(transitions) + log_densities[1:, None, :]
    first = log_initial + log_densities[0]
    if implementation == "parallel":
        start = jnp.broadcast_to(first, (1, *matrices.shape[1:]))
        products = jax.lax.associative_scan(scaled_product, jnp.concatenate([start, matrices]))
        joint = products[:, 0, :]
    else:
        joint = blocked_joint(first, matrices)
    totals = jax.nn.logsumexp(joint, axis=1)
    log_filtered = joint - totals[:, None]
    ahead = jax.vmap(weighted_log_sum)(log_filtered[:-1], transitions)
    log_predicted = jnp.concatenate([log_initial[None], ahead])
    # The terms by themselves, not as differences of sums over thousands of rows.
    terms = jax.nn.logsumexp(log_predicted + log_densities, axis=1)
    return Filtered(log_predicted, log_filtered, jnp.where(jnp.isneginf(totals), totals, terms))


def hidden_markov_smoother(
    filtered: Filtered, transition: Array, *, implementation: str = "sequential"
) -> Smoothed:
    """Probabilities of states, and of pairs of neighbours, given all rows.

    `filtered` from `hidden_markov_filter` with the same `transition`.
    """
    check_implementation(implementation)
    last = jnp.exp(filtered.log_filtered[-1])
    reversed_steps = reversed_transitions(filtered, transition)
    if implementation == "parallel":
        start = jnp.broadcast_to(last[:, None], (1, last.size, last.size))
        maps = jnp.concatenate([reversed_steps, start])
        products = jax.lax.associative_scan(
            lambda later, earlier: exact_matmul(earlier, later), maps, reverse=True
        )
        smoothed = products[:, :, 0]
    elif implementation == "blocked":
        smoothed = blocked_smoother(last, reversed_steps)
    else:
        smoothed = sequential_smoother(last, reversed_steps)
    return Smoothed(smoothed, reversed_steps * smoothed[1:, None, :])


def sequential_smoother(last: Array, reversed_steps: Array) -> Array:
    """a_t = B_t a_{t+1}, the last row first."""

    def step(later: Array, matrix: Array) -> tuple[Array, Array]:
        now = jnp.sum(matrix * later, axis=1)
        return now, now

    earlier = jax.lax.scan(step, last, reversed_steps, reverse=True, unroll=UNROLL)[1]
    return jnp.concatenate([earlier, last[None]])


def reversed_transitions(filtered: Filtered, transition: Array) -> Array:
    """B_t of the module's docstring, (time - 1, states, states); zero columns for states that
    cannot be reached."""
    ahead = filtered.log_predicted[1:, None, :]
    reached = ahead > -jnp.inf
    possible = filtered.log_filtered[:-1, :, None]
    possible, seen = jnp.where(possible > -jnp.inf, possible, 0.0), possible > -jnp.inf
    exponent = possible - jnp.where(reached, ahead, 0.0)
    ratio = jnp.exp(jnp.minimum(exponent, LARGEST_EXPONENT[str(exponent.dtype)]))
    return jnp.where(reached & seen, ratio, 0.0) * transition


def most_likely_path(initial: Array, transition: Array, log_densities: Array) -> Array:
    """The states s_1..s_T (T,) whose joint probability given all rows is largest.

        v_1(j) = ln initial(j) + ln f_1(j),   v_t(j) = max_i [v_{t-1}(i) + ln P[i, j]] + ln f_t(j)

    Arguments as in `hidden_markov_filter`; of equal paths the one with the smaller numbers.
    """
    steps = per_step(safe_log(transition), len(log_densities))

    def forward(best, given):
        row, step = given
        candidates = best[:, None] + step
        return jnp.max(candidates, axis=0) + row, jnp.argmax(candidates, axis=0)

    start = safe_log(initial) + log_densities[0]
    best, pointers = jax.lax.scan(forward, start, (log_densities[1:], steps))

    def back(state, pointer):
        return pointer[state], pointer[state]

    last = jnp.argmax(best)
    return jnp.append(jax.lax.scan(back, last, pointers, reverse=True)[1], last)


def per_step(transition: Array, num_times: int) -> Array:
    """(T - 1, K, K), whether or not it changes."""
    if transition.ndim == 3:
        return transition
    return jnp.broadcast_to(transition, (num_times - 1, *transition.shape))


def exact_matmul(left: Array, right: Array) -> Array:
    """Product of batches of small matrices in full precision."""
    return jnp.matmul(left, right, precision="highest")


def check_implementation(implementation: str) -> None:
    """Raise `ValueError` for a name that is none."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"unknown implementation {implementation!r}; use one of {IMPLEMENTATIONS}."
        )
