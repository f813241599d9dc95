"""Mixed cells in few calls of torch, for devices to which a call costs more than its maps: GPUs.

All edges that leave a state run as one. Their convolutions of one kind are a grouped convolution of
channels that lie side by side, followed by one batch norm; as that multiplies with a factor anyway,
the factor is the weight of the candidate. Pools are made once a state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.fast.base import FastCell, RunningStatistics
from emodarts.space.cell import MixedOperation, run
from emodarts.space.cnn_ops import FactorisedReduce, Pool, SeparableConvolution


class TorchCNNCell(FastCell):
    """A CNN cell of mixed operations.

    In evaluation, where the statistics of edges may differ, it is computed edge by edge, and so are
    the cells of a discrete network.
    """

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Maps of the two cells before, and weights ``(E, O)`` -> maps ``(B, N * C, F, T)``."""
        if self.plain or weights is None or not self.training:
            return super().forward(first, second, weights)
        statistics = RunningStatistics()
        states = self.inputs[0](first), self.inputs[1](second)
        out = self.state_by_state(*states, weights, functools.partial(_mixtures, statistics))
        statistics.keep()
        return out


class TorchSeqNNCell(FastCell):
    """A SeqNN cell of mixed operations."""

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        if self.plain or weights is None:
            return super().forward(first, second, weights, present)
        states = self.inputs[0](first), self.inputs[1](second)
        return self.state_by_state(*states, weights, functools.partial(_weighted_sums, present))


def _weighted_sums(
    present: Tensor | None, x: Tensor, edges: Sequence[MixedOperation], weights: Tensor
) -> Sequence[Tensor]:
    """All candidates computed as they are, weighted and summed at once."""
    if any(edge.columns != edges[0].columns for edge in edges):
        return [run(e, x, w, present=present) for e, w in zip(edges, weights, strict=True)]
    outputs = torch.stack([run(m, x, present=present) for edge in edges for m in edge.operations])
    flat = outputs.view(len(edges), -1, outputs[0].numel())  # (E, O', B * T * H)
    own = weights[:, edges[0].columns].to(outputs.dtype).unsqueeze(1)  # (E, 1, O')
    return torch.bmm(own, flat).view(-1, *outputs.shape[1:]).unbind()


def _mixtures(
    statistics: RunningStatistics, x: Tensor, edges: Sequence[MixedOperation], weights: Tensor
) -> Sequence[Tensor]:
    """What leaves a state ``x`` (B, C, F, T) on each edge, of weights (E, O)."""
    if any(edge.columns != edges[0].columns for edge in edges):
        return [edge(x, w) for edge, w in zip(edges, weights, strict=True)]
    rectified = functional.relu(x)
    repeated = rectified.repeat(1, len(edges), 1, 1)  # (B, E * C, F, T)
    shared: list[tuple[Tensor, Tensor]] = []  # weights (E,), and maps (B, C, F', T') of all edges
    pools: list[tuple[Tensor, Tensor, list[nn.BatchNorm2d]]] = []
    totals: Tensor | None = None  # (B, E, C, F', T')
    of_columns = weights.unbind(1)
    for column, *candidates in zip(
        edges[0].columns, *(edge.operations for edge in edges), strict=True
    ):
        own, operations = of_columns[column], cast(Any, candidates)
        kinds = {_kind(operation) for operation in operations}
        match kinds.pop() if len(kinds) == 1 else None:
            case (SeparableConvolution.__name__, *_):
                maps = _convolutions(statistics, repeated, operations, own)
            case (FactorisedReduce.__name__, *_):
                maps = _factorised_reductions(statistics, rectified, operations, own)
            case (Pool.__name__, *_):
                pools.append((own, operations[0][0](x), [each.norm for each in operations]))
                continue
            case (nn.Identity.__name__, *_):
                shared.append((own, x))
                continue
            case _:
                found = [operation(x) * w for operation, w in zip(operations, own, strict=True)]
                maps = torch.cat(found, dim=1)
        maps = _by_edge(maps, len(edges))
        totals = maps if totals is None else totals + maps
    if pools:
        joined = torch.cat([maps for _, maps, _ in pools], dim=1)
        out = _normalised(statistics, joined, [norms for *_, norms in pools], None)
        normal = out.chunk(len(pools), dim=1)
        shared += [(own, maps) for (own, _, _), maps in zip(pools, normal, strict=True)]
    for own, maps in shared:
        weight, maps = own.to(maps.dtype)[:, None, None, None], maps.unsqueeze(1)
        totals = weight * maps if totals is None else torch.addcmul(totals, weight, maps)
    return cast(Tensor, totals).unbind(1)


def _by_edge(x: Tensor, n_edges: int) -> Tensor:
    """``(B, E * C, F, T)`` -> ``(B, E, C, F, T)``."""
    return x.view(x.shape[0], n_edges, -1, *x.shape[2:])


def _kind(operation: nn.Module) -> tuple[Any, ...] | None:
    """What candidates must have in common to be computed as one; of unknown ones nothing."""
    kind = type(operation)
    if kind not in (SeparableConvolution, FactorisedReduce, Pool, nn.Identity):
        return None
    if any(isinstance(m, nn.BatchNorm2d) and m.affine for m in operation.modules()):
        return None
    return (kind.__name__, getattr(operation, "geometry", None))


def _normalised(
    statistics: RunningStatistics,
    x: Tensor,
    groups: Sequence[Sequence[nn.BatchNorm2d]],
    weights: Tensor | None,
) -> Tensor:
    """Maps side by side (B, K * C, F, T), each normalised as all norms of its group do.

    They are multiplied by weights (K,), if there are.
    """
    like, mean, variance = groups[0][0], None, None
    factors = None if weights is None else weights.repeat_interleave(like.num_features)
    if like.track_running_stats:
        running = cast(Tensor, like.running_mean)
        mean, variance = running.new_zeros(x.shape[1]), running.new_zeros(x.shape[1])
    # With a momentum of 1 they become those of the batch.
    out = functional.batch_norm(x, mean, variance, factors, None, True, 1.0, like.eps)
    if mean is not None and variance is not None:
        found = zip(groups, mean.chunk(len(groups)), variance.chunk(len(groups)), strict=True)
        for group, m, v in found:
            for norm in group:
                statistics.add(norm, m, v)
    return out


def _convolutions(
    statistics: RunningStatistics,
    x: Tensor,
    operations: Sequence[SeparableConvolution],
    weights: Tensor,
) -> Tensor:
    """A convolutional candidate of all edges: rectified maps side by side -> the same."""
    stages = list(zip(*(operation.stages() for operation in operations), strict=True))
    for k, stage in enumerate(stages):
        depthwise, pointwise, norms = zip(*stage, strict=True)
        x = _convolve(_convolve(x, depthwise), pointwise)
        last = k == len(stages) - 1
        x = _normalised(statistics, x, [[norm] for norm in norms], weights if last else None)
        x = x if last else functional.relu(x)
    return x


def _convolve(x: Tensor, layers: Sequence[nn.Conv2d]) -> Tensor:
    """Of maps side by side, each by its layer; the layers differ in their weights alone."""
    kernels = torch.cat([layer.weight for layer in layers])
    layer, groups = layers[0], sum(layer.groups for layer in layers)
    stride, padding, dilation = (cast(Any, layer.stride), cast(Any, layer.padding), layer.dilation)
    return functional.conv2d(x, kernels, None, stride, padding, dilation, groups)


def _factorised_reductions(
    statistics: RunningStatistics,
    x: Tensor,
    operations: Sequence[FactorisedReduce],
    weights: Tensor,
) -> Tensor:
    """Skip connections of stride 2 of all edges, for a rectified state."""
    padded = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    maps = []
    for name, offset in (("even", 0), ("odd", 1)):
        layers = [getattr(operation, name) for operation in operations]
        if layers[0] is not None:
            kernels = torch.cat([layer.weight for layer in layers])
            found = functional.conv2d(padded[:, :, offset::2, offset::2], kernels)
            maps.append(_by_edge(found, len(operations)))
    joined = torch.cat(maps, dim=2).flatten(1, 2)
    return _normalised(statistics, joined, [[o.norm] for o in operations], weights)
