"""Linear-Gaussian state spaces: said once, filtered, smoothed, simulated and forecast once."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import GaussianForecast
from jaxfc.state_space_checks import (
    check_coverage,
    check_data,
    check_field,
    vector_length,
)
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.kalman import FilterMoments, kalman_filter, prediction_errors
from jaxfc_kernels.kalman_paths import forecast_moments, simulate, simulation_smoother
from jaxfc_kernels.kalman_smoother import kalman_smoother
from jaxfc_kernels.kalman_system import System, TimeVarying
from jaxfc_kernels.lyapunov import stationary_cov


def as_field(value: object) -> Array | TimeVarying:
    """An array, or the `TimeVarying` of one, from anything array-like."""
    if isinstance(value, TimeVarying):
        return TimeVarying(jnp.asarray(value.values))
    return jnp.asarray(value)


class Filtered(eqx.Module):
    """What is known at each time from the data up to then.

    `predicted_*` given y_0..y_{t-1}, `filtered_*` given y_0..y_t. `prediction_errors` are
    y_t - E[y_t | y_0..y_{t-1}], zero where not observed; "innovation" is kept for the state shock.
    `loglik_terms` are log p(y_t | y_0..y_{t-1}) and sum to `loglik`.
    """

    predicted_means: Float[Array, "time states"]
    predicted_covs: Float[Array, "time states states"]
    filtered_means: Float[Array, "time states"]
    filtered_covs: Float[Array, "time states states"]
    prediction_errors: Float[Array, "time series"]
    loglik_terms: Float[Array, " time"]
    loglik: Float[Array, ""]


class Posterior(eqx.Module):
    """The fields of `Filtered`, and the moments of the states given all data.

    `smoothed_cross_covs` are centred and have one row less than there are times: row t is
    Cov[x_{t+1}, x_t | y]. "Innovation" means the state shock only; the filter's surprises are
    `prediction_errors`.
    """

    predicted_means: Float[Array, "time states"]
    predicted_covs: Float[Array, "time states states"]
    filtered_means: Float[Array, "time states"]
    filtered_covs: Float[Array, "time states states"]
    smoothed_means: Float[Array, "time states"]
    smoothed_covs: Float[Array, "time states states"]
    smoothed_cross_covs: Float[Array, "time-1 states states"]
    prediction_errors: Float[Array, "time series"]
    loglik_terms: Float[Array, " time"]
    loglik: Float[Array, ""]


class StateSpace(eqx.Module):
    """A linear-Gaussian state space.

        x_0 ~ N(initial_mean, initial_cov)
        x_{t+1} = offset_t + transition_t x_t + eta_t,        eta_t ~ N(0, innovation_cov_t)
        y_t = observation_offset_t + design_t x_t + eps_t,    eps_t ~ N(0, observation_cov_t)

    **Time convention:** x_0 is the state of the first row of data, before that row is seen; entry t
    of `transition`, `offset` and `innovation_cov` leads from row t to row t + 1.

    **Arguments:** `initial_mean` (states,); `initial_cov`, `transition`, `innovation_cov` (states,
    states); `offset` (states,); `design` (series, states); `observation_offset` (series,);
    `observation_cov` (series, series), or (series,) if diagonal. Each of the last six may be
    `TimeVarying(values)`, whose leading axis is time; time variation is never guessed from a shape.
    A time axis must cover the rows that a verb is asked about, and may be longer: row t of the data
    uses entry t. Covariances may be singular as long as each row's prediction error covariance is
    not.

    **`values`, `observed`** (time, series) in every verb: what stands in `values` where not
    `observed` is never read; `observed=None` states that every cell is observed.

    **`implementation`** of the measurement update: "joint" (any `observation_cov`; series^3 / 3
    flops per row), "univariate" (`observation_cov` given as (series,), zeros allowed; series steps
    of states^2 per row) or "collapsed" (`observation_cov` positive definite; series states^2 +
    states^3 per row if it is given as (series,), or if it is constant and `observed=None`; else as
    "joint"). All give the same law; nothing is chosen silently.

    **Raises:** `ValueError` for a shape or dtype that does not fit, naming the field.
    """

    initial_mean: Array = eqx.field(converter=jnp.asarray)
    initial_cov: Array = eqx.field(converter=jnp.asarray)
    transition: Array | TimeVarying = eqx.field(converter=as_field)
    offset: Array | TimeVarying = eqx.field(converter=as_field)
    innovation_cov: Array | TimeVarying = eqx.field(converter=as_field)
    design: Array | TimeVarying = eqx.field(converter=as_field)
    observation_offset: Array | TimeVarying = eqx.field(converter=as_field)
    observation_cov: Array | TimeVarying = eqx.field(converter=as_field)

    def __check_init__(self):
        num_states = vector_length("initial_mean", self.initial_mean, "states")
        num_series = vector_length("observation_offset", self.observation_offset, "series")
        square, noise = (num_states, num_states), (num_series, num_series)
        expected: dict[str, tuple[tuple[int, ...], ...]] = {
            "initial_mean": ((num_states,),),
            "initial_cov": (square,),
            "transition": (square,),
            "offset": ((num_states,),),
            "innovation_cov": (square,),
            "design": ((num_series, num_states),),
            "observation_offset": ((num_series,),),
            "observation_cov": (noise, (num_series,)),
        }
        for name, shapes in expected.items():
            check_field(name, getattr(self, name), shapes, self.initial_mean.dtype)

    @property
    def num_states(self) -> int:
        """Length of the state vector."""
        return self.initial_mean.shape[0]

    @property
    def num_series(self) -> int:
        """Number of observed series."""
        return vector_length("observation_offset", self.observation_offset, "series")

    @property
    def system(self) -> System:
        """The arrays as the kernels take them."""
        return System(*(getattr(self, name) for name in System._fields))

    def filter(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"] | None,
        *,
        implementation: str = "joint",
    ) -> Filtered:
        """Moments of each state given the data up to its row, and the log-likelihood.

        **Raises:** `ValueError` if shapes do not fit, a time axis is too short or the
        implementation is unknown or does not apply.

        Source: Durbin and Koopman (2012), sections 4.3, 4.10 and 6.4.
        """
        values, observed = check_data(self.system, values, observed)
        moments = kalman_filter(self.system, values, observed, implementation=implementation)
        return Filtered(**filter_fields(self, values, observed, moments))

    def smooth(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"] | None,
        *,
        implementation: str = "joint",
    ) -> Posterior:
        """Moments of each state, and of neighbouring states, given all data.

        Costs `filter` plus O(states^3) per row; inverts no predicted covariance.

        **Raises:** as `filter`.

        Source: de Jong (1989); Durbin and Koopman (2012), sections 4.4 and 4.7.
        """
        values, observed = check_data(self.system, values, observed)
        moments = kalman_filter(self.system, values, observed, implementation=implementation)
        smoothed = kalman_smoother(self.transition, moments)
        return Posterior(**filter_fields(self, values, observed, moments), **smoothed._asdict())

    def log_prob(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"] | None,
        *,
        implementation: str = "joint",
    ) -> Float[Array, ""]:
        """log p(observed cells), the 2 pi constant included; 0 if nothing is observed.

        **Raises:** as `filter`.
        """
        values, observed = check_data(self.system, values, observed)
        return kalman_filter(self.system, values, observed, implementation=implementation).loglik

    def simulate(
        self, num_steps: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "time states"], Float[Array, "time series"]]:
        """One path of states and values of `num_steps` rows, starting with x_0.

        **Raises:** `ValueError` if `num_steps` < 1 or a time axis is too short.
        """
        check_counts(num_steps=num_steps)
        check_coverage(self.system, num_steps, f"simulating {num_steps} rows")
        states, values = simulate(self.system, num_steps, 1, key=key)
        return states[0], values[0]

    def sample_posterior(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"] | None,
        num_draws: int,
        *,
        key: PRNGKeyArray,
        implementation: str = "joint",
    ) -> Float[Array, "draws time states"]:
        """Joint draws of all states given all data (simulation smoother).

        One filter of matrices serves all draws; each draw adds O(time (series states + states^2)).

        **Raises:** as `filter`; `ValueError` if `num_draws` < 1.

        Source: Durbin and Koopman (2002), algorithm 2.
        """
        check_counts(num_draws=num_draws)
        values, observed = check_data(self.system, values, observed)
        return simulation_smoother(
            self.system, values, observed, num_draws, key=key, implementation=implementation
        )

    def forecast(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"] | None,
        horizon: int,
        *,
        implementation: str = "joint",
    ) -> GaussianForecast:
        """The joint law of the `horizon` rows that follow `values`, given the observed cells.

        With Gamma_{hk} = Cov[x_{T+h}, x_{T+k} | y], Gamma_{h+1,k} = transition Gamma_{hk} for
        k <= h, and cov_{hk} = design Gamma_{hk} design' + 1{h = k} observation_cov: exact across
        horizons. Costs O(horizon^2 (states^3 + series^2 states)).

        Time-varying fields must reach into the future: their time axes need time + horizon entries.

        **Raises:** as `filter`; `ValueError` if `horizon` < 1 or a time axis ends too early.
        """
        check_counts(horizon=horizon)
        num_times = values.shape[0]
        check_coverage(
            self.system, num_times + horizon, f"{num_times} rows of data and a horizon of {horizon}"
        )
        values, observed = check_data(self.system, values, observed)
        moments = kalman_filter(self.system, values, observed, implementation=implementation)
        return GaussianForecast(*forecast_moments(self.system, moments, horizon))


def filter_fields(
    space: StateSpace, values: Array, observed: Array | None, moments: FilterMoments
) -> dict[str, Array]:
    """The fields of `Filtered`."""
    return {
        "predicted_means": moments.predicted_means,
        "predicted_covs": moments.predicted_covs,
        "filtered_means": moments.filtered_means,
        "filtered_covs": moments.filtered_covs,
        "prediction_errors": prediction_errors(space.system, values, observed, moments),
        "loglik_terms": moments.loglik_terms,
        "loglik": moments.loglik,
    }


def stationary_law(
    transition: Float[Array, "states states"],
    offset: Float[Array, " states"],
    innovation_cov: Float[Array, "states states"],
) -> tuple[Float[Array, " states"], Float[Array, "states states"]]:
    """Mean and covariance that x_{t+1} = offset + transition x_t + eta_t leaves unchanged.

    m = offset + transition m, P = transition P transition' + innovation_cov: an `initial_mean` and
    `initial_cov`. P is NaN if the transition is not stable.
    """
    identity = jnp.eye(offset.shape[0], dtype=offset.dtype)
    mean = jnp.linalg.solve(identity - transition, offset)
    return mean, stationary_cov(transition, innovation_cov)
