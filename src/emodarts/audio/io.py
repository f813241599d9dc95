"""Audio files in any format that libsndfile reads, as mono float32 at a given rate."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from emodarts.errors import AudioError

SLACK = 0.01
"""Tolerance in seconds for durations in headers and label files."""

_LOUDEST = 1e9
"""Larger samples, which only float files can hold, would overflow a power spectrum."""

_UNKNOWN_SIZE = 0x7FFF0000
"""Sizes from here on mean "unknown" in a header that was written to a pipe."""


def load_audio(
    path: Path | str, sample_rate: int, start: float = 0.0, end: float | None = None
) -> NDArray[np.float32]:
    """Read an audio file, or a segment of it.

    Parameters
    ----------
    path : any file that libsndfile decodes (WAV, FLAC, Ogg, MP3, ...).
    sample_rate : Hz of the result.
    start, end : segment in seconds; ``end`` None is the end of the file.

    Returns
    -------
    mono samples, the mean of all channels [shape=(n_samples,)]

    Raises
    ------
    AudioError
        If the file is missing, empty, truncated or not decodable, if ``start`` or ``end`` is
        outside it, or if the segment is constant or has samples that are not finite.
    """
    return decode_audio(read_audio_bytes(path), path, sample_rate, start, end)


def read_audio_bytes(path: Path | str) -> bytes:
    """Read a file without decoding it. Raises :class:`AudioError`."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, not an audio file") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data:
        raise AudioError(f"{path}: is empty (0 bytes)")
    return data


def decode_audio(
    data: bytes,
    path: Path | str,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
) -> NDArray[np.float32]:
    """:func:`load_audio` of a file that is in memory; ``path`` only names it in messages."""
    mono, rate = decode_samples(data, path, start, end)
    return resample(mono, rate, sample_rate, path)


def resample(
    mono: NDArray[np.float32], rate: int, sample_rate: int, name: Path | str
) -> NDArray[np.float32]:
    """Samples (n,) of ``rate`` Hz at ``sample_rate`` Hz. Raises :class:`AudioError` if none."""
    resampled: NDArray[np.float32] = soxr.resample(mono, rate, sample_rate)
    if resampled.size == 0:
        raise too_short(name, mono.size, rate)
    return resampled


def decode_samples(
    data: bytes, path: Path | str, start: float = 0.0, end: float | None = None
) -> tuple[NDArray[np.float32], int]:
    """Mono samples (n,) of a segment of a file in memory, and their rate in Hz, which is its own.

    Raises as :func:`load_audio` does.
    """
    with _open(data, path) as sound:
        rate = sound.samplerate
        first, last = _frame_range(sound.frames, rate, path, start, end)
        try:
            sound.seek(first)
            channels = sound.read(last - first, dtype="float32", always_2d=True)  # (n, channels)
        except soundfile.SoundFileError as error:
            raise AudioError(_undecodable(path, error)) from error
    if (last - first - len(channels)) / rate > SLACK:
        raise AudioError(_truncated(path, (last - first) / rate, len(channels) / rate))
    return _with_sound(to_mono(channels, path), path, start, end), rate


def cut_samples(
    samples: NDArray[np.floating[Any]],
    sample_rate: int,
    name: str,
    start: float = 0.0,
    end: float | None = None,
) -> NDArray[np.float32]:
    """:func:`decode_samples` of samples ``(n,)`` or ``(n, channels)`` instead of a file."""
    first, last = _frame_range(len(samples), sample_rate, name, start, end)
    return _with_sound(to_mono(samples[first:last], name), name, start, end)


def to_mono(samples: NDArray[np.floating[Any]], name: Path | str) -> NDArray[np.float32]:
    """Mean of the channels: ``(n,)`` or ``(n, channels)`` -> ``(n,)``.

    Raises
    ------
    AudioError
        For another shape, for integers, whose full scale is unknown, or for a sample that is not
        finite.
    """
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
    mono: NDArray[np.float32] = single.mean(axis=1) if single.ndim == 2 else single
    return mono


def _with_sound(
    mono: NDArray[np.float32], name: Path | str, start: float, end: float | None
) -> NDArray[np.float32]:
    """The samples as they are, unless all are equal."""
    if mono.size == 0 or np.ptp(mono) == 0:
        level = mono[0] if mono.size else 0.0
        raise AudioError(
            f"{name}: is silent (all samples equal {level:g}) between {start:g} s and "
            f"{'the end' if end is None else f'{end:g} s'}"
        )
    return mono


def too_short(name: Path | str, n_samples: int, sample_rate: int) -> AudioError:
    """The error for samples of which resampling leaves none."""
    return AudioError(
        f"{name}: {n_samples} sample(s) at {sample_rate} Hz are too short to resample"
    )


def _open(data: bytes, path: Path | str) -> Any:
    """Open for reading; refuse a file with no frames, or fewer than in its header."""
    if data[:4] == b"OggS" and not _ogg_ends(data):
        raise AudioError(
            f"{path}: is truncated: the last Ogg page does not end the stream; use the whole file"
        )
    try:
        sound = soundfile.SoundFile(io.BytesIO(data))
        if sound.frames == 0:
            sound = soundfile.SoundFile(io.BytesIO(_with_unknown_size(data)))
    except soundfile.SoundFileError as error:
        raise AudioError(_undecodable(path, error)) from error
    if sound.frames == 0:
        raise AudioError(f"{path}: has no samples (0 frames)")
    held = sound.frames / sound.samplerate
    promised = held * _promised_ratio(sound.extra_info)
    if promised - held > SLACK:
        raise AudioError(_truncated(path, promised, held))
    return sound


def _promised_ratio(log: str) -> float:
    """Size of the audio data by its header, divided by the size in the file, from libsndfile's log.

    libsndfile reads what exists of an uncompressed file and only logs the difference:
    ``data : 64000 (should be 31978)``; ``SSND`` in AIFF, ``Data Size`` in AU, ``riff`` in W64.
    """
    note = re.search(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", log, re.M)
    if note is None:
        return 1.0
    promised, held = int(note[1]), int(note[2])
    return promised / held if held and promised < _UNKNOWN_SIZE else 1.0


def _ogg_ends(data: bytes) -> bool:
    """Whether the last Ogg page is complete and marked as the end of the stream (RFC 3533).

    libsndfile accepts any page as the last one and silently reads what precedes it.
    """
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    flags, segments = page[5], page[26]
    return bool(flags & 4) and len(page) >= 27 + segments + sum(page[27 : 27 + segments])


def _with_unknown_size(data: bytes) -> bytes:
    """Mark a data size of 0 in the header of a WAV stream as unknown, which libsndfile reads.

    A recorder that writes to a pipe cannot fill in the sizes: the data size stays 0, and the file
    size 0 or that of the header. If the file size is larger, the data really has size 0.
    """
    place = data.find(b"data\0\0\0\0")
    if data[:4] != b"RIFF" or place < 0:
        return data
    promised = int.from_bytes(data[4:8], "little")
    if promised == 0 or promised >= _UNKNOWN_SIZE or promised == place:
        return data[: place + 4] + b"\xff\xff\xff\xff" + data[place + 8 :]
    return data


def _frame_range(
    frames: int, rate: int, name: Path | str, start: float, end: float | None
) -> tuple[int, int]:
    """First frame, and one past the last. Raises :class:`AudioError`."""
    duration = frames / rate
    stop = duration if end is None else end
    if not 0 <= start < stop <= duration + SLACK:
        raise AudioError(
            f"{name}: start {start:g} s and end {stop:g} s are not a segment of its "
            f"{duration:.3f} s; allowed: 0 <= start < end <= {duration:.3f}"
        )
    first = round(start * rate)
    return first, min(max(first + 1, round(stop * rate)), frames)


def _undecodable(path: Path | str, error: Exception) -> str:
    fault = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return (
        f"{path}: cannot be decoded ({fault}); allowed: whole WAV, FLAC, Ogg, MP3 and other files "
        "that libsndfile reads"
    )


def _truncated(path: Path | str, promised: float, held: float) -> str:
    return (
        f"{path}: is truncated: its header states {promised:.3f} s, the file holds {held:.3f} s; "
        "use the whole file"
    )
