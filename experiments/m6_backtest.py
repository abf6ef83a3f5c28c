"""Long backtest of forecasts of four-week returns: 120 origins, proper scores, paired tests.

    python -m experiments.m6_backtest [--quick] [--data m6|stocks] [--only NAME ...] [--out FOLDER]

At every origin each forecaster gets the periods up to it and forecasts the next one of all assets
with enough history. Scores go to `scores.csv` as they are made, so that a killed run goes on where
it stopped; `table.csv` and `answers.md` are written from all that there are, and keep the lines of
forecasters that an earlier run of the same settings left there. Runs in float64.
"""

import dataclasses
import time

import numpy as np
import pandas as pd

from experiments.m6_answers import backtest_answers
from experiments.m6_baselines import Forecaster, baselines, key_of
from experiments.m6_batch import batch_forecasters
from experiments.m6_command import checked_folder, chosen, with_earlier
from experiments.m6_data import Assets, m6_assets, stock_assets
from experiments.m6_models import m6_forecasters
from experiments.m6_scores import compared, scores

SOURCES = ("m6", "stocks")


@dataclasses.dataclass(frozen=True)
class Config:
    """Periods that are forecast (the last ones), history that an asset must have, draws."""

    data: str = "m6"
    num_origins: int = 120
    least: int = 40
    window: int = 114
    num_draws: int = 10_000
    only: tuple[str, ...] = ()  # names of forecasters; none: all that do not sample
    batch: bool = False  # all origins of the M6 model in one program
    reference: str = "PCA-1"
    seed: int = 8
    folder: str | None = None
    out: str = "m6_backtest"


QUICK = Config(num_origins=4, num_draws=1000, only=("bootstrap", "independent", "PCA-1", "EWMA"))


def load(config: Config) -> Assets:
    """The assets of the study."""
    if config.data not in SOURCES:
        raise ValueError(f"data must be one of {SOURCES}, got {config.data!r}.")
    return m6_assets(config.folder) if config.data == "m6" else stock_assets()


def origins_of(assets: Assets, config: Config) -> list[pd.Timestamp]:
    """Ends of the periods after which the next one is forecast."""
    ends = assets.ends
    if len(ends) < config.window + config.num_origins:
        raise ValueError(
            f"{len(ends)} periods hold no {config.num_origins} origins after {config.window} "
            "periods of history; ask for fewer origins."
        )
    return list(ends[-config.num_origins - 1 : -1])


def forecasters_of(assets: Assets, config: Config) -> dict[str, Forecaster]:
    """Those of the study that were asked for, in their order."""
    known = baselines(config.num_draws, long_window=config.window)
    if config.batch:
        windows = [
            assets.known_at(origin).panel(assets.names, config.window)
            for origin in origins_of(assets, config)
        ]
        places = [int(assets.ends.get_loc(o)) for o in origins_of(assets, config)]  # pyright: ignore
        known |= batch_forecasters(
            assets.classes,
            windows,
            config.num_draws,
            only=config.only,
            keys=lambda name: [key_of(config.seed, name, place) for place in places],
        )
    else:
        known |= m6_forecasters(assets.classes, config.window, config.num_draws)
    unknown = [name for name in config.only if name not in known]
    if unknown:
        raise ValueError(f"unknown forecasters {unknown}; there are {list(known)}.")
    if not config.only:
        return {name: made for name, made in known.items() if not name.endswith("sampled")}
    return {name: known[name] for name in config.only}


def one_origin(
    assets: Assets, origin: pd.Timestamp, name: str, forecaster: Forecaster, config: Config
) -> dict[str, object]:
    """The line of scores of a forecaster at an origin, with the CPU seconds it took."""
    past = assets.known_at(origin)
    names = past.seasoned(origin, config.least, config.window)
    place = int(assets.ends.get_loc(origin))  # pyright: ignore[reportArgumentType]
    realised = assets.returns[names].iloc[place + 1].to_numpy()
    scale = np.sqrt((past.returns[names].iloc[-config.window :] ** 2).mean()).to_numpy()
    start = time.process_time()
    law = forecaster(past.panel(names, config.window), key_of(config.seed, name, place))
    seconds = time.process_time() - start
    if not np.all(np.isfinite(law.draws)):
        raise FloatingPointError(f"{name} at {origin:%Y-%m-%d} gave draws that are not finite.")
    line = {"origin": f"{origin:%Y-%m-%d}", "forecaster": name}
    return {**line, **scores(law, realised, scale), "seconds": seconds, **law.noted()}


SETTINGS = ("data", "num_origins", "least", "window", "num_draws", "seed")


def run(config: Config) -> pd.DataFrame:
    """The table of all forecasters; one line for each origin and forecaster is kept on the way."""
    assets, folder = load(config), checked_folder(config, SETTINGS)
    path = folder / "scores.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    done = set() if table.empty else set(zip(table["origin"], table["forecaster"], strict=True))
    for name, forecaster in forecasters_of(assets, config).items():
        for origin in origins_of(assets, config):
            if (f"{origin:%Y-%m-%d}", name) in done:
                continue
            line = pd.DataFrame([one_origin(assets, origin, name, forecaster, config)])
            line.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.8g")
        print(f"{name}: {config.num_origins} origins", flush=True)
    fresh = compared(pd.read_csv(path), config.reference)
    summary = with_earlier(fresh, folder / "table.csv")
    summary.to_csv(folder / "table.csv", index=False, float_format="%.6g")
    text = backtest_answers(summary, config.data, config.reference)
    (folder / "answers.md").write_text(text)
    return summary


def main() -> None:
    """Read the command line and run."""
    run(chosen(__doc__, Config(), QUICK, sources=SOURCES))


if __name__ == "__main__":
    main()
