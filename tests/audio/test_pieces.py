"""Pieces cover long sound, half overlapping, and are never longer than the model's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.audio.io import load_audio
from emodarts.audio.pieces import piece_starts, prepare, split
from emodarts.recipe import FeatureSpec


@given(st.integers(1, 5000), st.integers(1, 500))
def test_pieces_cover_everything_half_overlapping_and_end_with_the_sound(
    n_samples: int, piece: int
) -> None:
    starts = piece_starts(n_samples, piece)
    assert starts[0] == 0
    assert starts[-1] == max(0, n_samples - piece)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps[:-1] == max(1, piece // 2)).all()
    assert (steps <= max(1, piece // 2)).all()


SIZES = pytest.mark.parametrize("n", [10, 4000, 4001, 9000])


@SIZES
@pytest.mark.parametrize("length", ["pad", "repeat"])
def test_sound_is_one_piece_unless_length_is_segments(length: str, n: int) -> None:
    waveform = np.arange(n, dtype=np.float32)
    pieces = split(waveform, FeatureSpec(sample_rate=8000, duration=0.5, length=length))
    assert [p.tolist() for p in pieces] == [waveform.tolist()]


@SIZES
def test_segments_cover_the_sound(n: int) -> None:
    spec = FeatureSpec(sample_rate=8000, duration=0.5, length="segments")
    pieces = split(np.arange(n, dtype=np.float32), spec)
    assert all(len(p) == min(n, 4000) for p in pieces)
    assert [int(p[0]) for p in pieces] == piece_starts(n, 4000)
    assert pieces[-1][-1] == n - 1


RATE = 16000
TRIMMED = FeatureSpec(kind="log_mel", sample_rate=RATE, trim=40.0, level=-26.0)


def spoken(seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 200 * t) * np.sin(np.pi * t / seconds)).astype(np.float32)


def test_nothing_is_done_unless_asked_for() -> None:
    sound = np.concatenate([np.zeros(900, np.float32), spoken()])
    assert prepare(sound, FeatureSpec()) is sound


def test_sound_is_brought_to_the_level() -> None:
    for factor in (0.01, 1.0, 20.0):
        rms = np.sqrt(np.mean(prepare(factor * spoken(), TRIMMED).astype(np.float64) ** 2))
        assert 20 * np.log10(rms) == pytest.approx(-26.0, abs=1e-3)


@pytest.mark.parametrize("floor", [0.0, 1e-4])
@pytest.mark.parametrize(("before", "after"), [(0.5, 0.0), (0.0, 0.5), (0.3137, 1.2)])
def test_silence_and_faint_noise_around_the_speech_are_cut_off(
    before: float, after: float, floor: float
) -> None:
    generator = np.random.default_rng(0)
    parts = [floor * generator.standard_normal(round(s * RATE)) for s in (before, after)]
    sound = np.concatenate([parts[0], spoken(), parts[1]]).astype(np.float32)
    alone, found = prepare(spoken(), TRIMMED), prepare(sound, TRIMMED)
    assert abs(len(found) - len(alone)) <= 0.032 * RATE
    assert len(found) > 0.9 * RATE


def test_pauses_within_the_speech_stay() -> None:
    sound = np.concatenate([spoken(), np.zeros(RATE, np.float32), spoken()])
    assert len(prepare(sound, TRIMMED)) > 2.8 * RATE


@pytest.mark.parametrize("sound", [np.zeros(500, np.float32), np.ones(3, np.float32)])
def test_silence_and_very_short_sound_are_not_lost(sound: np.ndarray) -> None:
    assert len(prepare(sound, TRIMMED)) == len(sound)


def test_silence_around_real_speech_is_cut_off(emodb_root: Path) -> None:
    for path in sorted(emodb_root.rglob("*.wav"))[::80]:
        sound = load_audio(path, RATE)
        quiet = np.zeros(RATE // 2, np.float32)
        around = np.concatenate([quiet, sound, quiet])
        assert abs(len(prepare(around, TRIMMED)) - len(prepare(sound, TRIMMED))) <= 0.032 * RATE
