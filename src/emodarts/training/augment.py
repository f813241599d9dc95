"""What training does to a batch or an epoch of features: masks, mixtures, repeated classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emodarts.recipe import MaskSpec


def mask_features(features: Tensor, spec: MaskSpec) -> Tensor:
    """Zero random bands and stretches of normalised features ``(B, C, F, T)``.

    Zero is the mean of normalised features. Width and place of each mask are uniform, for each
    utterance anew (SpecAugment, arXiv 1904.08779, section 2), and the same in all channels.
    """
    if spec.frequency_masks == 0 and spec.time_masks == 0:
        return features
    masked = torch.zeros_like(features, dtype=torch.bool)
    for axis, count, width in (
        (2, spec.frequency_masks, spec.frequency_width),
        (3, spec.time_masks, spec.time_width),
    ):
        size = features.shape[axis]
        shape = [1, 1, 1, 1]
        shape[axis] = size
        position = torch.arange(size, device=features.device).view(shape)
        for _ in range(count):
            draw = torch.rand(2, features.shape[0], 1, 1, 1, device=features.device)
            length = (draw[0] * (min(width, size) + 1)).floor()
            start = (draw[1] * (size - length + 1)).floor()
            masked |= (position >= start) & (position < start + length)
    return features.masked_fill(masked & ~torch.isnan(features), 0.0)


@dataclass(frozen=True)
class Mixture:
    """Mixup of a batch (arXiv 1710.09412): row i is mixed with row ``partners[i]``.

    Attributes
    ----------
    weight : of row i, between 0.5 and 1; its partner has the rest.
    partners : (B,) a permutation.
    """

    weight: float
    partners: Tensor

    @classmethod
    def draw(cls, n: int, alpha: float, generator: np.random.Generator) -> Mixture:
        """Mixture of ``n`` rows; lambda ~ Beta(alpha, alpha), one for the batch.

        The weight is the larger of lambda and 1 - lambda: with random partners this gives the
        same mixtures with the same probabilities as lambda does, but every row leads exactly
        one of them, by whose answer it can be counted.
        """
        share = float(generator.beta(alpha, alpha))
        return cls(max(share, 1.0 - share), torch.from_numpy(generator.permutation(n)))

    def of(self, values: Tensor) -> Tensor:
        """Mixed values ``(B, ...)``."""
        return self.weight * values + (1.0 - self.weight) * values[self._partners(values)]

    def loss(self, criterion: Callable[..., Tensor], *targets: Tensor) -> Tensor:
        """Mixed loss: ``criterion`` of the targets, each (B,), and of their partners'.

        For cross-entropy, which is linear in the target, that is the loss of the mixed target.
        A mean weighted by class has the same divisor in both, as partners are a permutation.
        """
        partners = [target[self._partners(target)] for target in targets]
        return self.weight * criterion(*targets) + (1.0 - self.weight) * criterion(*partners)

    def _partners(self, values: Tensor) -> Tensor:
        return self.partners.to(values.device)


def balanced_rows(targets: Tensor, seed: int) -> Tensor:
    """Rows of an epoch in which every class of ``targets`` (on the CPU) is as large as the largest.

    Of a class with n rows where the largest has N, every row occurs ``N // n`` times, and
    ``N % n`` random ones once more. Grouped by class; the batches shuffle them.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = [torch.nonzero(targets == k)[:, 0] for k in torch.unique(targets)]
    largest = max(len(rows) for rows in classes)
    balanced = []
    for rows in classes:
        times, more = divmod(largest, len(rows))
        chosen = rows[torch.randperm(len(rows), generator=generator)[:more]]
        balanced += [rows.repeat(times), chosen]
    return torch.cat(balanced)
