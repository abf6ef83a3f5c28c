"""Settings of the test run: float64, a compilation cache that outlives it, no windows on screen."""

import gc
import os
from pathlib import Path

# Batched factorisations of LAPACK wait for threads of the pool they run in: with few threads and
# several of them at once nothing moves any more (jaxlib 0.10). NPROC is the number of threads, read
# when XLA is first used, as are the flags: products of matrices on one thread, for two workers, and
# programs compiled in the cheapest way, which is most of the time of a first run: without LLVM's
# optimisations, each in one piece, and without the emitter of fused loops by MLIR (jaxlib 0.10),
# which makes compilation three times as long.
os.environ.setdefault("NPROC", str(max(16, os.cpu_count() or 1)))
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false "
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)

import jax
import matplotlib
import pytest

from seconds import Clock, Marks

REPOSITORY = Path(__file__).resolve().parents[1]

jax.config.update("jax_enable_x64", True)
# A first run keeps only what took some time to compile: to write the tens of thousands of single
# operations costs a third of their compilation. The next run keeps them too. Workers are told.
CACHE = REPOSITORY / ".jax_cache"
first = os.environ.setdefault("JAXFC_FIRST_RUN", str(int(not CACHE.exists())))
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1 if first == "1" else 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
matplotlib.use("Agg")
# Tracing makes many objects and hardly any cycles: the default of 700 looks through them too often.
gc.set_threshold(50_000, 20, 20)

# Each compiled program keeps several memory mappings. Linux allows a process 65530 of them
# (vm.max_map_count), and the compiler crashes when it gets no more.
MAX_MAPPINGS = 15_000
MAPPINGS = Path("/proc/self/maps")


def pytest_addoption(parser):
    parser.addoption("--seconds", type=Path, help="a file to write the seconds of every test to")


def pytest_configure(config):
    config.pluginmanager.register(Marks())
    if config.option.seconds is not None:
        config.pluginmanager.register(Clock(config.option.seconds))


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    if MAPPINGS.exists() and len(MAPPINGS.read_bytes().splitlines()) > MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that the project uses in place and does not ship."""
    named = os.environ.get("JAXFC_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        if named:
            raise FileNotFoundError(f"JAXFC_SHARED_DATA={named} is not a folder.")
        pytest.skip("real data are absent: no ../shared/data, and JAXFC_SHARED_DATA is not set")
    return folder
