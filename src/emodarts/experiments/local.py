"""Trials on this machine: one after the other in this process, or side by side in their own."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from emodarts import parallel
from emodarts.experiments.process import TrialProcess, error_of
from emodarts.experiments.runners import STOPPING, Means, TrialReport
from emodarts.experiments.spec import TrialSpec
from emodarts.experiments.trial import carry_out, forget_data, is_finished
from emodarts.progress import Progress

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


def run_trials(specs: Sequence[TrialSpec], jobs: int, progress: Progress) -> list[dict[str, Any]]:
    """Carry out trials of a run; return what :func:`carry_out` returns of each, in order.

    A trial's result does not depend on ``jobs``. When one fails, no other is begun, those that run
    are finished, and the first error is raised.

    Raises
    ------
    EmodartsError
        That of the first trial that failed.
    """
    try:
        finished = parallel.of_first(lambda: [is_finished(spec) for spec in specs])
        waiting = [spec for spec, done in zip(specs, finished, strict=True) if not done]
        done = len(specs) - len(waiting)
        if jobs > 1 and len(waiting) > 1:
            failed: TrialReport | None = None
            progress.begin(f"{done} of {len(specs)} trials are finished", done, len(specs))
            for report in Local(Means(jobs=jobs, stop_at_failure=True)).run(waiting):
                failed = failed or (report if report.failure else None)
                if failed is None:
                    done += 1
                    text = f"{done} of {len(specs)} trials are finished"
                    progress.begin(text, done, len(specs))
            if failed is not None and failed.failure is not None:
                raise error_of(failed.spec, failed.failure)
        else:
            for number, spec in enumerate(waiting, done):
                _begin(specs, number, spec, progress)
                carry_out(spec, progress)
        parallel.of_first(lambda: None)  # has written all of it
        return [carry_out(spec, progress) for spec in specs]  # finished ones are only read
    finally:
        forget_data()


def _begin(specs: Sequence[TrialSpec], done: int, spec: TrialSpec, progress: Progress) -> None:
    if len(specs) > 1:
        what = "fold" if len({each.seed for each in specs}) == 1 else "trial"
        part = f"{what} {done + 1} of {len(specs)} ({spec.title})"
        progress.begin(part, done, len(specs))
