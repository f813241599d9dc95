"""A small generated corpus with speech-like sound: the default of ``emodarts demo``, a toy.

A pulse train with jitter and shimmer goes through four gliding formant resonators (source and
filter, as in formant synthesis) and gets syllables, unvoiced bits, pauses and background noise.
Four emotions differ mostly in how pitch, loudness and tempo *move* through the phrase; speakers
differ in pitch, vocal tract, tempo and voice quality by more than the emotions do on average.
"""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts import files
from emodarts.cache import default_cache_folder
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError

GENERATOR_VERSION = 1
"""Raise by one with every change that changes a sample; folders of older versions are remade."""

SAMPLE_RATE = 16000
"""Hz."""

DURATION = 2.0
"""Seconds of every file."""

TAKES = 9
"""Utterances of each emotion by each speaker."""

NOTICE = (
    "synthetic is a generated toy corpus: it shows that the tool works, "
    "and its scores mean nothing for real speech"
)

MARKER = "emodarts-synthetic.json"
"""Written into the folder of the corpus, so that no other folder is ever written into."""

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Speaker:
    """A voice: ``pitch`` in Hz, ``tract`` scales formants, ``tempo`` scales syllables per second,
    ``darkness`` is added to the emotion's."""

    name: str
    gender: str
    pitch: float
    tract: float
    tempo: float
    darkness: float


SPEAKERS = (
    Speaker("f1", "female", 198.0, 1.16, 0.94, 0.12),
    Speaker("f2", "female", 226.0, 1.20, 1.06, -0.08),
    Speaker("f3", "female", 182.0, 1.13, 1.00, -0.08),
    Speaker("f4", "female", 210.0, 1.18, 0.97, 0.04),
    Speaker("m1", "male", 112.0, 1.00, 1.03, -0.12),
    Speaker("m2", "male", 134.0, 1.05, 0.96, 0.16),
    Speaker("m3", "male", 104.0, 0.98, 1.00, -0.04),
    Speaker("m4", "male", 122.0, 1.02, 1.05, 0.08),
)


@dataclass(frozen=True)
class Prosody:
    """How an emotion speaks.

    Attributes
    ----------
    pitch : semitones above the speaker's.
    contour : semitones at equal steps through the phrase.
    fall : semitones by which pitch falls within each syllable; negative rises.
    tempo : syllables per second.
    stress : dB of successive syllables, repeated through the phrase.
    fade : dB by which loudness changes from the first to the last syllable.
    attack : part of a syllable until it is loudest.
    darkness : pole of the low-pass on the pulses, 0 bright to 1 dark.
    jitter : relative standard deviation of the periods.
    """

    pitch: float
    contour: tuple[float, ...]
    fall: float
    tempo: float
    stress: tuple[float, ...]
    fade: float
    attack: float
    darkness: float
    jitter: float


EMOTIONS = {
    "anger": Prosody(1.5, (3.0, 4.0, 2.0, -5.0), 3.0, 4.6, (0.0, -2.0), 2.0, 0.15, 0.39, 0.025),
    "happiness": Prosody(1.5, (-3.0, 4.0, -2.0, 5.0), -3.0, 4.6, (-7.0, 0.0), 4.0, 0.6, 0.53, 0.01),
    "neutral": Prosody(0.0, (1.0, 0.5, -0.5, -1.0), 0.5, 4.0, (0.0,), 0.0, 0.4, 0.63, 0.01),
    "sadness": Prosody(
        -0.5, (1.0, 0.0, -1.5, -2.5), 1.0, 2.8, (0.0, -3.0, -3.0), -10.0, 0.5, 0.87, 0.015
    ),
}

_FORMANTS = np.array(
    [
        [750.0, 1250.0, 2500.0, 3500.0],  # a
        [480.0, 1850.0, 2500.0, 3500.0],  # e
        [300.0, 2200.0, 2950.0, 3600.0],  # i
        [480.0, 900.0, 2450.0, 3400.0],  # o
        [330.0, 800.0, 2300.0, 3350.0],  # u
    ]
)
"""Hz, of a vocal tract of scale 1."""

_BANDWIDTHS = np.array([80.0, 100.0, 140.0, 200.0])
_BLOCK = 160  # samples in which a formant stands still: 10 ms
_NOISE_DB = (-38.0, -18.0)  # background against the voice
_LEVEL_DB = (-32.0, -18.0)  # of the file against full scale


def read_synthetic(root: Path | None) -> Corpus:
    """List the corpus in ``root``, generating it where it is absent, partial or outdated.

    Parameters
    ----------
    root : folder; None is one in the user's cache folder.

    Raises
    ------
    CorpusError
        If ``root`` is a file, or a folder with other things in it.
    WriteError
        If the files cannot be written.
    """
    if root is None:
        root = default_cache_folder() / f"synthetic-v{GENERATOR_VERSION}"
    if not _is_complete(root):
        _generate(root)
    utterances = tuple(
        Utterance(
            name=Path(file).stem,
            path=root / file,
            label=emotion,
            speaker=speaker.name,
            gender=speaker.gender,
        )
        for file, speaker, emotion, _ in _plan()
    )
    return Corpus("synthetic", utterances, tuple(EMOTIONS), NOTICE)


def _plan() -> list[tuple[str, Speaker, str, int]]:
    """File name, speaker, emotion and take of every utterance, sorted by name."""
    return [
        (f"{speaker.name}_{emotion}_{take:02d}.wav", speaker, emotion, take)
        for speaker in SPEAKERS
        for emotion in EMOTIONS
        for take in range(1, TAKES + 1)
    ]


def _is_complete(root: Path) -> bool:
    """Whether all files of this version are there. Raises for a folder that is not ours."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise CorpusError(f"{root} is a file; legal: a new or empty folder for the toy corpus")
    marker = root / MARKER
    if not marker.is_file():
        if any(root.iterdir()):
            raise CorpusError(
                f"{root} holds other files and no {MARKER}; the toy corpus is only generated "
                f"into a new or empty folder"
            )
        return False
    made = files.read_json(marker, CorpusError)
    return made == _marker(complete=True) and all((root / f).is_file() for f, *_ in _plan())


def _marker(complete: bool) -> dict[str, object]:
    return {"version": GENERATOR_VERSION, "files": len(_plan()), "complete": complete}


def _generate(root: Path) -> None:
    """Write all files; the marker says complete only after the last."""
    files.write_json(root / MARKER, _marker(complete=False))
    for seed, (file, speaker, emotion, _) in enumerate(_plan()):
        rng = np.random.default_rng([GENERATOR_VERSION, seed])
        files.write_bytes(root / file, _to_wav(synthesise(speaker, EMOTIONS[emotion], rng)))
    files.write_json(root / MARKER, _marker(complete=True))


def _to_wav(sound: Samples) -> bytes:
    """16-bit mono WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return buffer.getvalue()


@dataclass(frozen=True)
class _Syllables:
    """One row for each syllable of a phrase: times in seconds, loudness as a factor."""

    start: Samples
    length: Samples
    gain: Samples
    vowel: NDArray[np.int64]
    unvoiced: NDArray[np.bool_]


def synthesise(speaker: Speaker, prosody: Prosody, rng: np.random.Generator) -> Samples:
    """Speak one random phrase.

    Returns
    -------
    samples within +-1 at ``SAMPLE_RATE`` [shape=(DURATION * SAMPLE_RATE,)]
    """
    time = np.arange(round(DURATION * SAMPLE_RATE)) / SAMPLE_RATE
    syllables = _draw_syllables(speaker, prosody, rng)
    place, within = _locate(syllables, time)
    loudness = _envelope(syllables, place, within, prosody, rng)
    pitch = _pitch(syllables, place, within, time, speaker, prosody, rng)
    voiced = _pulses(pitch, speaker, prosody, rng) * loudness
    formants = _formant_track(syllables, time, speaker)
    speech = _resonate(voiced, formants) + _unvoiced(syllables, time, rng)
    return _record(speech, rng)


def _draw_syllables(speaker: Speaker, prosody: Prosody, rng: np.random.Generator) -> _Syllables:
    """Lay syllables, in words of two to four with pauses between, until the time is up."""
    tempo = prosody.tempo * speaker.tempo * rng.uniform(0.88, 1.12)
    lengths, starts = [], []
    now, left_in_word = rng.uniform(0.03, 0.15), int(rng.integers(2, 5))
    while True:
        length = rng.uniform(0.85, 1.15) / tempo
        if now + length > DURATION - 0.05:
            break
        starts.append(now)
        lengths.append(length)
        left_in_word -= 1
        now += length
        if left_in_word == 0:
            left_in_word = int(rng.integers(2, 5))
            now += rng.uniform(0.1, 0.5) / tempo
    count = len(starts)
    position = np.linspace(0.0, 1.0, count)
    shift = int(rng.integers(len(prosody.stress)))
    stress = np.take(prosody.stress, np.arange(shift, shift + count), mode="wrap")
    decibels = stress + prosody.fade * (position - 0.5) + rng.normal(0.0, 1.0, count)
    return _Syllables(
        start=np.array(starts),
        length=np.array(lengths),
        gain=10.0 ** (decibels / 20.0),
        vowel=rng.integers(len(_FORMANTS), size=count),
        unvoiced=rng.random(count) < 0.4,
    )


def _locate(syllables: _Syllables, time: Samples) -> tuple[NDArray[np.int64], Samples]:
    """Syllable of every sample, and where in it: 0 start, 1 end, beyond 1 in a pause."""
    place = np.clip(np.searchsorted(syllables.start, time, side="right") - 1, 0, None)
    within = (time - syllables.start[place]) / syllables.length[place]
    return place, within


def _envelope(
    syllables: _Syllables,
    place: NDArray[np.int64],
    within: Samples,
    prosody: Prosody,
    rng: np.random.Generator,
) -> Samples:
    """Loudness: within each syllable a rise and a fall, both half cosines."""
    attack = prosody.attack * rng.uniform(0.8, 1.2)
    rise = np.clip(within / attack, 0.0, 1.0)
    fall = np.clip((1.0 - within) / (1.0 - attack), 0.0, 1.0)
    shape: Samples = np.sin(0.5 * math.pi * np.minimum(rise, fall)) ** 2
    return shape * syllables.gain[place]


def _pitch(
    syllables: _Syllables,
    place: NDArray[np.int64],
    within: Samples,
    time: Samples,
    speaker: Speaker,
    prosody: Prosody,
    rng: np.random.Generator,
) -> Samples:
    """Hz of the voice at every sample."""
    spoken = (time - syllables.start[0]) / (
        syllables.start[-1] + syllables.length[-1] - syllables.start[0]
    )
    scale = rng.uniform(0.75, 1.25)
    contour = np.interp(spoken, np.linspace(0.0, 1.0, len(prosody.contour)), prosody.contour)
    fall = prosody.fall * (0.5 - np.clip(within, 0.0, 1.0))
    wander = rng.normal(0.0, 0.4, len(syllables.start))[place]
    level = prosody.pitch + rng.normal(0.0, 1.5)
    semitones = level + scale * (contour + fall) + wander
    pitch: Samples = speaker.pitch * np.exp2(semitones / 12.0)
    return pitch


def _pulses(
    pitch: Samples, speaker: Speaker, prosody: Prosody, rng: np.random.Generator
) -> Samples:
    """Glottal pulses with jitter (of the period), shimmer (of the amplitude) and breath."""
    from scipy.signal import lfilter

    cycle = np.floor(np.cumsum(pitch) / SAMPLE_RATE).astype(np.int64)
    jitter = 1.0 + prosody.jitter * rng.normal(size=cycle[-1] + 1)
    phase = np.cumsum(pitch * jitter[cycle]) / SAMPLE_RATE
    whole = np.floor(phase).astype(np.int64)
    shimmer = 1.0 + 2.0 * prosody.jitter * rng.normal(size=whole[-1] + 1)
    part = phase - whole
    opened = np.where(part < 0.6, part**2 * (0.6 - part), 0.0) / 0.032  # Rosenberg's pulse
    source = np.diff(opened * shimmer[whole], prepend=0.0) * SAMPLE_RATE / pitch
    source += 0.05 * rng.normal(size=len(source))
    pole = np.clip(prosody.darkness + speaker.darkness + rng.normal(0.0, 0.1), 0.0, 0.9)
    filtered: Samples = lfilter([1.0 - pole], [1.0, -pole], source)
    return filtered


def _formant_track(syllables: _Syllables, time: Samples, speaker: Speaker) -> Samples:
    """Hz of each formant in each block of 10 ms, gliding from vowel to vowel [shape=(n, 4)]."""
    middle = syllables.start + 0.5 * syllables.length
    hold = 0.25 * syllables.length
    anchors = np.stack([middle - hold, middle + hold], axis=1).ravel()
    targets = np.repeat(_FORMANTS[syllables.vowel], 2, axis=0) * speaker.tract
    blocks = time[::_BLOCK]
    return np.stack([np.interp(blocks, anchors, column) for column in targets.T], axis=1)


def _resonate(source: Samples, formants: Samples) -> Samples:
    """Pass the source through a cascade of two-pole resonators that change each block."""
    from scipy.signal import sosfilt

    radius = np.exp(-math.pi * _BANDWIDTHS / SAMPLE_RATE)
    sections = np.zeros((*formants.shape, 6))  # (blocks, formants, coefficients)
    sections[..., 3] = 1.0
    sections[..., 4] = -2.0 * radius * np.cos(2.0 * math.pi * formants / SAMPLE_RATE)
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(axis=-1)  # gain 1 at 0 Hz
    state: Any = np.zeros((formants.shape[1], 2))
    result = np.empty_like(source)
    for block, section in enumerate(sections):
        span = slice(block * _BLOCK, (block + 1) * _BLOCK)
        result[span], state = sosfilt(section, source[span], zi=state)
    return result


def _unvoiced(syllables: _Syllables, time: Samples, rng: np.random.Generator) -> Samples:
    """Hiss of 60 ms around the start of some syllables, as of s or f."""
    centres = syllables.start[syllables.unvoiced]
    bursts: Samples = np.exp(-(((time[:, None] - centres) / 0.02) ** 2)).sum(axis=1)
    hiss: Samples = np.diff(rng.normal(size=len(time)), prepend=0.0)
    return 0.02 * bursts * hiss


def _record(speech: Samples, rng: np.random.Generator) -> Samples:
    """Add background noise of a random level and colour, and set a random level."""
    from scipy.signal import lfilter

    speech = speech / math.sqrt(float(np.mean(speech**2)))
    pole = rng.uniform(0.0, 0.95)
    noise = lfilter([1.0], [1.0, -pole], rng.normal(size=len(speech)))
    noise *= 10.0 ** (rng.uniform(*_NOISE_DB) / 20.0) / math.sqrt(float(np.mean(noise**2)))
    mixed = speech + noise
    level = 10.0 ** (rng.uniform(*_LEVEL_DB) / 20.0)
    recorded: Samples = mixed * level / math.sqrt(float(np.mean(mixed**2)))
    return np.clip(recorded, -1.0, 1.0)
