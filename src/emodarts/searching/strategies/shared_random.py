"""Random search with shared weights (arXiv 1902.07638)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emodarts.genotype import Genotype
from emodarts.recipe import NetworkSpec, SharedRandomSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import random_genotype
from emodarts.searching.edges import Edges
from emodarts.searching.gradients import Batch
from emodarts.searching.mixing import Mixing
from emodarts.searching.one_shot import Hooks, Search, build_supernet, search_one_shot
from emodarts.searching.strategy import SearchTask
from emodarts.searching.supernet import alpha_shapes
from emodarts.space.cell import edges


class SharedRandomSearch:
    """Trains a random genotype in every step, then judges many with the weights they share."""

    def __init__(self, spec: SharedRandomSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """The genotype with the highest UA on the data for alphas; the first of equals."""
        hooks = Hooks(
            build=lambda search: build_supernet(search, Edges(sparse=True).builder),
            weights=uniform,
            draw=self._draw,
            gradient=_none,
            choose=self._choose,
        )
        return search_one_shot(self.spec, task, hooks)

    def _draw(self, search: Search, train: Batch) -> Mixing:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return only(random_genotype(search.task.network, generator, macro={}), search.task.network)

    def _choose(self, search: Search) -> Genotype:
        task = search.task
        generator = torch.Generator().manual_seed(derive_seed(task.seed, "shared candidates"))
        found = []
        task.progress.start(f"{task.title}, selection", self.spec.candidates)
        for _ in range(self.spec.candidates):
            genotype = random_genotype(task.network, generator, macro={})
            loss, ua = search.judge(only(genotype, task.network))
            found.append((ua, -loss, genotype))
            task.progress.advance(loss=loss, ua=ua)
        return max(found, key=lambda entry: entry[:2])[2]


def uniform(search: Search, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All candidates count alike."""
    return {name: torch.full_like(alpha, 1 / alpha.shape[1]) for name, alpha in alphas.items()}


def only(genotype: Genotype, network: NetworkSpec) -> Mixing:
    """Weight 1 for the operations of a genotype on its edges, and 0 for all else."""
    weights = {}
    for name, shape in alpha_shapes(network).items():
        mask = torch.zeros(shape)
        rows = {ends: row for row, ends in enumerate(edges(network.nodes[name]))}
        for node, kept in enumerate(genotype.cells[name]):
            for edge in kept:
                row = rows[edge.source, node]
                mask[row, network.operations[name].index(edge.operation)] = 1.0
        weights[name] = mask
    return lambda alphas: {name: mask.to(alphas[name]) for name, mask in weights.items()}


def _none(search: Search, train: Batch, validation: Batch) -> dict[str, Tensor]:
    alphas = search.supernet.alpha_parameters()
    return {name: torch.zeros_like(alpha) for name, alpha in alphas.items()}
