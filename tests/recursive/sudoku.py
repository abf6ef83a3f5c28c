"""Four-by-four Sudoku: a question with an exact answer, for the recursion and for its net once."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.recursive.layers import Linear, cut_off_normal
from jaxfc.recursive.nets import Answer, Network
from jaxfc.recursive.network import TinyRecursiveNet
from jaxfc.recursive.training import Scored, Task
from jaxfc.typing import Array


def all_grids():
    """The 288 grids, as rows of 16 digits."""
    rows = np.array(list(itertools.permutations((1, 2, 3, 4))))
    four = np.array(list(itertools.product(range(24), repeat=4)))
    grids = rows[four]  # (24^4, 4, 4)
    boxes = grids.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    right = (np.sort(grids, axis=1) == np.arange(1, 5)[:, None]).all(axis=(1, 2))
    right &= (np.sort(boxes, axis=2) == np.arange(1, 5)).all(axis=(1, 2))
    return grids[right].reshape(-1, 16)


def has_one_solution(puzzle, grids):
    """Whether one grid alone agrees with the clues."""
    clues = puzzle > 0
    return (grids[:, clues] == puzzle[clues]).all(axis=1).sum() == 1


class SudokuTask(Task):
    """Puzzles with one solution each; the grids held back are not among those trained on."""

    puzzles: Array
    grids: Array
    held_back_puzzles: Array
    held_back_grids: Array

    @classmethod
    def of(cls, grids, num_clues, seed, num_puzzles=4000):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(grids))
        parts = []
        for some in (order[:200], order[200:]):
            puzzles, answers = [], []
            while len(puzzles) < num_puzzles * len(some) // len(order):
                grid = grids[rng.choice(some)]
                puzzle = np.zeros(16, int)
                shown = rng.choice(16, num_clues, replace=False)
                puzzle[shown] = grid[shown]
                if has_one_solution(puzzle, grids):
                    puzzles.append(puzzle)
                    answers.append(grid)
            parts += [jnp.asarray(np.array(puzzles)), jnp.asarray(np.array(answers))]
        return cls(*parts)

    @property
    def num_examples(self):
        return self.puzzles.shape[0]

    def example(self, index):
        return self.puzzles[index], self.grids[index]

    def score(self, outputs, truth, step):
        logs = jax.nn.log_softmax(outputs, axis=-1)
        picked = jnp.take_along_axis(logs, truth[:, None] - 1, axis=-1)
        solved = jnp.all(jnp.argmax(outputs, axis=-1) + 1 == truth)
        return Scored(-jnp.sum(picked), jnp.asarray(16.0, outputs.dtype), solved)


class TokenNet(Network):
    """Digits embedded, refined, and read out token by token, as in the paper."""

    embedding: Array
    core: TinyRecursiveNet
    readout: Linear
    steps: int = eqx.field(static=True)

    def __init__(self, width, num_supervision, *, key):
        embed_key, core_key, key = jax.random.split(key, 3)
        # Scaled by sqrt(width) at once: entries of standard deviation one.
        self.embedding = cut_off_normal((5, width), 1.0, key=embed_key)
        self.core = TinyRecursiveNet(16, width, num_inner=3, num_cycles=2, key=core_key)
        self.readout = Linear(width, 4, key=key)
        self.steps = num_supervision

    @property
    def num_supervision(self):
        return self.steps

    def start(self, inputs):
        return self.core.start(16)

    def refine(self, inputs, state, dropout=None):
        thought = self.core.refine(self.embedding[inputs], state)
        answer = thought.answer
        halt = self.core.halt_logit(answer)
        kept = jax.lax.stop_gradient(thought)
        return Answer(self.readout(answer), kept, halt, jnp.mean(answer, axis=0))


class SolvedOnce(Network):
    """The same net, passed once: one step of supervision without a state."""

    net: TokenNet

    @property
    def num_supervision(self):
        return 1

    def start(self, inputs):
        return ()

    def refine(self, inputs, state, dropout=None):
        hidden = self.net.core.apply(self.net.embedding[inputs])
        halt = jnp.asarray(jnp.inf, hidden.dtype)
        return Answer(self.net.readout(hidden), (), halt, jnp.mean(hidden, axis=0))
