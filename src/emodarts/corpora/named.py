"""What readers share whose corpora encode speaker and emotion in the file name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    check_folder,
    index_sound,
    walk_files,
    why_unread,
)
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError, list_skipped


def list_named(
    root: Path | None,
    corpus: str,
    wanted: str,
    parse_name: Callable[[Path], Utterance | str],
    suffixes: tuple[str, ...] = AUDIO_SUFFIXES,
) -> tuple[list[Utterance], list[tuple[str, str]]]:
    """List the files in and below ``root`` whose names describe utterances.

    Parameters
    ----------
    wanted : what the folder should hold, e.g. ``"EmoDB files like 03a01Wa.wav"``.
    parse_name : returns the utterance of a file, or the reason why it is not one.
    suffixes : lower-case; other files are ignored, but for sound that must be converted first.

    Returns
    -------
    utterances sorted by name, and the files left out: ``(path below root, reason)``.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or holds no such file, or if two files of the same
        name differ in size.
    """
    root = check_folder(root, corpus, wanted)
    files, unread = [], []
    for path in walk_files(root):
        if path.suffix.lower() in suffixes:
            files.append(path)
        elif (reason := why_unread(path)) and isinstance(parse_name(path), Utterance):
            unread.append((path.relative_to(root).as_posix(), reason))
    found, skipped = index_sound(files, root, parse_name)
    skipped += unread
    if not found:
        raise CorpusError(f"{root} has no {wanted} in it or below it{list_skipped(unread)}")
    return sorted(found.values(), key=lambda u: u.name), skipped
