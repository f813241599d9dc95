"""Edges of supernets that are no plain sums of all candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.genotype import NONE, SKIP
from emodarts.recipe.spaces import Operations
from emodarts.searching.supernet import EdgeBuilder, mixed_edge
from emodarts.space.cell import MixedOperation, SeesPresence, add_up, run
from emodarts.space.dropout import Dropout


class SparseOperation(MixedOperation):
    """A mixed operation that computes only the candidates whose weight is not 0."""

    def __init__(self, names: Sequence[str], operations: Sequence[nn.Module], stride: int) -> None:
        super().__init__(names, operations)
        self.stride = stride

    def forward(self, x: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
        """``x``, weights ``(O,)`` of all candidates, and the steps that are there -> a state."""
        values = weights.tolist()
        terms = [
            weights[k] * run(operation, x, present=present)
            for k, operation in zip(self.columns, self.operations, strict=True)
            if values[k] != 0.0
        ]
        if terms:
            return add_up(terms)
        # Of the weights, so that a step that drew `none` on every edge has a gradient: zero.
        return strided(x, self.stride) * (0.0 * weights.sum())


def strided(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th value of a map ``(B, C, F, T)``; a sequence as it is."""
    return x[:, :, ::stride, ::stride] if x.dim() == 4 else x


class PartialChannels(SeesPresence):
    """Candidates see the first of K parts of the channels; the others pass (PC-DARTS, section 3.2).

    What passes is multiplied by the sum of the weights: by the weight of the edge where edges are
    normalised, and otherwise by 1. Then channels are shuffled, so that the next cell's first part
    has some of all. Maps that pass an edge of stride 2 are max-pooled.
    """

    def __init__(self, operation: nn.Module, parts: int, stride: int) -> None:
        super().__init__()
        self.operation, self.parts, self.stride = operation, parts, stride

    def forward(self, x: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, C, F, T)`` or ``(B, T, H)``, weights ``(O,)``, and what is there -> a state."""
        dim, pair = (1, (1, 2)) if x.dim() == 4 else (-1, (-2, -1))
        n = x.shape[dim] // self.parts
        seen, passing = torch.split(x, [n, x.shape[dim] - n], dim=dim)
        if self.stride > 1:
            passing = functional.max_pool2d(passing, self.stride, ceil_mode=True)
        out = run(self.operation, seen, weights, present=present)
        joined = torch.cat([out, passing * weights.sum()], dim=dim)
        shuffled = torch.unflatten(joined, dim, (self.parts, n)).transpose(*pair)
        return shuffled.flatten(*pair)


class AuxiliarySkip(SeesPresence):
    """An edge and a skip connection beside it, which fades out (DARTS-, eq. 5)."""

    def __init__(self, operation: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.operation, self.skip = operation, skip
        self.weight = 1.0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.weight, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.weight = float(state)

    def forward(self, x: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
        """``x``, weights ``(O,)`` of the candidates, and the steps that are there -> a state."""
        out = run(self.operation, x, weights, present=present)
        return out if self.weight == 0.0 else out + self.weight * self.skip(x)


class SkipDropout(nn.Module):
    """A skip connection with dropout behind it (P-DARTS, section 3.3)."""

    def __init__(self, skip: nn.Module) -> None:
        super().__init__()
        self.skip, self.dropout = skip, Dropout(0.0)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.dropout.p, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.dropout.p = float(state)

    def forward(self, x: Tensor) -> Tensor:
        """A state -> the skip's output, some of it zero in training."""
        out: Tensor = self.dropout(self.skip(x))
        return out


@dataclass(frozen=True)
class Edges:
    """Builds the edges of a supernet: plain mixtures, unless something else is asked for.

    Attributes
    ----------
    sparse : compute only candidates whose weight is not 0.
    parts : K of :class:`PartialChannels`; 1 for all channels.
    auxiliary_skip : with an :class:`AuxiliarySkip`.
    skip_dropout : with a :class:`SkipDropout`.
    """

    sparse: bool = False
    parts: int = 1
    auxiliary_skip: bool = False
    skip_dropout: bool = False

    @property
    def builder(self) -> EdgeBuilder:
        """What the supernet calls; :func:`mixed_edge` itself where that is asked for."""
        return mixed_edge if self == Edges() else self._build

    def _build(self, cell: str, row: int, candidates: Operations, *sizes: Any) -> nn.Module:
        stride = sizes[1] if len(sizes) > 1 else 1
        inner = (sizes[0] // self.parts, *sizes[1:])
        operations = [
            self._candidate(name, build, inner)
            for name, build in candidates.items()
            if name != NONE
        ]
        edge: nn.Module = (
            SparseOperation(tuple(candidates), operations, stride)
            if self.sparse
            else MixedOperation(tuple(candidates), operations)
        )
        if self.parts > 1:
            edge = PartialChannels(edge, self.parts, stride)
        if self.auxiliary_skip:
            edge = AuxiliarySkip(edge, candidates[SKIP](*sizes))
        return edge

    def _candidate(self, name: str, build: Callable[..., nn.Module], sizes: Any) -> nn.Module:
        module = build(*sizes)
        return SkipDropout(module) if self.skip_dropout and name == SKIP else module
