"""Small Markov-switching panels, and the example of the golden values."""

import numpy as np

# Eight rows whose answers are known to all printed digits: own code, dynamax 1.0.3 and (filter)
# statsmodels 0.15 agree to 1e-15.
VALUES = np.array(
    [
        (0.5, 0.3),
        (-0.2, 0.1),
        (0.4, 0.6),
        (-2.0, -1.8),
        (1.5, 1.9),
        (-1.1, -0.9),
        (0.2, -0.1),
        (0.3, 0.2),
    ]
)
MEANS = np.array([[0.05, 0.03], [-0.1, -0.2]])
COVS = np.array([[[0.5, 0.1], [0.1, 0.4]], [[2.0, 1.5], [1.5, 1.8]]])
TRANSITION = np.array([[0.95, 0.05], [0.15, 0.85]])
INITIAL = np.array([0.75, 0.25])
SECTORS = (0, 0, 1, 1)


def switching_panel(num_times: int, *, missing: float = 0.1, seed: int = 0):
    """Four series in two regimes: calm with a market and two sectors, turbulent with the market.

    Values with NaN where not observed, the mask and the regimes.
    """
    rng = np.random.default_rng(seed)
    transition = np.array([[0.97, 0.03], [0.08, 0.92]])
    regimes = [0]
    for _ in range(num_times - 1):
        regimes.append(rng.choice(2, p=transition[regimes[-1]]))
    regimes = np.array(regimes)
    market = np.array([0.5, 0.7, 0.4, 0.6])
    sector = np.array([[0.5, 0.0], [0.4, 0.0], [0.0, 0.6], [0.0, 0.5]])
    calm = rng.normal(size=(num_times, 1)) * market + rng.normal(size=(num_times, 2)) @ sector.T
    calm = calm + 0.4 * rng.normal(size=(num_times, 4)) + 0.05
    wild = 3.0 * rng.normal(size=(num_times, 1)) * market + rng.normal(size=(num_times, 4)) - 0.3
    values = np.where(regimes[:, None] == 0, calm, wild)
    observed = rng.random(values.shape) >= missing
    if missing:
        observed[num_times // 2] = False
    return np.where(observed, values, np.nan), observed, regimes
