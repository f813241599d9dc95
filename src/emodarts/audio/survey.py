"""Headers of a corpus' audio files, and a check for unusable audio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile

from emodarts.audio.io import load_audio
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
    """Read a file's header without decoding its audio; None if libsndfile cannot read it."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        return None
    return Header(info.frames / info.samplerate, info.samplerate)


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
    header = read_header(utterance.path)
    # The file's own rate needs no resampling; without a header, reading explains the fault.
    rate = 16000 if header is None else header.sample_rate
    try:
        load_audio(utterance.path, rate, utterance.start, utterance.end)
    except AudioError as error:
        return str(error)
    return None
