"""MSP-Podcast: spontaneous English of podcasts, many speakers, official partitions.

R. Lotfian and C. Busso, "Building naturalistic emotionally balanced speech corpus by retrieving
emotional speech from existing podcast recordings", IEEE Transactions on Affective Computing
10(4), 2019. As distributed, with ``labels_concensus.csv`` and ``Audio`` in older releases::

    Labels/labels_consensus.csv
    Audios/MSP-PODCAST_0001_0008.wav

The partitions share no speaker, but they may share a podcast, as its guests can be in several. So
the podcast in a file's name is not used as ``dialogue``, which no split may divide: the official
partitions would count as overlapping.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from sys import intern

from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    check_folder,
    index_sound,
    read_rating,
    read_speaker,
    read_text,
    walk_files,
)
from emodarts.corpora.labelled import collect_turns, join_sound
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean

EMOTIONS = {
    "A": "anger",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "O": "other",
    "S": "sadness",
    "U": "surprise",
}

NO_CONSENSUS = "X"

SPLITS = ("Train", "Development", "Validation", "Test1", "Test2", "Test3")
"""Older releases have Validation, newer ones Development."""

LABEL_FILES = ("labels_consensus.csv", "labels_concensus.csv")
"""In lower case, as case is ignored."""

COLUMNS = (
    "FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set",
)  # fmt: skip

EXAMPLE = "MSP-PODCAST_0001_0008.wav"
_WANTED = f"Labels/labels_consensus.csv and files like {EXAMPLE}"
_ALLOWED = (
    f"allowed: EmoClass one of {', '.join(EMOTIONS)}, {NO_CONSENSUS} or blank; numbers or blank in "
    f"EmoAct, EmoVal and EmoDom; Gender Male, Female or Unknown; Split_Set {', '.join(SPLITS)}"
)
_LETTERS: dict[str, str | None] = {
    **{letter.lower(): letter for letter in EMOTIONS},
    **dict.fromkeys(("", "nan", "no agreement", NO_CONSENSUS.lower())),
}
_LETTER_OF = {common: letter for letter, common in EMOTIONS.items()}
_GENDERS = {"female": "female", "male": "male", "unknown": None, "nan": None, "": None}
_SPLITS = {"": None, **{split.lower(): split for split in SPLITS}}
_FRACTION = re.compile(r"(?<=[0-9])\.0+\Z")
_HIDDEN = re.compile(r"MSP-PODCAST_test3_\d+", re.ASCII | re.IGNORECASE)
"""Test3: releases hold its audio but no labels."""


def read_msp_podcast(root: Path | None) -> Corpus:
    """List the turns in and below ``root``.

    Ratings are means on a scale from 1 to 7. Unknown speakers are None. Files of Test3 without a
    row are listed without a label.

    Raises
    ------
    CorpusError
        If ``root`` holds no label file, if one is malformed or contradicts another, also on
        a speaker's gender, if two files of one turn differ in size, or if no turn has an audio
        file.
    """
    root = check_folder(root, "msp-podcast", _WANTED)
    tables, files = [], []
    for path in walk_files(root):
        if path.name.lower() in LABEL_FILES:
            tables.append(path)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            files.append(path)
    if not tables:
        raise CorpusError(f"{root} does not hold MSP-Podcast; expected {_WANTED} in it or below it")
    sound, skipped = index_sound(files, root, _parse_name)
    hidden = {name: turn for name, turn in sound.items() if turn.split}
    turns = hidden | collect_turns(root, _read_rows(root, tables), _ALLOWED)
    wanted = f"{_WANTED} in it or below it"
    return join_sound("msp-podcast", root, turns, sound, skipped, EMOTIONS, wanted)


def _parse_name(path: Path) -> Utterance:
    """Return the turn of an audio file, with its split if the name holds it."""
    split = "Test3" if _HIDDEN.fullmatch(path.stem) else None
    return Utterance(name=path.stem, path=path, label=None, speaker=None, split=split)


def _read_rows(root: Path, tables: Sequence[Path]) -> Iterator[tuple[str, Utterance | str]]:
    """Location and turn of every row."""
    for path in tables:
        where = path.relative_to(root)
        for line, cells in _read_cells(path):
            yield f"{where}, line {line}", _parse(cells)


def _read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every row, in the order of :data:`COLUMNS`; none for a malformed row."""
    rows = csv.reader(io.StringIO(read_text(path)))
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        indices = [_find_column(path, header, column) for column in COLUMNS]
        for row in rows:
            if row:
                cells = [row[i].strip() for i in indices] if len(row) == len(header) else []
                yield rows.line_num, cells
    except csv.Error as error:
        raise CorpusError(f"{path}, line {rows.line_num}: not CSV: {error}") from error


def _find_column(path: Path, header: list[str], column: str) -> int:
    if header.count(column.lower()) != 1:
        raise CorpusError(
            f"{path} has {header.count(column.lower()) or 'no'} columns {column}"
            f"{did_you_mean(column.lower(), header)}; each is needed once: {', '.join(COLUMNS)}"
        )
    return header.index(column.lower())


def _parse(cells: Sequence[str]) -> Utterance | str:
    """Return the turn of a row, or what is wrong with it."""
    if not cells:
        return "more or fewer cells than the header"
    file, emotion, arousal, valence, dominance, speaker, gender, split = cells
    stem, dot, suffix = file.rpartition(".")
    name = stem if f"{dot}{suffix}".lower() in AUDIO_SUFFIXES else file
    if not name:
        return "no FileName"
    label = _LETTERS.get(emotion.lower(), "")
    if label == "":
        label = _LETTER_OF.get(common_emotion(emotion) or "")
        if label is None:
            return f"unknown EmoClass {emotion[:100]!r} of {name}"
    if gender.lower() not in _GENDERS:
        return f"unknown Gender {gender[:100]!r} of {name}"
    if split.lower() not in _SPLITS:
        return f"unknown Split_Set {split[:100]!r} of {name}"
    try:
        ratings = [read_rating(cell) for cell in (valence, arousal, dominance)]
    except ValueError:
        return f"EmoAct, EmoVal and EmoDom of {name} are not numbers: {cells[2:5]}"
    return Utterance(
        name=name,
        path=Path(f"{name}.wav"),
        label=label,
        # Tables that were processed as numbers have 1.0 instead of 1.
        speaker=read_speaker(intern(_FRACTION.sub("", speaker))),
        gender=_GENDERS[gender.lower()],
        split=_SPLITS[split.lower()],
        valence=ratings[0],
        arousal=ratings[1],
        dominance=ratings[2],
    )
