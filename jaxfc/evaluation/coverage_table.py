"""Coverage of intervals at several levels, with its tests, as a data frame (host side)."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxfc.evaluation.calibration import conditional_coverage, unconditional_coverage
from jaxfc.evaluation.intervals import interval_outliers, mean_interval_score, outliers
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    import pandas as pd

Ends = Float[Array, "cases levels"] | Float[np.ndarray, "cases levels"]
Known = Float[Array, " cases"] | Float[np.ndarray, " cases"]


def coverage_table(
    lower: Ends, upper: Ends, realised: Known, levels: tuple[float, ...]
) -> "pd.DataFrame":
    """One row per level: share of realised values outside, its target 1 - level, mean interval
    score, and p-values of Kupiec's and Christoffersen's tests.

    **Raises:** `ValueError` for a level outside (0, 1) or shapes that do not fit.
    """
    import pandas as pd

    lower, upper, realised = jnp.asarray(lower), jnp.asarray(upper), jnp.asarray(realised)
    missed, targets = outliers(lower, upper, realised), 1.0 - np.asarray(levels)
    columns = {
        "level": levels,
        "outside": interval_outliers(lower, upper, realised),
        "target": targets,
        "kupiec_p": unconditional_coverage(missed, targets).p_value,
        "christoffersen_p": conditional_coverage(missed, targets).p_value,
        "MIS": mean_interval_score(lower, upper, realised, np.asarray(levels)),
    }
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
