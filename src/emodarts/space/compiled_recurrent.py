"""LSTMs and RNNs, and the attention after them, compiled, with their gradients written out.

Torch calls several functions for every step of an RNN. oneDNN's LSTM keeps three times as much for
the backward pass, and computes gradients of weights where none are wanted: in the passes for
alphas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.errors import ShapeError
from emodarts.space.normalise import apply_function, differentiable_once
from emodarts.space.sequence_ops import Recurrent, require_sequence

Array = np.ndarray[Any, Any]
_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run_compiled(module: Recurrent, x: Tensor) -> Tensor:
    """``module(x)``: ``(B, T, width_in)`` -> ``(B, T, out_features)``, on a CPU.

    It can be differentiated once, and computes in one thread. Time is the outer axis of the result
    in memory; an input of which that is true is not copied.

    Raises
    ------
    ShapeError
        For an input of another shape.
    """
    require_sequence(x, "a recurrent operation")
    network = module.recurrent
    if x.shape[2] != network.input_size:
        raise ShapeError(
            f"a recurrent operation needs {network.input_size} channels; got shape {tuple(x.shape)}"
        )
    layers = [
        [getattr(network, f"{name}_l{layer}{way}") for name in _PARAMETERS]
        for layer in range(network.num_layers)
        for way in ("", "_reverse")[: 1 + network.bidirectional]
    ]
    attention = []
    if module.attention is not None:
        attention = [*module.attention.score.parameters(), *module.project.parameters()]
    out: Tensor = apply_function(
        _Compiled,
        isinstance(network, nn.LSTM),
        1 + network.bidirectional,
        len(layers),
        x.transpose(0, 1).contiguous(),
        *(p for layer in layers for p in layer),
        *attention,
    )
    return out.transpose(0, 1)


@dataclass
class _Pass:
    """A layer in one direction: what it was given, and what it left for its gradient."""

    x: Array
    parameters: list[Array]
    first: int
    backwards: bool
    h: Array
    kept: list[Array]
    """Of an LSTM: gates and cell states."""


class _Compiled(torch.autograd.Function):
    """A recurrent network, and the attention after it if there is one."""

    @staticmethod
    def forward(
        ctx: Any, is_lstm: bool, directions: int, n_passes: int, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        """``(T, B, I)``, four parameters of each layer and direction, and those of the attention.

        The result is ``(T, B, out_features)``.
        """
        from emodarts.space import recurrence

        ctx.save_for_backward(x, *parameters)
        arrays = [p.detach().numpy() for p in parameters]
        time, batch, _ = x.shape
        steps = h = x.detach().numpy()
        passes: list[_Pass] = []
        for k in range(n_passes):
            own, way = arrays[4 * k : 4 * k + 4], k % directions
            units = own[1].shape[1]
            if way == 0:
                steps, h = h, np.empty((time, batch, directions * units), h.dtype)
            sizes = (4 * units, units) if is_lstm else ()
            kept = [np.empty((time, batch, size), h.dtype) for size in sizes]
            (recurrence.lstm if is_lstm else recurrence.rnn)(
                steps, *own, way * units, way == 1, h, *kept
            )
            passes.append(_Pass(steps, own, way * units, way == 1, h, kept))
        ctx.passes, ctx.directions, ctx.is_lstm = passes, directions, is_lstm
        ctx.attention = arrays[4 * n_passes :]
        if not ctx.attention:
            return torch.from_numpy(h)
        out = np.empty((time, batch, len(ctx.attention[2])), h.dtype)
        ctx.attended = np.empty((time, batch), h.dtype), np.empty((batch, h.shape[2]), h.dtype)
        recurrence.attend(h, *ctx.attention, out, *ctx.attended)
        return torch.from_numpy(out)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from emodarts.space import recurrence

        x, *parameters = ctx.saved_tensors  # which tells of changes since
        wanted = ctx.needs_input_grad[3:]
        found = [
            np.zeros(p.shape if w else (0,) * p.dim(), x.detach().numpy().dtype)
            for p, w in zip((x, *parameters), wanted, strict=True)
        ]
        of_x, *of_parameters = found
        if ctx.attention:
            score, _, project, _ = ctx.attention
            h = ctx.passes[-1].h
            of_h = np.empty_like(h)
            recurrence.attend_gradient(
                gradient.contiguous().numpy(),
                *(h, score, project),
                *ctx.attended,
                of_h,
                *of_parameters[-4:],
            )
        else:
            of_h = gradient.clone(memory_format=torch.contiguous_format).numpy()
        for k in reversed(range(len(ctx.passes))):
            made = ctx.passes[k]
            if k % ctx.directions == ctx.directions - 1:
                inner = k >= ctx.directions
                of_steps = np.zeros_like(made.x) if inner else of_x
            of_weights, of_recurrent, of_bias, of_other = of_parameters[4 * k : 4 * k + 4]
            same = of_bias if of_bias.size > 0 else of_other
            (recurrence.lstm_gradient if ctx.is_lstm else recurrence.rnn_gradient)(
                *(of_h, made.x, *made.parameters[:2], made.first, made.backwards, made.h),
                *made.kept,
                *(of_steps, of_weights, of_recurrent, same),
            )
            if of_bias.size > 0 and of_other.size > 0:
                of_other[:] = of_bias
            if k % ctx.directions == 0:
                of_h = of_steps
        return (
            *(None, None, None),
            *(torch.from_numpy(f) if w else None for f, w in zip(found, wanted, strict=True)),
        )
