"""Kernels of jaxfc: arrays and masks only; jax and numpy, nothing of jaxfc."""
