"""How the cells of a supernet are computed, and what is set before a run."""

import importlib.util
import platform
from typing import Any

import pytest
import torch

from emodarts import runtime
from emodarts.errors import RecipeError
from emodarts.recipe import ComputeSpec
from emodarts.runtime import Fast, configure, describe_environment, keep_freed_memory, resolve_fast

CPU = torch.device("cpu")
LEGAL = "legal: true, eager, false"
find_spec = importlib.util.find_spec


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find_spec(name)
    )


@pytest.fixture
def with_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: find_spec("json"))


def test_the_version_of_what_compiles_is_recorded_where_it_is() -> None:
    assert "numba" in describe_environment(CPU)["packages"]


@pytest.mark.usefixtures("without_numba")
def test_no_version_is_recorded_of_what_is_not_there() -> None:
    assert "numba" not in describe_environment(CPU)["packages"]


def test_a_numba_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"{name} needs NumPy 2.4 or less")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(RecipeError, match=r"numba needs NumPy 2\.4 or less.*legal.*eager, false"):
        resolve_fast(True, CPU)
    assert resolve_fast("eager", CPU) == "eager"
    assert resolve_fast(False, CPU) is False


@pytest.mark.usefixtures("with_numba")
def test_fast_is_compiled_on_a_cpu_with_numba() -> None:
    assert resolve_fast(True, CPU) == "compiled"
    assert resolve_fast("compiled", CPU) == "compiled"


@pytest.mark.usefixtures("with_numba")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_fast_is_eager_on_other_devices(device: str) -> None:
    assert resolve_fast(True, torch.device(device)) == "eager"


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fast_is_eager_without_numba(device: str) -> None:
    assert resolve_fast(True, torch.device(device)) == "eager"


@pytest.mark.parametrize("asked", ["eager", False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_asked_for_stays(asked: Fast, device: str) -> None:
    assert resolve_fast(asked, torch.device(device)) == asked


@pytest.mark.usefixtures("without_numba")
def test_compiled_without_numba_is_refused_with_what_to_install() -> None:
    expected = r"compute\.fast: .*numba, which is not installed; install emodarts\[fast\]; " + LEGAL
    with pytest.raises(RecipeError, match=expected):
        resolve_fast("compiled", CPU)
    with pytest.raises(RecipeError, match=expected):
        configure(ComputeSpec(device="cpu", fast="compiled"))


@pytest.mark.usefixtures("with_numba")
def test_compiled_on_a_gpu_is_refused_with_its_name() -> None:
    with pytest.raises(RecipeError, match=rf"compute\.fast: .*the device is cuda; {LEGAL}"):
        resolve_fast("compiled", torch.device("cuda"))


@pytest.mark.parametrize(("fast", "times"), [(True, 1), ("eager", 1), (False, 0)])
def test_freed_memory_is_kept_for_fast_cells_only(
    fast: Fast, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: calls.append(None))
    assert configure(ComputeSpec(device="cpu", fast=fast)) == CPU
    assert len(calls) == times


def test_freed_memory_is_a_matter_of_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            opened.append(name)

        def mallopt(self, parameter: int, value: int) -> int:
            set_values[parameter] = value
            return 1

    opened: list[Any] = []
    set_values: dict[int, int] = {}
    monkeypatch.setattr(runtime.ctypes, "CDLL", Library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()
    assert not opened
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    keep_freed_memory()
    assert set_values == {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX
