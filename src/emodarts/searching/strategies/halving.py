"""Successive halving (arXiv 1502.07943) over genotypes, judged on inner speaker folds."""

from __future__ import annotations

import statistics
from dataclasses import replace

import torch

from emodarts import files
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe import HalvingSpec
from emodarts.runtime import derive_seed
from emodarts.searching.candidate import Candidate
from emodarts.searching.derivation import different_genotypes, random_genotype
from emodarts.searching.strategies.darts import Darts
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
            trained = sorted(order)
            found = task.cross_validate(
                [
                    Candidate(candidates[k], seed, self.spec.inner_folds, self.spec.epochs)
                    for k in trained
                    for seed in range(seeds)
                ]
            )
            scores = {k: found[j * seeds : (j + 1) * seeds] for j, k in enumerate(trained)}
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
        proposed = [self._propose(task, k) for k in range(self.spec.proposals)]
        first = dict.fromkeys([own, *proposed])
        return different_genotypes(task.network, self.spec.rounds[0][0], generator, *first)

    def _propose(self, task: SearchTask, k: int) -> Genotype:
        """What DARTS finds with a seed of its own."""
        folder = TrialFolder(task.folder.candidates / f"proposal-{k}")
        if folder.genotype.is_file():
            return Genotype.load(folder.genotype)
        seed = derive_seed(task.seed, "proposal", k)
        title = f"proposal {k + 1} of {self.spec.proposals}, {task.title}"
        found = Darts(self.spec.darts).search(replace(task, seed=seed, folder=folder, title=title))
        found.save(folder.genotype)
        return found
