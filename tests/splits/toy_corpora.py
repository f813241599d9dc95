"""Small corpora to divide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emodarts.corpora.utterance import Corpus, Utterance

LABELS = ("anger", "happiness", "neutral", "sadness")


def corpus_of(utterances: Sequence[Utterance], **others: Any) -> Corpus:
    present = {u.known_label() for u in utterances}
    return Corpus("toy", tuple(utterances), tuple(sorted(present)), **others)


def corpus(
    n_speakers: int = 8, each: int = 6, labels: tuple[str, ...] = LABELS, sessions: bool = False
) -> Corpus:
    """Speakers of alternate gender; two of them share each session, and each of its dialogues."""
    return corpus_of(
        [
            Utterance(
                name=f"{s:02d}-{label}-{k}",
                path=Path(f"{s}.wav"),
                label=label,
                speaker=f"{s:02d}",
                gender="female" if s % 2 else "male",
                session=f"session {s // 2}" if sessions else None,
                dialogue=f"dialogue {s // 2} {k}" if sessions else None,
            )
            for s in range(n_speakers)
            for label in labels
            for k in range(each)
        ]
    )


def changed(source: Corpus, change: Callable[[Utterance], dict[str, Any]], **others: Any) -> Corpus:
    return replace(
        source, utterances=tuple(replace(u, **change(u)) for u in source.utterances), **others
    )


def parted(source: Corpus, *parts: str) -> Corpus:
    """Speaker ``k`` in part ``k`` of those given, the last for all that follow."""
    return changed(source, lambda u: {"split": parts[min(int(u.speaker or 0), len(parts) - 1)]})


def values(source: Corpus, part: Sequence[int], attribute: str) -> set[Any]:
    return {getattr(source.utterances[i], attribute) for i in part}


def unknown(source: Corpus, *speakers: str) -> Corpus:
    """The same utterances, with these speakers (or all) unknown."""
    return changed(
        source, lambda u: {"speaker": None} if not speakers or u.speaker in speakers else {}
    )
