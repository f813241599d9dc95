"""What a trial is to the process that carries it out: a few JSON values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from emodarts.layout import RunFolder, TrialFolder

Stage = Literal["search", "fit"]


@dataclass(frozen=True)
class TrialSpec:
    """One fold with one seed, as plain values: any process can carry it out from the run's folder.

    Attributes
    ----------
    run : folder of the run.
    store : folder of the feature store.
    recipe_digest : of the recipe in that folder.
    fold : number of the fold; None: no test fold.
    seed : of the trial.
    stage : ``search`` ends with the genotype, ``fit`` with a tested model.
    candidate : only judge a genotype on inner folds: values of
        :meth:`emodarts.searching.candidate.Candidate.to_dict`.
    jobs : processes in which the trial may train candidates side by side.
    """

    run: str
    store: str
    recipe_digest: str
    fold: int | None
    seed: int
    stage: Stage
    candidate: dict[str, Any] | None = None
    jobs: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values; ``TrialSpec(**values)`` is the inverse."""
        return asdict(self)

    @property
    def title(self) -> str:
        """For people, e.g. ``fold 0 seed 0``."""
        trial = f"seed {self.seed}" if self.fold is None else f"fold {self.fold} seed {self.seed}"
        return trial if self.candidate is None else f"candidate of {trial}"

    @property
    def folder(self) -> TrialFolder:
        """Folder of the fold and seed."""
        return RunFolder(Path(self.run)).trial(self.fold, self.seed)
