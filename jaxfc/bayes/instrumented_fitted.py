"""An estimated instrumented PCA: its factors and loadings on any data, and its forecasts."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares, Coefficients, factors_of_rows
from jaxfc.bayes.instrumented_dynamics import FactorLaw
from jaxfc.bayes.instrumented_portfolios import RSquared, einsum, explained, managed_portfolios
from jaxfc.bayes.instrumented_rows import InstrumentedRows, Instruments
from jaxfc.counts import check_counts
from jaxfc.forecast import FactorForecast
from jaxfc.model import Fitted
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    import pandas as pd


class FittedInstrumentedPCA(Fitted):
    """Gamma, the law of the factors, and where the data end.

    `coefficients` hold Gamma (characteristics, factors) and the columns of given factors, the
    intercept's last; `law` is that of (f_t, g_t). `state_mean` and `state_cov` are theirs in the
    last row (the factors themselves and zero, if the row tells them), `latest` the characteristics
    that load the next row, `idiosyncratic_cov` the variances of the errors. `explained` are shares
    of squares in the sample about zero, `path` the move of each step.
    """

    instruments: Instruments
    method: AlternatingLeastSquares
    coefficients: Coefficients
    law: FactorLaw
    state_mean: Float[Array, " factors"]
    state_cov: Float[Array, "factors factors"]
    latest: Float[Array, "series characteristics"]
    idiosyncratic_cov: Float[Array, " series"]
    explained: RSquared
    path: Float[Array, " steps"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def gamma(self) -> Float[Array, "characteristics latent"]:
        """Gamma: loadings are z' Gamma."""
        return self.coefficients.gamma

    @property
    def factor_gamma(self) -> Float[Array, "characteristics factors"]:
        """Gamma with the columns of the given factors, without the intercept's."""
        return jnp.concatenate([self.gamma, self.coefficients.given], axis=1)[:, : self.law_size]

    @property
    def law_size(self) -> int:
        return self.method.num_factors + len(self.instruments.given)

    @property
    def intercept(self) -> Float[Array, " characteristics"]:
        """Gamma_a: an asset's alpha is z' Gamma_a; zero without intercept."""
        given = self.coefficients.given
        if self.method.intercept:
            return given[:, -1]
        return jnp.zeros_like(given, shape=(len(given),))

    @property
    def next_loadings(self) -> Float[Array, "series factors"]:
        """The loadings of the next row on latent and given factors, by the latest complete
        characteristics of each asset."""
        return self.latest @ self.factor_gamma

    def factors(
        self, values: Float[Array, "time columns"], observed: Bool[Array, "time columns"]
    ) -> Float[Array, "time latent"]:
        """f_t of every row of these data by this Gamma; NaN where too few cells tell it.

        Row t uses returns of row t alone: with data after the estimation these are the factors of
        an out-of-sample total R^2.
        """
        rows = self.instruments.read(values, observed)
        path, known = factor_path(self.method, self.coefficients, rows)
        latent = jnp.where(known[:, None], path, jnp.nan)[:, : self.method.num_factors]
        return jnp.concatenate([jnp.full_like(latent[:1], jnp.nan), latent])

    def loadings(
        self, values: Float[Array, "time columns"], observed: Bool[Array, "time columns"]
    ) -> Float[Array, "time series factors"]:
        """z_it' Gamma of every row: those of row t are by the characteristics of row t - 1, so NaN
        in the first row and where a characteristic is missing."""
        rows = self.instruments.read(values, observed)
        found = rows.characteristics @ self.factor_gamma
        found = jnp.where(rows.complete[:, :, None], found, jnp.nan)
        return jnp.concatenate([jnp.full_like(found[:1], jnp.nan), found])

    def r_squared(
        self,
        values: Float[Array, "time columns"],
        observed: Bool[Array, "time columns"],
        about: str = "zero",
    ) -> RSquared:
        """Shares of squares explained on these data by this Gamma and this law of the factors: out
        of sample, if the data are later than those of the estimation. `about`: see
        `jaxfc.bayes.r_squared`."""
        rows = self.instruments.read(values, observed)
        return explained_by(self.method, self.coefficients, self.law, rows, about)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> FactorForecast:
        """The Gaussian law of the assets' next `horizon` returns, given Gamma and the factors' law.

            r_{T+h} = B phi_{T+h} + Z Gamma_a + e_{T+h},    B = Z (Gamma, Gamma_g)

        Z are the latest characteristics, known for the next row; later rows keep them, as no law of
        characteristics is estimated. An asset whose characteristics are missing in the last row
        keeps its last complete ones. Uncertainty of Gamma and of the factors' law is left out.

        **Raises:** `ValueError` for a horizon below 1 and for a key, which nothing draws with.
        """
        check_counts(horizon=horizon)
        if key is not None:
            raise ValueError(
                "the forecast is exact and takes no key; draw with .sample(n, key=...)."
            )
        return self.law_ahead(horizon)

    # Under `jit`, as a loop by itself is compiled anew at every call.
    @eqx.filter_jit
    def law_ahead(self, horizon: int) -> FactorForecast:
        """What `forecast` answers."""
        means, cov = self.law.ahead(self.state_mean, self.state_cov, horizon)
        loadings = self.next_loadings
        return FactorForecast(
            mean=means @ loadings.T + self.latest @ self.intercept,
            loadings=loadings,
            factor_cov=cov,
            idiosyncratic_cov=self.idiosyncratic_cov,
            mixing=jnp.eye(horizon, dtype=means.dtype),
        )

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time assets"]:
        """A path of returns under the latest characteristics, the factors from their sample law
        on."""
        check_counts(num_steps=num_steps)
        factor_key, noise_key = jax.random.split(key)
        path = self.law.simulate(num_steps, key=factor_key)
        shape = num_steps, len(self.idiosyncratic_cov)
        noise = jax.random.normal(noise_key, shape, path.dtype) * jnp.sqrt(self.idiosyncratic_cov)
        return path @ self.next_loadings.T + self.latest @ self.intercept + noise

    def given(
        self,
        values: Float[Array, "time columns"],
        observed: Bool[Array, "time columns"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedInstrumentedPCA":
        refuse_sums(aggregation, "InstrumentedPCA")
        rows = self.instruments.read(values, observed)
        path, known = factor_path(self.method, self.coefficients, rows)
        _, mean, cov = self.law.filtered(path, known)
        errors, cells = errors_of_rows(self.method, self.coefficients, rows)
        loglik = gaussian_loglik(errors, cells, self.idiosyncratic_cov)
        return dataclasses.replace(
            self, state_mean=mean, state_cov=cov, latest=rows.latest, loglik=loglik
        )

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.instruments.assets(names)

    def details(self) -> dict[str, Array]:
        return {
            "total_r_squared": self.explained.total,
            "predictive_r_squared": self.explained.predictive,
        }

    def to_frame(self) -> "pd.DataFrame":
        """Gamma by characteristic: latent factors, given ones, and the intercept (host side)."""
        import pandas as pd

        latent = [f"factor {k + 1}" for k in range(self.method.num_factors)]
        columns = [*latent, *self.instruments.given]
        table = jax.device_get(self.factor_gamma)
        frame = pd.DataFrame(table, list(self.instruments.names), columns)
        if self.method.intercept:
            frame["intercept"] = jax.device_get(self.intercept)
        return frame


def factor_path(
    method: AlternatingLeastSquares, coefficients: Coefficients, rows: InstrumentedRows
) -> tuple[Float[Array, "time factors"], Bool[Array, " time"]]:
    """(f_t, g_t) by these coefficients, and the rows that tell them."""
    portfolios = managed_portfolios(rows.returns, rows.characteristics, rows.usable)
    counted = method.rows(portfolios, rows.given, rows.given_observed)
    factors = factors_of_rows(coefficients, counted)
    given = counted.given[:, : rows.given.shape[1]]
    return jnp.concatenate([factors, given], axis=1), counted.used


def earned(
    method: AlternatingLeastSquares,
    coefficients: Coefficients,
    path: Float[Array, "time factors"],
) -> Float[Array, "time characteristics"]:
    """c_t = Gamma f_t + Gamma_g g_t + Gamma_a of a path of (f_t, g_t)."""
    latent, given = path[:, : method.num_factors], path[:, method.num_factors :]
    if method.intercept:
        given = jnp.concatenate([given, jnp.ones_like(path, shape=(len(path), 1))], axis=1)
    return coefficients.of_rows(latent, given)


def explained_by(
    method: AlternatingLeastSquares,
    coefficients: Coefficients,
    law: FactorLaw,
    rows: InstrumentedRows,
    about: str,
) -> RSquared:
    """Shares of squares of the rows that tell their factors."""
    path, known = factor_path(method, coefficients, rows)
    expected, _, _ = law.filtered(path, known)
    return explained(
        rows.returns,
        rows.characteristics,
        rows.usable & known[:, None],
        earned(method, coefficients, path),
        earned(method, coefficients, expected),
        about,
    )


def errors_of_rows(
    method: AlternatingLeastSquares, coefficients: Coefficients, rows: InstrumentedRows
) -> tuple[Float[Array, "time series"], Bool[Array, "time series"]]:
    """r_it - z_it' c_t, and the cells that have one; zero in the others."""
    path, known = factor_path(method, coefficients, rows)
    fitted = einsum("tnl,tl->tn", rows.characteristics, earned(method, coefficients, path))
    cells = rows.usable & known[:, None]
    return jnp.where(cells, rows.returns - fitted, 0.0), cells


def gaussian_loglik(
    errors: Float[Array, "time series"],
    cells: Bool[Array, "time series"],
    variances: Float[Array, " series"],
) -> Float[Array, ""]:
    """The log density of the errors given the factors."""
    terms = jnp.log(2.0 * jnp.pi * variances) + errors**2 / variances
    return -0.5 * jnp.sum(jnp.where(cells, terms, 0.0))
