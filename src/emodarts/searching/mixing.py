"""How architecture parameters alpha become the weights of the candidates on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: Added to the name of a cell: parameters of its edges, ``(E,)``, where edges have some.
EDGES = "_edges"

#: Alphas by name -> weights ``(E, O)`` by searched cell.
Mixing = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def softmax(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Softmax of each alpha ``(E, O)`` over the candidates (DARTS, eq. 2)."""
    return {name: torch.softmax(alpha, dim=-1) for name, alpha in alphas.items()}
