"""The keys of a backtest's TOML file, and the template that `jaxfc backtest init` writes."""

import datetime
from typing import Any

from jaxfc.report.backtest_models import MODELS, RULES
from jaxfc.report.file_options import (
    Kind,
    Option,
    by_name,
    choice,
    comment,
    day,
    flag,
    number,
    several,
    share,
    template_lines,
    text,
    toml_value,
    whole,
)
from jaxfc.report.packaged_data import DATA_SETS
from jaxfc.transform_rules import Difference, Growth, LogDifference

KINDS = ("stock", "flow_sum", "flow_average", "change_in_flow")
TRANSFORMS = {
    "log return": LogDifference(),
    "log return in percent": LogDifference(scale=100.0),
    "growth in percent": Growth(),
    "difference": Difference(),
}
# Columns of the scores; the last two come once for each level.
MEASURES = ("num_cases", "rmse", "mae", "crps", "outside", "MIS")
DATA = {
    "dataset": Option(choice(*DATA_SETS), None, "packaged, see jaxfc data list", "us_stocks"),
    "files": Option(
        several(text()), None, "or one file a frequency, relative to this one", ["W-FRI=weekly.csv"]
    ),
    "fredmd": Option(flag(), False, "insist that the files are FRED-MD or FRED-QD"),
    "series": Option(several(text()), None, "those to use; left out: all", ["SP500"]),
    "targets": Option(several(text()), None, "those to score; left out: all", ["SP500"]),
    "transform": Option(choice("none", *TRANSFORMS), "none", "of all series"),
    "start": Option(day(), None, "first date", datetime.date(2005, 1, 7)),
    "end": Option(day(), None, "last date", datetime.date(2015, 12, 31)),
    "kinds": Option(
        by_name(choice(*KINDS)), None, "what a low-frequency value is", {"CPI": "flow_sum"}
    ),
    "delays": Option(by_name(text()), None, "from end of period to publication", {"CPI": "15D"}),
}
MODEL = {"name": Option(choice(*MODELS), None, "which model", "FactorARX", needed=True)}
BACKTEST = {
    "origins": Option(choice("rolling", "expanding"), "rolling", "the rows of a window"),
    "window": Option(whole(2), None, "rows of a window, or of the first", 260, needed=True),
    "horizon": Option(whole(), 1, "steps ahead"),
    "num_origins": Option(whole(), None, "only the last ones; or start", 52),
    "start": Option(day(), None, "first origin", datetime.date(2010, 1, 1)),
    "step": Option(whole(), 1, "rows from origin to origin"),
    "refit": Option(whole(), 1, "estimate at every so many origins"),
    "seed": Option(whole(0, 2**32 - 1), 0, "of all draws"),
    "batch_size": Option(whole(), 8, "windows side by side; decides on rounding"),
}
SCORES = {
    "measures": Option(several(choice(*MEASURES)), list(MEASURES), "columns of scores.csv"),
    "levels": Option(several(share()), [0.5, 0.8, 0.9], "of the intervals"),
    "quantiles": Option(several(share()), [0.05, 0.25, 0.5, 0.75, 0.95], "in forecasts.csv"),
}
STRATEGIES = Kind(
    "a table NAME = { rule = ..., ... } of one or more",
    lambda value: isinstance(value, dict) and bool(value),
)
TRADING = {
    "scale": Option(number(0.0, above=True), 1.0, "to a log return; 0.01 for percent"),
    "cost": Option(number(0.0, 1.0), 0.0, "of a trade, as a share of its value"),
    "cash_rate": Option(number(-1.0, 1.0), 0.0, "simple rate of cash a period"),
    "periods_per_year": Option(number(0.0, above=True), 52.0, "for measures by year"),
    "strategies": Option(
        STRATEGIES,
        None,
        "by name; left out: the default ones",
        {"PL 80%": {"rule": "PredictionLevel", "level": 0.8}},
    ),
}
TABLES = {"data": DATA, "model": MODEL, "backtest": BACKTEST, "scores": SCORES, "trading": TRADING}
NEEDED = ("data", "model", "backtest")
EXAMPLE: dict[str, dict[str, Any]] = {
    "data": {
        "dataset": "index_returns",
        "series": ["SP500", "NASDAQ", "OIL", "EXXON", "JPMORGAN"],
        "targets": ["SP500"],
    },
    "backtest": {"window": 260, "num_origins": 52},
    "trading": {"cost": 0.001},
}
HEADS = {
    "data": "What is forecast. Files are tables of dates x series, CSV or Parquet.",
    "model": "What forecasts.",
    "backtest": "Every origin sees what had been published by then, and nothing later.",
    "scores": "What is written about the forecasts. The table may be left out.",
    "trading": "What strategies would have made of the one-step forecasts of the first target. "
    "Without this table nothing is traded.",
}
OTHERS = f"jaxfc backtest init --model NAME writes the keys of another: {', '.join(MODELS)}."
RULES_IN_WORDS = "Rules and their numbers: " + ", ".join(
    f"{rule} ({', '.join(numbers)})" for rule, (_, numbers, _) in RULES.items()
)


def template(model: str, file: str) -> str:
    """A file to start from: every key with its default, what it does, and what it may be."""
    lines = ["# A backtest. Run it, stop it, run it again:", f"#   jaxfc backtest run {file}", ""]
    for name, options in TABLES.items():
        lines += comment(HEADS[name])
        if name == "model":
            lines += comment(f"{model}: {MODELS[model].words}. {OTHERS}")
            lines += [f"[{name}]", f"name = {toml_value(model)}"]
            lines += template_lines(MODELS[model].options, {})
        else:
            lines += comment(RULES_IN_WORDS) if name == "trading" else []
            lines += [f"[{name}]", *template_lines(options, EXAMPLE.get(name, {}))]
        lines.append("")
    return "\n".join(lines)
