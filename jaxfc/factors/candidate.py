"""Models of several sizes in arrays of one shape."""

import equinox as eqx

from jaxfc.typing import Array, Bool


class Candidate(eqx.Module):
    """Which factors and lags are switched on: models of several sizes in arrays of one shape."""

    factors: Bool[Array, " factors"] | None = None
    lags: Bool[Array, " lags"] | None = None
