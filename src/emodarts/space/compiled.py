r"""A CNN cell whose maps pass through compiled loops, with what follows a convolution folded.

The compiled cell has the modules, parameters and buffers of the plain cell of ``space.cell`` and
computes the same function; only the order of sums differs. Every candidate but ``none`` ends with
batch norm of a pointwise map :math:`P d` (pools: with :math:`P = I`). Its statistics follow from
mean :math:`\mu` and covariance :math:`\Sigma` of :math:`d`, and with the gain :math:`g` (in a
supernet the weight of the candidate, in a discrete network that of the batch norm)

.. math:: g \, BN(P d) = M d - M \mu, \quad
          M = diag(g) \, diag(v + \epsilon)^{-1/2} P, \quad v = diag(P \Sigma P^T)

is one matrix, so that maps before and after a batch norm are never made:

* a stage of a candidate is ReLU of such an affine map, depthwise convolution, and moments of the
  result, in one pass over an utterance while it is in the caches;
* a node is one function, that sums the matrices' products over all edges and candidates, and whose
  gradient is written out, as its parts would otherwise be thousands of small calls;
* both pools, and what a skip connection reads, are made once for all edges that leave a state.

A discrete network is the case of one candidate an edge: its batch norms shift, too, and an edge
that is dropped has a factor for each utterance. The stages of a supernet's node are made again in
the backward pass, not kept. Maps keep their precision; statistics and matrices are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.space.cell import Cell, MixedOperation
from emodarts.space.cnn_ops import FactorisedReduce
from emodarts.space.normalise import (
    OnceDifferentiableCell,
    apply_function,
    differentiable_once,
    update_statistics,
)

Array = np.ndarray[Any, Any]

#: A search that diverges is told by its loss, not by a warning from here.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


class CompiledCell(OnceDifferentiableCell):
    """A CNN cell of either network: :class:`Cell`, but quicker and in less memory, on a CPU."""

    layout = torch.contiguous_format

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Maps of the two cells before, and weights ``(E, O)`` -> maps ``(B, N * C, F, T)``."""
        if self.plain:
            first, second = (x.to(memory_format=Cell.layout) for x in (first, second))
            return super().forward(first, second, weights)
        states = [
            _project(module, x.contiguous())
            for module, x in zip(self.inputs, (first, second), strict=True)
        ]
        pooled: dict[int, tuple[Tensor, ...]] = {}
        index = 0
        for sources in self.sources:
            plan = _Plan(states[0].shape[1])
            for k, source in enumerate(sources):
                x = states[source]
                for operation, weight, factors in _candidates(self.edges[index + k], k, x):
                    if _is_convolution(operation):
                        plan.add_branch(x, operation, weight, factors)
                        continue
                    stride = _stride(operation)
                    if stride and source not in pooled:
                        pooled[source] = apply_function(_Pools, x, stride)
                    maps = pooled[source] if stride else (x,)
                    plan.add_direct(maps, operation, weight, factors)
            rows = None if weights is None else weights[index : index + len(sources)]
            index += len(sources)
            states.append(apply_function(_Node, plan, rows, *plan.tensors))
        return torch.cat(states[2:], dim=self.dim)


#: In a supernet: row of an edge and column of a candidate.
_Weight = tuple[int, int] | None


class _Dropping(Protocol):
    """An edge of a discrete network that is no identity: ``DropPath``."""

    operation: nn.Module

    def factors(self, x: Tensor) -> Tensor | None:
        """Of the operation's result, for each utterance of ``x``."""
        ...


def _candidates(
    edge: nn.Module, row: int, x: Tensor
) -> list[tuple[nn.Module, _Weight, Array | None]]:
    """Operations of an edge that reads ``x``, their weights, and factors of each utterance."""
    if isinstance(edge, MixedOperation):
        places = zip(edge.columns, edge.operations, strict=True)
        return [(operation, (row, column), None) for column, operation in places]
    if isinstance(edge, nn.Identity):
        return [(edge, None, None)]
    dropping = cast(_Dropping, edge)
    factors = dropping.factors(x)
    return [(dropping.operation, None, None if factors is None else _array(factors).ravel())]


def _is_convolution(operation: nn.Module) -> bool:
    return isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU)


def _stride(operation: nn.Module) -> int:
    """Of a pool or a skip connection; 0: it reads the state itself."""
    if isinstance(operation, nn.Identity):
        return 0
    return 2 if isinstance(operation, FactorisedReduce) else cast(Any, operation)[0].stride


@dataclass
class _Norm:
    """Batch norm of an operation, and what its result is multiplied by and shifted.

    That is the weight of a candidate, or the ``affine`` weight and bias of the batch norm, by
    place in the plan.
    """

    module: nn.BatchNorm2d
    weight: _Weight
    affine: tuple[int, int] | None

    def gain(
        self, tensors: Sequence[Tensor], weights: Array
    ) -> tuple[Array | float, Array | float]:
        """Gain and shift."""
        if self.affine is not None:
            gain, shift = (_array(tensors[place]) for place in self.affine)
            return gain, shift
        return (1.0 if self.weight is None else weights[self.weight]), 0.0

    def add_gradient(self, gradients: _Gradients, of_gain: Array, of_shift: Array) -> None:
        """Add the gradients of both, (D,)."""
        if self.affine is not None:
            gradients.add(self.affine[0], of_gain)
            gradients.add(self.affine[1], of_shift)
        elif self.weight is not None:
            gradients.of_weights[self.weight] += of_gain.sum()


@dataclass
class _Layers:
    """Depthwise and pointwise convolution and batch norm; weights by place in the plan."""

    kernel: int
    pointwise: int
    norm: _Norm


@dataclass
class _Branch:
    """A convolutional candidate of an edge: ReLU and :class:`_Layers`, once or twice."""

    state: int
    step: int
    stride: int
    dilation: int
    layers: list[_Layers]
    factors: Array | None
    """Of its result, for each utterance."""


@dataclass
class _Direct:
    """A pool or skip connection: a term of maps that are there, some of their channels."""

    maps: int
    channels: slice
    weight: _Weight
    norm: _Norm | None
    moments: list[int]
    """Places of mean and covariance of the maps, where there is a batch norm."""
    halves: list[int]
    """Of a skip connection with stride 2: its convolutions."""
    factors: Array | None


@dataclass
class _Plan:
    """What a node computes, and the tensors that it reads."""

    width: int
    """Channels of every state."""
    tensors: list[Tensor] = field(default_factory=list)
    branches: list[_Branch] = field(default_factory=list)
    directs: list[_Direct] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    """Of tensors, by their ``id``."""

    def add_direct(
        self,
        maps: Sequence[Tensor],
        operation: nn.Module,
        weight: _Weight,
        factors: Array | None,
    ) -> None:
        """Add a pool or skip connection; ``maps`` are what :class:`_Pools` makes, or the state."""
        place, *moments = map(self._add, maps)
        norm, halves = None, []
        first = 0
        if isinstance(operation, FactorisedReduce):
            norm, first = self._add_norm(operation.norm, weight), 2
            convolutions = (operation.even, operation.odd)
            halves = [self._add(c.weight) for c in convolutions if c is not None]
        elif not isinstance(operation, nn.Identity):
            pool, module = cast(Any, operation)
            norm, first = self._add_norm(module, weight), int(isinstance(pool, nn.AvgPool2d))
        last = first + (2 if halves else 1)
        channels = slice(first * self.width, last * self.width)
        self.directs.append(_Direct(place, channels, weight, norm, moments, halves, factors))

    def add_branch(
        self, state: Tensor, operation: nn.Module, weight: _Weight, factors: Array | None
    ) -> None:
        """Add a convolutional candidate."""
        layers, found = list(cast(nn.Sequential, operation)), []
        for k in range(0, len(layers), 4):
            _, depthwise, pointwise, norm = cast(Any, layers[k : k + 4])
            places = self._add(depthwise.weight), self._add(pointwise.weight)
            last = k + 4 == len(layers)
            found.append(_Layers(*places, self._add_norm(norm, weight if last else None)))
        first = cast(nn.Conv2d, layers[1])
        step, stride, dilation = 1, first.stride[0], first.dilation[0]
        if stride == dilation == 2:  # the ordinary convolution of every other position
            step, stride, dilation = 2, 1, 1
        branch = _Branch(self._add(state), step, stride, dilation, found, factors)
        self.branches.append(branch)

    def _add_norm(self, module: nn.BatchNorm2d, weight: _Weight) -> _Norm:
        affine = (self._add(module.weight), self._add(module.bias)) if module.affine else None
        return _Norm(module, weight, affine)

    def _add(self, tensor: Tensor) -> int:
        place = self.places.setdefault(id(tensor), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(tensor)
        return place


class _Folded:
    """Batch norm of a pointwise map, times a gain, plus a shift, as a matrix.

    Parameters
    ----------
    pointwise : P (D, C); None: each channel is left as it is, and the matrix has its diagonal only.
    gain, shift : (D,), or of all D.
    mean, covariance : (C,) and (C, C) of the maps that it reads, float64; (C,), of a diagonal.
    norm : its running statistics are used out of training.
    """

    def __init__(
        self,
        pointwise: Array | None,
        gain: Array | float,
        shift: Array | float,
        mean: Array,
        covariance: Array,
        norm: nn.BatchNorm2d,
    ) -> None:
        self.gain, self.of_what, self.trained = gain, mean, norm.training
        self.pointwise = None if pointwise is None else pointwise.astype(np.float64)
        if not self.trained:
            self.mean, variance = _running(norm)
        elif self.pointwise is None:
            self.mean, variance = mean, covariance
        else:
            self.shifted = self.pointwise @ covariance
            self.mean = self.pointwise @ mean
            variance = (self.shifted * self.pointwise).sum(axis=1)
        self.variance = np.maximum(variance, 0.0)
        self.scale = 1.0 / np.sqrt(self.variance + norm.eps)
        factor = gain * self.scale
        self.matrix = factor if self.pointwise is None else factor[:, None] * self.pointwise
        self.bias = shift - factor * self.mean

    def gradient(self, of_matrix: Array, of_bias: Array) -> tuple[Array, Array, Array, Array]:
        """Of pointwise map, gain (D,), mean and covariance (symmetric); a shift's is the bias'."""
        p, factor = self.pointwise, self.gain * self.scale
        of_factor = of_matrix if p is None else (of_matrix * p).sum(axis=1)
        of_factor = of_factor - of_bias * self.mean
        of_gain = of_factor * self.scale
        of_mean = -factor * of_bias * self.trained
        of_variance = -0.5 * self.gain * of_factor * self.scale**3 * self.trained
        if p is None:
            return np.empty(0), of_gain, of_mean, of_variance
        of_pointwise = factor[:, None] * of_matrix
        if self.trained:
            of_pointwise += np.outer(of_mean, self.of_what)
            of_pointwise += (2.0 * of_variance)[:, None] * self.shifted
        return of_pointwise, of_gain, of_mean @ p, p.T @ (of_variance[:, None] * p)


class _Stage:
    """ReLU, depthwise convolution, and what is folded after it, of one branch.

    Parameters
    ----------
    before : the stage whose result it reads; a first stage reads a state.
    last : whether its result is a term of the node, with the weight of the candidate.
    """

    def __init__(self, branch: _Branch, layers: _Layers, before: _Stage | None, last: bool) -> None:
        self.branch, self.layers, self.before, self.last = branch, layers, before, last
        self.geometry = (
            (branch.step, branch.stride, branch.dilation) if before is None else (1,) * 3
        )
        self.folded: _Folded | None = None
        self.maps: Tensor | None = None

    def reading(self, tensors: Sequence[Tensor]) -> tuple[Array, Array, Array]:
        """The map that it reads, and matrix and bias before the ReLU."""
        if self.before is None:
            x = _array(tensors[self.branch.state])
            return x, np.empty((0, 0), x.dtype), np.empty(0, x.dtype)
        x, folded = _array(_there(self.before.maps)), _there(self.before.folded)
        return x, folded.matrix.astype(x.dtype), folded.bias.astype(x.dtype)

    def term(self) -> _Term:
        """Its result in the sum of a node."""
        folded = _there(self.folded)
        return _Term(_array(_there(self.maps)), folded.matrix, folded.bias, self.branch.factors)

    def kernel(self, tensors: Sequence[Tensor]) -> Array:
        """``(D, k, k)``."""
        return _array(tensors[self.layers.kernel])[:, 0]


def _stages(branches: Sequence[_Branch]) -> tuple[list[_Stage], list[_Stage]]:
    """First and second stages."""
    first, second = [], []
    for branch in branches:
        stage = _Stage(branch, branch.layers[0], None, len(branch.layers) == 1)
        first.append(stage)
        if len(branch.layers) == 2:
            second.append(_Stage(branch, branch.layers[1], stage, True))
    return first, second


def _compute(stages: Sequence[_Stage], tensors: Sequence[Tensor], weights: Array) -> None:
    """Make the maps of stages whose inputs are there; fold, unless that was done before."""
    from emodarts.space import kernels

    calls, found = [], []
    for stage in stages:
        x, matrix, bias = stage.reading(tensors)
        kernel = stage.kernel(tensors)
        step, stride, _ = stage.geometry
        batch, channels = len(x), len(kernel)
        sizes = [-(-size // (step * stride)) for size in x.shape[2:]]
        stage.maps = tensors[stage.branch.state].new_empty(batch, channels, *sizes)
        wanted = stage.folded is None and stage.layers.norm.module.training
        sums = np.zeros((batch, channels))
        products = np.zeros((batch, channels, channels))
        found.append((sums, products))
        maps = _array(stage.maps)
        calls.append((x, matrix, bias, kernel, *stage.geometry, maps, sums, products, wanted))
    kernels.in_parallel(kernels.depthwise, calls)
    for stage, (sums, products) in zip(stages, found, strict=True):
        if stage.folded is None:
            made, norm = _there(stage.maps), stage.layers.norm
            count = made.numel() // made.shape[1]
            pointwise = _array(tensors[stage.layers.pointwise])[:, :, 0, 0]
            gain, moments = norm.gain(tensors, weights), _moments(sums, products, count)
            stage.folded = _Folded(pointwise, *gain, *moments, norm.module)
            _update(norm.module, stage.folded, count)


class _Gradients:
    """Gradients of the tensors of a plan that are wanted, and of the edges' weights."""

    def __init__(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], of_weights: Array
    ) -> None:
        self.tensors, self.wanted, self.of_weights = tensors, wanted, of_weights
        self._found: dict[int, Array] = {}

    def of(self, place: int) -> Array:
        """The gradient so far, to be added to."""
        if place not in self._found:
            self._found[place] = np.zeros_like(_array(self.tensors[place]))
        return self._found[place]

    def add(self, place: int, gradient: Array) -> None:
        """Add a gradient, of the tensor's size."""
        if self.wanted[place]:
            shape = tuple(self.tensors[place].shape)
            if place in self._found:
                self._found[place] += gradient.reshape(shape)
            else:
                self._found[place] = gradient.reshape(shape)

    def of_tensors(self) -> list[Tensor | None]:
        """In the order of the tensors."""
        return [
            torch.from_numpy(self.of(k)).to(tensor.dtype) if wanted else None
            for k, (tensor, wanted) in enumerate(zip(self.tensors, self.wanted, strict=True))
        ]


class _Term:
    """Maps, and a matrix (D, C) or a factor for each channel, of a node's sum; and its bias (D,).

    ``of_maps`` takes their gradient: added to it, or written. ``factors`` are of utterances.
    """

    def __init__(
        self, maps: Array, matrix: Array, bias: Array, factors: Array | None = None
    ) -> None:
        self.maps, self.matrix, self.bias, self.factors = maps, matrix, bias, factors
        self.of_maps: Array | None = None
        self.added = False


class _DirectTerm:
    """What becomes of a :class:`_Direct` in a node of ``width`` channels."""

    def __init__(
        self, plan: _Direct, width: int, tensors: Sequence[Tensor], weights: Array
    ) -> None:
        self.plan, self.width = plan, width
        self.folded: _Folded | None = None
        if plan.norm is None:
            return
        own = plan.channels
        mean, covariance = (_array(tensors[place]) for place in plan.moments)
        covariance = covariance[own, own]
        pointwise = None
        if plan.halves:
            halves = [_array(tensors[half])[:, :, 0, 0] for half in plan.halves]
            pointwise = np.zeros((width, 2 * width))
            pointwise[: len(halves[0]), :width] = halves[0]
            if len(halves) == 2:
                pointwise[len(halves[0]) :, width:] = halves[1]
        else:
            covariance = np.diag(covariance)
        gain, norm = plan.norm.gain(tensors, weights), plan.norm.module
        self.folded = _Folded(pointwise, *gain, mean[own], covariance, norm)
        maps = tensors[plan.maps]
        _update(norm, self.folded, maps.numel() // maps.shape[1])

    def term(self, tensors: Sequence[Tensor], weights: Array) -> _Term:
        """In the sum of a node."""
        maps = _array(tensors[self.plan.maps])[:, self.plan.channels]
        if self.folded is not None:
            return _Term(maps, self.folded.matrix, self.folded.bias, self.plan.factors)
        gain = 1.0 if self.plan.weight is None else weights[self.plan.weight]
        return _Term(maps, np.full(self.width, gain), np.zeros(self.width), self.plan.factors)

    def term_with_gradient(
        self, tensors: Sequence[Tensor], weights: Array, gradients: _Gradients
    ) -> _Term:
        """As above, with the place of the maps' gradient."""
        term = self.term(tensors, weights)
        term.of_maps = gradients.of(self.plan.maps)[:, self.plan.channels]
        term.added = self.folded is None
        return term

    def add_gradient(self, of_matrix: Array, of_bias: Array, gradients: _Gradients) -> None:
        """Add the gradients of moments, weights and convolutions."""
        plan = self.plan
        if self.folded is None:
            if plan.weight is not None:
                gradients.of_weights[plan.weight] += of_matrix.sum()
            return
        of_pointwise, of_gain, *of_moments = self.folded.gradient(of_matrix, of_bias)
        _there(plan.norm).add_gradient(gradients, of_gain, of_bias)
        mean, covariance = (gradients.of(place) for place in plan.moments)
        mean[plan.channels] += of_moments[0]
        own = np.arange(len(mean))[plan.channels]
        covariance[(own, own) if not plan.halves else np.ix_(own, own)] += of_moments[1]
        done = 0
        for k, half in enumerate(plan.halves):
            rows = slice(done, done + len(gradients.tensors[half]))
            done = rows.stop
            gradients.add(half, of_pointwise[rows, k * self.width : (k + 1) * self.width])


class _Node(torch.autograd.Function):
    """Sum of all candidates of all edges into a node."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, plan: _Plan, weights: Tensor | None, *tensors: Tensor) -> Tensor:
        """Weights (E, O) of a supernet's edges, and the tensors of the plan -> (B, C, F, T)."""
        from emodarts.space import kernels

        gains = _gains(weights)
        ctx.first, ctx.second = _stages(plan.branches)
        stages = (*ctx.first, *ctx.second)
        _compute(ctx.first, tensors, gains)
        _compute(ctx.second, tensors, gains)
        ctx.directs = [_DirectTerm(d, plan.width, tensors, gains) for d in plan.directs]
        terms = [direct.term(tensors, gains) for direct in ctx.directs]
        terms += [stage.term() for stage in stages if stage.last]
        batch, _, *size = terms[0].maps.shape
        out = tensors[0].new_empty(batch, plan.width, *size)
        kernels.mix(terms, _array(out))
        # A supernet has too many to keep them: they are made again.
        maps = [stage.maps for stage in stages] if weights is None else []
        for stage in stages:
            stage.maps = None
        ctx.count = len(tensors)
        ctx.save_for_backward(weights, *tensors, *maps)
        return out

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from emodarts.space import kernels

        weights, *tensors = ctx.saved_tensors
        tensors, maps = tensors[: ctx.count], tensors[ctx.count :]
        gains = _gains(weights)
        stages = (*ctx.first, *ctx.second)
        if weights is None:
            for stage, kept in zip(stages, maps, strict=True):
                stage.maps = kept
        else:
            _compute(ctx.first, tensors, gains)
            _compute(ctx.second, tensors, gains)
        gradients = _Gradients(tensors, ctx.needs_input_grad[2:], np.zeros_like(gains))
        if weights is not None:  # all of them are written
            for place in {d.plan.maps for d in ctx.directs if d.folded is not None}:
                gradients.add(place, np.empty_like(_array(tensors[place])))
        last = [stage for stage in stages if stage.last]
        terms = [d.term_with_gradient(tensors, gains, gradients) for d in ctx.directs]
        for stage in last:
            terms.append(stage.term())
            terms[-1].of_maps = np.empty_like(terms[-1].maps)
        if not gradient[0].is_contiguous():  # a part of joined channels is, of each utterance
            gradient = gradient.contiguous()
        found = kernels.unmix(_array(gradient), terms)
        for direct, (of_matrix, of_bias) in zip(ctx.directs, found, strict=False):
            direct.add_gradient(of_matrix, of_bias, gradients)
        n = len(ctx.directs)
        incoming: dict[_Stage, _Incoming] = {}
        for stage, term, gradient_of in zip(last, terms[n:], found[n:], strict=True):
            incoming[stage] = _there(term.of_maps), *gradient_of
        for group in (ctx.second, ctx.first):
            incoming.update(_differentiate(group, incoming, tensors, gradients))
        for stage in stages:
            stage.maps = None
        of_weights = None
        if weights is not None:
            of_weights = torch.from_numpy(gradients.of_weights).to(weights.dtype)
        return (None, of_weights, *gradients.of_tensors())


def _gains(weights: Tensor | None) -> Array:
    return np.empty((0, 0)) if weights is None else _array(weights.double())


#: Gradient of a stage's map by way of what reads it, and of matrix and bias folded after it.
_Incoming = tuple[Array, Array, Array]


def _differentiate(
    stages: Sequence[_Stage],
    incoming: dict[_Stage, _Incoming],
    tensors: Sequence[Tensor],
    gradients: _Gradients,
) -> dict[_Stage, _Incoming]:
    """Add gradients of stages; return what comes to the stages before them."""
    from emodarts.space import kernels

    calls, results = [], []
    for stage in stages:
        of_maps, of_matrix, of_bias = incoming[stage]
        maps, folded = _array(_there(stage.maps)), _there(stage.folded)
        of_pointwise, of_gain, of_mean, of_covariance = folded.gradient(of_matrix, of_bias)
        gradients.add(stage.layers.pointwise, of_pointwise)
        stage.layers.norm.add_gradient(gradients, of_gain, of_bias)
        count = maps.size // maps.shape[1]
        x, matrix, bias = stage.reading(tensors)
        kernel = stage.kernel(tensors)
        batch, dtype = len(x), x.dtype
        of_x = gradients.of(stage.branch.state) if stage.before is None else np.empty_like(x)
        of_matrix = np.zeros((batch, *matrix.shape))
        of_bias = np.zeros((batch, *bias.shape))
        wanted = gradients.wanted[stage.layers.kernel]
        of_kernel = np.zeros((batch, *kernel.shape))
        results.append((stage, of_x, of_matrix, of_bias, of_kernel))
        calls.append(
            (
                of_maps,
                maps,
                (2.0 / count * of_covariance).astype(dtype),
                ((of_mean - 2.0 * of_covariance @ folded.of_what) / count).astype(dtype),
                x,
                matrix,
                bias,
                np.ascontiguousarray(kernel[:, ::-1, ::-1]),
                *stage.geometry,
                of_x,
                of_matrix,
                of_bias,
                of_kernel,
                wanted,
            )
        )
    kernels.in_parallel(kernels.depthwise_gradient, calls)
    before = {}
    for stage, of_x, of_matrix, of_bias, of_kernel in results:
        gradients.add(stage.layers.kernel, of_kernel.sum(axis=0))
        if stage.before is not None:
            before[stage.before] = (of_x, of_matrix.sum(axis=0), of_bias.sum(axis=0))
    return before


class _Pools(torch.autograd.Function):
    """Both pools of a map and, with stride 2, what its skip connection reads, side by side."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` (B, C, F, T) -> (B, 2 C or 4 C, ...), and where it matters their moments."""
        from emodarts.space import kernels

        batch, channels = x.shape[:2]
        shape = [-(-size // stride) for size in x.shape[2:]]
        width = channels * 2 * stride
        y = x.new_empty(batch, width, *shape)
        sums, products = np.zeros((batch, width)), np.zeros((batch, width, width))
        shares = _shares(x, stride)
        arguments = (_array(x), stride, _array(shares), _array(y), sums, products)
        kernels.in_parallel(kernels.pools, [arguments])
        moments = _moments(sums, products, y.numel() // width)
        mean, covariance = (torch.from_numpy(m) for m in moments)
        ctx.save_for_backward(x, y, mean, shares)
        ctx.stride = stride
        return y, mean, covariance

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(
        ctx: Any, gradient: Tensor, of_mean: Tensor, of_covariance: Tensor
    ) -> tuple[Tensor | None, ...]:
        from emodarts.space import kernels

        x, y, mean, shares = ctx.saved_tensors
        count, dtype = y.numel() // y.shape[1], x.dtype
        matrix = of_covariance + of_covariance.t()
        of_x = torch.empty_like(x)
        arguments = (
            _array(gradient.contiguous()),
            _array(y),
            _array((matrix / count).to(dtype)),
            _array(((of_mean - matrix @ mean) / count).to(dtype)),
            _array(x),
            ctx.stride,
            _array(shares),
            _array(of_x),
        )
        kernels.in_parallel(kernels.pools_gradient, [arguments])
        return of_x, None


def _shares(x: Tensor, stride: int) -> Tensor:
    """One over the number of 3 x 3 neighbours that are there."""
    counts = []
    for size in x.shape[2:]:
        middle = torch.arange(0, size, stride)
        counts.append((middle + 1).clamp_max(size - 1) - (middle - 1).clamp_min(0) + 1)
    return (1.0 / torch.outer(*counts).double()).to(x.dtype)


def _update(norm: nn.BatchNorm2d, found: _Folded, count: int) -> None:
    mean, variance = torch.from_numpy(found.mean), torch.from_numpy(found.variance)
    update_statistics([norm], mean, variance, count)


def _running(norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    statistics = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    mean, variance = (_array(s).astype(np.float64) for s in statistics)
    return mean, variance


class _Projection(torch.autograd.Function):
    """ReLU, 1x1 convolutions and a batch norm."""

    @staticmethod
    @_quiet
    def forward(
        ctx: Any,
        norm: nn.BatchNorm2d,
        stride: int,
        x: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        """``x`` (B, C, F, T); weights (D, C, 1, 1), or of stride 2 two, for other positions."""
        from emodarts.space import kernels

        batch, channels = x.shape[:2]
        matrix = np.zeros((sum(map(len, weights)), stride * channels), _array(x).dtype)
        done = 0
        for k, weight in enumerate(weights):
            rows = slice(done, done + len(weight))
            matrix[rows, k * channels : (k + 1) * channels] = _array(weight)[:, :, 0, 0]
            done += len(weight)
        y = x.new_empty(batch, done, *(-(-size // stride) for size in x.shape[2:]))
        sums, squares = np.zeros((2, batch, done))
        kernels.in_parallel(
            kernels.project, [(_array(x), stride, matrix, _array(y), sums, squares)]
        )
        if norm.training:
            count = y.numel() // done
            mean = sums.sum(axis=0) / count
            variance = np.maximum(squares.sum(axis=0) / count - mean * mean, 0.0)
            moments = torch.from_numpy(mean), torch.from_numpy(variance)
            update_statistics([norm], *moments, count)
        else:
            mean, variance = _running(norm)
        factors = 1.0 / np.sqrt(variance + norm.eps)
        summands = (-mean * factors).astype(matrix.dtype)
        kernels.in_parallel(kernels.scale, [(_array(y), factors.astype(matrix.dtype), summands)])
        ctx.save_for_backward(x, y, gain, *weights)
        ctx.matrix, ctx.factors, ctx.stride, ctx.trained = matrix, factors, stride, norm.training
        if gain is None or shift is None:
            return y
        return torch.addcmul(shift[:, None, None], y, gain[:, None, None])

    @staticmethod
    @differentiable_once
    @_quiet
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from emodarts.space import kernels

        x, z, gain, *weights = ctx.saved_tensors
        g, dtype = _array(gradient.contiguous()), _array(x).dtype
        batch, channels = x.shape[:2]
        factors = np.zeros((3, z.shape[1]))
        factors[0] = ctx.factors if gain is None else ctx.factors * _array(gain)
        sums, products = np.zeros((2, *z.shape[:2]))
        if ctx.trained or gain is not None:
            kernels.in_parallel(kernels.sums_of_products, [(g, _array(z), sums, products)])
        of_shift, of_gain = sums.sum(axis=0), products.sum(axis=0)
        if ctx.trained:
            count = z.numel() // z.shape[1]
            factors[1] = -factors[0] * of_gain / count
            factors[2] = -factors[0] * of_shift / count
        of_x = torch.empty_like(x)
        of_matrix = np.zeros((batch, *ctx.matrix.shape))
        wanted = any(ctx.needs_input_grad[5:])
        kernels.in_parallel(
            kernels.project_gradient,
            [
                (
                    g,
                    _array(z),
                    factors.astype(dtype),
                    _array(x),
                    ctx.stride,
                    np.ascontiguousarray(ctx.matrix.T),
                    _array(of_x),
                    of_matrix,
                    wanted,
                )
            ],
        )
        found, done = [], 0
        total = of_matrix.sum(axis=0)
        for k, weight in enumerate(weights):
            part = total[done : done + len(weight), k * channels : (k + 1) * channels]
            done += len(weight)
            found.append(torch.from_numpy(part).to(weight.dtype)[:, :, None, None])
        of_norm = [
            torch.from_numpy(part).to(x.dtype) if gain is not None else None
            for part in (of_gain, of_shift)
        ]
        return (None, None, of_x, *of_norm, *(found if wanted else [None] * len(found)))


def _project(module: nn.Module, x: Tensor) -> Tensor:
    """What brings an input of a cell to its channels."""
    if isinstance(module, FactorisedReduce):
        convolutions = [module.even] if module.odd is None else [module.even, module.odd]
        stride, norm = 2, module.norm
    else:
        _, convolution, norm = cast(Any, module)
        stride, convolutions = 1, [convolution]
    tensors = [norm.weight, norm.bias, *(convolution.weight for convolution in convolutions)]
    return cast(Tensor, apply_function(_Projection, norm, stride, x, *tensors))


_T = TypeVar("_T")


def _there(value: _T | None) -> _T:
    return cast(_T, value)


def _array(x: Tensor) -> Array:
    found: Array = x.detach().numpy()
    return found


def _moments(sums: Array, products: Array, count: int) -> tuple[Array, Array]:
    """Mean (C,) and covariance (C, C) from sums of every utterance."""
    mean = sums.sum(axis=0) / count
    return mean, products.sum(axis=0) / count - np.outer(mean, mean)
