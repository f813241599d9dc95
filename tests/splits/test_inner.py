"""Inner folds: speakers apart, everyone judged once, and utterances where speakers are too few."""

from __future__ import annotations

import pytest
from toy_corpora import LABELS, changed, corpus

from emodarts.errors import SplitError
from emodarts.splits.inner import inner_folds

WITH_CALM = (*LABELS, "calm")


@pytest.mark.parametrize("count", [2, 3, 20])
def test_speakers_are_apart_and_every_utterance_is_judged_by_once(count: int) -> None:
    toy = corpus(n_speakers=5)
    part = tuple(range(0, len(toy.utterances), 2))
    apart, folds = inner_folds(toy.utterances, part, count, seed=0)
    assert apart == "speakers"
    assert len(folds) == min(count, 5)
    assert sorted(i for _, judged in folds for i in judged) == list(part)
    for train, judged in folds:
        assert sorted((*train, *judged)) == list(part)
        speakers = [{toy.utterances[i].speaker for i in side} for side in (train, judged)]
        assert not speakers[0] & speakers[1]
    assert inner_folds(toy.utterances, part, count, seed=0)[1] == folds


def test_partners_of_a_session_stay_together() -> None:
    toy = corpus(n_speakers=6, sessions=True)
    _, folds = inner_folds(toy.utterances, tuple(range(len(toy.utterances))), 3, seed=1)
    for train, judged in folds:
        assert not {toy.utterances[i].session for i in train} & {
            toy.utterances[i].session for i in judged
        }


def test_utterances_of_unknown_speakers_only_train() -> None:
    toy = changed(corpus(3), lambda u: {"speaker": None} if u.name.endswith("-0") else {})
    part = tuple(range(len(toy.utterances)))
    _, folds = inner_folds(toy.utterances, part, 3, seed=0)
    unknown = {i for i in part if toy.utterances[i].speaker is None}
    assert unknown
    assert all(unknown <= set(train) for train, _ in folds)


def test_one_speaker_or_a_class_of_one_speaker_divides_utterances() -> None:
    alone = corpus(n_speakers=1)
    apart, folds = inner_folds(alone.utterances, tuple(range(len(alone.utterances))), 3, seed=0)
    assert apart == "utterances"
    assert len(folds) == 3
    toy = changed(
        corpus(2), lambda u: {"label": "calm"} if u.speaker == "00" else {}, classes=WITH_CALM
    )
    assert inner_folds(toy.utterances, tuple(range(len(toy.utterances))), 2, 0)[0] == "utterances"


def test_a_class_of_one_utterance_is_refused() -> None:
    toy = changed(
        corpus(2), lambda u: {"label": "calm"} if u.name == "00-anger-0" else {}, classes=WITH_CALM
    )
    with pytest.raises(SplitError, match="at least 2"):
        inner_folds(toy.utterances, tuple(range(len(toy.utterances))), 3, seed=0)
