"""Likelihood of one series with a conditional mean and a conditional variance, and its maximum."""

from typing import Literal, NamedTuple, get_args

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.innovations import Innovations
from jaxfc.volatility.mean import MeanProcess
from jaxfc.volatility.search import Minimum, minimise
from jaxfc.volatility.variance import Start, VarianceProcess, joined

Convention = Literal["fcp", "rugarch", "arch"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)
# arch's exponential backcast.
BACKCAST_ROWS, BACKCAST_DECAY = 75, 0.94
# The likelihood of a row that no model explains must not stop the search.
MIN_VARIANCE = 1e-12


class Series(NamedTuple):
    """One series in units in which its variance is about one: `residuals` are those about the mean
    that the search starts from, frozen."""

    values: Float[Array, " time"]
    observed: Bool[Array, " time"]
    residuals: Float[Array, " time"]
    known: Bool[Array, " time"]


class Standardised(NamedTuple):
    """Standardised residuals e_t / sqrt(s_t), zero where not `known`."""

    units: Float[Array, "time *series"]
    known: Bool[Array, "time *series"]


class Filtered(NamedTuple):
    """Residuals (zero where not `known`) and conditional variances of all rows and of those to
    come; of one series, or of several as further axes."""

    residuals: Float[Array, "time *series"]
    known: Bool[Array, "time *series"]
    variances: Float[Array, "all *series"]

    @property
    def past(self) -> Float[Array, "time *series"]:
        """Variances of the rows that are there."""
        return self.variances[: self.residuals.shape[0]]

    @property
    def ahead(self) -> Float[Array, "horizon *series"]:
        """Variances of the rows to come."""
        return self.variances[self.residuals.shape[0] :]

    @property
    def standardised(self) -> Standardised:
        """The residuals in units of their standard deviation."""
        return Standardised(self.residuals / jnp.sqrt(self.past), self.known)


class Specification(eqx.Module):
    """Mean, variance and law of one series, and what precedes its first row.

    Natural parameters are one vector: mean, variance, shapes. `start`:

    - "fcp": squared residuals and variances before the first row are the mean squared residual
      (Fiorentini, Calzolari and Panattoni 1996; tsgarch);
    - "rugarch": the first variances are the mean squared residual themselves;
    - "arch": before the first row stands the exponentially weighted mean of the first 75 squared
      residuals about the starting mean, weights falling by 0.94; rises and falls count alike.

    `targeting`: omega = (1 - persistence) times the mean squared residual.
    """

    mean: MeanProcess
    variance: VarianceProcess
    innovations: Innovations
    start: Convention = eqx.field(static=True)
    targeting: bool = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the natural parameters."""
        return self.mean.names + self.variance.names + self.innovations.names

    def split(
        self, parameters: Float[Array, " p"]
    ) -> tuple[Float[Array, " m"], Float[Array, " v"], Float[Array, " s"]]:
        """Parameters of mean, variance and law."""
        first = len(self.mean.names)
        second = first + len(self.variance.names)
        return parameters[:first], parameters[first:second], parameters[second:]

    def natural(self, free: Float[Array, " p"], series: Series) -> Float[Array, " p"]:
        """Natural parameters of coordinates without bounds."""
        mean, variance, shapes = self.split(free)
        shapes = self.innovations.shapes(shapes)
        variance = self.variance.natural(variance, self.innovations, shapes)
        if self.targeting:
            left = 1.0 - self.variance.persistence(variance, self.innovations, shapes)
            variance = variance.at[0].set(left * self.mean_square(mean, series))
        return joined(mean, variance, shapes)

    def free(self, natural: Float[Array, " p"]) -> Float[Array, " p"]:
        """Coordinates without bounds of natural parameters."""
        mean, variance, shapes = self.split(natural)
        variance = self.variance.free(variance, self.innovations, shapes)
        return joined(mean, variance, self.innovations.free(shapes))

    def starts(self, series: Series) -> Float[Array, "starts p"]:
        """Free coordinates to start from."""
        mean = self.mean.start(series.values, series.observed)
        shapes = jnp.asarray(self.innovations.starts, mean.dtype)
        rows = []
        for row in self.variance.starts():
            variance = jnp.asarray(row, mean.dtype)
            rows.append(self.free(joined(mean, variance, shapes)))
        return jnp.stack(rows)

    def scaled(self, parameters: Float[Array, " p"], factor: Array) -> Float[Array, " p"]:
        """The parameters of the series multiplied by `factor`."""
        mean, variance, shapes = self.split(parameters)
        mean = self.mean.scaled(mean, factor)
        return joined(mean, self.variance.scaled(variance, factor), shapes)

    def mean_square(self, mean: Float[Array, " m"], series: Series) -> Float[Array, ""]:
        """Mean squared residual."""
        residuals, known = self.mean.residuals(mean, series.values, series.observed)
        return jnp.mean(residuals**2, where=known)

    def before(self, mean: Float[Array, " m"], series: Series) -> Start:
        """What precedes the first row."""
        if self.start != "arch":
            return Start(self.mean_square(mean, series), fixed=self.start == "rugarch")
        # The first rows are those that are known, whatever rows without data precede them.
        rank = jnp.cumsum(series.known) - 1
        weights = jnp.where(series.known & (rank < BACKCAST_ROWS), BACKCAST_DECAY**rank, 0.0)
        value = jnp.sum(weights * series.residuals**2) / jnp.sum(weights)
        return Start(value, symmetric=True)

    def filtered(
        self, parameters: Float[Array, " p"], series: Series, horizon: int = 1
    ) -> Filtered:
        """Residuals and variances of all rows, and variances of `horizon` more."""
        mean, variance, shapes = self.split(parameters)
        residuals, known = self.mean.residuals(mean, series.values, series.observed)
        start = self.before(mean, series)
        _, variances = self.variance.run(
            variance, residuals, known, start, self.innovations, shapes, horizon=horizon
        )
        return Filtered(residuals, known, variances)

    def log_densities(
        self, parameters: Float[Array, " p"], series: Series
    ) -> Float[Array, " time"]:
        """ln f(x_t | rows before), zero in rows that are not known."""
        residuals, known, variances = self.filtered(parameters, series)
        variances = jnp.maximum(variances[:-1], MIN_VARIANCE)
        units = residuals / jnp.sqrt(variances)
        density = self.innovations.log_density(units, self.split(parameters)[2])
        return jnp.where(known, density - 0.5 * jnp.log(variances), 0.0)

    def series(self, values: Float[Array, " time"], observed: Bool[Array, " time"]) -> Series:
        """Data with the frozen residuals."""
        mean = self.mean.start(values, observed)
        residuals, known = self.mean.residuals(mean, values, observed)
        return Series(jnp.where(observed, values, 0.0), observed, residuals, known)


def maximise(
    how: Specification,
    series: Series,
    starts: Float[Array, "starts p"],
    tolerance: Float[Array, ""],
    max_steps: int,
) -> Minimum:
    """Natural parameters at the maximum of the likelihood, from the best of the (free) starts."""
    found = minimise(row_losses, starts, (how, series), tolerance, max_steps)
    return found._replace(parameters=how.natural(found.parameters, series))


def row_losses(
    free: Float[Array, " p"], arguments: tuple[Specification, Series]
) -> Float[Array, " time"]:
    """Minus the log-densities of the rows."""
    how, series = arguments
    return -how.log_densities(how.natural(free, series), series)
