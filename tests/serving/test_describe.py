"""Models in words: searched and hand-made networks, ensembles, systems without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from served import CLASSES, save_model

from emodarts.bundle import Bundle
from emodarts.recipe import FeatureSpec, SystemSpec
from emodarts.recipe.system import HandMadeCNNSpec
from emodarts.serving.describe import describe, draw_cells
from emodarts.serving.model import Model
from emodarts.systems.hand_made import HandMadeNetwork
from emodarts.systems.neural import FittedNetwork
from emodarts.training.batches import Normalisation
from emodarts.training.classifier import Ensemble
from emodarts.training.views import Hearing

MEL = FeatureSpec(
    kind="log_mel", sample_rate=8000, duration=1.0, n_fft=256, hop_length=128, n_mels=16
)


class Silent:
    """A system without a network."""

    genotype = None

    def probabilities(self, inputs: Any) -> torch.Tensor:
        raise NotImplementedError

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}


def hand_made(members: int) -> FittedNetwork:
    networks = [HandMadeNetwork(HandMadeCNNSpec(), MEL, 4) for _ in range(members)]
    network = networks[0] if members == 1 else Ensemble(networks)
    return FittedNetwork(network, Normalisation(torch.zeros(1, 16), torch.ones(1, 16)), {})


def model_of(fitted: Any) -> Model:
    return Model(Bundle(SystemSpec(kind="chance"), fitted, {"mel": MEL}, CLASSES, {"mel": ""}))


@pytest.mark.parametrize(
    ("members", "last"), [(1, ()), (3, ("Mean of 3 networks",))], ids=["one", "ensemble"]
)
def test_a_hand_made_network_is_its_layers(members: int, last: tuple[str, ...]) -> None:
    found = describe(model_of(hand_made(members)))
    titles = [part.title for part in found.parts]
    layers = ("1 convolution", "1 dense layer", "1 dense layer")
    assert titles == ["Log-mel bands", *layers, *last, "Probabilities"]
    assert found.parts[0].detail == "16 a frame, of up to 1 s of sound at 8 kHz"
    assert found.parts[1].detail == "5 parameters"
    assert found.cells is None
    assert draw_cells(model_of(hand_made(members))) is None


def test_speeds_are_named() -> None:
    fitted = hand_made(3)
    fitted.network.hearing = Hearing([0.9, 1.0], torch.arange(1.0, 17.0))
    part = describe(model_of(fitted)).parts[-2]
    assert (part.title, part.detail) == ("Mean of 2 speeds", "0.9, 1 times that of the sound")


def test_a_system_without_a_network_is_its_name() -> None:
    found = describe(model_of(Silent()))
    assert [p.title for p in found.parts] == ["Log-mel bands", "System chance", "Probabilities"]


def test_searched_cells_are_drawn_and_described(tmp_path: Path) -> None:
    model = Model.load(save_model(tmp_path / "model"))
    found = describe(model)
    assert found.classes == CLASSES
    assert found.parameters == 1234
    assert found.system == "searched"
    assert found.cells is not None
    assert "Sequence cell: node 0 is" in found.cells
    drawing = draw_cells(model)
    assert drawing is not None
    assert b"<svg" in drawing


def test_a_network_in_which_nothing_was_searched_is_its_layers() -> None:
    found = describe(Model.load("emodb"))
    assert found.system == "plain network of 4 convolutions, 2 dense layers and 1 LSTM layer"
    assert found.cells is None
