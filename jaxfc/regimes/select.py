"""How many regimes: information criteria, and how well later rows are predicted."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.regimes.fitted import FittedRegimes
from jaxfc.regimes.model import RegimeModel
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class RegimeCriteria(NamedTuple):
    """Smaller is better; `num_parameters` p counts means, scatter matrices, P and first law.

        aic = -2 loglik + 2 p,   bic = -2 loglik + p ln T,   icl = bic + 2 entropy

    T counts rows with an observation; `entropy` is that of the smoothed probabilities of regimes:
    ICL asks for regimes that can be told apart.

    The usual theory does not hold for the number of regimes (parameters of a regime that is not
    there are not identified); BIC is consistent under conditions, AIC takes too many.

    Sources: Akaike (1974), Schwarz (1978), Biernacki, Celeux and Govaert (2000).
    """

    aic: Float[Array, ""]
    bic: Float[Array, ""]
    icl: Float[Array, ""]
    num_parameters: int


def regime_criteria(fitted: FittedRegimes, observed: Bool[Array, "time series"]) -> RegimeCriteria:
    """Criteria of one estimate on the data that were fitted, with mask `observed`."""
    size, num_series = fitted.means.shape
    count = fitted.emissions.num_parameters(num_series) + (size + 1) * (size - 1)
    num_rows = jnp.sum(jnp.any(observed, axis=1))
    aic = -2.0 * fitted.loglik + 2.0 * count
    bic = -2.0 * fitted.loglik + count * jnp.log(num_rows)
    return RegimeCriteria(aic, bic, bic + 2.0 * fitted.entropy, count)


class RollingDensity(NamedTuple):
    """ln f of each row from the first origin on, given the rows before it and parameters estimated
    at the last origin before it (time,), zero elsewhere; result codes of the estimates."""

    loglik_terms: Float[Array, " time"]
    results: RESULTS

    @property
    def total(self) -> Float[Array, ""]:
        """Their sum: larger is better."""
        return jnp.sum(self.loglik_terms)


def rolling_density(
    model: RegimeModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    origins: tuple[int, ...],
    *,
    key: PRNGKeyArray | None = None,
) -> RollingDensity:
    """Log predictive density of the rows after each origin, without a look at them.

    At each origin (a number of rows, ascending) parameters are estimated from the rows before it;
    each row until the next origin is predicted from all rows before it under these. Origins are one
    `lax.map`, so that the program holds one estimation. Pure.

    **Raises:** `ValueError` for origins that do not ascend or lie outside the data.
    """
    num_times = len(values)
    ends = (*origins[1:], num_times)
    if not origins or any(a >= b for a, b in zip(origins, ends, strict=True)) or origins[0] < 2:
        raise ValueError(
            f"origins must ascend within 2..{num_times - 1} rows of the data, got {origins}."
        )
    rows = jnp.arange(num_times)

    def one(bounds: tuple[Array, Array]) -> tuple[Array, RESULTS]:
        start, end = bounds
        known = observed & (rows < start)[:, None]
        fitted = model.estimate(values, known, key=key)
        terms = fitted.expectations(values, observed).filtered.loglik_terms
        return jnp.where((rows >= start) & (rows < end), terms, 0.0), fitted.result

    terms, results = jax.lax.map(one, (jnp.array(origins), jnp.array(ends)))
    return RollingDensity(jnp.sum(terms, axis=0), results)


def compare_regimes(
    model: RegimeModel,
    panel: "Panel",
    numbers: tuple[int, ...] = (1, 2, 3),
    *,
    origins: tuple[int, ...] = (),
    key: PRNGKeyArray | None = None,
) -> "pd.DataFrame":
    """Table of criteria by number of regimes (host side): loglik, num_parameters, aic, bic, icl,
    the result, and with `origins` the predictive log density of the rows after the first of them.

    **Raises:** `ValueError` as `RegimeModel.fit`, `RegimeModel.with_regimes` and `rolling_density`.
    """
    import equinox as eqx
    import pandas as pd

    from jaxfc.serialisation_tree import names_of

    values, observed = panel.arrays()
    table = []
    for number in numbers:
        candidate = model.with_regimes(number)
        fitted = candidate.fit(panel, key=key, throw=False)
        assert isinstance(fitted, FittedRegimes)
        found = regime_criteria(fitted, observed)
        row = {"regimes": number, "loglik": float(fitted.loglik), **found._asdict()}
        row = {name: value if name == "regimes" else float(value) for name, value in row.items()}
        row["num_parameters"] = found.num_parameters
        row["result"] = names_of(jax.tree.map(lambda leaf: leaf[None], fitted.result))[0]
        if origins:
            run = eqx.filter_jit(rolling_density)
            row["predictive"] = float(run(candidate, values, observed, origins, key=key).total)
        table.append(row)
    return pd.DataFrame(table).set_index("regimes")
