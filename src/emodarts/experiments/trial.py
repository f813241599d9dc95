"""One trial: one fold with one seed, from features to a tested model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emodarts import files
from emodarts.batches import join_pieces, predict_logits
from emodarts.checkpoint import load_tensors
from emodarts.errors import RunError
from emodarts.experiments.dataset import Dataset
from emodarts.fast import Implementation, resolve
from emodarts.models.bundle import Bundle, save_bundle
from emodarts.models.count import count_multiply_adds, count_parameters
from emodarts.models.network import SearchedNetwork
from emodarts.progress import Progress
from emodarts.recipe import Recipe
from emodarts.runtime import derive_seed
from emodarts.searching.loop import SearchData, search_genotype
from emodarts.space.genotype import Genotype
from emodarts.splits import Indices, Parts
from emodarts.training.loop import EPOCHS, Trained, epoch_file, train_network
from emodarts.training.metrics import Prediction, read_predictions, score, write_predictions

GENOTYPE = "genotype.json"
RESULT = "result.json"
PREDICTIONS = "predictions.csv"
OPTIMISTIC = "optimistic.json"
MODEL = "model"


@dataclass(frozen=True)
class Trial:
    """What one trial computes, and where it writes."""

    recipe: Recipe
    fold: int
    seed: int
    parts: Parts
    folder: Path
    device: torch.device

    @property
    def seed_of_fold(self) -> int:
        """Folds of one seed draw independently."""
        return derive_seed(self.seed, "fold", self.fold)

    @property
    def title(self) -> str:
        """For progress, e.g. ``fold 0 seed 0``."""
        return f"fold {self.fold} seed {self.seed}" if self.parts.test else f"seed {self.seed}"


def search_trial(trial: Trial, data: Dataset, progress: Progress) -> Genotype:
    """Search a genotype, or read the one that an earlier search left in the trial's folder."""
    path = trial.folder / GENOTYPE
    if path.is_file():
        return Genotype.load(path)
    parts = trial.parts
    # Only utterances that train weights give statistics, in the search as in the training.
    normalisation = data.normalisation(parts.search_weights)
    halves = SearchData(
        data.part(parts.search_weights, normalisation, trial.device),
        data.part(parts.search_alphas, normalisation, trial.device),
        len(data.classes),
    )
    genotype = search_genotype(
        trial.recipe.search,
        trial.recipe.network,
        halves,
        seed=trial.seed_of_fold,
        folder=trial.folder,
        device=trial.device,
        progress=progress,
        task=f"search {trial.title}",
        fast=trial.recipe.compute.fast,
        precision=trial.recipe.compute.precision,
    )
    genotype.save(path)
    return genotype


def train_trial(
    trial: Trial, data: Dataset, genotype: Genotype, progress: Progress
) -> dict[str, Any]:
    """Train the network of a genotype, test it, write its model; return ``result.json``."""
    path = trial.folder / RESULT
    if path.is_file():
        return files.read_object(path, RunError, "fold", "seed", "parameters", "genotype")
    genotype.save(trial.folder / GENOTYPE)
    recipe, parts = trial.recipe, trial.parts
    normalisation = data.normalisation(parts.train)
    torch.manual_seed(derive_seed(trial.seed_of_fold, "network"))
    compute = recipe.compute
    implementation = resolve(compute.fast, trial.device, compute.precision)
    quick = _network(trial, data, genotype, implementation)
    trained = train_network(
        quick,
        data.part(parts.train, normalisation, trial.device, varied=True),
        data.part(parts.validation, normalisation, trial.device),
        recipe.training,
        len(data.classes),
        seed=trial.seed_of_fold,
        folder=trial.folder,
        progress=progress,
        task=f"train {trial.title}",
        precision=recipe.compute.precision,
    )
    # What is tested computes as what is saved.
    network = _network(trial, data, genotype, "plain").eval()
    network.load_state_dict(quick.state_dict())
    bundle = Bundle(
        network, recipe.features, normalisation, data.classes, fingerprint=data.fingerprint
    )
    result = _result(trial, data, bundle, trained)
    if parts.test:
        predictions = predict_part(trial, data, bundle, parts.test)
        write_predictions(trial.folder / PREDICTIONS, predictions, data.classes)
        result |= _scores(predictions, data.classes)
        if recipe.training.optimistic:
            _write_optimistic(trial, data, bundle, trained)
    origin = {
        "corpus": data.corpus,
        "notice": data.notice,
        "data_digest": data.digest,
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        **result,
    }
    save_bundle(trial.folder / MODEL, replace(bundle, origin=origin))
    files.write_json(path, result)
    # Only now: a run that is killed before and resumed needs them again.
    shutil.rmtree(trial.folder / EPOCHS, ignore_errors=True)
    return result


def _network(
    trial: Trial, data: Dataset, genotype: Genotype, implementation: Implementation
) -> SearchedNetwork:
    recipe = trial.recipe
    return SearchedNetwork(
        genotype,
        recipe.trained_network,
        recipe.features.n_features,
        len(data.classes),
        n_channels=data.features.shape[1],
        auxiliary=recipe.training.auxiliary_weight > 0,
        implementation=implementation,
    ).to(trial.device)


def _result(trial: Trial, data: Dataset, bundle: Bundle, trained: Trained) -> dict[str, Any]:
    _, channels, n_features, n_frames = data.features.shape
    chosen = trained.history[trained.epoch - 1]
    return {
        "fold": trial.fold if trial.parts.test else None,
        "seed": trial.seed,
        "epoch": trained.epoch,
        "validation_ua": chosen["validation_ua"],
        "parameters": count_parameters(bundle.network),
        "multiply_adds": count_multiply_adds(bundle.network, (channels, n_features, n_frames)),
        "genotype": bundle.genotype.to_dict(),
    }


def _scores(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any]:
    scores = score([p.label for p in predictions], [p.predicted for p in predictions], classes)
    return {
        "n_test": len(predictions),
        "ua": scores.ua,
        "wa": scores.wa,
        "macro_f1": scores.macro_f1,
        "confusion": [list(row) for row in scores.confusion],
        "absent_classes": list(scores.absent),
    }


def predict_part(trial: Trial, data: Dataset, bundle: Bundle, indices: Indices) -> list[Prediction]:
    """What a model says of some utterances of a dataset."""
    part = data.part(indices, bundle.normalisation, trial.device)
    logits = join_pieces(predict_logits(bundle.network, part.features), part.owners).cpu()
    answers = logits.argmax(dim=1).tolist()
    return [
        Prediction(
            name=data.utterances[i].name,
            speaker=data.utterances[i].speaker,
            fold=trial.fold,
            seed=trial.seed,
            label=data.utterances[i].known_label(),
            predicted=data.classes[answer],
            probabilities=tuple(probabilities),
        )
        for i, answer, probabilities in zip(
            indices, answers, torch.softmax(logits.double(), dim=1).tolist(), strict=True
        )
    ]


def trial_predictions(trial: Trial) -> tuple[Prediction, ...]:
    """Read the predictions that :func:`train_trial` wrote. Raises :class:`RunError`."""
    return read_predictions(trial.folder / PREDICTIONS)[0]


def _write_optimistic(trial: Trial, data: Dataset, bundle: Bundle, trained: Trained) -> None:
    """Score every epoch on the test fold, now that the choice is made, and keep the best."""
    chosen = {k: v.clone() for k, v in bundle.network.model_state().items()}
    best: dict[str, Any] = {}
    for epoch in range(1, len(trained.history) + 1):
        tensors, _ = load_tensors(epoch_file(trial.folder, epoch))
        bundle.network.load_state_dict(tensors, strict=False)
        scores = _scores(predict_part(trial, data, bundle, trial.parts.test), data.classes)
        for metric in ("ua", "wa"):
            key = f"test_{metric}_of_best_test_epoch"
            best[key] = max(best.get(key, 0.0), scores[metric])
    bundle.network.load_state_dict(chosen, strict=False)
    warning = "optimistic: the epoch is chosen on the test fold, and for each score anew"
    files.write_json(trial.folder / OPTIMISTIC, {**best, "warning": warning})
