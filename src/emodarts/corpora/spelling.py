"""From the spellings that label files and folders use to the common names of emotions."""

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
"""English nouns, adjectives and the codes of three letters; what stands for two emotions, like a
single letter, is left out."""

_COMMON = {
    spelling: common for common in COMMON_EMOTIONS for spelling in _SPELLINGS[common].split()
}


def common_emotion(label: str) -> str | None:
    """Return the name in :data:`COMMON_EMOTIONS` that a label spells, or None.

    Case and surrounding spaces do not count: ``"ANG"``, ``"angry"`` and ``" Anger"`` are
    ``"anger"``.
    """
    return _COMMON.get(label.strip().casefold())
