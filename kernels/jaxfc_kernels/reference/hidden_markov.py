"""The textbook forward-backward and Viterbi recursions: loops over rows and states, in logs."""

import math
from typing import NamedTuple

import numpy as np


class TextbookProbabilities(NamedTuple):
    """The answers of `jaxfc_kernels.hidden_markov`, as probabilities in numpy arrays."""

    predicted: np.ndarray
    filtered: np.ndarray
    loglik_terms: np.ndarray
    smoothed: np.ndarray
    pairs: np.ndarray
    path: np.ndarray


def log_sum(terms: list[float]) -> float:
    """ln sum exp."""
    top = max(terms)
    return top if top == -math.inf else top + math.log(sum(math.exp(t - top) for t in terms))


def log(value: float) -> float:
    """ln, -inf at zero."""
    return math.log(value) if value > 0 else -math.inf


def forward_backward(
    initial: np.ndarray, transition: np.ndarray, log_densities: np.ndarray
) -> TextbookProbabilities:
    """Forward and backward logarithms alpha and beta, and the best path.

    Source: Rabiner (1989), in logarithms.
    """
    num_times, size = log_densities.shape
    states = range(size)

    def step(time: int, i: int, j: int) -> float:
        return log(transition[time, i, j] if transition.ndim == 3 else transition[i, j])

    alpha = np.full((num_times, size), -math.inf)
    best, pointers = np.full((num_times, size), -math.inf), np.zeros((num_times, size), int)
    beta = np.zeros((num_times, size))
    predicted = np.zeros((num_times, size))
    for j in states:
        predicted[0, j] = initial[j]
        alpha[0, j] = best[0, j] = log(initial[j]) + log_densities[0, j]
    for t in range(1, num_times):
        total = log_sum(list(alpha[t - 1]))
        for j in states:
            ahead = log_sum([alpha[t - 1, i] + step(t - 1, i, j) for i in states])
            predicted[t, j] = math.exp(ahead - total)
            alpha[t, j] = ahead + log_densities[t, j]
            ways = [best[t - 1, i] + step(t - 1, i, j) for i in states]
            pointers[t, j] = int(np.argmax(ways))
            best[t, j] = max(ways) + log_densities[t, j]
    for t in reversed(range(num_times - 1)):
        for i in states:
            beta[t, i] = log_sum(
                [step(t, i, j) + log_densities[t + 1, j] + beta[t + 1, j] for j in states]
            )
    totals = np.array([log_sum(list(row)) for row in alpha])
    pairs = np.zeros((num_times - 1, size, size))
    for t in range(num_times - 1):
        for i in states:
            for j in states:
                ahead = log_densities[t + 1, j] + beta[t + 1, j]
                pairs[t, i, j] = math.exp(alpha[t, i] + step(t, i, j) + ahead - totals[-1])
    path = [int(np.argmax(best[-1]))]
    for t in reversed(range(1, num_times)):
        path.insert(0, int(pointers[t, path[0]]))
    return TextbookProbabilities(
        predicted=predicted,
        filtered=np.exp(alpha - totals[:, None]),
        loglik_terms=np.diff(totals, prepend=0.0),
        smoothed=np.exp(alpha + beta - totals[-1]),
        pairs=pairs,
        path=np.array(path),
    )
