"""Device, threads and seeds: what makes a computation repeatable."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emodarts.errors import RecipeError
from emodarts.recipe import ComputeSpec
from emodarts.recipe.search import Precision

_PACKAGES = ("emodarts", "torch", "numpy", "scipy", "scikit-learn", "soundfile", "soxr")
#: Recorded where it is installed, as it decides the last bits, too.
_OPTIONAL = "numba"


def configure(spec: ComputeSpec) -> torch.device:
    """Set the thread count and deterministic algorithms; return the device.

    Raises
    ------
    RecipeError
        If the device that is asked for is not there, or has no bfloat16 though that is asked for.
    """
    device = resolve_device(spec.device)
    require_precision(spec.precision, device)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    if device.type == "cuda":
        # Read by cuBLAS when it starts, which is later than this.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device


def resolve_device(name: str) -> torch.device:
    """``auto`` takes cuda, then mps, then cpu. Raises :class:`RecipeError`."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(key for key, there in available.items() if there)
    if not available.get(name, False):
        allowed = ", ".join(["auto", *(key for key, there in available.items() if there)])
        raise RecipeError(f"device {name!r} is not available here; allowed: {allowed}")
    return torch.device(name)


def require_precision(precision: Precision, device: torch.device) -> None:
    """Raise :class:`RecipeError` if the device cannot keep maps in that precision."""
    if precision == "fp32" or device.type == "cpu":
        return
    # On Apple's GPUs torch falls back to float32 with no more than a warning.
    if device.type == "mps" or not torch.cuda.is_bf16_supported():
        raise RecipeError(
            f"compute.precision: no {precision} on this {device.type} device; allowed here: fp32"
        )


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """For a forward pass: with ``bf16`` products and maps are bfloat16, with ``fp32`` nothing is.

    What leaves it goes through :func:`at_least_single` before a loss.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is if it is float32 or float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def derive_seed(*parts: int | str) -> int:
    """One seed for each place in the computation, e.g. ``(seed, fold, "search", epoch)``.

    A run that is killed and resumed at an epoch thus draws what it would have drawn.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and thread count, for ``environment.json``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    packages = {package: metadata.version(package) for package in _PACKAGES}
    if importlib.util.find_spec(_OPTIONAL) is not None:
        packages[_OPTIONAL] = metadata.version(_OPTIONAL)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "device": device.type,
        "hardware": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
