"""The hand-engineered networks that the papers compare with (arXiv 2305.14402, 2403.14083)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from emodarts.recipe import FeatureSpec, Recipe
from emodarts.recipe.system import HandMadeCNNSpec, HandMadeRecurrentSpec
from emodarts.space.sequence_ops import Recurrent, TimeAttention, mean_over_time
from emodarts.systems.count import count_parameters
from emodarts.systems.neural import FittedNetwork, fit_network, restore_network
from emodarts.systems.system import FitTask, Outcome, Saved
from emodarts.training.classifier import Classifier
from emodarts.training.views import valid_frames

Size = TypeVar("Size", int, Tensor)


class HandMadeNetwork(Classifier):
    """Convolution of 2 x 2 with stride 2 and padding 2, max pooling of 2 x 2, two dense layers.

    35,017 parameters for one channel of 128 x 128 and four classes, as published. The published
    code has no activation and a softmax over the batch; here are ReLUs, and logits.

    Parameters
    ----------
    n_channels, n_features, n_frames : shape of the input.
    """

    def __init__(
        self, spec: HandMadeCNNSpec, n_channels: int, n_features: int, n_frames: int, n_classes: int
    ) -> None:
        super().__init__()
        sizes = [_size_after_convolution(size) for size in (n_features, n_frames)]
        self.layers = nn.Sequential(
            *_convolution(n_channels),
            nn.Flatten(),
            nn.Linear(sizes[0] * sizes[1], spec.hidden),
            nn.ReLU(),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> logits ``(B, K)``."""
        logits: Tensor = self.layers(features)
        return logits


class HandMadeRecurrentNetwork(Classifier):
    """Recurrent layers over frames, or over the map of the CNN, pooled over time; two dense layers.

    Time is kept. The published code gives its recurrent networks the whole map as one step, or
    takes the utterances of a batch for steps, and its attention is over features.

    Parameters
    ----------
    n_channels, n_features : of the input, of any number of frames.
    """

    def __init__(
        self, spec: HandMadeRecurrentSpec, n_channels: int, n_features: int, n_classes: int
    ) -> None:
        super().__init__()
        width = n_channels * n_features
        self.convolution: nn.Sequential | None = None
        if spec.convolution:
            self.convolution = nn.Sequential(*_convolution(n_channels))
            width = _size_after_convolution(n_features)
        self.recurrent = Recurrent(
            spec.recurrent, width, spec.width, spec.layers, bidirectional=spec.bidirectional
        )
        width = self.recurrent.out_features
        self.attention = TimeAttention(width) if spec.attention else None
        self.dense = nn.Sequential(
            nn.Linear(width, spec.hidden),
            nn.ReLU(),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)``, NaN where frames are missing -> logits ``(B, K)``."""
        steps: Tensor | None = None
        if torch.isnan(features[:, 0, 0, -1]).any():
            steps = valid_frames(features)
            features = features.masked_fill(torch.isnan(features), 0.0)
        if self.convolution is not None:
            features = self.convolution(features)
            steps = None if steps is None else _size_after_convolution(steps)
        x = features.flatten(1, 2).transpose(1, 2)  # (B, T, D)
        present = None
        if steps is not None:
            present = torch.arange(x.shape[1], device=x.device) < steps[:, None]
        x = self.recurrent(x, present)
        pooled = (self.attention or mean_over_time)(x, present)
        logits: Tensor = self.dense(pooled)
        return logits


def _convolution(n_channels: int) -> list[nn.Module]:
    """``(B, C, F, T)`` -> ``(B, 1, F', T')``, see :func:`_size_after_convolution`."""
    return [nn.Conv2d(n_channels, 1, 2, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2, 2)]


def _size_after_convolution(size: Size) -> Size:
    """Rows or steps of a map that had ``size`` before the convolution and the pooling."""
    return ((size + 4 - 2) // 2 + 1) // 2


class _HandMade:
    """Trains a network whose size depends on nothing but the recipe and the classes."""

    @abstractmethod
    def network(self, features: FeatureSpec, n_classes: int) -> Classifier:
        """The untrained network for maps of a kind."""

    def fit(self, task: FitTask) -> Outcome:
        """Train on the parts for it."""
        (features,) = task.recipe.inputs.values()
        return fit_network(task, lambda training: self.network(features, task.n_classes), {})

    def restore(self, saved: Saved) -> FittedNetwork:
        """The network of a bundle; see :meth:`emodarts.systems.system.System.restore`."""
        (features,) = saved.inputs.values()
        return restore_network(self.network(features, len(saved.classes)), saved)

    def parameters(self, recipe: Recipe, n_classes: int) -> int:
        """Trained numbers of the networks that answer together."""
        network = self.network(recipe.features, n_classes)
        return recipe.training.ensemble * count_parameters(network)


class HandMadeCNN(_HandMade):
    """Trains the hand-engineered CNN."""

    def __init__(self, spec: HandMadeCNNSpec) -> None:
        self.spec = spec

    def network(self, features: FeatureSpec, n_classes: int) -> HandMadeNetwork:
        """See :class:`HandMadeNetwork`."""
        return HandMadeNetwork(
            self.spec, features.n_channels, features.n_features, features.n_frames, n_classes
        )


class HandMadeRecurrent(_HandMade):
    """Trains a hand-engineered recurrent network."""

    def __init__(self, spec: HandMadeRecurrentSpec) -> None:
        self.spec = spec

    def network(self, features: FeatureSpec, n_classes: int) -> HandMadeRecurrentNetwork:
        """See :class:`HandMadeRecurrentNetwork`."""
        return HandMadeRecurrentNetwork(
            self.spec, features.n_channels, features.n_features, n_classes
        )
