"""From architecture parameters to a genotype (DARTS, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.space.cell import edges
from emodarts.space.genotype import (
    CNN_OPERATIONS,
    EDGES_PER_NODE,
    NONE,
    CellGenotype,
    Edge,
    Genotype,
)


def derive_cell(alpha: Tensor, nodes: int, operations: Sequence[str]) -> CellGenotype:
    """Keep the strongest operation of each edge and the strongest edges of each node.

    Strength is the softmax weight over *all* candidates of the edge, with ``none`` in the
    softmax but never chosen. Ties go to the earlier source and the earlier candidate.

    Parameters
    ----------
    alpha : (E, O), rows in the order of :func:`emodarts.space.cell.edges`.
    nodes : of the cell.
    operations : names of the O candidates.
    """
    weights = torch.softmax(alpha.detach().cpu().double(), dim=-1).tolist()
    candidates = [k for k, name in enumerate(operations) if name != NONE]
    found: list[list[tuple[float, Edge]]] = [[] for _ in range(nodes)]
    for row, (source, node) in zip(weights, edges(nodes), strict=True):
        strength, best = max((row[k], -k) for k in candidates)
        found[node].append((strength, Edge(operations[-best], source)))
    cell = []
    for strongest in found:
        strongest.sort(key=lambda pair: -pair[0])
        kept = [edge for _, edge in strongest[:EDGES_PER_NODE]]
        cell.append(tuple(sorted(kept, key=lambda edge: edge.source)))
    return tuple(cell)


def derive_genotype(alphas: Mapping[str, Tensor], spec: NetworkSpec) -> Genotype:
    """Derive every searched cell. ``alphas`` as in ``Supernet.alphas``."""
    sequence = None
    if isinstance(spec.seqnn, SearchedSeqNN):
        sequence = derive_cell(alphas["sequence"], spec.seqnn.nodes, spec.seqnn.operations)
    return Genotype(
        normal=derive_cell(alphas["normal"], spec.cnn.nodes, CNN_OPERATIONS),
        reduction=derive_cell(alphas["reduction"], spec.cnn.nodes, CNN_OPERATIONS),
        sequence=sequence,
    )


def random_genotype(spec: NetworkSpec, generator: torch.Generator) -> Genotype:
    """Draw a genotype uniformly: two different sources a node, any operation but ``none``."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    def cell(nodes: int, operations: Sequence[str]) -> CellGenotype:
        legal = [name for name in operations if name != NONE]
        drawn = []
        for node in range(nodes):
            order = torch.randperm(node + 2, generator=generator).tolist()
            kept = sorted(order[:EDGES_PER_NODE])
            drawn.append(tuple(Edge(legal[draw(len(legal))], source) for source in kept))
        return tuple(drawn)

    normal = cell(spec.cnn.nodes, CNN_OPERATIONS)
    reduction = cell(spec.cnn.nodes, CNN_OPERATIONS)
    match spec.seqnn:
        case SearchedSeqNN(nodes=nodes, operations=operations):
            return Genotype(normal, reduction, cell(nodes, operations))
    return Genotype(normal, reduction)
