"""The main job: the US panel from data to forecast, evaluation and report, timed by stage."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from jaxfc.datasets import demo_panel
from jaxfc.factors import DynamicFactorModel, FittedFactorModel, TwoStepEM
from jaxfc.factors.contributions import contributions
from jaxfc.factors.nowcasts import nowcast
from jaxfc.factors.reconstruct import Nowcast
from jaxfc.factors.select import Selection, select_model
from jaxfc.forecast import Forecast
from jaxfc.impact import Contributions
from jaxfc.panel import Panel
from jaxfc.report.evaluate import Evaluation, evaluate
from jaxfc.running.origins import Rolling

TARGETS = ("SP500", "NASDAQ", "WTI")


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What the demo does; windows and horizons in weeks."""

    num_factors: int = 2
    num_lags: int = 1
    max_factors: int = 3  # with 4, one window in ten has no stationary estimate
    max_lags: int = 1
    choose: bool = True
    window: int = 260
    num_origins: int = 100
    horizon: int = 13
    num_draws: int = 200
    target: str = "SP500"
    seed: int = 20_181_228


QUICK = DemoConfig(choose=False, window=104, num_origins=12, horizon=4, num_draws=50)


@dataclasses.dataclass(frozen=True, eq=False)
class DemoResult:
    """Everything the report shows, and the seconds every stage took (compilation included)."""

    config: DemoConfig
    panel: Panel
    selection: Selection | None
    fitted: FittedFactorModel
    nowcast: Nowcast
    forecast: Forecast
    contributions: Contributions
    evaluation: Evaluation
    seconds: dict[str, float]


class Stages:
    """A stopwatch by stage; `announce` is told the name of each as it begins."""

    def __init__(self, announce: Callable[[str], None]):
        self.announce = announce
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.announce(name)
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


STAGES = (
    "read the data",
    "choose factors and lags",
    "estimate",
    "nowcast",
    "forecast",
    "evaluate",
)


def demo_model(num_factors: int, num_lags: int) -> DynamicFactorModel:
    """The factor model of the demo, estimated in two steps from series of all frequencies.

    Each outer step starts where the one before ended, and the variance of rebuilt cells enters the
    idiosyncratic variances: without it they shrink from step to step.
    """
    method = TwoStepEM(conditional_cov=True, restart=False, rtol=1e-4, max_steps=200)
    return DynamicFactorModel(num_factors, num_lags, method=method)


def run_demo(config: DemoConfig, announce: Callable[[str], None]) -> DemoResult:
    """The whole job on `demo_panel`; see `STAGES` for its parts.

    **Raises:** `ModuleNotFoundError` if the packages that carry the data are not installed,
    `RuntimeError` if the estimation on the whole panel fails.
    """
    stage = Stages(announce)
    with stage(STAGES[0]):
        panel = demo_panel()
    num_factors, num_lags, selection = config.num_factors, config.num_lags, None
    with stage(STAGES[1]):
        if config.choose:
            largest = config.max_factors, config.max_lags
            selection = select_model(demo_model(*largest), panel, *largest, batch_size=1)
            num_factors, num_lags = int(selection.num_factors), int(selection.num_lags)
    model = demo_model(num_factors, num_lags)
    with stage(STAGES[2]):
        fitted = model.fit(panel)
        assert isinstance(fitted, FittedFactorModel)
        jax.block_until_ready(fitted.loglik)
    with stage(STAGES[3]):
        key = jax.random.key(config.seed)
        cells = jax.block_until_ready(nowcast(fitted, panel, config.num_draws, key=key))
    with stage(STAGES[4]):
        forecast = fitted.forecast(config.horizon)
        parts = contributions(fitted, panel, config.horizon, target=config.target)
        jax.block_until_ready(forecast.mean)
    with stage(STAGES[5]):
        origins = Rolling(window=config.window, num_origins=config.num_origins)
        evaluation = evaluate(model, panel, origins, list(TARGETS))
    return DemoResult(
        config, panel, selection, fitted, cells, forecast, parts, evaluation, stage.seconds
    )
