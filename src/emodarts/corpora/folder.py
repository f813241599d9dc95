"""What readers share: looking into folders and reading label files, never opening sound."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from emodarts.errors import CorpusError

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


def read_rating(text: str) -> float | None:
    """Return a mean rating, None for NaN or a blank.

    Raises
    ------
    ValueError
        For anything but a finite number.
    """
    value = float(text.strip() or "nan")
    if math.isinf(value):
        raise ValueError(text)
    return None if math.isnan(value) else value


def refuse_faults(where: Path, faults: Sequence[str], legal: str) -> None:
    """Raise :class:`CorpusError` with the first few of ``faults`` and their number, if any."""
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CorpusError(
            f"{where} has {len(faults)} fault(s); {legal}:\n  "
            + "\n  ".join(faults[:_SHOWN])
            + more
        )
