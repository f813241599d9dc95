"""What all systems share that are one network trained by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from emodarts import files
from emodarts.checkpoint import load_tensors, with_prefix, without_prefix
from emodarts.errors import RunError
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.runtime import derive_seed
from emodarts.splits import Indices
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.system import Cost, FitTask, Outcome, Saved
from emodarts.training.batches import Normalisation
from emodarts.training.classifier import Classifier
from emodarts.training.fit import Trained, train_network

Build = Callable[[bool], Classifier]
"""Makes the untrained network: as it is trained (True), or as it is saved (False)."""


class FittedNetwork:
    """A trained network on the CPU, and the normalisation of its input.

    Parameters
    ----------
    network : as it is saved.
    normalisation : of the features, from the utterances that trained the network.
    settings : JSON values from which the network can be built again.
    genotype : its cells, where it has some.
    """

    def __init__(
        self,
        network: Classifier,
        normalisation: Normalisation,
        settings: Mapping[str, Any],
        genotype: Genotype | None = None,
    ) -> None:
        self.network = network.cpu().eval()
        self.normalisation = normalisation
        self.settings = settings
        self.genotype = genotype

    @cached_property
    def _for_inference(self) -> torch.nn.Module:
        return self.network.for_inference()

    @torch.inference_mode()
    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Feature maps ``(B, C, F, T)``, not normalised -> class probabilities ``(B, K)``."""
        (features,) = inputs.values()
        return torch.softmax(self._for_inference(self.normalisation.apply(features)), dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and statistics, and the settings."""
        statistics = {"mean": self.normalisation.mean, "sd": self.normalisation.sd}
        tensors = {
            **with_prefix("network", self.network.model_state()),
            **with_prefix("normalisation", statistics),
        }
        return tensors, dict(self.settings)


def restore_network(
    network: Classifier, saved: Saved, genotype: Genotype | None = None
) -> FittedNetwork:
    """Fill an untrained network from :meth:`FittedNetwork.state`.

    Raises
    ------
    KeyError, RuntimeError
        If the tensors do not fit the network.
    """
    network.load_state_dict(without_prefix("network", saved.tensors))
    statistics = without_prefix("normalisation", saved.tensors)
    normalisation = Normalisation(statistics["mean"], statistics["sd"])
    return FittedNetwork(network, normalisation, saved.settings, genotype)


def train(
    task: FitTask,
    build: Build,
    train_on: Indices,
    choose_on: Indices,
    folder: TrialFolder,
    title: str,
) -> tuple[Classifier, Normalisation, Trained]:
    """Train a network on some utterances and choose its epoch on others.

    Returns
    -------
    The network with the weights of the chosen epoch, the normalisation of its input and what
    training found.
    """
    recipe, data = task.recipe, task.data
    normalisation = data.normalisation(train_on)
    torch.manual_seed(derive_seed(task.seed, "network"))
    network = build(True).to(task.device)
    trained = train_network(
        network,
        data.part(train_on, normalisation, task.device, varied=True),
        data.part(choose_on, normalisation, task.device),
        recipe.training,
        task.n_classes,
        seed=task.seed,
        folder=folder,
        progress=task.progress,
        title=title,
        precision=recipe.compute.precision,
    )
    return network, normalisation, trained


def fit_network(
    task: FitTask, build: Build, settings: Mapping[str, Any], genotype: Genotype | None = None
) -> Outcome:
    """Train a network on the parts of the protocol."""
    network, normalisation, trained = train(
        task, build, task.parts.train, task.parts.validation, task.folder, f"train {task.title}"
    )

    def as_saved(state: Mapping[str, Tensor]) -> FittedNetwork:
        # What is tested computes as what is saved.
        plain = build(False)
        plain.load_state_dict(state)
        return FittedNetwork(plain, normalisation, settings, genotype)

    def epochs() -> Iterator[FittedNetwork]:
        for epoch in range(1, len(trained.history) + 1):
            yield as_saved(load_tensors(task.folder.epoch_weights(epoch))[0])

    fitted = as_saved(network.model_state())
    (maps,) = task.data.maps.values()
    cost = Cost(
        count_parameters(fitted.network),
        count_multiply_adds(fitted.network, tuple(maps.features.shape[1:])),
        _seconds(task.folder),
    )
    chosen = trained.history[trained.epoch - 1]
    details = {"epoch": trained.epoch, "validation_ua": chosen["validation_ua"]}
    return Outcome(fitted, cost, details, epochs() if task.recipe.training.optimistic else None)


def _seconds(folder: TrialFolder) -> float:
    """Time of all epochs of search and training, candidates and what was interrupted included."""
    own = (folder.search_history, folder.training_history)
    candidates = folder.candidates.rglob(folder.training_history.name)
    histories = [p for p in (*own, *candidates) if p.is_file()]
    rows = [row for path in histories for row in files.read_csv(path, RunError)]
    return sum(float(row["seconds"]) for row in rows)
