"""Events for TensorBoard, where it is installed (extra ``tensorboard``); nothing elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any


class EventWriter:
    """Writes scalars of each epoch; a resumed run hides what the killed one wrote too much."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is None:
            return
        with warnings.catch_warnings():  # of tensorboard's own imports, not of ours
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(folder, purge_step=first_epoch + 1)

    def write(self, stage: str, epoch: int, scalars: Mapping[str, float | None]) -> None:
        """Add each scalar as ``stage/name``."""
        if self._writer is not None:
            for name, value in scalars.items():
                if value is None:
                    continue
                self._writer.add_scalar(f"{stage}/{name}", value, epoch)
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
            self._writer.close()
