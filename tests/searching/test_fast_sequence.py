"""The fast SeqNN cell against the plain one, in float64, with one thread and with two."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.genotype import SEQUENCE_SPACES, SequenceSpace
from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.runtime import Fast
from emodarts.searching.fast_sequence import FastSequenceCell
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.supernet import Supernet
from emodarts.space import threads as threads_of_space
from emodarts.space.normalise import plain_cells
from emodarts.space.sequence_ops import Recurrent


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=["eager", "compiled"])
def fast(request: pytest.FixtureRequest) -> Fast:
    if request.param == "compiled":
        pytest.importorskip("numba")
    found: Fast = request.param
    return found


def fast_supernet(space: SequenceSpace, fast: Fast, nodes: int = 3, width: int = 4) -> Supernet:
    spec = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=2),
        seqnn=SearchedSeqNN(space=space, cells=2, nodes=nodes, width=width),
    )
    torch.manual_seed(0)
    return Supernet(spec, 8, 3, 0.5, fast=fast).double().train()


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
    ("space", "time", "width"),
    [*((space, time, 4) for space in SEQUENCE_SPACES for time in (1, 7)), ("all", 7, 37)],
)
def test_outputs_and_gradients_are_those_of_the_plain_cell(
    space: SequenceSpace, time: int, width: int, threads: int, fast: Fast
) -> None:
    supernet = fast_supernet(space, fast, width=width)
    cell, inputs = cell_and_inputs(supernet, time)
    for x in inputs:
        x.requires_grad_()
    wanted = [supernet.alphas["sequence"], *cell.parameters(), *inputs]

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return [out, *torch.autograd.grad(out.sin().sum(), wanted)]

    own = found()
    assert torch.get_num_threads() == threads
    with plain_cells(supernet):
        assert_same(own, found())


@pytest.mark.usefixtures("threads")
def test_gradients_of_alphas_alone_are_those_of_the_plain_cell(fast: Fast) -> None:
    """With weights that are constant; the first states do not depend on alphas."""
    supernet = fast_supernet("all", fast)
    cell, inputs = cell_and_inputs(supernet)
    for parameter in cell.parameters():
        parameter.requires_grad_(False)

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return [out, *torch.autograd.grad(out.sin().sum(), [supernet.alphas["sequence"]])]

    own = found()
    with plain_cells(supernet):
        assert_same(own, found())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("constant", ["weight_ih_l0", "weight_hh_l0", "weight", "bias"])
def test_gradients_of_some_parameters_are_those_of_the_plain_cell(
    constant: str, fast: Fast
) -> None:
    supernet = fast_supernet("all", fast, nodes=1)
    cell, inputs = cell_and_inputs(supernet)
    for name, parameter in cell.named_parameters():
        parameter.requires_grad_(not name.endswith(constant))
    wanted = [p for p in cell.parameters() if p.requires_grad]
    assert 0 < len(wanted) < len(list(cell.parameters()))

    def found() -> list[Tensor]:
        out = cell(*inputs, supernet.edge_weights()["sequence"])
        return list(torch.autograd.grad(out.sin().sum(), wanted))

    own = found()
    with plain_cells(supernet):
        assert_same(own, found())


@pytest.mark.usefixtures("threads")
def test_the_first_order_gradient_of_a_search_is_that_of_plain_cells(fast: Fast) -> None:
    supernet = fast_supernet("all", fast)
    batch = torch.randn(4, 1, 8, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def found() -> Tensor:
        torch.manual_seed(1)  # of dropout
        gradients = first_order_gradient(supernet, batch, functional.cross_entropy)
        assert all(p.requires_grad for p in supernet.parameters())
        return gradients["sequence"]

    own = found()
    with plain_cells(supernet):
        expected = found()
    assert (own - expected).norm() < 1e-8 * expected.norm()


def test_torch_has_as_many_threads_after_a_cell_as_before(
    threads: int, fast: Fast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_of_space, "_executors", {})  # new threads set what they may use
    supernet = fast_supernet("lstm", fast)
    cell, inputs = cell_and_inputs(supernet)
    out = cell(*inputs, supernet.edge_weights()["sequence"])
    assert thread_counts() == {threads}
    out.sum().backward()
    assert thread_counts() == {threads}
    with torch.no_grad():
        cell(*inputs, supernet.edge_weights()["sequence"])
    assert thread_counts() == {threads}


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_second_derivative_is_refused_and_not_wrong(threads: int, fast: Fast) -> None:
    supernet = fast_supernet("all", fast)
    cell, inputs = cell_and_inputs(supernet)
    loss = cell(*inputs, supernet.edge_weights()["sequence"]).sin().sum()
    with pytest.raises(RuntimeError, match="plain_cells"):
        torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)


@pytest.mark.usefixtures("threads")
def test_no_graph_is_made_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold what every candidate keeps for its backward pass."""
    supernet = fast_supernet("all", "eager")
    cell, inputs = cell_and_inputs(supernet)
    original = Recurrent.forward
    graphs: list[Any] = []

    def spy(module: Recurrent, x: Tensor) -> Tensor:
        out = original(module, x)
        graphs.append(out.grad_fn)
        return out

    monkeypatch.setattr(Recurrent, "forward", spy)
    with torch.no_grad():
        out = cell(*inputs, supernet.edge_weights()["sequence"])
    assert out.grad_fn is None
    assert graphs
    assert not any(graphs)


@pytest.mark.parametrize("space", SEQUENCE_SPACES)
def test_no_recurrent_module_of_torch_runs_in_a_compiled_cell(
    space: SequenceSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    supernet = fast_supernet(space, "compiled")
    cell, inputs = cell_and_inputs(supernet)
    for module in (torch.nn.RNN, torch.nn.LSTM):
        monkeypatch.setattr(module, "forward", None)
    cell(*inputs, supernet.edge_weights()["sequence"]).sum().backward()
