"""The published recursion in NumPy loops, written from the paper's description: an oracle.

Post-norm blocks without biases; rotary attention or a gated layer over the tokens, whose norm is
over the tokens; latent updates see the input, answer updates do not.
"""

import numpy as np


def norm(rows):
    return np.array([row / np.sqrt(np.mean(row**2) + 1e-5) for row in rows])


def gated(rows, gate_up, down):
    answer = []
    for row in rows:
        both = gate_up @ row
        gate, up = both[: len(both) // 2], both[len(both) // 2 :]
        answer.append(down @ (gate / (1.0 + np.exp(-gate)) * up))
    return np.array(answer)


def turned(vector, position):
    half = len(vector) // 2
    answer = np.empty_like(vector)
    for i in range(half):
        angle = position / 10000.0 ** (2 * i / len(vector))
        a, b = vector[i], vector[i + half]
        answer[i] = a * np.cos(angle) - b * np.sin(angle)
        answer[i + half] = b * np.cos(angle) + a * np.sin(angle)
    return answer


def attention(rows, in_weight, out_weight, num_heads):
    num_tokens, width = rows.shape
    size = width // num_heads
    query, key, value = np.split(rows @ in_weight.T, 3, axis=1)
    mixed = np.zeros((num_tokens, width))
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(num_tokens):
            logits = np.array(
                [turned(query[i, part], i) @ turned(key[j, part], j) for j in range(num_tokens)]
            ) / np.sqrt(size)
            shares = np.exp(logits - logits.max())
            mixed[i, part] = shares / shares.sum() @ value[:, part]
    return mixed @ out_weight.T


def block(rows, weights):
    if "query_key_value" in weights:
        mixed = attention(rows, weights["query_key_value"], weights["output"], weights["num_heads"])
        rows = norm(rows + mixed)
    elif "mix" in weights:
        rows = norm(rows.T + gated(rows.T, *weights["mix"])).T
    return norm(rows + gated(rows, *weights["channels"]))


def refinement(embedded, answer, latent, blocks, num_inner, num_cycles):
    def net(rows):
        for weights in blocks:
            rows = block(rows, weights)
        return rows

    for _ in range(num_cycles):
        for _ in range(num_inner):
            latent = net(latent + answer + embedded)
        answer = net(answer + latent)
    return answer, latent
