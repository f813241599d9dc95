"""bfloat16 maps: how far from float64 they lead, and what stays float32."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.errors import RecipeError
from emodarts.fast import Implementation
from emodarts.recipe import (
    CNNSpec,
    ComputeSpec,
    DartsSpec,
    NetworkSpec,
    RandomSpec,
    SearchedSeqNN,
    SearchSpec,
    builtin_recipes,
    load_recipe,
)
from emodarts.recipe.search import Precision
from emodarts.runtime import autocast, require_precision
from emodarts.searching.gradients import first_order_gradient
from emodarts.searching.one_shot import Hooks, Search
from emodarts.searching.supernet import Supernet
from toy_search import SPEC, make_task

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


def test_float32_needs_no_autocast() -> None:
    with autocast("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("fast", [True, False])
def test_a_search_keeps_everything_but_maps_in_float32(tmp_path: Path, fast: bool) -> None:
    spec = SPEC.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    compute = ComputeSpec(fast=fast, precision="bf16")
    searched = Search(spec, make_task(tmp_path, compute=compute), Hooks())
    net = searched.supernet
    start = {name: alpha.detach().clone() for name, alpha in net.alpha_parameters().items()}
    searched.run_epoch()
    assert all(not torch.equal(a, start[name]) for name, a in net.alpha_parameters().items())
    kept = [t for o in (searched.weight_optimiser, searched.alpha_optimiser) for t in states(o)]
    floating = [t for t in net.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in (*kept, *floating)} == {torch.float32}
    validation = searched.task.alphas.batch(torch.arange(8))
    gradients = first_order_gradient(net, validation, functional.cross_entropy)
    assert {g.dtype for g in gradients.values()} == {torch.float32}


def states(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    values = [v for state in optimiser.state.values() for v in state.values()]
    return [v for v in values if isinstance(v, Tensor)]


@pytest.mark.parametrize("spec", [DartsSpec(order=1), RandomSpec()], ids=str)
def test_bfloat16_is_enough_for_first_order_and_random_search(spec: SearchSpec) -> None:
    spec.check_precision("bf16")


def test_bfloat16_is_too_coarse_for_second_order() -> None:
    DartsSpec(order=2).check_precision("fp32")
    with pytest.raises(ValueError, match=r"search\.order: 2 .* allowed: search\.order 1"):
        DartsSpec(order=2).check_precision("bf16")


def test_a_device_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_precision("bf16", CPU)
    require_precision("fp32", torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for name in ("mps", "cuda"):
        with pytest.raises(RecipeError, match=f"no bf16 on this {name} device; allowed here: fp32"):
            require_precision("bf16", torch.device(name))


def test_recipes_are_float32() -> None:
    assert all(load_recipe(name).compute.precision == "fp32" for name in builtin_recipes())
    with pytest.raises(RecipeError, match=r"compute\.precision: 'fp16'"):
        load_recipe("quick", ["compute.precision=fp16"])
