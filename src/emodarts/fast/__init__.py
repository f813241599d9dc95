"""Everything that exists for speed: other implementations of the cells of ``space.cell``.

All have the modules, parameters and buffers of a plain cell and compute the same function; only
the order of sums differs. What they do not know, they compute as a plain cell does.

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

    from emodarts.space.cell import Cell

Implementation = Literal["plain", "torch", "compiled"]

#: Of every implementation the classes of CNN cells and of SeqNN cells, loaded when asked for:
#: numba takes long to import.
CELLS: dict[Implementation, tuple[str, str]] = {
    "plain": ("emodarts.space.cell:Cell", "emodarts.space.cell:Cell"),
    "torch": ("emodarts.fast.torch_cells:TorchCNNCell", "emodarts.fast.torch_cells:TorchSeqNNCell"),
    "compiled": (
        "emodarts.fast.compiled_cnn:CompiledCNNCell",
        "emodarts.fast.compiled_seqnn:CompiledSeqNNCell",
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


def cell_classes(implementation: Implementation) -> tuple[type[Cell], type[Cell]]:
    """Classes of CNN cells and of SeqNN cells."""
    cnn, seqnn = CELLS[implementation]
    return _load(cnn), _load(seqnn)


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
