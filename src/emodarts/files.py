"""Atomic writing and safe reading of files.

A reader sees either the old or the new content of a file, never a part: data is written to a
temporary file in the same folder, which then replaces the target. Nothing is pickled or
evaluated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emodarts.errors import EmodartsError, WriteError, list_some


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` atomically; missing folders are created.

    ``durable`` waits until the data is on the disk. Otherwise a crash of the machine may leave a
    damaged file, which is acceptable if damage is detected and the file can be made again.

    Raises
    ------
    WriteError
        If the folder or the file cannot be written; an old file is kept.
    """
    # Not by tempfile, which ignores the user's umask.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; an existing file is unchanged"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes in and below ``folder``."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) and path.is_file():
            path.unlink(missing_ok=True)


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


def digest_of(value: object) -> str:
    """SHA-256 (hexadecimal) of a value as JSON, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
