"""Fast cells against the plain one, in float64: loss, every gradient, running statistics."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.batches import Part
from emodarts.errors import RecipeError
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, NetworkSpec, NoSeqNN, SearchedSeqNN, SearchSpec
from emodarts.runtime import Fast
from emodarts.searching import loop
from emodarts.searching.fast import FastCell
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.loop import SearchData
from emodarts.searching.supernet import Supernet
from emodarts.space.cell import Cell
from emodarts.space.compiled import CompiledCell
from emodarts.space.normalise import OnceDifferentiableCell, plain_cells

#: How a fast cell is computed, and its class.
KINDS: dict[Fast, type[Cell]] = {"eager": FastCell, "compiled": CompiledCell}
#: Channels that fill the lanes in groups of edges (1, 3, 8) and alone (16); even and odd sizes.
CASES = [
    (4, 4, 8, (16, 11)),
    (3, 2, 3, (9, 13)),
    (4, 1, 1, (9, 13)),
    (2, 3, 16, (8, 8)),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Fast:
    if request.param == "compiled":
        pytest.importorskip("numba")
    found: Fast = request.param
    return found


def cnn_cells(supernet: Supernet) -> set[type[torch.nn.Module]]:
    return {type(cell) for cell in supernet.network.cnn_cells}


def pair(
    case: tuple[int, int, int, tuple[int, int]], kind: Fast
) -> tuple[Supernet, Supernet, Tensor]:
    """A fast and a plain supernet of the same weights, and features."""
    cells, nodes, channels, size = case
    spec = NetworkSpec(
        cnn=CNNSpec(cells=cells, nodes=nodes, channels=channels),
        seqnn=SearchedSeqNN(space="rnn", cells=1, nodes=1, width=3),
    )
    torch.manual_seed(0)
    nets = [Supernet(spec, size[0], 3, 0.5, fast=fast).double().train() for fast in (kind, False)]
    nets[1].load_state_dict(nets[0].state_dict())
    assert cnn_cells(nets[0]) == {KINDS[kind]}
    assert cnn_cells(nets[1]) == {Cell}
    return nets[0], nets[1], torch.randn(4, 1, *size, dtype=torch.float64)


TARGETS = torch.tensor([0, 1, 2, 0])


def loss_and_gradients(supernet: Supernet, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)  # of dropout
    loss = functional.cross_entropy(supernet(x), TARGETS)
    named = dict(supernet.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return loss.detach(), dict(zip(named, found, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_gradients_and_statistics_are_those_of_the_plain_cell(
    case: tuple[int, int, int, tuple[int, int]], kind: Fast
) -> None:
    fast, plain, x = pair(case, kind)
    loss, gradients = loss_and_gradients(fast, x)
    expected, references = loss_and_gradients(plain, x)
    assert abs(loss - expected) < 1e-12
    norm = torch.cat([g.flatten() for g in references.values()]).norm()
    for name, reference in references.items():
        assert (gradients[name] - reference).norm() < 1e-8 * max(reference.norm(), 1e-4 * norm), (
            name
        )
    state = fast.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(fast.eval()(x), plain.eval()(x), rtol=1e-10, atol=1e-12)


def test_gradients_in_evaluation_are_those_of_running_statistics(kind: Fast) -> None:
    fast, plain, x = pair(CASES[1], kind)
    for supernet in (fast, plain):
        torch.manual_seed(2)
        supernet(x)  # moves the statistics
        supernet.eval()
    _, gradients = loss_and_gradients(fast, x)
    _, references = loss_and_gradients(plain, x)
    norm = torch.cat([g.flatten() for g in references.values()]).norm()
    for name, reference in references.items():
        assert (gradients[name] - reference).norm() < 1e-10 * norm, name


def test_the_gradient_of_alphas_alone_is_the_same_and_leaves_weights_trainable(kind: Fast) -> None:
    fast, plain, x = pair(CASES[0], kind)
    found = []
    for supernet in (fast, plain):
        torch.manual_seed(1)
        found.append(first_order_gradient(supernet, (x, TARGETS), functional.cross_entropy))
        assert all(w.requires_grad for w in supernet.parameters())
    for name, reference in found[1].items():
        assert (found[0][name] - reference).norm() < 1e-8 * reference.norm()


def test_plain_cells_compute_edge_by_edge_and_come_back(kind: Fast) -> None:
    fast, plain, x = pair(CASES[1], kind)
    cells = [m for m in fast.modules() if isinstance(m, OnceDifferentiableCell)]
    assert {type(cell) for cell in cells} > {KINDS[kind]}
    with plain_cells(fast):
        assert all(cell.plain for cell in cells)
        loss, _ = loss_and_gradients(fast, x)
    assert torch.equal(loss, loss_and_gradients(plain, x)[0])
    assert not any(cell.plain for cell in cells)


def test_constant_maps_are_normalised_as_batch_norm_does(kind: Fast) -> None:
    """Padding of short utterances makes them: a variance of nothing must not become negative."""
    fast, plain, x = pair(CASES[0], kind)
    fast, plain = fast.float(), plain.float()
    x = torch.zeros_like(x).float()
    for supernet in (fast, plain):
        supernet.network.dropout.p = 0.0
    first, second = fast(x), plain(x)
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_a_diverged_map_shows_in_the_logits(kind: Fast) -> None:
    fast, _, x = pair(CASES[1], kind)
    x[0, 0, 3, 4] = torch.nan
    assert fast(x).isnan().all()


@pytest.mark.parametrize("order", [1, 2])
def test_a_search_ends_with_the_same_alphas(
    tmp_path: Path, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both kinds of fast cells, where they can be computed."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(16) % 2
    features = torch.randn(16, 1, 8, 10, generator=generator, dtype=torch.float64)
    data = SearchData(Part(features[:8], targets[:8]), Part(features[8:], targets[8:]), 2)
    network = NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=2, channels=2), seqnn=NoSeqNN(mode="none"), dropout=0.3
    )
    spec = SearchSpec(epochs=2, batch_size=4, order=order)  # four steps
    monkeypatch.setattr(loop, "Supernet", lambda *a, **k: Supernet(*a, **k).double())
    kinds = ["eager", "compiled"] if importlib.util.find_spec("numba") else ["eager"]
    ends = {}
    for fast in (False, *kinds):
        searcher = loop._Searcher(spec, network, data, 0, torch.device("cpu"), fast)
        assert cnn_cells(searcher.supernet) == {KINDS.get(fast, Cell)}
        start = copy.deepcopy(searcher.alphas)
        for _ in range(2):
            searcher.run_epoch(Silent())
        ends[fast] = searcher.alphas
        assert all((a - start[n]).norm() > 1e-4 for n, a in searcher.alphas.items() if a.numel())
    for kind in kinds:
        for name, alpha in ends[False].items():
            torch.testing.assert_close(ends[kind][name], alpha, rtol=0, atol=1e-8)


def test_a_second_derivative_is_refused_and_not_wrong(kind: Fast) -> None:
    fast, _, x = pair(CASES[1], kind)
    loss = functional.cross_entropy(fast(x), TARGETS)
    with pytest.raises(RuntimeError, match="plain_cells"):
        torch.autograd.grad(loss, list(fast.weight_parameters().values()), create_graph=True)


def test_fast_cells_are_compiled_where_numba_is_and_eager_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = NetworkSpec(cnn=CNNSpec(cells=2, nodes=1, channels=2), seqnn=NoSeqNN(mode="none"))
    there = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there)
    assert cnn_cells(Supernet(spec, 8, 3)) == {CompiledCell}
    assert cnn_cells(Supernet(spec, 8, 3, fast="eager")) == {FastCell}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cnn_cells(Supernet(spec, 8, 3, fast=True)) == {FastCell}
    with pytest.raises(RecipeError, match="numba"):
        Supernet(spec, 8, 3, fast="compiled")
