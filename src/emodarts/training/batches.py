"""Features and targets as tensors that stay on the device, or on the disk where they are large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.errors import TrainingError
from emodarts.scoring.metrics import confusion_matrix, ua
from emodarts.training.views import Views, valid_frames

#: Rows that statistics are computed of at a time.
_ROWS_AT_ONCE = 64

#: Genders in the order of their logits, and the index of one that is not known.
_GENDERS, UNKNOWN = ("female", "male"), -1


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each coefficient or band, from training utterances.

    Attributes
    ----------
    mean, sd : (C, F) float32.
    """

    mean: Tensor
    sd: Tensor

    @classmethod
    def fit(cls, features: Tensor, rows: Tensor | None = None) -> Normalisation:
        """Statistics over pieces and frames of features ``(M, C, F, T)``; NaN is left out.

        Only those at ``rows`` count, if given. Memory does not grow with their number.
        """
        chosen = torch.arange(len(features)) if rows is None else rows
        chunks = torch.split(chosen, _ROWS_AT_ONCE)
        shape = features.shape[1:3]
        total, count, squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
        for chunk in chunks:
            values = features[chunk].double()
            total += values.nansum(dim=(0, 3))
            count += (~torch.isnan(values)).sum(dim=(0, 3))
        mean = total / count
        for chunk in chunks:
            values = features[chunk].double()
            squares += (values - mean[:, :, None]).square().nansum(dim=(0, 3))
        return cls(mean.float(), (squares / count).sqrt().clamp_min(1e-5).float())

    def apply(self, features: Tensor) -> Tensor:
        """Features ``(..., C, F, T)`` -> the same shape with mean 0 and deviation 1."""
        mean, sd = self.mean.to(features.device), self.sd.to(features.device)
        return (features - mean[..., None]) / sd[..., None]


@dataclass(frozen=True, eq=False)
class MappedRows:
    """Rows of features that stay on the disk, normalised when they are read.

    Attributes
    ----------
    source : (N, C, F, T), mapped into memory.
    rows : (M,) of the source.
    normalisation : of what is read.
    device : that it is brought to.
    """

    source: Tensor
    rows: Tensor
    normalisation: Normalisation
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """``(M, C, F, T)``."""
        return len(self.rows), *self.source.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: slice) -> MappedRows: ...

    @overload
    def __getitem__(self, index: Tensor) -> Tensor: ...

    def __getitem__(self, index: slice | Tensor) -> MappedRows | Tensor:
        """Normalised features ``(B, C, F, T)`` of the rows at ``index``; a slice reads none."""
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self.normalisation.apply(self.source[self.rows[index.cpu()]]).to(self.device)

    @cached_property
    def lengths(self) -> Tensor:
        """Frames of each row that are not missing ``(M,)``."""
        return valid_frames(self.source[:, :1, :1][self.rows])


@dataclass(frozen=True)
class Part:
    """Normalised features and targets of some utterances, one row for each piece of them.

    Attributes
    ----------
    features : (M, C, F, T) float32, in memory or on the disk; NaN where frames are missing.
    targets : (M,) class indices.
    owners : (M,) utterance that each row is a piece of, counted from 0, ascending; None where
        every utterance is one piece.
    variants : V augmented versions of all features.
    views : draw what batches are made of; None takes the features as they are.
    genders : (M,) of the speakers, see :func:`gender_indices`; None where nobody asked for them.
    """

    features: Tensor | MappedRows
    targets: Tensor
    owners: Tensor | None = None
    variants: Sequence[Tensor | MappedRows] = ()
    views: Views | None = None
    genders: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_versions(self) -> int:
        """Versions of every row: the original and its variants."""
        return 1 + len(self.variants)

    @property
    def utterance_targets(self) -> Tensor:
        """Class index of each utterance ``(N,)``."""
        if self.owners is None:
            return self.targets
        first = torch.ones_like(self.owners, dtype=torch.bool)
        first[1:] = self.owners[1:] != self.owners[:-1]
        return self.targets[first]

    def batch(self, index: Tensor, version: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What a network is trained on: features and targets of the rows at ``index``.

        ``version`` ``(len(index),)`` is 0 for the original and v for ``variants[v - 1]``. Views are
        drawn anew in every call.
        """
        index = index.to(self.targets.device)
        features = self.features[index]
        if version is not None:
            for number, variant in enumerate(self.variants, 1):
                varied = torch.eq(version, number).to(index.device)
                features[varied] = variant[index[varied]]
        if self.views is not None:
            features = self.views.draw(features)
        return features, self.targets[index]


def join_pieces(logits: Tensor, owners: Tensor | None) -> Tensor:
    """Mean of the pieces' probabilities: logits ``(M, K)`` -> log-probabilities ``(N, K)``.

    Without owners every utterance is one piece, and its logits are returned as they are: softmax
    and cross-entropy of both are the same.
    """
    if owners is None:
        return logits
    n = int(owners[-1]) + 1
    sums = logits.new_zeros((n, logits.shape[1]), dtype=torch.float64)
    sums.index_add_(0, owners, torch.softmax(logits.double(), dim=1))
    return (sums / torch.bincount(owners, minlength=n)[:, None]).log()


def shuffled_batches(n: int, size: int, seed: int) -> list[Tensor]:
    """Indices 0 to n - 1 in random order, in batches of nearly equal size at most ``size``.

    Every index occurs once. Equal sizes, so that no tiny last batch has noisy statistics.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return list(torch.tensor_split(order, n_batches(n, size)))


def n_batches(n: int, size: int) -> int:
    """Number of batches of at most ``size`` (at least 2) that ``n`` rows make.

    No batch is one row alone, of which batch norm has no variance: batches of 2 may be of 3.
    """
    return max(1, min(-(-n // size), n // 2))


def endless_batches(n: int, size: int, seeds: Callable[[int], int]) -> Iterator[Tensor]:
    """Batches of one shuffle after another; ``seeds`` gives the seed of each shuffle."""
    cycle = 0
    while True:
        yield from shuffled_batches(n, size, seeds(cycle))
        cycle += 1


@torch.inference_mode()
def predict_logits(
    network: nn.Module, features: Tensor | MappedRows, batch_size: int = 64
) -> Tensor:
    """Logits ``(M, K)`` of features ``(M, C, F, T)`` in eval mode; the mode is restored.

    Frames that are missing (NaN) are cut off: maps of one length share a batch, so that nothing in
    the network takes padding for sound.
    """
    training = network.training
    network.eval()
    try:
        lengths = valid_frames(features) if isinstance(features, Tensor) else features.lengths
        order = torch.argsort(lengths, stable=True)
        _, counts = torch.unique_consecutive(lengths[order], return_counts=True)
        found = [
            network(features[rows][..., : int(lengths[rows[0]])])
            for group in torch.split(order, counts.tolist())
            for rows in torch.split(group, batch_size)
        ]
        return torch.cat(found)[torch.argsort(order)]
    finally:
        network.train(training)


def loss_and_ua(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and UA of logits ``(N, K)`` and class indices ``(N,)``."""
    loss = float(functional.cross_entropy(logits, targets))
    truth, predicted = targets.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()
    return loss, float(ua(confusion_matrix(truth, predicted, logits.shape[1])))


def gender_loss(logits: Tensor, genders: Tensor) -> Tensor:
    """Cross-entropy of logits ``(B, 2)``; utterances of unknown gender count as 0 in the mean."""
    summed = functional.cross_entropy(logits, genders, ignore_index=UNKNOWN, reduction="sum")
    return summed / len(genders)


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


def gender_indices(genders: Sequence[str | None]) -> Tensor:
    """0 for ``"female"``, 1 for ``"male"`` and :data:`UNKNOWN` for all else, ``(N,)``."""
    position = {name: k for k, name in enumerate(_GENDERS)}
    return torch.tensor([position.get(g or "", UNKNOWN) for g in genders], dtype=torch.long)
