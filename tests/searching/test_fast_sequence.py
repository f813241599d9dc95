"""The fast SeqNN cell against the plain one, in float64, with one thread and with two."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.searching import fast_sequence
from emodarts.searching.fast_sequence import FastSequenceCell
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.supernet import Supernet
from emodarts.space.genotype import SEQUENCE_SPACES, SequenceSpace
from emodarts.space.normalise import plain_cells


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def make_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large cells are computed again in the backward pass: let small ones be, too."""
    monkeypatch.setattr(fast_sequence, "_KEPT", 0)


@pytest.fixture(params=[False, True], ids=["kept", "again"])
def again(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        make_again(monkeypatch)


def fast_supernet(space: SequenceSpace, nodes: int = 3) -> Supernet:
    spec = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=2),
        seqnn=SearchedSeqNN(space=space, cells=2, nodes=nodes, width=4),
    )
    torch.manual_seed(0)
    return Supernet(spec, 8, 3, 0.5).double().train()


def cell_and_inputs(supernet: Supernet, time: int = 7) -> tuple[FastSequenceCell, list[Tensor]]:
    cell = supernet.network.sequence_cells[0]
    assert isinstance(cell, FastSequenceCell)
    sizes = [m.in_features for m in cell.inputs]
    return cell, [torch.randn(5, time, size, dtype=torch.float64) for size in sizes]


def thread_counts() -> set[int]:
    """Of torch, OpenMP and MKL, each of which has its own."""
    told = re.findall(r"get_(?:num|max)_threads\(\) : (\d+)", torch.__config__.parallel_info())
    assert told
    return {torch.get_num_threads(), *map(int, told)}


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("space", "time", "again"),
    [*((space, time, False) for space in SEQUENCE_SPACES for time in (1, 7)), ("all", 7, True)],
)
def test_outputs_and_gradients_are_those_of_the_plain_cell(
    space: SequenceSpace, time: int, again: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if again:
        make_again(monkeypatch)
    supernet = fast_supernet(space)
    cell, inputs = cell_and_inputs(supernet, time)
    for x in inputs:
        x.requires_grad_()
    wanted = [supernet.alphas["sequence"], *cell.parameters(), *inputs]

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return [out, *torch.autograd.grad(out.sin().sum(), wanted)]

    fast = found()
    assert torch.get_num_threads() == threads
    with plain_cells(supernet):
        assert_same(fast, found())


@pytest.mark.usefixtures("again", "threads")
def test_gradients_of_alphas_alone_are_those_of_the_plain_cell() -> None:
    """With weights that are constant; the first states do not depend on alphas."""
    supernet = fast_supernet("all")
    cell, inputs = cell_and_inputs(supernet)
    for parameter in cell.parameters():
        parameter.requires_grad_(False)

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return [out, *torch.autograd.grad(out.sin().sum(), [supernet.alphas["sequence"]])]

    fast = found()
    with plain_cells(supernet):
        assert_same(fast, found())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("constant", ["weight_ih_l0", "weight_hh_l0", "weight", "bias"])
def test_gradients_of_some_parameters_are_those_of_the_plain_cell(constant: str) -> None:
    supernet = fast_supernet("all", nodes=1)
    cell, inputs = cell_and_inputs(supernet)
    for name, parameter in cell.named_parameters():
        parameter.requires_grad_(not name.endswith(constant))
    wanted = [p for p in cell.parameters() if p.requires_grad]
    assert 0 < len(wanted) < len(list(cell.parameters()))

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return list(torch.autograd.grad(out.sin().sum(), wanted))

    fast = found()
    with plain_cells(supernet):
        assert_same(fast, found())


@pytest.mark.usefixtures("again", "threads")
def test_the_first_order_gradient_of_a_search_is_that_of_plain_cells() -> None:
    supernet = fast_supernet("all")
    batch = torch.randn(4, 1, 8, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def found() -> Tensor:
        torch.manual_seed(1)  # of dropout
        gradients = first_order_gradient(supernet, batch, functional.cross_entropy)
        assert all(p.requires_grad for p in supernet.parameters())
        return gradients["sequence"]

    fast = found()
    with plain_cells(supernet):
        expected = found()
    assert (fast - expected).norm() < 1e-8 * expected.norm()


def test_torch_has_as_many_threads_after_a_cell_as_before(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_sequence, "_executors", {})  # new threads set what they may use
    supernet = fast_supernet("lstm")
    cell, inputs = cell_and_inputs(supernet)
    out = cell(*inputs, supernet.edge_weights()["sequence"])
    assert thread_counts() == {threads}
    out.sum().backward()
    assert thread_counts() == {threads}
    with torch.no_grad():
        cell(*inputs, supernet.edge_weights()["sequence"])
    assert thread_counts() == {threads}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("space", ["rnn", "all"])
def test_a_second_derivative_is_refused_and_not_wrong(space: SequenceSpace) -> None:
    supernet = fast_supernet(space)
    cell, inputs = cell_and_inputs(supernet)
    loss = cell(*inputs, supernet.edge_weights()["sequence"]).sin().sum()
    with pytest.raises(RuntimeError, match="plain_cells"):
        torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)


@pytest.mark.usefixtures("again", "threads")
def test_no_graph_is_made_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold what every candidate keeps for its backward pass."""
    original = fast_sequence._Task.__call__
    graphs: list[Any] = []

    def spy(task: Any, x: Tensor) -> list[Tensor]:
        outputs = original(task, x)
        graphs.extend(out.grad_fn for out in outputs)
        return outputs

    monkeypatch.setattr(fast_sequence._Task, "__call__", spy)
    supernet = fast_supernet("all")
    cell, inputs = cell_and_inputs(supernet)
    with torch.no_grad():
        out = cell(*inputs, supernet.edge_weights()["sequence"])
    assert out.grad_fn is None
    assert graphs
    assert not any(graphs)


@pytest.mark.usefixtures("one_thread")
def test_rnns_of_all_edges_go_through_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``nn.RNN`` runs; each state takes one batched product a step and layer, in a thread."""
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
