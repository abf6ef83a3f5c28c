"""Programs whose posterior is known: in closed form, or by quadrature on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxfc.bayes.program import Program

# Rubin (1981): estimated effects of coaching in eight schools and their standard errors.
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


class CorrelatedNormal(Program):
    """x ~ N(mean, cov): a flat prior is as good as N(0, 1e12), which the moments do not feel."""

    mean: jax.Array
    cov: jax.Array

    def priors(self):
        return {"x": lambda _: dist.Normal(jnp.zeros_like(self.mean), 1e6).to_event(1)}

    def log_likelihood(self, parameters):
        return dist.MultivariateNormal(self.mean, self.cov).log_prob(parameters["x"])

    def start(self):
        return {"x": jnp.zeros_like(self.mean)}

    def simulated(self, parameters, *, key):
        return self


class Regression(Program):
    """y = X b + e, e ~ N(0, sd²), b ~ N(0, prior_sd² I): the posterior of b is normal."""

    design: jax.Array
    values: jax.Array
    sd: float = 0.7
    prior_sd: float = 2.0

    def priors(self):
        return {"b": lambda _: dist.Normal(jnp.zeros(self.design.shape[1]), self.prior_sd)}

    def log_likelihood(self, parameters):
        return jnp.sum(dist.Normal(self.design @ parameters["b"], self.sd).log_prob(self.values))

    def start(self):
        return {"b": jnp.zeros(self.design.shape[1])}

    def simulated(self, parameters, *, key):
        noise = self.sd * jax.random.normal(key, self.values.shape)
        return Regression(self.design, self.design @ parameters["b"] + noise)

    def posterior(self):
        """Mean and covariance, and the log of the probability of the data."""
        design, values = np.asarray(self.design), np.asarray(self.values)
        precision = design.T @ design / self.sd**2 + np.eye(design.shape[1]) / self.prior_sd**2
        cov = np.linalg.inv(precision)
        return cov @ design.T @ values / self.sd**2, cov


class EightSchools(Program):
    """y_j ~ N(mu + tau z_j, s_j²), z ~ N(0, 1), mu ~ N(0, 5²), tau ~ half-Cauchy(5)."""

    effects: jax.Array
    errors: jax.Array

    def priors(self):
        return {
            "mu": lambda _: dist.Normal(0.0, 5.0),
            "tau": lambda _: dist.HalfCauchy(5.0),
            "z": lambda _: dist.Normal(jnp.zeros_like(self.effects), 1.0),
        }

    def log_likelihood(self, parameters):
        means = parameters["mu"] + parameters["tau"] * parameters["z"]
        return jnp.sum(dist.Normal(means, self.errors).log_prob(self.effects))

    def start(self):
        zero = 0.0 * self.effects
        return {"mu": jnp.mean(self.effects), "tau": jnp.std(self.effects), "z": zero}

    def simulated(self, parameters, *, key):
        means = parameters["mu"] + parameters["tau"] * parameters["z"]
        noise = self.errors * jax.random.normal(key, self.effects.shape)
        return EightSchools(means + noise, self.errors)

    def identified(self, parameters):
        effects = parameters["mu"] + parameters["tau"] * parameters["z"]
        return {"mu": parameters["mu"], "tau": parameters["tau"], "effects": effects}


def regression(seed: int = 0, num_rows: int = 30, num_columns: int = 4) -> Regression:
    random = np.random.default_rng(seed)
    design = random.normal(size=(num_rows, num_columns))
    truth = np.linspace(-1, 1, num_columns)
    return Regression(
        jnp.asarray(design), jnp.asarray(design @ truth + 0.7 * random.normal(size=num_rows))
    )


def eight_schools() -> EightSchools:
    return EightSchools(jnp.asarray(EFFECTS), jnp.asarray(ERRORS))


def eight_schools_moments() -> dict[str, tuple[float, float]]:
    """Posterior mean and sd of mu and tau and mean of the effects: z and mu integrated out exactly,
    tau on a grid of its distribution function's own scale, 20,000 points."""
    angle = (np.arange(20_000) + 0.5) / 20_000 * np.pi / 2
    tau = 5 * np.tan(angle)  # uniform in the distribution function of the half-Cauchy law
    variance = tau[:, None] ** 2 + ERRORS**2
    precision = 1 / 25 + np.sum(1 / variance, 1)
    centre = np.sum(EFFECTS / variance, 1) / precision
    log_weight = (
        -0.5 * np.sum(np.log(variance) + EFFECTS**2 / variance, 1)
        - 0.5 * np.log(precision)
        + 0.5 * precision * centre**2
    )
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()

    def moments(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
        total = weight @ mean
        return float(total), float(np.sqrt(weight @ (variance + mean**2) - total**2))

    shrink = tau[:, None] ** 2 / variance
    first = shrink[:, 0] * EFFECTS[0] + (1 - shrink[:, 0]) * centre
    spread = shrink[:, 0] * ERRORS[0] ** 2 + (1 - shrink[:, 0]) ** 2 / precision
    return {
        "mu": moments(centre, 1 / precision),
        "tau": moments(tau, np.zeros_like(tau)),
        "first": moments(first, spread),
    }
