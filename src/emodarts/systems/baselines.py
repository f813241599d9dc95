"""What a searched network must beat: chance, the majority answer, a linear model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from torch import Tensor

from emodarts.recipe.features import FeatureSpec

_MEAN_COEFFICIENTS = 40


def majority_answer(train_labels: Sequence[str], n: int) -> list[str]:
    """The most frequent label of the training utterances, ``n`` times."""
    counts = Counter(train_labels)
    return [max(sorted(counts), key=lambda label: counts[label])] * n


def mean_features(features: Tensor, spec: FeatureSpec) -> NDArray[np.float64]:
    """Means over frames of the first channel: ``(N, C, F, T)`` -> ``(N, D)``.

    Of MFCCs the first 40 count. Log-mel maps go through the DCT that MFCCs have behind them
    already, and give as many. Of all other kinds every feature counts.
    """
    mean: NDArray[np.float64] = features[:, 0].double().mean(dim=2).cpu().numpy()
    if spec.kind == "log_mel":
        mean = scipy.fft.dct(mean, norm="ortho", axis=1)
    return mean[:, :_MEAN_COEFFICIENTS] if spec.kind in ("mfcc", "log_mel") else mean


def logistic_regression(
    train: NDArray[np.float64], train_labels: Sequence[str], test: NDArray[np.float64]
) -> list[str]:
    """Fit on standardised ``train`` ``(N, D)`` with balanced classes; label ``test`` ``(M, D)``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced")
    )
    model.fit(train, list(train_labels))
    return [str(label) for label in model.predict(test)]
