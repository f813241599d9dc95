"""Headers of a corpus' audio files, and checks of what is wrong or the same in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from emodarts.audio.duplicates import SoundDigest, group_same
from emodarts.audio.io import SLACK, check_audio, open_recording
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError

Item = TypeVar("Item")

_CHUNK = 1024
#: Seconds; more than most utterances last.
_LONGEST_UTTERANCE = 60.0


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an audio file.

    Attributes
    ----------
    duration : seconds of the whole file.
    sample_rate : Hz.
    note : what it states wrongly, or ``""``.
    """

    duration: float
    sample_rate: int
    note: str = ""


def read_header(path: Path) -> Header | None:
    """Read a file's header without decoding its audio.

    None if it cannot be read, states no duration, or promises more than the file holds.
    """
    try:
        with open_recording(path) as recording:
            frames, rate, note = recording.frames, recording.sample_rate, recording.note
    except AudioError:
        return None
    return None if frames is None else Header(frames / rate, rate, note)


def read_headers(
    utterances: Sequence[Utterance], on_done: Callable[[], None] | None = None
) -> list[Header | None]:
    """Read the header of each utterance's file; each file is opened once, many in parallel.

    ``on_done`` is called once for each utterance, in the calling thread.
    """
    known: dict[Path, Header | None] = {}
    found = []
    for chunk in _chunks(utterances):
        paths = list(dict.fromkeys(u.path for u in chunk if u.path not in known))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            known.update(zip(paths, pool.map(read_header, paths), strict=True))
        for utterance in chunk:
            found.append(known[utterance.path])
            if on_done is not None:
                on_done()
    return found


def duration_of(utterance: Utterance, header: Header) -> float:
    """Duration of an utterance in seconds, as far as it is inside the file."""
    end = header.duration if utterance.end is None else min(utterance.end, header.duration)
    return max(0.0, end - utterance.start)


def count_longer(utterances: Sequence[Utterance], seconds: float) -> int:
    """Number of utterances that are longer than so many seconds, by the headers of their files."""
    headers = read_headers([u for u in utterances if u.end is None])
    whole = iter(headers)
    count = 0
    for utterance in utterances:
        if utterance.end is not None:
            count += utterance.end - utterance.start > seconds + SLACK
        elif header := next(whole):
            count += duration_of(utterance, header) > seconds + SLACK
    return count


@dataclass(frozen=True)
class Checked:
    """What decoding all audio of a corpus shows.

    Attributes
    ----------
    bad : unusable utterances: ``(name, reason)``.
    sounds : :class:`~emodarts.audio.duplicates.SoundDigest` of each utterance; None if unusable.
    """

    bad: tuple[tuple[str, str], ...]
    sounds: tuple[str | None, ...]


def check_all(
    utterances: Sequence[Utterance], on_done: Callable[[], None] | None = None
) -> Checked:
    """Decode all audio, many files in parallel.

    ``on_done`` is called once for each utterance, in the calling thread.
    """
    # In order of time, a long recording is decoded in one pass.
    order = sorted(range(len(utterances)), key=lambda i: (utterances[i].path, utterances[i].start))
    sounds: list[str | None] = [None] * len(utterances)
    faults = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in _chunks(order):
            found = pool.map(_decode, [utterances[index] for index in some])
            for index, (sound, fault) in zip(some, found, strict=True):
                sounds[index] = sound
                if sound is None:
                    faults[index] = fault
                if on_done is not None:
                    on_done()
    return Checked(tuple((utterances[i].name, faults[i]) for i in sorted(faults)), tuple(sounds))


def same_stretches(
    utterances: Sequence[Utterance], headers: Sequence[Header | None]
) -> list[tuple[int, ...]]:
    """Indices of utterances that are the same stretch of the same file, found without decoding."""
    files: dict[Path, tuple[int, int] | None] = {}
    keys: list[tuple[object, ...] | None] = []
    for utterance, header in zip(utterances, headers, strict=True):
        if utterance.path not in files:
            files[utterance.path] = _identity(utterance.path)
        file = files[utterance.path]
        if file is None or header is None:
            keys.append(None)
        else:
            end = header.duration if utterance.end is None else utterance.end
            keys.append((file, round(utterance.start, 3), round(min(end, header.duration), 3)))
    return group_same(keys)


def beyond_file(utterances: Sequence[Utterance], headers: Sequence[Header | None]) -> list[int]:
    """Indices of utterances that begin or end after the end of their file."""
    return [
        index
        for index, (u, header) in enumerate(zip(utterances, headers, strict=True))
        if header is not None
        and (u.start >= header.duration or (u.end or 0.0) > header.duration + SLACK)
    ]


def in_milliseconds(utterances: Sequence[Utterance], headers: Sequence[Header | None]) -> bool:
    """Whether utterances beyond their files would be inside, and not short, in milliseconds."""
    beyond = beyond_file(utterances, headers)
    lengths = [end - u.start for u in map(utterances.__getitem__, beyond) if (end := u.end)]
    scaled = [replace(u, start=u.start / 1000, end=u.end and u.end / 1000) for u in utterances]
    return (
        len(lengths) > 0
        and sorted(lengths)[len(lengths) // 2] >= _LONGEST_UTTERANCE
        and not beyond_file(scaled, headers)
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file, which its links share."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide a corpus, so that few tasks wait in a pool."""
    for first in range(0, len(items), _CHUNK):
        yield items[first : first + _CHUNK]


def _decode(utterance: Utterance) -> tuple[str | None, str]:
    """Digest of an utterance's sound, or None and why it cannot be used."""
    sound = SoundDigest()
    try:
        check_audio(utterance.path, utterance.start, utterance.end, sound.add)
    except AudioError as error:
        return None, str(error)
    return sound.hexdigest(), ""
