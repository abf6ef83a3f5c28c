"""Models, and strategies that trade on their forecasts, by the names that a TOML file gives them.

Each has the options of its table and a function that builds it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxfc.compose import FactorARX, SizeSelection, Trajectories
from jaxfc.compose.factor_dcc import FactorDCC
from jaxfc.evaluation.benchmarks import BENCHMARKS, FirstOrder
from jaxfc.factors import DynamicFactorModel
from jaxfc.model import Model
from jaxfc.regimes import (
    DiagonalCovariance,
    FullCovariance,
    GaussianTails,
    RegimeModel,
    StudentTails,
)
from jaxfc.report.file_options import Option, choice, flag, number, share, whole
from jaxfc.report.jobs import method_called
from jaxfc.trading import (
    CPPI,
    BuyAndHold,
    ConstantMix,
    Kelly,
    LinearLevel,
    PredictionLevel,
    Strategy,
    VolatilityTarget,
)
from jaxfc.volatility import (
    APARCH,
    DCC,
    DECO,
    EGARCH,
    GARCH,
    GED,
    HAR,
    AutoregressiveMean,
    ConstantCorrelation,
    ConstantMean,
    CorrelationModel,
    LinearShrinkage,
    NonlinearShrinkage,
    Normal,
    RiskMetrics,
    SampleTarget,
    ScalarBEKK,
    SkewedT,
    StudentT,
    VarianceModel,
    ZeroMean,
)

VARIANCES = {
    "GARCH": GARCH,
    "GJR": lambda: GARCH(num_asymmetric=1),
    "EGARCH": EGARCH,
    "APARCH": APARCH,
    "RiskMetrics": RiskMetrics,
    "HAR": HAR,
}
DRAWN_BEYOND_ONE_STEP = ("EGARCH", "APARCH")
LAWS = {"normal": Normal, "student": StudentT, "skewed": SkewedT, "ged": GED}
CORRELATIONS = {
    "DCC": DCC,
    "asymmetric DCC": lambda: DCC(num_asymmetric=1),
    "corrected DCC": lambda: DCC(corrected=True),
    "DECO": DECO,
    "scalar BEKK": ScalarBEKK,
    "constant": ConstantCorrelation,
}
TARGETS = {"sample": SampleTarget, "linear": LinearShrinkage, "nonlinear": NonlinearShrinkage}
COVARIANCES = {"full": FullCovariance, "diagonal": DiagonalCovariance}

METHOD = Option(choice("em", "two-step", "pca", "ppca"), "em", "estimation of the factor model")
FACTORS = {
    "num_factors": Option(whole(), 1, "number of factors"),
    "num_lags": Option(whole(0), 1, "lags of the factors' law; 0: static"),
    "method": METHOD,
}
MARGINS = {
    "variance": Option(choice(*VARIANCES), "GARCH", "law of each variance"),
    "innovations": Option(choice(*LAWS), "normal", "law of standardised residuals"),
}
MEAN = {"num_mean_lags": Option(whole(0), 0, "own lags in the mean; 0: a constant")}
DRAWS = {"draws": Option(flag(), False, "forecasts as 2000 paths instead of moments")}


class NamedModel(NamedTuple):
    """A model that a file can ask for: the options of its table, and what builds it out of them and
    of the targets; whether it draws."""

    words: str
    options: Mapping[str, Option]
    build: Callable[[Mapping[str, Any], Sequence[str]], Model]
    draws: Callable[[Mapping[str, Any]], bool] = lambda options: False
    num_targets: int | None = None


def factor_arx(options: Mapping[str, Any], targets: Sequence[str]) -> Model:
    """A return on its own lags and those of the factors of the other series."""
    factors = None
    if options["num_factors"]:
        factors = factor_model({**options, "idiosyncratic": "diagonal"}, targets)
    elif options["num_factor_lags"]:
        raise ValueError("num_factors = 0, an autoregression, needs num_factor_lags = 0.")
    return FactorARX(
        targets[0],
        factors,
        options["num_own_lags"],
        options["num_factor_lags"],
        selection=SizeSelection() if options["select"] else None,
        intervals=Trajectories(options["num_draws"]),
    )


def factor_model(options: Mapping[str, Any], targets: Sequence[str]) -> DynamicFactorModel:
    """Dynamic factors of all series."""
    return DynamicFactorModel(
        options["num_factors"],
        options["num_lags"],
        method=method_called(options["method"]),
        idiosyncratic=options["idiosyncratic"],
    )


def margins(options: Mapping[str, Any], targets: Sequence[str] = ()) -> VarianceModel:
    """Variances series by series."""
    lags = options["num_mean_lags"]
    return VarianceModel(
        VARIANCES[options["variance"]](),
        mean=AutoregressiveMean(lags) if lags else ConstantMean(),
        innovations=LAWS[options["innovations"]](),
    )


def correlation_model(options: Mapping[str, Any], targets: Sequence[str]) -> Model:
    """Variances and correlations."""
    return CorrelationModel(
        CORRELATIONS[options["correlations"]](),
        margins=margins(options),
        target=TARGETS[options["target"]](),
    )


def factor_dcc(options: Mapping[str, Any], targets: Sequence[str]) -> Model:
    """Factors whose innovations have dynamic covariances."""
    how = VARIANCES[options["variance"]](), LAWS[options["innovations"]]()
    own = VarianceModel(how[0], mean=ZeroMean(), innovations=how[1])
    factors = factor_model({**options, "idiosyncratic": "diagonal"}, targets)
    correlations = CorrelationModel(CORRELATIONS[options["correlations"]](), margins=own)
    return FactorDCC(factors, correlations, idiosyncratic=own)


def regime_model(options: Mapping[str, Any], targets: Sequence[str]) -> Model:
    """Means and covariances that switch."""
    degrees = options["degrees"]
    tails = GaussianTails() if degrees is None else StudentTails(degrees)
    return RegimeModel(options["num_regimes"], COVARIANCES[options["covariance"]](), tails=tails)


def first_order(options: Mapping[str, Any], targets: Sequence[str]) -> Model:
    """Each series by itself."""
    return FirstOrder(*BENCHMARKS[options["kind"]])


def asked(options: Mapping[str, Any]) -> bool:
    """Draws where the file asks for them."""
    return options["draws"]


CORRELATED = {"correlations": Option(choice(*CORRELATIONS), "DCC", "law of the correlations")}
MODELS = {
    "FactorARX": NamedModel(
        "a return on its own lags and on lags of the factors of the other series",
        {
            "num_factors": Option(whole(0), 1, "number of factors; 0: an autoregression"),
            "num_lags": Option(whole(0), 1, "lags of the factors' law"),
            "num_own_lags": Option(whole(0), 1, "lags of the target"),
            "num_factor_lags": Option(whole(0), 1, "lags of the factors in the regression"),
            "select": Option(flag(), False, "every window chooses its sizes up to these"),
            "num_draws": Option(whole(2), 500, "trajectories behind the intervals"),
            "method": Option(choice("em", "two-step", "ppca"), "em", METHOD.words),
        },
        factor_arx,
        lambda options: True,
        num_targets=1,
    ),
    "DynamicFactorModel": NamedModel(
        "all series by a few factors with a vector autoregression",
        {
            **FACTORS,
            "idiosyncratic": Option(
                choice("diagonal", "isotropic", "full"), "diagonal", "covariance beside the factors"
            ),
        },
        factor_model,
    ),
    "VarianceModel": NamedModel(
        "mean and variance of every series by itself", {**MARGINS, **MEAN, **DRAWS}, margins, asked
    ),
    "CorrelationModel": NamedModel(
        "variances of every series, and correlations that move",
        {
            **CORRELATED,
            "target": Option(choice(*TARGETS), "sample", "correlation that they return to"),
            **MARGINS,
            **MEAN,
            **DRAWS,
        },
        correlation_model,
        asked,
    ),
    "FactorDCC": NamedModel(
        "covariances of many series from a few factors whose own move",
        {**FACTORS, **CORRELATED, **MARGINS, **DRAWS},
        factor_dcc,
        asked,
    ),
    "RegimeModel": NamedModel(
        "means and covariances that switch between regimes",
        {
            "num_regimes": Option(whole(), 2, "number of regimes"),
            "covariance": Option(choice(*COVARIANCES), "full", "covariance within a regime"),
            "degrees": Option(
                number(2.0, above=True), None, "Student tails; left out: normal", example=6.0
            ),
        },
        regime_model,
    ),
    "FirstOrder": NamedModel(
        "the simple forecasts that a model has to beat",
        {"kind": Option(choice(*BENCHMARKS), "AR(1)", "which of them")},
        first_order,
    ),
}

LEVEL = {"level": share()}
LIMITS = {"upper": number(), "lower": number()}
# By name: the class, its numbers and which of them have to be given.
RULES: dict[str, tuple[Callable[..., Strategy], dict[str, Any], tuple[str, ...]]] = {
    "PredictionLevel": (PredictionLevel, LEVEL, ("level",)),
    "LinearLevel": (LinearLevel, LEVEL | LIMITS, ("level", "upper", "lower")),
    "ConstantMix": (ConstantMix, {"exposure": number()}, ("exposure",)),
    "BuyAndHold": (BuyAndHold, {"exposure": number()}, ()),
    "CPPI": (
        CPPI,
        {"multiplier": number(0.0), "floor": number(0.0, 1.0), "max_exposure": number()},
        ("multiplier", "floor"),
    ),
    "VolatilityTarget": (
        VolatilityTarget,
        {"volatility": number(0.0, above=True), "max_exposure": number()},
        ("volatility",),
    ),
    "Kelly": (Kelly, {"fraction": number()} | LIMITS, ()),
}
