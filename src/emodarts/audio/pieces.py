"""Division of long sound into pieces of the length of a model's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emodarts.recipe.features import FeatureSpec

_HOP = 0.5
"""Distance between the starts of two pieces, as a fraction of their length."""


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
    augmentation does not process the padding.
    """
    if spec.length != "segments":
        return [waveform]
    starts = piece_starts(len(waveform), spec.n_samples)
    return [waveform[first : first + spec.n_samples] for first in starts]
