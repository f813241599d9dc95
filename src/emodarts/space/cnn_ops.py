"""Candidate operations on the edges of CNN cells.

Every operation maps ``(B, C, F, T)`` to ``(B, C, ceil(F / stride), ceil(T / stride))``. Their
order of layers is that of DARTS (arXiv 1806.09055): ReLU, convolution, batch norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _separable(
    channels: int, kernel: int, stride: int, dilation: int, affine: bool
) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels,
            channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=channels,
            bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def sep_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Separable convolution of an odd kernel size, applied twice."""
    return nn.Sequential(
        *_separable(channels, kernel, stride, 1, affine),
        *_separable(channels, kernel, 1, 1, affine),
    )


def dil_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Separable convolution with a dilation of 2."""
    return nn.Sequential(*_separable(channels, kernel, stride, 2, affine))


def max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Maximum over 3 x 3 positions, then batch norm."""
    return nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(channels, affine=affine))


def avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Mean over 3 x 3 positions, without those beyond the edge, then batch norm."""
    return nn.Sequential(
        nn.AvgPool2d(3, stride, 1, count_include_pad=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def skip(channels: int, stride: int, affine: bool) -> nn.Module:
    """Identity, or with stride 2 a :class:`FactorisedReduce`."""
    return nn.Identity() if stride == 1 else FactorisedReduce(channels, channels, affine)


class FactorisedReduce(nn.Module):
    """Halve both axes without losing a position: two 1x1 convolutions, one offset by (1, 1).

    The convolutions see every other position and have stride 1: with stride 2, oneDNN's backward
    pass in channels_last corrupts memory on several threads (seen in torch 2.13).
    """

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__()
        half = channels_out // 2
        self.even = nn.Conv2d(channels_in, channels_out - half, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, half, 1, bias=False) if half else None
        self.norm = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, F, T)`` -> ``(B, C_out, ceil(F / 2), ceil(T / 2))``."""
        x = functional.relu(x)
        maps = [self.even(x[:, :, ::2, ::2])]
        if self.odd is not None:
            # An odd size has no position after its last one: a zero stands for it.
            padded = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            maps.append(self.odd(padded[:, :, 1::2, 1::2]))
        out: Tensor = self.norm(torch.cat(maps, dim=1))
        return out


class ProjectMap(nn.Sequential):
    """ReLU, 1x1 convolution, batch norm: bring a cell's input to the cell's channels."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )
