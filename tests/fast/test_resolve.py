"""Which implementation is chosen, and what is set before a run."""

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from emodarts import fast
from emodarts.fast import IMPLEMENTATIONS, classes_of, keep_freed_memory, resolve
from emodarts.space.cell import Cell
from emodarts.space.sequence_ops import Recurrent

CPU = torch.device("cpu")

#: Another process, as whether numba can be imported is found out once in each.
WITHOUT_NUMBA = """
import sys, warnings
sys.modules["numba"] = None
import torch
from emodarts.fast import resolve
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    print([resolve(fast, torch.device("cpu")) for fast in (True, True, False)])
print(len(seen), seen[0].message)
"""


def test_compiled_on_a_cpu() -> None:
    pytest.importorskip("numba")
    assert resolve(True, CPU) == "compiled"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_torch_on_other_devices(device: str) -> None:
    assert resolve(True, torch.device(device)) == "torch"


def test_torch_for_bfloat16() -> None:
    assert resolve(True, CPU, "bf16") == "torch"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plain_where_nothing_is_to_be_fast(device: str, precision: str) -> None:
    assert resolve(False, torch.device(device), precision) == "plain"


def test_torch_with_one_warning_where_numba_cannot_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True, check=True
    )
    chosen, warned = done.stdout.splitlines()
    assert chosen == "['torch', 'torch', 'plain']"
    assert warned.startswith("1 numba cannot be imported, so")


def test_networks_without_compiled_cells_import_no_numba() -> None:
    script = (
        "import sys, emodarts.systems.discrete, emodarts.searching.supernet\n"
        "from emodarts.fast import classes_of\n"
        "classes_of('plain'), classes_of('torch')\n"
        "sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_has_cells_and_recurrent_layers(
    implementation: fast.Implementation,
) -> None:
    if implementation == "compiled":
        pytest.importorskip("numba")
    classes = classes_of(implementation)
    assert issubclass(classes.cnn_cell, Cell)
    assert issubclass(classes.sequence_cell, Cell)
    assert issubclass(classes.recurrent, Recurrent)


def test_freed_memory_is_a_matter_of_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            opened.append(name)

        def mallopt(self, parameter: int, value: int) -> int:
            set_values[parameter] = value
            return 1

    opened: list[Any] = []
    set_values: dict[int, int] = {}
    monkeypatch.setattr(fast.ctypes, "CDLL", Library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()
    assert not opened
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    keep_freed_memory()
    assert set_values == {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX
