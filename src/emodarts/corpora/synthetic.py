"""A small generated toy corpus of speech-like sound, the default of ``emodarts demo``.

As in formant synthesis, a pulse train with jitter and shimmer passes through four formant
resonators that move over time; syllables, unvoiced sounds, pauses and background noise are added.
The four emotions differ mostly in how pitch, loudness and tempo *change* through the phrase. On
average, speakers differ more in pitch, vocal tract, tempo and voice quality than emotions do.
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
"""Increase with every change of a sample; folders of older versions are generated again."""

SAMPLE_RATE = 16000
"""Hz."""

DURATION = 2.0
"""Seconds per file."""

TAKES = 9
"""Utterances of each emotion by each speaker."""

NOTICE = (
    "synthetic is a generated toy corpus: it shows that the tool works, "
    "and its scores mean nothing for real speech"
)

MARKER = "emodarts-synthetic.json"
"""Marks the folder of the corpus, so that no other folder is ever overwritten."""

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Speaker:
    """A voice: ``pitch`` in Hz; ``tract`` scales formants, ``tempo`` the syllables per second;
    ``darkness`` is added to that of the emotion."""

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
    """Prosody of an emotion.

    Attributes
    ----------
    pitch : semitones above the speaker's pitch.
    contour : semitones at equal steps through the phrase.
    fall : semitones by which pitch falls within each syllable; negative values rise.
    tempo : syllables per second.
    stress : dB of successive syllables, repeated through the phrase.
    fade : change of loudness in dB from the first to the last syllable.
    attack : fraction of a syllable before its maximum.
    darkness : pole of the low-pass filter on the pulses, from 0 (bright) to 1 (dark).
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
_BLOCK = 160  # samples with constant formants: 10 ms
_NOISE_DB = (-38.0, -18.0)  # background relative to the voice
_LEVEL_DB = (-32.0, -18.0)  # of the file relative to full scale


def read_synthetic(root: Path | None) -> Corpus:
    """List the corpus in ``root``; generate it if it is absent, incomplete or outdated.

    Parameters
    ----------
    root : folder; None is a folder in the user's cache.

    Raises
    ------
    CorpusError
        If ``root`` is a file, or a folder with other files.
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
    """Whether all files of this version exist. Raises for a folder with other files."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise CorpusError(f"{root} is a file; give a new or empty folder for the toy corpus")
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
    """Write all files; the marker is complete only after the last."""
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
    """Synthesise one random phrase.

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
    """Draw words of two to four syllables with pauses in between until the file is full."""
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
    """Syllable of every sample, and the position in it: 0 start, 1 end, above 1 in a pause."""
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
    """Loudness, which rises and falls as half cosines within each syllable."""
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
    """Pitch in Hz at every sample."""
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
    """Glottal pulses with jitter (period), shimmer (amplitude) and breath noise."""
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
    """Formants in Hz for each block of 10 ms, interpolated between vowels [shape=(n, 4)]."""
    middle = syllables.start + 0.5 * syllables.length
    hold = 0.25 * syllables.length
    anchors = np.stack([middle - hold, middle + hold], axis=1).ravel()
    targets = np.repeat(_FORMANTS[syllables.vowel], 2, axis=0) * speaker.tract
    blocks = time[::_BLOCK]
    return np.stack([np.interp(blocks, anchors, column) for column in targets.T], axis=1)


def _resonate(source: Samples, formants: Samples) -> Samples:
    """Filter the source by a cascade of two-pole resonators that change with each block."""
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
    """Fricative noise of 60 ms around the start of some syllables."""
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
