"""What has no emotion because it cannot be speech, and speech that must pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emodarts.audio.io import load_audio
from emodarts.audio.speech import is_silent, lacks_speech

TIME = np.arange(2 * 16000) / 16000
NOISE = np.random.default_rng(0).standard_normal(len(TIME))
CLICK = (np.abs(TIME - 1) < 0.002).astype(np.float64)
BURSTS = NOISE * (np.sin(3 * np.pi * TIME) ** 2 + 0.01)


def reason(samples: NDArray[np.float64], rate: int = 16000) -> str:
    return lacks_speech(samples.astype(np.float32), rate)


def pink(time: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(time)
    white = np.random.default_rng(1).standard_normal(n)
    return np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(n // 2 + 1) + 1), n)


def hum(time: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sum([np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8)], axis=0)


STEADY = {
    "white": lambda time: np.random.default_rng(1).standard_normal(len(time)),
    "pink": pink,
    "brown": lambda time: np.cumsum(np.random.default_rng(1).standard_normal(len(time))),
    "hum": hum,
    "hum in noise": lambda time: hum(time) + 0.1 * pink(time),
    "tone": lambda time: np.sin(2 * np.pi * 440 * time),
}


@pytest.mark.parametrize("rate", [4000, 16000, 44100])
@pytest.mark.parametrize("kind", STEADY)
@pytest.mark.parametrize("level", [0.1, 1.0])
def test_steady_sound_is_no_speech(kind: str, level: float, rate: int) -> None:
    sound = STEADY[kind](np.arange(6 * rate) / rate)
    note = reason(level * sound / np.abs(sound).max(), rate)
    assert note == "no speech: steady noise or hum"


@pytest.mark.parametrize("offset", [0.0, 0.25, -0.5])
@pytest.mark.parametrize("decibels", [-200, -70])
def test_faint_sound_on_any_constant_is_silence(offset: float, decibels: float) -> None:
    faint = offset + 10 ** (decibels / 20) * NOISE
    assert reason(faint) == "silent"
    assert is_silent(faint.astype(np.float32), 16000)


def test_a_click_is_no_speech() -> None:
    assert reason(0.5 * CLICK) == "no speech: only 0.03 s of sound"


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.4, 0.9, 2.0])
@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_sound_that_changes_may_be_speech_however_short(seconds: float, gain: float) -> None:
    part = 0.3 * gain * BURSTS[4000:][: round(seconds * 16000)]
    assert reason(part) == ""


def test_speech_with_a_long_pause_is_speech() -> None:
    assert reason(np.concatenate([0.3 * BURSTS, np.zeros(20 * 16000)])) == ""


def test_real_speech_is_speech(emodb_root: Path) -> None:
    for path in sorted(emodb_root.rglob("*.wav")):
        sound = load_audio(path, 16000)
        assert lacks_speech(sound, 16000) == "", path
        power = np.convolve(np.square(sound), np.ones(512), "same")
        (loud,) = np.nonzero(power > 1e-3 * power.max())
        for first in range(loud[0], loud[-1] - 32000, 32000):
            assert lacks_speech(sound[first : first + 32000], 16000) == "", (path, first)
