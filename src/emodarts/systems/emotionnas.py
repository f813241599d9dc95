"""EmotionNAS (arXiv 2203.13617): two streams that are searched apart and trained together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from emodarts.cost import Spent
from emodarts.dataset import Dataset, Maps
from emodarts.errors import RecipeError
from emodarts.genotype import Genotype
from emodarts.recipe import CNNSpec, NetworkSpec, NoSeqNN, Recipe
from emodarts.recipe.system import EmotionNASSpec, SearchedSpec
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import (
    FittedNetwork,
    fit_network,
    joined,
    restore_network,
    spent_on_search,
)
from emodarts.systems.searched import Searched, search_facts
from emodarts.systems.system import FitTask, Outcome, Saved
from emodarts.training.classifier import Classifier, Head


class InformationSupplement(nn.Module):
    """Two vectors, each supplemented by a gated share of the other, joined.

    ``[a + sigmoid(W_a [a, b] + c_a) * b, b + sigmoid(W_b [a, b] + c_b) * a]``, where a and b are
    the vectors brought to one width.
    """

    def __init__(self, widths: tuple[int, int], width: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList([nn.Linear(w, width) for w in widths])
        self.gates = nn.ModuleList([nn.Linear(2 * width, width) for _ in widths])

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, widths[0])`` and ``(B, widths[1])`` -> ``(B, 2 * width)``."""
        a, b = self.enter[0](first), self.enter[1](second)
        both = torch.cat([a, b], dim=1)
        of_a, of_b = (torch.sigmoid(gate(both)) for gate in self.gates)
        return torch.cat([a + of_a * b, b + of_b * a], dim=1)


class TwoStreams(Classifier):
    """Two networks without their dense layers, joined by an information supplement module.

    Parameters
    ----------
    cnn, rnn : the networks; the auxiliary head of the first is that of both.
    width : of the supplement module.
    dropout : before the dense layer.
    """

    def __init__(
        self, cnn: DiscreteNetwork, rnn: DiscreteNetwork, width: int, dropout: float
    ) -> None:
        super().__init__()
        n_classes = cnn.classifier.out_features
        self.supplement = InformationSupplement(
            (cnn.classifier.in_features, rnn.classifier.in_features), width
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, n_classes)
        for stream in (cnn, rnn):
            stream.classifier = nn.Identity()  # type: ignore[assignment]
        self.cnn, self.rnn = cnn, rnn

    def forward(self, features: Tensor) -> Tensor:
        """Features of both streams ``(B, C, F, T)`` -> logits ``(B, K)``."""
        own, other = self._parts(features)
        return self._answer(self.cnn(own), self.rnn(other))

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, list[Head]]:
        """The same, and the logits of the auxiliary head."""
        own, other = self._parts(features)
        vector, heads = self.cnn.forward_with_auxiliary(own)
        return self._answer(vector, self.rnn(other)), heads

    def _parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        first = self.cnn.n_features
        return features[:, :, :first], features[:, :, first:]

    def _answer(self, first: Tensor, second: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.supplement(first, second)))
        return logits

    def begin_epoch(self, share: float) -> None:
        """Drop edges more often, the more of the epochs is done."""
        self.cnn.begin_epoch(share)
        self.rnn.begin_epoch(share)

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without the auxiliary head."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("cnn.auxiliary.")}


class EmotionNAS:
    """Searches the cells of each stream by itself, then trains both together."""

    def __init__(self, spec: EmotionNASSpec) -> None:
        self.spec = spec
        self.searched = Searched(
            SearchedSpec(drop_path=spec.drop_path, auxiliary_weight=spec.auxiliary_weight)
        )

    def check(
        self, genotype: Genotype, recipe: Recipe, n_classes: int, asked: Collection[str] = ()
    ) -> None:
        """Raise :class:`GenotypeError` if a recipe cannot have this genotype."""
        cells = _divided(genotype)
        for name, own in self._recipes(recipe).items():
            self.searched.check(cells[name], own, n_classes)

    def search(self, task: FitTask) -> Genotype:
        """The genotype in the trial's folder, or the cells that the two searches find."""
        path = task.folder.genotype
        if path.is_file():
            return Genotype.load(path)
        cnn, rnn = (self.searched.search(stream) for stream in self._streams(task).values())
        genotype = Genotype(cnn.normal, cnn.reduction, rnn.sequence)
        genotype.save(path)
        return genotype

    def fit(self, task: FitTask) -> Outcome:
        """Search each stream, then train both together on the parts for it."""
        genotype = self.search(task)
        streams, cells = self._streams(task), _divided(genotype)
        builders = {
            name: self.searched.build(stream, cells[name]) for name, stream in streams.items()
        }
        settings = {
            "genotype": genotype.to_dict(),
            "network": task.recipe.network.model_dump(mode="json"),
        }
        outcome = fit_network(
            replace(task, data=_joined_data(task.data)),
            lambda training: self._join({k: b(training) for k, b in builders.items()}),
            settings,
            genotype,
        )
        searches = [spent_on_search(stream.folder) for stream in streams.values()]
        cost = replace(outcome.cost, search=sum(searches, Spent()))
        facts = search_facts(*(stream.folder for stream in streams.values()))
        return replace(outcome, cost=cost, details={**outcome.details, **facts})

    def restore(self, saved: Saved) -> FittedNetwork:
        """The network of a bundle; see :meth:`emodarts.systems.system.System.restore`."""
        genotype = Genotype.from_dict(saved.settings["genotype"])
        network = NetworkSpec.model_validate(saved.settings["network"], strict=False)
        cells, specs = _divided(genotype), _networks(network)
        streams = {
            name: DiscreteNetwork(
                cells[name],
                specs[name],
                features.n_features,
                len(saved.classes),
                n_channels=features.n_channels,
            )
            for name, features in saved.inputs.items()
        }
        return restore_network(self._join(streams), saved, genotype)

    def _join(self, streams: Mapping[str, DiscreteNetwork]) -> TwoStreams:
        return TwoStreams(streams["cnn"], streams["rnn"], self.spec.width, self.spec.dropout)

    def _recipes(self, recipe: Recipe) -> dict[str, Recipe]:
        """What each stream is searched by, as if it were all."""
        networks = _networks(recipe.network)
        return {
            name: recipe.model_copy(
                update={
                    "system": self.searched.spec,
                    "features": features,
                    "network": networks[name],
                }
            )
            for name, features in recipe.inputs.items()
        }

    def _streams(self, task: FitTask) -> dict[str, FitTask]:
        """The task of each stream, with its own input and folder."""
        return {
            name: replace(
                task,
                recipe=recipe,
                data=replace(task.data, maps={"features": task.data.maps[name]}),
                folder=task.folder.stream(name),
                title=f"{task.title}, {name.upper()} stream",
            )
            for name, recipe in self._recipes(task.recipe).items()
        }


def _networks(network: NetworkSpec) -> dict[str, NetworkSpec]:
    """The CNN of a network as one stream, and its SeqNN as the other."""
    if network.macro:
        raise RecipeError(
            f"network.cnn.space {network.cnn.space!r} has choices around the cells, which system "
            "'emotionnas' divides into two streams; allowed: a space of cells alone"
        )
    changes: dict[str, dict[str, Any]] = {
        "cnn": {"seqnn": NoSeqNN(mode="none")},
        # The stem of one channel is a linear filter of the frames.
        "rnn": {"cnn": CNNSpec(cells=0, channels=1), "stem": None, "frequency": "join"},
    }
    return {name: network.model_copy(update=change) for name, change in changes.items()}


def _divided(genotype: Genotype) -> dict[str, Genotype]:
    """The cells of each stream."""
    return {
        "cnn": Genotype(genotype.normal, genotype.reduction, macro=genotype.macro),
        "rnn": Genotype(sequence=genotype.sequence),
    }


def _joined_data(data: Dataset) -> Dataset:
    """The maps of both streams as one, on which both are trained together."""
    maps = list(data.maps.values())
    variants = zip(*(m.variants for m in maps), strict=True)
    together = Maps(joined([m.features for m in maps]), tuple(map(joined, variants)))
    return replace(data, maps={"features": together})
