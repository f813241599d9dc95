r"""The mixed SeqNN cell with its recurrent candidates side by side on a CPU.

All recurrent candidates that read one state are independent. The products in one of them are too
small to share among threads, so each thread takes whole candidates.

Torch's RNN takes three calls a step, layer and candidate, and its matrices are small. Here the
layers of a group of candidates and edges that leave a state go through time together:

.. math:: h_t = \tanh(z_t + h_{t-1} W^T)

with :math:`z` of all steps from one matrix product, and a batched product for every step. LSTMs
stay with torch, as oneDNN has them near the rate of a matrix product; a GPU has cuDNN for both, and
autocast, which is meant for one and no thread inherits, has torch's too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from emodarts.space.cell import MixedOperation, add_up
from emodarts.space.normalise import OnceDifferentiableCell, apply_function, differentiable_once
from emodarts.space.sequence_ops import Recurrent


class FastSequenceCell(OnceDifferentiableCell):
    """A SeqNN cell of mixed operations, with the parameters and function of a plain cell."""

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sequences of the two cells before, and weights ``(E, O)`` -> ``(B, T, N * H)``."""
        elsewhere = first.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if self.plain or weights is None or elsewhere:
            return super().forward(first, second, weights)
        states = [self.inputs[0](first), self.inputs[1](second)]
        places = [(node, s) for node, sources in enumerate(self.sources) for s in sources]
        terms: list[list[Tensor]] = [[] for _ in self.sources]
        again = _kept_bytes(self, first) > _KEPT
        for source in range(len(self.sources) + 1):
            if source > 1:
                states.append(add_up(terms[source - 2]))
            leaving = [(k, node) for k, (node, s) in enumerate(places) if s == source]
            edges = [cast(MixedOperation, self.edges[k]) for k, _ in leaving]
            rows = [weights[k] for k, _ in leaving]
            found = _mixtures(states[source], edges, rows, again)
            for (_, node), out in zip(leaving, found, strict=True):
                terms[node].append(out)
        states.append(add_up(terms[-1]))
        return torch.cat(states[2:], dim=self.dim)


def _kept_bytes(cell: FastSequenceCell, x: Tensor) -> int:
    """What oneDNN keeps of the LSTMs of a cell for their backward passes, about.

    For each layer and direction 17.6 times the size of its output, seen in torch 2.13.
    """
    batch, time = x.shape[:2]
    lstms = [m for m in cell.modules() if isinstance(m, nn.LSTM)]
    values = sum(m.num_layers * m.hidden_size * (1 + m.bidirectional) for m in lstms)
    return 18 * batch * time * values * x.element_size()


def _mixtures(
    x: Tensor, edges: Sequence[MixedOperation], weights: Sequence[Tensor], again: bool
) -> list[Tensor]:
    """What leaves a state ``(B, T, H)`` on each edge."""
    recurrent = [m for edge in edges for m in edge.operations if isinstance(m, Recurrent)]
    outputs = dict(zip(recurrent, _side_by_side(x, recurrent, again), strict=True))
    return [
        add_up(
            [
                row[column] * (outputs[m] if isinstance(m, Recurrent) else m(x))
                for column, m in zip(edge.columns, edge.operations, strict=True)
            ]
        )
        for edge, row in zip(edges, weights, strict=True)
    ]


class _Task(NamedTuple):
    """Candidates that one thread computes, and where their outputs belong."""

    places: list[int]
    modules: list[Recurrent]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """``(B, T, H)`` -> as much for each."""
        if not _is_rnn(self.modules[0]):
            return [module(x) for module in self.modules]
        steps = _lockstep(x, [cast(nn.RNN, m.recurrent) for m in self.modules])
        return [m.finish(s) for m, s in zip(self.modules, steps, strict=True)]

    def parameters(self) -> list[nn.Parameter]:
        """Of all modules."""
        return [p for module in self.modules for p in module.parameters()]


def _tasks(modules: Sequence[Recurrent], n_threads: int) -> list[_Task]:
    """Every LSTM alone; RNNs of one kind in as many groups as threads. The longest come first."""
    tasks = [_Task([k], [m]) for k, m in enumerate(modules) if not _is_rnn(m)]
    for attends in (False, True):
        places = [
            k for k, m in enumerate(modules) if _is_rnn(m) and (m.attention is not None) == attends
        ]
        for share in range(min(n_threads, len(places))):
            own = places[share::n_threads]
            tasks.append(_Task(own, [modules[k] for k in own]))
    return sorted(tasks, key=lambda task: -sum(p.numel() for p in task.parameters()))


#: Bytes that the recurrent candidates of a cell may keep for the backward pass.
_KEPT = 2**29
_executors: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _executor(n_threads: int) -> ThreadPoolExecutor:
    """Threads that torch uses no further ones in."""
    key = (os.getpid(), n_threads)  # threads do not survive a fork
    if key not in _executors:
        _executors[key] = ThreadPoolExecutor(
            n_threads, "emodarts-sequence", initializer=lambda: torch.set_num_threads(1)
        )
    return _executors[key]


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], n_threads: int) -> list[Any]:
    """Results in the order of the items."""
    if n_threads == 1:
        return [work(item) for item in items]
    found = list(_executor(n_threads).map(work, items))
    # What a thread asks for is also what threads begun later start with.
    torch.set_num_threads(n_threads)
    return found


def _side_by_side(x: Tensor, modules: Sequence[Recurrent], again: bool) -> list[Tensor]:
    """Output of each module; ``again``: made again in the backward pass, not kept."""
    if not modules:
        return []
    n_threads = torch.get_num_threads()
    tasks = _tasks(modules, n_threads)
    if n_threads == 1 and not again:
        found = [out for task in tasks for out in task(x)]
    else:
        parameters = [p for task in tasks for p in task.parameters()]
        graph = torch.is_grad_enabled()  # which is not to be seen in a function
        found = list(apply_function(_InThreads, tasks, n_threads, graph, again, x, *parameters))
    places = [place for task in tasks for place in task.places]
    return [out for _, out in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


class _InThreads(torch.autograd.Function):
    """Tasks that read one map, each in one thread, forwards and backwards."""

    @staticmethod
    def forward(
        ctx: Any,
        tasks: list[_Task],
        n_threads: int,
        graph: bool,
        again: bool,
        x: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        """``x`` (B, T, H) and the parameters of all tasks -> outputs of all tasks.

        ``graph``: whether there will be a backward pass; ``again``: all is made again for it.
        """
        kept = graph and not again
        graphs = _in_threads(lambda task: _run(task, x, kept), tasks, n_threads)
        ctx.tasks, ctx.n_threads, ctx.graphs = tasks, n_threads, graphs if kept else None
        ctx.lengths = [len(outputs) for _, outputs in graphs]
        ctx.save_for_backward(x)
        return tuple(out.detach() for _, outputs in graphs for out in outputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        ends = list(itertools.accumulate(ctx.lengths))

        def work(k: int) -> tuple[Tensor, ...]:
            task = ctx.tasks[k]
            own, outputs = _run(task, x, True) if ctx.graphs is None else ctx.graphs[k]
            inputs = [own, *(p for p in task.parameters() if p.requires_grad)]
            incoming = gradients[ends[k] - ctx.lengths[k] : ends[k]]
            return torch.autograd.grad(outputs, inputs, incoming)

        found = _in_threads(work, range(len(ctx.tasks)), ctx.n_threads)
        ctx.graphs = None
        of_parameters: list[Tensor | None] = []
        for task, (_, *rest) in zip(ctx.tasks, found, strict=True):
            each = iter(rest)
            of_parameters += [next(each) if p.requires_grad else None for p in task.parameters()]
        return (None, None, None, None, add_up([of_x for of_x, *_ in found]), *of_parameters)


def _run(task: _Task, x: Tensor, with_graph: bool) -> tuple[Tensor, list[Tensor]]:
    """A task on a map of its own, and that map."""
    own = x.detach().requires_grad_(with_graph)
    with torch.set_grad_enabled(with_graph):
        return own, task(own)


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
