"""Progress of long work: a bar on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output holds only results.
"""

from __future__ import annotations

import atexit
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 10.0

#: A task shows the time that is left once as many seconds and steps were measured, as fewer say
#: nothing; the first step, which compiles and fills caches, does not count.
_SECONDS_TO_TELL, _STEPS_TO_TELL = 10.0, 3
#: Steps that the rate is measured over, as it changes, e.g. when a warm-up ends.
_RECENT_STEPS = 200


class Progress(Protocol):
    """Receives the progress of long work: parts that take about equally long, each of tasks."""

    def begin(self, part: str, done: int, total: int) -> None:
        """Begin a part of the whole work, or show its state, when ``done`` of ``total`` are."""
        ...

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task of ``total`` steps, of which ``done`` are already complete."""
        ...

    def advance(self, **values: float) -> None:
        """Complete a step; ``values`` such as ``loss`` and ``ua`` are shown."""
        ...

    def stop(self) -> None:
        """Show no more of what is going on."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, part: str, done: int, total: int) -> None:
        """Do nothing."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, **values: float) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class _Clock:
    """The time that is left of a task and of the whole work, as soon as that can be told."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._parts: tuple[int, int] | None = None
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._remaining = 0
        self.begun = now()

    def begin(self, done: int, total: int) -> None:
        """``done`` of ``total`` parts are complete; another total is another work."""
        self._last = self._now()
        if self._parts is None or self._parts[1] != total:
            self._first, self._since = done, self._last
        self._parts = done, total

    def start(self, remaining: int) -> None:
        """A task begins, of which so many steps remain."""
        self.begun, self._remaining = self._now(), remaining
        self._steps.clear()

    def advance(self) -> None:
        """A step is complete."""
        self._remaining -= 1
        self._steps.append(self._now())

    @property
    def seconds(self) -> float:
        """Since the task began."""
        return self._now() - self.begun

    def left(self) -> str:
        """What is left, in words; empty as long as it cannot be told."""
        task, work = self._left_of_task(), self._left_of_work()
        parts = [] if task is None else [f"{format_seconds(task)} left"]
        if work is not None:
            parts.append(f"{format_seconds(max(work, task or 0.0))} left of the whole run")
        elif task is not None and self._parts is not None:
            # A part may have more tasks than were begun, so that this is a lower bound.
            done, total = self._parts
            least = task + (total - done - 1) * (self._now() - self._last + task)
            parts.append(f"at least {format_seconds(least)} left of the whole run")
        return ", ".join(parts)

    def _left_of_task(self) -> float | None:
        if len(self._steps) <= _STEPS_TO_TELL or not self._remaining:
            return None
        seconds = self._steps[-1] - self._steps[0]
        if seconds < _SECONDS_TO_TELL:
            return None
        return self._remaining * seconds / (len(self._steps) - 1)

    def _left_of_work(self) -> float | None:
        """From the parts that were completed here: others may have been computed elsewhere."""
        if self._parts is None or self._parts[0] == self._first:
            return None
        done, total = self._parts
        each = (self._last - self._since) / (done - self._first)
        return max(0.0, each * (total - done) - (self._now() - self._last))


class Lines:
    """Prints a line for the first and last step of a task, and every ten seconds in between.

    Parameters
    ----------
    now : seconds on a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._clock = now, _Clock(now)

    def begin(self, part: str, done: int, total: int) -> None:
        """Print the part, and the time that is left of the whole work."""
        self._clock.begin(done, total)
        self._clock.start(0)
        print_line(part, self._clock.left())

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task."""
        self._task, self._total, self._done = task, total, done
        self._clock.start(total - done)
        self._printed = float("-inf")

    def advance(self, **values: float) -> None:
        """Complete a step and print a line if one is due."""
        self._done += 1
        self._clock.advance()
        finished = self._done >= self._total
        if not finished and self._now() - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = self._now()
        time_of = f"{self._clock.seconds:.1f} s" if finished else self._clock.left()
        print_line(f"{self._task} {self._done}/{self._total}", format_values(values), time_of)

    def stop(self) -> None:
        """Do nothing."""


def print_line(*parts: str) -> None:
    """Print what is not empty on standard error; a bar stays below it."""
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
        )

        self._clock = _Clock(time.monotonic)
        self._bar: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self._running = False
        atexit.register(self.stop)  # restores the cursor however the process ends

    def begin(self, part: str, done: int, total: int) -> None:
        """Print the part, and the time that is left of the whole work."""
        self.stop()
        self._clock.begin(done, total)
        self._clock.start(0)
        print_line(part, self._clock.left())

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task; the bar of the previous one stays above."""
        self.stop()
        self._bar.disable = False
        for old in list(self._bar.task_ids):
            self._bar.remove_task(old)
        self._task = self._bar.add_task(task, total=total, completed=done, values="", left="")
        self._bar.start()
        self._running = True
        self._left = total - done
        self._clock.start(self._left)

    def advance(self, **values: float) -> None:
        """Complete a step."""
        self._clock.advance()
        left = self._clock.left()
        self._bar.update(self._task, advance=1, values=format_values(values), left=left)
        self._left -= 1
        if self._left <= 0:
            self.stop()

    def stop(self) -> None:
        """Leave the bar as it is and restore the cursor."""
        if self._running:
            self._bar.stop()
            self._running = False


def show_warnings_plainly() -> None:
    """Show warnings of any package as a line without the path of its source."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


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
