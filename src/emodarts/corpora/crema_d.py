"""CREMA-D: acted American English, 91 speakers, 6 emotions; intended or perceived labels.

H. Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions on
Affective Computing 5(4), 2014. The file name ``1001_IEO_NEU_XX.wav`` is actor 1001, sentence
IEO, intended emotion NEU (neutral), level XX (unspecified). Listeners' ratings are in
``processedResults/summaryTable.csv``: the letter that was chosen most often, or several letters
joined by ``:`` in case of a tie.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.folder import read_text, refuse_faults, walk_files
from emodarts.corpora.named import list_named
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}

ACTORS = range(1001, 1092)

# fmt: off
WOMEN = frozenset({
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
})
# fmt: on
"""Female actors, from ``VideoDemographics.csv``."""

SOURCES = ("intended", "voice")

TABLE = "summaryTable.csv"

EXAMPLE = "1001_IEO_NEU_XX.wav"

_NAME = re.compile(
    rf"(?P<stem>(?P<actor>[0-9]{{4}})_[A-Z]{{3}}_(?P<emotion>{'|'.join(EMOTIONS)})_)"
    "(?P<level>LO|MD|HI|XX?)"
)
_LETTERS = {emotion[0]: emotion for emotion in EMOTIONS}
_VOTE = re.compile("[{0}](:[{0}])*".format("".join(_LETTERS)))


def read_crema_d(root: Path | None, *, labels: str = "intended") -> Corpus:
    """List the files in and below ``root``; no audio file is opened.

    Parameters
    ----------
    labels : ``"intended"`` takes the emotion that the actor intended, from the file name;
        ``"voice"`` takes the one that most listeners perceived, from ``summaryTable.csv`` in or
        below ``root``. Utterances with a tie have no label.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or holds no CREMA-D file; if two files of the same
        name differ in size; if ``labels`` is unknown; or if ``summaryTable.csv`` is missing or
        malformed or gives a file two labels.
    """
    if labels not in SOURCES:
        raise CorpusError(
            f"crema-d has no labels {labels!r}{did_you_mean(labels, SOURCES)}; "
            f"allowed: {', '.join(SOURCES)}"
        )
    utterances, skipped = list_named(root, "crema-d", f"CREMA-D files like {EXAMPLE}", parse_name)
    if labels == "voice" and root is not None:
        votes = _read_votes(root)
        names = {u.name for u in utterances}
        skipped += [(name, f"not in {TABLE}") for name in sorted(names - votes.keys())]
        skipped += [(name, "no such file") for name in sorted(votes.keys() - names)]
        utterances = [replace(u, label=votes[u.name]) for u in utterances if u.name in votes]
    present = {u.label for u in utterances}
    return Corpus(
        name="crema-d",
        utterances=tuple(utterances),
        classes=tuple(label for label in EMOTIONS if label in present),
        skipped=tuple(skipped),
        emotions=EMOTIONS,
    )


def parse_name(path: Path) -> Utterance | str:
    """Return the utterance that a file's name describes, or the reason why it is not one.

    Level ``X``, which some copies have in ``1040_ITH_SAD_XX``, means ``XX``.
    """
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return f"not named like {EXAMPLE}"
    actor = int(match["actor"])
    if actor not in ACTORS:
        return f"no such actor: {actor}; allowed: {ACTORS[0]} to {ACTORS[-1]}"
    return Utterance(
        name=match["stem"] + ("XX" if match["level"] == "X" else match["level"]),
        path=path,
        label=match["emotion"],
        speaker=match["actor"],
        gender="female" if actor in WOMEN else "male",
    )


def _read_votes(root: Path) -> dict[str, str | None]:
    """Label of every file in the summary tables of ``root``; None in case of a tie."""
    tables = [path for path in walk_files(root) if path.name == TABLE]
    if not tables:
        raise CorpusError(
            f"{root} has no {TABLE} in it or below it, which labels=voice needs; "
            "CREMA-D has it in processedResults"
        )
    votes: dict[str, tuple[str, str]] = {}
    for table in tables:
        faults = []
        for line, name, vote in _rows(table):
            if not name or not _VOTE.fullmatch(vote):
                faults.append(f"line {line}: FileName {name!r}, VoiceVote {vote!r}")
                continue
            first, where = votes.setdefault(name, (vote, f"{table}, line {line}"))
            if first != vote:
                raise CorpusError(
                    f"{table}, line {line}: VoiceVote of {name} is {vote!r}, but {first!r} in "
                    f"{where}; a file has one vote"
                )
        refuse_faults(
            table, faults, f"allowed: a name and the letters {' '.join(_LETTERS)} joined by ':'"
        )
    return {name: _LETTERS.get(vote) for name, (vote, _) in votes.items()}


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file name and vote of every row."""
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""), restval="", strict=True)
    try:
        columns = reader.fieldnames or []
        if missing := [name for name in ("FileName", "VoiceVote") if name not in columns]:
            raise CorpusError(
                f"{table} has no column {' and no column '.join(missing)}; "
                f"its columns: {', '.join(columns) or 'none'}"
            )
        for row in reader:
            yield reader.line_num, row["FileName"].strip(), row["VoiceVote"].strip()
    except csv.Error as error:
        raise CorpusError(f"{table}, line {reader.reader.line_num}: not CSV: {error}") from error
