"""What is made of the answers to windows: segments, one answer for a file, and files of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emodarts import files
from emodarts.errors import EmodartsError
from emodarts.serving.model import Answer


def segments(answers: Sequence[Answer]) -> list[Answer]:
    """Neighbouring windows of one label as one answer; windows are those of one file, in order.

    Where windows overlap, a segment ends and the next begins in the middle of the overlap.
    Probabilities are the mean over the windows of a segment.
    """
    groups = [list(g) for _, g in groupby(answers, key=lambda a: (a.label, a.note))]
    found = [_joined(group) for group in groups]
    for k, (one, two) in enumerate(pairwise(found)):
        if two.start < one.end:
            middle = round((one.end + two.start) / 2, 3)
            found[k], found[k + 1] = replace(found[k], end=middle), replace(two, start=middle)
    return found


def whole(answers: Sequence[Answer]) -> Answer:
    """One answer for a file: the mean of the probabilities of its windows that have a label."""
    spoken = [a for a in answers if a.probabilities]
    found = _joined(spoken or answers)
    return replace(found, start=answers[0].start, end=max(a.end for a in answers))


def _joined(answers: Sequence[Answer]) -> Answer:
    first = answers[0]
    if not first.probabilities:
        return replace(first, end=max(a.end for a in answers))
    names = list(first.probabilities)
    mean = np.mean([list(a.probabilities.values()) for a in answers], axis=0)
    return replace(
        first,
        end=max(a.end for a in answers),
        label=names[int(mean.argmax())],
        probabilities=dict(zip(names, mean.tolist(), strict=True)),
    )


def text_grid(answers: Sequence[Answer]) -> str:
    """Segments of one file as a Praat TextGrid with one tier, ``emotion``; gaps are empty.

    Answers may not overlap; see :func:`segments`.
    """
    end = max(a.end for a in answers)
    intervals: list[tuple[float, float, str]] = []
    at = 0.0
    for a in answers:
        if a.start > at:
            intervals.append((at, a.start, ""))
        intervals.append((a.start, a.end, a.label))
        at = a.end
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "emotion"',
        "        xmin = 0",
        f"        xmax = {end}",
        f"        intervals: size = {len(intervals)}",
    ]
    for k, (start, stop, label) in enumerate(intervals, 1):
        quoted = label.replace('"', '""')
        lines += [
            f"        intervals [{k}]:",
            f"            xmin = {start}",
            f"            xmax = {stop}",
            f'            text = "{quoted}"',
        ]
    return "\n".join(lines) + "\n"


def write_text_grids(folder: Path, answers: Iterable[Sequence[Answer]]) -> None:
    """Write a TextGrid for each file, under the file's name.

    Raises
    ------
    EmodartsError
        If two files have one name.
    WriteError
        If a file cannot be written.
    """
    seen: dict[str, str] = {}
    for group in answers:
        source = group[0].file
        name = f"{Path(source).stem}.TextGrid"
        if seen.setdefault(name, source) != source:
            raise EmodartsError(f"{seen[name]} and {source} would both be {name}; predict apart")
        files.write_bytes(folder / name, text_grid(segments(group)).encode())


def write_audformat(folder: Path, classes: Sequence[str], answers: Iterable[Answer]) -> None:
    """Write an audformat database with one segmented table, ``emotion``.

    Its columns are the label and its probability; a segment without a label has neither. Files are
    named as they were given.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file", "start", "end", "emotion", "confidence"])
    labels = list(classes)
    for a in answers:
        if a.label and a.label not in labels:
            labels.append(a.label)
        confidence: Any = max(a.probabilities.values()) if a.probabilities else ""
        writer.writerow([a.file, _timedelta(a.start), _timedelta(a.end), a.label, confidence])
    header = {
        "name": "emodarts",
        "source": "predictions of emodarts",
        "usage": "unrestricted",
        "schemes": {
            "confidence": {"dtype": "float", "minimum": 0.0, "maximum": 1.0},
            "emotion": {"dtype": "str", "labels": labels},
        },
        "tables": {
            "emotion": {
                "type": "segmented",
                "columns": {
                    "emotion": {"scheme_id": "emotion"},
                    "confidence": {"scheme_id": "confidence"},
                },
            }
        },
    }
    files.write_text(folder / "db.emotion.csv", rows.getvalue())
    files.write_text(folder / "db.yaml", yaml.safe_dump(header, sort_keys=False))


def _timedelta(seconds: float) -> str:
    """``0 days 00:01:02.500000``, as pandas writes and reads it."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    days, hours = divmod(int(hours), 24)
    return f"{days} days {hours:02d}:{int(minutes):02d}:{rest:09.6f}"
