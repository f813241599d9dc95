"""Atomic writing and safe reading of files, and folders that one process has to itself.

A reader sees either the old or the new content of a file, never a part: data is written to a
temporary file in the same folder, which then replaces the target. Nothing is pickled or
evaluated.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from emodarts.errors import EmodartsError, WriteError, list_some

try:
    import fcntl
except ImportError:  # on Windows nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Name of the file that says which process has a folder to itself."""

_SECONDS_BETWEEN_TRIES = 0.2


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` as :func:`write_blocks` does."""
    write_blocks(path, [data], durable=durable)


def write_blocks(path: Path, blocks: Iterable[bytes | memoryview], *, durable: bool = True) -> None:
    """Write blocks of data one after another to ``path`` atomically; missing folders are created.

    ``durable`` waits until the data is on the disk. Otherwise a crash of the machine may leave a
    damaged file, which is acceptable if damage is detected and the file can be made again.

    Raises
    ------
    WriteError
        If the folder or the file cannot be written; an old file is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = _open_temporary(path)
        try:
            with file:  # until it has its name, as the lock says that somebody still writes it
                for block in blocks:
                    file.write(block)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # as Windows wants it
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; an existing file is unchanged"
        ) from error


def _open_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new locked file beside ``path``."""
    while True:
        # Not by tempfile, which ignores the user's umask.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        file = temporary.open("xb")
        if _lock(file) and temporary.exists():
            return temporary, file
        file.close()  # swept up before it was locked


def _lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock a file until it is closed; False if another process, or another opening, has it.

    ``shared`` is enough to see that, and can be had of a file that was opened for reading.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process has ``path``, a file that is only locked; then have it.

    Raises
    ------
    WriteError
        If the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed in and below ``folder``."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) and path.is_file():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if _lock(file):
                    path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, error: type[EmodartsError], *, wait: bool = False) -> Iterator[None]:
    """Keep a folder to this process; it is made if absent, and removed if it is left empty.

    The lock ends with the process, however that ends. ``wait`` waits for another process that has
    the folder.

    Raises
    ------
    WriteError
        If the folder cannot be made or written to.
    error
        If it is a file, or, without ``wait``, naming the process that has it.
    """
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is a file; a folder is needed")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tries = 0
        while (file := _take(folder)) is None:
            tries += 1  # as a process that only looks who has it has the file for a moment
            if tries > 1 and not wait:
                who = holder(folder) or "another process"
                raise error(f"{folder} is in use by {who}; wait until it ends")
            time.sleep(_SECONDS_BETWEEN_TRIES)
    except OSError as cause:
        raise WriteError(f"cannot write to {folder}: {cause.strerror or cause}") from cause
    try:
        yield
    finally:
        with file, suppress(OSError):
            (folder / LOCK).unlink()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _take(folder: Path) -> IO[str] | None:
    """The locked file of a folder; None: another process has it."""
    path = folder / LOCK
    while True:
        file = path.open("a+", encoding="utf-8")
        if not _lock(file):
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # removed by the process that had it
    file.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
    file.flush()
    return file


def holder(folder: Path) -> str | None:
    """The process that has a folder to itself, in words; None: nobody has it."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            return None if _lock(file, shared=True) else file.read() or "another process"
    except OSError:
        return None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises :class:`WriteError`."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        # Python decodes file names that are not UTF-8 to text that UTF-8 cannot encode.
        near = ascii(text[max(error.start - 20, 0) : error.end + 20])
        raise WriteError(
            f"cannot write {path}: {near} is not valid Unicode; if it is a file name in another "
            "encoding, rename that file"
        ) from error
    write_bytes(path, data)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, as JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, error: type[EmodartsError]) -> Any:
    """Read a JSON file, raising ``error`` with the path and line for anything wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"cannot read {path}: {cause}") from cause
    return parse_json(text, str(path), error)


def parse_json(text: str, where: str, error: type[EmodartsError]) -> Any:
    """Parse JSON text, raising ``error`` with ``where`` and the line for anything wrong."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as cause:
        raise error(
            f"{where} is not JSON: line {cause.lineno}, column {cause.colno}: {cause.msg}"
        ) from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{where} is not usable JSON: {cause}") from cause


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed in JSON")


def read_object(path: Path, error: type[EmodartsError], *keys: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object with ``keys``; raise ``error`` otherwise."""
    value = read_json(path, error)
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object")
    missing = [key for key in keys if key not in value]
    if missing:
        raise error(f"{path} has no {list_some(missing)}")
    return value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV with a header, atomically; floats keep all digits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def read_csv(path: Path, error: type[EmodartsError]) -> list[dict[str, str]]:
    """Read a CSV file with a header into one dictionary per row; a byte-order mark is skipped.

    ``error`` is raised for an unreadable file and for a row that is longer or shorter than
    the header.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                # DictReader stores surplus cells under None and fills missing ones with None.
                if None in row or None in row.values():
                    raise error(
                        f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} "
                        f"cells as in the header ({', '.join(reader.fieldnames or ())})"
                    )
                rows.append(row)
    except FileNotFoundError:
        raise error(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise error(f"cannot read {path}: {cause}") from cause
    return rows


def sha256_of(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file, in memory that does not grow with it. Raises ``OSError``."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: object) -> str:
    """SHA-256 (hexadecimal) of a value as JSON, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
