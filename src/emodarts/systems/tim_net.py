"""TIM-Net (arXiv 2211.08233): gates of dilated causal convolutions, in both directions of time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.recipe import FeatureSpec
from emodarts.recipe.system import TIMNetSpec
from emodarts.space.sequence_ops import mean_over_time
from emodarts.systems.neural import NetworkSystem
from emodarts.systems.present import as_sequence, normed, without_missing
from emodarts.training.classifier import Classifier

_KERNEL = 2


class TemporalAwareBlock(nn.Module):
    """``x * sigmoid(g(x))``, where g is twice a causal convolution, batch norm, ReLU and dropout.

    Dropout drops whole channels.
    """

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(width, width, _KERNEL, dilation=dilation) for _ in range(2)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(2)])
        self.reach = (_KERNEL - 1) * dilation
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """``(B, C, T)`` with zeros where frames are not ``present`` (B, T) -> the same shape."""
        y = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = convolution(functional.pad(y, (self.reach, 0)))
            y = self.dropout(torch.relu(normed(norm, y, present)))
        return x * torch.sigmoid(y)


class _Direction(nn.Module):
    """A dense layer for each frame, and blocks whose dilation doubles."""

    def __init__(self, width_in: int, spec: TIMNetSpec) -> None:
        super().__init__()
        self.enter = nn.Linear(width_in, spec.filters)
        self.blocks = nn.ModuleList(
            [TemporalAwareBlock(spec.filters, 2**k, spec.dropout) for k in range(spec.blocks)]
        )

    def forward(self, x: Tensor, present: Tensor | None) -> list[Tensor]:
        """``(B, T, D)`` -> the mean over time ``(B, C)`` of what each block gives."""
        x = self.enter(x).transpose(1, 2)
        if present is not None:
            x = x * present[:, None]
        means = []
        for block in self.blocks:
            x = block(x, present)
            means.append(mean_over_time(x.transpose(1, 2), present))
        return means


class TIMNet(Classifier):
    """Blocks over time forwards and backwards, means of both, a learned sum over blocks."""

    def __init__(self, spec: TIMNetSpec, features: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        width = features.n_channels * features.n_features
        self.forwards, self.backwards = _Direction(width, spec), _Direction(width, spec)
        self.fusion = nn.Linear(spec.blocks, 1, bias=False)
        nn.init.constant_(self.fusion.weight, 1 / spec.blocks)
        self.classifier = nn.Linear(spec.filters, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> logits ``(B, K)``."""
        features, present = without_missing(features)
        x = as_sequence(features)
        ahead = self.forwards(x, present)
        # Missing frames then come first: zeros, as what is before the beginning.
        back = self.backwards(x.flip(1), None if present is None else present.flip(1))
        means = [a + b for a, b in zip(ahead, back, strict=True)]
        fused = self.fusion(torch.stack(means, dim=2))[..., 0]  # (B, C)
        logits: Tensor = self.classifier(fused)
        return logits


class TIMNetSystem(NetworkSystem):
    """Trains TIM-Net."""

    network = TIMNet
