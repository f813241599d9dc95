"""Any audio files, one folder for each emotion; speakers by a regular expression.

``ROOT/happy/anna-01.wav`` and ``ROOT/happy/anna/01.wav`` are both labelled ``happy``. With the
option ``speaker=/(\\w+)-\\d+`` or ``speaker=^[^/]+/([^/]+)/`` the speaker of one or the other is
``anna``.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    check_folder,
    read_speaker,
    refuse_faults,
    walk_files,
    why_unread,
)
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, list_skipped, shown


def read_audiofolder(root: Path | None, *, speaker: str = "") -> Corpus:
    """List the audio files below ``root``; the folder directly in ``root`` is the label.

    An utterance is named after its path below ``root``, with ``/`` and the suffix.

    Parameters
    ----------
    speaker : regular expression that is searched in the name; its group ``speaker``, or else its
        first group, is the speaker. If empty, speakers are unknown.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or has no folder with audio files; if ``speaker``
        is not a regular expression, has no group, or finds no speaker in a name; or if a name is
        not UTF-8.
    """
    wanted = f"one folder for each emotion with files in {' '.join(AUDIO_SUFFIXES)}"
    root = check_folder(root, "audiofolder", wanted)
    pattern = _compile(speaker) if speaker else None
    utterances, skipped, faults, nameless = [], [], [], []
    for path in walk_files(root):
        reason = why_unread(path)
        if not reason and path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        name = path.relative_to(root).as_posix()
        label, inside, _ = name.partition("/")
        if reason := reason or _reason(label, inside):
            skipped.append((shown(name), reason))
        elif not _is_utf8(name):
            nameless.append(ascii(name))
        else:
            who = (pattern and _find_speaker(pattern, name)) or ""
            if pattern and not who:
                faults.append(name)
            utterances.append(Utterance(name, path, label, read_speaker(who)))
    refuse_faults(root, nameless, "file and folder names must be UTF-8; rename")
    refuse_faults(root, faults, f"speaker={speaker} finds no speaker in these names")
    if not utterances:
        raise CorpusError(
            f"{root} has no folders with audio files; expected {wanted}{list_skipped(skipped)}"
        )
    classes = sorted({u.label for u in utterances if u.label is not None})
    return Corpus(
        name="audiofolder",
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=tuple(classes),
        skipped=tuple(skipped),
        emotions={own: common for own in classes if (common := common_emotion(own))},
    )


def _reason(label: str, inside: str) -> str:
    """Why an audio file is left out for its place, or ``""``."""
    if not inside:
        return "not in a folder named after an emotion"
    return "in a hidden folder" if label.startswith(".") else ""


def _is_utf8(name: str) -> bool:
    """Whether a name can be written to result files; undecodable bytes cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _compile(speaker: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of patterns that a later Python will read otherwise
            pattern = re.compile(speaker)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise CorpusError(f"speaker={speaker} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise CorpusError(f"speaker={speaker} has no group; put the speaker's part in parentheses")
    return pattern


def _find_speaker(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    return match["speaker" if "speaker" in pattern.groupindex else 1] if match else None
