"""Your own data: a CSV, TSV, JSONL or parquet table with a row for each utterance.

Columns are ``file, speaker, emotion`` and, where the table has them, ``start, end, gender,
session, dialogue, style, split, valence, arousal, dominance, name``; other columns are ignored.
A blank cell (``null`` in JSON) means unknown. Backslashes in ``file`` separate folders.

An utterance is named after its file and segment, ``wav/a.wav`` or ``wav/a.wav:1.5-3``, so that
its name does not change when rows are added, removed or sorted.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emodarts.corpora.folder import (
    DEBRIS,
    is_debris,
    read_number,
    read_speaker,
    read_text,
    refuse_faults,
    to_utf8,
)
from emodarts.corpora.labelled import check_gender
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean, list_some
from emodarts.files import parse_json

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
"""Lower-case suffixes of tables; ``.json`` too is read as one object per line."""

DELIMITERS = ",;\t"
"""Of CSV; the one that finds most of the required columns in the header is used."""

GENDERS: dict[str, str | None] = {
    **dict.fromkeys(("female", "f", "woman", "w", "weiblich"), "female"),
    **dict.fromkeys(("male", "m", "man", "männlich"), "male"),
    **dict.fromkeys(("unknown", "other", "child"), None),
}
"""Accepted words in any case; None is neither, or unknown."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "file": (
        "file name", "file path", "path", "wav", "wav file", "wav path", "audio", "audio file",
        "audio path",
    ),
    "speaker": ("speaker id", "spk", "spk id", "spkr", "spkr id", "actor", "actor id", "subject"),
    "emotion": ("label", "emotion label", "emo", "emotions", "class"),
    "start": (
        "start time", "start s", "start sec", "start seconds", "segment start", "begin",
        "begin time", "begin s", "onset", "from", "t start", "t0", "tmin", "xmin",
    ),
    "end": (
        "end time", "end s", "end sec", "end seconds", "segment end", "stop", "stop time", "stop s",
        "to", "t end", "t1", "tmax", "xmax",
    ),
    "gender": ("sex",),
}  # fmt: skip
"""Other names of columns, in any case and with spaces, ``_``, ``-``, brackets or nothing between
the words. One is used where the table has no column of the usual name and no other of its
synonyms."""

TIMES = ("start", "end")
NUMBERS = (*TIMES, "valence", "arousal", "dominance")
"""Fields of numbers, which may have decimal commas where commas do not separate cells."""

Row = tuple[str, dict[str, str]]
"""Location of a row, e.g. ``"line 3"``, and its cells by field; blank means unknown."""

_RawRow = tuple[str, dict[str, Any]]
"""Location of a row, and its cells by column as they are in the file."""

_Read = tuple[Sequence[str], dict[str, str], Iterable[_RawRow]]
"""Header of a file, the column of each field, and the rows."""

_TIMEDELTA = re.compile(
    r"(?:(?P<days>\d{1,6}) days? ?)?"
    r"(?:(?:(?P<hours>\d{1,6}):(?=\d\d:))?(?P<minutes>\d{1,6}):(?P<seconds>\d\d)"
    r"(?:[.,](?P<fraction>\d{1,9}))?)?",
    re.ASCII,
)
_DECIMAL_COMMA = re.compile(r"[+-]?[\d:]*\d,\d+", re.ASCII)
_UNKNOWN_TIMES = ("nan", "nat", "none", "null")
_WORKBOOK = (
    "; save the sheet as CSV: in Excel by Save as, 'CSV UTF-8 (Comma delimited)', in LibreOffice "
    "by Save as, 'Text CSV'"
)
_CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), _WORKBOOK),
    ".txt": "; rename it to .csv, or .tsv if tabs separate its cells",
}
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_table(
    root: Path | None,
    *,
    audio: str = "",
    file: str = "file",
    speaker: str = "speaker",
    emotion: str = "emotion",
    start: str = "start",
    end: str = "end",
    gender: str = "gender",
    session: str = "session",
    dialogue: str = "dialogue",
    style: str = "style",
    split: str = "split",
    valence: str = "valence",
    arousal: str = "arousal",
    dominance: str = "dominance",
    name: str = "name",
) -> Corpus:
    """List the utterances of a table; no audio file is opened.

    Parameters
    ----------
    root : the table. CSV may be separated by comma, semicolon or tab.
    audio : folder to which paths are relative; default: the folder of the table.
    file, speaker, emotion, start, ... : names of the columns; ``""`` leaves a column out.
        ``speaker`` and ``emotion`` must exist unless left out, e.g. by ``speaker=""``; the other
        columns are optional. A column of another name that leaves no doubt, such as
        ``speaker_id``, is found (:data:`SYNONYMS`). ``start`` and ``end`` are seconds or text such
        as ``1:23.5`` or ``0 days 00:00:01.500000``; blank or ``NaT`` is the end of the file.

    Raises
    ------
    CorpusError
        If the file is not such a table, a column or every audio file is missing, or rows are
        wrong or contradict each other: one segment with two labels, one speaker with two
        genders, one name for two utterances.
    """
    wanted = f"a table ({', '.join(SUFFIXES)}) with the columns file, speaker, emotion"
    if root is None:
        raise CorpusError(f"corpus 'table' needs its file (--root): {wanted}")
    if not _holds(root.is_file):
        what = "is a folder" if _holds(root.is_dir) else "does not exist"
        raise CorpusError(f"{root} {what}; expected {wanted}")
    folder = Path(audio) if audio else root.parent
    if not _holds(folder.is_dir):
        raise CorpusError(
            f"option audio={audio}: no such folder; give the folder of the audio files"
        )
    columns = {
        "file": file,
        "speaker": speaker,
        "emotion": emotion,
        "start": start,
        "end": end,
        "gender": gender,
        "session": session,
        "dialogue": dialogue,
        "style": style,
        "split": split,
        "valence": valence,
        "arousal": arousal,
        "dominance": dominance,
        "name": name,
    }
    if not file:
        raise CorpusError("option file= is blank; give the name of the column with the paths")
    needed = {
        field
        for field, column in columns.items()
        if column and (column != field or field in ("file", "speaker", "emotion"))
    }
    faults: list[str] = []
    header, found, rows = read_rows(root, Wanted(columns, needed, _hint, SYNONYMS), faults)
    corpus = corpus_of_rows("table", root, rows, folder, faults)
    fields = {column: field for field, column in found.items()}
    return replace(corpus, columns={column: fields.get(column, "") for column in header})


@dataclass(frozen=True)
class Wanted:
    """Columns that a table should have.

    Attributes
    ----------
    columns : column of each field; blank columns are left out.
    needed : fields whose column must exist.
    hint : advice on the missing column of a field, for messages.
    synonyms : other columns that may hold a field whose column has the field's own name.
    """

    columns: Mapping[str, str]
    needed: AbstractSet[str]
    hint: Callable[[str], str]
    synonyms: Mapping[str, Sequence[str]] | None = None

    def find(self, path: Path, header: Sequence[str]) -> dict[str, str]:
        """Column of each field that a table has.

        Raises
        ------
        CorpusError
            If a column is there twice, several may be meant, or a needed one is missing.
        """
        found = {}
        for field, column in self.columns.items():
            meant = self._meant(field, header)
            if len(meant) > 1:
                raise CorpusError(
                    f"{path} has no column {column!r}, and {' and '.join(map(repr, meant))} may be "
                    f"it; name one with the option {field}={meant[0]}"
                )
            if meant:
                found[field] = meant[0]
            elif field in self.needed:
                raise CorpusError(
                    f"{path} has no column {column!r}{did_you_mean(column, header)}; "
                    f"{self.hint(field)}; its columns: {list_some(header, 20)}"
                )
        if twice := sorted(column for column in found.values() if header.count(column) > 1):
            raise CorpusError(
                f"{path} has more than one column {twice[0]!r}; column names must be unique"
            )
        if self.synonyms:
            self._refuse_other_times(path, header, found)
        return found

    def score(self, header: Sequence[str]) -> int:
        """How many fields may be in a header."""
        return sum(len(self._meant(field, header)) > 0 for field in self.columns)

    def _meant(self, field: str, header: Sequence[str]) -> list[str]:
        """Columns that may hold a field."""
        column = self.columns[field]
        if not column:
            return []
        if column in header or column != field or not self.synonyms:
            return [column] if column in header else []
        names = set(map(_plain, (field, *self.synonyms.get(field, ()))))
        taken = set(self.columns.values())
        free = [name for name in dict.fromkeys(header) if name not in taken]
        return [name for name in free if _plain(name) in names]

    def _refuse_other_times(
        self, path: Path, header: Sequence[str], found: Mapping[str, str]
    ) -> None:
        """Refuse columns that divide files in another way, as whole files would be read."""
        plain = {_plain(name): name for name in header if name not in found.values()}
        for time in TIMES:
            if not self.columns[time] or time in found:
                continue
            for unit in ("ms", "msec", "milliseconds"):
                if name := plain.get(time + unit):
                    raise CorpusError(
                        f"{path}: column {name!r} is in milliseconds; divide it by 1000 and name "
                        f"it {time}, or ignore it with the option {time}= (blank)"
                    )
            if name := plain.get("offset"):
                raise CorpusError(
                    f"{path}: column {name!r} may be the start or the end of segments; give the "
                    f"option start={name} or end={name}, or ignore it with {time}= (blank)"
                )
            if time == "end" and "start" in found and (name := plain.get("duration")):
                raise CorpusError(
                    f"{path} has columns {found['start']!r} and {name!r}; write their sum, the end "
                    "of each segment, in a column end, or give the option end= (blank)"
                )
        for time, other in (TIMES, TIMES[::-1]):
            if plain and time in found and self.columns[other] and other not in found:
                whole = "beginning" if other == "start" else "end"
                raise CorpusError(
                    f"{path} has the column {found[time]!r} and none known as the {other} of "
                    f"segments; give the option {other}=COLUMN, or take segments from or up to the "
                    f"{whole} of their file with {other}= (blank); its other columns: "
                    f"{list_some(plain.values(), 20)}"
                )


def read_rows(
    path: Path, wanted: Wanted, faults: list[str]
) -> tuple[Sequence[str], dict[str, str], Iterator[Row]]:
    """Columns of a table, the column of each field, and rows as text; the suffix gives the format.

    Parameters
    ----------
    faults : receives a line for each row that cannot be read.

    Raises
    ------
    CorpusError
        If the file cannot be read, has no header or a duplicate column, or lacks a needed column.
    """
    read = _FORMATS.get(path.suffix.lower())
    if read is None:
        advice = _CONVERSIONS.get(path.suffix.lower(), "")
        raise CorpusError(
            f"{path} is not a table: its suffix is {path.suffix!r}; "
            f"allowed: {', '.join(SUFFIXES)}{advice}"
        )
    header, found, raw = read(path, wanted, faults)

    def rows() -> Iterator[Row]:
        for place, values in raw:
            try:
                yield place, {field: _as_text(values.get(c), field) for field, c in found.items()}
            except CorpusError as error:
                faults.append(f"{place}: {error}")

    return header, found, rows()


def corpus_of_rows(
    corpus: str, where: Path, rows: Iterable[Row], folder: Path, faults: list[str]
) -> Corpus:
    """Make a corpus of rows; raise if any are wrong or contradict each other.

    Parameters
    ----------
    where : source of the rows, for messages.
    folder : folder to which paths are relative; they may not leave it.
    faults : errors found so far; reading ``rows`` may add to them.

    Raises
    ------
    CorpusError
        For any fault, or if no row names an audio file that exists.
    """
    utterances: list[Utterance] = []
    skipped: list[tuple[str, str]] = []
    stretches: dict[str, tuple[str, Utterance]] = {}
    names: dict[str, str] = {}
    genders: dict[str, tuple[str, str]] = {}
    base = posixpath.normpath(folder.absolute().as_posix())
    names_in = functools.cache(_names_in)
    lost: Path | None = None
    for place, cells in rows:
        try:
            stretch, utterance = _utterance(cells, folder, base)
            earlier, same = stretches.setdefault(stretch, (place, utterance))
            if earlier != place:
                _check_same(stretch, utterance, same, earlier)
                skipped.append((utterance.name, "repeats an earlier row"))
                continue
            if names.setdefault(utterance.name, place) != place:
                raise CorpusError(
                    f"name {utterance.name!r} is taken by {names[utterance.name]}; "
                    "each name must be unique"
                )
            check_gender(utterance, place, genders)
        except CorpusError as error:
            faults.append(f"{place}: {error}")
            continue
        path = utterance.path
        if is_debris(path):
            skipped.append((utterance.name, DEBRIS))
        # A second look, as the file system may ignore case.
        elif path.name not in names_in(path.parent) and not _holds(path.is_file):
            skipped.append((utterance.name, "no such file"))
            lost = lost or path
        else:
            utterances.append(utterance)
    refuse_faults(where, faults, "each utterance needs one correct row")
    if not stretches:
        raise CorpusError(f"{where} has no rows; it needs a header and a row for each utterance")
    if not utterances:
        example = f", e.g. {lost}" if lost else ""
        raise CorpusError(
            f"{where}: none of its {len(skipped)} files exists{example}; "
            f"relative paths start from {folder}"
        )
    classes = tuple(sorted({u.label for u in utterances if u.label is not None}))
    return Corpus(
        name=corpus,
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=classes,
        skipped=tuple(skipped),
        emotions={c: common for c in classes if (common := common_emotion(c)) is not None},
    )


def parse_seconds(text: str) -> float | None:
    """Parse seconds or text such as ``1:23.5``, ``0 days 00:00:01.500000``; None if blank.

    Raises
    ------
    CorpusError
        For any other text, and for negative or infinite times.
    """
    if not text:
        return None
    if match := _TIMEDELTA.fullmatch(text):
        part = {key: int(value or 0) for key, value in match.groupdict().items()}
        whole = (part["days"] * 24 + part["hours"]) * 3600 + part["minutes"] * 60 + part["seconds"]
        nanoseconds = int((match["fraction"] or "").ljust(9, "0"))
        if (match["hours"] is None or part["minutes"] < 60) and part["seconds"] < 60:
            return (whole * 10**9 + nanoseconds) / 10**9
    with contextlib.suppress(ValueError):
        if (seconds := read_number(text)) >= 0.0:
            return abs(seconds)  # no -0.0
    raise CorpusError(
        f"{text!r} is not a time; allowed: seconds such as 1.5, at least 0, or "
        "1:23.5 or 0 days 00:00:01.500000"
    )


def _utterance(cells: Mapping[str, str], folder: Path, base: str) -> tuple[str, Utterance]:
    """Return file and segment as text, which is unique, and the utterance."""
    file, path = _locate(cells["file"], folder, base)
    start = _field(parse_seconds, "start", cells) or 0.0
    end = _field(parse_seconds, "end", cells)
    if end is not None and end <= start:
        raise CorpusError(f"end {_short(end)} s is not after start {_short(start)} s")
    stretch = file
    if start or end is not None:
        stretch += f":{_short(start)}-{'' if end is None else _short(end)}"
    return stretch, Utterance(
        name=cells.get("name") or stretch,
        path=path,
        label=cells.get("emotion") or None,
        speaker=read_speaker(cells.get("speaker", "")),
        start=start,
        end=end,
        gender=_field(_gender, "gender", cells),
        session=cells.get("session") or None,
        dialogue=cells.get("dialogue") or None,
        style=cells.get("style") or None,
        split=cells.get("split") or None,
        valence=_field(_rating, "valence", cells),
        arousal=_field(_rating, "arousal", cells),
        dominance=_field(_rating, "dominance", cells),
    )


def _locate(text: str, folder: Path, base: str) -> tuple[str, Path]:
    """Return a file as text, relative to ``folder`` if it is inside, and its path.

    ``base`` is ``folder`` as absolute text. Links are not followed.
    """
    if not text:
        raise CorpusError(f"file is blank; allowed: a path, absolute or relative to {folder}")
    if _DRIVE.match(text) and os.name != "nt":
        raise CorpusError(
            f"file {text!r} is a Windows path, which this system does not have; "
            f"write it relative to {folder}"
        )
    plain = posixpath.normpath(text.replace("\\", "/"))
    if plain.startswith("/") or (os.name == "nt" and plain[1:2] == ":"):
        inside = plain.removeprefix(f"{base}/")
        if inside == plain:
            return plain, Path(plain)
        plain = inside
    elif plain == ".." or plain.startswith("../"):
        raise CorpusError(
            f"file {text!r} leaves {folder}; allowed: a path inside it or an absolute path"
        )
    return plain, folder / plain


def _field(parse: Any, field: str, cells: Mapping[str, str]) -> Any:
    """Parse a cell; errors name its field."""
    text = cells.get(field)
    if not text:
        return None
    try:
        return parse(text)
    except CorpusError as error:
        raise CorpusError(f"{field} {error}") from None


def _gender(text: str) -> str | None:
    try:
        return GENDERS[text.casefold()]
    except KeyError:
        raise CorpusError(
            f"{text!r} is unknown; allowed: {', '.join(GENDERS)} in any case, or blank"
        ) from None


def _rating(text: str) -> float:
    try:
        return read_number(text)
    except ValueError:
        raise CorpusError(
            f"{text!r} is not a number; allowed: digits with a decimal point, or blank"
        ) from None


def _short(seconds: float) -> str:
    """The shortest text that identifies the number."""
    return repr(seconds).removesuffix(".0")


def _check_same(stretch: str, here: Utterance, there: Utterance, place: str) -> None:
    """Refuse two rows of one segment that differ."""
    for field in here.__slots__:
        one, other = getattr(here, field), getattr(there, field)
        if one != other:
            field = "emotion" if field == "label" else field
            raise CorpusError(
                f"{stretch} has {field} {one!r} here and {other!r} in {place}; "
                "each segment of a file has one row"
            )


def _names_in(folder: Path) -> frozenset[str]:
    """Files of a folder: one listing is faster than a stat for each file of a table."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):
        return frozenset()


def _plain(name: str) -> str:
    """Name of a column without case and what stands between its words."""
    return re.sub(r"[\s_()\[\].-]+", "", name).casefold()


def _hint(field: str) -> str:
    """What to do about a missing column of the user's table."""
    if field == "file":
        return "name the column of the paths with the option file=COLUMN"
    blank = f", or leave it out with {field}= (blank)" if field in ("speaker", "emotion") else ""
    return f"name it with the option {field}=COLUMN{blank}"


def _holds(test: Callable[[], bool]) -> bool:
    """Whether a test of a path holds; false for a path that cannot be tested."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def _as_text(value: object, field: str) -> str:
    """Text of a cell of any format, without surrounding spaces; blank if unknown."""
    if isinstance(value, str):
        text = value.strip()
        if not text.isprintable() and _CONTROL.search(text):  # the first is fast
            raise CorpusError(f"{field} {text!a} has a control character")
        if field in TIMES and text.casefold() in _UNKNOWN_TIMES:
            return ""
        if text in ("nan", "NaN") and field != "speaker":
            raise CorpusError(f"{field} is {text!r}; leave it blank if unknown")
        return text
    if value is None or value != value:  # NaN, which parquet tables have for missing numbers
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CorpusError(f"{field} {value!r} is neither text nor a number")
    return repr(value)


def _read_csv(path: Path, wanted: Wanted, faults: list[str]) -> _Read:
    text = read_text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CorpusError(f"{path}, line {line}: a NUL byte; {to_utf8('UTF-16')}")
    delimiters = "\t" if path.suffix.lower() == ".tsv" else DELIMITERS
    headers = {delimiter: _csv_header(path, text, delimiter) for delimiter in delimiters}
    delimiter = max(headers, key=lambda d: (wanted.score(headers[d]), len(headers[d])))
    rows = _split_csv(path, text, delimiter)
    if next(rows, None) is None:
        raise CorpusError(f"{path} is empty; its first line must name the columns")
    found = wanted.find(path, headers[delimiter])
    lines = _zip_csv(headers[delimiter], rows, faults)
    if delimiter == ",":
        return headers[delimiter], found, lines
    numbers = {column for field, column in found.items() if field in NUMBERS}
    return headers[delimiter], found, ((at, _with_points(row, numbers)) for at, row in lines)


def _with_points(cells: dict[str, str], numbers: AbstractSet[str]) -> dict[str, str]:
    """Cells with decimal points in place of decimal commas."""
    for column in numbers:
        if _DECIMAL_COMMA.fullmatch(cells[column].strip()):
            cells[column] = cells[column].replace(",", ".")
    return cells


def _csv_header(path: Path, text: str, delimiter: str) -> list[str]:
    try:
        _, header = next(_split_csv(path, text, delimiter), (0, []))
    except CorpusError:  # a quote that ends before another delimiter
        return []
    return [name.strip() for name in header]


def _split_csv(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Non-blank rows with the number of their last line."""
    # Not str.splitlines, which also splits at separators that may occur in a cell.
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield reader.line_num, row
    except csv.Error as error:
        raise CorpusError(f"{path}, line {reader.line_num}: {error}") from error


def _zip_csv(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]], faults: list[str]
) -> Iterator[_RawRow]:
    for line, row in rows:
        if len(row) == len(header):
            yield f"line {line}", dict(zip(header, row, strict=True))
        else:
            faults.append(f"line {line}: {len(row)} cells; the header has {len(header)}")


def _read_json_lines(path: Path, wanted: Wanted, faults: list[str]) -> _Read:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = parse_json(line, "it", CorpusError)
        except CorpusError as error:
            faults.append(f"{place}: {error}")
            continue
        if isinstance(row, dict):
            rows.append((place, row))
        else:
            faults.append(f'{place}: not an object; allowed: {{"file": "a.wav", ...}}')
    if not rows:
        refuse_faults(path, faults, "each line is a JSON object")
        raise CorpusError(f"{path} is empty; each line must be a JSON object")
    header = list(dict.fromkeys(column for _, row in rows for column in row))
    found = wanted.find(path, header)
    needed = {found[field] for field in wanted.needed}
    complete = []
    for place, row in rows:
        if lacking := needed - row.keys():
            what = " and ".join(map(repr, sorted(lacking)))
            faults.append(f"{place}: no {what}; write null if it is not known")
        else:
            complete.append((place, row))
    return header, found, complete


def _read_parquet(path: Path, wanted: Wanted, faults: list[str]) -> _Read:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise CorpusError(
            f"{path}: reading parquet needs pip install pyarrow (the extra `audformat`)"
        ) from None
    try:
        with parquet.ParquetFile(path) as source:
            header = list(source.schema_arrow.names)
            found = wanted.find(path, header)
            used = list(dict.fromkeys(found.values()))
            table = source.read(columns=used)
        columns = [_parquet_values(path, column, table.column(column)) for column in used]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise CorpusError(f"cannot read {path}: {error}") from error
    rows = (
        (f"row {number}", dict(zip(used, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True), 1)
    )
    return header, found, rows


def _parquet_values(path: Path, column: str, values: Any) -> list[Any]:
    """Text, numbers and None of a column; durations as seconds."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if types.is_duration(values.type):
        whole = values.cast(pyarrow.duration("ns")).cast(pyarrow.int64()).to_pylist()
        return [None if ns is None else ns / 10**9 for ns in whole]
    allowed = ("string", "large_string", "string_view", "integer", "floating", "null")
    if not any(getattr(types, f"is_{kind}")(values.type) for kind in allowed):
        raise CorpusError(
            f"{path}: column {column!r} is of type {values.type}; allowed: text, numbers, durations"
        )
    listed: list[Any] = values.to_pylist()
    return listed


_FORMATS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}
