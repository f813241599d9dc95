"""The layout of a run folder: which file lies where. Nothing else builds these paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrialFolder:
    """Files of one fold with one seed."""

    path: Path

    @property
    def genotype(self) -> Path:
        """The cells that were found or given."""
        return self.path / "genotype.json"

    @property
    def search_history(self) -> Path:
        """Losses, UA, skips and entropies of every search epoch."""
        return self.path / "search.csv"

    @property
    def alphas(self) -> Path:
        """Alphas and genotype of every search epoch."""
        return self.path / "alphas.json"

    @property
    def search_checkpoint(self) -> Path:
        """State of a search after its last whole epoch."""
        return self.path / "search.safetensors"

    @property
    def training_history(self) -> Path:
        """Losses and scores of every training epoch."""
        return self.path / "training.csv"

    @property
    def training_checkpoint(self) -> Path:
        """State of a training after its last whole epoch."""
        return self.path / "training.safetensors"

    @property
    def epochs(self) -> Path:
        """Folder of the weights of each epoch, kept until the optimistic score is known."""
        return self.path / "epochs"

    def epoch_weights(self, epoch: int) -> Path:
        """Weights after an epoch, counted from 1."""
        return self.epochs / f"{epoch:04d}.safetensors"

    @property
    def candidates(self) -> Path:
        """Folder of the genotypes that a search evaluates, one subfolder each."""
        return self.path / "candidates"

    @property
    def events(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "events"

    @property
    def predictions(self) -> Path:
        """Probabilities of every test utterance."""
        return self.path / "predictions.csv"

    @property
    def optimistic(self) -> Path:
        """What the best epoch on the test fold would have scored."""
        return self.path / "optimistic.json"

    @property
    def model(self) -> Path:
        """Folder of the bundle."""
        return self.path / "model"

    @property
    def cells(self) -> Path:
        """Drawing of the genotype."""
        return self.path / "cells.png"

    @property
    def result(self) -> Path:
        """Scores, cost and genotype; its presence says that the trial is finished."""
        return self.path / "result.json"


@dataclass(frozen=True)
class RunFolder:
    """Files of a run: a recipe on a corpus, over folds and seeds."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was asked for, with every key."""
        return self.path / "recipe.yaml"

    @property
    def data(self) -> Path:
        """Corpus, classes, digests, and what was left out; its presence says that the header of
        the run is whole."""
        return self.path / "data.json"

    @property
    def utterances(self) -> Path:
        """The utterance table, with the digest of each file's content."""
        return self.path / "utterances.csv"

    @property
    def folds(self) -> Path:
        """The utterances of every part, by fold and seed; also a fold file for other runs."""
        return self.path / "folds.json"

    @property
    def environment(self) -> Path:
        """Versions, hardware, and how the run is computed."""
        return self.path / "environment.json"

    @property
    def predictions(self) -> Path:
        """Probabilities of all folds and seeds."""
        return self.path / "predictions.csv"

    @property
    def optimistic(self) -> Path:
        """Means of what the best epochs on the test folds would have scored."""
        return self.path / "optimistic.json"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    @property
    def result(self) -> Path:
        """Scores of the whole run; its presence says that the run is finished."""
        return self.path / "result.json"

    def trial(self, fold: int | None, seed: int) -> TrialFolder:
        """Folder of a fold with a seed; ``fold`` None: no test fold, all data."""
        place = self.path if fold is None else self.path / f"fold-{fold}"
        return TrialFolder(place / f"seed-{seed}")
