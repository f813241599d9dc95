"""The fast SeqNN cell against the plain one, in float64."""

import pytest
import torch

from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.searching.fast import plain_cells
from emodarts.searching.fast_sequence import FastSequenceCell
from emodarts.searching.supernet import Supernet
from emodarts.space.genotype import SEQUENCE_SPACES, SequenceSpace


@pytest.mark.parametrize("space", SEQUENCE_SPACES)
@pytest.mark.parametrize("time", [1, 7])
def test_outputs_and_gradients_are_those_of_the_plain_cell(space: SequenceSpace, time: int) -> None:
    spec = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=2),
        seqnn=SearchedSeqNN(space=space, cells=2, nodes=3, width=4),
    )
    torch.manual_seed(0)
    supernet = Supernet(spec, 8, 3, 0.5).double().train()
    cells = supernet.network.sequence_cells
    assert isinstance(cells[0], FastSequenceCell)
    inputs = [torch.randn(5, time, m.in_features, dtype=torch.float64) for m in cells[0].inputs]
    wanted = [supernet.alphas["sequence"], *cells[0].parameters()]

    def found() -> list[torch.Tensor]:
        out = cells[0](*inputs, supernet.edge_weights()["sequence"])
        return [out, *torch.autograd.grad(out.sin().sum(), wanted)]

    fast = found()
    with plain_cells(supernet):
        plain = found()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_rnns_of_all_edges_go_through_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``nn.RNN`` runs; each state takes one batched product a step and layer."""
    spec = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=2),
        seqnn=SearchedSeqNN(space="rnn", cells=1, nodes=2, width=4),
    )
    cell = Supernet(spec, 8, 3).network.sequence_cells[0]
    monkeypatch.setattr(torch.nn.RNN, "forward", None)
    calls: list[int] = []
    original = torch.baddbmm

    def count(*a: torch.Tensor, **k: torch.Tensor) -> torch.Tensor:
        calls.append(len(a[0]))
        return original(*a, **k)

    monkeypatch.setattr(torch, "baddbmm", count)
    inputs = [torch.randn(3, 6, m.in_features) for m in cell.inputs]
    cell(*inputs, torch.ones(5, 6) / 6)
    # Two edges leave each input, one the first node; of 4 candidates, 4, 3, 2, 1 have the layer.
    assert calls == [n * e for e in (2, 2, 1) for n in (4, 3, 2, 1) for _ in range(5)]
