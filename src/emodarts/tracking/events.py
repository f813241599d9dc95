"""Scalars of every epoch, for TensorBoard and MLflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from emodarts.layout import TrialFolder
from emodarts.tracking.trials import attempt, log


class EventWriter:
    """Writes scalars of each epoch; a resumed run hides what the killed one wrote too much.

    TensorBoard (extra ``tensorboard``) has them where it is installed, MLflow where the trial is
    tracked.
    """

    def __init__(self, folder: TrialFolder, first_epoch: int) -> None:
        self._folder = folder
        self._what = f"TensorBoard's folder {folder.events}"
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            self._writer = attempt(self._what, lambda: self._open(first_epoch))

    def _open(self, first_epoch: int) -> Any:
        with warnings.catch_warnings():  # of tensorboard's own imports, not of ours
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter

            return SummaryWriter(self._folder.events, purge_step=first_epoch + 1)

    def write(self, stage: str, epoch: int, scalars: Mapping[str, float | None]) -> None:
        """Add each scalar as ``stage/name``."""
        known = {f"{stage}/{name}": v for name, v in scalars.items() if v is not None}
        attempt(self._what, lambda: self._add(known, epoch))
        log(self._folder, known, epoch)

    def _add(self, scalars: Mapping[str, float], epoch: int) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            attempt(self._what, self._writer.close)
