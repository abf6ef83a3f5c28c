"""Fits that are repeated leave no array, no program and no memory behind."""

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxfc.panel import Panel
from jaxfc.serialisation import load, save
from reliability.fits import FACTORS, REGIMES, frame_of

MEMORY, MAPPINGS = Path("/proc/self/statm"), Path("/proc/self/maps")
PAGE_MIB = 4096 / 2**20
pytestmark = pytest.mark.skipif(not MEMORY.exists(), reason="the system does not say its memory")


def one_fit(model, seed: int, folder: Path | None) -> float:
    """Data, fit, forecast and, where there is a folder, file of one seed."""
    fitted = model.fit(Panel.from_frame(frame_of(seed)), throw=False)
    if folder is not None:
        save(fitted, folder / "model.jaxfc")
        fitted = load(folder / "model.jaxfc")
    return float(jnp.sum(fitted.forecast(2).mean))


def state() -> tuple[int, int, float]:
    """Live arrays, memory mappings (each compiled program has some), resident MiB."""
    gc.collect()
    pages = int(MEMORY.read_text().split()[1])
    return len(jax.live_arrays()), len(MAPPINGS.read_bytes().splitlines()), pages * PAGE_MIB


def growth(model, num_fits: int, folder: Path | None) -> tuple[int, int, float]:
    """How much more there is after `num_fits` more fits."""
    for seed in range(10):
        one_fit(model, seed, folder)
    before = state()
    answers = {one_fit(model, 10 + seed, folder) for seed in range(num_fits)}
    after = state()
    assert len(answers) == num_fits
    arrays, mappings, memory = (now - then for now, then in zip(after, before, strict=True))
    return int(arrays), int(mappings), memory


def test_a_hundred_fits_leave_nothing():
    arrays, mappings, memory = growth(FACTORS, 100, None)
    assert arrays == 0 and mappings < 20 and memory < 16.0


@pytest.mark.slow
@pytest.mark.parametrize("model", [FACTORS, REGIMES], ids=["factors", "regimes"])
def test_a_thousand_fits_leave_nothing(model, tmp_path):
    arrays, mappings, memory = growth(model, 1000, tmp_path)
    print(f"{arrays} arrays, {mappings} mappings, {memory:.1f} MiB more")
    assert arrays == 0 and mappings < 20 and memory < 16.0
