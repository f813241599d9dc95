"""Audio in chunks of any size: resampled, and cut into windows and pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
import soxr

from emodarts.audio.features import fit_length
from emodarts.audio.io import Samples
from emodarts.audio.pieces import prepare, split
from emodarts.errors import EmodartsError
from emodarts.recipe import FeatureSpec

_SHORTEST = 0.01
"""Seconds; shorter windows hold no speech, and closer ones would have equal times in print."""


LONGEST = 600.0
"""Seconds; longer audio that is classified as a whole is read in stretches of this length, and the
probabilities of all their pieces are averaged. No model's input is longer."""


def check_windows(window: float | None, hop: float | None) -> None:
    """Raise :class:`EmodartsError` for windows that are not possible."""
    for name, value in (("window", window), ("hop", hop)):
        if value is not None and not (np.isfinite(value) and value >= _SHORTEST):
            raise EmodartsError(f"{name} is {value} s; allowed: at least {_SHORTEST} s")
    if hop is not None and window is None:
        raise EmodartsError("hop is given without window; allowed: --window 8 --hop 4")


def resample(chunks: Iterable[Samples], source_rate: int, sample_rate: int) -> Iterator[Samples]:
    """Chunks at another rate (Hz); joined, they are the bits of the whole resampled at once."""
    resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32")
    for chunk in chunks:
        yield resampler.resample_chunk(chunk)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def cut(
    chunks: Iterable[Samples], sample_rate: int, window: float, hop: float | None
) -> Iterator[tuple[int, Samples]]:
    """First sample and samples of each window, as soon as its samples have come.

    Windows start at 0 and advance by the hop. The last one ends with the audio: where the hop does
    not lead there, it starts as much earlier as it must to be whole. Audio that is shorter than a
    window is one window. Between chunks, the samples of one window are held.

    Parameters
    ----------
    window, hop : seconds; the default of ``hop`` is ``window``.
    """
    size = round(window * sample_rate)
    starts = (round(i * (hop or window) * sample_rate) for i in count())
    start, covered = next(starts), 0
    held: deque[Samples] = deque()
    first, n_held = 0, 0  # place of the first sample that is held, and the number of them
    for chunk in chunks:
        held.append(chunk)
        n_held += len(chunk)
        if start + size <= first + n_held:
            joined = np.concatenate(held)
            while start + size <= first + n_held:
                yield start, joined[start - first :][:size]
                covered, start = start + size, next(starts)
            surplus = max(0, n_held - size)
            held = deque([joined[surplus:]])
            first, n_held = first + surplus, n_held - surplus
        while n_held - len(held[0]) >= size:
            first, n_held = first + len(held[0]), n_held - len(held[0])
            held.popleft()
    if covered < first + n_held:
        surplus = max(0, n_held - size)
        yield first + surplus, np.concatenate(held)[surplus:]


def loses(samples: Samples, spec: FeatureSpec) -> bool:
    """Whether a model takes only the beginning of audio, as those do that pad and cut."""
    longer = spec.length != "segments" and len(samples) > spec.n_samples
    return longer and len(prepare(samples, spec)) > spec.n_samples


def pieces(samples: Samples, spec: FeatureSpec) -> list[Samples]:
    """What a model takes of audio: trimmed, at a level, divided or cut, and padded, as in tests."""
    parts = split(prepare(samples, spec), spec)
    return [fit_length(part, spec.n_samples, spec.length, spec.fill) for part in parts]
