"""How architecture parameters alpha become the weights of the candidates on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: Added to the name of a cell: parameters of its edges, ``(E,)``, where edges have some.
EDGES = "_edges"

#: Alphas by name -> weights ``(E, O)`` by searched cell.
Mixing = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def candidate_softmax(alpha: Tensor) -> Tensor:
    """Softmax of an alpha ``(E, O)`` over the candidates (DARTS, eq. 2)."""
    return torch.softmax(alpha, dim=-1)


def softmax(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of all cells."""
    return {name: candidate_softmax(alpha) for name, alpha in alphas.items()}
