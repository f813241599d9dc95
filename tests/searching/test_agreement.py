"""Agreement of genotypes, and whether it can be told from that of random ones."""

import pytest
import torch

from emodarts.genotype import Edge, Genotype
from emodarts.recipe import CNNSpec, NetworkSpec, NoSeqNN, load_recipe
from emodarts.searching.agreement import agreement, equal_edges, pairwise
from emodarts.searching.derivation import random_genotype

SPEC = NetworkSpec(cnn=CNNSpec(cells=3, nodes=2), seqnn=NoSeqNN(mode="none"))


def cell(*operations: str) -> Genotype:
    return Genotype(reduction=(tuple(Edge(o, source) for source, o in enumerate(operations)),))


def test_the_share_of_equal_edges_is_the_mean_over_pairs() -> None:
    a, b, c = cell("x", "y"), cell("x", "z"), cell("y", "x")
    assert equal_edges([a, a]) == 1
    assert equal_edges([a, b]) == 0.5
    assert equal_edges([a, c]) == 0  # the same operations, of other states
    assert equal_edges([a, b, c]) == pytest.approx(0.5 / 3)
    assert pairwise([a, b, c]) == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]


def test_random_genotypes_agree_as_random_ones_do() -> None:
    generator = torch.Generator().manual_seed(7)
    verdicts = [
        agreement([random_genotype(SPEC, generator) for _ in range(4)], SPEC) for _ in range(20)
    ]
    assert sum(found.is_random for found in verdicts) >= 17
    # Node 0 reads both inputs, node 1 two of three states: 1 and 2 / 3, and one of 7 operations.
    assert verdicts[0].expected == pytest.approx((1 + 2 / 3) / 2 / 7, abs=0.02)


def test_genotypes_that_agree_are_no_random_choice() -> None:
    generator = torch.Generator().manual_seed(7)
    found = agreement([random_genotype(SPEC, generator)] * 2, SPEC)
    assert (found.found, found.is_random) == (1, False)


def test_cells_are_compared_in_networks_of_the_same_macro_choices() -> None:
    """Random genotypes of the whole space often have no cell, or others."""
    spec = load_recipe("halving").network
    generator = torch.Generator().manual_seed(0)
    drawn = (random_genotype(spec, generator) for _ in range(100))
    with_cells = [genotype for genotype in drawn if genotype.cells]
    for count in (2, 3, 5):
        found = agreement(with_cells[:count], spec)
        assert 0 <= found.expected < 0.5
        assert found.p > 0.05
