"""From architecture parameters to a genotype (DARTS, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from emodarts.genotype import EDGES_PER_NODE, NONE, CellGenotype, Edge, Genotype
from emodarts.recipe import NetworkSpec
from emodarts.searching.mixing import Mixing, softmax
from emodarts.space.cell import edges


def derive_cell(weights: Tensor, operations: Sequence[str], nodes: int) -> CellGenotype:
    """Keep the strongest operation of each edge and the strongest edges of each node.

    The strength of an edge is the weight of its strongest operation other than ``none``. Ties go
    to the earlier source and the earlier candidate.

    Parameters
    ----------
    weights : (E, O) of the candidates, rows in the order of :func:`emodarts.space.cell.edges`.
    operations : names of the O candidates.
    nodes : number of nodes.
    """
    candidates = [k for k, name in enumerate(operations) if name != NONE]
    found: list[list[tuple[float, Edge]]] = [[] for _ in range(nodes)]
    for row, (source, node) in zip(weights.tolist(), edges(nodes), strict=True):
        strength, best = max((row[k], -k) for k in candidates)
        found[node].append((strength, Edge(operations[-best], source)))
    cell = []
    for strongest in found:
        strongest.sort(key=lambda pair: -pair[0])
        kept = [edge for _, edge in strongest[:EDGES_PER_NODE]]
        cell.append(tuple(sorted(kept, key=lambda edge: edge.source)))
    return tuple(cell)


def derive_genotype(
    alphas: Mapping[str, Tensor], spec: NetworkSpec, mixing: Mixing = softmax
) -> Genotype:
    """Derive every searched cell from the weights that ``mixing`` makes of alphas, in float64.

    With softmax, the weights are over *all* candidates of an edge: ``none`` is in the softmax but
    never chosen.
    """
    weights = mixing({name: alpha.detach().cpu().double() for name, alpha in alphas.items()})
    nodes = spec.nodes
    cells: dict[str, Any] = {
        name: derive_cell(weights[name], operations, nodes[name])
        for name, operations in spec.operations.items()
    }
    return Genotype(**cells)


#: Draws for each genotype that is missing: a small space has fewer than are asked for.
_DRAWS = 50


def different_genotypes(
    spec: NetworkSpec, count: int, generator: torch.Generator, *first: Genotype
) -> list[Genotype]:
    """``first`` and random genotypes, all different: ``count``, or as many as there seem to be."""
    drawn = list(first)
    for _ in range(_DRAWS * count):
        if len(drawn) == count:
            break
        genotype = random_genotype(spec, generator)
        if genotype not in drawn:
            drawn.append(genotype)
    return drawn


def random_genotype(
    spec: NetworkSpec, generator: torch.Generator, macro: Mapping[str, Any] | None = None
) -> Genotype:
    """Draw a genotype uniformly: macro choices, then the cells of the network that has them.

    Each node has two different sources, and any operation but ``none`` on its edges. Macro choices
    that are given are not drawn; ``{}`` keeps the network as it is.
    """

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    def cell(nodes: int, operations: Sequence[str]) -> CellGenotype:
        allowed = [name for name in operations if name != NONE]
        drawn = []
        for node in range(nodes):
            order = torch.randperm(node + 2, generator=generator).tolist()
            kept = sorted(order[:EDGES_PER_NODE])
            drawn.append(tuple(Edge(allowed[draw(len(allowed))], source) for source in kept))
        return tuple(drawn)

    if macro is None:
        macro = {key: choices[draw(len(choices))] for key, choices in spec.macro.items()}
    spec = spec.with_choices(macro)
    cells: dict[str, Any] = {
        name: cell(nodes, spec.operations[name]) for name, nodes in spec.nodes.items()
    }
    return Genotype(**cells, macro=macro)
