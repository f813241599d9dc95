"""Agreement between the genotypes of several searches, against that of random choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from emodarts.genotype import Genotype
from emodarts.recipe import NetworkSpec
from emodarts.searching.derivation import random_genotype

#: Sets of random genotypes that are drawn.
DRAWS = 199
#: p above which searches are indistinguishable from random choices.
LEVEL = 0.05


@dataclass(frozen=True)
class Agreement:
    """How much genotypes agree.

    Attributes
    ----------
    found : share of equal edges, as of :func:`equal_edges`.
    expected : its mean over as many random genotypes.
    p : probability that random genotypes agree as much or more.
    """

    found: float
    expected: float
    p: float

    @property
    def is_random(self) -> bool:
        """Whether the genotypes cannot be told from random ones at 5 %."""
        return self.p > LEVEL


def equal_edges(genotypes: Sequence[Genotype]) -> float:
    """Share of edges (cell, node, source, operation) that two genotypes have in common.

    The mean over all pairs; the genotypes have cells of the same sizes.
    """
    counts = Counter(
        (name, node, edge.source, edge.operation)
        for genotype in genotypes
        for name, cell in genotype.cells.items()
        for node, kept in enumerate(cell)
        for edge in kept
    )
    n = len(genotypes)
    return sum(c * (c - 1) for c in counts.values()) / (counts.total() * (n - 1))


def pairwise(genotypes: Sequence[Genotype]) -> list[list[float]]:
    """:func:`equal_edges` of each two genotypes [shape=(n, n)]; 1 on the diagonal."""
    return [[equal_edges((a, b)) for b in genotypes] for a in genotypes]


def agreement(genotypes: Sequence[Genotype], spec: NetworkSpec, seed: int = 0) -> Agreement:
    """Compare at least two genotypes, all of them with cells, with random ones.

    Each has the network of one of the genotypes, its macro choices included, as cells are compared
    and not the network around them. A Monte Carlo test: ``p = (1 + #{random sets that agree as
    much}) / (1 + DRAWS)``.
    """
    generator = torch.Generator().manual_seed(seed)
    found = equal_edges(genotypes)
    drawn = [
        equal_edges([random_genotype(spec, generator, each.macro) for each in genotypes])
        for _ in range(DRAWS)
    ]
    p = (1 + sum(value >= found - 1e-12 for value in drawn)) / (1 + DRAWS)
    return Agreement(found, sum(drawn) / DRAWS, p)
