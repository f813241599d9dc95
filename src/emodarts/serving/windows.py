"""Audio in chunks of any size: resampled, and cut into windows and pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
import soxr
from numpy.typing import NDArray

from emodarts.audio.features import fit_length
from emodarts.audio.pieces import piece_starts, prepare
from emodarts.errors import EmodartsError
from emodarts.recipe import FeatureSpec

Samples = NDArray[np.float32]
"""Mono samples (n,)."""

_SHORTEST = 0.01
"""Seconds; shorter windows hold no speech, and closer ones would have equal times in print."""


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
    chunks: Iterable[Samples], sample_rate: int, window: float | None, hop: float | None
) -> Iterator[tuple[int, Samples]]:
    """First sample and samples of each window, as soon as its samples have come.

    Windows start at 0 and advance by the hop. The last one ends with the audio: where the hop does
    not lead there, it starts as much earlier as it must to be whole. Audio that is shorter than a
    window is one window, and so is all audio if ``window`` is None. Between chunks, the samples of
    one window are held.

    Parameters
    ----------
    window, hop : seconds; the default of ``hop`` is ``window``.
    """
    size = None if window is None else round(window * sample_rate)
    starts = (round(i * (hop or window or 0.0) * sample_rate) for i in count())
    start, covered = next(starts), 0
    held, first = np.empty(0, np.float32), 0  # samples, and the place of the first of them
    for chunk in chunks:
        held = np.concatenate([held, chunk])
        if size is None:
            continue
        while start + size <= first + len(held):
            yield start, held[start - first :][:size]
            covered, start = start + size, next(starts)
        surplus = max(0, len(held) - size)
        held, first = held[surplus:], first + surplus
    if covered < first + len(held):
        yield first, held


def pieces(samples: Samples, spec: FeatureSpec) -> list[Samples]:
    """Parts of ``spec.duration`` that overlap by half; shorter audio is one part, padded.

    Trimmed and brought to a level before that, where the spec asks for it."""
    samples = prepare(samples, spec)
    starts = piece_starts(len(samples), spec.n_samples)
    return [fit_length(samples[first:], spec.n_samples, spec.length, spec.fill) for first in starts]
