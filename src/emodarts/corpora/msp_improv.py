"""MSP-IMPROV: English dyads, improvised, natural and read, 12 speakers in 6 sessions.

C. Busso et al., "MSP-IMPROV: an acted corpus of dyadic interactions to study emotion
perception", IEEE Transactions on Affective Computing 8(1), 2017. As distributed, with
``Evaluation.txt`` spelled ``Evalution.txt`` in some copies and ``Audio`` left out in others::

    Evaluation.txt
    Audio/session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav

A name holds sentence 01, the emotion that the *actor intended* (A), speaker F01 of session 1,
the scenario (S), the genders of the pair and the turn. The label is the raters' consensus, never
the intended emotion. Styles are the scenarios' letters P, R, S and T.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    check_folder,
    index_sound,
    read_rating,
    read_text,
    walk_files,
)
from emodarts.corpora.labelled import collect_turns, join_sound
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError

EMOTIONS = {"A": "anger", "H": "happiness", "N": "neutral", "O": "other", "S": "sadness"}

NO_CONSENSUS = "X"

LABEL_FILES = ("evaluation.txt", "evalution.txt")
"""In lower case, as case is ignored."""

GENDERS = {"F": "female", "M": "male"}

EXAMPLE = "MSP-IMPROV-S01A-F01-S-FM01"
_WANTED = f"Evaluation.txt and files like {EXAMPLE}.wav"
_EXPECTED = (
    "expected: 'UTD-IMPROV-S01A-F01-S-FM01.avi; N; A:3.000000; V:3.500000; D:2.500000 ; "
    f"N:4.000000;' with one of {', '.join(EMOTIONS)}, {NO_CONSENSUS}"
)
_CLIP = re.compile(
    r"(?:MSP|UTD)-IMPROV-(?P<turn>(?P<sentence>S\d\d[AHNS])-(?P<speaker>(?P<gender>[FM])0"
    r"(?P<session>[1-6]))-(?P<scenario>[PRST])-[FM][FM]\d+)",
    re.ASCII | re.IGNORECASE,
)
_SESSION_FOLDER = re.compile(r"session\s*(\d+)", re.ASCII | re.IGNORECASE)


def read_msp_improv(root: Path | None) -> Corpus:
    """List the turns in and below ``root``.

    Ratings are means on a scale from 1 to 5, as in the label file. A dialogue is everything that
    a session recorded around a sentence; as all sessions share their sentences, its name includes
    the session.

    Raises
    ------
    CorpusError
        If ``root`` holds no label file, if one is malformed or contradicts the other, if two
        files of one turn differ in size, or if no labelled turn has an audio file.
    """
    root = check_folder(root, "msp-improv", _WANTED)
    label_files, files = [], []
    for path in walk_files(root):
        if path.name.lower() in LABEL_FILES:
            label_files.append(path)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            files.append(path)
    if not label_files:
        raise CorpusError(f"{root} does not hold MSP-IMPROV; expected {_WANTED} in it or below it")
    sound, skipped = index_sound(files, root, lambda path: _parse_file(path, root))
    turns = collect_turns(root, _read_rows(root, label_files), _EXPECTED)
    wanted = f"{_WANTED} in it or below it"
    return join_sound("msp-improv", root, turns, sound, skipped, EMOTIONS, wanted)


def _parse_file(path: Path, root: Path) -> Utterance | str:
    """Return the turn of an audio file, or the reason why it is not one."""
    clip = _CLIP.fullmatch(path.stem)
    if clip is None:
        return f"not named like {EXAMPLE}.wav"
    folder = _session_folder(path.relative_to(root))
    if folder not in (None, clip["session"]):
        # A turn in the wrong session would be on the wrong side of a split.
        return f"in a folder of session {folder}"
    return _turn(clip, path)


def _turn(clip: re.Match[str], path: Path) -> Utterance:
    """Turn without a label. Label files name the video (UTD-), audio files begin with MSP-."""
    return Utterance(
        name=f"MSP-IMPROV-{clip['turn'].upper()}",
        path=path,
        label=None,
        speaker=clip["speaker"].upper(),
        gender=GENDERS[clip["gender"].upper()],
        session=f"session{clip['session']}",
        dialogue=f"session{clip['session']}-{clip['sentence'].upper()}",
        style=clip["scenario"].upper(),
    )


def _session_folder(file: Path) -> str | None:
    """Number of the innermost session folder that contains a file, if any."""
    for part in reversed(file.parts[:-1]):
        if match := _SESSION_FOLDER.fullmatch(part):
            return match[1].lstrip("0")
    return None


def _read_rows(root: Path, label_files: Sequence[Path]) -> Iterator[tuple[str, Utterance | str]]:
    """Location and turn of every head line; the other lines are of single raters."""
    for path in label_files:
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if line.lstrip().upper().startswith(("UTD-IMPROV-", "MSP-IMPROV-")):
                yield f"{path.relative_to(root)}, line {number}", _parse(line)


def _parse(line: str) -> Utterance | str:
    """Return the turn of a head line, or what is wrong with it."""
    file, *fields = (field.strip() for field in line.split(";"))
    clip = _CLIP.fullmatch(re.sub(r"(?i)\.(avi|mp4|wav)$", "", file))
    if clip is None:
        return f"not the name of a clip: {file[:100]!r}"
    turn = _turn(clip, Path(file))
    letter = fields[0] if fields else ""
    if letter not in (*EMOTIONS, NO_CONSENSUS):
        return f"unknown emotion {letter[:100]!r} of {turn.name}"
    # Emotions and scales share letters, but only scales have a colon.
    scales = dict(field.split(":", 1) for field in fields[1:] if ":" in field)
    try:
        arousal, valence, dominance = (read_rating(scales[scale]) for scale in "AVD")
    except (KeyError, ValueError):
        return f"A, V and D of {turn.name} are not numbers: {line[:100]!r}"
    return replace(
        turn,
        label=None if letter == NO_CONSENSUS else letter,
        valence=valence,
        arousal=arousal,
        dominance=dominance,
    )
