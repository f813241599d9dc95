"""From architecture parameters to a genotype (DARTS, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emodarts.genotype import EDGES_PER_NODE, NONE, CellGenotype, Edge, Genotype
from emodarts.recipe import NetworkSpec
from emodarts.space.cell import all_sources


def derive_cell(alpha: Tensor, operations: Sequence[str]) -> CellGenotype:
    """Keep the strongest operation of each edge and the strongest edges of each node.

    Strength is the softmax weight over *all* candidates of the edge, with ``none`` in the
    softmax but never chosen. Ties go to the earlier source and the earlier candidate.

    Parameters
    ----------
    alpha : (E, O), rows in the order of :func:`emodarts.space.cell.all_sources`.
    operations : names of the O candidates.
    """
    weights = torch.softmax(alpha.detach().cpu().double(), dim=-1).tolist()
    candidates = [k for k, name in enumerate(operations) if name != NONE]
    nodes = 0
    while sum(len(s) for s in all_sources(nodes)) < len(weights):
        nodes += 1
    cell = []
    row = 0
    for sources in all_sources(nodes):
        strongest = []
        for source in sources:
            strength, best = max((weights[row][k], -k) for k in candidates)
            strongest.append((strength, Edge(operations[-best], source)))
            row += 1
        strongest.sort(key=lambda pair: -pair[0])
        kept = [edge for _, edge in strongest[:EDGES_PER_NODE]]
        cell.append(tuple(sorted(kept, key=lambda edge: edge.source)))
    return tuple(cell)


def derive_genotype(alphas: Mapping[str, Tensor], spec: NetworkSpec) -> Genotype:
    """Derive every searched cell. ``alphas`` as in ``Supernet.alphas``."""
    return Genotype(
        **{name: derive_cell(alphas[name], names) for name, names in spec.operations.items()}
    )


def random_genotype(spec: NetworkSpec, generator: torch.Generator) -> Genotype:
    """Draw a genotype uniformly: two different sources a node, any operation but ``none``."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    def cell(nodes: int, operations: Sequence[str]) -> CellGenotype:
        allowed = [name for name in operations if name != NONE]
        drawn = []
        for sources in all_sources(nodes):
            order = torch.randperm(len(sources), generator=generator).tolist()
            kept = sorted(order[:EDGES_PER_NODE])
            drawn.append(tuple(Edge(allowed[draw(len(allowed))], source) for source in kept))
        return tuple(drawn)

    return Genotype(
        **{name: cell(nodes, spec.operations[name]) for name, nodes in spec.nodes.items()}
    )
