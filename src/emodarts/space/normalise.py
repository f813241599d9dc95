"""What fast cells share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from emodarts.space.cell import Cell, MixedOperation, add_up

#: A state, the edges that leave it and their weights ``(E, O)`` -> what leaves it on each.
Mixtures = Callable[[Tensor, Sequence[MixedOperation], Tensor], Sequence[Tensor]]


class OnceDifferentiableCell(Cell):
    """A cell that can be differentiated once, and twice within :func:`plain_cells`."""

    plain = False

    def mixed_operations(self) -> list[MixedOperation]:
        """Those of the edges."""
        return [cast(MixedOperation, edge) for edge in self.edges]

    def state_by_state(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor,
        mixtures: Mixtures,
    ) -> Tensor:
        """The first two states and weights ``(E, O)`` -> the output."""
        mixed = self.mixed_operations()
        ends = [(source, node) for node, sources in enumerate(self.sources) for source in sources]
        states = [first, second]
        terms: list[list[Tensor]] = [[] for _ in self.sources]
        for state in range(len(self.sources) + 1):
            if state > 1:
                states.append(add_up(terms[state - 2]))
            leaving = [k for k, (source, _) in enumerate(ends) if source == state]
            # An index would have to be copied to the device each time.
            rows = torch.stack([weights[k] for k in leaving])
            found = mixtures(states[state], [mixed[k] for k in leaving], rows)
            for k, out in zip(leaving, found, strict=True):
                terms[ends[k][1]].append(out)
        states.append(add_up(terms[-1]))
        return torch.cat(states[2:], dim=self.dim)


@contextmanager
def plain_cells(module: nn.Module) -> Iterator[None]:
    """Let every fast cell compute edge by edge, e.g. to differentiate it twice."""
    cells = [m for m in module.modules() if isinstance(m, OnceDifferentiableCell)]
    before = [cell.plain for cell in cells]
    try:
        for cell in cells:
            cell.plain = True
        yield
    finally:
        for cell, value in zip(cells, before, strict=True):
            cell.plain = value


class Moments(NamedTuple):
    """Mean ``(C,)`` and covariance ``(C, C)`` of a map over utterances and positions."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def update_statistics(
    norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, count: int
) -> None:
    """Move running statistics, of ``count`` values a channel, as batch norm does: without bias."""
    if not (norms[0].training and norms[0].track_running_stats):
        return
    unbiased = variance * (count / max(count - 1, 1))
    means, variances = mean.chunk(len(norms)), unbiased.chunk(len(norms))
    for norm, m, v in zip(norms, means, variances, strict=True):
        momentum = cast(float, norm.momentum)
        cast(Tensor, norm.running_mean).lerp_(m.to(norm.running_mean), momentum)
        cast(Tensor, norm.running_var).lerp_(v.to(norm.running_var), momentum)
        cast(Tensor, norm.num_batches_tracked).add_(1)


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
            raise RuntimeError("a fast cell can be differentiated once; put it in plain_cells")
        return backward(ctx, *gradients)

    return checked
