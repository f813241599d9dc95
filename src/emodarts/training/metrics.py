"""Scores of predictions: one utterance set, a whole run, and two systems side by side.

Every score is a fraction between 0 and 1. Rows of a confusion matrix are the truth, columns
the prediction, both in the order of the classes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts import files
from emodarts.errors import RunError, list_some

UA_DEFINITION = "UA: unweighted accuracy, the mean of the class recalls"
WA_DEFINITION = "WA: weighted accuracy, the share of utterances that are right (plain accuracy)"

BOOTSTRAP_SAMPLES = 5000
PERMUTATIONS = 9999
"""Sign flips that are drawn; all of them are counted where there are no more than that."""

_SEED = 20240314
_METRICS = ("ua", "wa", "macro_f1")
_COLUMNS = ("fold", "seed", "name", "speaker", "label", "predicted")

Floats = NDArray[np.float64]
Runs = dict[int, dict[int, tuple["Prediction", ...]]]
"""Predictions by fold and seed, sorted by utterance name."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one trained network said about one test utterance.

    Attributes
    ----------
    name : of the utterance, unique in its corpus.
    speaker : who talks, or None where the corpus does not say.
    fold, seed : which network said it.
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


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of utterances, as fractions.

    Attributes
    ----------
    ua : mean of the class recalls.
    wa : share of right utterances.
    macro_f1 : mean of the class F1 scores.
    confusion : counts [classes][classes], rows truth, columns predicted.
    absent : classes without an utterance in the truth; left out of ``ua`` and ``macro_f1``.
    """

    ua: float
    wa: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    absent: tuple[str, ...]


def write_predictions(
    path: Path, predictions: Iterable[Prediction], classes: Sequence[str]
) -> None:
    """Write predictions as CSV, atomically; :func:`read_predictions` gives them back exactly.

    Columns are ``fold, seed, name, speaker, label, predicted`` and ``p_<class>`` for each
    class. A speaker of None is an empty field.

    Raises
    ------
    RunError
        If a prediction has not one probability for each class.
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
        For a missing or empty file, a missing column, or a value that cannot be: the message
        names the file and the line.
    """
    rows = files.read_csv(path, RunError)
    if not rows:
        raise RunError(f"{path} holds no predictions")
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
            raise ValueError(f"{column} is {row[column]!r}; legal: {', '.join(classes)}")
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


def score(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Scores:
    """Score the predicted against the true classes of one set of utterances.

    Parameters
    ----------
    truth, predicted : class names [shape=(n,)], ``n > 0``.
    classes : all class names; their order is that of the confusion matrix.

    Raises
    ------
    RunError
        For no utterances, two lengths, or a name that is not in ``classes``.
    """
    if not truth or len(truth) != len(predicted):
        raise RunError(
            f"cannot score {len(predicted)} predictions of {len(truth)} utterances; "
            "at least one utterance and one prediction for each are needed"
        )
    where = (_indices(truth, classes), _indices(predicted, classes))
    confusion = _count(where, (len(classes), len(classes)))
    ua, wa, macro_f1 = _metrics(confusion).tolist()
    absent = tuple(name for name, n in zip(classes, confusion.sum(1), strict=True) if n == 0)
    return Scores(ua, wa, macro_f1, _as_counts(confusion), absent)


def _indices(labels: Iterable[str], classes: Sequence[str]) -> NDArray[np.intp]:
    index = {name: i for i, name in enumerate(classes)}
    if len(index) != len(classes):
        raise RunError(f"classes {', '.join(classes)} name one twice")
    labels = list(labels)
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise RunError(f"unknown class {list_some(unknown)}; legal: {', '.join(classes)}")
    return np.array([index[label] for label in labels], dtype=np.intp)


def _as_counts(confusion: Floats) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in confusion)


def _metrics(confusion: Floats) -> Floats:
    """UA, WA and macro F1 [shape=(..., 3)] of confusion matrices [shape=(..., C, C)].

    ``F1 = 2 hits / (true + predicted)`` of a class; means are over the classes with truth.
    """
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    present = true > 0
    n_present = present.sum(-1)
    recall = hits / np.where(present, true, 1)
    f1 = 2 * hits / np.where(present, true + predicted, 1) * present
    return np.stack(
        [recall.sum(-1) / n_present, hits.sum(-1) / true.sum(-1), f1.sum(-1) / n_present], axis=-1
    )


def aggregate(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any]:
    """Score a whole run: every fold with every seed.

    Parameters
    ----------
    predictions : of all folds and seeds, in any order.
    classes : all class names, in the order of the confusion matrix.

    Returns
    -------
    dict
        JSON values. ``ua``, ``wa`` and ``macro_f1`` are means over folds of each fold's mean
        over seeds; ``*_sd_folds`` the standard deviation (ddof 1) of those fold means;
        ``*_sd_seeds`` that of each seed's mean over folds; both None for a single one.
        ``pooled`` scores all utterances as one set (mean over seeds) with a 95 % percentile
        bootstrap interval that resamples ``bootstrap_unit``: speakers, or utterances where
        not all speakers are known; None for a single unit. ``confusion`` sums over folds and
        seeds, ``n_test`` counts utterances once, and ``folds`` holds the scores of each fold.

    Raises
    ------
    RunError
        For no predictions, an unknown class, an utterance that occurs in two folds, twice for
        one seed, or not for every seed, or whose label or speaker changes.
    """
    runs = _group(predictions)
    seeds = list(next(iter(runs.values())))
    scores = {
        (fold, seed): score([p.label for p in run], [p.predicted for p in run], classes)
        for fold, by_seed in runs.items()
        for seed, run in by_seed.items()
    }
    table = np.array([[_row(scores[fold, seed]) for seed in seeds] for fold in runs])
    fold_means, seed_means = table.mean(1), table.mean(0)
    confusion = np.sum([np.array(s.confusion) for s in scores.values()], axis=0)
    return {
        **_named(fold_means.mean(0)),
        **_named(_sd(fold_means), "_sd_folds"),
        **_named(_sd(seed_means), "_sd_seeds"),
        "pooled": _pooled(predictions, seeds, classes),
        "confusion": [list(row) for row in _as_counts(confusion)],
        "classes": list(classes),
        "n_test": sum(len(by_seed[seeds[0]]) for by_seed in runs.values()),
        "folds": [
            {
                "fold": fold,
                "n_test": len(by_seed[seeds[0]]),
                **_named(fold_means[i]),
                "absent_classes": list(scores[fold, seeds[0]].absent),
                "test_speakers": sorted({p.speaker for p in by_seed[seeds[0]] if p.speaker}),
                "seeds": [{"seed": s, **_named(table[i, j])} for j, s in enumerate(seeds)],
            }
            for i, (fold, by_seed) in enumerate(runs.items())
        ],
    }


def _row(scores: Scores) -> tuple[float, float, float]:
    return scores.ua, scores.wa, scores.macro_f1


def _named(values: Floats | None, suffix: str = "") -> dict[str, float | None]:
    numbers = [None] * len(_METRICS) if values is None else values.tolist()
    return {metric + suffix: value for metric, value in zip(_METRICS, numbers, strict=True)}


def _sd(values: Floats) -> Floats | None:
    """Standard deviation (ddof 1) over the first axis; None for a single value."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else None


def _group(predictions: Iterable[Prediction]) -> Runs:
    """Sort predictions by fold, seed and name; refuse what would not count each one once."""
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
    """Each seed answers each utterance of each fold once, about the same truth."""
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    for fold, by_seed in runs.items():
        first = {p.name: p for p in next(iter(by_seed.values()))}
        for seed in seeds:
            run = by_seed.get(seed, ())
            counts = Counter(p.name for p in run)
            twice = [name for name, n in counts.items() if n > 1]
            if twice:
                raise RunError(
                    f"fold {fold}, seed {seed}: {list_some(twice)} predicted more than once; "
                    "each test utterance must count once"
                )
            differing = sorted(set(counts) ^ set(first))
            if differing:
                raise RunError(
                    f"fold {fold}: the seeds cover different utterances, e.g. seed {seed} "
                    f"differs from seed {next(iter(by_seed))} in {list_some(differing)}"
                )
            for item in run:
                other = first[item.name]
                if (item.label, item.speaker) != (other.label, other.speaker):
                    raise RunError(
                        f"fold {fold}: label or speaker of {item.name!r} changes between seeds"
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


def _pooled(
    predictions: Sequence[Prediction], seeds: Sequence[int], classes: Sequence[str]
) -> dict[str, Any]:
    by_speaker = all(p.speaker is not None for p in predictions)
    owners = [str(p.speaker) if by_speaker else p.name for p in predictions]
    counts = _unit_confusions(predictions, owners, seeds, classes)
    values = _metrics(counts.sum(0)).mean(0)
    intervals: list[list[float] | None] = [None] * len(_METRICS)
    if len(counts) > 1:
        samples = np.concatenate(list(_bootstrap(counts)))
        intervals = np.quantile(samples, [0.025, 0.975], axis=0).T.tolist()
    pooled: dict[str, Any] = {}
    for metric, value, interval in zip(_METRICS, values.tolist(), intervals, strict=True):
        pooled |= {metric: value, f"{metric}_interval": interval}
    unit = "speaker" if by_speaker else "utterance"
    return {**pooled, "bootstrap_samples": BOOTSTRAP_SAMPLES, "bootstrap_unit": unit}


def _unit_confusions(
    predictions: Sequence[Prediction],
    owners: Sequence[str],
    seeds: Sequence[int],
    classes: Sequence[str],
) -> Floats:
    """Confusion matrices [shape=(units, seeds, C, C)]; units are the sorted ``owners``."""
    units = {name: i for i, name in enumerate(sorted(set(owners)))}
    seed_index = {seed: i for i, seed in enumerate(seeds)}
    shape = (len(units), len(seeds), len(classes), len(classes))
    where = (
        np.array([units[owner] for owner in owners]),
        np.array([seed_index[p.seed] for p in predictions]),
        _indices((p.label for p in predictions), classes),
        _indices((p.predicted for p in predictions), classes),
    )
    return _count(where, shape)


def _count(where: tuple[NDArray[np.intp], ...], shape: tuple[int, ...]) -> Floats:
    """How often each index occurs, as an array of ``shape``."""
    flat = np.ravel_multi_index(where, shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape).astype(np.float64)


def _bootstrap(counts: Floats) -> Iterator[Floats]:
    """Metrics [shape=(samples, 3)], mean over seeds, of units drawn with replacement.

    How often each unit is drawn follows a multinomial distribution, so one matrix product
    sums the confusion matrices of many samples.
    """
    n_units, n_seeds, n_classes, _ = counts.shape
    flat = counts.reshape(n_units, -1)
    generator = np.random.default_rng(_SEED)
    chunk = max(1, 2**22 // max(flat.shape))
    for start in range(0, BOOTSTRAP_SAMPLES, chunk):
        size = min(chunk, BOOTSTRAP_SAMPLES - start)
        drawn = generator.multinomial(n_units, np.full(n_units, 1 / n_units), size)
        confusions = (drawn @ flat).reshape(size, n_seeds, n_classes, n_classes)
        yield _metrics(confusions).mean(1)


def paired_test(
    a: Sequence[Prediction], b: Sequence[Prediction], classes: Sequence[str]
) -> dict[str, Any]:
    """Test whether two systems differ on the same utterances, with speakers as units.

    For each speaker, UA (over the classes that the speaker has) and WA are averaged over
    seeds; the two systems' values are a pair. Under the null hypothesis the systems can be
    exchanged within each speaker, so the two-sided p-value counts sign flips of the
    differences: all of them, or :data:`PERMUTATIONS` drawn ones where there are more.

    Returns
    -------
    dict
        ``{n_speakers, n_utterances, ua: {difference, p}, wa: {difference, p}}``;
        a difference is the mean over speakers of ``a`` minus ``b``, as a fraction.

    Raises
    ------
    RunError
        If the systems were tested on different utterances or labels, an utterance has no
        speaker, there are fewer than two speakers, or for what :func:`aggregate` refuses.
    """
    from scipy.stats import permutation_test

    _group(a), _group(b)
    _check_same_utterances(a, b)
    speakers = {p.speaker for p in a}
    if len(speakers) < 2:
        raise RunError(f"a paired test needs at least two speakers, not {len(speakers)}")
    table_a, table_b = _speaker_metrics(a, classes), _speaker_metrics(b, classes)
    result: dict[str, Any] = {
        "n_speakers": len(speakers),
        "n_utterances": len({p.name for p in a}),
    }
    for column, metric in enumerate(_METRICS[:2]):
        pair = (table_a[:, column], table_b[:, column])
        test = permutation_test(
            pair,
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=PERMUTATIONS,
            random_state=np.random.default_rng(_SEED),
        )
        result[metric] = {"difference": float(test.statistic), "p": float(test.pvalue)}
    return result


def _check_same_utterances(a: Sequence[Prediction], b: Sequence[Prediction]) -> None:
    facts_a, facts_b = ({p.name: (p.label, p.speaker) for p in system} for system in (a, b))
    differing = sorted(set(facts_a) ^ set(facts_b))
    if differing:
        raise RunError(
            f"the systems were tested on different utterances: {len(facts_a)} and "
            f"{len(facts_b)}, {len(differing)} of them in one only, e.g. {differing[0]!r}"
        )
    changed = [name for name in facts_a if facts_a[name] != facts_b[name]]
    if changed:
        raise RunError(f"the systems know {list_some(changed)} by another label or speaker")
    silent = [name for name, (_, speaker) in facts_a.items() if speaker is None]
    if silent:
        raise RunError(
            f"a paired test takes speakers as units, and {len(silent)} utterance(s) have none, "
            f"e.g. {silent[0]!r}"
        )


def _speaker_metrics(predictions: Sequence[Prediction], classes: Sequence[str]) -> Floats:
    """UA, WA and macro F1 of each speaker [shape=(speakers, 3)], averaged over seeds."""
    seeds = sorted({p.seed for p in predictions})
    owners = [str(p.speaker) for p in predictions]
    return np.asarray(_metrics(_unit_confusions(predictions, owners, seeds, classes)).mean(1))
