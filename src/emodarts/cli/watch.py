"""The live view of runs in a terminal: a line for each run, and a row for each trial under way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from emodarts.errors import shown
from emodarts.experiments.state import RunState, TrialState, find_runs, state_of
from emodarts.layout import RunFolder
from emodarts.progress import format_seconds

_COLOURS = {
    "running": "green",
    "stopped": "yellow",
    "failed": "red",
    "done": "blue",
    "waiting": "dim",
}
#: Operations of a cell that are named.
_NAMED = 2
#: Columns of a terminal from which on a row has room for operations.
_WIDE = 100
#: Columns of an output that is no terminal.
_PIPED = 200


def states(folder: Path) -> list[RunState]:
    """The state of every run in and below a folder."""
    now = time.time()
    return [_finished(path, stamp) or state_of(path, now) for path, stamp in _stamped(folder)]


def _stamped(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Each run with the times of its list of folds and of its result, 0 where there is none."""
    for path in find_runs(folder):
        run = RunFolder(path)
        found = []
        for file in (run.folds, run.result):
            try:
                found.append(file.stat().st_mtime_ns)
            except OSError:
                found.append(0)
        yield path, (found[0], found[1])


@cache
def _finished(path: Path, stamp: tuple[int, int]) -> RunState | None:
    """The state of a run whose result is of all its folds and seeds: it is read once."""
    listed, summed_up = stamp
    if summed_up < listed or not listed:
        return None
    state = state_of(path, 0.0)
    return state if state.trials and state.count("done") == len(state.trials) else None


def watch(folder: Path, every: float, *, once: bool) -> None:
    """Show the state again and again until Ctrl-C; once where the output is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED

    def seen() -> Group:
        return view(folder, states(folder), console.width)

    if once or not console.is_terminal:
        console.print(seen())
        return
    with Live(seen(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every)
                live.update(seen(), refresh=True)
        except KeyboardInterrupt:
            return


def view(folder: Path, runs: Sequence[RunState], width: int) -> Group:
    """What is shown of runs in so many columns; of a single one also the trials that are done.

    What is under way or failed stands first, as a terminal may be too low for all.
    """
    if not runs:
        return Group(Text(f"no run in {shown(folder)} yet; a run appears once features are stored"))
    parts: list[Text | Table] = []
    if len(runs) > 1:
        trials = [trial for run in runs for trial in run.trials]
        parts.append(Text(f"all {len(runs)} runs: {_counts(trials)}", style="bold"))
    for run in sorted(runs, key=_is_quiet):
        parts.append(_headline(folder, run))
        rows = [t for t in run.trials if t.status not in ("waiting", "done") or len(runs) == 1]
        rows = [t for t in rows if t.status != "waiting"]
        if rows:
            parts += _trials(rows, width)
    return Group(*parts)


def _is_quiet(run: RunState) -> bool:
    """Whether no trial is under way or failed."""
    return run.fault is None and all(t.status in ("waiting", "done") for t in run.trials)


def _headline(folder: Path, run: RunState) -> Text:
    path = Path(run.path)
    name = path if path == folder else path.relative_to(folder)
    text = Text(shown(str(name)), style="bold", overflow="fold")
    if run.fault is not None:
        return text.append(f"  {shown(run.fault)}", style="not bold red")
    facts = [f"{run.recipe} on {run.corpus}", _counts(run.trials)]
    if run.ua is not None:
        facts.append(f"mean UA {_percent(run.ua)}")
    if run.count("running") and run.left is not None:
        facts.append(f"about {format_seconds(run.left)} left")
    if run.process is not None and run.count("running") + run.count("stopped"):
        facts.append(f"in use by {run.process}")
    return text.append(f"  {shown('; '.join(facts))}", style="not bold")


def _counts(trials: Sequence[TrialState]) -> str:
    found = {status: sum(t.status == status for t in trials) for status in _COLOURS}
    others = [f"{n} {status}" for status, n in found.items() if n and status != "done"]
    return ", ".join([f"{found['done']} of {len(trials)} trials done", *others])


def _trials(trials: Sequence[TrialState], width: int) -> list[Text | Table]:
    """A row for each trial; where those are narrow, with operations or failures below."""
    titles = ["trial", "", "stage", "epoch", "UA", "left"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=True, justify="left" if number < 3 else "right")
    if width >= _WIDE:
        table.add_column("leading operations, or failure", overflow="fold")
    below: list[Text | Table] = []
    for t in trials:
        name = f"seed {t.seed}" if t.fold is None else f"fold {t.fold} seed {t.seed}"
        status: str = t.status
        if status == "stopped" and t.silent is not None:
            status += f" for {format_seconds(t.silent)}"
        epoch = "" if t.stage is None else str(t.epoch)
        left = "" if t.left is None or t.status != "running" else format_seconds(t.left)
        row: list[Text | str] = [
            name,
            Text(status, style=_COLOURS[t.status]),
            t.stage or "",
            epoch if t.epochs is None else f"{epoch}/{t.epochs}",
            "" if t.ua is None else _percent(t.ua),
            left,
        ]
        more = Text(shown(t.failure), style="red") if t.failure else Text(_operations(t))
        if width >= _WIDE:
            row.append(more)
        elif more:
            below.append(Text(f"{name}: ", overflow="fold").append_text(more))
        table.add_row(*row)
    return [table, *below]


def _operations(trial: TrialState) -> str:
    """``normal sep_conv_3x3 5, skip_connect 2; sequence lstm 4``."""
    return "; ".join(
        f"{cell} {', '.join(f'{shown(name)} {n}' for name, n in operations[:_NAMED])}"
        for cell, operations in (trial.leading or {}).items()
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
