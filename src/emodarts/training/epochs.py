"""The loop over epochs that searches and trainings share: resume, record, checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, Protocol

from torch import Tensor

from emodarts import files, parallel
from emodarts.checkpoint import load_tensors, save_tensors
from emodarts.cost import Meter
from emodarts.errors import CheckpointError
from emodarts.layout import TrialFolder
from emodarts.progress import Progress
from emodarts.stopping import finished_first
from emodarts.tracking.events import EventWriter


class Process(Protocol):
    """What goes on in epochs."""

    history: list[dict[str, Any]]
    """Scalars of every epoch that is done; the loop appends to it."""

    def run_epoch(self) -> dict[str, Any] | None:
        """Do the next epoch; return its scalars, ``steps`` among them, or None to end before it."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on but the history, as tensors and JSON values."""
        ...

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Set what :meth:`state` returned; the history is set already.

        Raises ``KeyError``, ``ValueError`` or ``RuntimeError`` for the state of another process.
        """
        ...


def run_epochs(
    process: Process,
    n_epochs: int,
    *,
    stage: Literal["search", "training"],
    folder: TrialFolder,
    progress: Progress,
    title: str,
    steps: int = 1,
) -> None:
    """Run a process to its last epoch; go on from its checkpoint in ``folder`` if there is one.

    Every epoch writes the history as CSV, a checkpoint, and events for TensorBoard and MLflow;
    Ctrl-C stops after that. Of several processes, the first writes, once all have the same state.

    Parameters
    ----------
    n_epochs : number of epochs; the process may end earlier.
    stage : which files of the folder are written.
    steps : number of times that the process advances ``progress`` in an epoch.

    Raises
    ------
    CheckpointError
        If the checkpoint is broken, belongs to another process, or was written by another number
        of processes.
    TrainingError
        If processes do not have the same state after an epoch.
    KeyboardInterrupt
        After the epoch in which Ctrl-C was pressed, or SIGTERM came where it interrupts.
    """
    checkpoint, table = {
        "search": (folder.search_checkpoint, folder.search_history),
        "training": (folder.training_checkpoint, folder.training_history),
    }[stage]
    if checkpoint.is_file():
        tensors, values = load_tensors(checkpoint)
        if (begun_by := values.get("processes", 1)) != parallel.size():
            raise CheckpointError(
                f"{checkpoint} was written by {begun_by} processes and there are "
                f"{parallel.size()} now; go on with {begun_by}, as sums depend on their number"
            )
        try:
            process.history[:] = values["history"]
            process.restore(tensors, values)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint} is not a checkpoint of this {stage}: {error}"
            ) from error
    done = len(process.history)
    progress.start(title, n_epochs * steps, done * steps)
    with EventWriter(folder, done) if parallel.leads() else nullcontext() as events:
        for epoch in range(done + 1, n_epochs + 1):
            with finished_first("this epoch"):
                meter = Meter()
                scalars = process.run_epoch()
                if scalars is None:
                    break
                scalars = {**scalars, **meter.spent(scalars["steps"]).to_dict()}
                process.history.append({"epoch": epoch, **scalars})
                tensors, values = process.state()
                parallel.require_in_step(tensors, f"{stage} epoch {epoch}")
                if events is None:
                    continue
                files.write_csv(table, list(process.history[0]), process.history)
                # The checkpoint comes last: a process that is killed before does the epoch again.
                values |= {"history": process.history, "processes": parallel.size()}
                save_tensors(checkpoint, tensors, values)
                events.write(stage, epoch, scalars)
