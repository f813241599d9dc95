"""Derivation of a genotype from alphas, and random genotypes."""

from collections import Counter

import torch

from emodarts.recipe import CNNSpec, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.searching.derive import derive_cell, derive_genotype, random_genotype
from emodarts.searching.supernet import alpha_shapes
from emodarts.space.genotype import CNN_OPERATIONS, Edge

OPERATIONS = ("a", "b", "none")


def test_strongest_operation_of_the_two_strongest_edges() -> None:
    alpha = torch.zeros(5, 3)
    alpha[0, 0] = 1.0  # node 0 has only two edges: both stay
    alpha[1, 1] = 0.1
    alpha[2, 1] = 2.0
    alpha[3, 0] = 3.0
    alpha[4, 0] = 1.0
    assert derive_cell(alpha, 2, OPERATIONS) == (
        (Edge("a", 0), Edge("b", 1)),
        (Edge("b", 0), Edge("a", 1)),
    )


def test_none_is_never_chosen_but_its_weight_counts() -> None:
    """Edges rank by softmax weight, not by raw alpha: a large ``none`` weakens its edge."""
    alpha = torch.zeros(5, 3)
    alpha[2] = torch.tensor([3.0, 0.0, 9.0])  # highest raw alpha of an operation, drowned by none
    alpha[3] = torch.tensor([0.0, 1.0, 0.0])
    alpha[4] = torch.tensor([0.5, 0.0, 0.0])
    _, second = derive_cell(alpha, 2, OPERATIONS)
    assert second == (Edge("b", 1), Edge("a", 2))


def test_ties_go_to_the_earlier_source_and_candidate() -> None:
    assert derive_cell(torch.zeros(5, 3), 2, OPERATIONS) == (
        (Edge("a", 0), Edge("a", 1)),
        (Edge("a", 0), Edge("a", 1)),
    )


def test_shapes_of_alphas() -> None:
    spec = NetworkSpec(cnn=CNNSpec(nodes=4), seqnn=SearchedSeqNN(space="lstm", nodes=3))
    assert alpha_shapes(spec) == {"normal": (14, 8), "reduction": (14, 8), "sequence": (9, 6)}
    without = NetworkSpec(seqnn=NoSeqNN(mode="none"))
    assert set(alpha_shapes(without)) == {"normal", "reduction"}


def test_every_searched_cell_is_derived() -> None:
    spec = NetworkSpec(cnn=CNNSpec(nodes=2), seqnn=SearchedSeqNN(space="rnn_att", nodes=3))
    torch.manual_seed(0)
    alphas = {name: torch.randn(shape) for name, shape in alpha_shapes(spec).items()}
    genotype = derive_genotype(alphas, spec)
    assert genotype.sequence is not None
    assert [len(cell) for cell in genotype.cells.values()] == [2, 2, 3]
    assert genotype.normal == derive_cell(alphas["normal"], spec.cnn.nodes, CNN_OPERATIONS)
    assert genotype.reduction == derive_cell(alphas["reduction"], spec.cnn.nodes, CNN_OPERATIONS)
    assert {e.operation for node in genotype.sequence for e in node} <= {
        "rnn_att_1",
        "rnn_att_2",
        "skip_connect",
    }


def test_random_genotypes_are_uniform_over_operations_and_sources() -> None:
    spec = NetworkSpec(cnn=CNNSpec(nodes=2), seqnn=NoSeqNN(mode="none"))
    generator = torch.Generator().manual_seed(0)
    drawn = [random_genotype(spec, generator) for _ in range(1500)]
    operations = Counter(e.operation for g in drawn for node in g.normal for e in node)
    assert set(operations) == set(CNN_OPERATIONS) - {"none"}
    assert all(abs(n / (1500 * 4) - 1 / 7) < 0.02 for n in operations.values())
    sources = Counter(e.source for g in drawn for e in g.normal[1])
    assert all(abs(n / 1500 - 2 / 3) < 0.05 for n in sources.values())
