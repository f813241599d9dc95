"""What all systems share that are one network trained by gradient descent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from emodarts import files
from emodarts.audio.features import band_frequencies
from emodarts.checkpoint import load_tensors, with_prefix, without_prefix
from emodarts.cost import Spent
from emodarts.errors import RunError
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe import FeatureSpec, PerturbationSpec, Recipe
from emodarts.runtime import derive_seed
from emodarts.splits import Indices
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.system import Cost, FitTask, Outcome, Saved
from emodarts.training.batches import Normalisation, predict_logits
from emodarts.training.classifier import Classifier, Ensemble
from emodarts.training.fit import Trained, train_network
from emodarts.training.views import Hearing, Views

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
        """Feature maps ``(B, C, F, T)``, not normalised -> class probabilities ``(B, K)``.

        Frames that are NaN are missing, and have no part in the answer.
        """
        normalised = self.normalisation.apply(joined(list(inputs.values())))
        return torch.softmax(predict_logits(self._for_inference, normalised), dim=1)

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
    """Fill an untrained network from :meth:`FittedNetwork.state`, or as many as an ensemble has.

    Raises
    ------
    KeyError, RuntimeError
        If the tensors do not fit the network.
    """
    others = [copy.deepcopy(network) for _ in range(1, saved.settings["members"])]
    speeds = saved.settings.get("speeds", [1.0])
    network = _together([network, *others], speeds, [*saved.inputs.values()])
    network.load_state_dict(without_prefix("network", saved.tensors))
    statistics = without_prefix("normalisation", saved.tensors)
    normalisation = Normalisation(statistics["mean"], statistics["sd"])
    return FittedNetwork(network, normalisation, saved.settings, genotype)


def _together(
    networks: Sequence[Classifier], speeds: list[float], inputs: Sequence[FeatureSpec]
) -> Classifier:
    """What answers: one network alone, or several or at several speeds."""
    hearing = None
    if speeds != [1.0]:
        [spec] = inputs
        hearing = Hearing(speeds, cast(Tensor, band_frequencies(spec)))
    elif len(networks) == 1:
        return networks[0]
    return Ensemble(networks, hearing)


def training_views(recipe: Recipe, perturbed: bool = True) -> Views | None:
    """What batches of a recipe's features are made of; None: the maps as they are."""
    spec, *others = recipe.inputs.values()
    training = recipe.training
    perturbation = training.perturbation if perturbed else PerturbationSpec()
    if spec.padding == "zeros" and training.crop is None and perturbation == PerturbationSpec():
        return None
    seconds = spec.duration if training.crop is None else training.crop
    frames = int(spec.frames_of(round(seconds * spec.sample_rate)))
    return Views(frames, perturbation, None if others else band_frequencies(spec))


def joined(maps: Sequence[Tensor]) -> Tensor:
    """Maps ``(..., F, T)`` of all inputs as one, with the features of all in each frame.

    Frames that one of the inputs lacks are left out, or missing (NaN).
    """
    if len(maps) == 1:
        return maps[0]
    frames = min(m.shape[-1] for m in maps)
    together = torch.cat([m[..., :frames] for m in maps], dim=-2)
    return together.masked_fill(torch.isnan(together).any(dim=-2, keepdim=True), torch.nan)


def train(
    task: FitTask,
    build: Build,
    train_on: Indices,
    choose_on: Indices,
    folder: TrialFolder,
    title: str,
    seed: int | None = None,
) -> tuple[Classifier, Normalisation, Trained]:
    """Train a network on some utterances, and score it on others, if any, after every epoch.

    ``seed`` stands for that of the task.

    Returns
    -------
    The network with the weights of the chosen epoch, the normalisation of its input and what
    training found.
    """
    recipe, data = task.recipe, task.data
    seed = task.seed if seed is None else seed
    normalisation = data.normalisation(train_on)
    torch.manual_seed(derive_seed(seed, "network"))
    network = build(True).to(task.device)
    trained = train_network(
        network,
        data.part(train_on, normalisation, task.device, varied=True, views=training_views(recipe)),
        data.part(choose_on, normalisation, task.device) if choose_on else None,
        recipe.training,
        task.n_classes,
        seed=seed,
        folder=folder,
        progress=task.progress,
        title=title,
        precision=recipe.compute.precision,
    )
    return network, normalisation, trained


def fit_network(
    task: FitTask, build: Build, settings: Mapping[str, Any], genotype: Genotype | None = None
) -> Outcome:
    """Train a network, or the members of an ensemble, on the parts of the protocol.

    The first member trains as the only one would, in the folder of the task.
    """
    parts, spec = task.parts, task.recipe.training
    folders = [task.folder, *(task.folder.member(k) for k in range(1, spec.ensemble))]
    members = []
    for k, folder in enumerate(folders):
        seed = derive_seed(task.seed, "member", k) if k else task.seed
        of = f", network {k + 1} of {spec.ensemble}" if spec.ensemble > 1 else ""
        title = f"train {task.title}{of}"
        members.append(train(task, build, parts.train, parts.validation, folder, title, seed))
    _network, normalisation, trained = members[0]
    speeds, inputs = list(spec.test_speeds), [*task.recipe.inputs.values()]
    settings = {**settings, "members": spec.ensemble, "speeds": speeds}

    def as_saved(states: Sequence[Mapping[str, Tensor]]) -> FittedNetwork:
        # What is tested computes as what is saved.
        networks = []
        for state in states:
            networks.append(build(False))
            networks[-1].load_state_dict(state)
        plain = _together(networks, speeds, inputs)
        return FittedNetwork(plain, normalisation, settings, genotype)

    def epochs() -> Iterator[FittedNetwork]:
        for epoch in range(1, len(trained.history) + 1):
            yield as_saved([load_tensors(task.folder.epoch_weights(epoch))[0]])

    fitted = as_saved([member.model_state() for member, _, _ in members])
    (maps,) = task.data.maps.values()
    cost = Cost(
        count_parameters(fitted.network),
        count_multiply_adds(fitted.network, tuple(maps.features.shape[1:])),
        spent_on(*(folder.training_history for folder in folders)),
        spent_on_search(task.folder) if task.recipe.searches else None,
    )
    details = {"epoch": trained.epoch}
    if parts.validation:
        details["validation_ua"] = trained.history[trained.epoch - 1]["validation_ua"]
    return Outcome(
        fitted,
        cost,
        details,
        [as_saved([member.model_state()]) for member, _, _ in members] if len(members) > 1 else (),
        epochs() if spec.optimistic else None,
    )


def spent_on(*histories: Path) -> Spent:
    """Of all epochs in those of some histories that exist."""
    rows = [row for p in histories if p.is_file() for row in files.read_csv(p, RunError)]
    return sum(map(Spent.of, rows), Spent())


def spent_on_search(folder: TrialFolder) -> Spent:
    """Of its epochs, the choice at their end, and all candidates."""
    histories, choices = [folder.search_history], [folder.choice]
    for name in (folder.search_history.name, folder.training_history.name):
        histories += folder.candidates.rglob(name)
    choices += folder.candidates.rglob(folder.choice.name)
    written = [files.read_object(p, RunError, "steps") for p in choices if p.is_file()]
    return sum(map(Spent.of, written), spent_on(*histories))


class NetworkSystem:
    """A system that is one network given by hand, which a subclass names."""

    network: ClassVar[Any]
    """A classifier that is made with the keys of the system, those of the features, and the number
    of classes."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def fit(self, task: FitTask) -> Outcome:
        """Train on the parts for it."""
        return fit_network(
            task, lambda training: self._network(task.recipe.inputs, task.n_classes), {}
        )

    def restore(self, saved: Saved) -> FittedNetwork:
        """The network of a bundle; see :meth:`emodarts.systems.system.System.restore`."""
        return restore_network(self._network(saved.inputs, len(saved.classes)), saved)

    def parameters(self, recipe: Recipe, n_classes: int) -> int | None:
        """Trained numbers of the networks that answer together; None for unknown features."""
        if not all(spec.is_complete for spec in recipe.inputs.values()):
            return None
        return recipe.training.ensemble * count_parameters(self._network(recipe.inputs, n_classes))

    def _network(self, inputs: Mapping[str, FeatureSpec], n_classes: int) -> Classifier:
        (features,) = inputs.values()
        network: Classifier = self.network(self.spec, features, n_classes)
        return network
