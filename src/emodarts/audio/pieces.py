"""Long sound in the pieces that a model hears one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emodarts.recipe.features import FeatureSpec

_HOP = 0.5
"""Pieces of a long stretch begin this share of their length after one another."""


def piece_starts(n_samples: int, piece: int) -> list[int]:
    """First samples of pieces that cover ``n_samples``, half overlapping, the last at the end."""
    if n_samples <= piece:
        return [0]
    step = max(1, int(piece * _HOP))
    last = n_samples - piece
    return [*range(0, last, step), last]


def split(waveform: NDArray[np.float32], spec: FeatureSpec) -> list[NDArray[np.float32]]:
    """Pieces of sound (n,), as views: all of it in one, unless ``spec.length`` is segments.

    They still need :func:`~emodarts.audio.features.fit_length`. What is done before it, e.g. a
    change of speed, thus has sound to work on instead of zeros.
    """
    if spec.length != "segments":
        return [waveform]
    starts = piece_starts(len(waveform), spec.n_samples)
    return [waveform[first : first + spec.n_samples] for first in starts]
