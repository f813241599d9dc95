"""Trials side by side on this machine, each in a process of its own."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from emodarts.experiments.process import TrialProcess, error_of
from emodarts.experiments.runners import STOPPING, Means, TrialReport
from emodarts.experiments.spec import TrialSpec

_SECONDS_BETWEEN_LOOKS = 0.05


class Local:
    """Processes side by side on this machine.

    Where several GPUs are visible, each process sees one of them; processes take turns.
    """

    def __init__(self, means: Means) -> None:
        self._means = means

    def run(self, trials: Sequence[TrialSpec]) -> Iterator[TrialReport]:
        """Carry out trials; see :class:`~emodarts.experiments.runners.Runner`."""
        waiting, places = deque(trials), list(range(self._means.jobs or 1))
        devices = _gpus()
        running: dict[TrialProcess, int] = {}
        try:
            while waiting or running:
                while waiting and places:
                    place = places.pop(0)
                    gpu = {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {}
                    process = TrialProcess(
                        waiting.popleft(), logged=self._means.logged, environment=gpu
                    )
                    running[process] = place
                ended = [process for process in running if process.wait(0)]
                for process in ended:
                    places.append(running.pop(process))
                    report = TrialReport(process.spec, process.failure())
                    if report.failure is not None and self._means.stop_at_failure:
                        waiting.clear()
                    yield report
                if not ended:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:
            sys.stderr.write(STOPPING)
            for process in running:
                process.stop()
            for process in running:
                process.wait()
            raise
        finally:
            for process in running:
                process.kill()


def _gpus() -> list[str]:
    """GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them; empty if there is one."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        found = [str(k) for k in range(torch.cuda.device_count())]
    else:
        found = [part for part in named.split(",") if part.strip()]
    return found if len(found) > 1 else []


def side_by_side(trials: Sequence[TrialSpec], jobs: int) -> Iterator[TrialSpec]:
    """Carry out trials, and yield each that is finished.

    When one fails, no other is begun, and those that run are finished.

    Raises
    ------
    EmodartsError
        That of the first trial that failed.
    """
    failed: TrialReport | None = None
    for report in Local(Means(jobs=jobs, stop_at_failure=True)).run(trials):
        if report.failure is None:
            yield report.spec
        failed = failed or (report if report.failure else None)
    if failed is not None and failed.failure is not None:
        raise error_of(failed.spec, failed.failure)
