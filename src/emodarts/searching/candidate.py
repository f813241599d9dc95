"""A genotype that a search wants judged on inner speaker folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emodarts import files
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder


@dataclass(frozen=True)
class Candidate:
    """A network to train once for each inner fold, and how.

    Attributes
    ----------
    genotype : of the network.
    seed : of its trainings; within a trial, each seed gives other weights.
    inner_folds : number of groups of speakers, each of which is left out once.
    epochs : of training; None: those of the recipe.
    """

    genotype: Genotype
    seed: int
    inner_folds: int
    epochs: int | None = None

    def folder(self, trial: TrialFolder) -> TrialFolder:
        """Where its trainings are kept in the folder of a trial."""
        how = [self.genotype.to_dict(), self.inner_folds, self.epochs]
        digest = files.digest_of(how)[:16]
        return TrialFolder(trial.candidates / digest / f"seed-{self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, the inverse of :meth:`from_dict`."""
        return {**vars(self), "genotype": self.genotype.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Candidate:
        """The candidate that :meth:`to_dict` described."""
        return cls(**{**value, "genotype": Genotype.from_dict(value["genotype"])})
