"""An explanation finds the part of the sound that an answer depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from emodarts.bundle import Bundle
from emodarts.errors import AudioError
from emodarts.recipe import FeatureSpec, SystemSpec
from emodarts.serving.explain import explain, write_picture
from emodarts.serving.model import Model

RATE = 8000
MEL = FeatureSpec.model_validate(
    {
        "kind": "log_mel",
        "sample_rate": RATE,
        "duration": 4.0,
        "n_fft": 256,
        "hop_length": 128,
        "n_mels": 32,
    },
    strict=False,
)


@dataclass(frozen=True)
class HighBandLast:
    """Sure of ``high`` in so far as the highest quarter of the bands is loud at the end."""

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        [maps] = inputs.values()
        last = maps[:, 0, 24:].nanmean(dim=1)
        level = torch.stack([row[~row.isnan()][-4:].mean() for row in last])
        share = torch.sigmoid((level + 20) / 5)
        return torch.stack([1 - share, share], dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}


def test_the_tile_that_decides_is_found_and_drawn(tmp_path: Path) -> None:
    bundle = Bundle(
        SystemSpec(kind="chance"),
        HighBandLast(),
        {"features": MEL},
        ("low", "high"),
        {"features": ""},
    )
    time = np.arange(RATE) / RATE
    sound = 0.2 * np.random.default_rng(0).standard_normal(RATE) * np.sin(7 * time) ** 2
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    found = explain(Model(bundle), tmp_path / "a.wav")
    assert found.answer.label == "high"
    assert found.answer.file == str(tmp_path / "a.wav")
    assert found.change.shape == (8, 4)
    frequency, when = np.unravel_index(found.change.argmin(), found.change.shape)
    assert found.frequencies[frequency] >= 1500
    assert found.times[when] >= 0.5
    assert found.change.min() < -0.02
    assert np.abs(found.change[:4]).max() < 0.1 * abs(found.change.min())  # low bands say nothing
    write_picture(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(AudioError, match="is silent"):
        explain(Model(bundle), tmp_path / "silent.wav")
    soundfile.write(tmp_path / "short.wav", sound[2000:2100], RATE)
    with pytest.raises(AudioError, match="has 12 ms; allowed: at least 16 ms"):
        explain(Model(bundle), tmp_path / "short.wav")
