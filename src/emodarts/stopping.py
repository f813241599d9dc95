"""Ctrl-C: work that should be whole is finished and saved first; a second one stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _State:
    """How often Ctrl-C was pressed since the outermost block began, and how deep blocks nest."""

    pressed = 0
    depth = 0


@contextmanager
def finished_first(what: str) -> Iterator[None]:
    """Let Ctrl-C wait until the block is done; a second one interrupts it.

    Blocks may nest: the innermost one that ends first obeys. In other threads than the main one,
    and where Ctrl-C is ignored, nothing changes.

    Parameters
    ----------
    what : is finished, in words, e.g. ``this epoch``.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, or at once for the second Ctrl-C.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return

    def press(number: int, frame: FrameType | None) -> None:
        _State.pressed += 1
        if _State.pressed > 1:
            raise KeyboardInterrupt
        sys.stderr.write(f"\nStopping after {what}. Ctrl-C again stops at once.\n")

    before = signal.signal(signal.SIGINT, press)
    _State.depth += 1
    try:
        yield
        if _State.pressed:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
        _State.depth -= 1
        if not _State.depth:
            _State.pressed = 0
