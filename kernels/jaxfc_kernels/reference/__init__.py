"""Plain-loop or dense references of the kernels: slow, obvious, for tests."""
