"""audformat databases: ``db.yaml`` and tables of files or segments as CSV or parquet.

H. Wierstorf et al., "audb -- Sharing and versioning of audio and annotation data in Python",
arXiv 2303.00645; the format: https://audeering.github.io/audformat.

The library audformat is not used: it reads ``db.yaml`` with a loader that runs code named in the
file, and prefers a pickled copy of a table. Here everything in ``db.yaml`` is read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emodarts.corpora.folder import check_folder, read_text
from emodarts.corpora.table import Row, Wanted, corpus_of_rows, parse_seconds, read_rows
from emodarts.corpora.utterance import Corpus
from emodarts.errors import CorpusError, did_you_mean, list_some

HEADER = "db.yaml"

OF_A_RECORDING = ("speaker", "gender", "session", "dialogue", "style")
"""Fields that may also be in other tables, by file and segment or by file."""

OF_A_RATING = ("emotion", "split", "valence", "arousal", "dominance")
"""Fields that must be in the table itself."""

Stretch = tuple[str, float, float | None]
"""File, start and end in seconds."""


def read_audformat(
    root: Path | None, *, table: str = "", emotion: str = "emotion", speaker: str = "speaker"
) -> Corpus:
    """List the utterances of a database; no audio file is opened.

    Parameters
    ----------
    root : folder with ``db.yaml``, its tables ``db.<table>.csv`` or ``.parquet``, and the audio.
        The reader ``table`` reads one such table without its header.
    table : name of a table, or several names separated by commas, e.g. one for each split;
        default: the only table with the emotion's column, or the one named after that column.
    emotion, speaker : names of columns; ``""`` if there is none. Speaker, gender, session,
        dialogue and style are taken from other tables if the table lacks them, and gender also
        from the labels of the speaker scheme.

    Raises
    ------
    CorpusError
        If ``root`` holds no such database; if a table, a column or every audio file is missing; if
        an emotion is not in its scheme; or if rows are wrong or contradict each other.
    """
    root = check_folder(root, "audformat", f"an audformat database ({HEADER} and its tables)")
    database = _read_header(root / HEADER)
    columns = {field: field for field in OF_A_RECORDING + OF_A_RATING}
    columns |= {"emotion": emotion, "speaker": speaker}
    columns = {field: column for field, column in columns.items() if column}
    chosen = database.choose(table, emotion)
    everywhere = [column for t in database.tables.values() for column in t.columns]
    if speaker and speaker not in everywhere:
        raise CorpusError(
            f"{root / HEADER}: no table has the column {speaker!r}"
            f"{did_you_mean(speaker, everywhere)}; name it with the option speaker=COLUMN, or "
            f"use speaker= (blank) if there is none; columns: {_listed(everywhere)}"
        )
    faults: list[str] = []
    rows = _rows(database, chosen, columns, faults)
    return corpus_of_rows("audformat", root, rows, root, faults)


@dataclass(frozen=True)
class _Table:
    """A table as the header declares it.

    Attributes
    ----------
    columns : scheme of each column, or ``""``.
    index : column of each index field; a misc table has the field ``"key"``.
    split : name of the split, or ``""``.
    """

    columns: dict[str, str]
    index: dict[str, str]
    split: str


@dataclass(frozen=True)
class _Database:
    """A header. ``labels`` by scheme: names, names with attributes, or the name of a misc table."""

    path: Path
    tables: Mapping[str, _Table]
    misc_tables: Mapping[str, _Table]
    labels: Mapping[str, Any]

    def choose(self, names: str, emotion: str) -> list[str]:
        """Names of the tables to read."""
        if names:
            chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
            for name in chosen:
                if name not in self.tables:
                    why = "lists no files" if name in self.misc_tables else "does not exist"
                    raise CorpusError(
                        f"{self.path}: table {name!r} {why}{did_you_mean(name, self.tables)}; "
                        f"allowed: {_listed(self.tables)}"
                    )
                columns = self.tables[name].columns
                if emotion and emotion not in columns:
                    raise CorpusError(
                        f"{self.path}: table {name!r} has no column {emotion!r}"
                        f"{did_you_mean(emotion, columns)}; name it with the option "
                        f"emotion=COLUMN; its columns: {_listed(columns)}"
                    )
            return chosen
        able = [n for n, table in self.tables.items() if not emotion or emotion in table.columns]
        if len(able) > 1 and emotion not in able:
            raise CorpusError(
                f"{self.path} has {len(able)} tables with emotions; choose one or several with the "
                f"option table=NAME or table=NAME,NAME: {_listed(able)}"
            )
        if not able:
            everywhere = [column for t in self.tables.values() for column in t.columns]
            raise CorpusError(
                f"{self.path}: no table has the column {emotion!r}"
                f"{did_you_mean(emotion, everywhere)}; name it with the option emotion=COLUMN; "
                f"columns: {_listed(everywhere)}"
            )
        return [emotion] if len(able) > 1 else able

    def read(self, name: str, fields: Mapping[str, str], faults: list[str]) -> Iterator[Row]:
        """Rows of a table or misc table; their locations name its file."""
        paths = [self.path.with_name(f"db.{name}{suffix}") for suffix in (".parquet", ".csv")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            pickled = paths[0].with_suffix(".pkl")
            raise CorpusError(
                f"neither {paths[0]} nor {paths[1].name} exists"
                + (
                    f"; {pickled.name} is not read, as a pickle can run code: save the "
                    'database with storage_format="csv" or "parquet"'
                    if pickled.is_file()
                    else ""
                )
            )
        own: list[str] = []
        try:
            wanted = Wanted(fields, fields.keys(), lambda field: f"{HEADER} declares it")
            _, _, rows = read_rows(path, wanted, own)
            for place, cells in rows:
                yield f"{path.name}, {place}", cells
        finally:
            faults.extend(f"{path.name}, {fault}" for fault in own)

    def facts(self, columns: Mapping[str, str], faults: list[str]) -> dict[str, dict[Stretch, str]]:
        """Values of each field by segment, or by file for filewise tables, from all tables."""
        facts: dict[str, dict[Stretch, str]] = {field: {} for field in columns}
        for name, table in self.tables.items():
            own = {field: column for field, column in columns.items() if column in table.columns}
            if not own:
                continue
            for place, cells in self.read(name, table.index | own, faults):
                try:
                    stretch = _stretch(cells)
                except CorpusError as error:
                    faults.append(f"{place}: {error}")
                    continue
                for field in own:
                    here = cells[field]
                    there = facts[field].setdefault(stretch, here) if here else here
                    if here != there:
                        faults.append(
                            f"{place}: {field} of {cells['file']} is {here!r} here and {there!r} "
                            "in another row or table"
                        )
        return facts

    def genders(self, speaker: str, faults: list[str]) -> dict[str, str]:
        """Gender of each speaker from the labels of the speaker scheme, perhaps in a misc table."""
        schemes = [t.columns[speaker] for t in self.tables.values() if speaker in t.columns]
        labels = next((self.labels[scheme] for scheme in schemes if scheme in self.labels), "")
        if isinstance(labels, dict):
            facts = {name: fact for name, fact in labels.items() if isinstance(fact, dict)}
            return {name: _text(fact.get("gender")) for name, fact in facts.items()}
        if not isinstance(labels, str) or labels not in self.misc_tables:
            return {}
        misc = self.misc_tables[labels]
        if "gender" not in misc.columns:
            return {}
        rows = self.read(labels, {**misc.index, "gender": "gender"}, faults)
        return {cells["key"]: cells["gender"] for _, cells in rows}


def _rows(
    database: _Database, chosen: Sequence[str], columns: Mapping[str, str], faults: list[str]
) -> Iterator[Row]:
    """Rows of the chosen tables, completed from the rest of the database."""
    genders = database.genders(columns.get("speaker", ""), faults)
    tables = [database.tables[name] for name in chosen]
    elsewhere = {
        field: columns[field]
        for field in OF_A_RECORDING
        if field in columns and any(columns[field] not in table.columns for table in tables)
    }
    facts = database.facts(elsewhere, faults)
    for name, table in zip(chosen, tables, strict=True):
        own = {field: column for field, column in columns.items() if column in table.columns}
        labels = database.labels.get(table.columns.get(columns.get("emotion", ""), ""))
        scheme = set(labels) if isinstance(labels, list | dict) else None
        for place, cells in database.read(name, table.index | own, faults):
            label = cells.get("emotion")
            if label and scheme is not None and label not in scheme:
                faults.append(
                    f"{place}: {columns['emotion']} {label!r} is not in its scheme; "
                    f"allowed: {_listed(scheme)}"
                )
                continue
            try:
                file, start, end = _stretch(cells)
            except CorpusError as error:
                faults.append(f"{place}: {error}")
                continue
            for field in elsewhere.keys() - own.keys():
                known = facts[field]
                cells[field] = known.get((file, start, end)) or known.get((file, 0.0, None), "")
            cells["gender"] = cells["gender"] or genders.get(cells.get("speaker", ""), "")
            cells.setdefault("split", table.split)
            yield place, cells


def _stretch(cells: Mapping[str, str]) -> Stretch:
    start, end = parse_seconds(cells.get("start", "")), parse_seconds(cells.get("end", ""))
    return cells["file"], start or 0.0, end


def _read_header(path: Path) -> _Database:
    if not path.is_file():
        raise CorpusError(f"{path.parent} has no {HEADER}, the header of an audformat database")
    try:
        # Yields lists, mappings and text only, whatever the tags. The faster loader in C crashes
        # on deep nesting.
        header = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise CorpusError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    header = _mapping(path, "the header", header)
    tables, misc_tables = {}, {}
    for name, entry in _entries(path, "tables", header):
        levels = ("file", "start", "end") if entry.get("type") == "segmented" else ("file",)
        index = {level: level for level in levels}
        tables[name] = _Table(_columns(path, name, entry), index, _text(entry.get("split_id")))
    for name, entry in _entries(path, "misc_tables", header):
        keys = entry.get("levels")
        index = {"key": _text(next(iter(keys), "")) if isinstance(keys, list | dict) else ""}
        misc_tables[name] = _Table(_columns(path, name, entry), index, "")
    for name in (*tables, *misc_tables):
        if not re.fullmatch(r"[^/\\]{1,200}", name):
            raise CorpusError(f"{path}: table {name!r}; allowed: a name without / and \\")
    labels = {
        name: [_text(label) for label in labels] if isinstance(labels, list) else labels
        for name, entry in _entries(path, "schemes", header)
        if (labels := entry.get("labels"))
    }
    return _Database(path, tables, misc_tables, labels)


def _columns(path: Path, table: str, entry: Mapping[str, Any]) -> dict[str, str]:
    columns = _mapping(path, f"columns of table {table}", entry.get("columns"))
    return {
        name: _text(_mapping(path, f"column {name} of table {table}", column).get("scheme_id"))
        for name, column in columns.items()
    }


def _entries(
    path: Path, section: str, header: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    entries = _mapping(path, section, header.get(section))
    return [(name, _mapping(path, f"{section}: {name}", e)) for name, e in entries.items()]


def _mapping(path: Path, what: str, value: Any) -> dict[str, Any]:
    """The value as a mapping; blank and null are empty."""
    if value in (None, "", "null", "~"):
        return {}
    if not isinstance(value, dict):
        raise CorpusError(f"{path}: {what} is {str(value)[:80]!r}; it must be a mapping")
    return value


def _text(value: Any) -> str:
    """Text of the header; a list or mapping in place of text is ignored."""
    return value if isinstance(value, str) else ""


def _listed(names: Iterable[str]) -> str:
    return list_some(sorted(dict.fromkeys(names)), 20) or "none"
