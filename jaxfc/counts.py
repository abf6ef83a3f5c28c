"""Counts that must be there: horizons, lags, steps, draws."""


def check_counts(**counts: int) -> None:
    """Refuses counts below one, by name."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
