"""Long-run covariance by kernels with automatic bandwidth and prewhitening (Andrews 1991;
Andrews and Monahan 1992)."""

from typing import Literal

import jax.numpy as jnp

from jaxfc.typing import Array, Float

Kernel = Literal["parzen", "quadratic_spectral"]
KERNELS = ("parzen", "quadratic_spectral")


def kernel_weights(lags: Float[Array, " lags"], kernel: Kernel) -> Float[Array, " lags"]:
    """k(x) of the Parzen or the quadratic spectral kernel at x = lag / bandwidth >= 0.

    **Raises:** `ValueError` for another kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}.")
    if kernel == "parzen":
        near = 1.0 - 6.0 * lags**2 * (1.0 - lags)
        return jnp.where(lags <= 0.5, near, 2.0 * jnp.maximum(1.0 - lags, 0.0) ** 3)
    angle = 1.2 * jnp.pi * lags
    # Near zero the difference of sine and cosine cancels: its series there, 1 - angle^2 / 10.
    small = angle < 1e-2
    safe = jnp.where(small, 1.0, angle)
    wave = 3.0 / safe**2 * (jnp.sin(safe) / safe - jnp.cos(safe))
    return jnp.where(small, 1.0 - angle**2 / 10.0 + angle**4 / 280.0, wave)


def andrews_bandwidth(series: Float[Array, "cases columns"], kernel: Kernel) -> Float[Array, ""]:
    """The bandwidth that suits first-order autoregressions of the columns.

        S = c (alpha n)^{1/5},  alpha = sum 4 rho^2 s^4 / (1 - rho)^8 / sum s^4 / (1 - rho)^4

    with c = 2.6614 (Parzen), 1.3221 (quadratic spectral), columns weighted alike (Andrews 1991,
    equations 6.2 and 6.4). rho is kept within +-0.97, so that the bandwidth is finite.
    """
    before, after = series[:-1], series[1:]
    power = jnp.sum(before**2, axis=0)
    rho = jnp.sum(before * after, axis=0) / jnp.where(power > 0.0, power, 1.0)
    rho = jnp.clip(rho, -0.97, 0.97)
    variance = jnp.mean((after - rho * before) ** 2, axis=0)
    top = jnp.sum(4.0 * rho**2 * variance**2 / (1.0 - rho) ** 8)
    bottom = jnp.sum(variance**2 / (1.0 - rho) ** 4)
    alpha = top / jnp.where(bottom > 0.0, bottom, 1.0)
    constant = 2.6614 if kernel == "parzen" else 1.3221
    return constant * (alpha * series.shape[0]) ** 0.2


def kernel_cov(
    series: Float[Array, "cases columns"],
    kernel: Kernel = "quadratic_spectral",
    *,
    bandwidth: Float[Array, ""] | float | None = None,
) -> Float[Array, "columns columns"]:
    """sum_j k(j / S) Gamma_j of series of mean zero, Gamma_j = (1/n) sum_t y_t y_{t-j}'.

    The bandwidth S is that of `andrews_bandwidth` where none is given. All lags enter with their
    weights, so that S may be traced; as one convolution that costs n log n.
    """
    num_cases = series.shape[0]
    width = andrews_bandwidth(series, kernel) if bandwidth is None else jnp.asarray(bandwidth)
    # Bandwidth 0 (no dependence at all) keeps lag 0 only.
    lags = jnp.arange(num_cases, dtype=series.dtype) / jnp.maximum(width, 1e-6)
    weights = kernel_weights(lags, kernel)
    # The Toeplitz matrix of the weights times the series, in a circle of twice the length.
    circle = jnp.concatenate([weights, jnp.zeros(1, series.dtype), weights[:0:-1]])
    spectrum = jnp.fft.rfft(circle)[:, None] * jnp.fft.rfft(series, 2 * num_cases, axis=0)
    smoothed = jnp.fft.irfft(spectrum, 2 * num_cases, axis=0)[:num_cases]
    cov = series.T @ smoothed / num_cases
    return 0.5 * (cov + cov.T)


def prewhitened_cov(
    series: Float[Array, "cases columns"], kernel: Kernel = "quadratic_spectral"
) -> Float[Array, "columns columns"]:
    """`kernel_cov` of the errors of a first-order vector autoregression, coloured again.

        (I - A)^{-1} Sigma_e (I - A)^{-T}

    with A by least squares and its singular values cut at 0.97, so that the inverse exists (Andrews
    and Monahan 1992). A column of zeros has covariance zero.
    """
    before, after = series[:-1], series[1:]
    power = before.T @ before
    scale = jnp.sqrt(jnp.where(jnp.diagonal(power) > 0.0, jnp.diagonal(power), 1.0))
    # Equal or empty columns leave the products singular: the shortest solution serves.
    inverse = jnp.linalg.pinv(power / scale / scale[:, None], hermitian=True)
    coefficients = (inverse @ (before.T @ after / scale[:, None])) / scale[:, None]
    outer, sizes, inner = jnp.linalg.svd(coefficients.T)
    slope = (outer * jnp.minimum(sizes, 0.97)) @ inner
    errors = after - before @ slope.T
    whitener = jnp.eye(series.shape[1], dtype=series.dtype) - slope
    half = jnp.linalg.solve(whitener, kernel_cov(errors, kernel))
    return jnp.linalg.solve(whitener, half.T)
