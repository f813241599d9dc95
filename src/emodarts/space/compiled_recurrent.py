"""LSTMs and RNNs whose steps through time are compiled, with their gradients written out.

Torch calls several functions for every step of an RNN. oneDNN's LSTM keeps three times as much for
the backward pass, and computes gradients of weights where none are wanted: in the passes for
alphas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emodarts.space.normalise import apply_function, differentiable_once
from emodarts.space.sequence_ops import Recurrent, require_sequence


def run_compiled(module: Recurrent, x: Tensor) -> Tensor:
    """``module(x)``: ``(B, T, width_in)`` -> ``(B, T, out_features)``, on a CPU.

    It can be differentiated once, and computes in one thread. Time is the outer axis of the result
    in memory; an input of which that is true is not copied.
    """
    require_sequence(x, "a recurrent operation")
    network = module.recurrent
    ways = ("", "_reverse") if network.bidirectional else ("",)
    steps = x.transpose(0, 1).contiguous()
    for layer in range(network.num_layers):
        parameters = [
            getattr(network, f"{name}_l{layer}{way}")
            for way in ways
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        steps = apply_function(_Layer, isinstance(network, nn.LSTM), steps, *parameters)
    return module.finish(steps, time=0).transpose(0, 1)


class _Layer(torch.autograd.Function):
    """One layer of an LSTM or RNN, in one direction or both."""

    @staticmethod
    def forward(ctx: Any, is_lstm: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        """``(T, B, I)`` and, for each of D directions, four parameters -> ``(T, B, D H)``.

        They are what torch calls ``weight_ih, weight_hh, bias_ih, bias_hh``.
        """
        from emodarts.space import recurrence

        time, batch, _ = x.shape
        units, directions = parameters[1].shape[1], len(parameters) // 4
        h = x.new_empty(time, batch, directions * units)
        kept: list[Tensor] = []
        for way in range(directions):
            of_input, of_state, *biases = parameters[4 * way : 4 * way + 4]
            z = torch.mm(x.flatten(0, 1), of_input.t()).view(time, batch, -1)
            bias, turned = torch.add(*biases), of_state.t().contiguous()
            arguments = (_array(z), _array(bias), _array(turned), way * units, way == 1, _array(h))
            if is_lstm:
                c = x.new_empty(time, batch, units)
                recurrence.lstm(*arguments, _array(c))
                kept += [z, c]
            else:
                recurrence.rnn(*arguments)
        ctx.save_for_backward(x, h, *parameters, *kept)
        ctx.is_lstm, ctx.directions = is_lstm, directions
        return h

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from emodarts.space import jit, recurrence

        x, h, *rest = ctx.saved_tensors
        parameters, kept = rest[: 4 * ctx.directions], rest[4 * ctx.directions :]
        units, batch = parameters[1].shape[1], x.shape[1]
        of_h = gradient.clone(memory_format=torch.contiguous_format)
        of_x = torch.zeros_like(x) if ctx.needs_input_grad[1] else None
        found: list[Tensor | None] = []
        for way in range(ctx.directions):
            of_input, of_state = parameters[4 * way : 4 * way + 2]
            of_z = x.new_empty(*x.shape[:2], len(of_state))
            arguments = (_array(of_state), way * units, way == 1, _array(of_z))
            if ctx.is_lstm:
                gates, c = kept[2 * way : 2 * way + 2]
                recurrence.lstm_gradient(_array(of_h), _array(gates), _array(c), *arguments)
            else:
                recurrence.rnn_gradient(_array(of_h), _array(h), *arguments)
            rows = _array(of_z.flatten(0, 1))
            if of_x is not None:
                jit.add_product(rows, _array(of_input), _array(of_x.flatten(0, 1)))
            wanted = ctx.needs_input_grad[2 + 4 * way : 6 + 4 * way]
            states = _array(h.flatten(0, 1)[:, way * units : (way + 1) * units])
            after, before = rows[batch:], states[: len(states) - batch]
            if way == 1:
                after, before = rows[: len(rows) - batch], states[batch:]
            found += [
                _product(rows.T, _array(x.flatten(0, 1)), of_input) if wanted[0] else None,
                _product(after.T, before, of_state) if wanted[1] else None,
                # One each: whoever gets a gradient may change it in place.
                *(of_z.sum((0, 1)) if w else None for w in wanted[2:]),
            ]
        return (None, of_x, *found)


def _product(a: Any, b: Any, like: Tensor) -> Tensor:
    from emodarts.space import jit

    out = torch.zeros_like(like)
    jit.add_product(a, b, _array(out))
    return out


def _array(x: Tensor) -> Any:
    return x.detach().numpy()
