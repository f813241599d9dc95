"""Any audio files; emotions by their folders, or as speakers by a regular expression.

``ROOT/happy/anna-01.wav`` and ``ROOT/happy/anna/01.wav`` are both labelled ``happy``. With the
option ``speaker=/(\\w+)-\\d+`` or ``speaker=^[^/]+/([^/]+)/`` the speaker of one or the other is
``anna``. With ``emotion=_([a-z]+)_`` the label of ``ROOT/anna/01_happy_x.wav`` is ``happy``.
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


def read_audiofolder(root: Path | None, *, emotion: str = "", speaker: str = "") -> Corpus:
    """List the audio files below ``root``; the folder directly in ``root`` is the label.

    An utterance is named after its path below ``root``, with ``/`` and the suffix.

    Parameters
    ----------
    emotion : regular expression that is searched in the name; its group ``emotion``, or else its
        first group, is the label, and folders mean nothing. Files in which it finds nothing are
        left out.
    speaker : likewise for the speaker. If empty, speakers are unknown.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or has no such files; if ``emotion`` or ``speaker``
        is not a regular expression or has no group; if ``emotion`` finds nothing in any name, or
        ``speaker`` nothing in one; or if a name is not UTF-8.
    """
    wanted = f"one folder for each emotion with files in {' '.join(AUDIO_SUFFIXES)}"
    root = check_folder(root, "audiofolder", wanted)
    emotions = _compile("emotion", emotion)
    speakers = _compile("speaker", speaker)
    utterances, skipped, faults, nameless, unlabelled = [], [], [], [], []
    for path in walk_files(root):
        reason = why_unread(path)
        if not reason and path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        name = path.relative_to(root).as_posix()
        folder, inside, _ = name.partition("/")
        if reason := reason or _reason(folder if inside else "", needs_folder=emotions is None):
            skipped.append((shown(name), reason))
            continue
        if not _is_utf8(name):
            nameless.append(ascii(name))
            continue
        label = folder if emotions is None else _find("emotion", emotions, name)
        if not label:
            unlabelled.append(name)
            continue
        who = (speakers and _find("speaker", speakers, name)) or ""
        if speakers and not who:
            faults.append(name)
        utterances.append(Utterance(name, path, label, read_speaker(who)))
    refuse_faults(root, nameless, "file and folder names must be UTF-8; rename")
    refuse_faults(root, faults, f"speaker={speaker} finds no speaker in these names")
    if not utterances and unlabelled:
        refuse_faults(root, unlabelled, f"emotion={emotion} finds no emotion in these names")
    if not utterances:
        raise CorpusError(
            f"{root} has no folders with audio files; expected {wanted}{list_skipped(skipped)}"
        )
    skipped += [(name, f"emotion={emotion} finds nothing in the name") for name in unlabelled]
    classes = sorted({u.label for u in utterances if u.label is not None})
    return Corpus(
        name="audiofolder",
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=tuple(classes),
        skipped=tuple(skipped),
        emotions={own: common for own in classes if (common := common_emotion(own))},
    )


def _reason(folder: str, needs_folder: bool) -> str:
    """Why an audio file is left out for its place, or ``""``."""
    if needs_folder and not folder:
        return "not in a folder named after an emotion"
    return "in a hidden folder" if folder.startswith(".") else ""


def _is_utf8(name: str) -> bool:
    """Whether a name can be written to result files; undecodable bytes cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _compile(option: str, given: str) -> re.Pattern[str] | None:
    if not given:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of patterns that a later Python will read otherwise
            pattern = re.compile(given)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise CorpusError(f"{option}={given} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise CorpusError(f"{option}={given} has no group; put the {option} in parentheses")
    return pattern


def _find(group: str, pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    return match[group if group in pattern.groupindex else 1] if match else None
