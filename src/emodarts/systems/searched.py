"""A network whose cells are found by a search: emoDARTS, CNN-DARTS and their like."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from emodarts import files, parallel
from emodarts.errors import GenotypeError, RunError
from emodarts.fast import resolve
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe import STRATEGIES, NetworkSpec, Recipe
from emodarts.recipe.system import SearchedSpec
from emodarts.runtime import derive_seed
from emodarts.searching.candidate import Candidate
from emodarts.searching.strategy import SearchTask
from emodarts.splits.fold import as_indices
from emodarts.splits.inner import inner_folds
from emodarts.systems.count import count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import (
    FittedNetwork,
    fit_network,
    restore_network,
    train,
    training_views,
)
from emodarts.systems.system import FitTask, Outcome, Saved
from emodarts.training.batches import join_pieces, loss_and_ua, predict_logits


class Searched:
    """Searches cells, then trains the network that they make."""

    def __init__(self, spec: SearchedSpec) -> None:
        self.spec = spec

    def check(
        self, genotype: Genotype, recipe: Recipe, n_classes: int, asked: Collection[str] = ()
    ) -> None:
        """Raise :class:`GenotypeError` if a recipe cannot have this genotype or contradicts it.

        Keys for which the search space has choices are decided by the genotype, unless they are
        among ``asked``: dotted keys of the recipe that were asked for by name.
        """
        network = recipe.trained_network
        DiscreteNetwork(genotype, network, recipe.features.n_features, n_classes)
        made = network.with_choices(genotype.macro)
        for name, nodes in made.nodes.items():
            part = "seqnn" if name == "sequence" else "cnn"
            _refuse_other(f"network.{part}.nodes", nodes, len(genotype.cells[name]))
        for key, found in (
            ("cells", made.cnn.cells),
            ("channels", made.cnn.channels),
            ("seqnn_cells", getattr(made.seqnn, "cells", None)),
        ):
            wanted = getattr(self.spec, key)
            _refuse_other(f"system.{key}", found if wanted is None else wanted, found)
        keys = {key for key in genotype.macro if key not in recipe.network.macro}
        keys |= {key.removeprefix("network.") for key in asked if key.startswith("network.")}
        before, after = (each.model_dump(mode="json") for each in (network, made))
        for key in sorted(keys):
            _refuse_other(f"network.{key}", _value_at(before, key), _value_at(after, key))

    def search(self, task: FitTask) -> Genotype:
        """The genotype in the trial's folder, or one that is searched and kept there."""
        path = task.folder.genotype
        if path.is_file():
            return Genotype.load(path)
        if not task.recipe.searches:
            return Genotype()
        parts, data, recipe = task.parts, task.data, task.recipe
        # Only utterances that train weights give statistics, in the search as in the training.
        normalisation = data.normalisation(parts.search_weights)
        views = training_views(recipe, perturbed=False)
        strategy = STRATEGIES[recipe.search.strategy].build(recipe.search)
        genotype: Genotype = strategy.search(
            SearchTask(
                network=recipe.network,
                weights=data.part(parts.search_weights, normalisation, task.device, views=views),
                alphas=data.part(parts.search_alphas, normalisation, task.device, views=views),
                n_classes=task.n_classes,
                seed=task.seed,
                folder=task.folder,
                device=task.device,
                compute=recipe.compute,
                progress=task.progress,
                title=f"search {task.title}",
                evaluate=partial(self._evaluate, task),
                cross_validate=partial(self._cross_validate_all, task),
            )
        )
        if parallel.leads():
            genotype.save(path)
        return genotype

    def fit(self, task: FitTask) -> Outcome:
        """Search, then train on the parts for it."""
        genotype = self.search(task)
        network = task.recipe.trained_network
        settings = {
            "genotype": genotype.to_dict(),
            "network": network.model_dump(mode="json"),
        }
        outcome = fit_network(task, self.build(task, genotype), settings, genotype)
        return replace(outcome, details={**outcome.details, **search_facts(task.folder)})

    def cross_validate(self, task: FitTask, candidate: Candidate) -> float:
        """UA of the pooled predictions of inner folds of the search data, each with last weights.

        The result is kept in the candidate's folder and read from there the next time.

        Raises
        ------
        SplitError
            If a class is too small for inner folds.
        """
        folder = candidate.folder(task.folder)
        if folder.result.is_file():
            return float(files.read_object(folder.result, RunError, "ua")["ua"])
        training = task.recipe.training
        epochs = candidate.epochs or training.epochs
        changes = {"select": "last", "optimistic": False, "epochs": epochs}
        inner = replace(
            task,
            recipe=task.recipe.model_copy(update={"training": training.model_copy(update=changes)}),
            seed=derive_seed(task.seed, "candidate", candidate.seed),
        )
        part = as_indices({*task.parts.search_weights, *task.parts.search_alphas})
        apart, folds = inner_folds(task.data.utterances, part, candidate.inner_folds, task.seed)
        logits, targets = [], []
        name = f"candidate {folder.path.parent.name[:6]} seed {candidate.seed}"
        for k, (train_on, judge_by) in enumerate(folds):
            network, normalisation, _ = train(
                inner,
                self.build(inner, candidate.genotype),
                train_on,
                (),  # nothing is chosen: judged once, by the last weights
                TrialFolder(folder.path / f"fold-{k}"),
                f"{name}, inner fold {k} of {task.title}",
            )
            judged = task.data.part(judge_by, normalisation, task.device)
            logits.append(join_pieces(predict_logits(network, judged.features), judged.owners))
            targets.append(judged.utterance_targets)
        _, ua = loss_and_ua(torch.cat(logits), torch.cat(targets))
        candidate.genotype.save(folder.genotype)
        files.write_json(folder.result, {"ua": ua, "folds": len(folds), "apart": apart})
        for k in range(len(folds)):  # histories stay, as the cost of the search
            TrialFolder(folder.path / f"fold-{k}").training_checkpoint.unlink(missing_ok=True)
        return ua

    def _cross_validate_all(self, task: FitTask, candidates: Sequence[Candidate]) -> list[float]:
        if task.candidates_ahead is not None:
            task.progress.start(f"candidates of {task.title}", len(candidates))
            for _ in task.candidates_ahead(candidates):
                task.progress.advance()
        return [self.cross_validate(task, candidate) for candidate in candidates]

    def restore(self, saved: Saved) -> FittedNetwork:
        """The network of a bundle; see :meth:`emodarts.systems.system.System.restore`."""
        genotype = Genotype.from_dict(saved.settings["genotype"])
        spec = NetworkSpec.model_validate(saved.settings["network"], strict=False)
        (features,) = saved.inputs.values()
        network = DiscreteNetwork(
            genotype,
            spec,
            features.n_features,
            len(saved.classes),
            n_channels=features.n_channels,
        )
        return restore_network(network, saved, genotype)

    def parameters(self, recipe: Recipe, n_classes: int) -> int | None:
        """Trained numbers of the networks that answer together; None where cells are searched."""
        if recipe.searches:
            return None
        features = recipe.features
        network = DiscreteNetwork(
            Genotype(),
            recipe.trained_network,
            features.n_features,
            n_classes,
            n_channels=features.n_channels,
        )
        return recipe.training.ensemble * count_parameters(network)

    def build(self, task: FitTask, genotype: Genotype) -> Callable[[bool], DiscreteNetwork]:
        """What makes the network of a genotype for the recipe and the maps of a task."""
        recipe = task.recipe
        (maps,) = task.data.maps.values()
        n_channels, n_features = maps.features.shape[1:3]

        def build(training: bool) -> DiscreteNetwork:
            return DiscreteNetwork(
                genotype,
                recipe.trained_network,
                n_features,
                task.n_classes,
                n_channels=n_channels,
                drop_path=self.spec.drop_path,
                auxiliary_weight=self.spec.auxiliary_weight if training else 0.0,
                gender_weight=self.spec.gender_weight if training else 0.0,
                implementation=resolve(
                    training and recipe.compute.fast, task.device, recipe.compute.precision
                ),
            )

        return build

    def _evaluate(self, task: FitTask, genotype: Genotype, epochs: int | None = None) -> float:
        """UA on the data for alphas of a network that the data for weights trained."""
        digest = files.digest_of([genotype.to_dict(), epochs])[:16]
        folder = TrialFolder(task.folder.candidates / digest)
        if folder.result.is_file():
            found = files.read_object(folder.result, RunError, "ua")
            return float(found["ua"])
        training = task.recipe.training
        changes = {"optimistic": False, "epochs": epochs or training.epochs}
        inner = replace(
            task,
            recipe=task.recipe.model_copy(update={"training": training.model_copy(update=changes)}),
        )
        _, _, trained = train(
            inner,
            self.build(inner, genotype),
            task.parts.search_weights,
            task.parts.search_alphas,
            folder,
            f"candidate {digest} of {task.title}",
        )
        ua = float(trained.history[trained.epoch - 1]["validation_ua"])
        genotype.save(folder.genotype)
        files.write_json(folder.result, {"ua": ua, "epoch": trained.epoch})
        folder.training_checkpoint.unlink(missing_ok=True)
        return ua


def _refuse_other(key: str, wanted: Any, found: Any) -> None:
    if wanted != found:
        raise GenotypeError(
            f"{key} is {json.dumps(wanted)}, and the genotype has {json.dumps(found)}; set "
            f"{key}={json.dumps(found)}, or train another genotype"
        )


def _value_at(value: Any, key: str) -> Any:
    """Value of a dotted key; None where a section on the way is null or has no such key."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def search_facts(*folders: TrialFolder) -> dict[str, Any]:
    """Of searches with a supernet: how long they warmed up, and whether all rose above chance."""
    histories = [f.search_history for f in folders if f.search_history.is_file()]
    rows = [files.read_csv(path, RunError) for path in histories]
    if not rows or not all("warm_up" in row for each in rows for row in each):
        return {}
    facts = {
        "warmup_epochs": sum(row["warm_up"] == "1" for each in rows for row in each),
        "above_chance": all(any(row["above_chance"] == "1" for row in each) for each in rows),
    }
    return {"search": facts}
