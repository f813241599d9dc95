"""How far confidence can be trusted: reliability, its expected error, and the surest mistakes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emodarts.scoring.predictions import Prediction

BINS = 10
"""Bins of equal width between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions whose confidence lies in ``(low, high]``; the first bin has 0, too.

    Attributes
    ----------
    count : of predictions.
    confidence, accuracy : their means; NaN in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of confidence, and the expected calibration error.

    Attributes
    ----------
    ece : mean of ``|accuracy - confidence|`` over bins, weighted by their counts.
    confidence, accuracy : means over all predictions.
    """

    bins: tuple[Bin, ...]
    ece: float
    confidence: float
    accuracy: float


def reliability(predictions: Sequence[Prediction], classes: Sequence[str]) -> Reliability:
    """Compare confidence, the probability of the predicted class, with how often it is right.

    All folds and seeds count as one set.

    Parameters
    ----------
    predictions : at least one.
    classes : in the order of the probabilities.
    """
    index = {name: k for k, name in enumerate(classes)}
    confidence = np.array([p.probabilities[index[p.predicted]] for p in predictions])
    return reliability_of(confidence, np.array([p.predicted == p.label for p in predictions]))


def reliability_of(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Reliability:
    r"""Compare the confidence of answers [shape=(N,)] with which of them are right [shape=(N,)].

    The expected calibration error is that of Naeini et al. (AAAI 2015) and Guo et al. (ICML 2017):
    :math:`\sum_b n_b / N \cdot |accuracy_b - confidence_b|` over :data:`BINS` bins.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    bins, ece = [], 0.0
    for k in range(BINS):
        inside = place == k
        n = int(inside.sum())
        means = [float(v[inside].mean()) if n else float("nan") for v in (confidence, right)]
        bins.append(Bin(float(edges[k]), float(edges[k + 1]), n, *means))
        ece += abs(means[1] - means[0]) * n / len(confidence) if n else 0.0
    return Reliability(tuple(bins), ece, float(confidence.mean()), float(right.mean()))


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test utterance that was given a wrong class.

    Attributes
    ----------
    answer : the class with the highest mean probability over seeds.
    confidence : that probability.
    truth : the mean probability of the true class.
    """

    name: str
    speaker: str | None
    fold: int
    label: str
    answer: str
    confidence: float
    truth: float


def surest_mistakes(
    predictions: Sequence[Prediction], classes: Sequence[str], most: int
) -> list[Mistake]:
    """The ``most`` utterances whose wrong answer is the most confident, the surest first.

    Probabilities are means over seeds, as one utterance is one mistake.
    """
    index = {name: k for k, name in enumerate(classes)}
    found: defaultdict[tuple[int, str], list[Prediction]] = defaultdict(list)
    for item in predictions:
        found[item.fold, item.name].append(item)
    mistakes = []
    for (fold, name), items in found.items():
        mean = np.mean([item.probabilities for item in items], axis=0)
        answer, label = int(mean.argmax()), items[0].label
        if classes[answer] != label:
            confidence, truth = float(mean[answer]), float(mean[index[label]])
            mistakes.append(
                Mistake(name, items[0].speaker, fold, label, classes[answer], confidence, truth)
            )
    return sorted(mistakes, key=lambda m: (-m.confidence, m.name))[:most]
