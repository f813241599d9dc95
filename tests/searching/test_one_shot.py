"""The seams of one-shot strategies, by strategies that are registered from outside the package."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.genotype import Genotype
from emodarts.recipe import STRATEGIES, ComputeSpec, Kind, OneShotSpec, Recipe
from emodarts.recipe.spaces import Operations
from emodarts.searching.derivation import derive_genotype
from emodarts.searching.gradients import Batch
from emodarts.searching.mixing import Mixing, softmax
from emodarts.searching.one_shot import (
    Hooks,
    Search,
    build_supernet,
    first_order,
    search_one_shot,
)
from emodarts.searching.strategies.darts import Darts
from emodarts.searching.strategy import SearchTask
from emodarts.searching.supernet import Supernet, mixed_edge
from emodarts.space.cell import Cell
from killing import Kill, Killed
from toy_search import NETWORK, SPEC, make_task, records, search


class ToySpec(OneShotSpec):
    """Keys of a strategy from outside."""

    strategy: Literal["toy"] = "toy"
    strength: float = 1.0
    """Strength of whatever the toy does."""


TOY = ToySpec(**SPEC.model_dump(include=set(OneShotSpec.model_fields) - {"strategy"}))


@contextmanager
def registered(hooks: Callable[[ToySpec], Hooks]) -> Iterator[None]:
    """Let recipes have the strategy ``toy`` for a while."""

    class Toy:
        def __init__(self, spec: ToySpec) -> None:
            self.spec = spec

        def search(self, task: SearchTask) -> Genotype:
            return search_one_shot(self.spec, task, hooks(self.spec))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STRATEGIES, "toy", Kind(ToySpec, Toy))
        yield


def run(folder: Path, hooks: Hooks, **changes: Any) -> list[dict[str, Any]]:
    """Records of a search with the strategy ``toy``."""
    with registered(lambda spec: hooks):
        search(TOY, make_task(folder, **changes))
    return records(folder)


second_order = Darts(SPEC).second_order


def sigmoid_weights(search: Search, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.sigmoid(alpha) for name, alpha in alphas.items()}


def gumbel_draw(search: Search, train: Batch) -> Mixing:
    noise = {
        name: -torch.empty_like(alpha).exponential_().log()
        for name, alpha in search.supernet.alpha_parameters().items()
    }
    return lambda alphas: softmax({name: a + noise[name] for name, a in alphas.items()})


def test_a_recipe_has_a_strategy_from_outside_with_its_keys(tmp_path: Path) -> None:
    def hooks(spec: ToySpec) -> Hooks:
        return Hooks(penalty=lambda search: spec.strength * total(search, torch.sum))

    with registered(hooks):
        keys = {"strategy": "toy", "epochs": 2, "batch_size": 6, "strength": 2.0}
        spec = Recipe.from_dict({"search": keys}).search
        assert isinstance(spec, ToySpec)
        search(spec, make_task(tmp_path))
    assert len(records(tmp_path)) == 2


def total(search: Search, of: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([of(a) for a in search.supernet.alpha_parameters().values()]).sum()


def test_weights_decide_passes_records_and_derivation(tmp_path: Path) -> None:
    entropies = []

    def keep(search: Search) -> None:
        if search.history:
            entropies.append(search.history[-1]["entropy_normal"])

    plain = run(tmp_path / "plain", Hooks())
    found = run(tmp_path / "sigmoid", Hooks(weights=sigmoid_weights, begin_epoch=keep))
    # The first epoch trains weights alone, under other weights of the candidates.
    assert found[1]["alphas"] != plain[1]["alphas"]
    for record, entropy in zip(found, entropies, strict=False):
        alphas = {name: torch.tensor(a) for name, a in record["alphas"].items()}
        derived = derive_genotype(
            alphas, NETWORK, lambda a: {name: torch.sigmoid(x) for name, x in a.items()}
        )
        assert Genotype.from_dict(record["genotype"]) == derived
        weights = torch.sigmoid(alphas["normal"])
        assert entropy == pytest.approx(float(torch.special.entr(weights).sum(1).mean()), rel=1e-5)
    assert len(entropies) == 3


@pytest.mark.parametrize(("gradient", "passes"), [(first_order, 2), (second_order, 5)])
def test_weights_are_drawn_once_a_step(
    tmp_path: Path,
    gradient: Callable[[Search, Batch, Batch], dict[str, Tensor]],
    passes: int,
) -> None:
    """Look-ahead passes, their differences and the pass that trains weights share a draw."""
    calls: list[int] = []

    def draw(search: Search, train: Batch) -> Mixing:
        mixing = gumbel_draw(search, train)
        calls.append(0)

        def counted(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
            calls[-1] += 1
            return mixing(alphas)

        return counted

    run(tmp_path, Hooks(draw=draw, gradient=gradient))
    assert calls == [1, 1] + 6 * [passes]  # the first epoch of two steps is warm-up


def test_what_is_drawn_is_drawn_again_on_resume(tmp_path: Path) -> None:
    hooks = Hooks(draw=gumbel_draw, gradient=second_order)
    whole = run(tmp_path / "whole", hooks)
    with pytest.raises(Killed):
        run(tmp_path / "killed", hooks, progress=Kill(5))
    torch.manual_seed(99)
    assert run(tmp_path / "killed", hooks) == whole
    assert whole != run(tmp_path / "plain", Hooks(gradient=second_order))


@pytest.mark.parametrize("gradient", [first_order, second_order])
def test_the_gradient_of_a_penalty_arrives(
    tmp_path: Path, gradient: Callable[[Search, Batch, Batch], dict[str, Tensor]]
) -> None:
    def with_it(search: Search, train: Batch, validation: Batch) -> dict[str, Tensor]:
        alphas = search.supernet.alpha_parameters()
        found = gradient(search, train, validation)
        return {name: g + 3 * alphas[name].detach() for name, g in found.items()}

    def penalty(search: Search) -> Tensor:
        return 1.5 * total(search, lambda alpha: alpha.square().sum())

    found = run(tmp_path / "penalty", Hooks(gradient=gradient, penalty=penalty))
    assert found == run(tmp_path / "gradient", Hooks(gradient=with_it))
    assert found != run(tmp_path / "none", Hooks(gradient=gradient))


def test_a_strategy_may_stop_the_search(tmp_path: Path) -> None:
    def stop(search: Search) -> None:
        search.memory["begun"] = search.memory.get("begun", 0) + 1
        if search.memory["begun"] > 2:
            search.stop()

    whole = run(tmp_path / "whole", Hooks())
    assert run(tmp_path / "stopped", Hooks(begin_epoch=stop)) == whole[:2]
    # Once more, which goes on from the checkpoint of the second epoch.
    assert run(tmp_path / "stopped", Hooks(begin_epoch=stop), progress=Kill(1)) == whole[:2]


@pytest.mark.parametrize("step", [4, 5, 7])
def test_a_supernet_that_is_built_anew_between_epochs_is_resumed(tmp_path: Path, step: int) -> None:
    """As of a strategy in stages, here with a wider network from the third epoch on."""

    def build(search: Search) -> Supernet:
        network = search.task.network
        cnn = network.cnn.model_copy(update={"channels": search.memory.get("channels", 2)})
        return Supernet(network.model_copy(update={"cnn": cnn}), 8, 3)

    def widen(search: Search) -> None:
        if search.epoch == 2:
            search.memory["channels"] = 3
            search.build()

    hooks = Hooks(build=build, begin_epoch=widen)
    whole = run(tmp_path / "whole", hooks)
    with pytest.raises(Killed):
        run(tmp_path / "killed", hooks, progress=Kill(step))
    assert run(tmp_path / "killed", hooks) == whole


class HalfEdge(nn.Module):
    """Mixes the first half of the channels and passes on the rest, as PC-DARTS does."""

    def __init__(self, mixed: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.mixed, self.channels, self.stride = mixed, channels // 2, stride

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        rest = functional.max_pool2d(x[:, self.channels :], self.stride, ceil_mode=True)
        return torch.cat([self.mixed(x[:, : self.channels], weights), rest], dim=1)


def half_edge(cell: str, row: int, candidates: Operations, *sizes: Any) -> nn.Module:
    if cell == "sequence":
        return mixed_edge(cell, row, candidates, *sizes)
    channels, stride, affine = sizes
    mixed = mixed_edge(cell, row, candidates, channels // 2, stride, affine)
    return HalfEdge(mixed, channels, stride)


def test_edges_and_further_alphas_are_a_strategys_own(tmp_path: Path) -> None:
    """Edge weights as of PC-DARTS (arXiv 1907.05737), eq. 3, in the normal cells."""

    def build(search: Search) -> Supernet:
        supernet = build_supernet(search, half_edge)
        supernet.alphas["normal_edges"] = nn.Parameter(torch.zeros(2))
        return supernet

    def weights(search: Search, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = softmax({name: alphas[name] for name in NETWORK.nodes})
        shares = torch.softmax(alphas["normal_edges"], dim=0)
        return {**found, "normal": found["normal"] * shares[:, None]}

    def check(search: Search) -> None:
        assert {type(cell) for cell in search.supernet.network.cnn_cells} == {Cell}
        assert isinstance(search.supernet.network.cnn_cells[0].edges[0], HalfEdge)

    hooks = Hooks(build=build, weights=weights, begin_epoch=check)
    found = run(tmp_path, hooks, compute=ComputeSpec(fast=True))
    assert found[0]["alphas"]["normal_edges"] == [0.0, 0.0]
    assert found[-1]["alphas"]["normal_edges"][0] != 0.0


def test_a_strategy_may_choose_the_genotype_at_the_end(tmp_path: Path) -> None:
    hooks = Hooks(choose=lambda search: Genotype.from_dict(search.records[0]["genotype"]))
    with registered(lambda spec: hooks):
        found = search(TOY, make_task(tmp_path))
    assert found == Genotype.from_dict(records(tmp_path)[0]["genotype"])


def test_a_strategy_may_derive_in_its_own_way(tmp_path: Path) -> None:
    def weakest(search: Search) -> Genotype:
        alphas = {name: -alpha for name, alpha in search.supernet.alpha_parameters().items()}
        return derive_genotype(alphas, search.task.network)

    plain, found = run(tmp_path / "plain", Hooks()), run(tmp_path / "own", Hooks(derive=weakest))
    assert [r["alphas"] for r in found] == [r["alphas"] for r in plain]
    assert found[-1]["genotype"] != plain[-1]["genotype"]


def test_the_temperature_may_depend_on_the_epoch(tmp_path: Path) -> None:
    temperatures: set[float] = set()

    def weights(search: Search, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        temperature = 2.0 ** -min(search.epoch, 3)
        temperatures.add(temperature)
        return softmax({name: alpha / temperature for name, alpha in alphas.items()})

    run(tmp_path, Hooks(weights=weights))
    assert temperatures == {1.0, 0.5, 0.25, 0.125}
