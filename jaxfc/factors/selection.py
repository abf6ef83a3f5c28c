"""What a selection of the numbers of factors and lags goes by, and what it answers."""

import dataclasses
from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.criteria import FactorCriteria, FactorCriterion, Residual, check_criterion
from jaxfc.factors.free_parameters import series_with_memory
from jaxfc.factors.model import DynamicFactorModel
from jaxfc.results import RESULTS, is_okay
from jaxfc.serialisation_tree import names_of
from jaxfc.typing import Array, Float, Int, as_scalar

if TYPE_CHECKING:
    import pandas as pd

Padding = Literal["largest", "class"]
LagCriterion = Literal["loglik", "expected"]
ParameterCount = Literal["transition", "all"]


def scalar_or_none(value: float | Array | None) -> Float[Array, ""] | None:
    """A float option as an array, `None` as itself."""
    return None if value is None else as_scalar(value)


class SelectionRule(eqx.Module):
    """How lags and factors are chosen among the candidates.

    Lags, for each number of factors K: the smallest AIC = -2 L + 2 (number of parameters) with L

    - `lags="loglik"`: the log-likelihood of the data, which no transformation of the factors moves;
    - `lags="expected"`: the source's E[ln p(F) | panel], which shifts by -T ln |det R| under
      F -> R F; all candidates are put on E[f f' | panel] = I before they are compared.

    Number of parameters: `parameters="transition"` counts p K^2, what the lags add; "all" also the
    loadings, the idiosyncratic covariance, the intercept and initial law if they are estimated, and
    Q, less K^2 for the transformation of the factors. Both choose the same lags unless the initial
    law is estimated; "all" makes the AIC comparable between numbers of factors too.

    Factors: `factors` names the criterion, which ignores the dynamics; `multiplier` and `residual`
    are the options of "modified" (see `factor_criteria`). The covariance behind the criteria is

    - `panel="rebuilt"`: for each K that of the panel whose missing cells the best candidate with K
      factors has filled (by the common component; two-step methods by their reconstruction);
    - `panel="pairwise"`: that of the data, each entry over the times at which both series are
      observed. It needs no estimation, but it is indefinite where cells are missing, which inflates
      the small eigenvalues: only the ratio criteria stand that well.
    """

    factors: FactorCriterion = eqx.field(static=True, default="modified")
    lags: LagCriterion = eqx.field(static=True, default="loglik")
    parameters: ParameterCount = eqx.field(static=True, default="transition")
    residual: Residual = eqx.field(static=True, default="ppca")
    panel: Literal["rebuilt", "pairwise"] = eqx.field(static=True, default="rebuilt")
    multiplier: Float[Array, ""] | None = eqx.field(converter=scalar_or_none, default=None)

    def __check_init__(self):
        check_criterion(self.factors)
        options = {
            "lags": ("loglik", "expected"),
            "parameters": ("transition", "all"),
            "residual": ("ppca", "pca"),
            "panel": ("rebuilt", "pairwise"),
        }
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")


class Selection(eqx.Module):
    """What was chosen, and the tables it was chosen from.

    `num_factors` and `num_lags` are the choice (0 and -1 where there is none: no criterion was
    finite, or no candidate with that many factors was estimated). Row K - 1 and column p of the
    tables belong to the candidate with K factors and p lags: log-likelihood, expected factor
    log-likelihood (if it was asked for), AIC, number of steps and result code of its estimation.
    A candidate whose code is not "successful" counts as failed: it stays in the tables and is never
    chosen. `lags_by_factors` are the best lags for each K, -1 if all candidates with K failed.
    """

    model: DynamicFactorModel
    rule: SelectionRule
    num_factors: Int[Array, ""]
    num_lags: Int[Array, ""]
    lags_by_factors: Int[Array, " factors"]
    criteria: FactorCriteria
    loglik: Float[Array, "factors orders"]
    expected_loglik: Float[Array, "factors orders"] | None
    aic: Float[Array, "factors orders"]
    num_steps: Int[Array, "factors orders"]
    result: RESULTS

    @property
    def num_failed(self) -> Int[Array, ""]:
        """How many candidates were not estimated."""
        return jnp.sum(~is_okay(self.result))

    @property
    def best_model(self) -> DynamicFactorModel:
        """The configuration that was given, with the chosen numbers (host side)."""
        num_factors, num_lags = int(self.num_factors), int(self.num_lags)
        if num_factors < 1 or num_lags < 0:
            raise ValueError(
                f"there is no choice: {int(self.num_failed)} of {self.loglik.size} candidates were "
                "not estimated; see to_frame()."
            )
        return dataclasses.replace(self.model, num_factors=num_factors, num_lags=num_lags)

    def to_frame(self) -> "pd.DataFrame":
        """One row for each candidate, indexed by numbers of factors and lags (host side)."""
        import pandas as pd

        max_factors, num_orders = self.loglik.shape
        index = pd.MultiIndex.from_product(
            [range(1, max_factors + 1), range(num_orders)], names=["num_factors", "num_lags"]
        )
        columns = {"loglik": self.loglik, "aic": self.aic, "num_steps": self.num_steps}
        if self.expected_loglik is not None:
            columns["expected_loglik"] = self.expected_loglik
        frame = pd.DataFrame(
            {name: np.asarray(column).reshape(-1) for name, column in columns.items()}, index
        )
        frame["result"] = names_of(self.result)
        chosen = (int(self.num_factors), int(self.num_lags))
        frame["chosen"] = [row == chosen for row in index]
        return frame


def num_parameters(
    model: DynamicFactorModel,
    rule: SelectionRule,
    num_factors: np.ndarray,
    num_lags: np.ndarray,
    num_series: int,
) -> np.ndarray:
    """Number of parameters of each candidate by the rule's way of counting."""
    transition = num_lags * num_factors**2
    if rule.parameters == "transition":
        return transition
    cov = {
        "diagonal": num_series,
        "shrunk": num_series,
        "isotropic": 1,
        "full": num_series * (num_series + 1) // 2,
    }[model.idiosyncratic]
    total = transition + num_series * num_factors + cov
    total = total + num_factors * (num_factors + 1) // 2 - num_factors**2
    total = total + len(series_with_memory(model, num_series))
    if model.intercept == "estimated":
        total = total + num_series
    if model.initial == "estimated":
        states = num_factors * num_lags
        total = total + states + states * (states + 1) // 2
    return total
