"""Laws of the path of latent factors, as densities without a loop over time.

Every law is written by differences of the path, so that its density is one expression in all rows;
only simulation runs forward. Scales of innovations by row (`volatility`) make the factors' variance
move.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from numpyro import distributions as dist

from jaxfc.bayes.prior_checks import check_positive
from jaxfc.bayes.program import Parameters, Priors
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.constants import LOG_2PI

LARGEST = 0.99
SPECTRUM = 1024


class FactorDynamics(eqx.Module):
    """How factors follow each other. `num_lags` past rows determine the law of the next."""

    @property
    @abc.abstractmethod
    def num_lags(self) -> int:
        """How many rows a forecast starts from."""

    @abc.abstractmethod
    def priors(self, num_factors: int) -> Priors:
        """Priors of the parameters of the dynamics."""

    @abc.abstractmethod
    def start(self, num_factors: int) -> Parameters:
        """Values to start from: no dependence between rows."""

    @abc.abstractmethod
    def log_prob(
        self,
        path: Float[Array, "time factors"],
        parameters: Parameters,
        volatility: Float[Array, " time"],
    ) -> Float[Array, ""]:
        """ln p(path) with innovations of standard deviation `volatility` (one: as stated)."""

    @abc.abstractmethod
    def next_row(
        self,
        last: Float[Array, "lags factors"],
        parameters: Parameters,
        noise: Float[Array, " factors"],
        volatility: Float[Array, ""],
    ) -> Float[Array, " factors"]:
        """The row after `last` (newest last) from standard normal `noise`."""

    def first_cov(self, parameters: Parameters, num_factors: int) -> Array:
        """Covariance (factors, factors) of the first row of a path at volatility one."""
        return jnp.eye(num_factors) / (1.0 - parameters["rho"] ** 2)

    def unconditional_cov(self, parameters: Parameters, num_factors: int) -> Array:
        """Stationary covariance (factors, factors) at volatility one."""
        return self.first_cov(parameters, num_factors)

    def simulate(
        self,
        parameters: Parameters,
        volatility: Float[Array, " time"],
        num_factors: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "time factors"]:
        """One path from the law that `log_prob` is the density of."""
        num_rows = volatility.size
        noise = jax.random.normal(key, (num_rows, num_factors), volatility.dtype)
        root = jnp.linalg.cholesky(self.first_cov(parameters, num_factors))
        first = (volatility[0] * root @ noise[0])[None]
        return jnp.concatenate([first, self.ahead(first, parameters, noise[1:], volatility[1:])])

    def ahead(
        self,
        past: Float[Array, "past factors"],
        parameters: Parameters,
        noise: Float[Array, "time factors"],
        volatility: Float[Array, " time"],
    ) -> Float[Array, "time factors"]:
        """The rows after `past` from standard normal `noise`; rows before `past` are zero."""

        def advance(last: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            row = self.next_row(last, parameters, now[0], now[1])
            return jnp.concatenate([last[1:], row[None]]), row

        known = past[-self.num_lags :]
        lags = jnp.pad(known, ((self.num_lags - known.shape[0], 0), (0, 0)))
        return jax.lax.scan(advance, lags, (noise, volatility))[1]


def normal_log_prob(gap: Array, scale: Array) -> Float[Array, ""]:
    """Sum over rows and factors of ln N(gap; 0, scale^2), `scale` by row."""
    rows = jnp.sum((gap / scale[:, None]) ** 2, axis=1)
    return -0.5 * jnp.sum(rows) - gap.shape[1] * jnp.sum(jnp.log(scale) + 0.5 * LOG_2PI)


def reversal_log_prob(
    path: Float[Array, "time factors"],
    further: Float[Array, "time factors"] | float,
    rho: Float[Array, ""],
    volatility: Float[Array, " time"],
) -> Float[Array, ""]:
    """ln p of z_t = rho z_{t-1} + `further`_t + v_t e_t from the stationary law of the first."""
    past = jnp.concatenate([jnp.zeros_like(path[:1]), rho * path[:-1]]) + further
    first = jnp.arange(path.shape[0]) == 0
    scale = jnp.where(first, volatility / jnp.sqrt(1.0 - rho**2), volatility)
    return normal_log_prob(path - past, scale)


class FirstOrder(FactorDynamics):
    """z_t = rho z_{t-1} + v_t e_t, e ~ N(0, I), z_1 ~ N(0, v_1^2 / (1 - rho^2)): reversal or
    persistence, the same for all factors.

    `scale` is the standard deviation of the normal prior of rho, truncated to (-0.99, 0.99).
    """

    scale: Float[Array, ""] = eqx.field(default=0.2, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale")

    @property
    def num_lags(self) -> int:
        return 1

    def priors(self, num_factors: int) -> Priors:
        law = dist.TruncatedNormal(0.0, self.scale, low=-LARGEST, high=LARGEST)
        return {"rho": lambda _: law}

    def start(self, num_factors: int) -> Parameters:
        return {"rho": jnp.asarray(0.0)}

    def log_prob(
        self,
        path: Float[Array, "time factors"],
        parameters: Parameters,
        volatility: Float[Array, " time"],
    ) -> Float[Array, ""]:
        return reversal_log_prob(path, 0.0, parameters["rho"], volatility)

    def next_row(
        self,
        last: Float[Array, "lags factors"],
        parameters: Parameters,
        noise: Float[Array, " factors"],
        volatility: Float[Array, ""],
    ) -> Float[Array, " factors"]:
        return parameters["rho"] * last[-1] + volatility * noise


class Momentum(FactorDynamics):
    """z_t = rho z_{t-1} + beta sum_{j=first..last} z_{t-j} + v_t e_t: reversal and momentum.

    Rows before the panel count as zero in the sum; the first row has the stationary law of the
    reversal alone. `scale` and `momentum_scale` are the standard deviations of the normal priors of
    rho and beta, truncated so that |rho| + (number of lags) |beta| < 1, which is stationary.

    Source: the M6 model's momentum variant, lags 2 to 12 (Weitzenfeld, 2025).
    """

    scale: Float[Array, ""] = eqx.field(default=0.2, converter=as_scalar)
    momentum_scale: Float[Array, ""] = eqx.field(default=0.03, converter=as_scalar)
    first: int = eqx.field(static=True, default=2)
    last: int = eqx.field(static=True, default=12)

    def __check_init__(self):
        check_positive(self, "scale", "momentum_scale")
        if not 2 <= self.first <= self.last:
            raise ValueError(
                f"momentum takes lags first..last with 2 <= first <= last, got {self.first} and "
                f"{self.last}; lag 1 is the reversal's."
            )

    @property
    def num_lags(self) -> int:
        return self.last

    def priors(self, num_factors: int) -> Priors:
        width = self.last - self.first + 1
        reversal = dist.TruncatedNormal(0.0, self.scale, low=-LARGEST, high=LARGEST)

        def momentum(parameters: Parameters) -> dist.Distribution:
            bound = (1.0 - jnp.abs(parameters["rho"])) / width
            return dist.TruncatedNormal(0.0, self.momentum_scale, low=-bound, high=bound)

        return {"rho": lambda _: reversal, "momentum": momentum}

    def start(self, num_factors: int) -> Parameters:
        return {"rho": jnp.asarray(0.0), "momentum": jnp.asarray(0.0)}

    def unconditional_cov(self, parameters: Parameters, num_factors: int) -> Array:
        # The variance is the mean of the spectrum 1 / |1 - rho w - beta sum_j w^j|^2 on the circle.
        filtered = jnp.zeros(SPECTRUM).at[0].set(1.0).at[1].add(-parameters["rho"])
        filtered = filtered.at[self.first : self.last + 1].add(-parameters["momentum"])
        return jnp.eye(num_factors) * jnp.mean(1.0 / jnp.abs(jnp.fft.fft(filtered)) ** 2)

    def log_prob(
        self,
        path: Float[Array, "time factors"],
        parameters: Parameters,
        volatility: Float[Array, " time"],
    ) -> Float[Array, ""]:
        totals = jnp.cumsum(jnp.concatenate([jnp.zeros((self.last + 1, path.shape[1])), path]), 0)
        num_rows, zeroth = path.shape[0], self.last
        # The sum of z_{t-first}..z_{t-last}, as a difference of running sums.
        upper = totals[zeroth + 1 - self.first : zeroth + 1 - self.first + num_rows]
        lower = totals[zeroth - self.last : zeroth - self.last + num_rows]
        momentum = parameters["momentum"] * (upper - lower)
        return reversal_log_prob(path, momentum, parameters["rho"], volatility)

    def next_row(
        self,
        last: Float[Array, "lags factors"],
        parameters: Parameters,
        noise: Float[Array, " factors"],
        volatility: Float[Array, ""],
    ) -> Float[Array, " factors"]:
        older = jnp.sum(last[: self.last - self.first + 1], axis=0)
        past = parameters["rho"] * last[-1] + parameters["momentum"] * older
        return past + volatility * noise


class VectorFirstOrder(FactorDynamics):
    """z_t = P z_{t-1} + v_t e_t with unconditional covariance I: P = A L'^{-1}, L L' = I + A'A,
    Q = I - P P' = (I + A A')^{-1}.

    Every stationary VAR(1) has this form after a linear transformation of its factors (with
    unconditional covariance I, stationarity is |P| < 1), so nothing is left out and no draw is
    explosive. Entries of A are N(0, scale^2). With volatility the innovations have covariance
    v_t^2 Q and the first row v_1^2 I.

    Source: Ansley and Kohn (1986), the first step of their recursion.
    """

    scale: Float[Array, ""] = eqx.field(default=0.2, converter=as_scalar)

    def __check_init__(self):
        check_positive(self, "scale")

    @property
    def num_lags(self) -> int:
        return 1

    def priors(self, num_factors: int) -> Priors:
        law = dist.Normal(0.0, self.scale).expand([num_factors, num_factors])
        return {"coupling": lambda _: law}

    def start(self, num_factors: int) -> Parameters:
        return {"coupling": jnp.zeros((num_factors, num_factors))}

    def first_cov(self, parameters: Parameters, num_factors: int) -> Array:
        return jnp.eye(num_factors)

    def log_prob(
        self,
        path: Float[Array, "time factors"],
        parameters: Parameters,
        volatility: Float[Array, " time"],
    ) -> Float[Array, ""]:
        coupling = parameters["coupling"]
        root = chol_plus_identity(coupling.T @ coupling)
        # P z = A L'^{-1} z; |Q^{-1/2} x|^2 = |x|^2 + |A'x|^2.
        moved = coupling @ solve_triangular(root.T, path[:-1].T, lower=False)
        gap = path[1:] - moved.T
        later = volatility[1:, None]
        squares = jnp.sum((gap / later) ** 2) + jnp.sum((gap @ coupling / later) ** 2)
        log_dets = (path.shape[0] - 1) * jnp.sum(jnp.log(jnp.diagonal(root)))
        size = path.shape[1]
        first = normal_log_prob(path[:1], volatility[:1])
        scales = size * jnp.sum(jnp.log(volatility[1:]) + 0.5 * LOG_2PI)
        return first - 0.5 * squares + log_dets - scales

    def next_row(
        self,
        last: Float[Array, "lags factors"],
        parameters: Parameters,
        noise: Float[Array, " factors"],
        volatility: Float[Array, ""],
    ) -> Float[Array, " factors"]:
        transition = self.transition(parameters)
        root = chol_plus_identity(parameters["coupling"] @ parameters["coupling"].T)
        return transition @ last[-1] + volatility * solve_triangular(root.T, noise, lower=False)

    def transition(self, parameters: Parameters) -> Float[Array, "factors factors"]:
        """P = A L'^{-1}."""
        coupling = parameters["coupling"]
        root = chol_plus_identity(coupling.T @ coupling)
        return solve_triangular(root, coupling.T, lower=True).T


def chol_plus_identity(matrix: Float[Array, "factors factors"]) -> Float[Array, "factors factors"]:
    """L with L L' = I + matrix."""
    return jnp.linalg.cholesky(jnp.eye(matrix.shape[0], dtype=matrix.dtype) + matrix)
