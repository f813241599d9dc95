"""Candidate operations on the edges of CNN cells.

Every operation maps ``(B, C, F, T)`` to ``(B, C, ceil(F / stride), ceil(T / stride))``. Their
order of layers is that of DARTS (arXiv 1806.09055): ReLU, convolution, batch norm.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.errors import ShapeError


class SeparableConvolution(nn.Sequential):
    """ReLU, depthwise convolution, pointwise convolution, batch norm, as often as asked for.

    Parameters
    ----------
    channels : C, in and out.
    kernel : odd size of the depthwise convolutions, which are padded to keep the size of maps.
    stride : 1 or 2, of the first depthwise convolution.
    dilation : of the depthwise convolutions.
    repeats : how often these layers follow each other: 2 in ``sep_conv``, 1 in ``dil_conv``.
    affine : whether the batch norms have weights.
    """

    def __init__(
        self, channels: int, kernel: int, stride: int, dilation: int, repeats: int, affine: bool
    ) -> None:
        if kernel % 2 == 0:
            raise ShapeError(f"a separable convolution needs an odd kernel size; got {kernel}")
        layers: list[nn.Module] = []
        for k in range(repeats):
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    stride=stride if k == 0 else 1,
                    padding=dilation * (kernel - 1) // 2,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]
        super().__init__(*layers)
        self.geometry = (kernel, stride, dilation, repeats)

    def stages(self) -> list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]]:
        """Depthwise and pointwise convolution and batch norm of each repeat."""
        layers = cast(Any, list(self))
        return list(zip(layers[1::4], layers[2::4], layers[3::4], strict=True))


class Pool(nn.Sequential):
    """Maximum or mean of 3x3 positions, those beyond the edge left out, and batch norm."""

    def __init__(self, kind: Literal["max", "avg"], channels: int, stride: int, affine: bool):
        pool = (
            nn.MaxPool2d(3, stride, 1)
            if kind == "max"
            else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )
        super().__init__(pool, nn.BatchNorm2d(channels, affine=affine))
        self.geometry = (kind, stride)

    @property
    def norm(self) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, self[1])


class SqueezeExcitation(nn.Module):
    """Every channel of a step times a gate that sees all of them (arXiv 1709.01507).

    ``2 x * sigmoid(V relu(W mean(x) + b) + c)``, with the mean over frequency alone: one over time,
    too, would count frames behind the end of an utterance. Twice, so that an untrained gate leaves
    the candidate as loud as others.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 4, 1)
        self.squeeze = nn.Conv1d(channels, inner, 1)
        self.excite = nn.Conv1d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> the same shape."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=2)))))
        return 2 * x * gate[:, :, None]


def sep_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Separable convolution, applied twice."""
    return SeparableConvolution(channels, kernel, stride, 1, 2, affine)


def dil_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Separable convolution with a dilation of 2."""
    return SeparableConvolution(channels, kernel, stride, 2, 1, affine)


def convolution(channels: int, stride: int, affine: bool, *, kernel: tuple[int, int]) -> nn.Module:
    """ReLU, plain convolution of ``kernel`` (frequency, time), both odd, and batch norm."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def se_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Separable convolution, and a :class:`SqueezeExcitation` of what it gives."""
    convolution = SeparableConvolution(channels, kernel, stride, 1, 1, affine)
    return nn.Sequential(convolution, SqueezeExcitation(channels))


def max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Maximum of 3 x 3 positions."""
    return Pool("max", channels, stride, affine)


def avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Mean of 3 x 3 positions."""
    return Pool("avg", channels, stride, affine)


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
