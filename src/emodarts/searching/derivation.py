"""From architecture parameters to a genotype (DARTS, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from emodarts.genotype import EDGES_PER_NODE, NONE, SKIP, CellGenotype, Edge, Genotype
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
    alphas: Mapping[str, Tensor],
    spec: NetworkSpec,
    mixing: Mixing = softmax,
    max_skips: int | None = None,
) -> Genotype:
    """Derive every searched cell from the weights that ``mixing`` makes of alphas, in float64.

    With softmax, the weights are over *all* candidates of an edge: ``none`` is in the softmax but
    never chosen. While a cell has more than ``max_skips`` skip connections, the one with the
    smallest weight is ruled out.
    """
    weights = mixing({name: alpha.detach().cpu().double() for name, alpha in alphas.items()})
    nodes = spec.nodes
    cells: dict[str, Any] = {
        name: _with_few_skips(weights[name], operations, nodes[name], max_skips)
        for name, operations in spec.operations.items()
    }
    return Genotype(**cells)


def _with_few_skips(
    weights: Tensor, operations: Sequence[str], nodes: int, max_skips: int | None
) -> CellGenotype:
    while True:
        cell = derive_cell(weights, operations, nodes)
        skips = {
            (edge.source, node)
            for node, kept in enumerate(cell)
            for edge in kept
            if edge.operation == SKIP
        }
        if max_skips is None or len(skips) <= max_skips:
            return cell
        column = operations.index(SKIP)
        rows = [row for row, ends in enumerate(edges(nodes)) if ends in skips]
        weakest = min(rows, key=lambda row: float(weights[row, column]))
        weights = weights.clone()
        weights[weakest, column] = -torch.inf


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


class Choose(Protocol):
    """Makes one decision of a genotype."""

    def __call__(self, decision: str, count: int, taken: int | None = None) -> int:
        """An index below ``count``, but not ``taken``.

        Parameters
        ----------
        decision : name that the decision has in every genotype that needs it.
        """
        ...


def compose_genotype(
    spec: NetworkSpec, choose: Choose, macro: Mapping[str, Any] | None = None
) -> Genotype:
    """Decide a genotype: macro choices, then the cells of the network that has them.

    Each node has two different sources, and any operation but ``none`` on its edges. Macro choices
    that are given are not decided; ``{}`` keeps the network as it is.
    """

    def cell(name: str, nodes: int, operations: Sequence[str]) -> CellGenotype:
        allowed = [operation for operation in operations if operation != NONE]
        made = []
        for node in range(nodes):
            kept: list[Edge] = []
            for edge in range(EDGES_PER_NODE):
                place = f"{name}.{node}.{edge}"
                taken = kept[0].source if kept else None
                source = choose(f"{place}.source", node + 2, taken)
                operation = allowed[choose(f"{place}.operation", len(allowed))]
                kept.append(Edge(operation, source))
            made.append(tuple(sorted(kept, key=lambda edge: edge.source)))
        return tuple(made)

    if macro is None:
        macro = {
            key: choices[choose(f"macro.{key}", len(choices))]
            for key, choices in spec.macro.items()
        }
    spec = spec.with_choices(macro)
    cells: dict[str, Any] = {
        name: cell(name, nodes, spec.operations[name]) for name, nodes in spec.nodes.items()
    }
    return Genotype(**cells, macro=macro)


def random_choice(generator: torch.Generator) -> Choose:
    """Decisions drawn uniformly."""

    def choose(decision: str, count: int, taken: int | None = None) -> int:
        drawn = int(torch.randint(count - (taken is not None), (), generator=generator))
        return drawn + (taken is not None and drawn >= taken)

    return choose


def random_genotype(
    spec: NetworkSpec, generator: torch.Generator, macro: Mapping[str, Any] | None = None
) -> Genotype:
    """As :func:`compose_genotype`, with decisions drawn uniformly."""
    return compose_genotype(spec, random_choice(generator), macro)
