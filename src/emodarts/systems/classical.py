"""Linear models on the first input, averaged over time: the systems that a network must beat."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts.cost import Meter
from emodarts.recipe import FeatureSpec, Recipe
from emodarts.recipe.system import LogisticRegressionSpec, SVMSpec
from emodarts.systems.system import Cost, FitTask, Outcome, Saved

Pool = Callable[[Tensor, FeatureSpec], NDArray[np.float64]]
"""Maps ``(M, C, F, T)`` to one row of numbers for each ``(M, D)``."""

_MEAN_COEFFICIENTS = 40
_ROWS_AT_ONCE = 256


def mean_cepstrum(features: Tensor, spec: FeatureSpec) -> NDArray[np.float64]:
    """Means over frames of the first channel: ``(M, C, F, T)`` -> ``(M, D)``.

    Of MFCCs the first 40 are taken. Log-mel maps go through the DCT that MFCCs have behind them
    already, and give as many. Of all other kinds every feature is taken.
    """
    mean: NDArray[np.float64] = features[:, 0].double().nanmean(dim=2).cpu().numpy()
    if spec.kind == "log_mel":
        from scipy.fft import dct  # slow to import

        mean = dct(mean, norm="ortho", axis=1)
    return mean[:, :_MEAN_COEFFICIENTS] if spec.kind in ("mfcc", "log_mel") else mean


def mean_of_all(features: Tensor, spec: FeatureSpec) -> NDArray[np.float64]:
    """Means over frames of every channel and feature: ``(M, C, F, T)`` -> ``(M, C * F)``."""
    mean: NDArray[np.float64] = features.double().nanmean(dim=3).flatten(1).cpu().numpy()
    return mean


@dataclass(frozen=True)
class LinearModel:
    """Softmax of ``((x - mean) / sd) W^T + b`` for pooled features x.

    Attributes
    ----------
    pool : from maps to x.
    spec : of the maps.
    mean, sd : (D,) float64.
    weight, bias : (K, D) and (K,) float64.
    """

    pool: Pool
    spec: FeatureSpec
    mean: Tensor
    sd: Tensor
    weight: Tensor
    bias: Tensor

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Class probabilities ``(B, K)``; they are not calibrated."""
        features = next(iter(inputs.values()))
        x = torch.from_numpy(self.pool(features, self.spec))
        scores = (x - self.mean) / self.sd @ self.weight.t() + self.bias
        return torch.softmax(scores, dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Statistics and weights."""
        tensors = {"mean": self.mean, "sd": self.sd, "weight": self.weight, "bias": self.bias}
        return tensors, {}


class _Linear:
    """Fits a linear classifier of scikit-learn to all development utterances, standardised."""

    pool: Pool

    @abstractmethod
    def estimator(self, seed: int) -> Any:
        """A classifier with ``coef_`` and ``intercept_``."""

    def fit(self, task: FitTask) -> Outcome:
        """Fit to all utterances that are not tested, since nothing has to be chosen on some."""
        meter = Meter()
        name, spec = next(iter(task.recipe.inputs.items()))
        indices = task.parts.development
        rows, position = task.data.rows(indices)
        features, pool = task.data.maps[name].features, type(self).pool
        # Features may be larger than memory.
        parts = torch.split(rows, _ROWS_AT_ONCE)
        x = np.concatenate([pool(features[part], spec) for part in parts])
        targets = task.data.targets(indices)
        y = (targets if position is None else targets[position]).numpy()
        mean, sd = x.mean(axis=0), x.std(axis=0)
        sd[sd == 0.0] = 1.0
        estimator = self.estimator(task.seed)
        estimator.fit((x - mean) / sd, y)
        weight, bias = estimator.coef_, estimator.intercept_
        if len(weight) == 1:  # two classes have one score, whose sign decides
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        values = (torch.from_numpy(np.ascontiguousarray(v)) for v in (mean, sd, weight, bias))
        fitted = LinearModel(pool, spec, *values)
        return Outcome(fitted, Cost(weight.size + bias.size, weight.size, meter.spent()))

    def parameters(self, recipe: Recipe, n_classes: int) -> int:
        """A weight for each pooled feature and a bias, for each class."""
        spec = next(iter(recipe.inputs.values()))
        one_frame = torch.zeros(1, spec.n_channels, spec.n_features, 1, device="cpu")
        return (1 + int(type(self).pool(one_frame, spec).shape[1])) * n_classes

    def restore(self, saved: Saved) -> LinearModel:
        """The model of some tensors. Raises ``ValueError`` if their shapes do not fit."""
        spec = next(iter(saved.inputs.values()))
        mean, sd, weight, bias = (saved.tensors[k] for k in ("mean", "sd", "weight", "bias"))
        n_classes = len(saved.classes)
        if weight.shape != (n_classes, len(mean)) or bias.shape != (n_classes,):
            raise ValueError(
                f"weights of shape {tuple(weight.shape)} for {n_classes} classes and "
                f"{len(mean)} features"
            )
        return LinearModel(type(self).pool, spec, mean, sd, weight, bias)


class LinearSVM(_Linear):
    """Linear SVM, one class against the rest, with balanced classes."""

    pool = staticmethod(mean_of_all)

    def __init__(self, spec: SVMSpec) -> None:
        self.spec = spec

    def estimator(self, seed: int) -> Any:
        """``sklearn.svm.LinearSVC``."""
        from sklearn.svm import LinearSVC

        return LinearSVC(
            C=self.spec.cost, class_weight="balanced", random_state=seed % 2**32, max_iter=20000
        )


class LogisticRegression(_Linear):
    """Logistic regression with balanced classes."""

    pool = staticmethod(mean_cepstrum)

    def __init__(self, spec: LogisticRegressionSpec) -> None:
        self.spec = spec

    def estimator(self, seed: int) -> Any:
        """``sklearn.linear_model.LogisticRegression``."""
        from sklearn.linear_model import LogisticRegression as Estimator

        return Estimator(max_iter=5000, class_weight="balanced")
