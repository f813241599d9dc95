r"""The mixed SeqNN cell with all tanh RNNs that read one state run in lockstep on a CPU.

Torch's RNN takes three calls a step, layer and candidate, and its matrices are small. Here the
layers of all candidates and edges that leave a state go through time together:

.. math:: h_t = \tanh(z_t + h_{t-1} W^T)

with :math:`z` of all steps from one matrix product, and a batched product for every step. LSTMs
stay with torch, as oneDNN has them near the rate of a matrix product; a GPU has cuDNN for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from emodarts.searching.fast import OnceDifferentiableCell, apply_function, differentiable_once
from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.sequence_ops import Recurrent


class FastSequenceCell(OnceDifferentiableCell):
    """A SeqNN cell of mixed operations, with the parameters and function of a plain cell."""

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        if self.plain or weights is None or first.device.type != "cpu":
            return super().forward(first, second, weights)
        states = [self.inputs[0](first), self.inputs[1](second)]
        places = [(node, s) for node, sources in enumerate(self.sources) for s in sources]
        terms: list[list[Tensor]] = [[] for _ in self.sources]
        for source in range(len(self.sources) + 1):
            if source > 1:
                states.append(add_up(terms[source - 2]))
            leaving = [(k, node) for k, (node, s) in enumerate(places) if s == source]
            edges = [cast(MixedOperation, self.edges[k]) for k, _ in leaving]
            found = _mixtures(states[source], edges, [weights[k] for k, _ in leaving])
            for (_, node), out in zip(leaving, found, strict=True):
                terms[node].append(out)
        states.append(add_up(terms[-1]))
        return torch.cat(states[2:], dim=self.dim)


def _mixtures(
    x: Tensor, edges: Sequence[MixedOperation], weights: Sequence[Tensor]
) -> list[Tensor]:
    """What leaves a state ``(B, T, H)`` on each edge."""
    rnns = [m for edge in edges for m in edge.operations if _is_rnn(m)]
    outputs: dict[nn.Module, Tensor] = {}
    for attends in (False, True):
        group = [cast(Recurrent, m) for m in rnns if (m.attention is not None) == attends]
        if group:
            steps = _lockstep(x, [cast(nn.RNN, m.recurrent) for m in group])
            outputs.update((m, m.finish(s)) for m, s in zip(group, steps, strict=True))
    return [
        add_up(
            [
                row[column] * (outputs[m] if m in outputs else m(x))
                for column, m in zip(edge.columns, edge.operations, strict=True)
            ]
        )
        for edge, row in zip(edges, weights, strict=True)
    ]


def _is_rnn(module: nn.Module) -> bool:
    return isinstance(module, Recurrent) and isinstance(module.recurrent, nn.RNN)


def _lockstep(x: Tensor, networks: Sequence[nn.RNN]) -> list[Tensor]:
    """Outputs ``(B, T, D * H)`` of RNNs of D directions, of any depths, on ``(B, T, H)``."""
    directions = ("", "_reverse") if networks[0].bidirectional else ("",)
    batch, time, _ = x.shape
    outputs: dict[nn.RNN, Tensor] = {}
    inputs: Tensor | None = None  # (A, B * T, D * H), after the first layer
    active = list(networks)
    for layer in range(max(network.num_layers for network in networks)):
        if inputs is not None:
            kept = [k for k, network in enumerate(active) if network.num_layers > layer]
            active, inputs = [active[k] for k in kept], inputs[kept]

        def of(name: str, networks: Sequence[nn.RNN] = active, layer: int = layer) -> Tensor:
            return torch.stack(
                [getattr(n, f"{name}_l{layer}{way}") for n in networks for way in directions]
            )

        bias = of("bias_ih") + of("bias_hh")  # (A * D, H)
        kernel = of("weight_ih")  # (A * D, H, width of the input)
        if inputs is None:
            z = (x.flatten(0, 1) @ kernel.flatten(0, 1).t()).view(batch, time, *bias.shape)
            z = z.permute(1, 2, 0, 3)
        else:
            wide = kernel.view(len(active), -1, kernel.shape[2])  # both directions at once
            z = torch.bmm(inputs, wide.transpose(1, 2))
            z = z.view(len(active), batch, time, len(directions), -1).permute(2, 0, 3, 1, 4)
            z = z.flatten(1, 2)
        z = _turned(z + bias[:, None], len(directions))
        h = _turned(apply_function(_Scan, z, of("weight_hh")), len(directions))
        # (T, A * D, B, H) -> (A, B, T, D * H)
        h = h.view(time, len(active), len(directions), batch, -1)
        h = h.permute(1, 3, 0, 2, 4).flatten(3)
        outputs.update(zip(active, h, strict=True))
        inputs = h.flatten(1, 2)
    return [outputs[network] for network in networks]


def _turned(x: Tensor, directions: int) -> Tensor:
    """``(T, A * D, B, H)`` with every second member backwards in time, if there are two ways."""
    if directions == 1:
        return x
    return torch.stack([x[:, ::2], x[:, 1::2].flip(0)], dim=2).flatten(1, 2)


class _Scan(torch.autograd.Function):
    """``h_t = tanh(z_t + h_(t-1) W^T)`` for ``z`` (T, M, B, H) and ``W`` (M, H, H)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, kernel: Tensor) -> Tensor:
        """Return ``h`` (T, M, B, H)."""
        h = torch.empty(z.shape, dtype=z.dtype, device=z.device)
        torch.tanh(z[0], out=h[0])
        turned = kernel.transpose(1, 2).contiguous()
        for t in range(1, len(z)):
            torch.baddbmm(z[t], h[t - 1], turned, out=h[t]).tanh_()
        ctx.save_for_backward(h, kernel)
        return h

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, kernel = ctx.saved_tensors
        slope = 1 - h * h
        d = gradient * slope
        for t in range(len(h) - 2, -1, -1):
            d[t].addcmul_(torch.bmm(d[t + 1], kernel), slope[t])
        of_kernel = None
        if ctx.needs_input_grad[1]:
            after = d[1:].permute(1, 3, 0, 2).flatten(2)  # (M, H, (T - 1) * B)
            of_kernel = torch.bmm(after, h[:-1].transpose(0, 1).flatten(1, 2))
        return d, of_kernel
