"""Python code in processes of its own: started, killed, looked at."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# Of the test run, so that what is compiled here is found there.
PREAMBLE = f"""
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", {str(TESTS.parent / ".jax_cache")!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
"""


def start_python(
    code: str, *arguments: object, stdin: bool = False, **environment: str
) -> subprocess.Popen[str]:
    """A process that runs `code` with the settings of the test run; the caller reads stdout."""
    places = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(place for place in places if place)
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, *arguments: object, **environment: str) -> str:
    """What `code` prints; it has to end well."""
    process = start_python(code, *arguments, **environment)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stdout


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process in which the CPU counts as so many devices."""
    own = os.environ.get("XLA_FLAGS", "")
    flags = f"{own} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
