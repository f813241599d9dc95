"""Audio files in any format that libsndfile reads, as mono float32 at a given rate.

A file is read in blocks, so that memory does not grow with its length. Headers are corrected first
where a file shows that they are wrong (:mod:`emodarts.audio.headers`). A stretch of a file has the
samples that it has in the whole, in every format.
"""

from __future__ import annotations

import io
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from emodarts.audio.contents import state_of
from emodarts.audio.headers import corrected, promised_ratio
from emodarts.errors import AudioError, shown

SLACK = 0.01
"""Tolerance in seconds for durations in headers and label files."""

_LOUDEST = 1e9
"""Larger samples, which only float files can hold, would overflow a power spectrum."""

_BLOCK = 1 << 16
"""Frames that are decoded at once."""

_UNKNOWN = 1 << 62
"""libsndfile's number of frames, or more, where a header does not state it."""

_FORWARDS = ("MP3", "OGG")
"""Formats in which libsndfile finds a place only nearly, at times by a second, or decodes the first
samples there without what they depend on. They are read from their beginning."""

_HELD = 16
"""Blocks of such a file that are held, for stretches that overlap."""

_CANCELLED = 0.01
"""Channels cancel if their mean reaches no more than this fraction of their range."""

CANCELLING = "the channels cancel each other; use one of them, or turn one over"
"""Why a recording with sound in its channels may have none in their mean."""

Samples = NDArray[np.float32]
"""Mono samples (n,)."""

Block = NDArray[np.float32]
"""Samples (n, channels)."""


def load_audio(
    path: Path | str,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    tap: Callable[[Samples], None] | None = None,
) -> Samples:
    """Read an audio file, or a segment of it.

    Parameters
    ----------
    path : any file that libsndfile decodes (WAV, FLAC, Ogg, MP3, ...).
    sample_rate : Hz of the result.
    start, end : segment in seconds; ``end`` None is the end of the file.
    tap : called with the samples in blocks, at the file's own rate.

    Returns
    -------
    mono samples, the mean of all channels [shape=(n_samples,)]

    Raises
    ------
    AudioError
        If the file is missing, empty, truncated or not decodable, if ``start`` or ``end`` is
        outside it, or if the segment is constant or has samples that are not finite.
    """
    blocks = []
    with open_recording(path) as recording:
        for block in _with_sound(recording, start, end):
            if tap is not None:
                tap(block)
            blocks.append(block)
        return resample(np.concatenate(blocks), recording.sample_rate, sample_rate, path)


def check_audio(
    path: Path | str,
    start: float = 0.0,
    end: float | None = None,
    tap: Callable[[Samples], None] | None = None,
) -> None:
    """Decode a segment of a file and keep nothing. Raises as :func:`load_audio` does.

    ``tap`` is called with the samples in blocks, at the file's own rate.
    """
    with open_recording(path) as recording:
        for block in _with_sound(recording, start, end):
            if tap is not None:
                tap(block)


def resample(samples: Samples, rate: int, sample_rate: int, name: Path | str) -> Samples:
    """Samples (n,) of ``rate`` Hz at ``sample_rate`` Hz. Raises :class:`AudioError` if none."""
    resampled: Samples = soxr.resample(samples, rate, sample_rate)
    if resampled.size == 0:
        raise too_short(name, samples.size, rate)
    return resampled


def _with_sound(recording: Recording, start: float, end: float | None) -> Iterator[Samples]:
    """Blocks of a segment. After the last one, raises :class:`AudioError` if all are constant."""
    least, greatest = np.inf, -np.inf
    for block in recording.blocks(start, end):
        least, greatest = min(least, float(block.min())), max(greatest, float(block.max()))
        yield block
    if least == greatest:
        why = f": {CANCELLING}" if recording.mixdown.cancelled else ""
        raise AudioError(
            f"{recording.name}: is silent (all samples equal {least:g}) between {start:g} s and "
            f"{'the end' if end is None else f'{end:g} s'}{why}"
        )


@contextmanager
def open_recording(path: Path | str) -> Iterator[Recording]:
    """Open an audio file to read it in blocks.

    Where going to a place means to decode all before it, the file stays open until the thread opens
    another one: its stretches, asked for in order of time, are then decoded in one pass.

    Raises
    ------
    AudioError
        If the file is missing, empty, truncated or not decodable.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open_audio(path))
        key = (str(path), state_of(file.fileno()))
        if getattr(_kept, "key", None) == key:
            _kept.recording.mixdown = Mixdown(_kept.recording.name)
            yield _kept.recording
            return
        recording = Recording(file, path)
        if recording.forwards:
            weakref.finalize(recording, stack.pop_all().close)
            _kept.key, _kept.recording = key, recording
        yield recording


_kept = threading.local()


@contextmanager
def open_audio(path: Path | str) -> Iterator[io.BufferedReader]:
    """Open an audio file to read its bytes. Raises :class:`AudioError`."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise AudioError(f"{shown(path)}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{shown(path)}: is a folder, not an audio file") from None
    except OSError as error:
        raise AudioError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    with file:
        yield file


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read forwards; soundfile seeks after every block of one that can."""

    def seekable(self) -> bool:
        return False


class Recording:
    """An open audio file.

    Attributes
    ----------
    name : path on one line, for messages.
    sample_rate : Hz.
    frames : samples of each channel; None if only decoding shows it.
    note : what the header states wrongly and the answers must say, or ``""``.
    mixdown : of the blocks read last.
    forwards : whether it is read from its beginning up to a stretch.

    Raises
    ------
    AudioError
        If the file is empty, truncated or not decodable.
    """

    _place: int
    """Frames that were read of a file that is read forwards."""

    _held: deque[Block]
    """The last ones of them."""

    def __init__(self, file: BinaryIO, name: Path | str) -> None:
        self.name = name = shown(name)
        if not file.seek(0, io.SEEK_END):
            raise AudioError(f"{name}: is empty (0 bytes)")
        header = corrected(file, name)
        self.note = header.note
        self._file = header.file
        self._rewind()
        self.forwards = self._sound.format in _FORWARDS
        self.sample_rate: int = self._sound.samplerate
        self.mixdown = Mixdown(name)
        self._exact = header.exact
        frames = self._sound.frames if header.frames is None else header.frames
        self.frames: int | None = None if frames >= _UNKNOWN else frames
        if frames == 0:
            raise AudioError(f"{name}: has no samples (0 frames)")
        promised = frames * promised_ratio(self._sound.extra_info) / self.sample_rate
        held = frames / self.sample_rate
        if promised - held > SLACK:
            raise AudioError(_truncated(name, promised, held))

    def blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[Samples]:
        """Mono samples of a segment (in seconds), block after block.

        Raises
        ------
        AudioError
            At once or later, if the segment is not in the file, the file holds less than its
            header states, or a sample is not finite.
        """
        rate = self.sample_rate
        first, last = frame_range(self.frames, rate, self.name, start, end)
        place = first
        for block in self._raw(first, last):
            place += len(block)
            yield self.mixdown(block)
        if self._exact and self.frames is not None and (last - place) / rate > SLACK:
            raise AudioError(_truncated(self.name, (last - first) / rate, (place - first) / rate))
        if place == first or (end is not None and end - place / rate > SLACK):
            raise _no_segment(self.name, start, end, place / rate)

    def _raw(self, first: int, last: int) -> Iterator[Block]:
        """Frames of all channels; it ends early where the file does."""
        try:
            if not self.forwards:
                self._sound.seek(first)
                while first < last and len(block := self._read(last - first)):
                    first += len(block)
                    yield block
                return
            if first < self._place - sum(map(len, self._held)):
                self._rewind()
            place = self._place - sum(map(len, self._held))
            for block in list(self._held):
                if len(part := block[max(0, first - place) : max(0, last - place)]):
                    yield part
                place += len(block)
            while place < last and len(block := self._read(_BLOCK)):
                self._held.append(block)
                self._place += len(block)
                if len(part := block[max(0, first - place) : last - place]):
                    yield part
                place += len(block)
        except soundfile.SoundFileError as error:
            self._place = _UNKNOWN
            self._held.clear()
            raise AudioError(_undecodable(self.name, error)) from error

    def _read(self, most: int) -> Block:
        block: Block = self._sound.read(min(_BLOCK, most), dtype="float32", always_2d=True)
        return block

    def _rewind(self) -> None:
        self._file.seek(0)
        try:
            self._sound = _Forward(self._file)
            self._sound.seek(0)  # the last bits of MP3 depend on it
        except soundfile.SoundFileError as error:
            raise AudioError(_undecodable(self.name, error)) from error
        self._place = 0
        self._held = deque(maxlen=_HELD)


class Mixdown:
    """Mean of the channels, block by block.

    Attributes
    ----------
    name : for messages.
    n_samples : of all blocks.
    cancelled : whether the channels of the last block had sound and their mean has none.
    """

    def __init__(self, name: Path | str) -> None:
        self.name = name
        self.n_samples = 0
        self.cancelled = False

    def __call__(self, samples: NDArray[np.floating[Any]]) -> Samples:
        """``(n,)`` or ``(n, channels)`` -> ``(n,)``.

        Raises
        ------
        AudioError
            For another shape, for integers, whose full scale is unknown, or for a sample that is
            not finite.
        """
        mono = _to_mono(samples, self.name)
        self.n_samples += len(mono)
        if samples.ndim == 2 and samples.size:
            self.cancelled = bool(np.ptp(mono) <= _CANCELLED * np.ptp(samples, axis=0).max() > 0)
        return mono


def frame_range(
    frames: int | None, rate: int, name: Path | str, start: float, end: float | None
) -> tuple[int, int]:
    """First frame of a segment, and one past the last.

    Parameters
    ----------
    frames : of the whole; None if unknown. Without an ``end``, that of the segment is then beyond
        all files.

    Raises
    ------
    AudioError
        If there is no such segment.
    """
    duration = np.inf if frames is None else frames / rate
    stop = duration if end is None else end
    if not 0 <= start < stop <= duration + SLACK:
        raise _no_segment(name, start, end, duration)
    first = round(start * rate)
    last = _UNKNOWN if end is None else max(first + 1, round(end * rate))
    return first, last if frames is None else min(last, frames)


def _no_segment(name: Path | str, start: float, end: float | None, duration: float) -> AudioError:
    return AudioError(
        f"{name}: start {start:g} s and end {duration if end is None else end:g} s are not a "
        f"segment of its {duration:.3f} s; allowed: 0 <= start < end <= {duration:.3f}"
    )


def too_short(name: Path | str, n_samples: int, sample_rate: int) -> AudioError:
    """The error for samples of which resampling leaves none."""
    return AudioError(
        f"{name}: {n_samples} sample(s) at {sample_rate} Hz are too short to resample"
    )


def _to_mono(samples: NDArray[np.floating[Any]], name: Path | str) -> Samples:
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{name}: {samples.dtype} samples of shape {samples.shape}; allowed: floats of shape "
            "(n,) or (n, channels), full scale 1"
        )
    wrong = np.count_nonzero(~(np.abs(samples) <= _LOUDEST))
    if wrong:
        raise AudioError(
            f"{name}: {wrong} sample(s) are NaN, infinite or beyond {_LOUDEST:g}; "
            "allowed: finite numbers; full scale is 1"
        )
    single = samples.astype(np.float32, copy=False)
    mono: Samples = single.mean(axis=1) if single.ndim == 2 else single
    return mono


def _undecodable(path: Path | str, error: Exception) -> str:
    fault = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return (
        f"{path}: cannot be decoded ({fault}); allowed: whole WAV, FLAC, Ogg, MP3 and other files "
        "that libsndfile reads; others must be converted, e.g. ffmpeg -i FILE FILE.wav"
    )


def _truncated(path: Path | str, promised: float, held: float) -> str:
    return (
        f"{path}: is truncated: its header states {promised:.3f} s, the file holds {held:.3f} s; "
        "use the whole file"
    )
