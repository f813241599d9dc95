"""What readers share: looking into folders and reading label files, never opening sound."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError, list_lines

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")
"""Lower-case suffixes of the audio files that a search of a folder finds."""

DEBRIS = "resource fork of macOS, not sound"
"""Reason to leave out what :func:`is_debris` tells."""

NOBODY = frozenset({"", "unknown", "nan", "na", "n/a", "none", "null"})
"""In lower case: what stands for a speaker who is not known."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHOWN = 5


def check_folder(root: Path | None, corpus: str, wanted: str) -> Path:
    """Return ``root`` if it is a folder that is not empty.

    Parameters
    ----------
    wanted : what the folder should hold, e.g. ``"EmoDB files like 03a01Wa.wav"``.

    Raises
    ------
    CorpusError
        If it is not given, missing, a file, unreadable or empty.
    """
    if root is None:
        raise CorpusError(f"corpus {corpus!r} needs its folder (--root), with {wanted}")
    looked = f"looked for {wanted} in it and below it"
    try:
        if not root.exists():
            raise CorpusError(f"no such folder: {root}; {looked}")
        if not root.is_dir():
            raise CorpusError(f"{root} is a file; legal: the folder with {wanted}")
        empty = not any(root.iterdir())
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"cannot list {str(root)!r}: {reason}; {looked}") from error
    if empty:
        raise CorpusError(f"{root} is empty; {looked}")
    return root


def walk_files(root: Path) -> Iterator[Path]:
    """Every file in ``root`` and below, folder by folder in the order of names.

    Files of a folder come before those of its folders, so that of two copies the outer one
    comes first. Links are followed, and each folder is listed once.

    Raises
    ------
    CorpusError
        For a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise CorpusError(f"cannot list {error.filename}: {error.strerror}") from error

    # Corpora are often put together by links; one that leads back up would never end.
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def is_debris(path: Path) -> bool:
    """Whether a file is a resource fork of macOS (``._name``), which only looks like sound."""
    return path.name.startswith("._")


def index_sound(
    paths: Iterable[Path], root: Path, parse_name: Callable[[Path], Utterance | str]
) -> tuple[dict[str, Utterance], list[tuple[str, str]]]:
    """Index sound files by the utterances that their names tell; none is opened.

    Parameters
    ----------
    parse_name : from a file to its utterance, or to the reason why it is none.

    Returns
    -------
    utterances by name, and what was left out: ``(path below root, reason)``. Of two files of one
    utterance and one size, as in a folder that holds a copy of itself, the first counts.

    Raises
    ------
    CorpusError
        If two files of one utterance differ in size.
    """
    found: dict[str, Utterance] = {}
    skipped = []
    for path in paths:
        told = DEBRIS if is_debris(path) else parse_name(path)
        if not isinstance(told, str):
            first = found.setdefault(told.name, told)
            if first is told:
                continue
            _check_copy(first.path, path)
            told = "copy of a file found before"
        skipped.append((path.relative_to(root).as_posix(), told))
    return found, skipped


def _check_copy(first: Path, path: Path) -> None:
    try:
        sizes = [file.stat().st_size for file in (first, path)]
    except OSError as error:
        raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error
    if sizes[0] != sizes[1]:
        raise CorpusError(
            f"{first} and {path} have one name and different sizes ({sizes[0]} and {sizes[1]} "
            "bytes); each utterance is one file, so remove the wrong one"
        )


def read_text(path: Path) -> str:
    """Text of a label file: UTF-8 with or without byte-order mark, any line ends.

    Raises
    ------
    CorpusError
        If the file cannot be read or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error


def read_number(text: str) -> float:
    """Return the number that decimal ASCII digits tell, e.g. ``-2.5`` or ``1e3``.

    Raises
    ------
    ValueError
        For anything else, like ``1_0`` and ``inf``, and for what is too large.
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if math.isinf(value):
        raise ValueError(text)
    return value


def read_rating(text: str) -> float | None:
    """Return a mean rating, None for NaN or a blank.

    Raises
    ------
    ValueError
        For anything but a number as :func:`read_number` has it.
    """
    text = text.strip()
    return None if text.lower() in ("", "nan") else read_number(text)


def read_speaker(text: str) -> str | None:
    """Return a speaker, None for :data:`NOBODY`: one word for many must not become one person."""
    return None if text.casefold() in NOBODY else text


def refuse_faults(where: Path, faults: Sequence[str], legal: str) -> None:
    """Raise :class:`CorpusError` with the first few of ``faults`` and their number, if any."""
    if faults:
        raise CorpusError(
            f"{where} has {len(faults)} fault(s); {legal}:{list_lines(faults, _SHOWN)}"
        )
