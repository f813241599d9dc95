"""The yardstick is the supernet of DARTS with the project's weights, and nothing slower."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.searching.supernet import Supernet

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from yardstick import Yardstick


@pytest.mark.parametrize("space", ["all", "lstm_att"])
def test_it_computes_what_the_supernet_computes(space: str) -> None:
    spec = NetworkSpec(
        cnn=CNNSpec(cells=4, nodes=2, channels=2),
        seqnn=SearchedSeqNN(space=space, cells=2, nodes=1, width=3, normalise=False),
        dropout=0.0,
    )
    torch.manual_seed(0)
    ours = Supernet(spec, 16, 3, 0.5).double().train()
    plain = Yardstick(spec, 16, 3).double().train()
    plain.load_state_dict(ours.state_dict())
    x, y = torch.randn(3, 1, 16, 12, dtype=torch.float64), torch.tensor([0, 1, 2])
    found = []
    for net in (ours, plain):
        loss = functional.cross_entropy(net(x), y)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        found.append((loss, torch.cat([g.flatten() for g in gradients])))
    assert abs(found[0][0] - found[1][0]) < 1e-12
    assert (found[0][1] - found[1][1]).norm() < 1e-10 * found[1][1].norm()
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in ours.named_parameters()]


def cnn_weights(cells: int, nodes: int, c0: int) -> int:
    """Of the candidates, stem and inputs, by the formulas of DARTS."""
    total, c = 3 * c0 * 9 + 2 * 3 * c0, c0
    widths = [3 * c0, 3 * c0]
    edges = nodes * (nodes + 3) // 2
    for k in range(cells):
        reduces = k in (cells // 3, 2 * cells // 3)
        c *= 1 + reduces
        separable = 2 * (9 * c + c * c) + 2 * (25 * c + c * c)
        dilated = (9 * c + c * c) + (25 * c + c * c)
        reduced_skips = 2 * nodes * c * c if reduces else 0  # two halves of c x c / 2
        total += edges * (separable + dilated) + reduced_skips + c * sum(widths)
        widths = [widths[1], nodes * c]
    return total


def test_published_size() -> None:
    """The CNN and each ``nn.LSTM`` of the published size, 4 x 4 cells, C0 = 8, H = 128.

    The published supernet holds 79 M weights in ``lstm_att`` and 211 M in ``all``, ours 61 M and
    174 M: its attention and inputs of SeqNN cells differ by design, and only the CNN and the
    recurrent layers can be held to it.
    """
    with torch.device("meta"):
        net = Yardstick(NetworkSpec(seqnn=SearchedSeqNN(space="lstm_att")), 128, 4).network
        everything = Yardstick(NetworkSpec(seqnn=SearchedSeqNN(space="all")), 128, 4).network
    count = sum(p.numel() for m in (net.stem, net.cnn_cells) for p in m.parameters())
    assert count == cnn_weights(4, 4, 8)
    h = 128
    one = 2 * (4 * h * (h + h) + 8 * h)
    two = one + 2 * (4 * h * (2 * h + h) + 8 * h)
    attention = 2 * h + 1 + 4 * h * h + h
    edge = net.sequence_cells[0].edges[0]
    assert sum(p.numel() for p in edge.parameters()) == one + two + 2 * attention
    assert 14 * 4 * (one + two + 2 * attention) == 59_107_440
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == 61
    assert round(sum(p.numel() for p in everything.parameters()) / 1e6) == 174
    recurrent = [m for m in everything.sequence_cells.modules() if isinstance(m, nn.RNNBase)]
    assert len(recurrent) == 4 * 14 * 12
    assert sum(m.num_layers * (1 + m.bidirectional) for m in recurrent) == 4 * 14 * (20 + 12)


def test_nothing_slows_it() -> None:
    """Maps stay contiguous and one module runs for each candidate."""
    with torch.device("meta"):
        net = Yardstick(NetworkSpec(seqnn=SearchedSeqNN(space="lstm_att")), 128, 4)
        maps = net.network.cnn_maps(torch.empty(2, 1, 128, 128), net.edge_weights())
    assert all(m.is_contiguous() for m in maps)
    shapes = [(128, 128, 32), (64, 64, 64), (32, 32, 128), (32, 32, 128)]
    assert [(m.shape[2], m.shape[3], m.shape[1]) for m in maps[2:]] == shapes
    convolutions = [m for m in net.network.cnn_cells[0].edges.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 14 * (4 + 4 + 2 + 2)
    assert torch.backends.mkldnn.enabled
