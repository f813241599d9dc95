"""Calibration: a temperature that makes confidence agree with accuracy, and how far they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emodarts.scoring.confidence import reliability_of

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_RANGE = (0.05, 20.0)


def calibrated(probabilities: Floats, temperature: float) -> Floats:
    r"""Probabilities :math:`p^{1/T} / \sum p^{1/T}` [shape=(..., K)]; 1 leaves them as they are.

    The order of the classes stays (Guo et al., 2017, arXiv 1706.04599).
    """
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def fit_temperature(probabilities: Floats, truth: Indices) -> float:
    """The temperature of least cross-entropy, between 0.05 and 20.

    Targets are Platt's (1999): ``(N + 1) / (N + K)`` for the true class and ``1 / (N + K)`` for the
    others, so that N answers without a mistake do not make a model certain.

    Parameters
    ----------
    probabilities : of utterances [shape=(N, K)]
    truth : class indices [shape=(N,)]
    """
    from scipy.optimize import minimize_scalar  # slow to import

    n, n_classes = probabilities.shape
    targets = np.full((n, n_classes), 1.0 / (n + n_classes))
    targets[np.arange(n), truth] = (n + 1) / (n + n_classes)

    def loss(exponent: float) -> float:
        found = calibrated(probabilities, float(np.exp(exponent)))
        return float(-(targets * np.log(np.maximum(found, 1e-30))).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) - 1e-9 else 1.0


def calibration_error(probabilities: Floats, truth: Indices) -> float:
    """Expected calibration error (ECE) of the most probable classes.

    See :func:`emodarts.scoring.confidence.reliability_of`.

    Parameters
    ----------
    probabilities : [shape=(N, K)]
    truth : class indices [shape=(N,)]

    >>> p = np.array([[0.8, 0.2], [0.8, 0.2]])
    >>> round(calibration_error(p, np.array([0, 1])), 3)  # right half of the time, 80 % sure
    0.3
    """
    return reliability_of(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth).ece
