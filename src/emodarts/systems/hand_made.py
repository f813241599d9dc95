"""The hand-engineered CNN that the papers compare with (arXiv 2305.14402)."""

from __future__ import annotations

from torch import Tensor, nn

from emodarts.recipe import FeatureSpec
from emodarts.recipe.system import HandMadeCNNSpec
from emodarts.systems.neural import FittedNetwork, fit_network, restore_network
from emodarts.systems.system import FitTask, Outcome, Saved
from emodarts.training.classifier import Classifier


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
        sizes = [((size + 4 - 2) // 2 + 1) // 2 for size in (n_features, n_frames)]
        self.layers = nn.Sequential(
            nn.Conv2d(n_channels, 1, 2, stride=2, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
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


class HandMadeCNN:
    """Trains the hand-engineered CNN."""

    def __init__(self, spec: HandMadeCNNSpec) -> None:
        self.spec = spec

    def fit(self, task: FitTask) -> Outcome:
        """Train on the parts for it."""
        (spec,) = task.recipe.inputs.values()
        return fit_network(task, lambda training: self._network(spec, task.n_classes), {})

    def restore(self, saved: Saved) -> FittedNetwork:
        """The network of a bundle; see :meth:`emodarts.systems.system.System.restore`."""
        (spec,) = saved.inputs.values()
        return restore_network(self._network(spec, len(saved.classes)), saved)

    def _network(self, spec: FeatureSpec, n_classes: int) -> HandMadeNetwork:
        return HandMadeNetwork(
            self.spec, spec.n_channels, spec.n_features, spec.n_frames, n_classes
        )
