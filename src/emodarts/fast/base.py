"""What the implementations of fast cells share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from emodarts.space.cell import Cell, MixedOperation, add_up

#: A state, the edges that leave it and their weights ``(E, O)`` -> what leaves it on each.
Mixtures = Callable[[Tensor, Sequence[MixedOperation], Tensor], Sequence[Tensor]]


class Fast:
    """What may be differentiated once only, and twice within :func:`differentiable_twice`."""

    plain = False


class FastCell(Fast, Cell):
    """A cell in another implementation."""

    def state_by_state(
        self, first: Tensor, second: Tensor, weights: Tensor, mixtures: Mixtures
    ) -> Tensor:
        """The first two states and weights ``(E, O)`` of a supernet -> the output."""
        states = [first, second]
        terms: list[list[Tensor]] = [[] for _ in range(self.n_nodes)]
        for state in range(self.n_nodes + 1):
            if state > 1:
                states.append(add_up(terms[state - 2]))
            rows = [k for k, (source, _) in enumerate(self.ends) if source == state]
            if not rows:
                continue
            edges = [cast(MixedOperation, self.edges[k]) for k in rows]
            # An index would have to be copied to the device each time.
            found = mixtures(states[state], edges, torch.stack([weights[k] for k in rows]))
            for k, out in zip(rows, found, strict=True):
                terms[self.ends[k][1]].append(out)
        states.append(add_up(terms[-1]))
        return torch.cat(states[2:], dim=self.dim)


@contextmanager
def differentiable_twice(module: nn.Module) -> Iterator[None]:
    """Let every fast cell and layer of a module compute as the plain one that it stands for."""
    fast = [m for m in module.modules() if isinstance(m, Fast)]
    before = [one.plain for one in fast]
    try:
        for one in fast:
            one.plain = True
        yield
    finally:
        for one, value in zip(fast, before, strict=True):
            one.plain = value


class RunningStatistics:
    """Mean and variance that batch norms in training found, until all are moved at once."""

    def __init__(self) -> None:
        self._norms: list[nn.BatchNorm2d] = []
        self._running: list[Tensor] = []
        self._found: list[Tensor] = []

    def add(self, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
        """What a batch had, ``(C,)``; the variance as batch norm tracks it: unbiased."""
        if norm.training and norm.track_running_stats:
            self._norms.append(norm)
            self._running += [cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)]
            self._found += [mean, variance]

    @torch.no_grad()
    def keep(self) -> None:
        """Move the running statistics of all."""
        if not self._norms:
            return
        found = [f.to(r) for f, r in zip(self._found, self._running, strict=True)]
        torch._foreach_lerp_(self._running, found, cast(float, self._norms[0].momentum))
        torch._foreach_add_([cast(Tensor, n.num_batches_tracked) for n in self._norms], 1)


def apply_function(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``function.apply``, which torch leaves without types."""
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to build a graph of the backward pass: it would lack terms without a word.

    Torch's own ``once_differentiable`` lets pass a gradient that is constant itself.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a fast cell or layer can be differentiated once only; use differentiable_twice"
            )
        return backward(ctx, *gradients)

    return checked


def can_be_compiled(x: Tensor) -> bool:
    """Whether compiled loops are for a tensor of this type and device."""
    plain = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return plain and x.device.type == "cpu"
