"""Spellings of emotions in label files and folder names, and their common names."""

from __future__ import annotations

from emodarts.corpora.utterance import COMMON_EMOTIONS

_SPELLINGS = {
    "anger": "ang angry anger",
    "boredom": "bor bored boredom",
    "calm": "cal calm calmness",
    "contempt": "con contempt contemptuous",
    "disgust": "dis disgust disgusted",
    "excitement": "exc excited excitement",
    "fear": "fea fear fearful afraid",
    "frustration": "fru frustrated frustration",
    "happiness": "hap happy happiness joy joyful",
    "neutral": "neu neutral",
    "sadness": "sad sadness",
    "surprise": "sur surprise surprised",
    "other": "oth other",
}
"""English nouns, adjectives and three-letter codes. Ambiguous spellings, such as single letters,
are left out."""

_COMMON = {
    spelling: common for common in COMMON_EMOTIONS for spelling in _SPELLINGS[common].split()
}


def common_emotion(label: str) -> str | None:
    """Return the name in :data:`COMMON_EMOTIONS` that a label stands for, or None.

    Case and surrounding spaces are ignored: ``"ANG"``, ``"angry"`` and ``" Anger"`` are
    ``"anger"``.
    """
    return _COMMON.get(label.strip().casefold())
