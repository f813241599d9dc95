"""RAVDESS: acted North American English, speech and song, 24 speakers, 8 emotions.

S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of Emotional Speech and
Song (RAVDESS)", PLoS ONE 13(5), 2018. The file name holds everything: ``03-01-05-01-02-01-18.wav``
is modality 03 (audio only), vocal channel 01 (speech), emotion 05 (angry), intensity 01, statement
02, repetition 01, actor 18. Actor 18 did not sing.
"""

from __future__ import annotations

import re
from pathlib import Path

from emodarts.corpora.folder import AUDIO_SUFFIXES
from emodarts.corpora.named import list_named
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}

STYLES = {"01": "speech", "02": "song"}

SPOKEN_ONLY = ("disgust", "surprised")

EXAMPLE = "03-01-05-01-02-01-18.wav"

_CODES = {
    "modality": ("03",),
    "vocal channel": tuple(STYLES),
    "emotion": tuple(EMOTIONS),
    "intensity": ("01", "02"),
    "statement": ("01", "02"),
    "repetition": ("01", "02"),
    "actor": tuple(f"{actor:02}" for actor in range(1, 25)),
}
"""Fields of a name in order, with the accepted codes."""

_NAME = re.compile("-".join(["([0-9]{2})"] * len(_CODES)))


def read_ravdess(root: Path | None) -> Corpus:
    """List the audio-only files in and below ``root``; none is opened.

    Some copies hold every file twice, in nested folders; each is listed once. Styles are
    ``speech`` and ``song``.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder or holds no RAVDESS file, or if two files of the
        same name differ in size.
    """
    utterances, skipped = list_named(
        root, "ravdess", f"RAVDESS files like {EXAMPLE}", parse_name, (*AUDIO_SUFFIXES, ".mp4")
    )
    present = {u.label for u in utterances}
    return Corpus(
        name="ravdess",
        utterances=tuple(utterances),
        classes=tuple(label for label in EMOTIONS.values() if label in present),
        skipped=tuple(skipped),
        emotions={own: common for own in EMOTIONS.values() if (common := common_emotion(own))},
    )


def parse_name(path: Path) -> Utterance | str:
    """Return the utterance that a file's name describes, or the reason why it is not one."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return f"not named like {EXAMPLE}"
    for (field, allowed), code in zip(_CODES.items(), match.groups(), strict=True):
        if code not in allowed:
            if field == "modality":
                return f"modality {code}: only 03, audio without picture, is read"
            return f"no such {field}: {code}; allowed: {allowed[0]} to {allowed[-1]}"
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        return "a video, though modality 03 is audio"
    _, channel, emotion, intensity, *_, actor = match.groups()
    label, style = EMOTIONS[emotion], STYLES[channel]
    if style == "song" and label in SPOKEN_ONLY:
        return f"{label} was not sung"
    if label == "neutral" and intensity != "01":
        return f"neutral has intensity 01 only, not {intensity}"
    return Utterance(
        name=path.stem,
        path=path,
        label=label,
        speaker=actor,
        gender="male" if int(actor) % 2 else "female",
        style=style,
    )
