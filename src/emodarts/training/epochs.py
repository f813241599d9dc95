"""The loop over epochs that searches and trainings share: resume, record, checkpoint."""

from __future__ import annotations

import time
from typing import Any, Literal, Protocol

from torch import Tensor

from emodarts import files
from emodarts.checkpoint import load_tensors, save_tensors
from emodarts.errors import CheckpointError
from emodarts.events import EventWriter
from emodarts.layout import TrialFolder
from emodarts.progress import Progress
from emodarts.stopping import finished_first


class Process(Protocol):
    """What goes on in epochs."""

    history: list[dict[str, Any]]
    """Scalars of every epoch that is done; the loop appends to it."""

    def run_epoch(self) -> dict[str, Any] | None:
        """Do the next epoch; return its scalars, or None to end before it."""
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

    Every epoch writes the history as CSV, a checkpoint, and events for TensorBoard; Ctrl-C stops
    after that.

    Parameters
    ----------
    n_epochs : number of epochs; the process may end earlier.
    stage : which files of the folder are written.
    steps : number of times that the process advances ``progress`` in an epoch.

    Raises
    ------
    CheckpointError
        If the checkpoint is broken or belongs to another process.
    KeyboardInterrupt
        After the epoch in which Ctrl-C was pressed.
    """
    checkpoint, table = {
        "search": (folder.search_checkpoint, folder.search_history),
        "training": (folder.training_checkpoint, folder.training_history),
    }[stage]
    if checkpoint.is_file():
        tensors, values = load_tensors(checkpoint)
        try:
            process.history[:] = values["history"]
            process.restore(tensors, values)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint} is not a checkpoint of this {stage}: {error}"
            ) from error
    done = len(process.history)
    progress.start(title, n_epochs * steps, done * steps)
    with EventWriter(folder.events, done) as events:
        for epoch in range(done + 1, n_epochs + 1):
            with finished_first("this epoch"):
                begun = time.monotonic()
                scalars = process.run_epoch()
                if scalars is None:
                    break
                scalars = {**scalars, "seconds": round(time.monotonic() - begun, 3)}
                process.history.append({"epoch": epoch, **scalars})
                files.write_csv(table, list(process.history[0]), process.history)
                # The checkpoint comes last: a process that is killed before does the epoch again.
                tensors, values = process.state()
                save_tensors(checkpoint, tensors, {**values, "history": process.history})
                events.write(stage, epoch, scalars)
