"""A grid in words: how far it is, and the comparison of the runs that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.errors import list_some
from emodarts.experiments.grid_plan import (
    STATES,
    AskedRun,
    asked_runs,
    count_states,
    estimates,
)
from emodarts.layout import GridFolder
from emodarts.progress import format_seconds
from emodarts.reports.document import Block, Remark, Section, Table, numbers, words
from emodarts.reports.markdown import to_markdown
from emodarts.reports.report import compare
from emodarts.reports.tables import NOTHING


def compared_runs(out: Path) -> Iterator[tuple[str, list[AskedRun]]]:
    """Title and runs with scores: each such list, of a corpus and a group, is compared by itself.

    Raises
    ------
    RunError
        If the folder holds no grid.
    """
    runs = asked_runs(out)
    for corpus in dict.fromkeys(run.corpus for run in runs):
        for group in dict.fromkeys(group for run in runs for group in run.groups):
            chosen = [run for run in runs if run.corpus == corpus and group in run.groups]
            scored = [run for run in chosen if run.folder.result.is_file()]
            if scored:
                yield f"{group}: {corpus}" if group else corpus, scored


def grid_page(out: Path) -> Section:
    """Compare the runs of a grid, one section for each corpus and group; say what is missing.

    Raises
    ------
    RunError
        If the folder holds no grid, or a run is broken.
    """
    sections = [
        Section(title, compare([run.path for run in runs]).blocks)
        for title, runs in compared_runs(out)
    ]
    return Section("Comparison", (*shortfalls(out), *sections))


def shortfalls(out: Path) -> list[Remark]:
    """A warning about runs of a grid that have no scores, for each reason.

    Raises
    ------
    RunError
        If the folder holds no grid.
    """
    missing: dict[str, list[str]] = {}
    for run in asked_runs(out):
        if not run.folder.result.is_file():
            missing.setdefault(_why(run), []).append(run.title)
    return [
        Remark("Warning", f"no scores of {list_some(titles, 6)}: {why}.")
        for why, titles in missing.items()
    ]


def _why(run: AskedRun) -> str:
    states = run.states()
    failed = {state.reason: None for state in states if state.state == "failed"}
    done = sum(state.state == "done" for state in states)
    if done == len(states):
        return run.fault() or "its result is missing; the same command writes it"
    if not failed:
        return f"{done} of {len(states)} trials are finished, and no fold with every seed"
    return f"no fold is finished with every seed: {list_some(failed, 2)}"


def write_comparison(out: Path) -> Section:
    """Write :func:`grid_page` to the folder of the grid, and return it; raises as that does."""
    page = grid_page(out)
    files.write_text(GridFolder(out).comparison, to_markdown(page) + "\n")
    return page


def status_page(runs: Sequence[AskedRun]) -> Section:
    """How many trials of each run are done, running, failed and waiting; what failed, and why."""
    rows = []
    failures: list[Block] = []
    for number, run in enumerate(runs, 1):
        states = run.states()
        counts = [sum(state.state == wanted for state in states) for wanted in STATES]
        rows.append((str(number), run.name, run.corpus, *map(str, counts)))
        failures += [
            Remark(f"Failed: {run.title}, fold {state.fold} seed {state.seed}", state.reason)
            for state in states
            if state.state == "failed"
        ]
    total = count_states(runs)
    rows.append(("", "all", "", *(str(total[state]) for state in STATES)))
    columns = (*numbers("run"), *words("name", "corpus"), *numbers(*STATES))
    return Section("", (Table(columns, tuple(rows)), *failures))


def plan_page(runs: Sequence[AskedRun], jobs: int) -> Section:
    """The trials of each run, and about how long those take that are not finished.

    Parameters
    ----------
    jobs : trials side by side.
    """
    rows, seconds, known, unknown = [], 0.0, 0, 0
    for number, (run, each) in enumerate(zip(runs, estimates(runs), strict=True), 1):
        left = sum(state.state != "done" for state in run.states())
        folds = ", ".join(map(str, dict.fromkeys(fold for fold, _ in run.trials)))
        seeds = ", ".join(map(str, dict.fromkeys(seed for _, seed in run.trials)))
        known += left if each is not None else 0
        unknown += left if each is None else 0
        time = "unknown" if each is None else format_seconds(each * left)
        cells = (folds, seeds, str(len(run.trials)), str(left), time if left else NOTHING)
        rows.append((str(number), run.name, run.corpus, *cells))
        seconds += (each or 0.0) * left
    titles = (*words("name", "corpus", "folds", "seeds"), *numbers("trials", "left", "time"))
    text = f"About {format_seconds(seconds / jobs)} with {jobs} side by side" if known else ""
    if unknown:
        text += f"{', without' if text else 'No estimate of'} {unknown} trials, as none of their "
        text += "recipe is finished; --only 1 runs one of the runs first"
    caption = ("Times are those of finished trials, one after the other.",)
    table = Table((*numbers("run"), *titles), tuple(rows), caption)
    return Section("", (table, *([f"{text}."] if text else [])))


def grid_facts(runs: Sequence[AskedRun]) -> dict[str, Any]:
    """What ``--json`` prints of a grid."""
    return {
        "trials": dict(count_states(runs)),
        "runs": [
            {
                "name": run.name,
                "corpus": run.corpus,
                "groups": list(run.groups),
                "folder": str(run.path),
                "seconds_each": None if each is None else round(each, 3),
                "trials": [
                    {
                        "fold": state.fold,
                        "seed": state.seed,
                        "state": state.state,
                        **({"reason": state.reason} if state.reason else {}),
                    }
                    for state in run.states()
                ],
            }
            for run, each in zip(runs, estimates(runs), strict=True)
        ],
    }
