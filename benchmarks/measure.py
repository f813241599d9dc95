"""What all benchmarks share: timing in turn, peak memory of a fresh process, the JSON they write.

A result is a JSON object with ``benchmark``, ``date``, ``environment`` and ``arguments``; all else
in it is measured. What was measured several times is an object of ``median``, ``least``, ``most``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emodarts import files

if TYPE_CHECKING:  # what only reads or compares results starts without torch
    import torch

#: Keys of a result that say what was measured where, and are no measurements.
DESCRIPTION = ("benchmark", "date", "environment", "arguments")
MIB = 2**20
_PEAK, _NOW = "VmHWM", "VmRSS"

Result = TypeVar("Result")
Spread = dict[str, float]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Command line with what every benchmark takes; :func:`size_of` reads the size."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    size = found.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about a minute, for `make bench`")
    size.add_argument("--small", action="store_true", help="a size for tests; says nothing")
    return found


def size_of(arguments: argparse.Namespace) -> str:
    """``full``, ``quick`` or ``small``."""
    return "quick" if arguments.quick else "small" if arguments.small else "full"


def write(
    benchmark: str,
    arguments: argparse.Namespace,
    measured: Mapping[str, Any],
    device: torch.device,
    packages: Sequence[str] = (),
) -> None:
    """Write a result where ``--json`` says, with machine, versions and date.

    ``packages`` are those that count besides the ones of every run.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    if arguments.json is None:
        return
    from emodarts.runtime import describe_environment

    environment = describe_environment(device)
    environment["packages"] |= {name: metadata.version(name) for name in packages}
    asked = {k: v for k, v in vars(arguments).items() if k != "json"}
    description = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment,
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in asked.items()},
    }
    files.write_text(arguments.json, json.dumps({**description, **measured}, indent=2) + "\n")


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall time of a call, until the device has done what was asked of it."""
    _wait(device)
    begun = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type != "cpu":
        import torch

        torch.get_device_module(device).synchronize()


def in_turn(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: torch.device | None = None
) -> list[dict[str, float]]:
    """Seconds of each way, ``repeats`` rows; each way is called once before.

    The ways take turns, so that what else the machine does meets all of them.
    """
    for way in ways.values():
        way()
    return [{name: seconds(way, device) for name, way in ways.items()} for _ in range(repeats)]


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Spread of each column of what :func:`in_turn` gives."""
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def speedup(rows: Sequence[Mapping[str, float]], slow: str, fast: str) -> Spread:
    """Spread of the ratios of neighbours in time."""
    return spread([row[slow] / row[fast] for row in rows])


def show(value: Spread, digits: int = 2) -> str:
    """Median, and the range in brackets."""
    low, high = value["least"], value["most"]
    return f"{value['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def in_fresh_process(
    function: Callable[..., Result], *arguments: Any, first: Sequence[Any] | None = None
) -> tuple[Result, dict[str, int]]:
    """Call a function of a module where nothing else ran.

    Parameters
    ----------
    first : arguments of a small call before, so that what is loaded on first use is not counted.

    Returns
    -------
    result : what the function returned.
    memory : bytes of the whole process: ``before`` the call, with all modules loaded, and
        ``peak``. On a GPU the function itself must ask torch.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, arguments, first))


def _measured(
    function: Callable[..., Result], arguments: Sequence[Any], first: Sequence[Any] | None
) -> tuple[Result, dict[str, int]]:
    if first is not None:
        function(*first)
    before = _memory(_NOW)
    result = function(*arguments)
    return result, {"before": before, "peak": _memory(_PEAK)}


def _memory(field: str) -> int:
    """Bytes of this process."""
    # Linux: ru_maxrss begins with the peak of the process that started this one, VmHWM does not.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    # Elsewhere the peak so far stands for what is there now.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
