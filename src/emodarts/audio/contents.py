"""SHA-256 of files, remembered for as long as the file system says that nothing changed.

A corpus of 200,000 turns is tens of gigabytes, too much to read before every run only to see
that it is still the same. What is remembered is keyed by a file's place, size, time of
modification, time of change and inode. A user can set the second of these times back, but not
the third, so a file that was rewritten, replaced or touched is read again. A file that had
changed less than two seconds before it was read is not remembered at all: it could change once
more without a clock of coarse ticks showing it (as with git's index, "racy git").
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from pathlib import Path

SETTLED_NS = 2_000_000_000
_LINE = re.compile(rb"^([0-9a-f]{64}) ([0-9a-f]{64})$", re.MULTILINE)


class Contents:
    """Remembered contents of files, in one text file for each folder that holds such files.

    A line is a fact, ``key SHA-256``, that never becomes wrong: a changed file has another key.
    So lines are only appended, several processes may do it at once, and a line that was cut
    off or mangled by a crash is one that nobody finds.

    Parameters
    ----------
    folder : of the text files; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, dict[str, str]] = {}
        self._lock = threading.Lock()

    def recall(self, path: Path) -> str | None:
        """SHA-256 (hexadecimal) of a file, or None if it must be read."""
        key = file_key(path)
        if key is None:
            return None
        with self._lock:
            if path.parent not in self._known:
                self._known[path.parent] = self._load(path.parent)
            return self._known[path.parent].get(key)

    def remember(self, path: Path, key: str | None, content: str) -> None:
        """Keep the SHA-256 of a file that had ``key`` before it was read, if it still has it.

        What cannot be written is forgotten: the file will be read again, and nothing is lost.
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

    def _load(self, parent: Path) -> dict[str, str]:
        try:
            lines = self._place(parent).read_bytes()
        except OSError:
            return {}
        return {key.decode(): content.decode() for key, content in _LINE.findall(lines)}

    def _place(self, parent: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(parent.absolute())).hexdigest()}.txt"


def file_key(path: Path) -> str | None:
    """What identifies a file in its present state; None where a change of it might not show."""
    if os.name != "posix":
        return None  # elsewhere st_ctime is the time of creation
    try:
        # Opened, because only that makes a network file system ask its server anew.
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
    except OSError:
        return None
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS:
        return None
    facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return hashlib.sha256(os.fsencode(path.name) + repr(facts).encode()).hexdigest()
