"""Device, threads and seeds: what makes a computation repeatable."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from emodarts.errors import RecipeError
from emodarts.recipe import ComputeSpec

_PACKAGES = ("emodarts", "torch", "numpy", "scipy", "scikit-learn", "soundfile", "soxr")

#: Of ``mallopt`` (malloc.h); 2**25 bytes is the highest threshold that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def configure(spec: ComputeSpec) -> torch.device:
    """Set the thread count and deterministic algorithms; return the device.

    Raises
    ------
    RecipeError
        If the device that is asked for is not there.
    """
    device = resolve_device(spec.device)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    if device.type == "cpu" and spec.fast:
        keep_freed_memory()
    if device.type == "cuda":
        # Read by cuBLAS when it starts, which is later than this.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: a step would else page the same maps in again and again."""
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for parameter, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25)):
        library.mallopt(parameter, value)


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
        legal = ", ".join(["auto", *(key for key, there in available.items() if there)])
        raise RecipeError(f"device {name!r} is not available here; legal: {legal}")
    return torch.device(name)


def derive_seed(*parts: int | str) -> int:
    """One seed for each place in the computation, e.g. ``(seed, fold, "search", epoch)``.

    A run that is killed and resumed at an epoch thus draws what it would have drawn.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and thread count, for ``environment.json``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: metadata.version(package) for package in _PACKAGES},
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
