"""Whether sound can be speech at all: silence, a click, hum and steady noise have no emotion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENT = "silent"
"""The reason of :func:`lacks_speech` for sound that is none."""

BLOCK = 0.032
"""Seconds over which level and spectrum are taken."""

SILENT_LEVEL = -65.0
"""Level in dB of full scale up to which the loudest block is silence. The quietest file of RAVDESS
is at -53."""

_SOUNDING = 30.0
"""Blocks count as sound down to so many dB below the loudest."""

_CLICK, _CLICK_OF = 0.1, 0.5
"""Less sound than the first number of seconds, in at least the second, is no speech."""

_BANDS = (60.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0)
"""Limits in Hz of the bands whose levels change in speech."""

_STEADY, _STEADY_FOR = 3.0, 1.0
"""Sound is steady if the levels of the bands have a mean standard deviation of less than the first
number of dB over at least the second number of seconds. White, pink and brown noise and hum have 1
to 2 dB; two seconds of EmoDB, RAVDESS and EMOVO have 9 or more."""

_RANGE = 50.0
"""Bands are looked at down to so many dB below the loudest, so that silence counts as one level."""


def is_silent(samples: NDArray[np.float32], sample_rate: int) -> bool:
    """Whether no 32 ms of the samples (n,) reach -65 dB of full scale (RMS)."""
    return bool(_levels(_blocks(samples, sample_rate)).max() <= SILENT_LEVEL)


def lacks_speech(samples: NDArray[np.float32], sample_rate: int) -> str:
    """Why samples (n,) cannot be speech, or ``""``.

    It judges only what is sure: music, babble or a closing door pass for speech.
    """
    blocks = _blocks(samples, sample_rate)
    levels = _levels(blocks)
    seconds = len(samples) / sample_rate
    if levels.max() <= SILENT_LEVEL:
        return SILENT
    sounding = np.count_nonzero(levels > max(SILENT_LEVEL, levels.max() - _SOUNDING)) * BLOCK
    if sounding < _CLICK and seconds >= _CLICK_OF:
        return f"no speech: only {sounding:.2f} s of sound"
    if seconds >= _STEADY_FOR and _change(blocks, sample_rate) < _STEADY:
        return "no speech: steady noise or hum"
    return ""


def _blocks(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Blocks without their mean (k, n), at least one; samples that fill no block are left out."""
    size = min(len(samples), round(BLOCK * sample_rate))
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    centred: NDArray[np.float32] = blocks - blocks.mean(axis=1, keepdims=True)
    return centred


def _levels(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """RMS of each block in dB of full scale (k,)."""
    power = np.mean(np.square(blocks), axis=1)
    levels: NDArray[np.float32] = 10 * np.log10(power + 1e-20)
    return levels


def _change(blocks: NDArray[np.float32], sample_rate: int) -> float:
    """Standard deviation over time of the level of a band in dB, mean over the bands."""
    size = blocks.shape[1]
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    limits = np.searchsorted(frequencies, [f for f in _BANDS if f <= frequencies[-1]])
    window = np.hanning(size).astype(np.float32)
    power = np.empty((len(blocks), len(limits) - 1))
    for first in range(0, len(blocks), 1000):  # bounds the memory that a long sound needs
        some = np.abs(np.fft.rfft(blocks[first : first + 1000] * window, axis=1)) ** 2
        power[first : first + 1000] = np.add.reduceat(some, limits, axis=1)[:, :-1]
    levels = 10 * np.log10(power + 1e-30)
    return float(np.maximum(levels, levels.max() - _RANGE).std(axis=0).mean())
