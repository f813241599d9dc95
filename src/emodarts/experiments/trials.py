"""Trials of a run: one after the other in this process, or side by side in their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emodarts import parallel
from emodarts.experiments.local import side_by_side
from emodarts.experiments.spec import TrialSpec
from emodarts.experiments.trial import carry_out, forget_data, is_finished
from emodarts.progress import Progress


def run_trials(specs: Sequence[TrialSpec], jobs: int, progress: Progress) -> list[dict[str, Any]]:
    """Carry out trials of a run; return what :func:`carry_out` returns of each, in order.

    A trial's result does not depend on ``jobs``. Where there are more of them than trials, each
    trial has several for its candidates. When one fails, no other is begun, those that run are
    finished, and the first error is raised.

    Raises
    ------
    EmodartsError
        That of the first trial that failed.
    """
    try:
        finished = parallel.of_first(lambda: [is_finished(spec) for spec in specs])
        waiting = [spec for spec, done in zip(specs, finished, strict=True) if not done]
        done = len(specs) - len(waiting)
        of_each = max(1, jobs // max(1, len(waiting)))
        waiting = [replace(spec, jobs=of_each) for spec in waiting]
        if jobs > 1 and len(waiting) > 1:
            progress.begin(f"{done} of {len(specs)} trials are finished", done, len(specs))
            for _ in side_by_side(waiting, jobs):
                done += 1
                progress.begin(f"{done} of {len(specs)} trials are finished", done, len(specs))
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
