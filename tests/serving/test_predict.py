"""Stretches of a file: windows, pieces, and that each is heard alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from emodarts.audio.pieces import piece_starts
from emodarts.bundle import Bundle
from emodarts.errors import AudioError, EmodartsError
from emodarts.recipe import CNNSpec, FeatureSpec, NetworkSpec, NoSeqNN
from emodarts.searching.derivation import random_genotype
from emodarts.serving.predict import Model, find_audio, windows
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.batches import Normalisation

FEATURES = FeatureSpec(sample_rate=8000, duration=1.0, n_fft=256, hop_length=128, n_mels=16)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    spec = NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=1, channels=2),
        seqnn=NoSeqNN(mode="none"),
    )
    network = DiscreteNetwork(random_genotype(spec, torch.Generator().manual_seed(0)), spec, 16, 3)
    network(torch.randn(8, 1, 16, 15))
    return Model(
        Bundle(
            network.eval(),
            FEATURES,
            Normalisation(torch.zeros(1, 16), 20 * torch.ones(1, 16)),
            ("a", "b", "c"),
        )
    )


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that grows louder, so that no two stretches sound the same."""
    samples = np.random.default_rng(seed).standard_normal(round(8000 * seconds))
    return (0.1 * np.linspace(0.01, 1, len(samples)) * samples).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_long_stretch_is_the_mean_of_its_pieces(
    model: Model, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("emodarts.serving.predict._BATCH", batch)
    sound = noise(2.2)
    pieces = [sound[start : start + 8000] for start in (0, 4000, 8000, 9600)]
    assert piece_starts(len(sound), 8000) == [0, 4000, 8000, 9600]
    heard = np.array([model.probabilities(piece) for piece in pieces])
    assert np.ptp(heard, axis=0).max() > 1e-3  # else the test means nothing
    expected = heard.mean(axis=0)
    np.testing.assert_allclose(model.probabilities(sound), expected, atol=1e-6)
    assert model.probabilities(sound).sum() == pytest.approx(1)


def test_a_short_stretch_is_padded_with_silence_at_its_end(model: Model) -> None:
    sound = noise(0.4)
    padded = np.concatenate([sound, np.zeros(8000 - len(sound), np.float32)])
    assert np.array_equal(model.probabilities(sound), model.probabilities(padded))


def test_windows_are_heard_as_if_they_were_files(model: Model, tmp_path: Path) -> None:
    sound = noise(3.0)
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    answers = model.predict(tmp_path / "a.wav", window=0.5, hop=1.25)
    assert [(a.start, a.end) for a in answers] == [(0, 0.5), (1.25, 1.75), (2.5, 3)]
    for answer, start in zip(answers, (0, 10000, 20000), strict=True):
        alone = model.probabilities(sound[start : start + 4000])
        assert list(answer.probabilities.values()) == alone.tolist()
        assert answer.label == model.classes[int(alone.argmax())]


def test_channels_are_averaged_and_rates_converted(model: Model, tmp_path: Path) -> None:
    sound = noise(1.0)
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    stereo = np.column_stack([2 * sound, np.zeros_like(sound)])
    soundfile.write(tmp_path / "b.wav", stereo, 8000, subtype="FLOAT")
    first, second = (model.predict(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert list(first.probabilities.values()) == pytest.approx(list(second.probabilities.values()))


@given(
    st.floats(0.01, 100),
    st.one_of(st.none(), st.floats(0.05, 50)),
    st.one_of(st.none(), st.floats(0.05, 50)),
)
def test_windows_begin_at_0_advance_by_the_hop_and_end_with_the_sound(
    duration: float, window: float | None, hop: float | None
) -> None:
    spans = list(windows(duration, window, hop))
    assert spans[0][0] == 0
    assert all(0 <= start < end <= duration + 1e-9 for start, end in spans)
    assert spans[-1][1] == duration
    if window is not None and window < duration:
        assert all(end - start == pytest.approx(window) for start, end in spans)
    *steps, last = [second - first for (first, _), (second, _) in pairwise(spans)] or [0.0]
    assert all(step == pytest.approx(hop or window) for step in steps)
    assert len(spans) == 1 or 0 < last <= (hop or window or 0) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("duration", "window", "expected"),
    [
        (2.1, 0.7, [0, 0.7, 1.4]),
        (0.9, 0.3, [0, 0.3, 0.6]),
        (8.01, 4.0, [0, 4, 4.01]),
        (8.0, 8.0, [0]),
    ],
)
def test_no_window_is_a_sliver_past_the_end(
    duration: float, window: float, expected: list[float]
) -> None:
    assert [start for start, _ in windows(duration, window, None)] == pytest.approx(expected)


@given(st.integers(1, 5000), st.integers(1, 800))
def test_pieces_cover_every_sample(n_samples: int, piece: int) -> None:
    starts = piece_starts(n_samples, piece)
    heard = np.zeros(max(n_samples, piece), bool)
    for start in starts:
        heard[start : start + piece] = True
    assert heard[:n_samples].all()
    assert n_samples <= piece or starts[-1] + piece == n_samples
    assert len(set(starts)) == len(starts)


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "a.FLAC", "deep/c.mp3", "notes.txt"):
        (tmp_path / name).touch()
    odd = tmp_path / "notes.txt"
    assert find_audio(tmp_path) == [
        tmp_path / "a.FLAC",
        tmp_path / "b.wav",
        tmp_path / "deep" / "c.mp3",
    ]
    assert find_audio(odd) == [odd]
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="holds no audio file"):
        find_audio(tmp_path / "none")


def test_impossible_windows_are_refused(model: Model, tmp_path: Path) -> None:
    for window, hop in [(0.0, None), (-1.0, None), (float("nan"), None), (1.0, 0.0), (None, 1.0)]:
        with pytest.raises(EmodartsError, match="legal"):
            model.predict(tmp_path / "a.wav", window, hop)
