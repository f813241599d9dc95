"""Trials as a SLURM job array: ``sbatch`` submits it, and its tasks need the shared folders only.

``python -m emodarts.experiments.slurm FOLDER`` is one task; its number is in the environment.
"""

from __future__ import annotations

import datetime
import io
import json
import os
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
            yield from self._reports(trials, folder, job)
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
        self, trials: Sequence[TrialSpec], folder: Path, job: subprocess.Popen[str]
    ) -> Iterator[TrialReport]:
        """Reports as tasks leave them; what has none when the array has ended was killed."""
        waiting = dict(enumerate(trials))
        while waiting:
            ended = job.poll() is not None  # before looking, so that no report is overlooked
            for index in list(waiting):
                report = _report(folder, index)
                if report.is_file():
                    failure = files.read_object(report, RunError, "failure")["failure"]
                    yield TrialReport(waiting.pop(index), failure)
                elif ended:
                    log = folder / f"{index}.log"
                    message = f"its task ended without a report, as one that was killed; see {log}"
                    yield TrialReport(waiting.pop(index), {"error": "RunError", "message": message})
            if waiting:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        job.wait()


def _cancel(*arguments: str) -> None:
    if arguments[-1]:
        subprocess.run(["scancel", *arguments], check=False, start_new_session=True)


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
