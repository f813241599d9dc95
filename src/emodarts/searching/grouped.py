"""The mixed CNN cell in few calls, for devices to which a call costs more than its maps: GPUs.

All edges that leave a state run as one. Their convolutions of one kind are a grouped convolution of
channels that lie side by side, followed by one batch norm; as that multiplies with a factor anyway,
the factor is the weight of the candidate. Pools are made once a state.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.genotype import NONE, SKIP
from emodarts.recipe import SPACES
from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.normalise import OnceDifferentiableCell

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
POOLS = ("max_pool_3x3", "avg_pool_3x3")
_CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
#: Candidates of an edge by name.
_Edge = Mapping[str, Any]


class GroupedCell(OnceDifferentiableCell):
    """A CNN cell of mixed operations, with the parameters and function of a plain cell.

    In evaluation, where the statistics of edges may differ, it is computed edge by edge.
    """

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Maps of the two cells before, and weights ``(E, O)`` -> maps ``(B, N * C, F, T)``."""
        if self.plain or weights is None or not self.training:
            return super().forward(first, second, weights)
        norms = _Norms()
        states = self.inputs[0](first), self.inputs[1](second)
        out = self.state_by_state(*states, weights, functools.partial(_mixtures, norms))
        norms.keep()
        return out


def _layers(edges: Sequence[_Edge], name: str, kind: type[nn.Module]) -> Iterator[list[Any]]:
    """The layers of one kind in a candidate, from the first to the last: of all edges each."""
    of_edges = [[m for m in edge[name].modules() if isinstance(m, kind)] for edge in edges]
    return (list(layers) for layers in zip(*of_edges, strict=True))


class _Norms:
    """Batch norms of a cell in training, those of all edges that leave a state at once."""

    def __init__(self) -> None:
        self._running: list[Tensor] = []
        self._found: list[Tensor] = []
        self._norms: list[nn.BatchNorm2d] = []

    def __call__(
        self, x: Tensor, norms: Sequence[nn.BatchNorm2d], weights: Tensor | None
    ) -> Tensor:
        """Maps of all edges side by side (B, E * C, F, T), normalised, times a weight of each."""
        factors = None if weights is None else weights.repeat_interleave(norms[0].num_features)
        out, *statistics = _normalised(x, factors, norms[0])
        for each in statistics:
            self._found += each.chunk(len(norms))
        if statistics:
            self._add(norms)
        return out

    def shared(self, x: Tensor, groups: Sequence[Sequence[nn.BatchNorm2d]]) -> Tensor:
        """Maps side by side (B, K * C, F, T), each of which all edges normalise alike."""
        out, *statistics = _normalised(x, None, groups[0][0])
        if not statistics:
            return out
        of_maps = zip(*(each.chunk(len(groups)) for each in statistics), strict=True)
        for group, found in zip(groups, of_maps, strict=True):
            for each in found:
                self._found += [each] * len(group)
            self._add(group)
        return out

    def _add(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self._running += [cast(Tensor, norm.running_mean) for norm in norms]
        self._running += [cast(Tensor, norm.running_var) for norm in norms]
        self._norms += norms

    @torch.no_grad()
    def keep(self) -> None:
        """Move the running statistics of all."""
        if self._norms:
            torch._foreach_lerp_(self._running, self._found, cast(float, self._norms[0].momentum))
            torch._foreach_add_([cast(Tensor, n.num_batches_tracked) for n in self._norms], 1)


def _normalised(x: Tensor, factors: Tensor | None, like: nn.BatchNorm2d) -> list[Tensor]:
    """A batch norm in training, and the mean and variance to track, if they are tracked."""
    tracked: list[Tensor] = []
    if like.track_running_stats:
        running = cast(Tensor, like.running_mean)
        tracked = [running.new_zeros(x.shape[1]), running.new_zeros(x.shape[1])]
    # With a momentum of 1 they become those of the batch.
    mean, variance = tracked or (None, None)
    out = functional.batch_norm(x, mean, variance, factors, None, True, 1.0, like.eps)
    return [out, *tracked]


def _mixtures(
    norms: _Norms, x: Tensor, mixed: Sequence[MixedOperation], weights: Tensor
) -> Sequence[Tensor]:
    """What leaves a state (B, C, F, T) on each edge, of weights (E, O)."""
    names = [name for name in CNN_OPERATIONS if name != NONE]
    edges = [dict(zip(names, each.operations, strict=True)) for each in mixed]
    of = dict(zip(CNN_OPERATIONS, weights.unbind(1), strict=True))
    rectified = functional.relu(x)
    repeated = rectified.repeat(1, len(edges), 1, 1)
    terms = [_convolutions(repeated, edges, name, of[name], norms) for name in _CONVOLUTIONS]
    stride = 1 if isinstance(edges[0][SKIP], nn.Identity) else 2
    pools = torch.cat(
        [
            functional.max_pool2d(x, 3, stride, 1),
            functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False),
        ],
        dim=1,
    )
    groups = [group for name in POOLS for group in _layers(edges, name, nn.BatchNorm2d)]
    shared = dict(zip(POOLS, norms.shared(pools, groups).chunk(2, dim=1), strict=True))
    if stride == 1:
        shared[SKIP] = x
    else:
        terms.append(_factorised_reduce(rectified, edges, of[SKIP], norms))
    total = _by_edge(add_up(terms), len(edges))
    for name, maps in shared.items():
        weight = of[name].to(maps.dtype)[:, None, None, None]
        total = torch.addcmul(total, weight, maps.unsqueeze(1))
    return list(total.unbind(1))


def _by_edge(x: Tensor, n_edges: int) -> Tensor:
    """``(B, E * C, F, T)`` -> ``(B, E, C, F, T)``."""
    return x.view(x.shape[0], n_edges, -1, *x.shape[2:])


def _convolutions(
    x: Tensor, edges: Sequence[_Edge], name: str, weights: Tensor, norms: _Norms
) -> Tensor:
    """A convolutional candidate of all edges, for rectified maps side by side."""
    layers = _layers(edges, name, nn.Conv2d)  # depthwise and pointwise in turns
    stages = list(zip(layers, layers, _layers(edges, name, nn.BatchNorm2d), strict=True))
    for k, (depthwise, pointwise, group) in enumerate(stages):
        last = k == len(stages) - 1
        x = _convolve(_convolve(x, depthwise), pointwise)
        x = norms(x, group, weights) if last else functional.relu(norms(x, group, None))
    return x


def _convolve(x: Tensor, layers: Sequence[nn.Conv2d]) -> Tensor:
    """Of maps side by side, each by its layer; the layers differ in their weights alone."""
    kernels = torch.cat([layer.weight for layer in layers])
    layer, groups = layers[0], sum(layer.groups for layer in layers)
    stride, padding, dilation = (cast(Any, layer.stride), cast(Any, layer.padding), layer.dilation)
    return functional.conv2d(x, kernels, None, stride, padding, dilation, groups)


def _factorised_reduce(x: Tensor, edges: Sequence[_Edge], weights: Tensor, norms: _Norms) -> Tensor:
    """Skip connections of stride 2 of all edges, for a rectified state."""
    (group,) = _layers(edges, SKIP, nn.BatchNorm2d)
    even, *odd = _layers(edges, SKIP, nn.Conv2d)
    padded = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    maps = []
    for layers, offset in ((even, 0), *((each, 1) for each in odd)):
        kernels = torch.cat([layer.weight for layer in layers])
        found = functional.conv2d(padded[:, :, offset::2, offset::2], kernels)
        maps.append(_by_edge(found, len(edges)))
    return norms(torch.cat(maps, dim=2).flatten(1, 2), group, weights)
