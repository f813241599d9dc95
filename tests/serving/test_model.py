"""A model's answers: the same for a file, an array and a stream."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from emodarts.audio.pieces import piece_starts
from emodarts.bundle import Bundle
from emodarts.errors import AudioError, BundleError, EmodartsError
from emodarts.recipe import FeatureSpec, SystemSpec
from emodarts.serving.model import Answer, Model, find_audio

RATE = 8000
MEL = FeatureSpec(
    sample_rate=RATE, duration=1.0, n_fft=256, hop_length=128, n_mels=16, pool=1, length="segments"
)
WAVE = FeatureSpec(
    kind="waveform", sample_rate=4000, duration=1.0, frame_length=40, length="segments"
)


@dataclass(frozen=True)
class Toy:
    """Softmax of a fixed projection of every input's mean over time."""

    scale: Mapping[str, float]

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        scores = torch.zeros(1, 3)
        for name, features in inputs.items():
            mean = features.abs().nanmean(dim=(1, 3))  # (B, F)
            angles = torch.arange(mean.shape[1] * 3).reshape(-1, 3).sin()
            scores = scores + self.scale[name] * mean @ angles
        return scores.softmax(dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}


def model_of(inputs: dict[str, FeatureSpec], **scale: float) -> Model:
    fingerprints = dict.fromkeys(inputs, "")
    return Model(
        Bundle(SystemSpec(kind="chance"), Toy(scale), inputs, ("a", "b", "c"), fingerprints)
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of({"features": MEL}, features=0.03)


@pytest.fixture(scope="module")
def two_streams() -> Model:
    """Takes two maps, at two sample rates."""
    return model_of({"mel": MEL, "wave": WAVE}, mel=0.02, wave=5.0)


def noise(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """Noise in syllables that grows louder and duller, so that no two segments are alike."""
    samples = np.random.default_rng(0).standard_normal(round(rate * seconds))
    dull = np.convolve(samples, np.full(20, 0.2), "same")
    share = np.linspace(0, 1, len(samples))
    syllables = 0.02 + np.sin(3 * np.pi * np.arange(len(samples)) / rate) ** 2
    noise = syllables * (share * dull + (1 - share) * samples)
    return (0.1 * (0.05 + share) * noise).astype(np.float32)


def values(answers: list[Answer] | Iterator[Answer]) -> NDArray[np.float64]:
    """Start, end and probabilities of each answer, one a row."""
    return np.array([[a.start, a.end, *a.probabilities.values()] for a in answers])


def one(model: Model, samples: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of samples at the model's rate."""
    (answer,) = model.predict(samples, sample_rate=RATE)
    return np.array(list(answer.probabilities.values()))


@pytest.mark.parametrize("seconds", [2.2, 20.0])  # 20 s: more pieces than a batch holds
def test_a_long_segment_is_the_mean_of_its_pieces(model: Model, seconds: float) -> None:
    sound = noise(seconds)
    parts = [sound[start : start + RATE] for start in piece_starts(len(sound), RATE)]
    alone = np.array([one(model, part) for part in parts])
    assert np.ptp(alone, axis=0).max() > 1e-2  # else the test means nothing
    np.testing.assert_allclose(one(model, sound), alone.mean(axis=0), atol=1e-6)
    assert one(model, sound).sum() == pytest.approx(1)


def test_a_model_of_a_recipe_that_cuts_takes_the_beginning_and_says_so() -> None:
    cutting = model_of({"features": MEL.model_copy(update={"length": "pad"})}, features=0.03)
    sound = noise(3.0)
    for samples in (sound, np.tile(sound, 250)):
        (answer,) = cutting.predict(samples, sample_rate=RATE)
        assert answer.note == "only the first 1 s count (features.length)"
        assert list(answer.probabilities.values()) == one(cutting, sound[:RATE]).tolist()
        assert answer.end == len(samples) / RATE
    assert {a.note for a in cutting.predict(sound, 1.0, sample_rate=RATE)} == {""}


def test_a_short_segment_may_be_padded_with_silence_at_its_end() -> None:
    spec = MEL.model_copy(update={"padding": "zeros"})
    model = model_of({"features": spec}, features=0.03)
    sound = noise(0.4)
    padded = np.concatenate([sound, np.zeros(RATE - len(sound), np.float32)])
    assert np.array_equal(one(model, sound), one(model, padded))


def test_windows_are_classified_as_if_they_were_recordings(model: Model) -> None:
    sound = noise(3.0)
    answers = model.predict(sound, 0.5, 1.25, sample_rate=RATE)
    assert [(a.start, a.end) for a in answers] == [(0, 0.5), (1.25, 1.75), (2.5, 3)]
    for answer, start in zip(answers, (0, 10000, 20000), strict=True):
        alone = one(model, sound[start : start + 4000])
        assert list(answer.probabilities.values()) == alone.tolist()
        assert answer.label == model.classes[int(alone.argmax())]


@pytest.mark.parametrize("name", ["model", "two_streams"])
@pytest.mark.parametrize("rate", [RATE, 22050])
@pytest.mark.parametrize(("window", "hop"), [(None, None), (0.7, 0.3), (1.5, None)])
def test_a_file_is_the_array_of_its_samples(
    name: str,
    rate: int,
    window: float | None,
    hop: float | None,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    model: Model = request.getfixturevalue(name)
    stereo = np.column_stack([noise(2.5, rate), 0.5 * noise(2.5, rate)[::-1]])
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    segment = {"start": 0.25, "end": 2.4}
    of_file = model.predict(tmp_path / "a.wav", window, hop, **segment)
    of_array = model.predict(stereo, window, hop, sample_rate=rate, **segment)
    assert {a.file for a in of_file} == {str(tmp_path / "a.wav")}
    assert of_array == [replace(answer, file="") for answer in of_file]


def test_a_whole_of_more_than_ten_minutes_is_the_mean_of_the_pieces_of_its_stretches(
    model: Model,
) -> None:
    sound = np.tile(noise(10.0), 62)
    stretches = [sound[: 600 * RATE], sound[-600 * RATE :]]
    expected = np.mean([one(model, stretch) for stretch in stretches], axis=0)
    np.testing.assert_allclose(one(model, sound), expected, atol=1e-9)
    (answer,) = model.predict(sound, sample_rate=RATE)
    assert (answer.start, answer.end) == (0, 620)


def test_memory_does_not_grow_with_the_length_of_a_file(model: Model, tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 12):
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.tile(noise(10.0), 6 * minutes), RATE)
        tracemalloc.start()
        assert len(model.predict(path, 2.0)) == 30 * minutes
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 12 * 60 * RATE * 4 / 3  # bytes; all samples would be 23 MB


PAUSE = np.zeros(4 * RATE, np.float32)


@pytest.mark.parametrize(
    ("sound", "note"),
    [
        (PAUSE, "silent"),
        (PAUSE + 0.25, "silent"),
        (1e-4 * noise(4.0), "silent"),
        (0.1 * np.sin(2 * np.pi * 50 * np.arange(4 * RATE) / RATE), "no speech: steady noise"),
        (0.1 * np.random.default_rng(1).standard_normal(4 * RATE), "no speech: steady noise"),
        (np.where(np.arange(4 * RATE) % 30000 < 100, 0.5, 0.0), "no speech: only 0.06 s of sound"),
    ],
)
def test_what_cannot_be_speech_has_no_emotion_and_a_reason(
    model: Model, sound: NDArray[Any], note: str
) -> None:
    (answer,) = model.predict(sound, sample_rate=RATE)
    assert (answer.label, answer.probabilities) == ("", {})
    assert answer.note.startswith(note)


def test_windows_without_speech_have_no_label_and_the_others_have_theirs(model: Model) -> None:
    talk = noise(4.0)
    sound = np.concatenate([talk, PAUSE, talk])
    answers = model.predict(sound, 2.0, sample_rate=RATE)
    assert [a.note for a in answers] == ["", "", "silent", "silent", "", ""]
    assert [bool(a.label) for a in answers] == [True, True, False, False, True, True]
    assert values(answers[:2])[:, 2:].tolist() == values(answers[4:])[:, 2:].tolist()
    assert list(model.stream(np.split(sound, 12), RATE, 2.0)) == answers


def test_silent_pieces_have_no_part_in_the_answer_for_the_whole(model: Model) -> None:
    talk = noise(1.0)
    sound = np.concatenate([talk, np.zeros(9 * RATE, np.float32)])
    parts = [sound[start:][:RATE] for start in (0, RATE // 2)]
    expected = np.mean([one(model, part) for part in parts], axis=0)
    np.testing.assert_allclose(one(model, sound), expected, atol=1e-6)


def test_channels_that_cancel_are_named_as_the_reason(model: Model, tmp_path: Path) -> None:
    stereo = np.column_stack([noise(2.0), -noise(2.0)])
    soundfile.write(tmp_path / "a.wav", stereo, RATE)
    for answers in (
        model.predict(tmp_path / "a.wav", 1.0),
        model.predict(stereo, 1.0, sample_rate=RATE),
        list(model.stream([stereo], RATE, 1.0)),
    ):
        assert {a.note for a in answers} == {
            "silent: the channels cancel each other; use one of them, or turn one over"
        }


@settings(max_examples=25)
@given(
    st.sampled_from([RATE, 22050, 6000]),
    st.sampled_from([1, 2]),
    st.floats(0.1, 3.0),
    st.sampled_from([(0.7, 0.3), (0.5, None), (0.25, 0.8), (2.0, 0.5)]),
    st.lists(st.integers(0, 20_000), max_size=8),
)
def test_a_stream_gives_the_answers_of_the_array(
    model: Model,
    rate: int,
    channels: int,
    seconds: float,
    windows: tuple[float, float | None],
    sizes: list[int],
) -> None:
    sound = np.column_stack([noise(seconds, rate)] * channels)
    sound = sound[:, 0] if channels == 1 else sound
    chunks = np.split(sound, np.minimum(np.cumsum(sizes), len(sound)))
    of_array = model.predict(sound, *windows, sample_rate=rate)
    of_stream = list(model.stream(iter(chunks), rate, *windows))
    if rate == RATE:
        assert of_stream == of_array
    else:
        np.testing.assert_allclose(values(of_stream), values(of_array), atol=1e-6)


def test_a_stream_of_several_inputs_gives_the_answers_of_the_array(two_streams: Model) -> None:
    sound = noise(3.0, 22050)
    chunks = np.split(sound, range(0, len(sound), 700))
    of_array = two_streams.predict(sound, 1.2, 0.4, sample_rate=22050)
    of_stream = two_streams.stream(chunks, 22050, 1.2, 0.4)
    np.testing.assert_allclose(values(of_stream), values(of_array), atol=1e-6)


def test_every_input_counts(two_streams: Model) -> None:
    sound = noise(1.0)
    alone = model_of({"mel": MEL}, mel=0.02)
    assert np.abs(one(two_streams, sound) - one(alone, sound)).max() > 1e-3


def test_a_stream_answers_while_it_comes_and_holds_little(model: Model) -> None:
    read = 0

    def chunks() -> Iterator[NDArray[np.float32]]:
        nonlocal read
        second = noise(1.0)
        for _ in range(300):
            read += 1
            yield second

    stream = model.stream(chunks(), RATE, 2.0)
    assert (next(stream).end, read) == (2.0, 2)
    tracemalloc.start()
    for answer in stream:
        assert answer.end == read
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.end == 300
    assert peak < 300 * RATE * 4 / 3  # bytes; all samples would be 9.6 MB


def test_channels_are_averaged(model: Model) -> None:
    sound = noise(1.0)
    stereo = np.column_stack([2 * sound, np.zeros_like(sound)])
    np.testing.assert_allclose(one(model, stereo), one(model, sound), atol=1e-6)


def test_precision_of_the_array_does_not_matter(model: Model) -> None:
    assert np.array_equal(one(model, noise(1.0).astype(np.float64)), one(model, noise(1.0)))


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "a.FLAC", "deep/c.mp3", "notes.txt"):
        (tmp_path / name).touch()
    odd = tmp_path / "notes.txt"
    found = [tmp_path / "a.FLAC", tmp_path / "b.wav", tmp_path / "deep" / "c.mp3"]
    assert find_audio(tmp_path) == (found, [])
    assert find_audio(odd) == ([odd], [])
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="holds no audio file"):
        find_audio(tmp_path / "none")


def test_what_a_folder_holds_and_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    for name in ("a.wav", "b.M4A", "c.webm", "._a.wav", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    found, skipped = find_audio(tmp_path)
    assert found == [tmp_path / "a.wav"]
    assert {path.name: reason for path, reason in skipped} == {
        "b.M4A": ".m4a cannot be read; convert it: ffmpeg -i a.m4a a.wav",
        "c.webm": ".webm cannot be read; convert it: ffmpeg -i a.webm a.wav",
        "._a.wav": "resource fork of macOS, not audio",
        "gone.wav": "link to nothing",
    }
    (tmp_path / "a.wav").unlink()
    with pytest.raises(AudioError, match=r"1 skipped: \.m4a cannot be read; convert.*b\.M4A"):
        find_audio(tmp_path)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.1, np.nan], np.float32), "1 sample.s. are NaN"),
        (np.arange(8000, dtype=np.int16), "int16 samples of shape .8000,.; allowed: floats"),
        (np.zeros((1, 8000, 2)), "allowed: floats of shape"),
        (np.zeros(0), "not a segment of its 0.000 s"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(
    model: Model, samples: NDArray[Any], message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        model.predict(samples, sample_rate=RATE)


def test_a_stream_of_wrong_samples_is_refused(model: Model) -> None:
    stream = model.stream([noise(1.0), np.full(10, np.inf)], RATE, 0.5)
    assert [next(stream).start, next(stream).start] == [0, 0.5]
    with pytest.raises(AudioError, match=r"10 sample\(s\) are NaN, infinite"):
        next(stream)


def test_the_rate_of_an_array_is_needed_and_that_of_a_file_is_known(
    model: Model, tmp_path: Path
) -> None:
    with pytest.raises(EmodartsError, match="sample_rate of the array is None"):
        model.predict(noise(1.0))
    with pytest.raises(EmodartsError, match="give no sample_rate"):
        model.predict(tmp_path / "a.wav", sample_rate=RATE)
    with pytest.raises(EmodartsError, match="sample_rate of the array is 0"):
        model.stream([], 0, 1.0)


def test_impossible_windows_are_refused_before_anything_is_read(model: Model) -> None:
    with pytest.raises(EmodartsError, match="allowed"):
        model.predict("no such file", window=0.0)
    with pytest.raises(EmodartsError, match="allowed"):
        model.stream([], RATE, 1.0, 0.0)


def test_features_made_by_something_else_are_refused(model: Model) -> None:
    other = replace(model.bundle, fingerprints={"features": "openSMILE 2"})
    with pytest.raises(BundleError, match="trained on mfcc features of openSMILE 2"):
        Model(other)
