r"""A CNN cell whose maps pass through compiled loops, with what follows a convolution folded.

Every candidate but ``none`` ends with batch norm of a pointwise map :math:`P d` (pools: with
:math:`P = I`). Its statistics follow from mean :math:`\mu` and covariance :math:`\Sigma` of
:math:`d`, and with the gain :math:`g` (in a supernet the weight of the candidate, in a discrete
network that of the batch norm)

.. math:: g \, BN(P d) = M d - M \mu, \quad
          M = diag(g) \, diag(v + \epsilon)^{-1/2} P, \quad v = diag(P \Sigma P^T)

is one matrix, so that maps before and after a batch norm are never made:

* a stage of a candidate is ReLU of such an affine map, depthwise convolution, and moments of the
  result, in one pass over an utterance while it is in the caches;
* a node is one function, that sums the matrices' products over all edges and candidates, and whose
  gradient is written out, as its parts would otherwise be thousands of small calls;
* both pools, and what a skip connection reads, are made once for all edges that leave a state.

The stages of a supernet's node are made again in the backward pass, not kept. Maps keep their
precision; statistics and matrices are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.fast import maps
from emodarts.fast.base import (
    FastCell,
    RunningStatistics,
    apply_function,
    can_be_compiled,
    differentiable_once,
)
from emodarts.fast.jit import Array
from emodarts.space.cell import Cell, DropPath, MixedOperation, add_up
from emodarts.space.cnn_ops import FactorisedReduce, Pool, ProjectMap, SeparableConvolution

#: A search that diverges shows in its loss, not in a warning from here.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


class CompiledCNNCell(FastCell):
    """A CNN cell of either network, on a CPU."""

    layout = torch.contiguous_format

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Maps of the two cells before, and weights ``(E, O)`` -> maps ``(B, N * C, F, T)``."""
        if self.plain or not can_be_compiled(first):
            first, second = (x.to(memory_format=Cell.layout) for x in (first, second))
            return super().forward(first, second, weights)
        statistics = RunningStatistics()
        states = [
            _State(_project(module, _State(x), statistics))
            for module, x in zip(self.inputs, (first, second), strict=True)
        ]
        gains = None if weights is None else [row.unbind() for row in weights.unbind()]
        for node in range(self.n_nodes):
            plan = _Plan(statistics, recomputed=weights is not None)
            plainly: list[Tensor] = []
            for row, source, edge in self.into(node):
                state = states[source]
                if gains is not None and type(edge) is MixedOperation:
                    for column, operation in zip(edge.columns, edge.operations, strict=True):
                        weight = gains[row][column]
                        if _is_known(operation):
                            plan.add(state, operation, weight)
                        else:
                            plainly.append(weight * operation(state.maps))
                elif gains is not None and weights is not None:
                    plainly.append(edge(state.maps, weights[row]))
                elif type(edge) is DropPath and _is_known(edge.operation):
                    plan.add(state, edge.operation, factors=edge.factors(state.maps))
                elif _is_known(edge):
                    plan.add(state, edge)
                else:
                    plainly.append(edge(state.maps))
            states.append(_State(add_up([*plan.sum(), *plainly])))
        statistics.keep()
        return torch.cat([state.maps for state in states[2:]], dim=self.dim)


def _is_known(operation: nn.Module) -> bool:
    """Whether there are compiled loops for an operation."""
    if type(operation) is SeparableConvolution:
        kernel, stride, dilation, _ = operation.geometry
        return kernel in (3, 5) and stride in (1, 2) and dilation in (1, 2)
    return type(operation) in (Pool, FactorisedReduce, nn.Identity)


def _project(module: nn.Module, state: _State, statistics: RunningStatistics) -> Tensor:
    """What brings an input of a cell to its channels: a node of one term."""
    plan = _Plan(statistics, recomputed=False)
    if type(module) is ProjectMap:
        _, convolution, norm = cast(Any, module)
        plan.add_direct(state.rectified(1), norm, convolution.weight.flatten(1))
    elif type(module) is FactorisedReduce:
        plan.add(state, module)
    return plan.sum()[0] if plan.directs else cast(Tensor, module(state.maps))


class _Shared:
    """Maps ``(B, C, F, T)`` that several edges read, and their moments once they are needed."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self._moments: tuple[Tensor, Tensor] | None = None

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``(C,)`` and covariance ``(C, C)``, float64."""
        if self._moments is None:
            self._moments = apply_function(_MomentsOf, self.maps)
        return self._moments


class _State:
    """A state of a cell, ``(B, C, F, T)``, and what the edges that leave it share."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps.contiguous()
        self._made: dict[Any, _Shared] = {}

    def rectified(self, stride: int) -> _Shared:
        """ReLU; with stride 2 of every other position from 0 and from 1 on, as 2 C channels."""
        if stride not in self._made:
            x = functional.relu(self.maps)
            if stride == 2:
                # An odd size has no position after its last one: a zero stands for it.
                x = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
                x = torch.cat([x[:, :, k::2, k::2] for k in (0, 1)], dim=1)
            self._made[stride] = _Shared(x)
        return self._made[stride]

    def pooled(self, kind: str, stride: int) -> _Shared:
        """Maximum or mean of 3 x 3 positions."""
        if (kind, stride) not in self._made:
            made = apply_function(_Pools, self.maps, stride)
            for name, pooled in zip(("max", "avg"), made, strict=True):
                self._made[name, stride] = _Shared(pooled)
        return self._made[kind, stride]


@dataclass
class _Norm:
    """Batch norm of an operation, and what its result is multiplied by and shifted.

    Both are places in the plan, of a single value or one a channel; without one it is 1 or 0.
    """

    module: nn.BatchNorm2d
    gain: int | None
    shift: int | None

    def values(self, tensors: Sequence[Tensor]) -> tuple[Any, Any]:
        """Gain and shift."""
        gain = 1.0 if self.gain is None else _array(tensors[self.gain])
        return gain, 0.0 if self.shift is None else _array(tensors[self.shift])

    def add_gradient(self, gradients: _Gradients, of_gain: Array, of_shift: Array) -> None:
        """Add the gradients of both, (D,)."""
        for place, gradient in ((self.gain, of_gain), (self.shift, of_shift)):
            if place is not None:
                gradients.add(place, gradient)


@dataclass
class _Direct:
    """A term of maps that are there: of a state itself, or by way of a batch norm."""

    maps: int
    gain: int | None = None
    """Of a state itself."""
    norm: _Norm | None = None
    pointwise: int | None = None
    moments: tuple[int, int] | None = None
    factors: Array | None = None
    """Of its result, for each utterance (B,)."""


@dataclass
class _Branch:
    """A convolutional candidate of an edge; weights by place in the plan."""

    state: int
    first: tuple[int, int, int]
    """Step, stride and dilation of the first depthwise convolution."""
    dilation: int
    """Of the others."""
    layers: list[tuple[int, int, _Norm]]
    """Depthwise and pointwise convolution and batch norm, once or twice."""
    factors: Array | None


class _Plan:
    """What a node computes, and the tensors that it reads."""

    def __init__(self, statistics: RunningStatistics, *, recomputed: bool) -> None:
        self.statistics, self.recomputed = statistics, recomputed
        self.tensors: list[Tensor] = []
        self.branches: list[_Branch] = []
        self.directs: list[_Direct] = []
        self._places: dict[int, int] = {}

    def sum(self) -> list[Tensor]:
        """The sum of all terms, ``(B, D, F, T)``, unless there are none."""
        if not self.directs and not self.branches:
            return []
        return [cast(Tensor, apply_function(_Node, self, *self.tensors))]

    def add(
        self,
        state: _State,
        operation: nn.Module,
        weight: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> None:
        """Add a known operation with a weight, or with factors of each utterance."""
        of_utterances = None if factors is None else _array(factors).ravel()
        if isinstance(operation, SeparableConvolution):
            self._add_branch(state, operation, weight, of_utterances)
        elif isinstance(operation, Pool):
            pooled = state.pooled(*operation.geometry)
            self.add_direct(pooled, operation.norm, None, weight, of_utterances)
        elif isinstance(operation, FactorisedReduce):
            halves = [c.weight.flatten(1) for c in (operation.even, operation.odd) if c is not None]
            if len(halves) == 1:
                halves.append(halves[0][:0])
            pointwise = torch.block_diag(*halves)  # type: ignore[no-untyped-call]
            self.add_direct(state.rectified(2), operation.norm, pointwise, weight, of_utterances)
        else:
            gain = None if weight is None else self._place(weight)
            self.directs.append(_Direct(self._place(state.maps), gain, factors=of_utterances))

    def add_direct(
        self,
        shared: _Shared,
        norm: nn.BatchNorm2d,
        pointwise: Tensor | None = None,
        weight: Tensor | None = None,
        factors: Array | None = None,
    ) -> None:
        """Add the batch norm of maps or, with a matrix ``(D, C)``, of their pointwise map."""
        direct = _Direct(self._place(shared.maps), norm=self._norm(norm, weight), factors=factors)
        if pointwise is not None:
            direct.pointwise = self._place(pointwise)
        if norm.training:
            mean, covariance = shared.moments()
            direct.moments = self._place(mean), self._place(covariance)
        self.directs.append(direct)

    def _add_branch(
        self,
        state: _State,
        operation: SeparableConvolution,
        weight: Tensor | None,
        factors: Array | None,
    ) -> None:
        _, stride, dilation, repeats = operation.geometry
        layers = []
        for k, (depthwise, pointwise, norm) in enumerate(operation.stages()):
            own = self._norm(norm, weight if k == repeats - 1 else None)
            layers.append((self._place(depthwise.weight), self._place(pointwise.weight), own))
        # With both, it is the ordinary convolution of every other position.
        first = (2, 1, 1) if stride == dilation == 2 else (1, stride, dilation)
        place = self._place(state.maps)
        self.branches.append(_Branch(place, first, dilation, layers, factors))

    def _norm(self, module: nn.BatchNorm2d, weight: Tensor | None) -> _Norm:
        gain, shift = weight, None
        if module.affine:
            gain, shift = (
                t if weight is None else weight * t for t in (module.weight, module.bias)
            )
        return _Norm(module, *(None if t is None else self._place(t) for t in (gain, shift)))

    def _place(self, tensor: Tensor) -> int:
        place = self._places.setdefault(id(tensor), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(tensor)
        return place


class _Folded:
    """Batch norm of a pointwise map, times a gain, plus a shift, as a matrix.

    Parameters
    ----------
    pointwise : P (D, C); None: each channel is left as it is, and the matrix has its diagonal only.
    gain, shift : (D,), or of all D.
    moments : mean (C,) and covariance (C, C) of the maps that it reads; unused out of training.
    norm : its running statistics are used out of training.
    """

    def __init__(
        self,
        pointwise: Array | None,
        gain: Array | float,
        shift: Array | float,
        moments: tuple[Array, Array] | None,
        norm: nn.BatchNorm2d,
    ) -> None:
        self.gain, self.moments = gain, moments
        self.pointwise = None if pointwise is None else pointwise.astype(np.float64)
        if moments is None:
            statistics = cast(Any, (norm.running_mean, norm.running_var))
            self.mean, variance = (_array(s).astype(np.float64) for s in statistics)
        elif self.pointwise is None:
            self.mean, variance = moments[0], np.diag(moments[1])
        else:
            self.shifted = self.pointwise @ moments[1]  # (D, C)
            self.mean = self.pointwise @ moments[0]
            variance = (self.shifted * self.pointwise).sum(axis=1)
        self.variance = np.maximum(variance, 0.0)
        self.scale = 1.0 / np.sqrt(self.variance + norm.eps)
        factor = gain * self.scale
        self.matrix = factor if self.pointwise is None else factor[:, None] * self.pointwise
        self.bias = shift - factor * self.mean

    def keep(self, norm: nn.BatchNorm2d, count: int, statistics: RunningStatistics) -> None:
        """Note mean and variance, of ``count`` values a channel, as batch norm tracks them."""
        if self.moments is not None:
            found = self.mean, self.variance * (count / max(count - 1, 1))
            statistics.add(norm, *(torch.from_numpy(f) for f in found))

    def gradient(self, of_matrix: Array, of_bias: Array) -> tuple[Array, Array, Array, Array]:
        """Of pointwise map, gain (D,), mean and covariance (symmetric); a shift's is the bias'."""
        p, factor, trained = self.pointwise, self.gain * self.scale, self.moments is not None
        of_factor = of_matrix if p is None else (of_matrix * p).sum(axis=1)
        of_factor = of_factor - of_bias * self.mean
        of_gain = of_factor * self.scale
        of_mean = -factor * of_bias * trained
        of_variance = -0.5 * self.gain * of_factor * self.scale**3 * trained
        if p is None:
            return np.empty(0), of_gain, of_mean, np.diag(of_variance)
        of_pointwise = factor[:, None] * of_matrix
        if self.moments is not None:
            of_pointwise += np.outer(of_mean, self.moments[0])
            of_pointwise += (2.0 * of_variance)[:, None] * self.shifted
        return of_pointwise, of_gain, of_mean @ p, p.T @ (of_variance[:, None] * p)


class _Stage:
    """ReLU, depthwise convolution, and what is folded after it, of one branch.

    Parameters
    ----------
    before : the stage whose result it reads; a first stage reads a state.
    """

    def __init__(self, branch: _Branch, layer: int, before: _Stage | None) -> None:
        self.branch, self.before = branch, before
        self.kernel, self.pointwise, self.norm = branch.layers[layer]
        self.last = layer == len(branch.layers) - 1
        self.folded: Any = None
        """Made from its maps."""
        self.maps: Any = None

    def call(self, tensors: Sequence[Tensor]) -> maps.Stage:
        """To make its maps, or as it was made."""
        geometry = 1, 1, self.branch.dilation
        if self.before is None:
            x = _array(tensors[self.branch.state])  # (B, C, F, T)
            matrix, bias = np.empty((0, 0), x.dtype), np.empty(0, x.dtype)
            geometry = self.branch.first
        else:
            x, folded = _array(self.before.maps), self.before.folded
            matrix, bias = folded.matrix.astype(x.dtype), folded.bias.astype(x.dtype)
        kernel = _array(tensors[self.kernel])[:, 0]  # (D, k, k)
        batch, channels = len(x), len(kernel)
        if self.maps is None:
            sizes = [-(-size // (geometry[0] * geometry[1])) for size in x.shape[2:]]
            self.maps = tensors[self.branch.state].new_empty(batch, channels, *sizes)
        summed = self.folded is None and self.norm.module.training
        sums = np.zeros((batch, channels)), np.zeros((batch, channels, channels))
        return maps.Stage(x, matrix, bias, kernel, *geometry, _array(self.maps), *sums, summed)

    def fold(
        self, call: maps.Stage, tensors: Sequence[Tensor], statistics: RunningStatistics
    ) -> None:
        """What follows its maps, by their sums."""
        count = call.out.size // call.out.shape[1]
        moments = _moments(call.sums, call.products, count) if call.summed else None
        pointwise = _array(tensors[self.pointwise])[:, :, 0, 0]
        self.folded = _Folded(pointwise, *self.norm.values(tensors), moments, self.norm.module)
        self.folded.keep(self.norm.module, count, statistics)

    def term(self) -> maps.Term:
        """Its result in the sum of a node."""
        folded = self.folded
        return maps.Term(_array(self.maps), folded.matrix, folded.bias, self.branch.factors)


def _stages(branches: Sequence[_Branch]) -> list[list[_Stage]]:
    """First, second, ... stages."""
    depth = max((len(branch.layers) for branch in branches), default=0)
    found: list[list[_Stage]] = [[] for _ in range(depth)]
    for branch in branches:
        before: _Stage | None = None
        for k in range(len(branch.layers)):
            before = _Stage(branch, k, before)
            found[k].append(before)
    return found


def _compute(
    groups: Sequence[Sequence[_Stage]],
    tensors: Sequence[Tensor],
    statistics: RunningStatistics,
) -> None:
    """Make the maps of all stages; fold, unless that was done before."""
    for stages in groups:
        calls = [stage.call(tensors) for stage in stages]
        maps.in_parallel(maps.depthwise, calls)
        for stage, call in zip(stages, calls, strict=True):
            if stage.folded is None:
                stage.fold(call, tensors, statistics)


class _Gradients:
    """Gradients of the tensors of a plan that are wanted."""

    def __init__(self, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self.tensors, self.wanted = tensors, wanted
        self._found: dict[int, Array] = {}

    def of(self, place: int) -> Array:
        """The gradient so far, to be added to."""
        if place not in self._found:
            self._found[place] = np.zeros_like(_array(self.tensors[place]))
        return self._found[place]

    def of_maps(self, place: int) -> tuple[Array, bool]:
        """The gradient so far, and whether it is to be added to, or to be written."""
        added = place in self._found
        if not added:
            self._found[place] = np.empty_like(_array(self.tensors[place]))
        return self._found[place], added

    def add(self, place: int, gradient: Array) -> None:
        """Add a gradient, of the tensor's size or, for a single value, summed."""
        if not self.wanted[place]:
            return
        shape = tuple(self.tensors[place].shape)
        gradient = gradient.reshape(shape) if shape else np.asarray(gradient.sum())
        self._found[place] = self._found[place] + gradient if place in self._found else gradient

    def of_tensors(self) -> list[Tensor | None]:
        """In the order of the tensors."""
        return [
            torch.from_numpy(self.of(k)).to(tensor.dtype) if wanted else None
            for k, (tensor, wanted) in enumerate(zip(self.tensors, self.wanted, strict=True))
        ]


class _DirectTerm:
    """What becomes of a :class:`_Direct` in a node."""

    def __init__(
        self, direct: _Direct, tensors: Sequence[Tensor], statistics: RunningStatistics
    ) -> None:
        self.direct = direct
        self.folded: _Folded | None = None
        if direct.norm is not None:
            place = direct.pointwise
            pointwise = None if place is None else _array(tensors[place])
            moments = None
            if direct.moments is not None:
                moments = cast(Any, tuple(_array(tensors[k]) for k in direct.moments))
            norm = direct.norm
            folded = _Folded(pointwise, *norm.values(tensors), moments, norm.module)
            self.folded = folded
            read = tensors[direct.maps]
            folded.keep(norm.module, read.numel() // read.shape[1], statistics)

    def term(self, tensors: Sequence[Tensor]) -> maps.Term:
        """In the sum of a node."""
        direct, read = self.direct, _array(tensors[self.direct.maps])
        if self.folded is not None:
            return maps.Term(read, self.folded.matrix, self.folded.bias, direct.factors)
        gain = 1.0 if direct.gain is None else _array(tensors[direct.gain])
        factors, bias = np.full(read.shape[1], gain, np.float64), np.zeros(read.shape[1])
        return maps.Term(read, factors, bias, direct.factors)

    def add_gradient(self, of_matrix: Array, of_bias: Array, gradients: _Gradients) -> None:
        """Add the gradients of all but its maps."""
        direct = self.direct
        if self.folded is None or direct.norm is None:
            if direct.gain is not None:
                gradients.add(direct.gain, of_matrix)
            return
        of_pointwise, of_gain, *of_moments = self.folded.gradient(of_matrix, of_bias)
        direct.norm.add_gradient(gradients, of_gain, of_bias)
        if direct.pointwise is not None:
            gradients.add(direct.pointwise, of_pointwise)
        for place, gradient in zip(direct.moments or (), of_moments, strict=False):
            gradients.add(place, gradient)


class _Node(torch.autograd.Function):
    """Sum of all candidates of all edges into a node."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Tensor:
        """The tensors of the plan -> (B, D, F, T)."""
        ctx.plan, ctx.groups = plan, _stages(plan.branches)
        _compute(ctx.groups, tensors, plan.statistics)
        stages = [stage for group in ctx.groups for stage in group]
        ctx.directs = [_DirectTerm(d, tensors, plan.statistics) for d in plan.directs]
        terms = [direct.term(tensors) for direct in ctx.directs]
        terms += [stage.term() for stage in stages if stage.last]
        batch, _, *size = terms[0].maps.shape
        out = torch.from_numpy(np.empty((batch, len(terms[0].matrix), *size), terms[0].maps.dtype))
        maps.mix(terms, _array(out))
        # A supernet has too many to keep them: they are made again.
        kept = [] if plan.recomputed else [stage.maps for stage in stages]
        for stage in stages:
            stage.maps = None
        ctx.count = len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return out

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        stages = [stage for group in ctx.groups for stage in group]
        if ctx.plan.recomputed:
            _compute(ctx.groups, tensors, ctx.plan.statistics)
        else:
            for stage, made in zip(stages, kept, strict=True):
                stage.maps = made
        gradients = _Gradients(tensors, ctx.needs_input_grad[1:])
        last = [stage for stage in stages if stage.last]
        terms = [direct.term(tensors) for direct in ctx.directs]
        for direct, term in zip(ctx.directs, terms, strict=True):
            term.of_maps, term.added = gradients.of_maps(direct.direct.maps)
        for stage in last:
            terms.append(stage.term())
            terms[-1].of_maps = np.empty_like(terms[-1].maps)
        if not gradient[0].is_contiguous():  # a part of joined channels is, of each utterance
            gradient = gradient.contiguous()
        found = maps.unmix(_array(gradient), terms)
        for direct, (of_matrix, of_bias) in zip(ctx.directs, found, strict=False):
            direct.add_gradient(of_matrix, of_bias, gradients)
        n = len(ctx.directs)
        incoming: dict[_Stage, _Incoming] = {}
        for stage, term, gradient_of in zip(last, terms[n:], found[n:], strict=True):
            incoming[stage] = term.of_maps, *gradient_of
        for group in reversed(ctx.groups):
            incoming.update(_differentiate(group, incoming, tensors, gradients))
        for stage in stages:
            stage.maps = None
        return (None, *gradients.of_tensors())


#: Gradient of a stage's map by way of what reads it, and of matrix and bias folded after it.
_Incoming = tuple[Array, Array, Array]


def _differentiate(
    stages: Sequence[_Stage],
    incoming: dict[_Stage, _Incoming],
    tensors: Sequence[Tensor],
    gradients: _Gradients,
) -> dict[_Stage, _Incoming]:
    """Add gradients of stages; return what comes to the stages before them."""
    calls = []
    for stage in stages:
        of_maps, of_matrix, of_bias = incoming[stage]
        made = stage.call(tensors)
        x, dtype = made.x, made.x.dtype
        of_pointwise, of_gain, of_mean, of_covariance = stage.folded.gradient(of_matrix, of_bias)
        gradients.add(stage.pointwise, of_pointwise)
        stage.norm.add_gradient(gradients, of_gain, of_bias)
        of_sums = _of_sums(of_mean, of_covariance, stage.folded.moments, made.out)
        calls.append(
            maps.StageGradient(
                of_maps,
                made,
                of_sums[0].astype(dtype),
                of_sums[1].astype(dtype),
                gradients.of(stage.branch.state) if stage.before is None else np.empty_like(x),
                np.zeros((len(x), *made.matrix.shape)),
                np.zeros((len(x), *made.bias.shape)),
                np.zeros((len(x), *made.kernel.shape)),
                gradients.wanted[stage.kernel],
            )
        )
    maps.in_parallel(maps.depthwise_gradient, calls)
    before = {}
    for stage, call in zip(stages, calls, strict=True):
        gradients.add(stage.kernel, call.of_kernel.sum(axis=0))
        if stage.before is not None:
            found = call.of_matrix.sum(axis=0), call.of_bias.sum(axis=0)
            before[stage.before] = (call.of_x, *found)
    return before


def _of_sums(
    of_mean: Array, of_covariance: Array, moments: tuple[Array, Array] | None, read: Array
) -> tuple[Array, Array]:
    """Matrix and summand of a map's gradient by way of its moments: symmetric, and (C,)."""
    count = read.size // read.shape[1]
    matrix = of_covariance + of_covariance.T
    mean = np.zeros(len(of_mean)) if moments is None else moments[0]
    return matrix / count, (of_mean - matrix @ mean) / count


class _MomentsOf(torch.autograd.Function):
    """Mean and covariance of the channels of maps, float64."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` (B, C, F, T) -> (C,) and (C, C)."""
        batch, channels = x.shape[:2]
        call = maps.Moments(
            _array(x), np.zeros((batch, channels)), np.zeros((batch, channels, channels))
        )
        maps.in_parallel(maps.moments, [call])
        found = _moments(call.sums, call.products, x.numel() // channels)
        mean, covariance = (torch.from_numpy(f) for f in found)
        ctx.save_for_backward(x, mean, covariance)
        return mean, covariance

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(ctx: Any, of_mean: Tensor, of_covariance: Tensor) -> Tensor:
        x, *moments = ctx.saved_tensors
        of_x = torch.empty_like(x)
        found = cast(Any, tuple(_array(each) for each in moments))
        matrix, sums = _of_sums(_array(of_mean), _array(of_covariance), found, _array(x))
        read = _array(x)
        own = matrix.astype(read.dtype), sums.astype(read.dtype)
        call = maps.MomentsGradient(read, *own, _array(of_x))
        maps.in_parallel(maps.moments_gradient, [call])
        return of_x


class _Pools(torch.autograd.Function):
    """Both pools of a map."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """``x`` (B, C, F, T) -> maximum and mean, (B, C, ceil(F / stride), ceil(T / stride))."""
        sizes = [-(-size // stride) for size in x.shape[2:]]
        out = x.new_empty(*x.shape[:2], *sizes), x.new_empty(*x.shape[:2], *sizes)
        ctx.save_for_backward(x)
        ctx.stride = stride
        _call_pools(maps.pools, x, stride, out, x.new_empty(0, 0, 0, 0))
        return out

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        _call_pools(maps.pools_gradient, x, ctx.stride, gradients, of_x)
        return of_x, None


def _call_pools(
    kernel: Callable[..., Any], x: Tensor, stride: int, pooled: Sequence[Tensor], of_x: Tensor
) -> None:
    counts = []
    for size in x.shape[2:]:
        middle = torch.arange(0, size, stride)
        counts.append((middle + 1).clamp_max(size - 1) - (middle - 1).clamp_min(0) + 1)
    shares = (1.0 / torch.outer(*counts).double()).to(x.dtype)
    highest, means = (_array(each.contiguous()) for each in pooled)
    call = maps.Pools(_array(x), stride, _array(shares), highest, means, _array(of_x))
    maps.in_parallel(kernel, [call])


def _array(x: Tensor) -> Array:
    found: Array = x.detach().numpy()
    return found


def _moments(sums: Array, products: Array, count: int) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) from sums of every utterance."""
    mean = sums.sum(axis=0) / count
    return mean, products.sum(axis=0) / count - np.outer(mean, mean)
