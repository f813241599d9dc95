"""The graph of a cell, shared by CNN and SeqNN, by the supernet and the discrete network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emodarts.genotype import NONE, CellGenotype

#: For each node, the states that it reads.
Sources = tuple[tuple[int, ...], ...]


def all_sources(nodes: int) -> Sources:
    """Every node reads every earlier state: the graph of a supernet's cell.

    The edges in the order of these sources are the rows of an alpha.
    """
    return tuple(tuple(range(node + 2)) for node in range(nodes))


def edges(nodes: int) -> list[tuple[int, int]]:
    """Source and node, counted from 0, of every edge of a supernet's cell: the rows of an alpha."""
    return [(source, node) for node in range(nodes) for source in range(node + 2)]


def genotype_sources(cell: CellGenotype) -> Sources:
    """The states that the nodes of a derived cell read."""
    return tuple(tuple(edge.source for edge in node) for node in cell)


class MixedOperation(nn.Module):
    """Sum of all candidates, weighted: ``sum_o w_o * o(x)`` (DARTS, eq. 2).

    ``none`` gives zeros, so that its weight matters only through the softmax.
    """

    def __init__(self, names: Sequence[str], operations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.columns = [k for k, name in enumerate(names) if name != NONE]
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``x`` and weights ``(O,)`` of all candidates -> a state."""
        terms = [
            weights[k] * operation(x)
            for k, operation in zip(self.columns, self.operations, strict=True)
        ]
        return add_up(terms)


class Cell(nn.Module):
    """Directed graph: two inputs, nodes that sum their edges, output joins the nodes.

    Parameters
    ----------
    inputs : two modules that bring the cell's inputs to one shape.
    sources : for each node, the states it reads (0 and 1 are the inputs).
    edges : one module an edge, in the order of ``sources``.
    dim : axis on which the nodes are joined; 1 for maps, -1 for sequences.
    """

    layout = torch.channels_last
    """Of maps: oneDNN runs depthwise convolutions several times faster in it."""

    def __init__(
        self,
        inputs: tuple[nn.Module, nn.Module],
        sources: Sources,
        edges: Sequence[nn.Module],
        dim: int,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(inputs)
        self.edges = nn.ModuleList(edges)
        self.sources = sources
        self.dim = dim

    def forward(self, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Outputs of the two cells before, and weights ``(E, O)`` of a supernet -> output."""
        states = [self.inputs[0](first), self.inputs[1](second)]
        index = 0
        for sources in self.sources:
            terms = []
            for source in sources:
                edge = self.edges[index]
                x = states[source]
                terms.append(edge(x) if weights is None else edge(x, weights[index]))
                index += 1
            states.append(add_up(terms))
        return torch.cat(states[2:], dim=self.dim)


def add_up(terms: Sequence[Tensor]) -> Tensor:
    """Sum of tensors, from the first to the last."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
