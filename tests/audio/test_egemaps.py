"""openSMILE's descriptors and functionals: values, order, frames, and padding."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emodarts.audio.egemaps import Egemaps
from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.audio.store import extract
from emodarts.corpora.utterance import Utterance
from emodarts.errors import RecipeError
from emodarts.recipe.features import FeatureSpec, FunctionalsSpec, OpensmileSpec

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


SETS = pytest.mark.parametrize(
    ("feature_set", "size", "n_files"), [("eGeMAPSv02", 88, 6), ("ComParE_2016", 6373, 2)]
)


@SETS
def test_functionals_of_a_padded_file_equal_opensmile_on_the_file(
    emodb_root: Path, tmp_path: Path, feature_set: str, size: int, n_files: int
) -> None:
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet[feature_set],
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    spec = FunctionalsSpec(feature_set=feature_set)
    paths = sorted(emodb_root.rglob("*.wav"))[::60][:n_files]
    rows = [Utterance(path.stem, path, "x", "s") for path in paths]
    features = extract(rows, spec, tmp_path).features
    assert features.shape == (n_files, 1, size, 1)
    for path, ours in zip(paths, features, strict=True):
        table = smile.process_signal(load_audio(path, 16000), 16000)
        assert np.array_equal(ours[0, :, 0].numpy(), table.to_numpy()[0])
        assert tuple(table.columns) == FeatureExtractor(spec).transform.names


@SETS
def test_functionals_of_a_row_depend_on_that_row_alone(
    feature_set: str, size: int, n_files: int
) -> None:
    spec = FunctionalsSpec(feature_set=feature_set, duration=0.5)
    extractor = FeatureExtractor(spec)
    waveforms = noise(4, spec.n_samples)
    waveforms[2, 4000:] = 0.0
    together = extractor(waveforms)
    assert together.shape == (4, 1, size, 1)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(extractor, waveforms.split(1)))
    assert torch.equal(torch.cat(alone), together)
    short = FunctionalsSpec(feature_set=feature_set, duration=0.25)
    assert torch.equal(FeatureExtractor(short)(waveforms[2:3, :4000]), together[2:3])


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 32750, 44100])
def test_functionals_of_less_than_a_window_are_zero(rate: int) -> None:
    spec = FunctionalsSpec(sample_rate=rate, duration=0.1)
    window = int(0.06 * rate + 0.5)
    waveforms = noise(3, spec.n_samples)
    for row, samples in enumerate((0, window - 1, window)):
        waveforms[row, samples:] = 0.0
    maps = FeatureExtractor(spec)(waveforms)
    assert torch.isfinite(maps).all()
    assert maps.ne(0.0).any(dim=2).flatten().tolist() == [False, False, True]


@pytest.mark.parametrize("kind", ["opensmile", "functionals"])
def test_sound_beyond_full_scale_is_clipped(kind: str) -> None:
    """openSMILE computes with 16-bit integers, in which it would change sign."""
    extractor = FeatureExtractor(FeatureSpec(kind=kind, duration=0.5))
    loud = 2.0 * torch.sin(torch.arange(8000) * 0.1)[None]
    assert torch.equal(extractor(loud), extractor(loud.clamp(-1.0, 32767 / 32768)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"length": "repeat"}, "length repeat: .*; allowed: pad, segments"),
        ({"deltas": 1}, "deltas 1: .*; allowed: 0"),
        ({"pool": 2}, "pool 2 leaves no frame"),
        ({"duration": 0.05}, "duration 0.05 s; allowed: at least a window of 0.06 s"),
        ({"feature_set": "GeMAPSv01b"}, "'eGeMAPSv02' or 'ComParE_2016'"),
    ],
)
def test_mistakes_in_keys_of_functionals(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FunctionalsSpec(**keys)


@pytest.mark.parametrize("kind", ["opensmile", "functionals"])
def test_without_the_package(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(RecipeError, match=rf"{kind} needs a package .*pip install opensmile"):
        FeatureExtractor(FeatureSpec(kind=kind))
