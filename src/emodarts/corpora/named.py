"""What corpora share whose file names say everything: who spoke, with which emotion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emodarts.corpora.folder import check_folder, is_debris, walk_files
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError


def list_named(
    root: Path | None,
    corpus: str,
    wanted: str,
    parse_name: Callable[[Path], Utterance | str],
    suffixes: tuple[str, ...] = (".wav",),
) -> tuple[list[Utterance], list[tuple[str, str]]]:
    """List the files in ``root``, at any depth below it, that a name marks as utterances.

    Parameters
    ----------
    wanted : what the folder should hold, e.g. ``"EmoDB files like 03a01Wa.wav"``.
    parse_name : from a file to its utterance, or to the reason why it is none.
    suffixes : lower-case; other files are passed over without a word.

    Returns
    -------
    utterances sorted by name, and what was left out. Of two files of one name and one size, as
    in a folder that holds a copy of itself, the first counts.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or holds no such file, or if two files of one name
        differ in size.
    """
    root = check_folder(root, corpus, wanted)
    found: dict[str, Utterance] = {}
    skipped = []
    for path in walk_files(root):
        if path.suffix.lower() not in suffixes:
            continue
        utterance = "resource fork of macOS, not sound" if is_debris(path) else parse_name(path)
        if not isinstance(utterance, str):
            first = found.setdefault(utterance.name, utterance)
            if first is utterance:
                continue
            utterance = _copy_of(first.path, path, root)
        skipped.append((path.relative_to(root).as_posix(), utterance))
    if not found:
        raise CorpusError(f"{root} holds no {wanted}, neither in it nor below it")
    return sorted(found.values(), key=lambda u: u.name), skipped


def _copy_of(first: Path, path: Path, root: Path) -> str:
    """Return the reason to leave ``path`` out, the second file of its name."""
    try:
        sizes = [file.stat().st_size for file in (first, path)]
    except OSError as error:
        raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error
    if sizes[0] != sizes[1]:
        raise CorpusError(
            f"{first} and {path} have one name and different sizes ({sizes[0]} and {sizes[1]} "
            "bytes); each utterance is one file, so remove the wrong one"
        )
    return f"copy of {first.relative_to(root).as_posix()}"
