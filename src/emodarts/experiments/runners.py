"""Runners: what carries out the trials of a grid. The run folders are the truth, not the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emodarts.errors import RunError, did_you_mean
from emodarts.experiments.compute import recorded_compute
from emodarts.experiments.spec import TrialSpec
from emodarts.layout import RunFolder
from emodarts.recipe.section import load

STOPPING = "\nStopping after the epoch of each trial. Ctrl-C again stops at once.\n"
"""What a runner says at Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class TrialReport:
    """How a trial ended.

    Attributes
    ----------
    spec : of the trial.
    failure : class of the error (``error``) and its ``message``; None if the trial is finished.
    """

    spec: TrialSpec
    failure: dict[str, str] | None = None


class Runner(Protocol):
    """Carries out trials anywhere; all that it needs lies in their run folders and the store."""

    def run(self, trials: Sequence[TrialSpec]) -> Iterator[TrialReport]:
        """Carry out trials and report each once, in the order in which they end.

        A trial that fails does not keep the others from being carried out.

        Raises
        ------
        RunError
            If the engine itself cannot be used.
        KeyboardInterrupt
            After Ctrl-C, or SIGTERM where it interrupts, once the trials that run have finished
            their epoch; at once after the second Ctrl-C.
        """
        ...


@dataclass(frozen=True)
class Means:
    """What a runner has for its trials; each runner uses what concerns it.

    The CPUs of a trial are its threads (``compute.threads``), whatever the runner.

    Attributes
    ----------
    jobs : trials side by side; None: as many as the engine has room for.
    gpus : of each trial; a fraction shares one GPU (``ray``).
    memory : MB (10^6 bytes) that each trial reserves; None: what the engine gives.
    retries : of a trial whose process, worker or node was killed (``ray``).
    address : of a Ray cluster; None starts one on this machine.
    sbatch : further options of sbatch.
    scratch : folder for the runner's own files (``slurm``).
    logged : write what a trial prints to a file in its folder.
    stop_at_failure : begin no other trial after one failed (``local``).
    """

    jobs: int | None = None
    gpus: float = 0.0
    memory: int | None = None
    retries: int = 2
    address: str | None = None
    sbatch: tuple[str, ...] = ()
    scratch: Path | None = None
    logged: bool = False
    stop_at_failure: bool = False


#: Each runner: made with its means.
RUNNERS: dict[str, str | Callable[[Means], Runner]] = {
    "local": "emodarts.experiments.local:Local",
    "ray": "emodarts.experiments.on_ray:OnRay",
    "slurm": "emodarts.experiments.slurm:Slurm",
}


def make_runner(name: str, means: Means) -> Runner:
    """A runner by its name in ``RUNNERS``. Raises :class:`RunError` for another name."""
    if name not in RUNNERS:
        raise RunError(
            f"no runner {name!r}{did_you_mean(name, RUNNERS)}; allowed: {', '.join(RUNNERS)}"
        )
    made: Runner = load(RUNNERS[name])(means)
    return made


def threads_of(spec: TrialSpec) -> int:
    """Threads of a trial, as its run was planned. Raises :class:`RunError`."""
    return recorded_compute(RunFolder(Path(spec.run))).threads or 1
