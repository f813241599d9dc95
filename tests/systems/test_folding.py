"""The folded network answers as the network does, without what only training needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emodarts.genotype import NONE, Edge, Genotype
from emodarts.recipe import SPACES, CNNSpec, FixedSeqNN, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.recipe.network import StemSpec
from emodarts.space.cell import DropPath
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.folding import fold

CNN_OPERATIONS = tuple(SPACES["all"].cnn)

OPERATIONS = [name for name in CNN_OPERATIONS if name != NONE]
#: Every candidate in both cells, at every stride.
CELL = tuple((Edge(OPERATIONS[k], 0), Edge(OPERATIONS[k - 1], 1)) for k in range(len(OPERATIONS)))
SEQUENCE = ((Edge("lstm_att_2", 0), Edge("rnn_1", 1)),)


def build(channels: int, *, searched: bool) -> DiscreteNetwork:
    """A network whose batch norms are far from the identity, auxiliary head included."""
    torch.manual_seed(0)
    seqnn = SearchedSeqNN(cells=1, nodes=1, width=6) if searched else FixedSeqNN(mode="fixed")
    genotype = Genotype(CELL, CELL, SEQUENCE if searched else None)
    spec = NetworkSpec(cnn=CNNSpec(cells=4, nodes=len(CELL), channels=channels), seqnn=seqnn)
    network = DiscreteNetwork(genotype, spec, 11, 4, auxiliary_weight=0.4)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.3, 3)
            nn.init.normal_(norm.weight, 1, 0.5)
            nn.init.normal_(norm.bias)
    network.drop_path = 1.0
    network.begin_epoch(0.5)
    return network.train()


@pytest.mark.parametrize(("channels", "searched"), [(3, True), (1, False), (16, False)])
@pytest.mark.parametrize(("n", "n_frames"), [(1, 13), (5, 16)])
def test_logits_are_those_of_eval_mode(
    channels: int, searched: bool, n: int, n_frames: int
) -> None:
    network = build(channels, searched=searched)
    folded = fold(network)
    assert network.training
    assert not folded.training
    network.eval()
    features = torch.randn(n, 1, 11, n_frames)
    with torch.inference_mode():
        expected = network(features)
        torch.testing.assert_close(folded(features), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(network(features), expected)  # the original is as it was
        double = fold(network.double())(features.double())
        torch.testing.assert_close(double, network(features.double()), rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 0.01


def test_a_stem_of_blocks_folds_into_its_convolutions() -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(
        stem=StemSpec(channels=(3, 5), frequency_strides=(2, 1), time_strides=(1, 2)),
        cnn=CNNSpec(cells=0),
        seqnn=NoSeqNN(mode="none"),
    )
    network = DiscreteNetwork(Genotype(), spec, 11, 4).double()
    features = torch.randn(5, 1, 11, 13, dtype=torch.float64)
    for _ in range(20):
        network.train()(features)
    folded = fold(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    expected = network.eval()(features)
    torch.testing.assert_close(folded(features), expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_left_that_only_training_needs() -> None:
    folded = fold(build(3, searched=True))
    modules = list(folded.modules())
    assert folded.auxiliary is None
    assert not any(isinstance(m, DropPath) for m in modules)
    assert not any(p.requires_grad for p in folded.parameters())
    # Pools have no convolution to take theirs; each cell has four: two pools, read twice each.
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in modules)
    assert norms == 4 * len(folded.cnn_cells)
