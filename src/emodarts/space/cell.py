"""The graph of a cell, shared by CNN and SeqNN, by the supernet and the discrete network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emodarts.genotype import NONE, CellGenotype

#: Of an edge: the state that it reads (0 and 1 are the cell's inputs) and its node, from 0.
Ends = tuple[int, int]


def edges(nodes: int) -> list[Ends]:
    """Edges of a supernet's cell: every node reads every earlier state.

    Their order is that of the rows of an alpha.
    """
    return [(source, node) for node in range(nodes) for source in range(node + 2)]


def genotype_edges(cell: CellGenotype) -> list[Ends]:
    """Edges of a derived cell."""
    return [(edge.source, node) for node, kept in enumerate(cell) for edge in kept]


class SeesPresence(nn.Module):
    """A module whose ``forward`` has an argument ``present``: the steps ``(B, T)`` that are there.

    An operation over time that looks back from the end has to know where an utterance ends that is
    shorter than its batch. Others see zeros or what they made of them.
    """


def run(module: nn.Module, *given: Tensor, present: Tensor | None) -> Tensor:
    """``module(*given)``, with the steps that are present, or None for all, if it takes them."""
    told = {"present": present} if isinstance(module, SeesPresence) else {}
    out: Tensor = module(*given, **told)
    return out


class MixedOperation(SeesPresence):
    """Sum of all candidates, weighted: ``sum_o w_o * o(x)`` (DARTS, eq. 2).

    ``none`` gives zeros, so that its weight matters only through the softmax.
    """

    def __init__(self, names: Sequence[str], operations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.columns = [k for k, name in enumerate(names) if name != NONE]
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
        """``x``, weights ``(O,)`` of all candidates, and the steps that are there -> a state."""
        terms = [
            weights[k] * run(operation, x, present=present)
            for k, operation in zip(self.columns, self.operations, strict=True)
        ]
        return add_up(terms)


class DropPath(SeesPresence):
    """In training, zero the edge of an utterance with a probability and scale the others up.

    Source: FractalNet (arXiv 1605.07648), as used by DARTS on every edge but the identity.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation
        self.probability = 0.0

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, ...)`` -> the operation's output, some utterances of it zero."""
        y = run(self.operation, x, present=present)
        factors = self.factors(y)
        return y if factors is None else y * factors

    def factors(self, x: Tensor) -> Tensor | None:
        """Draw what an output is multiplied by, ``(B, 1, ...)`` for ``x`` ``(B, ...)``, if any."""
        if not self.training or self.probability == 0.0:
            return None
        keep = 1.0 - self.probability
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return torch.empty(shape, device=x.device, dtype=x.dtype).bernoulli_(keep) / keep


class Cell(nn.Module):
    """Directed graph: two inputs, nodes that sum their edges, output joins the nodes.

    Parameters
    ----------
    inputs : two modules that bring the cell's inputs to one shape.
    ends : of every edge, the state it reads and its node; every node has at least one.
    edges : one module an edge, in the order of ``ends``: mixed operations in a supernet.
    dim : axis on which the nodes are joined; 1 for maps, -1 for sequences.
    """

    layout = torch.channels_last
    """Of maps: oneDNN runs depthwise convolutions several times faster in it."""

    def __init__(
        self,
        inputs: tuple[nn.Module, nn.Module],
        ends: Sequence[Ends],
        edges: Sequence[nn.Module],
        dim: int,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(inputs)
        self.edges = nn.ModuleList(edges)
        self.ends = list(ends)
        self.n_nodes = 1 + max(node for _, node in ends)
        self.dim = dim

    def into(self, node: int) -> list[tuple[int, int, nn.Module]]:
        """Row, source and module of the edges of a node."""
        return [
            (row, source, self.edges[row])
            for row, (source, to) in enumerate(self.ends)
            if to == node
        ]

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Outputs of the two cells before, and weights ``(E, O)`` of a supernet -> output.

        ``present`` (B, T) are the steps of sequences that are there; None if all are.
        """
        states = [self.inputs[0](first), self.inputs[1](second)]
        own = [()] * len(self.edges) if weights is None else [(row,) for row in weights]
        for node in range(self.n_nodes):
            terms = [
                run(edge, states[source], *own[row], present=present)
                for row, source, edge in self.into(node)
            ]
            states.append(add_up(terms))
        return torch.cat(states[2:], dim=self.dim)


def add_up(terms: Sequence[Tensor]) -> Tensor:
    """Sum of tensors, from the first to the last."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
