"""Search with an operation and a strategy of your own, registered from outside the package.

    python examples/own_search.py runs/own-search

searches and trains on a generated toy corpus; changes of the recipe may follow, such as
`search.steps=2`. With the import of this file, recipes may name both (docs/extending.md).
"""

import sys
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

import emodarts
from emodarts.genotype import Genotype
from emodarts.recipe import SPACES, STRATEGIES, Kind, Operation, SearchSpec, Space
from emodarts.runtime import derive_seed
from emodarts.searching.strategies.evolution import Individual, compose, mutate
from emodarts.searching.strategy import SearchTask


class GatedConvolution(nn.Module):
    """Convolution over time whose other half of channels are gates (arXiv 1612.08083)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.glu(self.layer(x.mT), dim=1).mT  # (B, T, H)


SPACES["gated"] = Space(
    cnn=SPACES["lstm_att"].cnn,
    sequence={
        "gated_conv_5": Operation(GatedConvolution, {"kernel": 5}),
        **SPACES["lstm_att"].sequence,
    },
)


class LocalSpec(SearchSpec):
    """Local search: a step to a neighbour that is better."""

    strategy: Literal["local"] = "local"
    steps: int = Field(8, ge=1)
    """Number of neighbours that are tried; each differs in one decision from the best so far."""
    epochs: int = Field(10, ge=1)
    """Epochs of training before a genotype is judged."""


class Local:
    """Trains on one half of the search data and judges on the other."""

    def __init__(self, spec: LocalSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        def judged(one: Individual) -> Individual:
            return replace(one, ua=task.evaluate(one.genotype, self.spec.epochs))

        generator = torch.Generator().manual_seed(derive_seed(task.seed, "local search"))
        best = judged(compose(task.network, generator))
        for _ in range(self.spec.steps):
            neighbour = judged(mutate(best, task.network, generator))
            best = max(best, neighbour, key=lambda one: one.ua)  # the older one of equals
        return best.genotype


STRATEGIES["local"] = Kind(LocalSpec, Local)


def main(folder: str, *changes: str) -> None:
    own = ["network.seqnn.space=gated", "search={strategy: local, steps: 4, epochs: 4}"]
    recipe = emodarts.load_recipe("demo", [*own, "evaluation.folds=[0]", *changes])
    result = emodarts.run(recipe, emodarts.load_corpus("synthetic"), folder)
    [trial] = result["folds"][0]["seeds"]
    for cell, nodes in Genotype.from_dict(trial["genotype"]).cells.items():
        print(f"{cell}: {', '.join(edge.operation for node in nodes for edge in node)}")
    print(f"UA on unseen speakers: {100 * result['ua']:.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
