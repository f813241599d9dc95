"""Trials one after the other in this process, or side by side in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from emodarts import errors
from emodarts.errors import EmodartsError, RunError
from emodarts.experiments.plan import TrialSpec
from emodarts.experiments.trial import carry_out, forget_data
from emodarts.progress import Progress


def run_trials(specs: Sequence[TrialSpec], jobs: int, progress: Progress) -> list[dict[str, Any]]:
    """Carry out trials; return what :func:`carry_out` returns of each, in order.

    A trial's result does not depend on ``jobs``. When one fails, no other is begun, those that run
    are finished, and the first error is raised.

    Raises
    ------
    EmodartsError
        That of the first trial that failed.
    """
    try:
        if jobs > 1 and len(specs) > 1:
            _run_side_by_side(specs, jobs)
        return [carry_out(spec, progress) for spec in specs]  # finished ones are only read
    finally:
        forget_data()


def _run_side_by_side(specs: Sequence[TrialSpec], jobs: int) -> None:
    failed: list[EmodartsError] = []
    running: set[subprocess.Popen[str]] = set()

    def run(spec: TrialSpec) -> None:
        if failed:
            return
        command = [sys.executable, "-m", "emodarts.experiments.trial", json.dumps(spec.to_dict())]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.add(process)
        output, _ = process.communicate()
        running.discard(process)
        if process.returncode != 0:
            failed.append(_error(spec, output))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in [pool.submit(run, spec) for spec in specs]:
                done.result()
        except BaseException:  # an interruption ends the trials, too; they can be resumed
            failed.append(RunError("interrupted"))
            for process in list(running):
                process.terminate()
            raise
    if failed:
        raise failed[0]


def _error(spec: TrialSpec, output: str) -> EmodartsError:
    """The error that a trial printed."""
    try:
        found = json.loads(output)
        kind: type[EmodartsError] = getattr(errors, found["error"])
        return kind(f"{spec.title}: {found['message']}")
    except (ValueError, KeyError, AttributeError):
        return RunError(f"{spec.title} failed; its traceback is above")
