"""A trained network with its batch norms multiplied into its convolutions, for quick answers."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from emodarts.space.cell import DropPath
from emodarts.space.cnn_ops import FactorisedReduce

_Network = TypeVar("_Network", bound=nn.Module)

#: Below this many outputs, oneDNN's 1x1 convolution is faster on one thread than torch's own.
_LANES = 16


def fold(network: _Network) -> _Network:
    r"""Copy of a network that gives the logits of eval mode sooner, and cannot be trained.

    A batch norm after a convolution :math:`W x` with mean m, variance v, scale g and shift b is
    the convolution :math:`s W x + (b - s m)` with :math:`s = g / \sqrt{v + e}`. What only
    training needs is left out.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for head in ("auxiliary", "gender"):
        if hasattr(folded, head):
            setattr(folded, head, None)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath):
                setattr(module, name, child.operation)
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_layers(module)
        elif isinstance(module, FactorisedReduce):
            _fold_halves(module)
    for module in folded.modules():
        if isinstance(module, nn.Conv2d):
            _choose_kernel(module)
    return folded


def _fold_layers(layers: nn.Sequential) -> None:
    for k in range(1, len(layers)):
        before, layer = layers[k - 1], layers[k]
        if isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
            layers[k - 1] = fuse_conv_bn_eval(before, layer)
            layers[k] = nn.Identity()
        elif isinstance(layer, nn.ReLU):
            layer.inplace = True  # its input is of this branch; that of a first layer is not


def _fold_halves(reduce: FactorisedReduce) -> None:
    """The batch norm of joined maps is one of each half."""
    norm = reduce.norm
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - scale * mean
    first = 0
    for convolution in (reduce.even, reduce.odd):
        if convolution is not None:
            part = slice(first, first + convolution.out_channels)
            convolution.weight.mul_(scale[part, None, None, None])
            convolution.bias = nn.Parameter(shift[part], requires_grad=False)
            first += convolution.out_channels
    reduce.norm = nn.Identity()  # type: ignore[assignment]


def _choose_kernel(convolution: nn.Conv2d) -> None:
    # Torch sends a single utterance on one thread through its own 1x1 convolution, but every
    # dilated one to oneDNN; a kernel of one position has nothing to dilate.
    if convolution.kernel_size == (1, 1) and convolution.out_channels < _LANES:
        convolution.dilation = (2, 2)
