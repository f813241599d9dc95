"""Predictions of test utterances, and the CSV file that holds them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emodarts import files
from emodarts.errors import RunError, list_some

Runs = dict[int, dict[int, tuple["Prediction", ...]]]
"""Predictions by fold and seed, sorted by utterance name."""

_COLUMNS = ("fold", "seed", "name", "speaker", "label", "predicted")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class that one trained system gave to one test utterance.

    Attributes
    ----------
    name : of the utterance, unique in its corpus.
    speaker : of the utterance, or None where the corpus does not name one.
    fold, seed : of the trained system.
    label, predicted : true and predicted class.
    probabilities : one for each class, in the order of the classes.
    """

    name: str
    speaker: str | None
    fold: int
    seed: int
    label: str
    predicted: str
    probabilities: tuple[float, ...]


def write_predictions(
    path: Path, predictions: Iterable[Prediction], classes: Sequence[str]
) -> None:
    """Write predictions as CSV, atomically; :func:`read_predictions` returns them exactly.

    Columns are ``fold, seed, name, speaker, label, predicted`` and ``p_<class>`` for each
    class. A speaker of None is an empty field.

    Raises
    ------
    RunError
        If the number of probabilities is not the number of classes.
    WriteError
        If the file cannot be written.
    """
    columns = [f"p_{name}" for name in classes]
    rows = []
    for item in predictions:
        if len(item.probabilities) != len(classes):
            raise RunError(
                f"the prediction of {item.name!r} has {len(item.probabilities)} probabilities "
                f"for {len(classes)} classes ({', '.join(classes)})"
            )
        row: dict[str, object] = {column: getattr(item, column) for column in _COLUMNS}
        probabilities = map(float, item.probabilities)
        rows.append({**row, **dict(zip(columns, probabilities, strict=True))})
    files.write_csv(path, [*_COLUMNS, *columns], rows)


def read_predictions(path: Path) -> tuple[tuple[Prediction, ...], tuple[str, ...]]:
    """Read predictions and the classes, in their order, from a CSV file.

    Raises
    ------
    RunError
        For a missing or empty file, a missing column, or an invalid value: the message names
        the file and the line.
    """
    rows = files.read_csv(path, RunError)
    if not rows:
        raise RunError(f"{path} has no predictions")
    missing = [column for column in _COLUMNS if column not in rows[0]]
    classes = tuple(c[2:] for c in rows[0] if c.startswith("p_"))
    if missing or not classes:
        raise RunError(f"{path} has no column {(missing or ['p_<class>'])[0]!r}")
    predictions = []
    for line, row in enumerate(rows, start=2):
        try:
            predictions.append(_parse_row(row, classes))
        except ValueError as error:
            raise RunError(f"{path}, line {line}: {error}") from error
    return tuple(predictions), classes


def _parse_row(row: dict[str, str], classes: tuple[str, ...]) -> Prediction:
    for column in ("label", "predicted"):
        if row[column] not in classes:
            raise ValueError(f"{column} is {row[column]!r}; allowed: {', '.join(classes)}")
    probabilities = tuple(float(row[f"p_{name}"]) for name in classes)
    if not all(map(math.isfinite, probabilities)):
        raise ValueError(f"probabilities {probabilities} are not all finite")
    return Prediction(
        name=row["name"],
        speaker=row["speaker"] or None,
        fold=int(row["fold"]),
        seed=int(row["seed"]),
        label=row["label"],
        predicted=row["predicted"],
        probabilities=probabilities,
    )


def by_fold_and_seed(predictions: Iterable[Prediction]) -> Runs:
    """Sort predictions by fold, seed and name, and check that each utterance counts once.

    Raises
    ------
    RunError
        For no predictions, an utterance that occurs in two folds, twice for one seed, or not
        for every seed, or whose label or speaker changes.
    """
    found: defaultdict[int, defaultdict[int, list[Prediction]]]
    found = defaultdict(lambda: defaultdict(list))
    for item in predictions:
        found[item.fold][item.seed].append(item)
    if not found:
        raise RunError("there are no predictions to score")
    runs = {
        fold: {seed: tuple(sorted(by_seed[seed], key=lambda p: p.name)) for seed in sorted(by_seed)}
        for fold, by_seed in sorted(found.items())
    }
    _check_seeds(runs)
    _check_folds(runs)
    return runs


def _check_seeds(runs: Runs) -> None:
    """Every seed has one prediction for each utterance of each fold, with the same truth."""
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    for fold, by_seed in runs.items():
        first, *_ = ({p.name: (p.label, p.speaker) for p in run} for run in by_seed.values())
        for seed in seeds:
            run = by_seed.get(seed, ())
            facts = {p.name: (p.label, p.speaker) for p in run}
            if len(facts) < len(run):
                twice = [name for name, n in Counter(p.name for p in run).items() if n > 1]
                raise RunError(
                    f"fold {fold}, seed {seed}: {list_some(twice)} predicted more than once; "
                    "each test utterance must count once"
                )
            if differing := sorted(set(facts) ^ set(first)):
                raise RunError(
                    f"fold {fold}: the seeds cover different utterances, e.g. seed {seed} "
                    f"differs from seed {next(iter(by_seed))} in {list_some(differing)}"
                )
            if changed := [name for name in facts if facts[name] != first[name]]:
                raise RunError(
                    f"fold {fold}: label or speaker of {changed[0]!r} changes between seeds"
                )


def _check_folds(runs: Runs) -> None:
    home: dict[str, int] = {}
    for fold, by_seed in runs.items():
        for item in next(iter(by_seed.values())):
            if home.setdefault(item.name, fold) != fold:
                raise RunError(
                    f"utterance {item.name!r} is tested in fold {home[item.name]} and in fold "
                    f"{fold}; each test utterance must count once"
                )
