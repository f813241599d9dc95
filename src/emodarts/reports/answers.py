"""Sections about the answers of a run: by speaker and gender, their confidence, the worst ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.errors import RunError
from emodarts.layout import RunFolder
from emodarts.reports import plots
from emodarts.reports.document import (
    Block,
    Column,
    Figure,
    Link,
    Recording,
    Section,
    Table,
    numbers,
    words,
)
from emodarts.reports.tables import NOTHING, percent
from emodarts.scoring.confidence import BINS, Reliability, reliability, surest_mistakes
from emodarts.scoring.groups import GroupScores, gap, scores_by_group
from emodarts.scoring.predictions import Prediction

#: Mistakes that are listed.
MOST = 15


def group_section(run: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> Section:
    """Scores of each speaker and of each gender, with the gaps between them."""
    blocks: list[Block] = []
    speakers = scores_by_group(
        predictions, {p.name: p.speaker for p in predictions if p.speaker is not None}, classes
    )
    if len(speakers) > 1:
        draw = partial(plots.speaker_figure, {name: s.ua for name, s in speakers.items()})
        blocks += [
            _group_table("speaker", speakers, classes),
            Figure("speakers.png", _describe_speakers(speakers), draw),
        ]
    table = gender_table(run, predictions, classes)
    if table is not None:
        blocks.append(Section("By gender", (table,)))
    return Section("Speakers", tuple(blocks))


def gender_table(
    run: Path, predictions: Sequence[Prediction], classes: Sequence[str]
) -> Table | None:
    """Scores of each gender, with the gaps between them; None unless the run knows two."""
    gender_of = {row["name"]: row["gender"] for row in _utterances(run) if row.get("gender")}
    genders = scores_by_group(predictions, gender_of, classes)
    if len(genders) < 2:
        return None
    return _group_table("gender", genders, classes, with_gap=True)


def _group_table(
    what: str, groups: Mapping[str, GroupScores], classes: Sequence[str], with_gap: bool = False
) -> Table:
    several = what != "speaker"
    caption = f"Means over seeds. UA is over the classes that a {what} has."
    if len(groups) > plots.MOST_NAMED:
        half = plots.MOST_NAMED // 2
        caption += f" Of {len(groups):,}, the {half} with the lowest and the highest UA are listed."
        ordered = sorted(groups, key=lambda name: (groups[name].ua, name))
        groups = {name: groups[name] for name in (*ordered[:half], *ordered[-half:])}
    rows = []
    for name, scores in groups.items():
        size = [str(scores.n_speakers)] if several else []
        size.append(f"{scores.n_utterances:,}")
        rows.append((name, *size, *map(percent, (scores.ua, scores.wa, *scores.recalls))))
    if with_gap:
        columns = zip(*((s.ua, s.wa, *s.recalls) for s in groups.values()), strict=True)
        empty = [NOTHING, NOTHING] if several else [NOTHING]
        rows.append(("gap", *empty, *(percent(gap(column)) for column in columns)))
    titles = ["speakers"] if several else []
    titles += ["utterances", "UA %", "WA %", *(f"recall of {name} %" for name in classes)]
    if with_gap:
        caption += " A gap is the largest minus the smallest value, in percentage points."
    return Table((*words(what), *numbers(*titles)), tuple(rows), (caption,))


def _describe_speakers(speakers: Mapping[str, GroupScores]) -> str:
    ordered = sorted(speakers.items(), key=lambda item: item[1].ua)
    (low, worst), (high, best) = ordered[0], ordered[-1]
    return (
        f"UA of each of {len(speakers)} speakers, from {percent(worst.ua)} % ({low}) to "
        f"{percent(best.ua)} % ({high})."
    )


def calibration_section(
    predictions: Sequence[Prediction], classes: Sequence[str], fitted: Mapping[str, Any] | None
) -> Section:
    """How far the probability of an answer says how often it is right.

    Parameters
    ----------
    fitted : what ``result.json`` says of temperatures, if it does.
    """
    found = reliability(predictions, classes)
    verb = "more" if found.confidence > found.accuracy else "less"
    text = (
        f"Expected calibration error (ECE): {percent(found.ece)} points, the mean distance between "
        f"confidence and accuracy over {BINS} bins of equal width, weighted by their utterances. "
        f"The mean confidence is {percent(found.confidence)} % and the accuracy "
        f"{percent(found.accuracy)} %: on the whole the model is {verb} sure than it is right."
    )
    figure = Figure(
        "reliability.png", _describe_reliability(found), partial(plots.reliability_figure, found)
    )
    return Section("Calibration", (text, *_temperature(fitted), figure))


def _temperature(fitted: Mapping[str, Any] | None) -> tuple[str, ...]:
    if fitted is None:
        return ()
    if fitted["fitted_on"] == "nothing":
        return ("Probabilities have no temperature.",)
    return (
        f"A temperature ({fitted['temperature']:.2f} on average) was fitted on "
        f"{fitted['fitted_on']}; without it the error would be {percent(fitted['ece_before'])}.",
    )


def _describe_reliability(found: Reliability) -> str:
    parts = [
        f"confidence {percent(b.confidence)} %, accuracy {percent(b.accuracy)} % ({b.count:,})"
        for b in found.bins
        if b.count
    ]
    return (
        f"Reliability diagram, accuracy by confidence with counts of answers: {'; '.join(parts)}."
    )


def mistake_section(
    run: Path,
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    audio: Path | None,
    page: Path,
) -> Section:
    """The utterances that are most surely wrong.

    Parameters
    ----------
    audio : folder of the corpus, whose files are linked; None for no links.
    page : folder of the report, to which links are relative.

    Raises
    ------
    RunError
        If ``audio`` is no folder.
    """
    mistakes = surest_mistakes(predictions, classes, MOST)
    if not mistakes:
        return Section("Surest mistakes", ("Every test utterance was classified correctly.",))
    sounds: Mapping[str, Link] = {}
    columns: list[Column] = [*words("utterance", "speaker"), *numbers("fold")]
    columns += [*words("true", "answer"), *numbers("confidence %", "of the true class %")]
    text = "The wrong answers with the highest probability (mean over seeds)."
    if audio is not None:
        sounds = _recordings(run, [m.name for m in mistakes], audio, page)
        columns += words("sound")
        missing = len({m.name for m in mistakes} - set(sounds))
        if missing:
            text += f" Below {audio} there is no file of the same content for {missing} of them."
    rows: list[tuple[str | Link, ...]] = []
    for m in mistakes:
        row: list[str | Link] = [m.name, m.speaker or NOTHING, str(m.fold), m.label, m.answer]
        row += [percent(m.confidence), percent(m.truth)]
        if audio is not None:
            row.append(sounds.get(m.name, NOTHING))
        rows.append(tuple(row))
    return Section("Surest mistakes", (text, Table(tuple(columns), tuple(rows))))


def _recordings(run: Path, names: Iterable[str], audio: Path, page: Path) -> dict[str, Recording]:
    """Links to the sound of utterances: files called as they are, with the content of the run."""
    if not audio.is_dir():
        raise RunError(f"--audio {audio} is not a folder; give the folder of the corpus")
    wanted = {row["name"]: row for row in _utterances(run) if row["name"] in set(names)}
    by_stem: dict[str, list[Path]] = {}
    for folder, _, inside in os.walk(audio):
        for name in inside:
            by_stem.setdefault(Path(name).stem, []).append(Path(folder, name))
    found = {}
    for name, row in wanted.items():
        last = Path(name).name
        for path in sorted({*by_stem.get(last, ()), *by_stem.get(Path(last).stem, ())}):
            if not row.get("sha256") or files.sha256_of(path) == row["sha256"]:
                start, end = row.get("start") or "0", row.get("end") or ""
                whole = not end and not float(start)
                stretch = "" if whole else f"{float(start):g}" + (f",{float(end):g}" if end else "")
                target = Path(os.path.relpath(path.resolve(), page.resolve())).as_posix()
                found[name] = Recording(name, target, stretch)
                break
    return found


def _utterances(run: Path) -> list[dict[str, str]]:
    path = RunFolder(run).utterances
    return files.read_csv(path, RunError) if path.is_file() else []
