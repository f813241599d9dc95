"""Features and targets as tensors that stay on the device; no loader sits in the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.errors import TrainingError


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each coefficient or band, from training utterances.

    Attributes
    ----------
    mean, sd : (F,) float32.
    """

    mean: Tensor
    sd: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Normalisation:
        """Statistics over utterances and frames of features ``(N, 1, F, T)``."""
        values = features.double()
        sd = values.std(dim=(0, 1, 3), correction=0).clamp_min(1e-5)
        return cls(values.mean(dim=(0, 1, 3)).float(), sd.float())

    def apply(self, features: Tensor) -> Tensor:
        """Features ``(B, 1, F, T)`` -> the same shape with mean 0 and deviation 1."""
        mean, sd = self.mean.to(features.device), self.sd.to(features.device)
        return (features - mean[:, None]) / sd[:, None]


@dataclass(frozen=True)
class Part:
    """Normalised features ``(N, 1, F, T)`` and class indices ``(N,)`` of some utterances."""

    features: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features and targets of the utterances at ``index``."""
        index = index.to(self.targets.device)
        return self.features[index], self.targets[index]


def shuffled_batches(n: int, size: int, seed: int) -> list[Tensor]:
    """Indices 0 to n - 1 in random order, in batches of nearly equal size at most ``size``.

    Every index occurs once. Equal sizes, so that no tiny last batch has noisy statistics.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return list(torch.tensor_split(order, -(-n // size)))


def endless_batches(n: int, size: int, seeds: Callable[[int], int]) -> Iterator[Tensor]:
    """Batches of one shuffle after another; ``seeds`` gives the seed of each shuffle."""
    cycle = 0
    while True:
        yield from shuffled_batches(n, size, seeds(cycle))
        cycle += 1


@torch.inference_mode()
def predict_logits(network: nn.Module, features: Tensor, batch_size: int = 64) -> Tensor:
    """Logits ``(N, K)`` of features ``(N, 1, F, T)`` in eval mode; the mode is restored."""
    training = network.training
    network.eval()
    try:
        return torch.cat([network(batch) for batch in torch.split(features, batch_size)])
    finally:
        network.train(training)


def loss_and_ua(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean cross-entropy, and the mean recall of the classes that occur in ``targets``."""
    loss = float(functional.cross_entropy(logits, targets))
    truth = targets.cpu()
    right = (logits.argmax(dim=1).cpu() == truth).double()
    recalls = [float(right[truth == k].mean()) for k in torch.unique(truth)]
    return loss, sum(recalls) / len(recalls)


def require_finite(value: float, where: str) -> None:
    """Raise :class:`TrainingError` if a loss or the norm of a gradient is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingError(f"{where} is {value}; lower the learning rate, or clip gradients more")


def class_weights(targets: Tensor, n_classes: int) -> Tensor:
    """Inverse class frequencies with mean 1 over utterances: ``N / (K * count)``, ``(K,)``."""
    counts = torch.bincount(targets, minlength=n_classes).float()
    return len(targets) / (n_classes * counts)


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Class indices ``(N,)`` of labels in the fixed class order."""
    position = {name: k for k, name in enumerate(classes)}
    return torch.tensor([position[label] for label in labels], dtype=torch.long)
