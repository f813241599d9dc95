"""Made-up predictions of few speakers, small enough to score by hand."""

from __future__ import annotations

from emodarts.scoring.predictions import Prediction

AB = ("a", "b")


def prediction(
    name: str,
    label: str,
    predicted: str,
    *,
    speaker: str | None = "s0",
    fold: int = 0,
    seed: int = 0,
) -> Prediction:
    return Prediction(name, speaker, fold, seed, label, predicted, (0.5, 0.5))


def speakers_alike(n_speakers: int, wrong: int = 1) -> list[Prediction]:
    """Each speaker has 4 utterances of class a, ``wrong`` of them missed, and 2 of b, all right."""
    return [
        prediction(
            f"{speaker}-{i}",
            "a" if i < 4 else "b",
            "b" if i < wrong or i >= 4 else "a",
            speaker=f"s{speaker}",
        )
        for speaker in range(n_speakers)
        for i in range(6)
    ]


def two_by_two() -> list[Prediction]:
    """Two folds with two seeds; fold 1 has no utterance of class b."""
    answers = {  # (fold, seed): predicted for the truth a a b, or a a
        (0, 0): "aab",  # UA 1, WA 1
        (0, 1): "aba",  # UA 1/4, WA 1/3
        (1, 0): "ab",  # UA 1/2, WA 1/2
        (1, 1): "bb",  # UA 0, WA 0
    }
    return [
        prediction(
            f"{fold}-{i}", label, predicted, speaker=f"s{fold}-{i % 2}", fold=fold, seed=seed
        )
        for (fold, seed), text in answers.items()
        for i, (label, predicted) in enumerate(zip("aab" if fold == 0 else "aa", text, strict=True))
    ]
