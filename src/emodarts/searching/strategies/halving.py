"""Successive halving (arXiv 1502.07943) over random genotypes, judged on inner speaker folds."""

from __future__ import annotations

import statistics

import torch

from emodarts import files
from emodarts.genotype import Genotype
from emodarts.recipe import HalvingSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import different_genotypes, random_genotype
from emodarts.searching.strategy import SearchTask


class Halving:
    """Trains many candidates once and the better ones more often; keeps the best in the mean."""

    def __init__(self, spec: HalvingSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """The best of the last round, by the mean over its seeds; the first of equals."""
        candidates = self._draw(task)
        order = list(range(len(candidates)))
        rounds = []
        for count, seeds in self.spec.rounds:
            order = order[:count]
            if len(order) == 1:
                break
            scores = {
                k: [
                    task.cross_validate(
                        candidates[k], seed, self.spec.inner_folds, self.spec.epochs
                    )
                    for seed in range(seeds)
                ]
                for k in sorted(order)
            }
            order = sorted(scores, key=lambda k: (-statistics.mean(scores[k]), k))
            rounds.append(
                [
                    {"candidate": k, "mean": statistics.mean(scores[k]), "ua": scores[k]}
                    for k in order
                ]
            )
            record = {
                "candidates": [genotype.to_dict() for genotype in candidates],
                "rounds": rounds,
            }
            files.write_json(task.folder.halving, record)
        return candidates[order[0]]

    def _draw(self, task: SearchTask) -> list[Genotype]:
        """Different genotypes; the first has the network of the recipe as it is."""
        generator = torch.Generator().manual_seed(derive_seed(task.seed, "halving"))
        own = random_genotype(task.network, generator, macro={})
        return different_genotypes(task.network, self.spec.rounds[0][0], generator, own)
