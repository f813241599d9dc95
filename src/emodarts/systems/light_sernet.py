"""Light-SERNet (arXiv 2110.03435): a small CNN that begins with three parallel convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from emodarts.recipe import FeatureSpec
from emodarts.recipe.system import LightSERNetSpec
from emodarts.space.sequence_ops import mean_over_time
from emodarts.systems.neural import NetworkSystem
from emodarts.systems.present import average_pool, normed, without_missing
from emodarts.training.classifier import Classifier

#: Kernels of the paths, over frequency and time: spectral, temporal, and both.
_PATHS = ((9, 1), (1, 11), (3, 3))
_PATH_CHANNELS = 32
#: Channels after each local feature block, and what it pools; the last has kernel 1.
_CHANNELS = (64, 96, 128, 160, 320)
_POOLS = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 1))


class _Block(nn.Module):
    """Convolution, batch norm, ReLU and average pooling."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        pool: tuple[int, int],
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(*channels, kernel, padding="same", bias=bias)
        self.norm = nn.BatchNorm2d(channels[1])
        self.pool = pool

    def forward(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``(B, C, F, T)``, which frames are present -> the same after pooling."""
        x = torch.relu(normed(self.norm, self.convolution(x), present))
        return average_pool(x, self.pool, present)


class LightSERNet(Classifier):
    """Three parallel paths, five local feature blocks, the mean of the map, a dense layer.

    460,740 parameters for one channel and four classes, whatever the size of the map.
    """

    def __init__(self, spec: LightSERNetSpec, features: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            [
                _Block((features.n_channels, _PATH_CHANNELS), kernel, (2, 2), bias=True)
                for kernel in _PATHS
            ]
        )
        widths = (_PATH_CHANNELS * len(_PATHS), *_CHANNELS)
        self.blocks = nn.ModuleList()
        for channels, pool in zip(pairwise(widths), _POOLS, strict=True):
            kernel = (1, 1) if pool == (1, 1) else (3, 3)
            self.blocks.append(_Block(channels, kernel, pool))
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(widths[-1], n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> logits ``(B, K)``."""
        x, present = without_missing(features)
        maps, remaining = zip(*(path(x, present) for path in self.paths), strict=True)
        x, present = torch.cat(maps, dim=1), remaining[0]
        for block in self.blocks:
            x, present = block(x, present)
        pooled = mean_over_time(x.mean(dim=2).transpose(1, 2), present)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


class LightSERNetSystem(NetworkSystem):
    """Trains Light-SERNet."""

    network = LightSERNet
