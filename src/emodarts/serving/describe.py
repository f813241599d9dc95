"""What a model is, in words: its input, the blocks of its network, its cells, its origin."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from emodarts.bundle import Bundle
from emodarts.recipe import FeatureSpec
from emodarts.reports.cells import describe_genotype, draw_genotype
from emodarts.serving.model import Model
from emodarts.training.classifier import Ensemble

_LAYERS = {
    nn.Conv1d: "convolution",
    nn.Conv2d: "convolution",
    nn.GRU: "GRU layer",
    nn.LSTM: "LSTM layer",
    nn.RNN: "RNN layer",
    nn.Linear: "dense layer",
}
_KINDS = {
    "mfcc": "MFCC",
    "log_mel": "Log-mel bands",
    "stft": "Spectrogram",
    "waveform": "Raw samples",
    "opensmile": "eGeMAPS descriptors",
    "functionals": "openSMILE functionals",
    "embedding": "Speech embedding",
}
_NAMES = {
    "cnn": "CNN",
    "rnn": "RNN",
    "seqnn": "SeqNN",
    "stem": "stem",
    "fixed": "sequence network",
    "cnn_cells": "CNN cells",
    "sequence_cells": "SeqNN cells",
}
_ORIGIN = ("corpus", "notice", "recipe", "fold", "seed", "n_test", "ua", "wa")


@dataclass(frozen=True)
class Part:
    """A block of the drawing of a network: its title, and what is in it."""

    title: str
    detail: str


@dataclass(frozen=True)
class Description:
    """A model in words and numbers.

    Attributes
    ----------
    classes : in the order of the probabilities.
    system : its kind; of a searched system that nothing was searched in, its layers.
    parameters : trained numbers, where they are known.
    parts : from the sound to the probabilities, in order.
    cells : the searched cells in words; None where there are none.
    origin : corpus, recipe and test scores, as far as the bundle has them.
    """

    classes: tuple[str, ...]
    system: str
    parameters: int | None
    parts: tuple[Part, ...]
    cells: str | None
    origin: Mapping[str, Any]


def describe(model: Model) -> Description:
    """Describe a model by what its bundle holds."""
    bundle = model.bundle
    genotype = bundle.genotype
    return Description(
        classes=model.classes,
        system=_system(bundle),
        parameters=bundle.origin.get("parameters"),
        parts=(
            *map(_input, bundle.inputs.values()),
            *_network(getattr(bundle.fitted, "network", None), bundle.system.kind),
            Part("Probabilities", ", ".join(model.classes)),
        ),
        cells=describe_genotype(genotype) if genotype and genotype.cells else None,
        origin={key: bundle.origin[key] for key in _ORIGIN if key in bundle.origin},
    )


def draw_cells(model: Model) -> bytes | None:
    """A drawing of the cells (SVG), or None where the network has none."""
    genotype = model.bundle.genotype
    if genotype is None or not genotype.cells:
        return None
    file = io.BytesIO()
    draw_genotype(genotype).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _system(bundle: Bundle) -> str:
    """The system ``searched`` also trains networks in which a recipe leaves nothing to search."""
    found = bundle.genotype
    if found is None or found.cells or found.macro:
        return bundle.system.kind
    network: Any = getattr(bundle.fitted, "network", None)
    one = network.members[0] if isinstance(network, Ensemble) else network
    return f"plain network of {_layers(one)}"


def _input(spec: FeatureSpec) -> Part:
    rate = f"{spec.sample_rate / 1000:g} kHz"
    return Part(
        _KINDS.get(spec.kind, spec.kind),
        f"{spec.n_features} a frame, of up to {spec.duration:g} s of sound at {rate}",
    )


def _network(network: nn.Module | None, system: str) -> Iterator[Part]:
    """The children of a network that learn something; those of an only child in its place."""
    if network is None:
        yield Part(f"System {system}", "")
        return
    ensemble, speeds = 1, []
    if isinstance(network, Ensemble):
        ensemble = len(network.members)
        speeds = [] if network.hearing is None else network.hearing.speeds
        network = network.members[0]
    children = _learned(network)
    while len(children) == 1 and _learned(children[0][1]):
        children = _learned(children[0][1])
    for name, child in children:
        if name != "auxiliary":
            title = _NAMES.get(name, name.replace("_", " "))
            layers = _layers(child)
            yield Part(
                _capital(layers if name.isdigit() else title),
                f"{'' if name.isdigit() else f'{layers}, '}{_size(child):,} parameters",
            )
    if ensemble > 1:
        yield Part(
            f"Mean of {ensemble} networks",
            "all of this kind, each trained from other random weights",
        )
    if speeds:
        yield Part(
            f"Mean of {len(speeds)} speeds",
            f"{', '.join(f'{float(s):g}' for s in speeds)} times that of the sound",
        )


def _learned(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if _size(child)]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layers(module: nn.Module) -> str:
    """What layers are in a module, e.g. ``4 convolutions and 1 LSTM layer``."""
    found = Counter(_LAYERS[type(m)] for m in module.modules() if type(m) in _LAYERS)
    words = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in found.items()]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or type(module).__name__


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
