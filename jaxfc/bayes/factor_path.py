"""The path of latent factors as a distribution, whatever their dynamics."""

# NumPyro types its classes for arrays of any library and attributes as properties.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

from numpyro import distributions as dist

from jaxfc.bayes.factor_dynamics import FactorDynamics
from jaxfc.bayes.program import Parameters
from jaxfc.typing import Array, Float, PRNGKeyArray


class FactorPath(dist.Distribution):
    """The path of the factors as a distribution of NumPyro's."""

    support = dist.constraints.real_matrix
    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(
        self,
        dynamics: FactorDynamics,
        parameters: Parameters,
        volatility: Float[Array, " time"],
        num_factors: int,
    ):
        self.dynamics, self.parameters, self.volatility = dynamics, parameters, volatility
        super().__init__((), (volatility.size, num_factors), validate_args=False)

    def log_prob(self, value: Float[Array, "time factors"]) -> Float[Array, ""]:
        return self.dynamics.log_prob(value, self.parameters, self.volatility)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple = ()) -> Float[Array, "time factors"]:
        size = self.event_shape[1]
        return self.dynamics.simulate(self.parameters, self.volatility, size, key=key)
