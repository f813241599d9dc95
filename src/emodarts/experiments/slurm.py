"""Trials as a SLURM job array: ``sbatch`` submits it, and its tasks need the shared folders only.

``python -m emodarts.experiments.slurm FOLDER`` is one task; its number is in the environment.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from emodarts import files
from emodarts.errors import RunError
from emodarts.experiments import trial
from emodarts.experiments.process import describe_failure
from emodarts.experiments.runners import STOPPING, Means, TrialReport, threads_of
from emodarts.experiments.spec import TrialSpec

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_FOR_STATES = 60

#: How a task that left no report ended, by its state (JOB STATE CODES in the manual of sacct).
_ENDS = {
    "CANCELLED": "its task was cancelled",
    "TIMEOUT": 'its task reached its time limit (--sbatch "-t TIME" sets another)',
    "DEADLINE": "its task reached its deadline",
    "OUT_OF_MEMORY": "its task ran out of memory (--memory gives it more)",
    "NODE_FAIL": "the node of its task failed",
    "PREEMPTED": "its task gave way to another job",
}


class Slurm:
    """One job array for all trials; ``sbatch --wait`` says when it has ended."""

    def __init__(self, means: Means) -> None:
        self._means = means

    def run(self, trials: Sequence[TrialSpec]) -> Iterator[TrialReport]:
        """Carry out trials; see :class:`~emodarts.experiments.runners.Runner`."""
        if self._means.scratch is None:
            raise RunError("runner slurm needs a folder for its files")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        folder = self._means.scratch.resolve() / now
        files.write_json(folder / "trials.json", [spec.to_dict() for spec in trials])
        script = folder / "job.sh"
        command = [sys.executable, "-m", "emodarts.experiments.slurm", str(folder)]
        files.write_text(script, f"#!/bin/sh\nexec {shlex.join(command)}\n")
        submit = ["sbatch", *self._options(trials, folder), str(script)]
        errors = folder / "sbatch.txt"
        try:
            with errors.open("wb") as log:
                # Apart from this terminal, as Ctrl-C must not end the wait for the tasks.
                job = subprocess.Popen(
                    submit, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
                )
        except OSError as error:
            raise RunError(f"cannot run sbatch: {error.strerror or error}") from error
        number = ""
        try:
            # "--parsable" prints the number of the job, perhaps with the cluster, once submitted.
            number = (job.stdout.readline() if job.stdout else "").strip().partition(";")[0]
            if not number:
                job.wait()
                said = errors.read_text(encoding="utf-8", errors="replace").strip()
                raise RunError(f"sbatch refused the job array: {said or 'it printed no job id'}")
            yield from self._reports(trials, folder, job, number)
        except KeyboardInterrupt:
            sys.stderr.write(STOPPING)
            try:
                _cancel("--state=PENDING", number)
                _cancel("--signal=INT", "--full", number)
                job.wait()
            except KeyboardInterrupt:
                _cancel(number)
            raise
        finally:
            if job.stdout is not None:
                job.stdout.close()

    def _options(self, trials: Sequence[TrialSpec], folder: Path) -> list[str]:
        most = "" if self._means.jobs is None else f"%{self._means.jobs}"
        options = [
            *("--wait", "--parsable", "--job-name=emodarts"),
            f"--array=0-{len(trials) - 1}{most}",
            f"--cpus-per-task={max(map(threads_of, trials))}",
            f"--output={folder / '%a.log'}",
        ]
        if self._means.gpus:
            options.append(f"--gpus-per-task={self._means.gpus:g}")
        if self._means.memory is not None:
            options.append(f"--mem={self._means.memory}M")
        return [*options, *self._means.sbatch]

    def _reports(
        self, trials: Sequence[TrialSpec], folder: Path, job: subprocess.Popen[str], number: str
    ) -> Iterator[TrialReport]:
        """Reports as tasks leave them; what has none when the array has ended was killed."""
        waiting = dict(enumerate(trials))
        states: dict[int | None, str] | None = None
        while waiting:
            ended = job.poll() is not None  # before looking, so that no report is overlooked
            for index in list(waiting):
                report = _report(folder, index)
                if report.is_file():
                    failure = files.read_object(report, RunError, "failure")["failure"]
                    yield TrialReport(waiting.pop(index), failure)
                elif ended:
                    states = _states(number) if states is None else states
                    state = states.get(index, states.get(None, ""))
                    why = _ENDS.get(
                        state, "its task ended without a report, as one that was killed"
                    )
                    message = f"{why}; see {folder / f'{index}.log'}"
                    yield TrialReport(waiting.pop(index), {"error": "RunError", "message": message})
            if waiting:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        job.wait()


def _cancel(*arguments: str) -> None:
    if arguments[-1]:
        subprocess.run(["scancel", *arguments], check=False, start_new_session=True)


def _states(number: str) -> dict[int | None, str]:
    """State of each task of an array; None: of those that never began. Empty without accounting."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations"]
    command += [f"--jobs={number}", "--format=JobID,State"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS_FOR_STATES
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    # E.g. "7_3|TIMEOUT", and "7_[5-9%2]|CANCELLED by 1000" of tasks that never began.
    found = re.findall(r"^\d+_(\d+|\[.*\])\|([A-Z_]+)", said.stdout, re.MULTILINE)
    return {int(task) if task.isdigit() else None: state for task, state in found}


def _report(folder: Path, index: int) -> Path:
    return folder / f"{index}.json"


def main(place: str) -> int:
    """Carry out the trial of this task of the array, and leave its report."""
    folder, index = Path(place), int(os.environ["SLURM_ARRAY_TASK_ID"])
    specs = files.read_json(folder / "trials.json", RunError)
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = trial.main(json.dumps(specs[index]))
    failure = describe_failure(code, printed.getvalue(), folder / f"{index}.log")
    files.write_json(_report(folder, index), {"failure": failure})
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
