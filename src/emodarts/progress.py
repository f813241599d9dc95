"""Progress of long work: a bar on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output holds only results.
"""

from __future__ import annotations

import atexit
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Receives the progress of long work."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task of ``total`` steps, of which ``done`` are already complete."""
        ...

    def advance(self, **values: float) -> None:
        """Complete a step; ``values`` such as ``loss`` and ``ua`` are shown."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, **values: float) -> None:
        """Do nothing."""


class Lines:
    """Prints a line for the first and last step of a task, and every ten seconds in between."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task."""
        self._task, self._total, self._done = task, total, done
        self._first, self._begun = done, time.monotonic()
        self._printed = float("-inf")

    def advance(self, **values: float) -> None:
        """Complete a step and print a line if one is due."""
        self._done += 1
        now = time.monotonic()
        if self._done < self._total and now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        each = (now - self._begun) / (self._done - self._first)
        left = each * (self._total - self._done)
        parts = [f"{self._task} {self._done}/{self._total}", format_values(values)]
        parts.append(f"{format_seconds(left)} left" if left else f"{now - self._begun:.1f} s")
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)  # noqa: T201


class Bar:
    """A progress bar with values and remaining time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._running = False
        atexit.register(self.stop)  # restores the cursor however the process ends

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task; the bar of the previous one stays above."""
        self.stop()
        self._bar.disable = False
        for old in list(self._bar.task_ids):
            self._bar.remove_task(old)
        self._task = self._bar.add_task(task, total=total, completed=done, values="")
        self._bar.start()
        self._running = True
        self._left = total - done

    def advance(self, **values: float) -> None:
        """Complete a step."""
        self._bar.update(self._task, advance=1, values=format_values(values))
        self._left -= 1
        if self._left <= 0:
            self.stop()

    def stop(self) -> None:
        """Leave the bar as it is and restore the cursor."""
        if self._running:
            self._bar.stop()
            self._running = False


def for_terminal() -> Progress:
    """A bar if standard error is a terminal, otherwise lines."""
    return Bar() if sys.stderr.isatty() else Lines()


def format_values(values: dict[str, float]) -> str:
    """``loss 1.234  UA 56.7 %``: ``ua`` is a fraction, everything else a plain number."""
    return "  ".join(
        f"UA {100 * value:.1f} %" if name == "ua" else f"{name} {value:.3f}"
        for name, value in values.items()
    )


def format_seconds(seconds: float) -> str:
    """``75`` -> ``1:15``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes = f"{rest // 60:02d}" if hours else f"{rest // 60}"
    return f"{hours}:{minutes}:{rest % 60:02d}" if hours else f"{minutes}:{rest % 60:02d}"
