"""The command `jaxfc doctor`: what is installed, on what it computes, and what is missing."""

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import typer

from jaxfc.cli_output import Json, Output, Quiet

REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?([^;]*)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")


def doctor(quiet: Quiet = False, as_json: Json = False) -> None:
    """Versions, devices, precision, compilation cache, and extras that are missing.

    Exit code 1 if a package that jaxfc needs is missing, or a small computation fails.

    **Example:** `jaxfc doctor`
    """
    from rich.table import Table

    output = Output(quiet, as_json)
    found = examine()
    output.answer(found)
    facts = Table(show_header=False)
    for name in ("python", "system", "precision", "library_precision", "computation"):
        facts.add_row(name.replace("_", " "), str(found[name]))
    facts.add_row("devices", ", ".join(found["devices"]))
    facts.add_row("compiled programs", cache_words(found["cache"]))
    packages = Table("package", "wanted", "version")
    for name, package in found["packages"].items():
        packages.add_row(name, package["wanted"], package["version"] or "missing")
    extras = Table("extra", "state", "to install")
    for name, extra in found["extras"].items():
        missing = ", ".join(extra["missing"])
        state = f"missing: {missing}" if missing else "complete"
        extras.add_row(name, state, extra["install"].replace("[", r"\[") if missing else "")
    output.say(facts, packages, extras, *found["advice"])
    if not found["is_well"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Everything, as JSON values."""
    import jax
    import jax.numpy as jnp

    packages, extras = requirements()
    missing = [name for name, package in packages.items() if package["version"] is None]
    computation = small_computation()
    cache_folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    devices = [f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()]
    advice = [
        f"Missing: {name}; pip install '{name}{packages[name]['wanted']}'" for name in missing
    ]
    if shutil.which("nvidia-smi") and all(device.platform == "cpu" for device in jax.devices()):
        advice.append(
            "There is an NVIDIA driver and JAX sees no GPU: pip install 'jax[cuda12]' (see the "
            "installation page of JAX)."
        )
    return {
        "is_well": not missing and computation == "well",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, "
        f"{os.cpu_count()} cores",
        "precision": f"{jnp.result_type(float)} (every command)",
        "library_precision": "float32 (import jaxfc), unless jax_enable_x64 is set",
        "computation": computation,
        "devices": devices,
        "cache": cache_facts(cache_folder),
        "packages": packages,
        "extras": extras,
        "advice": advice,
    }


def requirements() -> tuple[dict[str, Any], dict[str, Any]]:
    """Packages that are needed, and extras with what they lack."""
    packages: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    for text in importlib.metadata.requires("jaxfc") or []:
        match = REQUIREMENT.match(text)
        assert match is not None
        name, wanted, extra = match[1], match[2].strip(), match[3]
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if extra is None:
            packages[name] = {"wanted": wanted, "version": found}
            continue
        entry = extras.setdefault(
            extra, {"packages": {}, "missing": [], "install": f"pip install 'jaxfc[{extra}]'"}
        )
        entry["packages"][name] = {"wanted": wanted, "version": found}
        if found is None:
            entry["missing"].append(name)
    return packages, extras


def small_computation() -> str:
    """A compiled factorisation and its gradient on the first device: "well", or what went wrong."""
    import jax
    import jax.numpy as jnp

    def log_det(scale: jax.Array) -> jax.Array:
        chol = jnp.linalg.cholesky(scale * jnp.eye(3) + 1.0)
        return 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))

    try:
        slope = float(jax.jit(jax.grad(log_det))(jnp.asarray(2.0)))
    except Exception as error:  # whatever a broken installation raises is the finding
        return f"failed: {type(error).__name__}: {error}"
    # det(s I + 11') = s^3 + 3 s^2, whose logarithm has the slope (3 s + 6) / (s (s + 3)).
    return "well" if abs(slope - 1.2) < 1e-5 else f"wrong: a slope is {slope}, should be 1.2"


def cache_facts(folder: str | None) -> dict[str, Any]:
    """Where compiled programs are kept, how many, how large."""
    sizes = []
    if folder is not None and Path(folder).is_dir():
        for path in Path(folder).glob("*-cache"):
            try:
                sizes.append(path.stat().st_size)
            except OSError:  # another process has just removed it
                continue
    return {"folder": folder, "num_programs": len(sizes), "mib": round(sum(sizes) / 2**20, 1)}


def cache_words(facts: dict[str, Any]) -> str:
    """The same in words."""
    if facts["folder"] is None:
        return "not kept"
    return f"{facts['num_programs']}, {facts['mib']} MiB in {facts['folder']}; may be removed"
