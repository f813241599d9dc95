"""How far runs have come, from their files alone, while other processes write them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

from emodarts import files
from emodarts.errors import EmodartsError, RunError
from emodarts.genotype import Genotype
from emodarts.layout import SET_ASIDE, RunFolder, TrialFolder
from emodarts.recipe import Recipe, TrainingSpec, load_recipe

Status = Literal["waiting", "running", "stopped", "failed", "done"]

#: A trial is called stopped after so many of its longest epochs, and at least so many seconds,
#: without a change of its files.
_EPOCHS_OF_SILENCE, _SECONDS_OF_SILENCE = 5, 120.0
#: Epochs that the time of an epoch is the mean of.
_RECENT = 5

Value = TypeVar("Value")


@dataclass(frozen=True)
class TrialState:
    """One fold with one seed.

    Attributes
    ----------
    fold, seed : of the trial; fold None has no test fold.
    status : ``failed`` if a file says so; ``stopped`` if it is unfinished and its files have not
        changed for long.
    stage : ``search``, ``training`` or ``candidates``; None before the first of its files.
    epoch, epochs : of the stage, done and in all; the latter None where only the search knows.
    ua : of a search on the data for alphas, of a training on its inner validation or else on what
        it trains on, of a finished trial on its test fold; None if not known.
    leading : for each cell the operations of the present genotype, the most frequent first.
    seconds : of all epochs so far.
    left : seconds until it is done, as far as epochs can tell; None if they cannot.
    silent : seconds since its files last changed; None if there are none.
    failure : why it failed, or ``""``.
    """

    fold: int | None
    seed: int
    status: Status = "waiting"
    stage: Literal["search", "training", "candidates"] | None = None
    epoch: int = 0
    epochs: int | None = None
    ua: float | None = None
    leading: Mapping[str, Sequence[tuple[str, int]]] | None = None
    seconds: float = 0.0
    left: float | None = None
    silent: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class RunState:
    """A run.

    Attributes
    ----------
    path : its folder.
    recipe, corpus : names; empty if the files cannot be read.
    process : which process has the folder, or had it when it was killed; None if none has.
    trials : of all folds and seeds.
    left : seconds until all trials are done if as many run side by side as now; None if not known.
    fault : why the state is not known.
    """

    path: str
    recipe: str = ""
    corpus: str = ""
    process: str | None = None
    trials: tuple[TrialState, ...] = ()
    left: float | None = None
    fault: str | None = None

    def count(self, status: Status) -> int:
        """Trials with that status."""
        return sum(trial.status == status for trial in self.trials)

    @property
    def ua(self) -> float | None:
        """Mean UA of the finished trials."""
        found = [t.ua for t in self.trials if t.status == "done" and t.ua is not None]
        return fmean(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def find_runs(folder: Path) -> list[Path]:
    """Run folders in and below a folder, sorted; nothing below one of them is looked at.

    A folder of a run that could not be planned is one, too; one that was set aside as broken is
    none.
    """
    found = []
    for place, folders, names in os.walk(folder):
        run = RunFolder(Path(place))
        folders[:] = [name for name in folders if SET_ASIDE not in name]
        if not {run.recipe.name, run.failure.name}.isdisjoint(names):
            found.append(Path(place))
            folders.clear()
    return sorted(found)


def state_of(path: Path, now: float) -> RunState:
    """The state of a run at ``now`` (seconds since 1970).

    Files that are missing, half-written or of another kind are taken as absent.
    """
    run = RunFolder(path)
    process = _tried(lambda: (path / files.LOCK).read_text(encoding="utf-8").strip()) or None
    try:
        recipe = load_recipe(run.recipe)
        entries = files.read_object(run.folds, RunError, "folds")["folds"]
        header = files.read_object(run.data, RunError, "corpus", "all_data")
        places = [
            (None if header["all_data"] else int(entry["fold"]), int(entry["seed"]))
            for entry in entries
        ]
    except (EmodartsError, OSError, KeyError, TypeError, ValueError) as error:
        fault = _failure(run.failure) or str(error)
        return RunState(str(path), process=process, fault=fault)
    trials = _with_trainings([_trial(run.trial(*place), place, recipe, now) for place in places])
    return RunState(
        str(path), recipe.name, str(header["corpus"]), process, tuple(trials), _left(trials)
    )


def _trial(
    folder: TrialFolder, place: tuple[int | None, int], recipe: Recipe, now: float
) -> TrialState:
    result = _tried(lambda: files.read_object(folder.result, RunError, "seed")) or {}
    searches = _histories(folder, "search")
    trainings = _histories(folder, "training")
    candidates = _tried(lambda: sum(1 for _ in folder.candidates.rglob(folder.result.name))) or 0
    seconds = _total((*searches, *trainings))
    leading = _leading(folder, result)
    if result:
        return TrialState(
            *place, "done", ua=_number(result, "ua"), leading=leading, seconds=seconds, left=0.0
        )
    changed = _last_change(folder)
    if changed is None:
        return TrialState(*place)
    found = searches + trainings
    longest = max((_number(row, "seconds") or 0.0 for rows in found for row in rows), default=0.0)
    silent = max(0.0, now - changed)
    quiet = files.holder(folder.path) is None and silent > max(
        _SECONDS_OF_SILENCE, _EPOCHS_OF_SILENCE * longest
    )
    failure = _failure(folder.failure)
    state = TrialState(
        *place,
        "failed" if failure else "stopped" if quiet else "running",
        leading=leading,
        seconds=seconds,
        silent=silent,
        failure=failure,
    )
    if trainings:
        last = trainings[-1][-1]
        ua = _number(last, "validation_ua")
        return _in_stage(
            replace(state, stage="training", ua=_number(last, "train_ua") if ua is None else ua),
            trainings,
            recipe.training.ensemble * _epochs(recipe.training, last),
        )
    if searches:
        ua = _number(searches[-1][-1], "alpha_ua")
        epochs = getattr(recipe.search, "epochs", None)
        # A system with several inputs searches once for each.
        epochs = None if epochs is None else len(recipe.inputs) * epochs
        return _in_stage(replace(state, stage="search", ua=ua), searches, epochs)
    if candidates:
        return replace(state, stage="candidates", epoch=candidates)
    return state


def _epochs(training: TrainingSpec, row: Mapping[str, Any]) -> int:
    """Number of epochs of a network whose history has this row."""
    steps = _number(row, "steps")
    return training.epochs_of(int(steps)) if steps else training.epochs


def _in_stage(
    state: TrialState, histories: Sequence[list[dict[str, str]]], epochs: int | None
) -> TrialState:
    done = sum(map(len, histories))
    recent = [_number(row, "seconds") for row in histories[-1][-_RECENT:]]
    known = [value for value in recent if value is not None]
    left = fmean(known) * max(epochs - done, 0) if known and epochs is not None else None
    return replace(state, epoch=done, epochs=epochs, left=left)


def _with_trainings(trials: Sequence[TrialState]) -> list[TrialState]:
    """Searches with the time that the training after them takes, where other trials show it."""
    trained = [t.seconds for t in trials if t.status == "done" and t.seconds > 0]
    if not trained:
        return list(trials)
    # A finished trial took both; what a search took and will take is known of its own.
    usual = fmean(trained)
    return [
        replace(t, left=max(t.left or 0.0, usual - t.seconds)) if t.stage == "search" else t
        for t in trials
    ]


def _left(trials: Sequence[TrialState]) -> float | None:
    """Of a run: what its unfinished trials take, divided by how many run now."""
    unfinished = [t for t in trials if t.status != "done"]
    if not unfinished:
        return 0.0
    known = [t.seconds + t.left for t in trials if t.left is not None and t.stage != "search"]
    known = known or [t.seconds + t.left for t in trials if t.left is not None]
    if not known:
        return None
    usual = fmean(known)
    total = sum(max(usual - t.seconds, 0.0) if t.left is None else t.left for t in unfinished)
    return total / max(1, sum(t.status == "running" for t in trials))


def _histories(folder: TrialFolder, stage: Literal["search", "training"]) -> list[Any]:
    """Rows of the epochs of every network that a trial searches or trains, in order of time."""
    name = (folder.search_history if stage == "search" else folder.training_history).name
    below = _tried(lambda: sorted(folder.path.glob(f"*/{name}"))) or []
    apart = (folder.candidates, folder.epochs)
    paths = [folder.path / name, *(p for p in below if p.parent not in apart)]
    rows = (_tried(partial(files.read_csv, path, RunError)) for path in paths)
    return [each for each in rows if each]


def _leading(folder: TrialFolder, result: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """Operations of the genotype that was found, or else of the last epoch of a search."""

    def genotype() -> Genotype:
        if folder.genotype.is_file():
            return Genotype.load(folder.genotype)
        if result.get("genotype"):
            return Genotype.from_dict(result["genotype"])
        return Genotype.from_dict(files.read_json(folder.alphas, RunError)[-1]["genotype"])

    found = _tried(genotype) or Genotype()
    return {
        name: Counter(edge.operation for node in cell for edge in node).most_common()
        for name, cell in found.cells.items()
    }


def _failure(path: Path) -> str:
    """Why a trial or a run failed, from its file; empty if there is none."""
    if not path.is_file():
        return ""
    found = _tried(lambda: str(files.read_object(path, RunError, "message")["message"]))
    return found or f"see {path}"


def _last_change(folder: TrialFolder) -> float | None:
    """When a file of a trial was last written; None if there is none."""
    found = []
    for place, _, names in os.walk(folder.path):
        for name in names:
            status = _tried((Path(place) / name).stat)
            if status is not None:
                found.append(status.st_mtime)
    return max(found, default=None)


def _total(histories: Iterable[list[dict[str, str]]]) -> float:
    return sum(_number(row, "seconds") or 0.0 for rows in histories for row in rows)


def _number(values: Mapping[str, Any], key: str) -> float | None:
    try:
        value = float(values[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _tried(read: Callable[[], Value]) -> Value | None:
    """What is read, or None: another process may be writing or removing it."""
    try:
        return read()
    except (EmodartsError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
