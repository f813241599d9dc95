"""What happens to sound before its features: trimmed, brought to a level, divided into pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emodarts.audio.speech import is_silent
from emodarts.recipe.features import FeatureSpec

_HOP = 0.5
"""Distance between the starts of two pieces, as a fraction of their length."""
BLOCK = 0.032
"""Seconds of a block whose level decides what is trimmed."""


def prepare(waveform: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
    """Trim sound and bring it to a level, as the spec asks for [shape=(n,) -> (m,)].

    The beginning and the end are cut off up to where the RMS of 32 ms, looked at every 8 ms, comes
    within ``spec.trim`` dB of that of the loudest 32 ms. The level is the RMS of what is left.
    """
    if spec.trim is not None:
        waveform = _trimmed(waveform, spec.trim, round(BLOCK * spec.sample_rate))
    if spec.level is not None and waveform.any():
        rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        waveform = (waveform * (10 ** (spec.level / 20) / rms)).astype(np.float32)
    return waveform


def _trimmed(waveform: NDArray[np.float32], decibels: float, block: int) -> NDArray[np.float32]:
    hop = max(1, block // 4)
    # Blocks begin before the sound, so that silence before it is no other case.
    margin = block - hop
    padded = np.pad(waveform, (margin, margin + -len(waveform) % hop)).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(np.square(padded))])
    starts = np.arange(0, len(padded) - block + 1, hop)
    power = sums[starts + block] - sums[starts]
    (loud,) = np.nonzero(power > power.max() * 10 ** (-decibels / 10))
    if not loud.size:  # silence
        return waveform
    # What is new in the first loud block, and what the first quiet one after it has lost, is loud.
    return waveform[starts[loud[0]] : max(0, starts[loud[-1]] - margin) + hop]


def piece_starts(n_samples: int, piece: int) -> list[int]:
    """First samples of pieces that cover ``n_samples``: half overlapping, the last at the end."""
    if n_samples <= piece:
        return [0]
    step = max(1, int(piece * _HOP))
    last = n_samples - piece
    return [*range(0, last, step), last]


def split(waveform: NDArray[np.float32], spec: FeatureSpec) -> list[NDArray[np.float32]]:
    """Divide sound (n,) into pieces, as views; one piece unless ``spec.length`` is segments.

    The pieces are not yet padded by :func:`~emodarts.audio.features.fit_length`, so that
    augmentation does not process the padding. A silent piece has no emotion and is left out, unless
    all are silent.
    """
    if spec.length != "segments":
        return [waveform]
    starts = piece_starts(len(waveform), spec.n_samples)
    parts = [waveform[first : first + spec.n_samples] for first in starts]
    return [part for part in parts if not is_silent(part, spec.sample_rate)] or parts
