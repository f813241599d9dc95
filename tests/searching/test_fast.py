"""Fast cells against the plain one, in float64: loss, every gradient, running statistics."""

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from emodarts.searching.loop import SearchData
from torch import Tensor
from torch.nn import functional

from emodarts.errors import RecipeError
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, NetworkSpec, NoSeqNN, SearchedSeqNN, SearchSpec
from emodarts.runtime import Fast
from emodarts.searching import loop
from emodarts.searching.fast import FastCell
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.grouped import GroupedCell
from emodarts.searching.supernet import Supernet
from emodarts.space.cell import Cell
from emodarts.space.compiled import CompiledCell
from emodarts.space.normalise import OnceDifferentiableCell, plain_cells
from emodarts.training.batches import Part

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from search_step import Counted

#: How a fast cell is computed, and its class. Grouped ones are eager ones that are not on a CPU.
KINDS: dict[str | bool, type[Cell]] = {
    "eager": FastCell,
    "compiled": CompiledCell,
    "grouped": GroupedCell,
}
#: Channels that fill the lanes in groups of edges (1, 3, 8) and alone (16); even and odd sizes.
CASES = [
    (4, 4, 8, (16, 11)),
    (3, 2, 3, (9, 13)),
    (4, 1, 1, (9, 13)),
    (2, 3, 16, (8, 8)),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "compiled":
        pytest.importorskip("numba")
    found: str = request.param
    return found


def grouped_on_a_cpu(supernet: Supernet) -> None:
    for cell in supernet.network.cnn_cells:
        cell.__class__ = GroupedCell


def cnn_cells(supernet: Supernet) -> set[type[torch.nn.Module]]:
    return {type(cell) for cell in supernet.network.cnn_cells}


def pair(
    case: tuple[int, int, int, tuple[int, int]], kind: str
) -> tuple[Supernet, Supernet, Tensor]:
    """A fast and a plain supernet of the same weights, and features."""
    cells, nodes, channels, size = case
    spec = NetworkSpec(
        cnn=CNNSpec(cells=cells, nodes=nodes, channels=channels),
        seqnn=SearchedSeqNN(space="rnn", cells=1, nodes=1, width=3),
    )
    torch.manual_seed(0)
    ways: tuple[Fast, Fast] = "compiled" if kind == "compiled" else "eager", False
    nets = [Supernet(spec, size[0], 3, 0.5, fast=fast).double().train() for fast in ways]
    nets[1].load_state_dict(nets[0].state_dict())
    if kind == "grouped":
        grouped_on_a_cpu(nets[0])
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
    case: tuple[int, int, int, tuple[int, int]], kind: str
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


def test_gradients_in_evaluation_are_those_of_running_statistics(kind: str) -> None:
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


def test_the_gradient_of_alphas_alone_is_the_same_and_leaves_weights_trainable(kind: str) -> None:
    fast, plain, x = pair(CASES[0], kind)
    found = []
    for supernet in (fast, plain):
        torch.manual_seed(1)
        found.append(first_order_gradient(supernet, (x, TARGETS), functional.cross_entropy))
        assert all(w.requires_grad for w in supernet.parameters())
    for name, reference in found[1].items():
        assert (found[0][name] - reference).norm() < 1e-8 * reference.norm()


def test_plain_cells_compute_edge_by_edge_and_come_back(kind: str) -> None:
    fast, plain, x = pair(CASES[1], kind)
    cells = [m for m in fast.modules() if isinstance(m, OnceDifferentiableCell)]
    assert {type(cell) for cell in cells} > {KINDS[kind]}
    with plain_cells(fast):
        assert all(cell.plain for cell in cells)
        loss, _ = loss_and_gradients(fast, x)
    assert torch.equal(loss, loss_and_gradients(plain, x)[0])
    assert not any(cell.plain for cell in cells)


def test_constant_maps_are_normalised_as_batch_norm_does(kind: str) -> None:
    """Padding of short utterances makes them: a variance of nothing must not become negative."""
    fast, plain, x = pair(CASES[0], kind)
    fast, plain = fast.float(), plain.float()
    x = torch.zeros_like(x).float()
    for supernet in (fast, plain):
        supernet.network.dropout.p = 0.0
    first, second = fast(x), plain(x)
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_a_diverged_map_shows_in_the_logits(kind: str) -> None:
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


@pytest.mark.parametrize("kind", ["eager", "compiled"], indirect=True)
def test_a_second_derivative_is_refused_and_not_wrong(kind: str) -> None:
    fast, _, x = pair(CASES[1], kind)
    loss = functional.cross_entropy(fast(x), TARGETS)
    with pytest.raises(RuntimeError, match="plain_cells"):
        torch.autograd.grad(loss, list(fast.weight_parameters().values()), create_graph=True)


@pytest.mark.parametrize("kind", ["grouped"], indirect=True)
def test_a_second_derivative_of_grouped_cells_is_that_of_plain_ones(kind: str) -> None:
    """They are in no need of their own backward passes; SeqNN cells are."""
    ends = []
    for supernet, x in zip(pair(CASES[1], kind)[:2], 2 * [pair(CASES[1], kind)[2]], strict=True):
        alpha = supernet.alphas["normal"]
        weights = list(supernet.network.cnn_cells.parameters())
        torch.manual_seed(1)
        loss = supernet.network.cnn_maps(x, supernet.edge_weights())[-1].square().mean()
        first = torch.autograd.grad(loss, weights, create_graph=True)
        ends.append(torch.autograd.grad(sum(g.square().sum() for g in first), alpha)[0])
    assert ends[1].norm() > 0
    assert (ends[0] - ends[1]).norm() < 1e-8 * ends[1].norm()


def calls_of(run: Callable[[], object]) -> int:
    """How many calls torch makes that are no views."""
    with Counted() as counted:
        run()
    return counted.calls


@pytest.mark.parametrize("kind", ["grouped"], indirect=True)
def test_grouped_cells_make_less_than_half_of_the_calls_of_plain_ones(kind: str) -> None:
    """A GPU waits for calls: these cells were once three times as many, unseen on a CPU."""
    grouped, plain, x = pair((3, 4, 2, (8, 8)), kind)
    calls = [
        calls_of(lambda s=s: loss_and_gradients(s, x))  # type: ignore[misc]
        for s in (grouped, plain)
    ]
    assert 2 * calls[0] < calls[1]


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


@pytest.mark.parametrize("kind", ["grouped"], indirect=True)
def test_grouped_cells_under_autocast_have_maps_of_bfloat16_and_statistics_of_float32(
    kind: str,
) -> None:
    grouped, plain, x = pair(CASES[0], kind)
    grouped, plain, x = grouped.float(), plain.float(), x.float()
    grouped.precision = "bf16"
    seen: set[torch.dtype] = set()
    for cell in grouped.network.cnn_cells:
        cell.register_forward_hook(lambda module, arguments, out: seen.add(out.dtype))
    loss, gradients = loss_and_gradients(grouped, x)
    expected, references = loss_and_gradients(plain, x)
    assert seen == {torch.bfloat16}
    assert abs(loss - expected) < 0.05 * expected
    alphas = [name for name in references if name.startswith("alphas")]
    own, other = (torch.cat([g[n].flatten() for n in alphas]) for g in (gradients, references))
    assert functional.cosine_similarity(own, other, dim=0) > 0.9
    for name, value in plain.state_dict().items():
        found = grouped.state_dict()[name]
        assert found.dtype == value.dtype
        if "running" in name:
            torch.testing.assert_close(found, value, rtol=0.1, atol=0.02, msg=name)
