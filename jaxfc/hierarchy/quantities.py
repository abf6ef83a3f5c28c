"""Which quantities add up over series and over time, and the refusal of those that do not.

| quantity | over series | over time |
|---|---|---|
| profit (currency, holdings fixed), flow | yes | yes |
| simple return | yes, with weights at the start of the period | no: it compounds |
| log return | no: a log of a sum is no sum of logs | yes |
| variance (realised variance) | no: covariances are part of it | yes |
| level (prices, values) | yes | no: the last one counts |
"""

from typing import Literal

Quantity = Literal["flow", "profit", "simple_return", "log_return", "variance", "level"]
QUANTITIES = ("flow", "profit", "simple_return", "log_return", "variance", "level")
OVER_SERIES = ("flow", "profit", "simple_return", "level")
OVER_TIME = ("flow", "profit", "log_return", "variance")
REMEDIES = {
    "simple_return": (
        "simple returns compound over time. Make profits of them (jaxfc.hierarchy.profits), which "
        "add over time and over assets, or use log returns over time alone."
    ),
    "log_return": (
        "log returns do not add over assets. Make profits of them (jaxfc.hierarchy.profits), which "
        "add over assets and over time, or use simple returns over assets alone."
    ),
    "variance": (
        "the variance of a portfolio is no sum of variances. Reconcile every series over time by "
        "itself."
    ),
    "level": "levels do not add over time: use how='last', or their changes.",
}


def check_additive(quantity: str, *, over_series: bool, over_time: bool) -> None:
    """Refuses sums that the quantity does not obey.

    **Raises:** `ValueError` for an unknown quantity, and for one that does not add up in the
    direction asked for, with what to use instead.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity is one of {QUANTITIES}, got {quantity!r}.")
    wrong = (over_series and quantity not in OVER_SERIES) or (
        over_time and quantity not in OVER_TIME
    )
    if wrong:
        raise ValueError(f"{quantity}: {REMEDIES[quantity]}")
