"""The same sound under several names: a digest of decoded samples, and what shares one."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

_LOUD = 0.1
_LEAST_SAMPLES = 1000
_MOST_SAMPLES = 1 << 25


class SoundDigest:
    """SHA-256 of decoded samples, whatever file and silence are around them.

    Only what lies between the first and the last sample of at least a tenth of the peak counts, so
    that copies whose beginning or end was cut or filled with silence have one digest. Where that
    is less than 1000 samples, as with a click in quiet speech, all but zeros at the ends counts.
    Of a recording of more than 2^25 samples, the rest is not looked at.
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.float32]] = []
        self._room = _MOST_SAMPLES

    def add(self, block: NDArray[np.float32]) -> None:
        """Append samples ``(n,)``."""
        if self._room:
            self._blocks.append(block[: self._room].copy())
            self._room -= len(self._blocks[-1])

    def hexdigest(self) -> str:
        """The digest of what was added, 64 hexadecimal digits."""
        samples = np.concatenate(self._blocks or [np.zeros(0, np.float32)])
        level = np.abs(samples)
        part = _between(samples, level >= _LOUD * level.max(initial=0.0))
        if len(part) < _LEAST_SAMPLES:
            part = _between(samples, level > 0)
        # Adding zero makes -0.0, which some decoders give, 0.0.
        return hashlib.sha256((part.astype("<f4") + np.float32(0)).tobytes()).hexdigest()


def group_same(keys: Sequence[Hashable | None]) -> list[tuple[int, ...]]:
    """Indices of equal keys, for each key that occurs more than once; None equals nothing."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(index)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _between(samples: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """From the first chosen sample to the last."""
    places = np.flatnonzero(chosen)
    return samples[places[0] : places[-1] + 1] if len(places) else samples[:0]
