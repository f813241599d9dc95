"""What a system is to everything outside ``systems``: it is fitted and gives probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from emodarts.cost import Spent
from emodarts.dataset import Dataset
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Progress
from emodarts.recipe import FeatureSpec, Recipe
from emodarts.searching.candidate import Candidate
from emodarts.splits import Parts


@dataclass(frozen=True)
class FitTask:
    """What a system is fitted to, and where.

    Attributes
    ----------
    recipe : of the run.
    data : utterances and their feature maps.
    parts : which utterances may be used for what; there are none to test on.
    seed : of everything that is drawn; see :func:`emodarts.runtime.derive_seed`.
    folder : where the system keeps histories and checkpoints, and resumes from them.
    device : that computes.
    progress : where steps are reported to.
    title : of the trial, e.g. ``fold 0 seed 0``.
    candidates_ahead : trains candidates of a search side by side, and yields when one is finished,
        so that the search only reads them; None where there is one process.
    """

    recipe: Recipe
    data: Dataset
    parts: Parts
    seed: int
    folder: TrialFolder
    device: torch.device
    progress: Progress
    title: str
    candidates_ahead: Callable[[Sequence[Candidate]], Iterator[Any]] | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.data.classes)


@dataclass(frozen=True)
class Cost:
    """What a fitted system costs.

    Attributes
    ----------
    parameters : trained numbers that the model keeps.
    multiply_adds : of one piece of an utterance, its features given.
    training, search : what was spent on them; None where nothing is searched.
    """

    parameters: int
    multiply_adds: int
    training: Spent = field(default_factory=Spent)
    search: Spent | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock time of search and training."""
        return self.training.seconds + (0.0 if self.search is None else self.search.seconds)


class Fitted(Protocol):
    """A system that was fitted, or read from a bundle."""

    @property
    def genotype(self) -> Genotype | None:
        """Its cells, where it has some."""
        ...

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Class probabilities ``(B, K)`` of named feature maps ``(B, C, F, T)``, as extracted.

        A row depends on that row alone. Frames behind the end of the sound are NaN, unless
        ``features.padding`` is ``zeros``. Maps are on the CPU; so is the result.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values from which :meth:`System.restore` makes the same system."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What :meth:`System.fit` gives.

    Attributes
    ----------
    fitted : the system.
    cost : what it costs.
    details : JSON values for ``result.json``, e.g. the epoch that was chosen.
    members : the parts of an ensemble, each as a system of its own; empty for others.
    epochs : the system as it was after each epoch, in order, if the recipe asks for the optimistic
        score.
    """

    fitted: Fitted
    cost: Cost
    details: Mapping[str, Any] = field(default_factory=dict)
    members: Sequence[Fitted] = ()
    epochs: Iterator[Fitted] | None = None


@dataclass(frozen=True)
class Saved:
    """What a bundle holds of a system.

    Attributes
    ----------
    tensors, settings : of :meth:`Fitted.state`.
    inputs : how audio becomes each feature map, by name.
    classes : labels in the order of the probabilities.
    """

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    inputs: Mapping[str, FeatureSpec]
    classes: Sequence[str]


class System(Protocol):
    """Something that a recipe trains and tests. Its class is made with its keys of the recipe."""

    def fit(self, task: FitTask) -> Outcome:
        """Fit to the development utterances, or go on from what ``task.folder`` holds.

        Raises
        ------
        CheckpointError
            If a checkpoint in the folder is broken.
        TrainingError
            If the training diverges.
        """
        ...

    def restore(self, saved: Saved) -> Fitted:
        """Make what :meth:`Fitted.state` described, on the CPU.

        Raises
        ------
        GenotypeError, KeyError, RuntimeError, ValueError
            If tensors and settings do not fit.
        """
        ...


@runtime_checkable
class Sized(Protocol):
    """A system whose size may be known before it is fitted."""

    def parameters(self, recipe: Recipe, n_classes: int) -> int | None:
        """Trained numbers that the model will keep; None where a search decides them."""
        ...
