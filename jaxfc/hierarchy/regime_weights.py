"""Weights of a projection that move with a regime."""

from jaxfc.hierarchy.error_cov import DenseCov
from jaxfc.hierarchy.mapping import AverageMap, Mapping, projection
from jaxfc.hierarchy.method import Method, Step
from jaxfc.typing import Array, Float


class RegimeMinT(Method):
    """The mean over regimes of the projection that fits each.

        y~_h = sum_k p_hk M_k y^_h,    M_k the projection in the metric of W_k

    If errors have covariance W_k while regime k rules, M_k is the best map in it, and the mean over
    what is known of the regime keeps the result coherent and unbiased. One map for all regimes is
    `MinT` with the mixture covariance (`MinT("forecast")` for a forecast that is a mixture).

    **Arguments:** `covs` (regimes, nodes, nodes); `probabilities` (horizon, regimes), predictive:
    rows sum to one.
    """

    covs: Float[Array, "regimes nodes nodes"]
    probabilities: Float[Array, "horizon columns"]

    def __check_init__(self):
        if self.covs.shape[0] != self.probabilities.shape[1]:
            raise ValueError(
                f"{self.covs.shape[0]} covariances for {self.probabilities.shape[1]} regimes."
            )

    @property
    def by_step(self) -> bool:
        return True

    @property
    def takes_fixed(self) -> bool:
        return True

    @property
    def leaves_by_step(self) -> tuple[Array, ...]:
        return (self.probabilities,)

    def mapping(self, step: Step) -> Mapping:
        maps = tuple(
            projection(step.summing, DenseCov(cov), immutable=step.immutable, missing=step.missing)
            for cov in self.covs
        )
        return AverageMap(maps, self.probabilities)
