"""EmoBox: lists, labels and published folds of one of its 32 corpora.

Z. Ma et al., "EmoBox: Multilingual Multi-corpus Speech Emotion Recognition Toolkit and
Benchmark", Interspeech 2024. A corpus is a folder of lists with one JSON object per line::

    emodb/emodb.jsonl
    emodb/label_map.json
    emodb/fold_1/emodb_train_fold_1.jsonl        # and emodb_test_fold_1.jsonl
    {"key": "emodb-03a01Wa", "dataset": "emodb", "wav": "downloads/emodb/wav/03a01Wa.wav",
     "emo": "anger", ...}

Lists name no speakers. For corpora that are known by their file names, such as EmoDB, IEMOCAP,
RAVDESS and CREMA-D, they come from these; for others they are unknown.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from emodarts.corpora import crema_d, emodb, iemocap, ravdess
from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    DEBRIS,
    OTHER_FORMAT,
    check_folder,
    format_rank,
    is_debris,
    read_text,
    refuse_faults,
    walk_files,
)
from emodarts.corpora.schemes import SCHEMES
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, PublishedFold, Utterance
from emodarts.errors import CorpusError, list_some

Parts = tuple[str, ...]

FIELDS = ("key", "dataset", "wav", "emo")
"""Fields of a line that are used; each is a string."""

PARTS = ("train", "valid", "test")

_WANTED = "the lists of an EmoBox corpus, emodb.jsonl or fold_1/emodb_train_fold_1.jsonl"
_EXPECTED = f"each line is an object with the strings {', '.join(FIELDS)}"
_FOLDER = re.compile("fold_(0|[1-9][0-9]{0,3})")
_PART = re.compile(rf".+_({'|'.join(PARTS)})_(fold_[0-9]+)\.jsonl")
_LONE = re.compile("[\ud800-\udfff]")  # half of a surrogate pair


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    dataset: str
    wav: Parts
    emo: str
    place: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.emo}, {'/'.join(self.wav)}"


def read_emobox(root: Path | None, *, audio: str = "") -> Corpus:
    """List an EmoBox corpus with its folds, in ``root``, e.g. ``EmoBox/data/emodb``.

    A row is matched to the file whose path shares the longest ending with the row's path: for
    ``downloads/emodb/wav/03a01Wa.wav``, ``EmoDB/wav/03a01Wa.wav`` is preferred to
    ``EmoDB/old/03a01Wa.wav``. No other row may share this ending, unless it is the whole of one
    of the two paths: if ``ann/1.wav`` and ``bob/1.wav`` are listed, neither matches ``cy/1.wav``.

    Parameters
    ----------
    audio : folder of the audio files. If empty, the paths of the lists are searched for in
        ``root`` and the folders above it, then among all files in ``root``.

    Raises
    ------
    CorpusError
        If ``root`` or ``audio`` is missing or has none of the files; if a list is malformed,
        repeats an utterance or contradicts another; if a fold is missing or incomplete, has an
        utterance that is not listed, or one in two of its parts; or if two audio files match a
        row equally well.
    """
    root = check_folder(root, "emobox", _WANTED)
    parts, skipped = _find_folds(root)
    rows, keys = _read_lists(root, parts)
    sound = _find_sound(root, audio, rows.values(), skipped)
    classes = sorted({row.emo for key, row in rows.items() if key in sound})
    # The map holds EmoBox's merges, e.g. excitement into happiness. A label with a common name of
    # its own keeps it, so that labels mean the same as with the corpus' own reader.
    common = _read_label_map(root / "label_map.json")
    spelt = {own: common_emotion(own) or common_emotion(common.get(own, "")) for own in classes}
    return Corpus(
        name="emobox",
        utterances=tuple(_utterance(rows[key], sound[key]) for key in sorted(sound)),
        classes=tuple(classes),
        skipped=tuple(skipped),
        emotions={own: name for own, name in spelt.items() if name},
        folds=tuple(
            PublishedFold(
                *(tuple(key for key in fold.get(part, ()) if key in sound) for part in PARTS)
            )
            for fold in keys
        ),
    )


def _find_folds(root: Path) -> tuple[list[dict[str, Path]], list[tuple[str, str]]]:
    """Files of each fold by part, and other lists, which are skipped."""
    folds, skipped = {}, []
    for folder in sorted(root.iterdir()):
        if (match := _FOLDER.fullmatch(folder.name)) is None or not folder.is_dir():
            continue
        parts: dict[str, Path] = {}
        for path in walk_files(folder):
            if path.suffix != ".jsonl" or is_debris(path):
                continue
            part = _PART.fullmatch(path.name)
            if part is None or part[2] != folder.name:
                skipped.append((path.relative_to(root).as_posix(), "not part of a fold"))
            elif part[1] in parts:
                raise CorpusError(f"{parts[part[1]]} and {path}: a fold has one {part[1]} list")
            else:
                parts[part[1]] = path
        if lacking := {"train", "test"} - parts.keys():
            raise CorpusError(f"{folder} has no {' and no '.join(sorted(lacking))} list")
        folds[int(match[1])] = parts
    if folds.keys() != set(range(1, len(folds) + 1)):
        raise CorpusError(
            f"{root} has only {list_some(f'fold_{k}' for k in sorted(folds))}; "
            "folds must be numbered from 1 without gaps"
        )
    return [folds[k] for k in sorted(folds)], skipped


def _read_lists(
    root: Path, folds: list[dict[str, Path]]
) -> tuple[dict[str, _Row], list[dict[str, tuple[str, ...]]]]:
    """Every utterance by its key, and the keys of each fold by part."""
    tables = sorted(p for p in root.glob("*.jsonl") if not is_debris(p))
    if len(tables) > 1:
        raise CorpusError(
            f"{root} has several lists: {list_some(p.name for p in tables)}; "
            "give the folder of one corpus with one list"
        )
    if not tables and not folds:
        raise CorpusError(f"{root} is not an EmoBox corpus; expected {_WANTED} in it")
    rows = {row.key: row for table in tables for row in _read_rows(table)}
    keys = []
    for fold in folds:
        seen: dict[str, str] = {}
        faults = []
        members = {}
        for part, path in fold.items():
            listed = _read_rows(path)
            for row in listed:
                known = rows.get(row.key) if tables else rows.setdefault(row.key, row)
                if known is None:
                    faults.append(f"{row.place}: {row.key} is not in {tables[0].name}")
                elif known != row:
                    faults.append(f"{row.place}: {row.key} is {row}, but {known} in {known.place}")
                if seen.setdefault(row.key, part) != part:
                    faults.append(f"{row.place}: {row.key} is also in {seen[row.key]}")
            members[part] = tuple(row.key for row in listed)
        refuse_faults(root, faults, "each utterance must be as listed, in one part of a fold")
        keys.append(members)
    return rows, keys


def _read_rows(path: Path) -> list[_Row]:
    """Rows of a list: at least one, and no utterance twice."""
    rows: dict[str, _Row] = {}
    faults = []
    name = f"{path.parent.name}/{path.name}"
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        row = _parse(line, f"{name}, line {number}")
        if isinstance(row, str):
            faults.append(f"line {number}: {row}")
        elif row.key in rows:
            faults.append(f"line {number}: {row.key} is also in {rows[row.key].place}")
        else:
            rows[row.key] = row
    refuse_faults(path, faults, _EXPECTED)
    if not rows:
        raise CorpusError(f"{path} is empty; {_EXPECTED}")
    return list(rows.values())


def _parse(line: str, place: str) -> _Row | str:
    """Return the row of a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return f"not JSON: {line[:100]!r}"
    if not isinstance(row, dict):
        return f"not an object: {line[:100]!r}"
    for name in FIELDS:
        if not _is_text(value := row.get(name)):
            return f"{name} is {reprlib.repr(value)}" if name in row else f"no {name}"
    wav = _split(row["wav"])
    if wav[-1] == "" or ".." in wav:
        return f"wav is {row['wav']!r}, not the path of a file below a folder"
    return _Row(row["key"], row["dataset"], wav, row["emo"], place)


def _is_text(value: object) -> bool:
    """Whether a value is a non-blank string that can be written to a file."""
    return isinstance(value, str) and bool(value.strip()) and not _LONE.search(value)


def _read_label_map(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    try:
        labels = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is not JSON: {error}") from error
    if not isinstance(labels, dict) or not all(map(_is_text, labels.values())):
        raise CorpusError(
            f"{path} is {reprlib.repr(labels)}; it must be an object that maps labels to labels"
        )
    return labels


def _find_sound(
    root: Path, audio: str, rows: Iterable[_Row], skipped: list[tuple[str, str]]
) -> dict[str, Path]:
    """Audio file of every row that has one, by key; the other rows are added to ``skipped``."""
    wavs = {row.key: _without_suffix(row.wav) for row in rows}
    folder = _audio_folder(root, audio, list(wavs.values()))
    found: dict[Parts, Path] = {}
    for path in walk_files(folder):
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        name = path.relative_to(folder).as_posix()
        if is_debris(path):
            skipped.append((name, DEBRIS))
            continue
        # Audio may be kept in another format than the lists name.
        first = found.setdefault(_without_suffix(_split(name)), path)
        if first is not path:
            kept, left = sorted((first, path), key=format_rank)
            found[_without_suffix(_split(name))] = kept
            skipped.append((left.relative_to(folder).as_posix(), OTHER_FORMAT))
    files = {path: parts for parts, path in found.items()}
    sound, faults = _match(wavs, files)
    refuse_faults(folder, faults, "each row must match one file and each file one row")
    if not sound:
        raise CorpusError(
            f"{folder} has none of the {len(wavs)} files listed in {root}, "
            f"e.g. {'/'.join(next(iter(wavs.values())))}; name their folder with the option audio"
        )
    skipped += [(key, "no such file") for key in wavs if key not in sound]
    unlisted = files.keys() - set(sound.values())
    skipped += [(p.relative_to(folder).as_posix(), "not listed") for p in files if p in unlisted]
    return sound


def _match(
    wavs: Mapping[str, Parts], files: Mapping[Path, Parts]
) -> tuple[dict[str, Path], list[str]]:
    """Match rows and files, those with the longest common endings first.

    Returns the file of every row that has one, and a fault for each row or file with several
    matches.
    """
    deepest = max(map(len, files.values()), default=0)
    lengths = range(min(deepest, max(map(len, wavs.values()))), 0, -1)
    sharing = Counter(wav[-k:] for wav in wavs.values() for k in lengths if k <= len(wav))
    rows, left = dict(wavs), dict(files)
    sound: dict[str, Path] = {}
    faults = []
    for length in lengths:
        ends: dict[Parts, list[Path]] = defaultdict(list)
        for path, parts in left.items():
            if len(parts) >= length:
                ends[parts[-length:]].append(path)
        files_of: dict[str, list[Path]] = defaultdict(list)
        rows_of: dict[Path, list[str]] = defaultdict(list)
        for key, wav in rows.items():
            for path in ends.get(wav[-length:], ()) if len(wav) >= length else ():
                # An ending of several rows is ambiguous, and no row may get the audio of another.
                if sharing[wav[-length:]] == 1 or length in (len(wav), len(left[path])):
                    files_of[key].append(path)
                    rows_of[path].append(key)
        faults += [f"{k}: {found[0]} and {found[1]}" for k, found in files_of.items() if found[1:]]
        faults += [f"{keys[0]} and {keys[1]}: {p}" for p, keys in rows_of.items() if keys[1:]]
        sound |= {key: found[0] for key, found in files_of.items()}
        for key in files_of:
            del rows[key]
        for path in rows_of:
            del left[path]
    return sound, faults


def _split(path: str) -> Parts:
    """Parts of a path with / or \\; the suffix in lower case."""
    *folders, name = [p for p in path.replace("\\", "/").split("/") if p not in ("", ".")] or [""]
    stem, dot, suffix = name.rpartition(".")
    return (*folders, stem + dot + suffix.lower())


def _without_suffix(parts: Parts) -> Parts:
    stem, dot, suffix = parts[-1].rpartition(".")
    return (*parts[:-1], stem) if f"{dot}{suffix}" in AUDIO_SUFFIXES else parts


def _audio_folder(root: Path, audio: str, wavs: list[Parts]) -> Path:
    """Folder to search for audio: as small as possible, as it may hold many other files."""
    if audio:
        return check_folder(Path(audio), "emobox", f"the audio files that {root} lists")
    ends = min(wavs)[:-1], max(wavs)[:-1]  # all paths in between share their beginning
    shared = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False))]
    for folder in (root, *root.absolute().parents):
        below = folder.joinpath(*shared)
        if os.path.isdir(below):  # noqa: PTH112, is_dir raises where a folder is locked
            return below
    return root


def _utterance(row: _Row, path: Path) -> Utterance:
    parse_name = _NAMES.get(row.dataset)
    known = parse_name(path) if parse_name else ""
    if isinstance(known, str):
        return Utterance(name=row.key, path=path, label=row.emo, speaker=None)
    return replace(known, name=row.key, path=path, label=row.emo)


_NAMES: dict[str, Callable[[Path], Utterance | str]] = {
    "emodb": emodb.parse_name,
    "iemocap": iemocap.parse_name,
    "ravdess": ravdess.parse_name,
    "cremad": crema_d.parse_name,
    **{name: scheme.parse_name for name, scheme in SCHEMES.items()},
}
"""Corpora whose file names hold more information."""
