"""Searches that judge one genotype after the other: evolution, controller, shared weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.errors import RecipeError
from emodarts.genotype import Genotype
from emodarts.recipe import (
    CNNSpec,
    ControllerSpec,
    EvolutionSpec,
    NetworkSpec,
    NoSeqNN,
    Recipe,
    SharedRandomSpec,
)
from emodarts.searching.strategies.controller import Policy, Tried
from emodarts.searching.strategies.evolution import Individual, compose, mutate
from emodarts.searching.strategies.shared_random import only
from emodarts.searching.toys import one_candidate
from killing import Kill, Killed
from toy_search import NETWORK, SPEC, make_task, search

EXTENDED = NetworkSpec(cnn=CNNSpec(space="extended", cells=0), seqnn=NoSeqNN(mode="none"))


def operations(genotype: Genotype) -> list[str]:
    return [e.operation for cell in genotype.cells.values() for node in cell for e in node]


class Judge:
    """UA by a function of the genotype; remembers what was asked, and may be killed."""

    def __init__(self, ua: Callable[[Genotype], float], killed_at: int | None = None) -> None:
        self.ua, self.killed_at = ua, killed_at
        self.asked: list[Genotype] = []

    def __call__(self, genotype: Genotype, epochs: int | None = None) -> float:
        assert epochs == 7
        if len(self.asked) == self.killed_at:
            raise Killed
        self.asked.append(genotype)
        return self.ua(genotype)


def share_of_lstms(genotype: Genotype) -> float:
    found = operations(genotype)
    return sum("lstm" in name or name == "sep_conv_3x3" for name in found) / len(found)


# --- evolution ---


def born(seed: int, network: NetworkSpec = NETWORK) -> Individual:
    return compose(network, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("network", [NETWORK, EXTENDED])
@pytest.mark.parametrize("seed", range(30))
def test_a_child_differs_in_one_decision_and_what_it_brings(
    seed: int, network: NetworkSpec
) -> None:
    parent = born(seed, network)
    child = mutate(parent, network, torch.Generator().manual_seed(100 + seed))
    both = set(parent.decisions) & set(child.decisions)
    changed = [name for name in both if parent.decisions[name] != child.decisions[name]]
    # A source that its partner took over is decided anew.
    assert 1 <= len(changed) <= 2
    assert child.genotype != parent.genotype
    if not any(name.startswith("macro") for name in changed):
        assert set(parent.decisions) == set(child.decisions)


def test_decisions_make_their_genotype_again() -> None:
    parent = born(3)
    again = compose(NETWORK, torch.Generator().manual_seed(8), parent.decisions)
    assert again.genotype == parent.genotype


def test_the_oldest_dies_though_it_is_the_best(tmp_path: Path) -> None:
    """The first is best by far, so that all children are its own until it is too old."""
    spec = EvolutionSpec(population=4, sample=4, evaluations=16, epochs=7)
    judge = Judge(lambda genotype: 1.0 / (1 + judge.asked.index(genotype)))
    found = search(spec, make_task(tmp_path, evaluate=judge))
    first = judge.asked[0]
    assert found == first
    distances = [len(difference(first, other)) for other in judge.asked]
    # Born 4th: the first is 4 old and parent. From then on it is dead; lines drift away from it.
    assert distances[4] <= 2
    assert max(distances[5:]) > 2


def difference(one: Genotype, other: Genotype) -> list[Any]:
    return [
        (a, b)
        for name in one.cells
        for x, y in zip(one.cells[name], other.cells[name], strict=True)
        for a, b in zip(x, y, strict=True)
        if a != b
    ]


@pytest.mark.parametrize(
    "spec",
    [
        EvolutionSpec(population=6, sample=3, evaluations=60, epochs=7),
        ControllerSpec(evaluations=60, epochs=7, batch=4, learning_rate=5e-2),
    ],
    ids=lambda spec: spec.strategy,
)
def test_better_genotypes_become_more_frequent_and_the_best_is_kept(
    spec: Any, tmp_path: Path
) -> None:
    judge = Judge(share_of_lstms)
    found = search(spec, make_task(tmp_path, evaluate=judge))
    scores = [share_of_lstms(genotype) for genotype in judge.asked]
    assert len(scores) == 60
    assert sum(scores[-15:]) > sum(scores[:15]) + 1.5
    assert share_of_lstms(found) == max(scores)


@pytest.mark.parametrize(
    "spec",
    [
        EvolutionSpec(population=4, sample=2, evaluations=12, epochs=7),
        ControllerSpec(evaluations=12, epochs=7, batch=3),
    ],
    ids=lambda spec: spec.strategy,
)
@pytest.mark.parametrize("network", [NETWORK, EXTENDED])
def test_an_interrupted_search_asks_for_the_same_again(
    spec: Any, network: NetworkSpec, tmp_path: Path
) -> None:
    def score(genotype: Genotype) -> float:
        return (hash(str(genotype.to_dict())) % 97) / 97

    whole = Judge(score)
    found = search(spec, make_task(tmp_path, network=network, evaluate=whole))
    with pytest.raises(Killed):
        search(spec, make_task(tmp_path, network=network, evaluate=Judge(score, killed_at=7)))
    torch.manual_seed(5)
    again = Judge(score)
    assert search(spec, make_task(tmp_path, network=network, evaluate=again)) == found
    assert again.asked == whole.asked


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"population": 4, "sample": 5}, "sample 5"),
        ({"population": 16, "evaluations": 9}, "evaluations 9"),
    ],
)
def test_an_evolution_that_cannot_be(keys: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"search": {"strategy": "evolution", **keys}})


# --- controller ---


def test_the_probability_of_the_better_choice_rises() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy = Policy(16)
    spec = ControllerSpec(learning_rate=2e-2, entropy_weight=0.0)
    shares = []
    for _ in range(60):
        tried: list[Tried] = [policy.decide(NETWORK, generator) for _ in range(4)]
        rewards = [share_of_lstms(one.genotype) for one in tried]
        shares.append(sum(rewards) / 4)
        policy.learn(tried, [r - 0.5 for r in rewards], spec)
    assert sum(shares[-10:]) / 10 > sum(shares[:10]) / 10 + 0.3


def test_at_first_all_decisions_are_equally_probable() -> None:
    tried = Policy(16).decide(NETWORK, torch.Generator().manual_seed(0))
    expected = 0.0
    for name, nodes in NETWORK.nodes.items():
        n = sum(operation != "none" for operation in NETWORK.operations[name])
        for node in range(nodes):
            expected -= torch.tensor([(node + 2.0) * (node + 1.0) * n * n]).log().item()
    assert float(tried.log_probability.detach()) == pytest.approx(expected, rel=1e-5)


# --- shared weights ---


def test_only_the_operations_of_a_genotype_have_weight() -> None:
    genotype = born(1).genotype
    shapes = {name: torch.zeros(1) for name in NETWORK.nodes}
    weights = only(genotype, NETWORK)(shapes)
    for name, cell in genotype.cells.items():
        assert float(weights[name].sum()) == sum(len(node) for node in cell)
        assert set(weights[name].unique().tolist()) == {0.0, 1.0}


def shared(**keys: Any) -> SharedRandomSpec:
    common = SPEC.model_dump(mode="json", include=set(SharedRandomSpec.model_fields) - {"strategy"})
    spec = Recipe.from_dict(
        {"search": {"strategy": "shared_random", **common, "candidates": 8, **keys}}
    ).search
    assert isinstance(spec, SharedRandomSpec)
    return spec


def test_a_search_with_shared_weights_goes_on_as_it_was(tmp_path: Path) -> None:
    whole = search(shared(), make_task(tmp_path / "whole"))
    with pytest.raises(Killed):
        search(shared(), make_task(tmp_path / "killed", Kill(5)))
    torch.manual_seed(4)
    assert search(shared(), make_task(tmp_path / "killed")) == whole


@pytest.mark.slow
def test_shared_weights_tell_what_passes_the_signal(tmp_path: Path) -> None:
    """With enough candidates, the best has the planted operation on its CNN's path."""
    toy = one_candidate(0)
    spec = shared(epochs=20, batch_size=12, warmup_epochs=0, candidates=100)
    found = search(spec, toy.task(tmp_path, 0))
    assert operations(found).count(toy.answer or "") >= 3
