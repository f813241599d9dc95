"""Regularised evolution (arXiv 1802.01548): the best of a sample has a child, the oldest dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from emodarts.genotype import Genotype
from emodarts.recipe import EvolutionSpec, NetworkSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import compose_genotype, random_choice
from emodarts.searching.strategy import SearchTask

#: Draws of a mutation: with few choices, most of them are forced.
_DRAWS = 50


@dataclass(frozen=True)
class Individual:
    """A genotype with the decisions that make it, and its UA on inner data.

    Attributes
    ----------
    decisions : index and number of choices, by name.
    """

    genotype: Genotype
    decisions: Mapping[str, tuple[int, int]]
    ua: float = 0.0


class Evolution:
    """A population that ages: children replace the oldest, not the worst."""

    def __init__(self, spec: EvolutionSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """The best of all that lived, by ``task.evaluate``; the first of equals."""
        generator = torch.Generator().manual_seed(derive_seed(task.seed, "evolution"))
        alive: deque[Individual] = deque()
        lived: list[Individual] = []
        for k in range(self.spec.evaluations):
            if k < self.spec.population:
                born = compose(task.network, generator)
            else:
                order = torch.randperm(len(alive), generator=generator)[: self.spec.sample]
                parent = max((alive[i] for i in order.tolist()), key=lambda one: one.ua)
                born = mutate(parent, task.network, generator)
                alive.popleft()
            born = replace(born, ua=task.evaluate(born.genotype, self.spec.epochs))
            alive.append(born)
            lived.append(born)
        return max(lived, key=lambda one: one.ua).genotype


def compose(
    network: NetworkSpec,
    generator: torch.Generator,
    inherited: Mapping[str, tuple[int, int]] | None = None,
) -> Individual:
    """A genotype of decisions that are inherited where they are possible, and random elsewhere."""
    inherited = inherited or {}
    decisions: dict[str, tuple[int, int]] = {}
    draw = random_choice(generator)

    def choose(decision: str, count: int, taken: int | None = None) -> int:
        index, of = inherited.get(decision, (count, count))
        if of != count or index in (taken, count):
            index = draw(decision, count, taken)
        decisions[decision] = index, count
        return index

    return Individual(compose_genotype(network, choose), decisions)


def mutate(parent: Individual, network: NetworkSpec, generator: torch.Generator) -> Individual:
    """A child that differs in one decision, and in what that decision brings with it.

    Some decisions are forced by others: both inputs of a first node are always taken. They are
    drawn again, until the child is another genotype.
    """
    names = [name for name, (_, count) in parent.decisions.items() if count > 1]
    child = parent
    for _ in range(_DRAWS if names else 0):
        name = names[int(torch.randint(len(names), (), generator=generator))]
        index, count = parent.decisions[name]
        other = random_choice(generator)(name, count, taken=index)
        child = compose(network, generator, {**parent.decisions, name: (other, count)})
        if child.genotype != parent.genotype:
            break
    return child
