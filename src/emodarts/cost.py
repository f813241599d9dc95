"""What a computation costs: wall-clock and processor time, steps, peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: Keys of histories and results of trials that no two computations have in common.
MEASURED = ("seconds", "processor_seconds", "peak_memory", "cost")

_MIB = 2**20


@dataclass(frozen=True)
class Spent:
    """What was spent on a search or a training; the sum of two has the higher peak.

    Attributes
    ----------
    seconds : of the wall clock.
    processor_seconds : of all threads of this process.
    steps : updates of weights.
    peak_memory : MiB. On a GPU what torch had allocated there, elsewhere the resident memory of
        this process, with all that it has loaded; 0 where the system does not say.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    steps: int = 0
    peak_memory: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            round(self.seconds + other.seconds, 3),
            round(self.processor_seconds + other.processor_seconds, 3),
            self.steps + other.steps,
            max(self.peak_memory, other.peak_memory),
        )

    @staticmethod
    def of(row: Mapping[str, Any]) -> Spent:
        """From a row of a history, or from :meth:`to_dict`."""
        return Spent(
            float(row["seconds"]),
            float(row["processor_seconds"]),
            int(row["steps"]),
            float(row["peak_memory"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Meter:
    """Measures from the moment when it is made."""

    def __init__(self) -> None:
        _forget_peak()
        self._begun = time.monotonic(), time.process_time()

    def spent(self, steps: int = 0) -> Spent:
        """What was spent since then, in ``steps``."""
        wall, processor = self._begun
        return Spent(
            round(time.monotonic() - wall, 3),
            round(time.process_time() - processor, 3),
            steps,
            round(_peak() / _MIB, 1),
        )


def _forget_peak() -> None:
    """Let the peak begin anew, where the system can."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak() -> int:
    """Bytes."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
