"""bfloat16 maps: how far from float64 they lead, and what stays float32."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.batches import Part
from emodarts.errors import RecipeError
from emodarts.fast import Implementation
from emodarts.progress import Silent
from emodarts.recipe import (
    CNNSpec,
    NetworkSpec,
    SearchedSeqNN,
    SearchSpec,
    builtin_recipes,
    load_recipe,
)
from emodarts.runtime import Precision, autocast, require_precision
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.loop import SearchData, _Searcher, search_genotype
from emodarts.searching.supernet import Supernet

CPU = torch.device("cpu")
TARGETS = torch.arange(8) % 3
NETWORK = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=2, channels=4),
    seqnn=SearchedSeqNN(space="all", cells=1, nodes=1, width=6),
    dropout=0.0,
)


def supernet(implementation: Implementation = "torch", precision: Precision = "fp32") -> Supernet:
    torch.manual_seed(0)
    net = Supernet(NETWORK, 16, 3, 0.5, implementation=implementation, precision=precision)
    return net.train()


def features() -> Tensor:
    return torch.randn(8, 1, 16, 21, generator=torch.Generator().manual_seed(1))


def halves() -> SearchData:
    x = features()
    return SearchData(Part(x, TARGETS), Part(x.flip(0), TARGETS.flip(0)), 3)


def cosine(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    flat = [torch.cat([t.double().flatten() for t in tensors]) for tensors in (found, exact)]
    return float(functional.cosine_similarity(flat[0], flat[1], dim=0))


Tensors = Sequence[Tensor]


def computed(net: Supernet, x: Tensor) -> tuple[Tensor, Tensors, Tensors, Tensors]:
    """Loss, gradients of alphas and of weights, running statistics."""
    loss = functional.cross_entropy(net(x), TARGETS)
    alphas, weights = list(net.alpha_parameters().values()), list(net.weight_parameters().values())
    grads = torch.autograd.grad(loss, [*alphas, *weights], materialize_grads=True)
    statistics = [b for name, b in net.named_buffers() if "running" in name]
    return loss.detach(), grads[: len(alphas)], grads[len(alphas) :], statistics


@pytest.mark.parametrize("implementation", ["torch", "plain"])
def test_loss_gradients_and_statistics_are_near_those_of_float64(
    implementation: Implementation,
) -> None:
    """Loss to 2e-2, statistics to 2e-2, directions of gradients to a cosine of 0.95."""
    net, exact = supernet(implementation, "bf16"), supernet().double()
    loss, alphas, weights, statistics = computed(net, features())
    true = computed(exact, features().double())
    assert loss.item() == pytest.approx(true[0].item(), rel=2e-2)
    assert cosine(alphas, true[1]) > 0.95
    assert cosine(weights, true[2]) > 0.95
    for statistic, true_one in zip(statistics, true[3], strict=True):
        torch.testing.assert_close(statistic.double(), true_one, rtol=2e-2, atol=2e-3)
    wide = [loss, *alphas, *weights, *statistics, *net.parameters()]
    assert {t.dtype for t in wide} == {torch.float32}


def test_maps_are_bfloat16() -> None:
    net = supernet(precision="bf16")
    with autocast("bf16", CPU):
        maps = net.network.cnn_maps(features(), net.edge_weights())
    assert {m.dtype for m in maps} == {torch.bfloat16}


def test_float32_is_what_it_was() -> None:
    first = [p.detach() for p in (supernet()(features()), supernet(precision="fp32")(features()))]
    assert torch.equal(*first)
    assert first[0].dtype == torch.float32
    with autocast("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("fast", [True, False])
def test_a_search_keeps_everything_but_maps_in_float32(fast: bool) -> None:
    spec = SearchSpec(epochs=1, batch_size=4, order=1)
    searcher = _Searcher(spec, NETWORK, halves(), 0, CPU, fast, "bf16")
    start = {name: alpha.detach().clone() for name, alpha in searcher.alphas.items()}
    searcher.run_epoch(Silent())
    assert all(not torch.equal(alpha, start[name]) for name, alpha in searcher.alphas.items())
    kept = [t for o in (searcher.weight_optimiser, searcher.alpha_optimiser) for t in states(o)]
    floating = [t for t in searcher.supernet.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in (*kept, *floating)} == {torch.float32}
    validation = features(), TARGETS
    gradients = first_order_gradient(searcher.supernet, validation, functional.cross_entropy)
    assert {g.dtype for g in gradients.values()} == {torch.float32}


def states(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    values = [v for state in optimiser.state.values() for v in state.values()]
    return [v for v in values if isinstance(v, Tensor)]


def test_second_order_is_refused_and_a_random_genotype_is_not(tmp_path: Path) -> None:
    def search(spec: SearchSpec) -> None:
        search_genotype(
            spec,
            NETWORK,
            halves(),
            seed=0,
            folder=tmp_path,
            device=CPU,
            progress=Silent(),
            precision="bf16",
        )

    with pytest.raises(RecipeError, match=r"search\.order: 2 .* legal: search\.order 1"):
        search(SearchSpec(epochs=1, order=2))
    assert not list(tmp_path.iterdir())
    search(SearchSpec(strategy="random", order=2))


def test_a_device_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_precision("bf16", CPU)
    require_precision("fp32", torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for name in ("mps", "cuda"):
        with pytest.raises(RecipeError, match=f"no bf16 on this {name} device; legal here: fp32"):
            require_precision("bf16", torch.device(name))


def test_recipes_are_float32() -> None:
    assert all(load_recipe(name).compute.precision == "fp32" for name in builtin_recipes())
    with pytest.raises(RecipeError, match=r"compute\.precision: 'fp16'"):
        load_recipe("quick", ["compute.precision=fp16"])
