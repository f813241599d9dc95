"""Ctrl-C and SIGTERM: an epoch is finished and saved first; Ctrl-C again stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, as clusters and ``timeout`` send it."""


class _State:
    """The first signal since the outermost block began, and how deep blocks nest."""

    received: int | None = None
    depth = 0


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` in the block, once: ``timeout`` sends it twice."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    come = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal come
        if not come:
            come = True
            raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def finished_first(what: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done; Ctrl-C after them interrupts it.

    Blocks may nest: the innermost one that ends first obeys. In other threads than the main one
    nothing changes, nor for a signal that is ignored or ends the process.

    Parameters
    ----------
    what : is finished, in words, e.g. ``this epoch``.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, or at once for Ctrl-C after a first signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, frame: FrameType | None) -> None:
        if _State.received is None:
            _State.received = number
            sys.stderr.write(f"\nStopping after {what}. Ctrl-C again stops at once.\n")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }
    for number in before:
        signal.signal(number, receive)
    _State.depth += 1
    try:
        yield
        if _State.received is not None:
            raise Terminated if _State.received == signal.SIGTERM else KeyboardInterrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.depth -= 1
        if not _State.depth:
            _State.received = None
