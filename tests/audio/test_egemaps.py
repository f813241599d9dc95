"""openSMILE's descriptors: the values, their order, and the number of frames."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from emodarts.audio.egemaps import Egemaps
from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.errors import RecipeError
from emodarts.recipe.features import OpensmileSpec

opensmile = pytest.importorskip("opensmile", reason="the extra opensmile is not installed")


def noise(rows: int, samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(0))


def test_equals_opensmile_on_real_speech(emodb_root: Path) -> None:
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    spec = OpensmileSpec(duration=1.5)
    paths = sorted(emodb_root.rglob("*.wav"))[:2]
    sounds = [fit_length(load_audio(path, 16000), spec.n_samples) for path in paths]
    extractor = FeatureExtractor(spec)
    maps = extractor(torch.from_numpy(np.stack(sounds)))
    assert maps.shape == (2, 1, 25, spec.n_frames) == (2, 1, 25, 146)
    for ours, sound in zip(maps, sounds, strict=True):
        table = smile.process_signal(sound, 16000)
        assert np.array_equal(ours[0].numpy(), table.to_numpy().T)
        assert tuple(table.columns) == extractor.transform.names
    assert extractor.fingerprint == f"opensmile {opensmile.__version__}"


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 32750, 44100])
@pytest.mark.parametrize("duration", [0.06, 0.0712, 0.1, 0.333, 0.5])
def test_frames_are_as_opensmile_counts(rate: int, duration: float) -> None:
    spec = OpensmileSpec(sample_rate=rate, duration=duration)
    assert Egemaps(spec)(noise(1, spec.n_samples)).shape == (1, 25, spec.n_steps)


def test_pitch_is_where_it_is_said_to_be() -> None:
    """A tone with harmonics at 220 Hz is 36 semitones above 27.5 Hz."""
    time = torch.arange(16000) / 16000
    tone = sum(torch.sin(2 * torch.pi * 220 * k * time) / k for k in range(1, 8))
    extractor = FeatureExtractor(OpensmileSpec(duration=1.0))
    row = extractor.transform.names.index("F0semitoneFrom27.5Hz_sma3nz")
    pitch = extractor(0.1 * tone[None])[0, 0, row]
    assert pitch[10:-10].tolist() == pytest.approx([36.0] * (len(pitch) - 20), abs=0.1)


def test_rows_are_alone_in_a_batch_and_in_threads() -> None:
    spec = OpensmileSpec(duration=0.4, pool=2, deltas=1)
    extractor = FeatureExtractor(spec)
    waveforms = noise(4, spec.n_samples)
    together = extractor(waveforms)
    assert together.shape == (4, 2, 25, spec.n_frames)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(extractor, waveforms.split(1)))
    assert torch.equal(torch.cat(alone), together)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(RecipeError, match=r"pip install opensmile"):
        FeatureExtractor(OpensmileSpec())
