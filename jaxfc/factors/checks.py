"""What a factor model can estimate: its options among themselves, and a panel against it."""

from typing import TYPE_CHECKING

from jaxfc.counts import check_counts
from jaxfc.factors.em import IDIOSYNCRATIC, INITIAL, INTERCEPT
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.methods import EM, PCA
from jaxfc.factors.restrictions import Restrictions
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.factors.model import DynamicFactorModel
    from jaxfc.panel import Panel


def check_sizes(model: "DynamicFactorModel") -> None:
    """Raise `ValueError` for impossible numbers and unknown names of options."""
    check_counts(num_factors=model.num_factors)
    if model.num_lags < 0:
        raise ValueError(f"num_lags must be 0 (static) or more, got {model.num_lags}.")
    if model.num_lags == 0 and model.idiosyncratic == "full":
        raise ValueError(
            "a static model (num_lags=0) with a full idiosyncratic covariance is not "
            "identified: no loadings and S = Cov(x) fit as well. Use idiosyncratic='diagonal' "
            "or num_lags >= 1."
        )
    options = {"idiosyncratic": IDIOSYNCRATIC, "initial": INITIAL, "intercept": INTERCEPT}
    for name, allowed in options.items():
        if getattr(model, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(model, name)!r}.")


def has_priors(model: "DynamicFactorModel") -> bool:
    """Whether series are pulled towards each other."""
    return model.idiosyncratic == "shrunk" or model.intercept == "random"


def check_priors(model: "DynamicFactorModel") -> None:
    """Raise `ValueError` for options that priors across series do not go with."""
    if not has_priors(model):
        return
    what = "idiosyncratic='shrunk'" if model.idiosyncratic == "shrunk" else "intercept='random'"
    if not isinstance(model.method, EM):
        raise ValueError(f"{type(model.method).__name__} cannot estimate {what}; use method=EM().")
    general = isinstance(model.errors, AutoregressiveErrors) or model.weighting is not None
    if general or model.restrictions is not None:
        raise ValueError(f"{what} goes with independent errors, no restrictions and no weighting.")
    if model.intercept == "random" and model.idiosyncratic == "full":
        raise ValueError(
            "intercept='random' needs a diagonal idiosyncratic covariance, got 'full'."
        )
    if model.intercept == "random" and model.initial != "stationary":
        raise ValueError(
            "intercept='random' needs initial='stationary': a free initial law says nothing of "
            "the factors' mean."
        )


def check_options(model: "DynamicFactorModel") -> None:
    """Raise `ValueError` for options that do not go together."""
    check_priors(model)
    has_memory = isinstance(model.errors, AutoregressiveErrors)
    if not has_memory and model.restrictions is None and model.weighting is None:
        return
    what = "restrictions" if model.weighting is None else "weighted errors"
    what = "errors with memory" if has_memory else what
    coupled = has_memory or model.weighting is not None
    if not model.method.is_general:
        raise ValueError(f"{type(model.method).__name__} cannot estimate {what}; use method=EM().")
    if model.idiosyncratic != "diagonal":
        raise ValueError(f"{what} need idiosyncratic='diagonal', got {model.idiosyncratic!r}.")
    if coupled and isinstance(model.moments, KalmanMoments):
        raise ValueError(f"{what} need moments=ClosedForm(), not KalmanMoments().")
    method = model.method
    if coupled and isinstance(method, EM):
        if method.missing_as_latent or method.criterion != "loglik":
            raise ValueError(
                f"EM for {what} integrates missing cells out and stops by the "
                "likelihood; leave missing_as_latent and criterion as they are."
            )


def check_shape(model: "DynamicFactorModel", num_times: int, num_series: int) -> None:
    """Raise `ValueError` if a panel of this shape cannot identify the model."""
    if model.num_factors >= num_series:
        raise ValueError(
            f"num_factors = {model.num_factors} needs more than {model.num_factors} series, got "
            f"{num_series}; lower num_factors."
        )
    if num_times < model.num_lags + 2:
        raise ValueError(
            f"num_lags = {model.num_lags} needs at least {model.num_lags + 2} rows, got "
            f"{num_times}; lower num_lags or lengthen the window."
        )


def check_traced(model: "DynamicFactorModel", aggregation: AggregationRows | None) -> None:
    """Raise `ValueError` in traced code for a model that still needs its panel."""
    _ = model.rules
    if aggregation is None or model.method.rebuilds_panel:
        return
    if not model.method.reads_flows:
        raise ValueError(
            f"{type(model.method).__name__} cannot read aggregated series; use EM() or TwoStepEM()."
        )
    if model.flows is None:
        raise ValueError(
            "the positions of aggregated series must be known before tracing; use fit, or "
            "model.resolved(panel).estimate(...)."
        )


def check_panel(model: "DynamicFactorModel", panel: "Panel") -> None:
    """Raise `ValueError` if the model cannot be estimated on a panel."""
    check_flows(model, panel)
    if isinstance(model.restrictions, Restrictions):
        model.restrictions.check(panel.names, model.num_factors, model.num_lags)
    if isinstance(model.method, PCA) and not panel.observed[-1].any():
        raise ValueError(
            f"the panel ends with rows without data (last row {panel.index[-1]:%Y-%m-%d}), for "
            "which principal components have no factors; cut them off with panel.window(...), "
            "or use method=EM()."
        )
    if model.method.rebuilds_panel:
        refuse_empty_start(panel, type(model.method).__name__)
    counts = panel.observed.sum(axis=0)
    for i, name in enumerate(panel.names):
        if counts[i] == 0:
            raise ValueError(
                f"series {name!r} has no observation in {panel.index[0]:%Y-%m-%d}.."
                f"{panel.index[-1]:%Y-%m-%d}; drop it or change the window."
            )
        seen = panel.values[panel.observed[:, i], i]
        if model.standardise and seen.max() == seen.min():
            raise ValueError(
                f"series {name!r} is constant ({seen[0]:g}) in this panel: it carries no "
                "information and cannot be standardised; drop it or change the window."
            )


def refuse_empty_start(panel: "Panel", what: str) -> None:
    """Raise `ValueError` for rows without data before the first one that has some: they would be
    filled and then taken for data."""
    num_empty = int(panel.observed.any(axis=1).argmax())
    if num_empty:
        raise ValueError(
            f"the panel begins with {num_empty} rows without any observation (before "
            f"{panel.index[num_empty]:%Y-%m-%d}), which {what} would fill and take for data; cut "
            "them off with panel.window(...), or use Rolling origins in a backtest."
        )


def check_flows(model: "DynamicFactorModel", panel: "Panel") -> None:
    """Raise `ValueError` if the panel has flows that the method cannot read."""
    if panel.aggregation is None or model.method.rebuilds_panel:
        return
    flows = [name for name, kind in zip(panel.names, panel.kinds, strict=True) if kind != "stock"]
    named = ", ".join(map(repr, flows[:5]))
    if not model.method.reads_flows:
        raise ValueError(
            f"series {named} are flows observed at a lower frequency than the panel's, which "
            f"{type(model.method).__name__} cannot read; use method=EM() or TwoStepEM()."
        )
    if model.idiosyncratic not in ("diagonal", "shrunk"):
        raise ValueError(
            f"series {named} are flows observed at a lower frequency than the panel's; in one step "
            "they need idiosyncratic='diagonal' (TwoStepEM() reads them with correlated errors)."
        )
    if isinstance(model.moments, KalmanMoments):
        raise ValueError(
            f"series {named} are flows observed at a lower frequency than the panel's, which "
            "KalmanMoments cannot read; use moments=ClosedForm()."
        )
    method = model.method
    if isinstance(method, EM) and (method.missing_as_latent or method.criterion != "loglik"):
        raise ValueError(
            "EM with flows integrates missing cells out and stops by the likelihood; leave "
            "missing_as_latent and criterion as they are."
        )
