"""The hand-engineered networks that the papers compare with (arXiv 2305.14402, 2403.14083)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.recipe import FeatureSpec
from emodarts.recipe.system import HandMadeCNNSpec, HandMadeRecurrentSpec
from emodarts.space.sequence_ops import Recurrent, TimeAttention, mean_over_time
from emodarts.systems.neural import NetworkSystem
from emodarts.training.classifier import Classifier
from emodarts.training.views import valid_frames

Size = TypeVar("Size", int, Tensor)


class HandMadeNetwork(Classifier):
    """Convolution of 2 x 2 with stride 2 and padding 2, max pooling of 2 x 2, two dense layers.

    35,017 parameters for one channel of 128 x 128 and four classes, as published. The published
    code has no activation and a softmax over the batch; here are ReLUs, and logits. Missing frames
    are zeros, the mean of each feature, and so are those that a shorter map lacks.
    """

    def __init__(self, spec: HandMadeCNNSpec, features: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        self.n_frames = features.n_frames
        sizes = [_size_after_convolution(n) for n in (features.n_features, self.n_frames)]
        self.layers = nn.Sequential(
            *_convolution(features.n_channels),
            nn.Flatten(),
            nn.Linear(sizes[0] * sizes[1], spec.hidden),
            nn.ReLU(),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)``, NaN where frames are missing -> logits ``(B, K)``."""
        features = features.masked_fill(torch.isnan(features), 0.0)
        whole = functional.pad(features, (0, self.n_frames - features.shape[3]))
        logits: Tensor = self.layers(whole)
        return logits


class HandMadeRecurrentNetwork(Classifier):
    """Recurrent layers over frames, or over the map of the CNN, pooled over time; two dense layers.

    Time is kept. The published code gives its recurrent networks the whole map as one step, or
    takes the utterances of a batch for steps, and its attention is over features.
    """

    def __init__(self, spec: HandMadeRecurrentSpec, features: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        n_channels, n_features = features.n_channels, features.n_features
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


class HandMadeCNN(NetworkSystem):
    """Trains the hand-engineered CNN."""

    network = HandMadeNetwork


class HandMadeRecurrent(NetworkSystem):
    """Trains a hand-engineered recurrent network."""

    network = HandMadeRecurrentNetwork
