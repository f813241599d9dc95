r"""The mixed CNN cell on a CPU with what edges share done once and batch norm in matrices.

It has the modules, parameters and buffers of the plain cell of ``space.cell`` and computes the
same function; only the order of sums differs. Four ideas:

* ReLU, pools and subsampling are the same for every edge that leaves a state: done once.
* Depthwise convolutions of several edges into a node run as one where a map has fewer channels
  than a vector register has lanes; a dilated convolution with stride 2 is an ordinary one on
  every other position. Gradients take the formulations that oneDNN has fast kernels for.
* Every candidate but ``none`` ends with batch norm of a pointwise map :math:`P d` (pools: with
  :math:`P = I`). Its statistics follow from mean :math:`\mu` and covariance :math:`\Sigma` of
  :math:`d`, and with the weight :math:`w` of the candidate

  .. math:: w \, BN(P d) = M d - M \mu, \quad
            M = w \, diag(v + \epsilon)^{-1/2} P, \quad v = diag(P \Sigma P^T)

  is one 1x1 convolution, which also sums over edges: maps before and after a batch norm are
  never made.
* What a branch computes on its way is made again in the backward pass, not kept.

Maps keep their precision, which autocast makes bfloat16; statistics and matrices are float64, and
nothing is summed over positions in less than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from emodarts.genotype import NONE, SKIP
from emodarts.recipe import SPACES
from emodarts.runtime import at_least_single
from emodarts.searching.grouped import POOLS, GroupedCell
from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.cnn_ops import FactorisedReduce
from emodarts.space.normalise import (
    Moments,
    apply_function,
    differentiable_once,
    update_statistics,
)

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
_SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
_DILATED = ("dil_conv_3x3", "dil_conv_5x5")
#: Channels that a depthwise convolution should have: the lanes of a register.
_LANES = 16
#: Positions whose products are summed in the precision of the maps, or in float32 for those of
#: less, before float64 takes over.
_BLOCK = 4096


class FastCell(GroupedCell):
    """A CNN cell of mixed operations: :class:`Cell`, but quicker and in less memory on a CPU."""

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Maps of the two cells before, and weights ``(E, O)`` -> maps ``(B, N * C, F, T)``."""
        if self.plain or weights is None or first.device.type != "cpu":
            return super().forward(first, second, weights)
        maps = [self.inputs[0](first), self.inputs[1](second)]
        # From here on each step names its type: autocast would round statistics and matrices.
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._joined_nodes(maps, weights)

    def _joined_nodes(self, maps: list[Tensor], weights: Tensor) -> Tensor:
        states = _States(maps)
        index = 0
        for sources in self.sources:
            edges = [
                _Edge(source, cast(MixedOperation, self.edges[index + k]), weights[index + k])
                for k, source in enumerate(sources)
            ]
            index += len(sources)
            terms = [_pools_and_skip(states, edge) for edge in edges]
            for group in _groups(edges, states.maps[0]):
                terms += [_convolutions(states, group, n) for n in (*_SEPARABLE, *_DILATED)]
            states.maps.append(apply_function(_ChannelsLast, add_up(terms)))
        return torch.cat(states.maps[2:], dim=self.dim)


class _Edge:
    """A mixed operation, the state it reads, and its weights by name."""

    def __init__(self, source: int, mixed: MixedOperation, weights: Tensor) -> None:
        names = [name for name in CNN_OPERATIONS if name != NONE]
        self.source = source
        self.weights = dict(zip(CNN_OPERATIONS, weights.unbind(), strict=True))
        self.operations = dict(zip(names, mixed.operations, strict=True))
        self.stride = 1 if isinstance(self.operations[SKIP], nn.Identity) else 2

    def layers(self, name: str, kind: type[nn.Module]) -> list[Any]:
        """The layers of one kind in a candidate."""
        return [m for m in self.operations[name].children() if isinstance(m, kind)]


class _States:
    """Maps ``(B, C, F, T)`` of a cell's states, and what the edges that leave one share."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps
        self._made: dict[Any, Any] = {}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def rectified(self, source: int, step: int = 1, offset: int = 0) -> Tensor:
        """ReLU of a state, or of every ``step``-th of its positions from an offset on."""
        if step == 1:
            return cast(Tensor, self._once(source, lambda: functional.relu(self.maps[source])))
        x = self.rectified(source)
        # An odd size has no position after its last one: a zero stands for it.
        x = functional.pad(x, (0, offset * (x.shape[3] % 2), 0, offset * (x.shape[2] % 2)))
        return x[:, :, offset::step, offset::step]

    def joined(self, group: Sequence[_Edge], step: int) -> Tensor:
        """The rectified sources of a group, side by side as channels."""

        def make() -> Tensor:
            maps = [self.rectified(edge.source, step) for edge in group]
            joined = maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)
            return joined.contiguous(memory_format=torch.channels_last)

        return cast(Tensor, self._once((step, *(edge.source for edge in group)), make))

    def weight_free(
        self, source: int, stride: int, norm: nn.BatchNorm2d
    ) -> tuple[Tensor, Moments | None]:
        """Pools of a state and what its skip reads, as channels; their moments."""

        def make() -> tuple[Tensor, Moments | None]:
            x = self.maps[source]
            skip = [x] if stride == 1 else [self.rectified(source, 2, k) for k in (0, 1)]
            pools = functional.max_pool2d(x, 3, stride, 1), _average_pool(x, stride)
            joined = torch.cat([*pools, *skip], dim=1).contiguous(memory_format=torch.channels_last)
            return joined, _moments(joined, norm)

        return cast("tuple[Tensor, Moments | None]", self._once(("parts", source), make))


def _groups(edges: Sequence[_Edge], like: Tensor) -> Iterator[list[_Edge]]:
    """Edges of one stride that run together: as many as fill the lanes."""
    size = max(1, _LANES // like.shape[1])
    for stride in (2, 1):
        same = [edge for edge in edges if edge.stride == stride]
        yield from (same[k : k + size] for k in range(0, len(same), size))


def _pools_and_skip(states: _States, edge: _Edge) -> Tensor:
    """Their weighted sum: one 1x1 convolution of what all edges of the state share."""
    norms = [edge.layers(name, nn.BatchNorm2d)[0] for name in POOLS]
    joined, moments = states.weight_free(edge.source, edge.stride, norms[0])
    channels = states.maps[edge.source].shape[1]
    identity = torch.eye(channels, dtype=torch.float64, device=joined.device)
    skip = edge.operations[SKIP]
    if isinstance(skip, FactorisedReduce):
        halves = [identity[:0] if c is None else c.weight.flatten(1) for c in (skip.even, skip.odd)]
        pointwise = _block_diagonal(identity, identity, *(h.to(identity) for h in halves))
        norms.append(skip.norm)
        matrix, bias, *statistics = _normalised(pointwise, norms, moments)
    else:
        pointwise = _block_diagonal(identity, identity, identity[:0])
        matrix, bias, *statistics = _normalised(pointwise, norms, moments)
        matrix = torch.cat([matrix, functional.pad(identity, (2 * channels, 0))])
        bias = functional.pad(bias, (0, channels))
    update_statistics(norms, statistics[0], statistics[1], joined.numel() // joined.shape[1])
    weights = torch.stack([edge.weights[name] for name in (*POOLS, SKIP)])
    return cast(Tensor, apply_function(_Contraction, joined, *_weighted_sum(matrix, bias, weights)))


def _convolutions(states: _States, group: Sequence[_Edge], name: str) -> Tensor:
    """Weighted sum of one convolutional candidate over edges into a node."""
    stride, dilation, step = group[0].stride, 2 if name in _DILATED else 1, 1
    if stride == dilation == 2:  # the ordinary convolution of every other position
        stride, dilation, step = 1, 1, 2
    convolutions = [edge.layers(name, nn.Conv2d) for edge in group]
    norms = [edge.layers(name, nn.BatchNorm2d) for edge in group]
    stages = [list(stage) for stage in zip(*norms, strict=True)]
    kernels = []
    for k in range(len(stages)):
        kernels.append(torch.cat([c[2 * k].weight for c in convolutions]))
        kernels.append(_block_diagonal(*(c[2 * k + 1].weight.flatten(1) for c in convolutions)))

    known: list[Moments | None] = []  # by the first pass; the second need not sum again

    def branch(x: Tensor, weights: Tensor, *kernels: Tensor) -> tuple[Tensor, ...]:
        statistics: list[Tensor] = []
        for k, stage in enumerate(stages):
            hop, gap = (stride, dilation) if k == 0 else (1, 1)
            x = apply_function(_Depthwise, x, kernels[2 * k], hop, gap)
            moments = _moments(x, stage[0], known[k] if k < len(known) else None)
            if k == len(known):
                known.append(None if moments is None else Moments(*(m.detach() for m in moments)))
            pointwise = kernels[2 * k + 1].to(torch.float64)
            matrix, bias, *found = _normalised(pointwise, stage, moments)
            statistics += found
            if k + 1 < len(stages):
                x = functional.relu(apply_function(_Contraction, x, matrix, bias))
        return apply_function(_Contraction, x, *_weighted_sum(matrix, bias, weights)), *statistics

    x = states.joined(group, step)
    weights = torch.stack([edge.weights[name] for edge in group])
    out, *statistics = checkpoint(
        branch, x, weights, *kernels, use_reentrant=False, preserve_rng_state=False
    )
    for k, stage in enumerate(stages):
        update_statistics(
            stage, statistics[2 * k], statistics[2 * k + 1], out.numel() // out.shape[1]
        )
    return cast(Tensor, out)


def _moments(x: Tensor, norm: nn.BatchNorm2d, known: Moments | None = None) -> Moments | None:
    """What a batch norm of pointwise maps of ``x`` needs; nothing if it uses running ones."""
    return Moments(*apply_function(_MomentsOf, x, known)) if norm.training else None


def _normalised(
    pointwise: Tensor, norms: Sequence[nn.BatchNorm2d], moments: Moments | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Matrix and bias of batch norms of ``P d``, and the mean and variance that they use."""
    if moments is None:
        mean = torch.cat([cast(Tensor, n.running_mean) for n in norms]).to(pointwise.dtype)
        variance = torch.cat([cast(Tensor, n.running_var) for n in norms]).to(pointwise.dtype)
    else:
        mean = pointwise @ moments.mean
        variance = ((pointwise @ moments.covariance) * pointwise).sum(dim=1).clamp_min(0)
    scale = (variance + norms[0].eps).rsqrt()
    return scale[:, None] * pointwise, -scale * mean, mean.detach(), variance.detach()


def _weighted_sum(matrix: Tensor, bias: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the blocks of rows of an affine map, each with its weight."""
    weights = weights.to(matrix.dtype)
    blocks = matrix.view(len(weights), -1, matrix.shape[1])
    return (
        torch.einsum("k,kij->ij", weights, blocks),
        weights @ bias.view(len(weights), -1),
    )


def _average_pool(x: Tensor, stride: int) -> Tensor:
    """Mean over 3x3 positions, those beyond the edge left out: a depthwise convolution."""
    ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype, device=x.device)
    counts = functional.conv2d(torch.ones_like(x[:1, :1]), ones[:1], stride=stride, padding=1)
    return cast(Tensor, apply_function(_Depthwise, x, ones, stride, 1)) / counts


def _block_diagonal(*blocks: Tensor) -> Tensor:
    return cast(Tensor, torch.block_diag(*blocks))  # type: ignore[no-untyped-call]


class _ChannelsLast(torch.autograd.Function):
    """Identity whose gradient has the layout of the maps, whatever comes from above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


class _Contraction(torch.autograd.Function):
    """1x1 convolution with a float64 matrix, whose gradient is summed in float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        """``x`` (B, C, F, T), matrix (D, C) and bias (D,) -> (B, D, F, T)."""
        ctx.save_for_backward(x, matrix)
        return _pointwise(x, matrix, bias)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _pointwise(gradient, matrix.t()) if needed[0] else None,
            _products(gradient, x).to(matrix.dtype) if needed[1] else None,
            _sums(gradient).to(matrix.dtype) if needed[2] else None,
        )


class _MomentsOf(torch.autograd.Function):
    """Mean and covariance of the channels of a map, in float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, known: Moments | None) -> tuple[Tensor, Tensor]:
        """``x`` (B, C, F, T) -> (C,) and (C, C), which may be known."""
        if known is not None:
            ctx.save_for_backward(x, known.mean)
            return known.mean.clone(), known.covariance.clone()
        count = x.numel() // x.shape[1]
        products = _products(x, x)
        mean = _sums(x).to(products.dtype) / count
        ctx.save_for_backward(x, mean)
        return mean, products / count - torch.outer(mean, mean)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, mean_gradient: Tensor, gradient: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        matrix = gradient + gradient.t()
        count = x.numel() // x.shape[1]
        return _pointwise(x, matrix / count, (mean_gradient - matrix @ mean) / count), None


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution that keeps the size (over the stride), by oneDNN's fast kernels.

    Its backward kernels are slow for dilated convolutions (a convolution with the turned kernel
    takes their place, and for kernels the four phases of the maps) and for the gradient of kernels
    wider than three (computed in two parts).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, dilation: int) -> Tensor:
        """``x`` (B, C, F, T) and kernel (C, 1, k, k) -> (B, C, ceil(F / stride), ...)."""
        ctx.save_for_backward(x, kernel)
        ctx.stride, ctx.dilation = stride, dilation
        return _depthwise(x, kernel.to(x.dtype), stride, dilation)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        wide, kernel = kernel.dtype, kernel.to(x.dtype)
        found: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            if ctx.stride == 1:
                found[0] = _depthwise(gradient, kernel.flip(2, 3), 1, ctx.dilation)
            else:
                found[0] = _convolution_gradient(gradient, x, kernel, ctx.stride, of_kernel=False)
        if ctx.needs_input_grad[1]:
            if ctx.dilation == 2:
                x, gradient = _phases(x), _phases(gradient)
            found[1] = _kernel_gradient(gradient, x, kernel, ctx.stride).to(wide)
        return *found, None, None


def _pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    kernel = matrix.to(x.dtype)[:, :, None, None]
    return functional.conv2d(x, kernel, None if bias is None else bias.to(x.dtype))


def _sums(x: Tensor) -> Tensor:
    """Over utterances and positions: (B, C, F, T) -> (C,), in float32 at least."""
    return x.sum(dim=(0, 2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Sum over utterances and positions of ``x y^T``: (B, C, F, T), (B, D, F, T) -> (C, D)."""
    # A product of bfloat16 matrices would be rounded to that for each block.
    rows, columns = (at_least_single(m).permute(0, 2, 3, 1).flatten(0, 2) for m in (x, y))
    whole = len(rows) // _BLOCK * _BLOCK
    blocks = (m[:whole].reshape(-1, _BLOCK, m.shape[1]) for m in (rows, columns))
    total = (rows[whole:].t() @ columns[whole:]).to(torch.float64)
    if whole:
        first, second = blocks
        total += torch.bmm(first.transpose(1, 2), second).sum(dim=0, dtype=torch.float64)
    return total


def _depthwise(x: Tensor, kernel: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (kernel.shape[2] - 1) // 2
    return functional.conv2d(x, kernel, None, stride, padding, dilation, groups=len(kernel))


def _convolution_gradient(
    gradient: Tensor,
    x: Tensor,
    kernel: Tensor,
    stride: int,
    *,
    of_kernel: bool,
    padding: tuple[int, int] | None = None,
) -> Tensor:
    if padding is None:
        padding = ((kernel.shape[2] - 1) // 2, (kernel.shape[3] - 1) // 2)
    found = torch.ops.aten.convolution_backward(
        gradient.contiguous(memory_format=torch.channels_last),
        x,
        kernel,
        None,
        [stride] * 2,
        padding,
        [1, 1],
        False,
        [0, 0],
        len(kernel),
        [not of_kernel, of_kernel, False],
    )
    return cast(Tensor, found[1 if of_kernel else 0])


def _kernel_gradient(gradient: Tensor, x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Of an undilated depthwise convolution, not more than three columns of the kernel at once."""
    size = kernel.shape[3]
    if size <= 3:
        return _convolution_gradient(gradient, x, kernel, stride, of_kernel=True)
    half = (size - 1) // 2
    parts = []
    for first in range(0, size, 3):
        last = min(first + 3, size)
        # The part reads columns from `first - half` on, and up to `last - 1 - half` beyond the end.
        shifted = _shifted(x, half - first, last - 1 - half)
        parts.append(
            _convolution_gradient(
                gradient,
                shifted,
                kernel[..., first:last].contiguous(),
                stride,
                of_kernel=True,
                padding=(half, 0),
            )
        )
    return torch.cat(parts, dim=3)


def _shifted(x: Tensor, before: int, after: int) -> Tensor:
    """Pad the time axis with zeros, or cut it; ``functional.pad`` would write every value twice."""
    b, c, f, t = x.shape
    y = x.new_empty((b, f, t + before + after, c)).permute(0, 3, 1, 2)
    y[..., : max(before, 0)] = 0
    y[..., y.shape[3] - max(after, 0) :] = 0
    y[..., max(before, 0) : y.shape[3] - max(after, 0)] = x[
        ..., max(-before, 0) : t - max(-after, 0)
    ]
    return y


def _phases(x: Tensor) -> Tensor:
    """Every other position of both axes, four maps for one: ``(B, C, F, T)`` -> ``(4 B, C, ...)``.

    What a dilation of 2 joins lies side by side in them.
    """
    x = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    phases = [x[:, :, f::2, t::2] for f in (0, 1) for t in (0, 1)]
    return torch.cat(phases).contiguous(memory_format=torch.channels_last)
