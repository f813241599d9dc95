"""What readers share: walking folders and reading label files. No audio file is opened."""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError, list_lines

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf"),
    *(".w64", ".sph"),
)
"""Lower-case suffixes of the audio files that a search of a folder finds."""

OTHER_MEDIA = (
    *(".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr", ".3gp", ".mkv", ".mka", ".mov", ".avi"),
    *(".ape", ".wv", ".spx", ".ac3", ".mpg", ".mpeg", ".wmv"),
)
"""Lower-case suffixes of files that hold sound and must be converted before they can be read."""

DEBRIS = "resource fork of macOS, not audio"
"""Reason to leave out files for which :func:`is_debris` is true."""

OTHER_FORMAT = "another format of a file that is used"
"""Reason to leave out the second of two files that differ in format only."""

UNKNOWN_SPEAKERS = frozenset({"", "unknown", "nan", "na", "n/a", "none", "null"})
"""Names, in lower case, that stand for an unknown speaker."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHOWN = 5


def check_folder(root: Path | None, corpus: str, wanted: str) -> Path:
    """Return ``root`` if it is a non-empty folder.

    Parameters
    ----------
    wanted : what the folder should hold, e.g. ``"EmoDB files like 03a01Wa.wav"``.

    Raises
    ------
    CorpusError
        If ``root`` is None, missing, a file, unreadable or empty.
    """
    if root is None:
        raise CorpusError(f"corpus {corpus!r} needs its folder (--root) with {wanted}")
    looked = f"expected {wanted} in it or below it"
    try:
        if not root.exists():
            raise CorpusError(f"no such folder: {root}; {looked}")
        if not root.is_dir():
            raise CorpusError(f"{root} is a file; give the folder with {wanted}")
        empty = not any(root.iterdir())
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"cannot list {str(root)!r}: {reason}; {looked}") from error
    if empty:
        raise CorpusError(f"{root} is empty; {looked}")
    return root


def walk_files(root: Path) -> Iterator[Path]:
    """Every file in and below ``root``, folder by folder in order of name.

    The files of a folder come before those of its subfolders, so that the outer one of two copies
    comes first. Links are followed, and each folder is listed once.

    Raises
    ------
    CorpusError
        If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise CorpusError(f"cannot list {error.filename}: {error.strerror}") from error

    # Corpora are often assembled from links; a link to a parent folder would loop forever.
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def why_unread(path: Path) -> str:
    """Why a file with sound is left out, or ``""``: also for files that promise no sound."""
    suffix = path.suffix.lower()
    if path.is_symlink() and not path.exists():
        return "link to nothing"
    if suffix in OTHER_MEDIA:
        return f"{suffix} cannot be read; convert it: ffmpeg -i a{suffix} a.wav"
    return DEBRIS if suffix in AUDIO_SUFFIXES and is_debris(path) else ""


def is_debris(path: Path) -> bool:
    """Whether a file is a resource fork of macOS (``._name``) rather than audio."""
    return path.name.startswith("._")


def index_sound(
    paths: Iterable[Path], root: Path, parse_name: Callable[[Path], Utterance | str]
) -> tuple[dict[str, Utterance], list[tuple[str, str]]]:
    """Index audio files by the utterances that their names describe; none is opened.

    Parameters
    ----------
    parse_name : returns the utterance of a file, or the reason why it is not one.

    Returns
    -------
    utterances by name, and the files left out: ``(path below root, reason)``. Of two files with
    the same utterance and size, as in a folder that contains a copy of itself, the first is used;
    of two formats, the one that :data:`AUDIO_SUFFIXES` has first.

    Raises
    ------
    CorpusError
        If two files of one utterance and format differ in size.
    """
    found: dict[str, Utterance] = {}
    skipped = []
    for path in paths:
        parsed = DEBRIS if is_debris(path) else parse_name(path)
        left, reason = path, parsed
        if not isinstance(parsed, str):
            first = found.setdefault(parsed.name, parsed)
            if first is parsed:
                continue
            if first.path.suffix.lower() == path.suffix.lower():
                _check_copy(first.path, path)
                reason = "copy of another file"
            else:
                reason = OTHER_FORMAT
                if format_rank(path) < format_rank(first.path):
                    found[parsed.name], left = parsed, first.path
        skipped.append((left.relative_to(root).as_posix(), str(reason)))
    return found, skipped


def format_rank(path: Path) -> int:
    """Place of a file's format among those of one utterance: the first is used."""
    return AUDIO_SUFFIXES.index(path.suffix.lower())


def _check_copy(first: Path, path: Path) -> None:
    try:
        sizes = [file.stat().st_size for file in (first, path)]
    except OSError as error:
        raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error
    if sizes[0] != sizes[1]:
        raise CorpusError(
            f"{first} and {path} have the same name but different sizes ({sizes[0]} and {sizes[1]} "
            "bytes); an utterance has one file, so remove the wrong one"
        )


def read_text(path: Path) -> str:
    """Read a label file: UTF-8 with or without byte-order mark, any line endings.

    Raises
    ------
    CorpusError
        If the file cannot be read or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            return file.read()
    except UnicodeDecodeError as error:
        wide = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise CorpusError(
            f"{path} is {'UTF-16' if wide else 'not UTF-8'} text (byte {error.start}); "
            f"{to_utf8('UTF-16' if wide else 'WINDOWS-1252')}"
        ) from error
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error


def to_utf8(encoding: str) -> str:
    """How to convert a text file, for messages; ``encoding`` is what it seems to have."""
    return (
        "save it as UTF-8: in Excel by Save as, 'CSV UTF-8', elsewhere by "
        f"iconv -f {encoding} -t UTF-8 OLD > NEW"
    )


def read_number(text: str) -> float:
    """Parse a decimal number in ASCII digits, e.g. ``-2.5`` or ``1e3``.

    Raises
    ------
    ValueError
        For any other text, such as ``1_0`` or ``inf``, and for numbers that overflow.
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if math.isinf(value):
        raise ValueError(text)
    return value


def read_rating(text: str) -> float | None:
    """Parse a mean rating; None for NaN or blank.

    Raises
    ------
    ValueError
        For any other text that :func:`read_number` refuses.
    """
    text = text.strip()
    return None if text.lower() in ("", "nan") else read_number(text)


def read_speaker(text: str) -> str | None:
    """Return a speaker's name; None if it stands for an unknown speaker, who may be anyone."""
    return None if text.casefold() in UNKNOWN_SPEAKERS else text


def refuse_faults(where: Path, faults: Sequence[str], advice: str) -> None:
    """Raise :class:`CorpusError` with the number of ``faults`` and the first few, if any."""
    if faults:
        raise CorpusError(
            f"{where} has {len(faults)} error(s); {advice}:{list_lines(faults, _SHOWN)}"
        )
