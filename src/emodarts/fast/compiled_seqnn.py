"""SeqNN cells whose LSTMs and RNNs are compiled, with their gradients written out.

Torch calls several functions for every step of an RNN. oneDNN's LSTM keeps three times as much for
the backward pass, and computes gradients of weights where none are wanted: in the passes for
alphas. All candidates that read one state are independent, and the products in one of them too
small to share among threads, so each thread takes whole candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.errors import ShapeError
from emodarts.fast.base import FastCell, apply_function, can_be_compiled, differentiable_once
from emodarts.fast.jit import Array
from emodarts.fast.recurrence import (
    Attention,
    Layer,
    Way,
    attend,
    attend_gradient,
    lstm,
    lstm_gradient,
    rnn,
    rnn_gradient,
)
from emodarts.fast.threads import in_threads
from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.sequence_ops import Recurrent, require_sequence


class CompiledSeqNNCell(FastCell):
    """A SeqNN cell of mixed operations, on a CPU."""

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        if self.plain or weights is None or not can_be_compiled(first):
            return super().forward(first, second, weights)
        states = self.inputs[0](first), self.inputs[1](second)
        return self.state_by_state(*states, weights, _mixtures)


def _mixtures(x: Tensor, edges: Sequence[MixedOperation], weights: Tensor) -> list[Tensor]:
    """What leaves a state ``x`` (B, T, H) on each edge, of weights (E, O)."""
    require_sequence(x, "a recurrent operation")
    terms: list[list[Tensor]] = [[] for _ in edges]
    compiled: list[Recurrent] = []
    places: list[tuple[int, int]] = []
    for row, edge in enumerate(edges):
        for column, module in zip(edge.columns, edge.operations, strict=True):
            if type(module) is Recurrent:
                compiled.append(module)
                places.append((row, column))
            else:
                terms[row].append(weights[row, column] * module(x))
    if compiled:
        rows, columns = (list(each) for each in zip(*places, strict=True))
        parameters = [p for module in compiled for p in module.parameters()]
        # Nothing is copied where time is the outer axis in memory.
        sequence = x.transpose(0, 1).contiguous()  # (T, B, H)
        own = weights[rows, columns]
        found = apply_function(_Candidates, compiled, rows, sequence, own, *parameters)
        for row, out in zip(sorted(set(rows)), found, strict=True):
            terms[row].append(out.transpose(0, 1))
    return [add_up(own) for own in terms]


class _Candidate:
    """A recurrent candidate in a forward pass, and what its gradient needs of it."""

    def __init__(self, module: Recurrent, parameters: Sequence[Array]) -> None:
        network = module.recurrent
        self.is_lstm = isinstance(network, nn.LSTM)
        self.units, self.directions = network.hidden_size, 1 + int(network.bidirectional)
        n = 4 * network.num_layers * self.directions
        self.layers = [Layer(*parameters[k : k + 4]) for k in range(0, n, 4)]
        self.attention = Attention(*parameters[n:]) if module.attention is not None else None
        self.inputs: list[Array] = []
        """Of every layer, and the output of the last one: (T, B, ...)."""
        self.kept: list[list[Array]] = []
        """Of every layer and direction of an LSTM: gates and cell states."""

    def _ways(self) -> list[tuple[int, Way, Layer]]:
        """Every layer in every direction, in the order in which they are computed."""
        return [
            (
                k // self.directions,
                Way(k % self.directions * self.units, k % self.directions == 1),
                p,
            )
            for k, p in enumerate(self.layers)
        ]

    def forward(self, x: Array, out: Array) -> None:
        """``x`` (T, B, I) -> ``out`` (T, B, H)."""
        time, batch, _ = x.shape
        n_layers = len(self.layers) // self.directions
        shape = (time, batch, self.directions * self.units)
        self.inputs = [x, *(np.empty(shape, x.dtype) for _ in range(n_layers))]
        if self.attention is None:
            self.inputs[-1] = out
        for number, way, layer in self._ways():
            steps, h = self.inputs[number : number + 2]
            if self.is_lstm:
                sizes = (4 * self.units, self.units)
                self.kept.append([np.empty((time, batch, size), x.dtype) for size in sizes])
                lstm(steps, layer, way, h, *self.kept[-1])
            else:
                rnn(steps, layer, way, h)
        if self.attention is not None:
            self.shares, self.context = np.empty(shape[:2], x.dtype), np.empty(shape[1:], x.dtype)
            attend(self.inputs[-1], self.attention, out, self.shares, self.context)

    def backward(self, of_out: Array, of_x: Array, of_parameters: Sequence[Array]) -> None:
        """Add to ``of_x`` and ``of_parameters``, unless of size 0; ``of_out`` is overwritten."""
        of_h = of_out
        if self.attention is not None:
            of_h = np.empty_like(self.inputs[-1])
            attended = self.inputs[-1], self.attention, self.shares, self.context
            attend_gradient(of_out, *attended, of_h, Attention(*of_parameters[-4:]))
        for k, (number, way, layer) in reversed(list(enumerate(self._ways()))):
            steps, h = self.inputs[number : number + 2]
            if (k + 1) % self.directions == 0:  # the first one of this layer
                of_steps = np.zeros_like(steps) if number else of_x
            of_layer = Layer(*of_parameters[4 * k : 4 * k + 4])
            if self.is_lstm:
                lstm_gradient(of_h, steps, layer, way, h, *self.kept[k], of_steps, of_layer)
            else:
                rnn_gradient(of_h, steps, layer, way, h, of_steps, of_layer)
            if k % self.directions == 0:
                of_h = of_steps


class _Candidates(torch.autograd.Function):
    """Weighted sum of the candidates of every edge that leaves a state."""

    @staticmethod
    def forward(
        ctx: Any,
        modules: Sequence[Recurrent],
        rows: Sequence[int],
        x: Tensor,
        weights: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        """``x`` (T, B, I), a weight of each candidate, all parameters -> (T, B, H) of each edge.

        ``rows`` tells the edge of each candidate, in ascending order.
        """
        width = modules[0].out_features
        for module in modules:
            sizes = (module.recurrent.input_size, module.out_features)
            if sizes != (x.shape[2], width):
                raise ShapeError(
                    f"a recurrent operation of {sizes[0]} channels in and {sizes[1]} out cannot "
                    f"read {x.shape[2]} channels and be added to {width}"
                )
        ctx.first = np.cumsum([0, *(len(list(m.parameters())) for m in modules)])
        arrays = [p.detach().numpy() for p in parameters]
        ctx.candidates = [
            _Candidate(module, arrays[ctx.first[k] : ctx.first[k + 1]])
            for k, module in enumerate(modules)
        ]
        sequence = x.detach().numpy()
        outputs = x.new_empty(len(modules), *x.shape[:2], width)  # (n, T, B, H)
        # The longest first, so that no thread begins one when the others are done.
        ctx.order = sorted(
            range(len(modules)),
            key=lambda k: (
                -sum(p.size for p in ctx.candidates[k].layers[0]) * len(ctx.candidates[k].layers)
            ),
        )
        in_threads(lambda k: ctx.candidates[k].forward(sequence, outputs[k].numpy()), ctx.order)
        ctx.parts = [slice(rows.index(r), rows.index(r) + rows.count(r)) for r in sorted(set(rows))]
        ctx.save_for_backward(x, weights, outputs, *parameters)  # torch notes changes since
        return tuple(
            (weights[part] @ outputs[part].flatten(1)).view(outputs.shape[1:]) for part in ctx.parts
        )

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, outputs, *parameters = ctx.saved_tensors
        of_edges = [gradient.contiguous() for gradient in gradients]
        wanted_x, wanted_weights, *wanted = ctx.needs_input_grad[2:]
        of_x = x.new_zeros(len(outputs), *(x.shape if wanted_x else (0, 0, 0)))
        found = [
            torch.zeros_like(p) if w else p.new_empty((0,) * p.dim())
            for p, w in zip(parameters, wanted, strict=True)
        ]
        edge_of = [row for row, part in enumerate(ctx.parts) for _ in range(part.start, part.stop)]
        arrays = [f.numpy() for f in found]
        of_outputs, factors = [g.numpy() for g in of_edges], weights.detach().numpy()

        def work(k: int) -> None:
            of_out = of_outputs[edge_of[k]] * factors[k]
            own = arrays[ctx.first[k] : ctx.first[k + 1]]
            ctx.candidates[k].backward(of_out, of_x[k].numpy(), own)

        in_threads(work, ctx.order)
        of_weights = None
        if wanted_weights:
            of_weights = torch.cat(
                [
                    outputs[part].flatten(1) @ gradient.flatten()
                    for part, gradient in zip(ctx.parts, of_edges, strict=True)
                ]
            )
        return (
            None,
            None,
            of_x.sum(dim=0) if wanted_x else None,
            of_weights,
            *(f if w else None for f, w in zip(found, wanted, strict=True)),
        )
