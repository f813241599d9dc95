"""SeqNN cells whose LSTMs and RNNs are compiled, with their gradients written out.

The products in a candidate are too small to share among threads, so each thread takes whole
candidates: of all states, since those of one state do not keep several threads busy to its end.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.errors import ShapeError
from emodarts.fast.base import FastCell, apply_function, can_be_compiled, differentiable_once
from emodarts.fast.compiled_recurrent import Layers, has_loops
from emodarts.fast.jit import Array
from emodarts.fast.recurrence import (
    Attention,
    attend,
    attend_gradient,
    normalise,
    normalise_gradient,
)
from emodarts.fast.threads import in_threads
from emodarts.space.cell import MixedOperation, add_up, run
from emodarts.space.sequence_ops import (
    EPSILON,
    Normalised,
    Recurrent,
    SequenceSkip,
    require_sequence,
)


class CompiledSeqNNCell(FastCell):
    """A SeqNN cell of mixed operations, on a CPU."""

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        if self.plain or weights is None or not can_be_compiled(first):
            return super().forward(first, second, weights, present)
        states = self.inputs[0](first), self.inputs[1](second)
        mixed = [cast(MixedOperation, edge) for edge in self.edges]
        if not all(_is_known(m) for edge in mixed for m in edge.operations):
            return self.state_by_state(*states, weights, functools.partial(_mixtures, present))
        ends = [(source, node + 2) for source, node in self.ends]
        return torch.cat(_nodes(states, ends, mixed, weights, present), dim=-1)


def _is_known(module: nn.Module) -> bool:
    operation = _inner(module)
    if type(operation) is Recurrent:
        return has_loops(operation.recurrent)
    return type(operation) is SequenceSkip


def _inner(module: nn.Module) -> nn.Module:
    """The operation before its norm, if it has one."""
    return module.operation if isinstance(module, Normalised) else module


def _mixtures(
    present: Tensor | None, x: Tensor, edges: Sequence[MixedOperation], weights: Tensor
) -> list[Tensor]:
    """What leaves a state ``x`` (B, T, H) on each edge, of weights (E, O)."""
    terms = [
        [
            weights[row, column] * run(module, x, present=present)
            for column, module in zip(edge.columns, edge.operations, strict=True)
            if not _is_known(module)
        ]
        for row, edge in enumerate(edges)
    ]
    known = [row for row, e in enumerate(edges) if any(_is_known(m) for m in e.operations)]
    if known:
        ends = [(0, 1 + k) for k in range(len(known))]  # each edge as a cell of one node
        found = _nodes([x], ends, [edges[row] for row in known], weights[known], present)
        for row, out in zip(known, found, strict=True):
            terms[row].append(out)
    return [add_up(own) for own in terms]


def _nodes(
    inputs: Sequence[Tensor],
    ends: Sequence[tuple[int, int]],
    edges: Sequence[MixedOperation],
    weights: Tensor,
    present: Tensor | None,
) -> list[Tensor]:
    """Nodes ``(B, T, H)`` that sum what compiled candidates of their edges give.

    Parameters
    ----------
    inputs : the first states, (B, T, H).
    ends : of every edge, the state that it reads and its node, numbered after the inputs.
    edges, weights : candidates of every edge, and their weights (E, O).
    present : (B, T) steps that are there; None for all.
    """
    for x in inputs:
        require_sequence(x, "a recurrent operation")
    batch, time, _ = inputs[0].shape
    lengths = np.full(batch, time) if present is None else present.sum(dim=1).numpy()
    modules, of_edges, rows, columns = [], [], [], []
    for row, (edge, end) in enumerate(zip(edges, ends, strict=True)):
        for column, module in zip(edge.columns, edge.operations, strict=True):
            if _is_known(module):
                modules.append(module)
                of_edges.append(end)
                rows.append(row)
                columns.append(column)
    graph = _Graph(modules, of_edges, len(inputs), lengths)
    # Nothing is copied where time is the outer axis in memory.
    states = [x.transpose(0, 1).contiguous() for x in inputs]  # (T, B, H)
    parameters = [p for module in modules for p in module.parameters()]
    nodes = apply_function(_Nodes, graph, weights[rows, columns], *states, *parameters)
    return [node.transpose(0, 1) for node in nodes]


@dataclass(frozen=True)
class _Graph:
    """Candidates between states.

    Attributes
    ----------
    ends : of each candidate, the state that it reads and the one it adds to.
    n_inputs : states that are given.
    lengths : (B,) steps of each utterance.
    """

    modules: Sequence[nn.Module]
    ends: Sequence[tuple[int, int]]
    n_inputs: int
    lengths: Array

    @property
    def n_states(self) -> int:
        return 1 + max(target for _, target in self.ends)

    def width(self, of_inputs: Sequence[int]) -> int:
        """Channels of all nodes. Raises :class:`ShapeError` if candidates do not fit."""
        width = None
        for module, (source, _) in zip(self.modules, self.ends, strict=True):
            read = of_inputs[source] if source < self.n_inputs else width
            sizes = (read, read)
            if isinstance(inner := _inner(module), Recurrent):
                sizes = (inner.recurrent.input_size, inner.out_features)
            width = width or sizes[1]
            if sizes != (read, width):
                raise ShapeError(
                    f"a recurrent operation of {sizes[0]} channels in and {sizes[1]} out cannot "
                    f"read {read} channels and be added to {width}"
                )
        return cast(int, width)

    def work(self, k: int) -> int:
        """In proportion to a candidate's products."""
        return sum(p.numel() for p in self.modules[k].parameters())

    def order(self, backwards: bool) -> list[int]:
        """Candidates in an order in which none reads a state that a later one adds to.

        Of those that may begin together the longest is first, so that none is left when other
        threads are done. Backwards, those that read the node before come first: it is waited for.
        """
        ends = self.ends

        def place(k: int) -> tuple[int, ...]:
            source, target = ends[k]
            if backwards:
                return -target, source != target - 1, -self.work(k)
            return target, -self.work(k), source

        return sorted(range(len(ends)), key=place)


class _Waited:
    """States that threads wait for until all that add to them are done."""

    def __init__(self, counts: Sequence[int], finish: Callable[[int], None]) -> None:
        self._left, self._finish = list(counts), finish
        self._there = [threading.Event() for _ in counts]
        self._lock = threading.Lock()
        for state, count in enumerate(counts):
            if count == 0:
                self._there[state].set()

    def wait(self, state: int) -> None:
        """Sleep until the state is there."""
        self._there[state].wait()

    def done(self, state: int) -> None:
        """Count a candidate of the state that is done; the last one finishes the state."""
        with self._lock:
            self._left[state] -= 1
            last = self._left[state] == 0
        if last:
            self._finish(state)
            self._there[state].set()

    def give_up(self) -> None:
        """End all waiting, as a thread has failed."""
        for event in self._there:
            event.set()


def _run(work: Callable[[int], None], order: Sequence[int], waited: _Waited) -> None:
    """Call ``work`` for each candidate in all threads; the first error ends all."""
    failed = threading.Event()

    def guarded(k: int) -> None:
        if failed.is_set():
            return
        try:
            work(k)
        except BaseException:
            failed.set()
            waited.give_up()
            raise

    in_threads(guarded, order)


class _Skip:
    """The identity, as a candidate without parameters."""

    def forward(self, x: Array, lengths: Array, out: Array) -> None:
        """``x`` (T, B, H) -> ``out``."""
        out[...] = x

    def backward(self, of_out: Array, of_x: Array, of_parameters: Sequence[Array]) -> None:
        """Add to ``of_x``, unless of size 0."""
        if of_x.size:
            of_x += of_out


class _Candidate:
    """A recurrent candidate in a forward pass, and what its gradient needs of it."""

    def __init__(self, module: Recurrent, parameters: Sequence[Array]) -> None:
        n = len(list(module.recurrent.parameters()))
        self.layers = Layers(module.recurrent, parameters[:n])
        self.attention = Attention(*parameters[n:]) if module.attention is not None else None

    def forward(self, x: Array, lengths: Array, out: Array) -> None:
        """``x`` (T, B, I) of utterances of ``lengths`` (B,) -> ``out`` (T, B, H)."""
        time, batch, _ = x.shape
        width = self.layers.width
        if self.attention is None:
            self.layers.forward(x, out, lengths)
            return
        self.steps = np.empty((time, batch, width), x.dtype)
        self.layers.forward(x, self.steps, lengths)
        self.shares, self.context = (
            np.empty((time, batch), x.dtype),
            np.empty((batch, width), x.dtype),
        )
        attend(self.steps, lengths, self.attention, out, self.shares, self.context)

    def backward(self, of_out: Array, of_x: Array, of_parameters: Sequence[Array]) -> None:
        """Add to ``of_x`` and ``of_parameters``, unless of size 0; ``of_out`` is overwritten."""
        of_steps = of_out
        if self.attention is not None:
            of_steps = np.empty_like(self.steps)
            attended = self.steps, self.attention, self.shares, self.context
            attend_gradient(of_out, *attended, of_steps, Attention(*of_parameters[-4:]))
            of_parameters = of_parameters[:-4]
        self.layers.backward(of_steps, of_x, of_parameters)


class _Normalised:
    """A candidate with a norm after it."""

    def __init__(self, inner: _Candidate | _Skip) -> None:
        self.inner = inner

    def forward(self, x: Array, lengths: Array, out: Array) -> None:
        """``x`` (T, B, I) -> ``out`` (T, B, H), which must stay as it is for the gradient."""
        raw = np.empty_like(out)
        self.inner.forward(x, lengths, raw)
        self.out, self.scale = out, np.empty(out.shape[:2], out.dtype)
        normalise(raw, EPSILON, out, self.scale)

    def backward(self, of_out: Array, of_x: Array, of_parameters: Sequence[Array]) -> None:
        """As of a candidate."""
        normalise_gradient(of_out, self.out, self.scale)
        self.inner.backward(of_out, of_x, of_parameters)


def _candidate(module: nn.Module, parameters: Sequence[Array]) -> _Candidate | _Skip | _Normalised:
    inner = _inner(module)
    made = _Candidate(inner, parameters) if isinstance(inner, Recurrent) else _Skip()
    return made if inner is module else _Normalised(made)


class _Nodes(torch.autograd.Function):
    """Weighted sums of the candidates that add to each node."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, weights: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """A weight of each candidate, inputs (T, B, H) and all parameters -> nodes (T, B, H)."""
        inputs, parameters = tensors[: graph.n_inputs], tensors[graph.n_inputs :]
        time, batch, _ = inputs[0].shape
        width = graph.width([x.shape[2] for x in inputs])
        ctx.first = np.cumsum([0, *(len(list(m.parameters())) for m in graph.modules)])
        arrays = [p.detach().numpy() for p in parameters]
        ctx.candidates = [
            _candidate(m, arrays[ctx.first[k] : ctx.first[k + 1]])
            for k, m in enumerate(graph.modules)
        ]
        nodes = inputs[0].new_empty(graph.n_states - graph.n_inputs, time, batch, width)
        states = [x.detach().numpy() for x in (*inputs, *nodes)]
        outputs = inputs[0].new_empty(len(graph.modules), time, batch, width)
        arrays_out, factors = outputs.numpy(), weights.detach().numpy()
        into = [[k for k, (_, t) in enumerate(graph.ends) if t == s] for s in range(graph.n_states)]

        def add(state: int) -> None:
            states[state][:] = 0
            for k in into[state]:
                states[state] += factors[k] * arrays_out[k]

        waited = _Waited([len(own) for own in into], add)

        def work(k: int) -> None:
            source, target = graph.ends[k]
            waited.wait(source)
            ctx.candidates[k].forward(states[source], graph.lengths, arrays_out[k])
            waited.done(target)

        _run(work, graph.order(backwards=False), waited)
        ctx.graph = graph
        ctx.save_for_backward(weights, outputs, *tensors)  # torch notes changes since
        return tuple(nodes)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        graph: _Graph = ctx.graph
        weights, outputs, *tensors = ctx.saved_tensors
        _, wanted_weights, *wanted = ctx.needs_input_grad
        inputs, parameters = tensors[: graph.n_inputs], tensors[graph.n_inputs :]
        leaving = [
            [k for k, (s, _) in enumerate(graph.ends) if s == state]
            for state in range(graph.n_states)
        ]
        wanted_state = [*wanted[: graph.n_inputs], *(True for _ in gradients)]
        of_states = [
            *(torch.zeros_like(x) for x in inputs),
            *(g.clone(memory_format=torch.contiguous_format) for g in gradients),
        ]
        of_state = [g.numpy() for g in of_states]
        of_candidates = [np.empty_like(of_state[source]) for source, _ in graph.ends]
        found = [
            torch.empty_like(p) if w else p.new_empty((0,) * p.dim())
            for p, w in zip(parameters, wanted[graph.n_inputs :], strict=True)
        ]
        arrays, factors = [f.numpy() for f in found], weights.detach().numpy()
        of_weights, given = np.zeros_like(factors), outputs.numpy()
        unwanted = np.empty((0, 0, 0), given.dtype)

        def add(state: int) -> None:
            for k in leaving[state]:
                of_state[state] += of_candidates[k]

        counts = [len(own) if wanted_state[s] else 0 for s, own in enumerate(leaving)]
        waited = _Waited(counts, add)

        def work(k: int) -> None:
            source, target = graph.ends[k]
            waited.wait(target)
            if wanted_weights:
                of_weights[k] = np.vdot(of_state[target], given[k])
            own = arrays[ctx.first[k] : ctx.first[k + 1]]
            for array in own:
                array[...] = 0
            of_x = of_candidates[k] if wanted_state[source] else unwanted
            of_x[...] = 0
            ctx.candidates[k].backward(of_state[target] * factors[k], of_x, own)
            if wanted_state[source]:
                waited.done(source)

        _run(work, graph.order(backwards=True), waited)
        return (
            None,
            torch.from_numpy(of_weights) if wanted_weights else None,
            *(g if w else None for g, w in zip(of_states, wanted[: graph.n_inputs], strict=False)),
            *(f if w else None for f, w in zip(found, wanted[graph.n_inputs :], strict=True)),
        )
