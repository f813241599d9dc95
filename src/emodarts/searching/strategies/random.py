"""Random search: the control that every other strategy must beat."""

from __future__ import annotations

import torch

from emodarts.genotype import Genotype
from emodarts.recipe import RandomSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import random_genotype
from emodarts.searching.strategy import SearchTask


class RandomSearch:
    """Draws genotypes uniformly; of several, the one that scores best once trained is kept."""

    def __init__(self, spec: RandomSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """The genotype drawn, or the first of the best by ``task.evaluate``."""
        generator = torch.Generator().manual_seed(derive_seed(task.seed, "random genotype"))
        drawn = [random_genotype(task.network, generator) for _ in range(self.spec.candidates)]
        return drawn[0] if len(drawn) == 1 else max(drawn, key=task.evaluate)
