"""The NY Fed's stored MATLAB output, as parameters of ours with errors as states.

Its state: block by block, the factors of a block and their lags up to max(p, 5) months, newest
first; then the errors of the monthly series; then five months of each quarterly error. Ours has the
factors of all blocks together at each lag. Its law (`Z_0`, `V_0`) is of the month before the panel.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from golden import panels
from jaxfc.factors.augmented import AugmentedParameters
from jaxfc.factors.augmented_em import AugmentedEM, augmented_em
from jaxfc.factors.error_states import GROWTH_WEIGHTS

MONTHLY = ("CPIAUCSL", "UNRATE", "PAYEMS", "RSAFS", "TTLCONS", "TCU")
NUM_QUARTERLY = 2
DEPTH = 5


@dataclasses.dataclass(frozen=True)
class Stored:
    """One file: parameters and method in our shapes, its panel, and what MATLAB computed."""

    parameters: AugmentedParameters
    method: AugmentedEM
    weights: np.ndarray
    in_block: np.ndarray
    names: tuple[str, ...]
    results: np.ndarray

    @property
    def num_series(self) -> int:
        return len(self.weights)

    def read(self, name: str) -> np.ndarray:
        return np.squeeze(self.results[name])

    def panel(self, *, rows=slice(None)):
        """Standardised values and mask; an unobserved cell holds a number nobody may read."""
        data = panels.frbny_growth(self.names)[rows]
        observed = ~np.isnan(data)
        return jnp.asarray(np.where(observed, data, 1e6)), jnp.asarray(observed)

    def vintage(self, date: str, num_rows: int):
        """Transformed data of a vintage in data units, padded with rows without data."""
        data = panels.frbny_changes(self.names, vintage=date).to_numpy()
        return np.pad(data, ((0, num_rows - len(data)), (0, 0)), constant_values=np.nan)


def stored(name: str) -> Stored:
    """The file `test_<name>.mat` of the statsmodels wheel."""
    scipy_io = pytest.importorskip("scipy.io")
    content = scipy_io.loadmat(panels.statsmodels_results("frbny_nowcast", f"test_{name}.mat"))
    results, spec = content["Res"][0, 0], content["Spec"][0, 0]
    in_block = spec["Blocks"].astype(bool)
    per_block, num_lags = int(spec["k"][0, 0]), int(spec["p"][0, 0])
    num_series, num_blocks = in_block.shape
    num_monthly, num_factors = num_series - NUM_QUARTERLY, num_blocks * per_block
    order = state_order(num_blocks, per_block, len(results["A"]))
    transition, cov = results["A"][np.ix_(order, order)], results["Q"][np.ix_(order, order)]
    lags = transition[:num_factors, : num_lags * num_factors]
    newest = num_factors * DEPTH + np.arange(num_monthly)
    newest = np.append(newest, newest[-1] + 1 + DEPTH * np.arange(NUM_QUARTERLY))
    fields = (
        results["C"][:, order][:, :num_factors],
        lags.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1),
        cov[:num_factors, :num_factors],
        np.diag(transition)[newest],
        np.diag(cov)[newest],
        np.diag(results["R"]),
        results["Z_0"].ravel()[order],
        results["V_0"][np.ix_(order, order)],
    )
    parameters = AugmentedParameters(*map(jnp.asarray, fields))
    method = method_of(in_block, per_block, num_lags)
    weights = growth_weights(num_series)
    return Stored(parameters, method, weights, in_block, MONTHLY[:num_monthly], results)


def growth_weights(num_series: int) -> np.ndarray:
    """Monthly series as they are, the quarterly ones last."""
    weights = np.zeros((num_series, DEPTH))
    weights[:, 0] = 1.0
    weights[-NUM_QUARTERLY:] = GROWTH_WEIGHTS
    return weights


def method_of(
    in_block: np.ndarray, per_block: int, num_lags: int, *, estimates_initial_cov: bool = True
) -> AugmentedEM:
    """The EM of the NY Fed's code for a table of blocks (series, blocks).

    Its version in statsmodels estimates the first state's covariance, the original one does not.
    """
    num_series, num_blocks = in_block.shape
    return augmented_em(
        num_series,
        num_blocks * per_block,
        num_lags,
        growth_weights(num_series),
        blocks=tuple(np.repeat(np.arange(num_blocks), per_block).tolist()),
        loads=np.repeat(in_block, per_block, axis=1),
        with_constant=False,
        estimates_initial_cov=estimates_initial_cov,
    )


def state_order(num_blocks: int, per_block: int, size: int) -> np.ndarray:
    """Positions in MATLAB's state of the entries of ours."""
    order = np.arange(num_blocks * per_block * DEPTH).reshape(num_blocks, DEPTH, per_block)
    order = order.swapaxes(0, 1).ravel()
    return np.concatenate([order, np.arange(len(order), size)])
