"""Headers of a corpus' audio files, and a check for unusable audio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emodarts.audio.io import SLACK, check_audio, open_recording
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an audio file.

    Attributes
    ----------
    duration : seconds of the whole file.
    sample_rate : Hz.
    """

    duration: float
    sample_rate: int


def read_header(path: Path) -> Header | None:
    """Read a file's header without decoding its audio.

    None if it cannot be read, states no duration, or promises more than the file holds.
    """
    try:
        with open_recording(path) as recording:
            frames, rate = recording.frames, recording.sample_rate
    except AudioError:
        return None
    return None if frames is None else Header(frames / rate, rate)


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
    """Duration of an utterance in seconds."""
    end = header.duration if utterance.end is None else utterance.end
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


def find_bad_audio(
    utterances: Sequence[Utterance], on_done: Callable[[], None] | None = None
) -> list[tuple[str, str]]:
    """Decode all audio, many files in parallel; return ``(name, reason)`` of unusable utterances.

    ``on_done`` is called once for each utterance, in the calling thread.
    """
    bad = []
    for chunk in _chunks(utterances):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for utterance, fault in zip(chunk, pool.map(_fault, chunk), strict=True):
                if fault is not None:
                    bad.append((utterance.name, fault))
                if on_done is not None:
                    on_done()
    return bad


def _chunks(utterances: Sequence[Utterance]) -> Iterator[Sequence[Utterance]]:
    """Divide a corpus, so that few tasks wait in a pool."""
    for first in range(0, len(utterances), _CHUNK):
        yield utterances[first : first + _CHUNK]


def _fault(utterance: Utterance) -> str | None:
    try:
        check_audio(utterance.path, utterance.start, utterance.end)
    except AudioError as error:
        return str(error)
    return None
