"""The plan of a grid: its runs, their folders and trials, and how far each of them has come."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeAlias

from emodarts import files
from emodarts.audio.augment import AUGMENTATION_CODE_VERSION
from emodarts.audio.contents import Contents
from emodarts.audio.features import FEATURE_CODE_VERSION, FeatureExtractor
from emodarts.corpora import Corpus
from emodarts.dataset import Listing
from emodarts.errors import EmodartsError, RecipeError, RunError
from emodarts.experiments.grid import GridFile, GridRun
from emodarts.experiments.plan import asked_folds
from emodarts.layout import GridFolder, RunFolder, TrialFolder
from emodarts.recipe import Recipe
from emodarts.splits import Folds, make_folds

FORMAT = "emodarts.grid/1"

State: TypeAlias = Literal["done", "running", "failed", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "waiting")


@dataclass(frozen=True)
class TrialState:
    """How far a trial has come.

    Attributes
    ----------
    reason : why it failed, or ``""``.
    seconds : that it took, if it is done.
    """

    fold: int
    seed: int
    state: State
    reason: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class AskedRun:
    """A run that a grid asks for.

    Attributes
    ----------
    name : for tables.
    corpus : its name in the grid.
    groups : of runs that are compared among each other; ``("",)`` without groups.
    path : of the run folder, which need not exist yet.
    n_utterances : of the corpus, with the classes and styles of the recipe.
    trials : fold and seed of each trial that counts; the folder may have others.
    """

    name: str
    corpus: str
    groups: tuple[str, ...]
    path: Path
    n_utterances: int
    trials: tuple[tuple[int, int], ...]

    @property
    def folder(self) -> RunFolder:
        """Its files."""
        return RunFolder(self.path)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} on {self.corpus}"

    def states(self) -> list[TrialState]:
        """The state of each trial, as its folder shows it."""
        whole = self.fault()
        return [self._state(fold, seed, whole) for fold, seed in self.trials]

    def fault(self) -> str | None:
        """Why the run could not be planned or summed up; None if it could."""
        return _reason(self.folder.failure)

    def reasons(self) -> list[str]:
        """Why trials failed; a reason that all of them share stands once."""
        failed = [state for state in self.states() if state.state == "failed"]
        if len({state.reason for state in failed}) == 1 and len(failed) > 1:
            return [failed[0].reason]
        return [f"fold {s.fold} seed {s.seed}: {s.reason}" for s in failed]

    def _state(self, fold: int, seed: int, whole: str | None) -> TrialState:
        folder = self.folder.trial(fold, seed)
        if folder.result.is_file():
            return TrialState(fold, seed, "done", seconds=_seconds(folder))
        if files.holder(folder.path) is not None:
            return TrialState(fold, seed, "running")
        reason = whole if whole is not None else _reason(folder.failure)
        return TrialState(fold, seed, "waiting" if reason is None else "failed", reason or "")


def _seconds(folder: TrialFolder) -> float | None:
    try:
        return float(files.read_object(folder.result, RunError, "seconds")["seconds"])
    except (EmodartsError, TypeError, ValueError):
        return None


def _reason(path: Path) -> str | None:
    """Why something failed, from its file; None if it did not."""
    if not path.is_file():
        return None
    try:
        return str(files.read_object(path, RunError, "message")["message"])
    except RunError:
        return "for an unknown reason"


def is_grid(path: Path) -> bool:
    """Whether a folder is that of a grid."""
    return GridFolder(path).plan.is_file()


def asked_runs(out: Path) -> tuple[AskedRun, ...]:
    """The runs that the grid in a folder asks for; others that are there are of earlier versions.

    Raises
    ------
    RunError
        If the folder holds no grid.
    """
    folder = GridFolder(out)
    if not folder.plan.is_file():
        raise RunError(f"{out} is not the folder of a grid: it has no {folder.plan.name}")
    plan = files.read_object(folder.plan, RunError, "format", "runs")
    if plan["format"] != FORMAT:
        raise RunError(f"{folder.plan}: format is {plan['format']!r}; allowed: {FORMAT!r}")
    try:
        return tuple(
            AskedRun(
                name=str(entry["name"]),
                corpus=str(entry["corpus"]),
                groups=tuple(map(str, entry["groups"])),
                path=folder.run(entry["place"]).path,
                n_utterances=int(entry["n_utterances"]),
                trials=tuple((int(fold), int(seed)) for fold, seed in entry["trials"]),
            )
            for entry in plan["runs"]
        )
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{folder.plan} is broken: {error!r}") from error


def write_plan(out: Path, file: GridFile, runs: Sequence[AskedRun]) -> None:
    """Write what :func:`asked_runs` reads, and the grid file. Raises :class:`WriteError`."""
    folder = GridFolder(out)
    entries = [
        {
            "name": run.name,
            "corpus": run.corpus,
            "groups": list(run.groups),
            "place": run.path.relative_to(out).as_posix(),
            "n_utterances": run.n_utterances,
            "trials": [list(trial) for trial in run.trials],
        }
        for run in runs
    ]
    files.write_text(folder.grid, file.text)
    files.write_json(folder.plan, {"format": FORMAT, "runs": entries})


def count_states(runs: Sequence[AskedRun]) -> dict[State, int]:
    """Number of trials in each state."""
    found = Counter(trial.state for run in runs for trial in run.states())
    return {state: found[state] for state in STATES}


@dataclass(frozen=True)
class LaidOut:
    """A run with the place that a grid gives it.

    Attributes
    ----------
    run : with its recipe.
    corpus : all of it.
    asked : what is written to the grid's folder.
    """

    run: GridRun
    corpus: Corpus
    asked: AskedRun


def lay_out(file: GridFile, out: Path, store: Path, *, skip_bad: bool = False) -> list[LaidOut]:
    """Find the trials of every run, and the folder of each; nothing is written.

    A run's folder is named after the digest of all that decides its results: the keys of its
    recipe, the content of the audio, labels and folds, and the version of the code of features.

    Parameters
    ----------
    store : folder of the feature store, which caches what files hold.

    Raises
    ------
    EmodartsError
        If the grid file is wrong, a corpus cannot be read, or a split is impossible.
    """
    runs = file.runs()
    corpora = file.corpora(dict.fromkeys(run.corpus for run in runs))
    contents = {name: _contents(corpus, store) for name, corpus in corpora.items()}
    found: list[LaidOut] = []
    digests: dict[str, str] = {}
    for run in runs:
        corpus = corpora[run.corpus]
        chosen = corpus.select(run.recipe.labels, run.recipe.styles)
        evaluation = run.recipe.evaluation
        made = make_folds(chosen, evaluation.split, evaluation.allow_speaker_overlap)
        trials = tuple(
            (fold.index, seed)
            for fold in asked_folds(evaluation, made)
            for seed in evaluation.seeds
        )
        digest = _digest(run.recipe, chosen, made, contents[run.corpus], skip_bad)
        if digest in digests:
            raise RecipeError(
                f"the grid has one run twice: {digests[digest]} and {run.title} have the same "
                "keys and data; exclude one of them"
            )
        digests[digest] = run.title
        asked = AskedRun(
            run.name, run.corpus, run.groups, _place(out, run, digest), len(chosen), trials
        )
        found.append(LaidOut(run, corpus, asked))
    return found


def _contents(corpus: Corpus, store: Path) -> dict[Path, str]:
    """SHA-256 of each audio file; ``""`` of one that cannot be read, which the plan refuses."""
    cache = Contents(store / "contents")
    found: dict[Path, str] = {}
    for utterance in corpus:
        if utterance.path not in found:
            try:
                found[utterance.path] = cache.of(utterance.path)
            except OSError:
                found[utterance.path] = ""
    return found


def _digest(
    recipe: Recipe, chosen: Corpus, made: Folds, contents: Mapping[Path, str], skip_bad: bool
) -> str:
    """Identify all that decides the results of a run, but which of its trials are asked for."""
    keys = recipe.to_dict()
    del keys["name"], keys["evaluation"]["folds"], keys["evaluation"]["seeds"]
    if recipe.evaluation.split.endswith(".json"):
        del keys["evaluation"]["split"]  # the folds count, not where their file lies
    listing = Listing(
        corpus=chosen.name,
        notice=chosen.notice,
        classes=chosen.classes,
        utterances=chosen.utterances,
        contents=tuple(contents[u.path] for u in chosen),
        sounds=("",) * len(chosen),
        fingerprints={
            name: FeatureExtractor(spec).fingerprint for name, spec in recipe.inputs.items()
        },
    )
    return files.digest_of(
        {
            "recipe": keys,
            "data": listing.digest,
            "folds": [_folds_of(chosen, made)],
            "code": [FEATURE_CODE_VERSION, AUGMENTATION_CODE_VERSION],
            "skip_bad": skip_bad,
        }
    )


def _folds_of(chosen: Corpus, made: Folds) -> list[Any]:
    names = [u.name for u in chosen]
    return [
        [
            fold.index,
            [[names[i] for i in part] for part in (fold.members, fold.test, fold.validation)],
            [[*key, parts.names(chosen.utterances)] for key, parts in fold.recorded.items()],
        ]
        for fold in made.folds
    ]


def _place(out: Path, run: GridRun, digest: str) -> Path:
    """The folder of a run: one that is there, whatever it was called, or a new one."""
    end = digest[:12]
    there = sorted(out.glob(f"*/*-{end}"))
    if there:
        return there[0]
    return out / _as_name(run.corpus) / f"{_as_name(run.name)[:80]}-{end}"


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", text).strip("._") or "run"


def estimates(runs: Sequence[AskedRun]) -> Iterator[float | None]:
    """Seconds that a trial of each run takes, from finished ones; None: nothing is known.

    They are those of the run itself, else those of the same recipe on other corpora in proportion
    to the utterances.
    """
    measured: dict[tuple[str, str], float] = {}
    for run in runs:
        seconds = [t.seconds for t in run.states() if t.seconds is not None]
        if seconds:
            measured[run.name, run.corpus] = fmean(seconds)
    for run in runs:
        others = [
            measured[other.name, other.corpus] * run.n_utterances / other.n_utterances
            for other in runs
            if other.name == run.name and (other.name, other.corpus) in measured
        ]
        yield measured.get((run.name, run.corpus), fmean(others) if others else None)
