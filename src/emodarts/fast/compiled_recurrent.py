"""Stacked LSTMs and RNNs in compiled loops, with their gradients written out.

Torch calls several functions for every step of an RNN, and of an LSTM as soon as utterances differ
in length. oneDNN's LSTM keeps three times as much for the backward pass, and computes gradients of
weights where none are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.fast.base import Fast, apply_function, can_be_compiled, differentiable_once
from emodarts.fast.jit import Array
from emodarts.fast.recurrence import Layer, Way, lstm, lstm_gradient, rnn, rnn_gradient
from emodarts.space.sequence_ops import Recurrent


class CompiledRecurrent(Fast, Recurrent):
    """Recurrent layers whose LSTMs and RNNs are compiled, on a CPU."""

    def _steps(self, x: Tensor, present: Tensor | None) -> Tensor:
        if self.plain or not can_be_compiled(x) or not has_loops(self.recurrent):
            return super()._steps(x, present)
        lengths = np.full(len(x), x.shape[1])
        if present is not None and self.recurrent.bidirectional:
            lengths = present.sum(dim=1).numpy()
        # Nothing is copied where time is the outer axis in memory.
        steps = x.transpose(0, 1).contiguous()
        parameters = self.recurrent.parameters()
        out: Tensor = apply_function(_Steps, self.recurrent, lengths, steps, *parameters)
        return out.transpose(0, 1)


def has_loops(network: nn.RNNBase) -> bool:
    """Whether there are compiled loops for layers of this class."""
    return type(network) in (nn.LSTM, nn.RNN)


class Layers:
    """Recurrent layers in a forward pass, and what their gradients need of it.

    Parameters
    ----------
    network : an LSTM or an RNN.
    parameters : its own, in its order.
    """

    def __init__(self, network: nn.RNNBase, parameters: Sequence[Array]) -> None:
        self.is_lstm = isinstance(network, nn.LSTM)
        self.units, self.directions = network.hidden_size, 1 + int(network.bidirectional)
        self.layers = [Layer(*parameters[k : k + 4]) for k in range(0, len(parameters), 4)]
        self.inputs: list[Array] = []
        """Of every layer, and the output of the last one: (T, B, ...)."""
        self.kept: list[list[Array]] = []
        """Of every layer and direction of an LSTM: gates and cell states."""

    @property
    def width(self) -> int:
        """Units of all directions."""
        return self.directions * self.units

    def _ways(self) -> Iterator[tuple[int, Way, Layer]]:
        """Every layer in every direction, in the order in which they are computed."""
        for k, layer in enumerate(self.layers):
            direction = k % self.directions
            yield k // self.directions, Way(direction * self.units, direction == 1), layer

    def forward(self, x: Array, out: Array, lengths: Array) -> None:
        """``x`` (T, B, I) -> ``out`` (T, B, width), zeros after the last step of an utterance.

        ``lengths`` (B,) are the steps of each.
        """
        time, batch, _ = x.shape
        between = len(self.layers) // self.directions - 1
        self.lengths = lengths
        shape = (time, batch, self.width)
        self.inputs = [x, *(np.empty(shape, x.dtype) for _ in range(between)), out]
        for number, way, layer in self._ways():
            steps, h = self.inputs[number : number + 2]
            if self.is_lstm:
                sizes = (4 * self.units, self.units)
                self.kept.append([np.empty((time, batch, size), x.dtype) for size in sizes])
                lstm(steps, lengths, layer, way, h, *self.kept[-1])
            else:
                rnn(steps, lengths, layer, way, h)

    def backward(self, of_out: Array, of_x: Array, of_parameters: Sequence[Array]) -> None:
        """Add to ``of_x`` and ``of_parameters``, unless of size 0; ``of_out`` is overwritten."""
        of_h = of_out
        for k, (number, way, layer) in reversed(list(enumerate(self._ways()))):
            steps, h = self.inputs[number : number + 2]
            if (k + 1) % self.directions == 0:  # the first one of this layer
                of_steps = np.zeros_like(steps) if number else of_x
            of_layer = Layer(*of_parameters[4 * k : 4 * k + 4])
            given = steps, self.lengths, layer, way, h
            if self.is_lstm:
                lstm_gradient(of_h, *given, *self.kept[k], of_steps, of_layer)
            else:
                rnn_gradient(of_h, *given, of_steps, of_layer)
            if k % self.directions == 0:
                of_h = of_steps


class _Steps(torch.autograd.Function):
    """What the last layer gives at every step."""

    @staticmethod
    def forward(
        ctx: Any, network: nn.RNNBase, lengths: Array, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        """``x`` (T, B, I) and all parameters -> (T, B, H), of both directions."""
        ctx.layers = Layers(network, [p.detach().numpy() for p in parameters])
        out = x.new_empty(*x.shape[:2], ctx.layers.width)
        ctx.layers.forward(x.detach().numpy(), out.numpy(), lengths)
        ctx.save_for_backward(out, x, *parameters)  # torch notes changes since
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        _, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        found = [
            torch.zeros_like(t) if w else t.new_empty((0,) * t.dim())
            for t, w in zip(tensors, wanted, strict=True)
        ]
        own = of_out.clone(memory_format=torch.contiguous_format)
        of_x, *of_parameters = (f.numpy() for f in found)
        cast(Layers, ctx.layers).backward(own.numpy(), of_x, of_parameters)
        return None, None, *(f if w else None for f, w in zip(found, wanted, strict=True))
