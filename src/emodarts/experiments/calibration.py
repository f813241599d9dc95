"""The temperature of a trial, from answers to development utterances that were held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts.dataset import Dataset
from emodarts.layout import TrialFolder
from emodarts.recipe import SYSTEMS
from emodarts.scoring.calibration import fit_temperature
from emodarts.splits import Indices
from emodarts.splits.inner import inner_folds
from emodarts.systems.system import FitTask, Fitted, Outcome


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it was fitted on.

    Attributes
    ----------
    temperature : see :func:`emodarts.scoring.calibration.calibrated`.
    fitted_on : ``validation``, ``inner folds`` or ``nothing``.
    utterances : their number.
    """

    temperature: float = 1.0
    fitted_on: str = "nothing"
    utterances: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return vars(self)


def utterance_probabilities(data: Dataset, fitted: Fitted, indices: Indices) -> NDArray[np.float64]:
    """Probabilities [shape=(N, K)] of utterances, each classified by itself, as a file is."""
    found = [fitted.probabilities(data.inputs((i,))).double().mean(dim=0) for i in indices]
    return np.stack([row.numpy() for row in found])


def calibrate(task: FitTask, outcome: Outcome) -> Calibration:
    """Fit the temperature of a system on its validation utterances, or else on inner folds.

    Without validation utterances, ``training.calibration_folds`` groups of speakers are left out in
    turn; the cells of the outcome are trained on the others and answer to those left out. Networks
    of an ensemble are all trained anew. 0 folds leave the temperature at 1. Linear systems and
    others that train no network keep it, too: they are fitted to all development utterances, so
    that none is held out.

    Raises
    ------
    EmodartsError
        As :meth:`emodarts.systems.system.System.fit`.
    SplitError
        If a class is too small for inner folds.
    """
    data, validation = task.data, task.parts.validation
    trains = "training" in task.recipe.system.sections
    if validation and trains:
        pairs = [(outcome.fitted, validation)]
        fitted_on = "validation"
    elif trains and (n_folds := task.recipe.training.calibration_folds):
        _, folds = inner_folds(data.utterances, task.parts.train, n_folds, task.seed)
        pairs = [
            (_fit_apart(task, outcome, k, train), judged) for k, (train, judged) in enumerate(folds)
        ]
        fitted_on = "inner folds"
    else:
        return Calibration()
    found = np.concatenate([utterance_probabilities(data, *pair) for pair in pairs])
    truth = np.concatenate([data.targets(judged).numpy() for _, judged in pairs])
    return Calibration(fit_temperature(found, truth), fitted_on, len(truth))


def _fit_apart(task: FitTask, outcome: Outcome, fold: int, train: Indices) -> Fitted:
    """The system, fitted to the training utterances of an inner fold."""
    recipe = task.recipe
    changes = {"optimistic": False, "select": "last"}
    folder = TrialFolder(task.folder.calibration / f"fold-{fold}")
    if outcome.fitted.genotype is not None:
        outcome.fitted.genotype.save(folder.genotype)
    inner = replace(
        task,
        recipe=recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)}),
        parts=replace(task.parts, train=train),
        folder=folder,
        title=f"calibration fold {fold} of {task.title}",
    )
    fitted: Fitted = SYSTEMS[recipe.system.kind].build(recipe.system).fit(inner).fitted
    return fitted
