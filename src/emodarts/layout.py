"""The layout of run and grid folders: which file lies where. Nothing else builds these paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: In the name of a folder that was set aside as broken, before its number.
SET_ASIDE = ".broken-"


class _Entry:
    """Path of a file or folder by its name in the folder ``path`` of its owner."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: TrialFolder | RunFolder | GridFolder, owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class TrialFolder:
    """Files of one fold with one seed.

    Attributes
    ----------
    genotype : the cells that were found or given.
    search_history, training_history : losses and scores of every epoch.
    alphas : alphas and genotype of every search epoch.
    choice : cost of the choice of the genotype, after the last search epoch.
    search_checkpoint, training_checkpoint : state after the last whole epoch.
    epochs : folder of the weights of each epoch, kept until the optimistic score is known.
    halving : candidates, rounds and scores of a search by successive halving.
    calibration : folder of the trainings that the temperature is fitted on, kept until there is a
        result.
    candidates : folder of the genotypes that a search evaluates, one subfolder each.
    events : folder of TensorBoard events.
    tracking : store and name of the MLflow run.
    predictions : probabilities of every test utterance.
    optimistic : what the best epoch on the test fold would have scored.
    model : folder of the bundle.
    cells : drawing of the genotype.
    log : what the trial printed, in a grid.
    failure : why the trial failed, in a grid; gone when it begins again.
    result : scores, cost and genotype; its presence says that the trial is finished.
    """

    path: Path

    genotype = _Entry("genotype.json")
    search_history = _Entry("search.csv")
    alphas = _Entry("alphas.json")
    choice = _Entry("choice.json")
    search_checkpoint = _Entry("search.safetensors")
    training_history = _Entry("training.csv")
    training_checkpoint = _Entry("training.safetensors")
    epochs = _Entry("epochs")
    halving = _Entry("halving.json")
    calibration = _Entry("calibration")
    candidates = _Entry("candidates")
    events = _Entry("events")
    tracking = _Entry("mlflow.json")
    predictions = _Entry("predictions.csv")
    optimistic = _Entry("optimistic.json")
    model = _Entry("model")
    cells = _Entry("cells.png")
    log = _Entry("log.txt")
    failure = _Entry("failure.json")
    result = _Entry("result.json")

    def epoch_weights(self, epoch: int) -> Path:
        """Weights after an epoch, counted from 1."""
        return self.epochs / f"{epoch:04d}.safetensors"

    def member(self, number: int) -> TrialFolder:
        """Folder of a further network of an ensemble, from 1; the first is the trial's own."""
        return TrialFolder(self.path / f"member-{number}")

    def stream(self, name: str) -> TrialFolder:
        """Folder of the search of one of several streams."""
        return TrialFolder(self.path / name)


@dataclass(frozen=True)
class RunFolder:
    """Files of a run: a recipe on a corpus, over folds and seeds.

    Attributes
    ----------
    recipe : as it was asked for, with every key.
    utterances : the utterance table, with the digest of each file's content.
    folds : the utterances of every part, by fold and seed; also a fold file for other runs.
    environment : versions, hardware, and how the run is computed.
    data : corpus, classes, digests, and what was left out; its presence says that the header of the
        run, which is all of the above, is whole.
    predictions : of all folds and seeds.
    optimistic : means over the trials.
    report : folder of the report.
    headroom, headroom_page : what ``emodarts headroom`` found, as JSON and in words.
    failure : why the run could not be planned, in a grid.
    result : scores of the whole run; its presence says that the run is finished. In a grid it may
        leave out folds that failed, and says so.
    """

    path: Path

    recipe = _Entry("recipe.yaml")
    utterances = _Entry("utterances.csv")
    folds = _Entry("folds.json")
    environment = _Entry("environment.json")
    data = _Entry("data.json")
    predictions = _Entry("predictions.csv")
    optimistic = _Entry("optimistic.json")
    report = _Entry("report")
    headroom = _Entry("headroom.json")
    headroom_page = _Entry("headroom.md")
    failure = _Entry("failure.json")
    result = _Entry("result.json")

    def trial(self, fold: int | None, seed: int) -> TrialFolder:
        """Folder of a fold with a seed; ``fold`` None: no test fold, all data."""
        place = self.path if fold is None else self.path / f"fold-{fold}"
        return TrialFolder(place / f"seed-{seed}")


@dataclass(frozen=True)
class GridFolder:
    """Files of a grid. Its runs lie below, in ``CORPUS/NAME-DIGEST``.

    Attributes
    ----------
    grid : the grid file as it was last asked for.
    plan : runs and trials that it asks for; others that are here are of earlier versions.
    comparison : tables of the runs.
    slurm : folder of what was submitted to SLURM, one subfolder each.
    """

    path: Path

    grid = _Entry("grid.yaml")
    plan = _Entry("grid.json")
    comparison = _Entry("comparison.md")
    slurm = _Entry("slurm")

    def run(self, place: str) -> RunFolder:
        """A run by its place in the plan."""
        return RunFolder(self.path / place)
