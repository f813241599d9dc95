"""UA, WA and macro F1 of confusion matrices, of one set of utterances, and of a whole run.

Every score is a fraction between 0 and 1. Rows of a confusion matrix are the true classes,
columns the predicted ones, both in the order of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts.errors import RunError, list_some
from emodarts.scoring.intervals import (
    BOOTSTRAP_SAMPLES,
    FEWEST_UNITS,
    bootstrap,
    percentile_interval,
)
from emodarts.scoring.predictions import Prediction, by_fold_and_seed

UA_DEFINITION = "UA: unweighted accuracy, the mean of the class recalls"
WA_DEFINITION = (
    "WA: weighted accuracy, the share of correctly classified utterances (plain accuracy)"
)

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


METRICS = ("ua", "wa", "macro_f1")
"""What every table shows of a set of answers."""


def confusion_matrix(truth: Indices, predicted: Indices, n_classes: int) -> Floats:
    """Confusion matrix [shape=(C, C)] of class indices [shape=(n,)].

    >>> confusion_matrix(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2).tolist()
    [[2.0, 1.0], [0.0, 1.0]]
    """
    return _count((truth, predicted), (n_classes, n_classes))


def recall(confusion: Floats) -> Floats:
    """``hits / true`` of each class [shape=(..., C)]; NaN for a class absent from the truth."""
    return _ratio(_hits(confusion), confusion.sum(-1))


def precision(confusion: Floats) -> Floats:
    """``hits / predicted`` of each class [shape=(..., C)]; NaN for one that is not predicted."""
    return _ratio(_hits(confusion), confusion.sum(-2))


def f1(confusion: Floats) -> Floats:
    """``2 hits / (true + predicted)`` of each class [shape=(..., C)].

    The harmonic mean of recall and precision; NaN for a class absent from the truth.
    """
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    return _ratio(2 * _hits(confusion), np.where(true > 0, true + predicted, 0))


def ua(confusion: Floats) -> Floats:
    """Unweighted accuracy [shape=(...)] of confusion matrices [shape=(..., C, C)].

    The mean of the class recalls, over the classes that occur in the truth.

    >>> float(ua(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])))  # 3/4 and 1/2
    0.625
    """
    return _mean_over_present(recall(confusion))


def wa(confusion: Floats) -> Floats:
    """Weighted accuracy [shape=(...)] of confusion matrices [shape=(..., C, C)].

    The share of correctly classified utterances.

    >>> float(wa(np.array([[3, 1], [3, 1]])))  # 4 of 8
    0.5
    """
    return np.asarray(_hits(confusion).sum(-1) / confusion.sum((-2, -1)))


def macro_f1(confusion: Floats) -> Floats:
    """Macro F1 [shape=(...)] of confusion matrices [shape=(..., C, C)].

    The mean of the class F1 scores, over the classes that occur in the truth.

    >>> float(macro_f1(np.array([[2, 0], [4, 2]])))  # 2 * 2 / (2 + 6) and 2 * 2 / (6 + 2)
    0.5
    """
    return _mean_over_present(f1(confusion))


def _hits(confusion: Floats) -> Floats:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _mean_over_present(scores: Floats) -> Floats:
    """Mean of class scores [shape=(..., C)] without the NaN of absent classes.

    Scores are added up one after another, so that absent classes do not change the last bit.
    """
    absent = np.isnan(scores)
    totals = np.cumsum(np.where(absent, 0, scores), axis=-1)[..., -1]
    return np.asarray(totals / (~absent).sum(-1))


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of utterances, as fractions.

    Attributes
    ----------
    ua, wa, macro_f1 : see the functions of these names.
    confusion : counts [classes][classes], rows true, columns predicted classes.
    absent : classes that do not occur in the truth; left out of ``ua`` and ``macro_f1``.
    """

    ua: float
    wa: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    absent: tuple[str, ...]


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

    Examples
    --------
    >>> scores = score(["joy", "joy", "fear"], ["joy", "fear", "fear"], ["fear", "joy", "anger"])
    >>> scores.ua, scores.confusion, scores.absent
    (0.75, ((1, 0, 0), (1, 1, 0), (0, 0, 0)), ('anger',))
    """
    if not truth or len(truth) != len(predicted):
        raise RunError(
            f"cannot score {len(predicted)} predictions of {len(truth)} utterances; "
            "at least one utterance and one prediction for each are needed"
        )
    confusion = confusion_matrix(
        _indices(truth, classes), _indices(predicted, classes), len(classes)
    )
    absent = tuple(name for name, n in zip(classes, confusion.sum(1), strict=True) if n == 0)
    return Scores(
        ua=float(ua(confusion)),
        wa=float(wa(confusion)),
        macro_f1=float(macro_f1(confusion)),
        confusion=_as_counts(confusion),
        absent=absent,
    )


def _metrics(confusion: Floats) -> Floats:
    """UA, WA and macro F1 [shape=(..., 3)] of confusion matrices [shape=(..., C, C)]."""
    return np.stack([ua(confusion), wa(confusion), macro_f1(confusion)], axis=-1)


def _indices(labels: Iterable[str], classes: Sequence[str]) -> Indices:
    index = {name: i for i, name in enumerate(classes)}
    if len(index) != len(classes):
        raise RunError(f"a class occurs twice in {', '.join(classes)}")
    labels = list(labels)
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise RunError(f"unknown class {list_some(unknown)}; allowed: {', '.join(classes)}")
    return np.array([index[label] for label in labels], dtype=np.intp)


def _as_counts(confusion: Floats) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in confusion)


def _count(where: tuple[Indices, ...], shape: tuple[int, ...]) -> Floats:
    """How often each index occurs, as an array of ``shape``."""
    flat = np.ravel_multi_index(where, shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape).astype(np.float64)


def confusions_by_unit(
    predictions: Sequence[Prediction], units: Sequence[str] | Sequence[int], classes: Sequence[str]
) -> Floats:
    """Confusion matrices [shape=(units, seeds, C, C)] of predictions, by unit and seed.

    Parameters
    ----------
    units : of each prediction, e.g. its speaker; the first axis has them sorted.
    """
    unit_names, unit = np.unique(units, return_inverse=True)
    seeds, seed = np.unique([p.seed for p in predictions], return_inverse=True)
    truth = _indices((p.label for p in predictions), classes)
    predicted = _indices((p.predicted for p in predictions), classes)
    shape = (len(unit_names), len(seeds), len(classes), len(classes))
    return _count((unit, seed, truth, predicted), shape)


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
        over seeds; ``*_sd_folds`` is the standard deviation (ddof 1) of those fold means,
        ``*_sd_seeds`` that of each seed's mean over folds; both are None for a single one.
        ``pooled`` scores all utterances as one set (mean over seeds) with a 95 % percentile
        bootstrap interval that resamples ``bootstrap_unit``: speakers, or utterances where
        not all speakers are known; None for fewer than three. ``confusion`` sums over folds and
        seeds, ``n_test`` counts utterances once, and ``folds`` has the scores of each fold.

    Raises
    ------
    RunError
        For an unknown class, or for what :func:`by_fold_and_seed` refuses.
    """
    runs = by_fold_and_seed(predictions)
    seeds = list(next(iter(runs.values())))
    counts = confusions_by_unit(predictions, [p.fold for p in predictions], classes)
    table = _metrics(counts)
    fold_means, seed_means = table.mean(1), table.mean(0)
    absent = counts[:, 0].sum(-1) == 0
    return {
        **_named(fold_means.mean(0)),
        **_named(_sd(fold_means), "_sd_folds"),
        **_named(_sd(seed_means), "_sd_seeds"),
        "pooled": _pooled(predictions, classes),
        "confusion": [list(row) for row in _as_counts(counts.sum((0, 1)))],
        "classes": list(classes),
        "n_test": sum(len(by_seed[seeds[0]]) for by_seed in runs.values()),
        "folds": [
            {
                "fold": fold,
                "n_test": len(by_seed[seeds[0]]),
                **_named(fold_means[i]),
                "absent_classes": [c for c, gone in zip(classes, absent[i], strict=True) if gone],
                "test_speakers": sorted({p.speaker for p in by_seed[seeds[0]] if p.speaker}),
                "seeds": [{"seed": s, **_named(table[i, j])} for j, s in enumerate(seeds)],
            }
            for i, (fold, by_seed) in enumerate(runs.items())
        ],
    }


def _named(values: Floats | None, suffix: str = "") -> dict[str, float | None]:
    numbers = [None] * len(METRICS) if values is None else values.tolist()
    return {metric + suffix: value for metric, value in zip(METRICS, numbers, strict=True)}


def _sd(values: Floats) -> Floats | None:
    """Standard deviation (ddof 1) over the first axis; None for a single value."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else None


def _pooled(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any]:
    by_speaker = all(p.speaker is not None for p in predictions)
    units = [str(p.speaker) if by_speaker else p.name for p in predictions]
    counts = confusions_by_unit(predictions, units, classes)
    intervals: list[list[float] | None] = [None] * len(METRICS)
    if len(counts) >= FEWEST_UNITS:
        intervals = percentile_interval(bootstrap(counts, _mean_over_seeds)).tolist()
    pooled: dict[str, Any] = {}
    values = _mean_over_seeds(counts.sum(0)).tolist()
    for metric, value, interval in zip(METRICS, values, intervals, strict=True):
        pooled |= {metric: value, f"{metric}_interval": interval}
    unit = "speaker" if by_speaker else "utterance"
    return {**pooled, "bootstrap_samples": BOOTSTRAP_SAMPLES, "bootstrap_unit": unit}


def _mean_over_seeds(confusion: Floats) -> Floats:
    """Metrics [shape=(..., 3)] of confusion matrices [shape=(..., seeds, C, C)]."""
    return np.asarray(_metrics(confusion).mean(-2))
