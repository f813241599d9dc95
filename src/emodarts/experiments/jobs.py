"""Trials one after the other in this process, or side by side in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from emodarts import errors, parallel
from emodarts.errors import EmodartsError, RunError
from emodarts.experiments.plan import TrialSpec
from emodarts.experiments.trial import carry_out, forget_data, is_finished
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
        finished = parallel.of_first(lambda: [is_finished(spec) for spec in specs])
        waiting = [spec for spec, done in zip(specs, finished, strict=True) if not done]
        if jobs > 1 and len(waiting) > 1:
            _run_side_by_side(waiting, jobs, len(specs), progress)
            waiting = []
        for done, spec in enumerate(waiting, len(specs) - len(waiting)):
            _begin(specs, done, spec, progress)
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


def _run_side_by_side(
    specs: Sequence[TrialSpec], jobs: int, n_trials: int, progress: Progress
) -> None:
    failed: list[EmodartsError] = []

    def tell(done: int) -> None:
        progress.begin(f"{done} of {n_trials} trials are finished", done, n_trials)

    theirs, ours = os.pipe()  # nothing is written to it: its end is that of this process

    def run(spec: TrialSpec) -> None:
        if failed:
            return
        command = [sys.executable, "-m", "emodarts.experiments.trial", json.dumps(spec.to_dict())]
        done = subprocess.run(
            [*command, "stdin"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches this process alone
        )
        if done.returncode != 0:
            failed.append(_error(spec, done.stdout))

    try:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                futures = [pool.submit(run, spec) for spec in specs]
                tell(n_trials - len(specs))
                for done, future in enumerate(as_completed(futures), n_trials - len(specs) + 1):
                    future.result()
                    if not failed:
                        tell(done)
            except BaseException:
                failed.append(RunError("interrupted"))
                raise
            finally:
                os.close(ours)  # ends trials that still run; they can be resumed
    finally:
        os.close(theirs)
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
