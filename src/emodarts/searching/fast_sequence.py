"""Mixed SeqNN cells with their recurrent candidates side by side on a CPU.

All recurrent candidates that read one state are independent. The products in one of them are too
small to share among threads, so each thread takes whole candidates: in torch's calls those of a
state, compiled those of a cell. A GPU has cuDNN for them, and autocast, which no thread inherits,
has torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.compiled_recurrent import run_cell
from emodarts.space.normalise import (
    OnceDifferentiableCell,
    apply_function,
    differentiable_once,
)
from emodarts.space.sequence_ops import Recurrent
from emodarts.space.threads import executor


class FastSequenceCell(OnceDifferentiableCell):
    """A SeqNN cell of mixed operations, with the parameters and function of a plain cell."""

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        if self.plain or weights is None:
            return super().forward(first, second, weights)
        states = self.inputs[0](first), self.inputs[1](second)
        if first.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return self.state_by_state(*states, weights, _stacked)
        return self.in_threads(*states, weights)

    def in_threads(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        """The first two states, ``(B, T, H)`` -> the output, on a CPU."""
        return self.state_by_state(first, second, weights, _side_by_side)


class CompiledSequenceCell(FastSequenceCell):
    """One that is compiled, but for its inputs."""

    def in_threads(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        """The first two states, ``(B, T, H)`` -> the output, on a CPU."""
        return run_cell(first, second, self.sources, self.mixed_operations(), weights)


def _stacked(x: Tensor, edges: Sequence[MixedOperation], weights: Tensor) -> Sequence[Tensor]:
    """All candidates weighted and summed at once: few calls, where the device is not the CPU."""
    outputs = torch.stack([m(x) for edge in edges for m in edge.operations])
    outputs = outputs.view(len(edges), -1, x.numel())  # (E, O', B * T * H)
    own = weights[:, edges[0].columns].to(outputs.dtype).unsqueeze(1)
    return torch.bmm(own, outputs).view(-1, *x.shape).unbind()


def _side_by_side(x: Tensor, edges: Sequence[MixedOperation], weights: Tensor) -> list[Tensor]:
    """Each recurrent candidate in one thread."""
    candidates = [
        (edge, module, row[column])
        for edge, row in zip(edges, weights, strict=True)
        for column, module in zip(edge.columns, edge.operations, strict=True)
    ]
    # The longest first, so that no thread begins one when the others are done.
    recurrent = sorted(
        ((edge, m, w) for edge, m, w in candidates if isinstance(m, Recurrent)),
        key=lambda each: -sum(p.numel() for p in each[1].parameters()),
    )
    found = [(edge, w * m(x)) for edge, m, w in candidates if not isinstance(m, Recurrent)]
    outputs = _run_in_threads(x, [m for _, m, _ in recurrent], [w for _, _, w in recurrent])
    found += [(edge, out) for (edge, _, _), out in zip(recurrent, outputs, strict=True)]
    return [add_up([out for other, out in found if other is edge]) for edge in edges]


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], n_threads: int) -> list[Any]:
    """Results in the order of the items; torch uses no further threads in one."""

    def alone(item: Any) -> Any:
        torch.set_num_threads(1)
        return work(item)

    found = list(executor(n_threads).map(alone, items))
    # What a thread asks for is also what threads begun later start with.
    torch.set_num_threads(n_threads)
    return found


def _run_in_threads(
    x: Tensor, modules: Sequence[Recurrent], weights: Sequence[Tensor]
) -> list[Tensor]:
    """``weight * module(x)`` of each."""
    n_threads = torch.get_num_threads()
    if n_threads == 1 or not modules:
        return [w * m(x) for m, w in zip(modules, weights, strict=True)]
    parameters = [p for m in modules for p in m.parameters()]
    graph = torch.is_grad_enabled()  # which is not to be seen in a function
    return list(apply_function(_InThreads, modules, n_threads, graph, x, *weights, *parameters))


class _InThreads(torch.autograd.Function):
    """Candidates that read one state, each in one thread, forwards and backwards."""

    @staticmethod
    def forward(
        ctx: Any,
        modules: Sequence[Recurrent],
        n_threads: int,
        graph: bool,
        x: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        """``x`` (B, T, H), a weight of each module and all their parameters -> weighted outputs.

        ``graph``: whether there will be a backward pass.
        """

        def work(k: int) -> tuple[Tensor, Tensor, Tensor]:
            own, weight = (t.detach().requires_grad_(graph) for t in (x, others[k]))
            with torch.set_grad_enabled(graph):
                return own, weight, weight * modules[k](own)

        ctx.graphs = _in_threads(work, range(len(modules)), n_threads)
        ctx.modules, ctx.n_threads = modules, n_threads
        return tuple(out.detach() for _, _, out in ctx.graphs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def work(k: int) -> tuple[Tensor, ...]:
            x, weight, out = ctx.graphs[k]
            trained = [p for p in ctx.modules[k].parameters() if p.requires_grad]
            return torch.autograd.grad(out, [x, weight, *trained], gradients[k])

        found = _in_threads(work, range(len(ctx.modules)), ctx.n_threads)
        ctx.graphs = None
        of_parameters: list[Tensor | None] = []
        for module, (_, _, *rest) in zip(ctx.modules, found, strict=True):
            each = iter(rest)
            of_parameters += [next(each) if p.requires_grad else None for p in module.parameters()]
        of_x = add_up([of_x for of_x, *_ in found])
        return (None, None, None, of_x, *(w for _, w, *_ in found), *of_parameters)
