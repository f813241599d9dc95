"""SHA-256 of files, cached for as long as the file system shows no change.

A corpus of 200,000 turns is tens of gigabytes, too much to read before every run only to verify
that it has not changed. The key is a file's path, size, modification time, change time and inode.
Programs can set the modification time back, but not the change time, so a file that was
rewritten, replaced or touched is read again. A file that changed less than two seconds before it
was read is not cached: a second change might not show on a clock of coarse resolution (git
calls this "racy git").
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from emodarts import files

SETTLED_NS = 2_000_000_000
_LINE = re.compile(rb"^([0-9a-f]{64}) ([0-9a-f]{64})$", re.MULTILINE)


class Contents:
    """Cached SHA-256 of files, in one text file for each folder of such files.

    A line, ``key SHA-256``, stays true, as a changed file has another key. So lines are only
    appended, several processes may append at once, and a line that a crash truncated or damaged
    matches no key.

    Parameters
    ----------
    folder : of the text files; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, dict[str, str]] = {}
        self._lock = threading.Lock()

    def recall(self, path: Path) -> str | None:
        """Cached SHA-256 (hexadecimal) of a file, or None if it must be read."""
        key = file_key(path)
        if key is None:
            return None
        with self._lock:
            if path.parent not in self._known:
                self._known[path.parent] = self._load(path.parent)
            return self._known[path.parent].get(key)

    def remember(self, path: Path, key: str | None, content: str) -> None:
        """Cache the SHA-256 of a file that had ``key`` before it was read, if it still has it.

        Failures to write are ignored, as the file is then simply read again.
        """
        if key is None or file_key(path) != key:
            return
        place = self._place(path.parent)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("ab", buffering=0) as file:
                file.write(f"{key} {content}\n".encode())
        except OSError:
            return

    def of(self, path: Path) -> str:
        """SHA-256 (hexadecimal) of a file, read only where it is not cached. Raises ``OSError``."""
        known = self.recall(path)
        if known is not None:
            return known
        key = file_key(path)
        content = files.sha256_of(path)
        self.remember(path, key, content)
        return content

    def _load(self, parent: Path) -> dict[str, str]:
        try:
            lines = self._place(parent).read_bytes()
        except OSError:
            return {}
        return {key.decode(): content.decode() for key, content in _LINE.findall(lines)}

    def _place(self, parent: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(parent.absolute())).hexdigest()}.txt"


def file_key(path: Path) -> str | None:
    """Key of a file in its present state; None if a change might not show."""
    if os.name != "posix":
        return None  # elsewhere st_ctime is the creation time
    try:
        # Opening makes a network file system ask its server again.
        with path.open("rb", buffering=0) as file:
            state = state_of(file.fileno())
    except OSError:
        return None
    if time.time_ns() - max(state.modified, state.changed) < SETTLED_NS:
        return None
    return hashlib.sha256(os.fsencode(path.name) + repr(tuple(state)).encode()).hexdigest()


class FileState(NamedTuple):
    """What a write to a file changes: its size in bytes, times in ns, and inode."""

    size: int
    modified: int
    changed: int
    inode: int


def state_of(file: Path | int) -> FileState:
    """State of a file by its path or descriptor. Raises ``OSError``."""
    status = os.stat(file)  # noqa: PTH116 - of a descriptor, too
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
