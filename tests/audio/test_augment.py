"""Augmented waveforms, measured: ratios, durations, frequencies, energies, and repeatability."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import welch

from emodarts.audio.augment import (
    add_noise,
    augment,
    change_speed,
    perturb_vocal_tract,
    shift_pitch,
    variants_of,
    warp_frequency,
)
from emodarts.errors import RecipeError
from emodarts.recipe import AugmentationSpec, Recipe

RATE = 16000
ALL = {
    "speed": [0.9, 1.1],
    "pitch": [-2.0, 2.0],
    "vtlp": [0.9, 1.1],
    "noise": [10.0, 30.0],
    "gain": [-6.0, 6.0],
}
Waveform = NDArray[np.float32]


@pytest.fixture
def library() -> None:
    """What the extra ``augment`` installs."""
    pytest.importorskip("python_stretch", reason="needs the extra augment")


def spec_of(**keys: Any) -> AugmentationSpec:
    """A checked spec with one copy."""
    value = {"training": {"augmentation": {"copies": 1, **keys}}}
    return Recipe.from_dict(value).training.augmentation


def tone(frequency: float, seconds: float = 2.0, rate: int = RATE) -> Waveform:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def loudest_frequency(waveform: Waveform, rate: int = RATE) -> float:
    """Peak of the spectrum in Hz, to a fraction of its resolution."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 19))
    return float(spectrum.argmax() * rate / (1 << 19))


def rms(waveform: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


# --- each transform does what its unit says ---


@pytest.mark.parametrize("ratio", [-10.0, 0.0, 17.5, 40.0])
@pytest.mark.parametrize("n", [7, 2000])
def test_noise_has_the_ratio_exactly_and_is_white(ratio: float, n: int) -> None:
    signal = np.random.default_rng(1).standard_normal(n).astype(np.float32) ** 3
    noise = add_noise(signal, ratio, np.random.default_rng(0)) - signal.astype(np.float64)
    assert decibels(rms(signal) / rms(noise)) == pytest.approx(ratio, abs=1e-3)
    if n == 2000:
        power = np.abs(np.fft.rfft(noise)) ** 2
        quarters = [quarter.mean() / power.mean() for quarter in np.array_split(power, 4)]
        assert quarters == pytest.approx([1.0] * 4, abs=0.25)
        assert np.mean((noise / noise.std()) ** 4) == pytest.approx(3.0, abs=0.4)  # Gaussian


def test_silence_stays_silent_under_noise() -> None:
    assert not add_noise(np.zeros(100, np.float32), 10.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize(("gain", "peak"), [(-12.0, 0.226), (6.0, 1.796)])
def test_gain_is_in_decibels_and_clips_nothing(gain: float, peak: float) -> None:
    sound = tone(440) * 3  # peaks at 0.9
    out = augment(sound, RATE, spec_of(gain=[gain, gain]), 0)
    np.testing.assert_allclose(out, sound * 10 ** (gain / 20), rtol=1e-6)
    assert out.max() == pytest.approx(peak, abs=0.01)


@pytest.mark.parametrize("factor", [0.8, 0.913, 1.0, 1.1, 1.5])
def test_speed_changes_duration_and_pitch_by_its_factor(factor: float) -> None:
    sound = tone(1000)
    out = change_speed(sound, RATE, factor)
    assert len(out) == pytest.approx(len(sound) / factor, abs=1)
    assert loudest_frequency(out) == pytest.approx(1000 * factor, abs=0.2)
    assert rms(out) == pytest.approx(rms(sound), rel=0.01)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("semitones", [-5.0, -1.0, 0.5, 2.0, 12.0])
def test_pitch_moves_by_semitones_at_the_same_tempo(semitones: float) -> None:
    sound = tone(500)
    sound[:RATE] = 0
    out = shift_pitch(sound, RATE, semitones)
    assert out.shape == sound.shape
    moved = 12 * np.log2(loudest_frequency(out[RATE:]) / 500)
    assert moved == pytest.approx(semitones, abs=0.1)
    loud = np.convolve(np.square(out), np.ones(160) / 160, "same") > 0.3**2 / 4
    assert np.flatnonzero(loud)[0] == pytest.approx(RATE, abs=0.015 * RATE)
    assert rms(out[RATE:]) == pytest.approx(rms(sound[RATE:]), rel=0.1)


@pytest.mark.parametrize("alpha", [0.9, 1.1])
@pytest.mark.parametrize("frequency", [120.0, 1000.0, 4200.0, 6500.0])
def test_vocal_tract_moves_a_tone_along_the_warp(frequency: float, alpha: float) -> None:
    sound = tone(frequency)
    out = perturb_vocal_tract(sound, RATE, alpha)
    assert out.shape == sound.shape
    expected = float(warp_frequency(np.array([frequency]), RATE, alpha)[0])
    assert expected == pytest.approx(alpha * frequency) or frequency > 4800
    assert loudest_frequency(out) == pytest.approx(expected, abs=0.5)
    assert abs(decibels(rms(out) / rms(sound))) < 1.5


def test_vocal_tract_moves_tones_together_and_keeps_their_tempo() -> None:
    """Each of three tones, the last one beginning after one second, moves by itself."""
    late = tone(3100)
    late[:RATE] = 0
    out = perturb_vocal_tract(tone(210) + tone(1700) + late, RATE, 1.07)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)), 1 << 19))
    for frequency in (210, 1700, 3100):
        around = slice(
            *(round(f * 1.07 * (1 << 19) / RATE) for f in (frequency - 40, frequency + 40))
        )
        peak = (around.start + spectrum[around].argmax()) * RATE / (1 << 19)
        assert peak == pytest.approx(1.07 * frequency, abs=0.5)
    before, after = (
        np.abs(np.fft.rfft(part, 1 << 17))[round(3100 * 1.07 * (1 << 17) / RATE)]
        for part in (out[: RATE - 400], out[RATE:])
    )
    assert before < 0.02 * after


@pytest.mark.parametrize("rate", [8000, 16000, 32750])
@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_warp_is_that_of_jaitly_and_hinton(rate: int, alpha: float) -> None:
    half = rate / 2
    boundary = min(4800.0, 0.6 * half)
    frequency = np.linspace(0, half, 101)
    edge = boundary * min(alpha, 1)
    upper = half - (half - edge) / (half - edge / alpha) * (half - frequency)
    expected = np.where(frequency <= edge / alpha, alpha * frequency, upper)
    warped = warp_frequency(frequency, rate, alpha)
    np.testing.assert_allclose(warped, expected, rtol=1e-9)
    assert (np.diff(warped) > 0).all()
    np.testing.assert_allclose(warp_frequency(warped, rate, alpha, inverse=True), frequency)


# --- together ---


@pytest.mark.usefixtures("library")
def test_result_depends_on_the_arguments_alone() -> None:
    """In other threads, with other global states, and in another order."""
    spec = spec_of(**ALL)
    generator = np.random.default_rng(0)
    sounds = [generator.standard_normal(3000).astype(np.float32) for _ in range(8)]
    expected = [augment(sound, RATE, spec, seed) for seed, sound in enumerate(sounds)]
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        jobs = [(sounds[k], k) for k in reversed(range(8))] * 3
        found = list(pool.map(lambda job: augment(job[0], RATE, spec, job[1]), jobs))
    for (_, seed), out in zip(jobs, found, strict=True):
        np.testing.assert_array_equal(out, expected[seed])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]  # noqa: NPY002
    same = [augment(sounds[0], RATE, spec, seed) for seed in range(5)]
    assert len({out.tobytes() for out in same}) == 5


def test_order_is_speed_pitch_vtlp_noise_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    import emodarts.audio.augment as module

    called: list[tuple[str, float]] = []

    def spy(name: str) -> Callable[..., Waveform]:
        def record(waveform: Waveform, *rest: Any) -> Waveform:
            called.append((name, float(rest[0] if name == "add_noise" else rest[1])))
            return waveform

        return record

    names = ("change_speed", "shift_pitch", "perturb_vocal_tract", "add_noise")
    for name in names:
        monkeypatch.setattr(module, name, spy(name))
    augment(np.ones(10, np.float32), RATE, spec_of(**ALL), 3)
    assert [name for name, _ in called] == list(names)
    everything = dict(called)
    spans = (ALL["speed"], ALL["pitch"], ALL["vtlp"], ALL["noise"])
    shares = [(v - low) / (high - low) for (_, v), (low, high) in zip(called, spans, strict=True)]
    assert len({round(share, 6) for share in shares}) == 4, "each transform draws its own value"
    called.clear()
    # What one transform draws does not depend on which others are enabled.
    augment(np.ones(10, np.float32), RATE, spec_of(vtlp=ALL["vtlp"]), 3)
    assert called == [("perturb_vocal_tract", everything["perturb_vocal_tract"])]


def test_values_are_uniform_and_applied_with_their_probability() -> None:
    spec = spec_of(gain=[-6.0, 6.0], probability=0.25)
    one = np.ones(1, np.float32)
    gains = np.array([decibels(float(augment(one, RATE, spec, s)[0])) for s in range(4000)])
    applied = gains[gains != 0]
    assert len(applied) / 4000 == pytest.approx(0.25, abs=0.03)
    assert np.quantile(applied, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx(
        [-6, -3, 0, 3, 6], abs=0.5
    )
    assert augment(one, RATE, AugmentationSpec(), 0) is one


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("n", [1, 2, 31, 511, 513])
@pytest.mark.parametrize("rate", [4000, 48000])
def test_shortest_sounds_survive(n: int, rate: int) -> None:
    sound = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    out = augment(sound, rate, spec_of(**{**ALL, "speed": [2.0, 2.0]}), 0)
    assert out.dtype == np.float32
    assert len(out) == max(1, round(n / 2)) or n % 2
    assert len(out) >= 1
    assert np.isfinite(out).all()


@pytest.mark.usefixtures("library")
def test_real_speech_stays_speech(emodb_root: Path) -> None:
    """Its level and peaks stay near, and its spectrum goes where the warp puts it."""
    files = sorted(emodb_root.rglob("*.wav"))[::60][:5]
    assert files
    for seed, path in enumerate(files):
        sound, rate = soundfile.read(path, dtype="float32")
        out = augment(sound, rate, spec_of(**{k: v for k, v in ALL.items() if k != "gain"}), seed)
        assert np.isfinite(out).all()
        assert 0.9 * len(sound) / 1.1 < len(out) < 1.1 * len(sound) / 0.9
        assert abs(decibels(rms(out) / rms(sound))) < 2
        assert np.abs(out).max() < 2 * np.abs(sound).max()
        for alpha in (0.9, 1.1):
            warped = perturb_vocal_tract(sound, rate, alpha)
            assert abs(decibels(rms(warped) / rms(sound))) < 1.5
            assert warp_found(sound, warped, rate) == alpha


def warp_found(sound: Waveform, warped: Waveform, rate: int) -> float:
    """The alpha that brings the mean spectrum of one sound nearest to that of the other, in dB."""
    frequency, before = welch(sound, rate, nperseg=1024)
    after = welch(warped, rate, nperseg=1024)[1]

    def distance(alpha: float) -> float:
        came_from = warp_frequency(frequency, rate, alpha, inverse=True)
        return float(np.std(np.log(np.interp(came_from, frequency, before)) - np.log(after)))

    return min((0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15), key=distance)


def test_each_copy_has_its_own_key_whatever_their_number() -> None:
    """The store takes the seed from the key: more copies leave those that it has as they are."""
    three = variants_of(spec_of(gain=[-6.0, 6.0], copies=3))
    five = variants_of(spec_of(gain=[-6.0, 6.0], copies=5))
    keys = [json.dumps(variant.key) for variant in five]
    assert len(set(keys)) == 5
    assert [json.dumps(variant.key) for variant in three] == keys[:3]
    others = (variants_of(spec_of(**keys)) for keys in ({"gain": [-6, 5]}, {"vtlp": [0.9, 1.1]}))
    assert not {json.dumps(variant.key) for other in others for variant in other} & set(keys)
    sound = tone(440)
    expected = augment(sound, RATE, spec_of(gain=[-6.0, 6.0]), 7)
    np.testing.assert_array_equal(five[4].apply(sound, RATE, 7), expected)
    assert variants_of(AugmentationSpec()) == ()


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_stretch.Signalsmith", None)
    with pytest.raises(RecipeError, match=r"pip install python-stretch"):
        augment(tone(440), RATE, spec_of(pitch=[1.0, 1.0]), 0)


# --- the recipe's part ---


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"copies": 2}, "training.augmentation: copies 2 without a transform"),
        ({"copies": 0, "gain": [-6, 6]}, "training.augmentation: copies 0 uses no transform"),
        ({"speed": [1.1, 0.9]}, r"training.augmentation.speed: \[1.1, 0.9\]; allowed: two numbers"),
        ({"speed": [1.1]}, r"speed: \[1.1\]; allowed: two numbers, the lower first"),
        ({"noise": [0, 10, 20]}, r"noise: \[0.0, 10.0, 20.0\]; allowed: two numbers"),
        ({"pitch": [-2, 30]}, "pitch.1: 30: .*less than or equal to 12"),
        ({"vtlp": [0.0, 1.1]}, "vtlp.0: 0.0: .*greater than or equal to 0.5"),
        ({"gain": 6}, "gain: 6: .*array"),
        ({"gain": [float("nan"), 6]}, "gain.0: nan"),
        ({"gain": [-6, 6], "probability": 0.0}, "probability: 0.0: .*greater than 0"),
    ],
)
def test_mistakes_are_explained(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        spec_of(**keys)


def test_the_system_of_etienne_et_al_is_a_recipe() -> None:
    """VTLP and oversampling of minority classes (arXiv 1802.05630)."""
    recipe = Recipe.from_dict(
        {
            "training": {
                "augmentation": {"copies": 4, "vtlp": [0.9, 1.1]},
                "oversample": True,
                "class_weights": False,
            }
        }
    )
    assert recipe.training.augmentation.vtlp == (0.9, 1.1)
    with pytest.raises(RecipeError, match="allowed with oversample: class_weights false"):
        Recipe.from_dict({"training": {"oversample": True}})
