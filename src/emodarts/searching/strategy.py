"""What a search strategy is to everything outside ``searching``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Progress
from emodarts.recipe import ComputeSpec, NetworkSpec
from emodarts.searching.candidate import Candidate
from emodarts.training.batches import Part


class Evaluate(Protocol):
    """Trains a genotype and returns its UA; see :class:`SearchTask`."""

    def __call__(self, genotype: Genotype, epochs: int | None = None, /) -> float: ...


@dataclass(frozen=True)
class SearchTask:
    """What a strategy may use.

    Attributes
    ----------
    network : search spaces, and depth and width of the network.
    weights, alphas : the two halves of the search data; one trains weights, the other judges
        architectures.
    n_classes : number of logits.
    seed : of everything that is drawn; see :func:`emodarts.runtime.derive_seed`.
    folder : where the strategy keeps its history and checkpoints, and resumes from them.
    device : that computes.
    compute : how cells are computed (``fast``, ``precision``).
    progress : where steps are reported to, under ``title``.
    title : of the search, e.g. ``search fold 0 seed 0``.
    evaluate : trains the network of a genotype on ``weights`` as the recipe trains networks, and
        returns its UA on ``alphas``, between 0 and 1. Called with the genotype and, if they are to
        be others than the recipe's, a number of epochs. What was trained is never trained again.
    cross_validate : trains the network of each candidate once for each inner fold of the search
        data, which leave groups of speakers out, and returns for each the UA of all its predictions
        together. Candidates may train side by side; what was trained is never trained again.
    """

    network: NetworkSpec
    weights: Part
    alphas: Part
    n_classes: int
    seed: int
    folder: TrialFolder
    device: torch.device
    compute: ComputeSpec
    progress: Progress
    title: str
    evaluate: Evaluate
    cross_validate: Callable[[Sequence[Candidate]], list[float]]


class Strategy(Protocol):
    """Finds a genotype. Its class is made with its keys of the recipe."""

    def search(self, task: SearchTask) -> Genotype:
        """Search, or go on from what an interrupted search left in ``task.folder``.

        Raises
        ------
        CheckpointError
            If a checkpoint in the folder is broken.
        TrainingError
            If the search diverges.
        """
        ...
