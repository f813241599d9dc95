"""Cells of LSTMs and RNNs, compiled, with their gradients written out.

Torch calls several functions for every step of an RNN. oneDNN's LSTM keeps three times as much for
the backward pass, and computes gradients of weights where none are wanted: in the passes for
alphas.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.errors import ShapeError
from emodarts.space.cell import MixedOperation, Sources
from emodarts.space.normalise import apply_function, differentiable_once
from emodarts.space.sequence_ops import Recurrent, SequenceSkip, require_sequence
from emodarts.space.threads import in_threads

Array = np.ndarray[Any, Any]


def run_cell(
    first: Tensor,
    second: Tensor,
    sources: Sources,
    edges: Sequence[MixedOperation],
    weights: Tensor,
) -> Tensor:
    """Nodes of a cell of recurrent operations and skip connections, joined: ``(B, T, N * H)``.

    On a CPU, in as many threads as torch has; the result does not depend on how many. It can be
    differentiated once.

    Parameters
    ----------
    first, second : ``(B, T, I)`` and ``(B, T, J)``, the first states.
    sources : for each node, the states that it reads.
    edges : the candidates of each edge, in the order of ``sources``.
    weights : of the candidates, ``(E, O)``.

    Raises
    ------
    ShapeError
        For inputs of other shapes or types than the candidates are for, or candidates whose results
        a node cannot sum.
    """
    for x in (first, second):
        require_sequence(x, "a recurrent operation")
    if first.shape[:2] != second.shape[:2] or first.dtype != second.dtype:
        raise ShapeError(
            "both inputs of a cell need one type, and as many utterances and steps; got "
            f"{first.dtype} {tuple(first.shape)} and {second.dtype} {tuple(second.shape)}"
        )
    plan = _Plan(sources, edges, first, second)
    columns = [column for edge in edges for column in edge.columns]
    nodes: Tensor = apply_function(
        _Cell,
        plan,
        # Nothing is copied where time is the outer axis in memory.
        first.transpose(0, 1).contiguous(),
        second.transpose(0, 1).contiguous(),
        weights[plan.candidates["edge"], columns],
        *plan.parameters,
    )
    return nodes.permute(2, 1, 0, 3).flatten(2)


class _Shape(NamedTuple):
    """Of a candidate; a skip connection has no layers."""

    lstm: bool = False
    layers: int = 0
    directions: int = 1
    units: int = 0
    attention: bool = False
    width_in: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> _Shape:
        if isinstance(module, SequenceSkip):
            return cls()
        if not isinstance(module, Recurrent):
            raise TypeError(f"{type(module).__name__} is not compiled")
        network = module.recurrent
        return cls(
            lstm=isinstance(network, nn.LSTM),
            layers=network.num_layers,
            directions=1 + int(network.bidirectional),
            units=network.hidden_size,
            attention=module.attention is not None,
            width_in=network.input_size,
        )

    def width_out(self, width_in: int) -> int:
        """For an input of that width, which must be the candidate's."""
        if self.layers == 0:
            return width_in
        if width_in != self.width_in:
            raise ShapeError(
                f"a recurrent operation needs {self.width_in} channels; got {width_in}"
            )
        return self.units if self.attention else self.directions * self.units


@functools.cache
def _parameter_shapes(shape: _Shape) -> tuple[torch.Size, ...]:
    found: list[tuple[int, ...]] = []
    rows, width = (4 if shape.lstm else 1) * shape.units, shape.directions * shape.units
    for layer in range(shape.layers):
        columns = width if layer else shape.width_in
        found += [(rows, columns), (rows, shape.units), (rows,), (rows,)] * shape.directions
    if shape.attention:
        found += [(1, width), (1,), (shape.units, 2 * width), (shape.units,)]
    return tuple(torch.Size(each) for each in found)


@functools.cache
def _n_weights(shape: _Shape) -> int:
    return sum(each.numel() for each in _parameter_shapes(shape))


def _parameters(
    module: Recurrent | SequenceSkip, shape: _Shape, dtype: torch.dtype
) -> list[nn.Parameter]:
    """In the order in which they are computed with."""
    if isinstance(module, SequenceSkip):
        return []
    found = list(module.recurrent.parameters(recurse=False))
    if module.attention is not None:
        found += module.attention.score.parameters(recurse=False)
        found += module.project.parameters(recurse=False)
    # Compiled code reads them from their addresses.
    if tuple(p.shape for p in found) != _parameter_shapes(shape):
        raise ShapeError("a recurrent operation has parameters that do not fit its layers")
    if not all(p.dtype == dtype and p.is_cpu and p.is_contiguous() for p in found):
        raise ShapeError(
            f"a recurrent operation needs contiguous parameters on a CPU, {dtype} as its input"
        )
    return found


class _Plan:
    """Tables of edges and candidates, the parameters, and when each candidate is begun."""

    def __init__(
        self, sources: Sources, edges: Sequence[MixedOperation], first: Tensor, second: Tensor
    ) -> None:
        from emodarts.space.candidates import CANDIDATE, EDGE, n_kept

        batch, time, _ = first.shape
        states = [first.shape[2], second.shape[2]]
        self.n_nodes, self.n_kept = len(sources), 0
        self.parameters: list[nn.Parameter] = []
        of_edges: list[tuple[int, ...]] = []
        of_candidates: list[tuple[int, ...]] = []
        works: list[int] = []
        ends = [(s, node + 2) for node, read in enumerate(sources) for s in read]
        for (source, target), edge in zip(ends, edges, strict=True):
            if not edge.operations:
                raise ValueError(f"the edge from state {source} to {target} has no candidates")
            of_edges.append((source, target, len(works), len(edge.operations)))
            for module in edge.operations:
                shape = _Shape.of(module)
                width = shape.width_out(states[source])
                if target == len(states):
                    states.append(width)
                if width != states[2] or width != states[target]:
                    raise ShapeError(f"nodes are of width {states[2]}; a candidate gives {width}")
                sizes = (shape.lstm, shape.layers, shape.directions, shape.units, shape.attention)
                places = (len(of_edges) - 1, len(self.parameters), self.n_kept)
                of_candidates.append((*sizes, *places))
                self.parameters += _parameters(cast(Recurrent, module), shape, first.dtype)
                self.n_kept += n_kept(shape, time, batch)
                works.append(_n_weights(shape))
        self.width, self.largest = states[2], max(states)
        self.edges, self.candidates = np.array(of_edges, EDGE), np.array(of_candidates, CANDIDATE)
        source = self.edges["source"][self.candidates["edge"]]
        target = self.edges["target"][self.candidates["edge"]]
        # Long ones first, so that none is left when other threads are done. Backwards, those that
        # read the node before first: it is waited for next.
        self.forwards = np.lexsort((source, -np.array(works), target))
        self.backwards = np.lexsort((-np.array(works), source != target - 1, -target))

    def progress(self) -> Array:
        return np.zeros((4, max(len(self.edges), self.n_nodes + 2)), np.int64)


class _Cell(torch.autograd.Function):
    """A cell whose weights are there."""

    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, first: Tensor, second: Tensor, weights: Tensor, *parameters: Tensor
    ) -> Tensor:
        """``(T, B, I)``, ``(T, B, J)``, a weight of each candidate -> nodes ``(N, T, B, H)``."""
        from emodarts.space import candidates

        time, batch, _ = first.shape
        kept = first.new_empty(plan.n_kept)
        sums = first.new_empty((len(plan.edges), time, batch, plan.width))
        nodes = first.new_empty((plan.n_nodes, time, batch, plan.width))
        _in_threads(
            candidates.forward,
            *(first.detach().numpy(), second.detach().numpy()),
            *(plan.edges, plan.candidates, plan.forwards, _addresses(parameters)),
            *(each.detach().numpy() for each in (weights, kept, sums, nodes)),
            plan.progress(),
        )
        ctx.plan = plan
        ctx.save_for_backward(first, second, weights, kept, nodes, *parameters)
        return nodes

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, of_nodes: Tensor) -> tuple[Tensor | None, ...]:
        from emodarts.space import candidates

        plan: _Plan = ctx.plan
        # Torch tells of changes since.
        first, second, weights, kept, nodes, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        of_first, of_second = (
            torch.zeros_like(x) if w else x.new_empty((0, 0, 0))
            for x, w in zip((first, second), wanted, strict=False)
        )
        of_weights = weights.new_empty(len(weights) if wanted[2] else 0)
        of_parameters = [
            torch.empty_like(p) if w else None for p, w in zip(parameters, wanted[3:], strict=True)
        ]
        largest = first.shape[0] * first.shape[1] * plan.largest
        of_candidates = first.new_empty((len(weights), largest))
        progress = plan.progress()
        progress[3, sorted({*range(2, plan.n_nodes + 2)} - {*plan.edges["source"].tolist()})] = 1
        _in_threads(
            candidates.backward,
            *(first.detach().numpy(), second.detach().numpy()),
            *(plan.edges, plan.candidates, plan.backwards, _addresses(parameters)),
            *(each.detach().numpy() for each in (weights, kept, nodes)),
            of_nodes.clone(memory_format=torch.contiguous_format).numpy(),
            _addresses(of_parameters),
            *(each.numpy() for each in (of_weights, of_candidates, of_first, of_second)),
            progress,
        )
        found = (of_first, of_second, of_weights, *of_parameters)
        return (None, *(each if w else None for each, w in zip(found, wanted, strict=True)))


def _addresses(tensors: Sequence[Tensor | None]) -> Array:
    return np.array([0 if t is None else t.data_ptr() for t in tensors], np.int64)


def _in_threads(kernel: Any, *arguments: Any) -> None:
    """Call it in all threads; the last argument tells how far they are."""

    def work(_: int) -> None:
        try:
            kernel(*arguments)
        except BaseException:
            progress = arguments[-1]
            progress[0, 0] = 2**62  # the others begin no more, and wait no longer
            progress[3] = 1
            raise

    in_threads(work, torch.get_num_threads())
