"""Everything that exists for speed: other implementations of cells and of recurrent layers.

All have the modules, parameters and buffers of the plain ones in ``space`` and compute the same
function; only the order of sums differs. What they do not know, they compute as those do.

* ``plain``: edge by edge. The reference, and the only one that can be differentiated twice.
* ``torch``: few calls of torch. For GPUs and bfloat16, and where numba cannot be imported.
* ``compiled``: loops that numba compiles, for float32 and float64 on a CPU.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import platform
import warnings
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from emodarts.space.network import Classes

Implementation = Literal["plain", "torch", "compiled"]
_CELL, _RECURRENT = "emodarts.space.cell:Cell", "emodarts.space.sequence_ops:Recurrent"

#: What every implementation makes a network of, as in ``space.network.Classes``; loaded when asked
#: for, as numba takes long to import.
IMPLEMENTATIONS: dict[Implementation, tuple[str, str, str]] = {
    "plain": (_CELL, _CELL, _RECURRENT),
    "torch": (
        "emodarts.fast.torch_cells:TorchCNNCell",
        "emodarts.fast.torch_cells:TorchSeqNNCell",
        _RECURRENT,
    ),
    "compiled": (
        "emodarts.fast.compiled_cnn:CompiledCNNCell",
        "emodarts.fast.compiled_seqnn:CompiledSeqNNCell",
        "emodarts.fast.compiled_recurrent:CompiledRecurrent",
    ),
}

#: Of ``mallopt`` (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def resolve(fast: bool, device: torch.device, precision: str = "fp32") -> Implementation:
    """The implementation for ``compute.fast``: by what is there, never by a timing."""
    if not fast:
        return "plain"
    if device.type != "cpu" or precision != "fp32" or not _numba_starts():
        return "torch"
    return "compiled"


@functools.cache
def _numba_starts() -> bool:
    try:
        importlib.import_module("numba")
    except ImportError as error:  # not installed, or a numpy that is too new for it
        warnings.warn(
            f"numba cannot be imported, so searches and training on a CPU are slower: {error}",
            stacklevel=3,
        )
        return False
    return True


def classes_of(implementation: Implementation) -> Classes:
    """What an implementation makes a network of."""
    from emodarts.space.network import Classes

    return Classes(*map(_load, IMPLEMENTATIONS[implementation]))


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees; a step would else page the same maps in each time.

    The command line does this. It lasts as long as the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for parameter, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_MAX, 0)):
        library.mallopt(parameter, value)
